"""Whether the ``config.pbtxt`` of a model describes its ONNX graph, by the rules of Triton's onnxruntime backend."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

TYPES: Mapping[str, str] = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(string)": "TYPE_STRING",
}
"""Triton's names of ONNX Runtime's types."""

VARIABLE = -1


class Node(Protocol):
    """An input or output of a session, as ONNX Runtime describes it."""

    name: str
    type: str
    shape: list[int | str | None]


class ConfigError(ValueError):
    """The configuration of a model is not that of its graph."""


def check_config(config: Mapping[str, Any], inputs: Sequence[Node], outputs: Sequence[Node]) -> None:
    """Compare a configuration, as Triton's JSON of it, with the graph.

    The real backend lets a fixed size of an input stand for a variable one; here both have to be the same. Outputs of
    the graph that the configuration leaves out are allowed.

    Raises:
        ConfigError: names, types or dimensions differ, or the configuration asks for what the backend cannot do.
    """
    batches = int(config.get("max_batch_size", 0)) > 0
    wanted = {tensor["name"] for tensor in config["input"]}
    if missing := sorted({node.name for node in inputs} - wanted):
        raise ConfigError(f"the graph has the inputs {', '.join(missing)}, which the configuration leaves out")
    for kind, nodes in (("input", inputs), ("output", outputs)):
        known = {node.name: node for node in nodes}
        for tensor in config[kind]:
            if tensor["name"] not in known:
                raise ConfigError(f"{kind} {tensor['name']}: the graph has none of that name, only {', '.join(known)}")
            _check_tensor(kind, tensor, known[tensor["name"]], batches=batches)


def _check_tensor(kind: str, tensor: Mapping[str, Any], node: Node, *, batches: bool) -> None:
    where = f"{kind} {node.name}"
    for setting in ("optional", "allow_ragged_batch"):
        if tensor.get(setting):
            raise ConfigError(f"{where}: {setting} is not possible for a graph that is run in batches")
    if TYPES.get(node.type) != tensor["data_type"]:
        raise ConfigError(f"{where}: {tensor['data_type']}, and the graph has {TYPES.get(node.type, node.type)}")
    sizes = [size if isinstance(size, int) else VARIABLE for size in node.shape]
    if batches and sizes[:1] != [VARIABLE]:
        raise ConfigError(f"{where}: max_batch_size needs a variable first dimension, and the graph has {sizes}")
    dims = [VARIABLE] * batches + [int(size) for size in tensor["dims"]]
    if dims != sizes:
        raise ConfigError(f"{where}: dimensions {dims}, and the graph has {sizes} ({VARIABLE} is any size)")
