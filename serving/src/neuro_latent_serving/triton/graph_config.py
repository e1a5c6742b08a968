"""Whether the ``config.pbtxt`` of a model describes its ONNX graph, by the rules of Triton's onnxruntime backend."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

TYPES: Mapping[str, str] = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(bfloat16)": "TYPE_BF16",
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(string)": "TYPE_STRING",
}
"""Triton's names of ONNX Runtime's types."""

VARIABLE = -1

SETTINGS = ("optional", "allow_ragged_batch")
"""Of a tensor, which this backend cannot follow."""


class Node(Protocol):
    """An input or output of a graph, as ONNX Runtime describes it."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> Sequence[int | str | None]: ...


class ConfigError(ValueError):
    """The configuration of a model is not that of its graph."""


def check_config(config: Mapping[str, Any], inputs: Sequence[Node], outputs: Sequence[Node]) -> None:
    """Compare a configuration, as Triton's JSON of it, with the graph; see :func:`differences`.

    Raises:
        ConfigError: names, types or dimensions differ, or the configuration asks for what the backend cannot do.
    """
    if found := [*differences(config, inputs, outputs)]:
        raise ConfigError("; ".join(found))


def differences(config: Mapping[str, Any], inputs: Sequence[Node], outputs: Sequence[Node]) -> Iterator[str]:
    """What the backend would refuse in a configuration, as Triton's JSON of it, for a graph; a text each.

    The real backend lets a fixed size of an input stand for a variable one; here both have to be the same. Outputs of
    the graph that the configuration leaves out are allowed.
    """
    batches = int(config.get("max_batch_size", 0)) > 0
    wanted = {tensor["name"] for tensor in config.get("input", ())}
    if missing := sorted({node.name for node in inputs} - wanted):
        yield f"the graph has the inputs {', '.join(missing)}, which the configuration leaves out"
    for kind, nodes in (("input", inputs), ("output", outputs)):
        known = {node.name: node for node in nodes}
        for tensor in config.get(kind, ()):
            if tensor["name"] in known:
                yield from _tensor_differences(kind, tensor, known[tensor["name"]], batches=batches)
            else:
                yield f"{kind} {tensor['name']}: the graph has none of that name, only {', '.join(known)}"


def _tensor_differences(kind: str, tensor: Mapping[str, Any], node: Node, *, batches: bool) -> Iterator[str]:
    where = f"{kind} {node.name}"
    for setting in SETTINGS:
        if tensor.get(setting):
            yield f"{where}: {setting} is not possible for a graph that is run in batches"
    wanted, type_ = tensor.get("data_type", "TYPE_INVALID"), TYPES.get(node.type, node.type)
    if wanted != type_:
        yield f"{where}: {wanted}, and the graph has {type_}"
    sizes = [size if isinstance(size, int) else VARIABLE for size in node.shape]
    dims = [VARIABLE] * batches + [int(size) for size in tensor.get("dims", ())]
    if batches and sizes[:1] != [VARIABLE]:
        yield f"{where}: max_batch_size needs a variable first dimension, and the graph has {sizes}"
    elif dims != sizes:
        yield f"{where}: dimensions {dims}, and the graph has {sizes} ({VARIABLE} is any size)"
