"""The graphs against the configurations, as ONNX Runtime opens them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from neuro_latent_serving.adapters.records import ADAPTERS, GRAPH, PROJECTOR
from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.ensembles import fit
from neuro_latent_serving.doctor.repository import PYTHON, Model, Repository, Tensor
from neuro_latent_serving.doctor.subject import Subject
from neuro_latent_serving.graph_config import TYPES, VARIABLE
from neuro_latent_serving.server.repository import GPU_ONLY

MADE_BY_PYTHON = {"adapter", "made_by"}
"""Tensors of the python projector that its graphs do not have: it chooses among them."""

HIDDEN = "encoder_hidden_states"


@dataclass(frozen=True)
class Node:
    """An input or output of a graph; ``shape`` with the batch, VARIABLE for an open size; ``type`` by Triton's name."""

    type: str
    shape: tuple[int, ...]


Nodes = Mapping[str, Node]
Tensors = Mapping[str, Tensor]


def check(subject: Subject) -> Iterator[Outcome]:
    """Every ``.onnx`` that is what was exported; others have their finding already."""
    repository, options = subject.repository, subject.options
    if repository is None or not options.graphs:
        return
    if subject.manifest and subject.manifest.precision in GPU_ONLY:
        yield f"not opened: this machine's ONNX Runtime has no {subject.manifest.precision}"
        return
    opened = 0
    for model in repository.models.values():
        for file in graph_files(model):
            if repository.is_sound(file):
                yield from check_graph(model, file, repository)
                opened += 1
    yield from check_decoder(repository)
    yield f"{opened} graphs, compared with their configurations"


def graph_files(model: Model) -> Iterator[Path]:
    """The graphs that are a whole model each; those of the decoder are not."""
    if model.served is None:
        return
    if model.name == PROJECTOR and model.backend == PYTHON:
        yield from sorted((model.served / ADAPTERS).glob(f"*/{GRAPH}"))
    elif (model.served / GRAPH).is_file():
        yield model.served / GRAPH


def opened_graph(file: Path) -> tuple[Nodes, Nodes]:
    """Inputs and outputs of a graph, by name.

    Raises:
        Exception: ONNX Runtime cannot open it; it has an error of its own for everything.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return _nodes(session.get_inputs()), _nodes(session.get_outputs())


def _nodes(listed: Any) -> Nodes:
    return {
        node.name: Node(
            TYPES.get(node.type, node.type), tuple(size if isinstance(size, int) else VARIABLE for size in node.shape)
        )
        for node in listed
    }


def check_graph(model: Model, file: Path, repository: Repository) -> Iterator[Finding]:
    """One graph against its model's configuration."""
    where = file.relative_to(repository.root).as_posix()
    try:
        graph = opened_graph(file)
    except Exception as error:
        yield unreadable(where, error, repository)
        return
    chosen = MADE_BY_PYTHON if model.name == PROJECTOR and model.backend == PYTHON else set()
    inputs = {name: tensor for name, tensor in model.inputs.items() if name not in chosen}
    outputs = {name: tensor for name, tensor in model.outputs.items() if name not in chosen}
    yield from compare(where, graph, (inputs, outputs), repository)


def compare(
    where: str, graph: tuple[Nodes, Nodes], config: tuple[Tensors, Tensors], repository: Repository
) -> Iterator[Finding]:
    """Inputs and outputs of a graph against those of a configuration."""
    for kind, nodes, tensors in zip(("input", "output"), graph, config, strict=True):
        for name in sorted(set(nodes) ^ set(tensors)):
            side = "the graph" if name in nodes else "the configuration"
            yield Finding("graph-differs", where, f"{kind} {name} is in {side} only", repository.export_again)
        for name in sorted(set(nodes) & set(tensors)):
            if problem := difference(nodes[name], tensors[name]):
                yield Finding("graph-differs", where, f"{kind} {name}: {problem}", repository.export_again)


def difference(node: Node, tensor: Tensor) -> str:
    """What differs between a graph's tensor and the configuration's; empty for nothing."""
    if node.type != tensor.type:
        return f"{node.type}, and the configuration says {tensor.type}"
    if node.shape[:1] != (VARIABLE,) or not fit(node.shape[1:], tensor.dims):
        return f"{list(node.shape)}, and the configuration says {list(tensor.dims)} for each row of a batch"
    return ""


def check_decoder(repository: Repository) -> Iterator[Finding]:
    """``prefill.onnx`` reads what the T5 encoder writes and makes what ``step.onnx`` reads."""
    model = repository.models.get("t5_decoder")
    if model is None or model.served is None:
        return
    graphs = []
    for file in (model.served / "prefill.onnx", model.served / "step.onnx"):
        if not repository.is_sound(file):
            return
        try:
            graphs.append(opened_graph(file))
        except Exception as error:
            yield unreadable(file.relative_to(repository.root).as_posix(), error, repository)
            return
    (prefill_inputs, prefill_outputs), (step_inputs, _) = graphs
    cross = [name for name in step_inputs if ".encoder." in name]
    hidden = model.inputs.get(HIDDEN)
    width = prefill_inputs[HIDDEN].shape[-1] if HIDDEN in prefill_inputs else "no"
    if hidden is None or width != hidden.dims[-1]:
        what = f"prefill.onnx reads {width} numbers a token, and the configuration of t5_decoder has another width"
        yield Finding("decoder-graphs-differ", "t5_decoder", what, repository.export_again)
    if len(cross) != len(prefill_outputs):
        what = f"prefill.onnx makes {len(prefill_outputs)} keys and values, and step.onnx reads {len(cross)}"
        yield Finding("decoder-graphs-differ", "t5_decoder", what, repository.export_again)


def unreadable(where: str, error: Exception, repository: Repository) -> Finding:
    return Finding("graph-unreadable", where, " ".join(str(error).split())[:300], repository.export_again)
