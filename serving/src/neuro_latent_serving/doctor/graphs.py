"""The graphs against the configurations, as ONNX Runtime opens them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
from google.protobuf import json_format

from neuro_latent_serving.adapters.records import ADAPTERS, GRAPH, PROJECTOR
from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.repository import ONNXRUNTIME, PYTHON, Model, Repository
from neuro_latent_serving.doctor.subject import Subject
from neuro_latent_serving.graph_config import SETTINGS, Node, differences
from neuro_latent_serving.server.repository import GPU_ONLY

MADE_BY_PYTHON = {"adapter", "made_by"}
"""Tensors of the python projector that its graphs do not have: it chooses among them."""

HIDDEN = "encoder_hidden_states"

Nodes = Sequence[Node]


def check(subject: Subject) -> Iterator[Outcome]:
    """Every ``.onnx`` that is what was exported; others have their finding already."""
    repository, options = subject.repository, subject.options
    if repository is None or not options.graphs:
        return
    if subject.manifest and subject.manifest.precision in GPU_ONLY:
        yield f"not opened: the CPU has no {subject.manifest.precision} kernels"
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
    """Inputs and outputs of a graph.

    Raises:
        Exception: ONNX Runtime cannot open it; it has an error of its own for everything.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return session.get_inputs(), session.get_outputs()


def check_graph(model: Model, file: Path, repository: Repository) -> Iterator[Finding]:
    """One graph against its model's configuration."""
    where = file.relative_to(repository.root).as_posix()
    try:
        inputs, outputs = opened_graph(file)
    except Exception as error:
        yield unreadable(where, error, repository)
        return
    yield from compare(where, inputs, outputs, model, repository)


def compare(where: str, inputs: Nodes, outputs: Nodes, model: Model, repository: Repository) -> Iterator[Finding]:
    """Inputs and outputs of a graph against those of a configuration, by the rules of the model's backend."""
    config = json_format.MessageToDict(model.config, preserving_proto_field_name=True)
    config |= {kind: [*compared(config.get(kind, ()), model)] for kind in ("input", "output")}
    found = [*differences(config, inputs, outputs)]
    if model.backend != ONNXRUNTIME:
        unlisted = {node.name for node in outputs} - {tensor["name"] for tensor in config["output"]}
        found += [f"output {name} is in the graph only" for name in sorted(unlisted)]
    for text in found:
        yield Finding("graph-differs", where, text, repository.export_again)


def compared(tensors: Iterable[dict[str, Any]], model: Model) -> Iterator[dict[str, Any]]:
    """The tensors of a configuration that its graph should have, without the settings that its backend can follow."""
    chosen = MADE_BY_PYTHON if model.name == PROJECTOR and model.backend == PYTHON else ()
    followed = () if model.backend == ONNXRUNTIME else SETTINGS
    for tensor in tensors:
        if tensor.get("name") not in chosen:
            yield {"name": "", **{key: value for key, value in tensor.items() if key not in followed}}


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
    cross = [node for node in step_inputs if ".encoder." in node.name]
    hidden = model.inputs.get(HIDDEN)
    width = next((node.shape[-1] for node in prefill_inputs if node.name == HIDDEN), "no")
    if hidden is None or width != hidden.dims[-1]:
        what = f"prefill.onnx reads {width} numbers a token, and the configuration of t5_decoder has another width"
        yield Finding("decoder-graphs-differ", "t5_decoder", what, repository.export_again)
    if len(cross) != len(prefill_outputs):
        what = f"prefill.onnx makes {len(prefill_outputs)} keys and values, and step.onnx reads {len(cross)}"
        yield Finding("decoder-graphs-differ", "t5_decoder", what, repository.export_again)


def unreadable(where: str, error: Exception, repository: Repository) -> Finding:
    return Finding("graph-unreadable", where, " ".join(str(error).split())[:300], repository.export_again)
