"""The graphs that are traced from torch, and how: modules, example inputs, names, dynamic axes.

The decoder's two graphs are built by hand in ``decoder_graphs.py``.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx_ir
import torch
from torch import Tensor, nn
from torch.export import Dim

from neuro_latent_export.backends import SEVERAL_ADAPTERS
from neuro_latent_export.plain import System
from neuro_latent_export.t5_graphs import T5EncoderGraph
from neuro_latent_trainer.adapter import Adapter
from neuro_latent_trainer.backbones import pool
from neuro_latent_trainer.model import PromptOptimizer

OPSET = 18

ENCODER_PATHS = ("encoder/1/model.onnx", "t5_encoder/1/model.onnx")
"""The traced graphs that a precision changes; the adapter is small and stays float32."""
PROJECTOR_PATH = str(SEVERAL_ADAPTERS / "model.onnx")
"""The adapter's graph: version 1 of ``projector`` is a set of one adapter; `neuro-latent adapters` writes others."""

GATE_VALUES = 4

Shape = tuple[int | str, ...]
"""Sizes of a tensor; a string names a dynamic axis."""


class EncoderGraph(nn.Module):
    """Token ids -> one pooled embedding a row."""

    def __init__(self, model: PromptOptimizer) -> None:
        super().__init__()
        self.encoder, self.pooling = model.encoder_model, model.adapter.config.pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 [B, L] twice -> [B, E]."""
        hidden_BLE = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return pool(hidden_BLE, attention_mask, self.pooling)


class ProjectorGraph(nn.Module):
    """Raw embedding -> soft prompts, and what serving has to know of the adapter's gate and form."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, raw_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """[B, E] -> soft prompts [B, P, D], gate [B, 4] as :meth:`Adapter.gate_values` gives it."""
        return self.adapter(raw_embedding), self.adapter.gate_values(raw_embedding)


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of one input or output of a graph."""

    name: str
    shape: Shape
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class GraphSpec:
    """One graph: where it goes in the repository, its module, its inputs and outputs."""

    path: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a system, all read from the models' configs."""

    encoder_width: int
    generator_width: int
    soft_prompt_tokens: int
    decoder_layers: int
    heads: int
    head_width: int
    vocabulary: int

    @classmethod
    def of(cls, model: System) -> "Sizes":
        """Read the sizes of ``model``."""
        t5 = model.generator_model.config
        return cls(
            encoder_width=model.encoder.width if model.encoder else 0,
            generator_width=t5.d_model,
            soft_prompt_tokens=model.adapter.config.soft_prompt_tokens if model.adapter else 0,
            decoder_layers=t5.num_decoder_layers,
            heads=t5.num_heads,
            head_width=t5.d_kv,
            vocabulary=t5.vocab_size,
        )


def graph_specs(model: System) -> list[GraphSpec]:
    """The traced graphs of a system, in the order in which a prompt passes them: of a T5 alone, only its encoder."""
    sizes = Sizes.of(model)
    ids, mask = (TensorSpec(name, ("batch", "tokens"), torch.int64) for name in ("input_ids", "attention_mask"))
    embedding = TensorSpec("raw_embedding", ("batch", sizes.encoder_width))
    soft_prompts = TensorSpec("soft_prompts", ("batch", sizes.soft_prompt_tokens, sizes.generator_width))
    gate = TensorSpec("gate", ("batch", GATE_VALUES))
    hidden = TensorSpec("encoder_hidden_states", ("batch", "encoder_tokens", sizes.generator_width))
    encoder, t5_encoder = ENCODER_PATHS
    t5_graph = T5EncoderGraph(model.generator_model)
    if model.adapter is None:
        return [GraphSpec(t5_encoder, t5_graph, (ids, mask), (hidden,))]
    return [
        GraphSpec(encoder, EncoderGraph(model), (ids, mask), (embedding,)),
        GraphSpec(PROJECTOR_PATH, ProjectorGraph(model.adapter), (embedding,), (soft_prompts, gate)),
        GraphSpec(t5_encoder, t5_graph, (ids, mask, soft_prompts), (hidden,)),
    ]


def example_inputs(spec: GraphSpec, axes: dict[str, int], seed: int = 0) -> tuple[Tensor, ...]:
    """Random inputs with the given sizes of the dynamic axes.

    Masks have zeros at their end, and every row has a one.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for tensor in spec.inputs:
        shape = [axes[s] if isinstance(s, str) else s for s in tensor.shape]
        if tensor.name.endswith("mask"):
            values = torch.ones(shape, dtype=tensor.dtype)
            values[0, shape[1] - shape[1] // 3 :] = 0
        elif tensor.dtype == torch.int64:
            values = torch.randint(3, 100, shape, generator=generator)
        else:
            values = torch.randn(shape, generator=generator)
        tensors.append(values)
    return tuple(tensors)


EXAMPLE_AXES = {"batch": 2, "tokens": 7}


def write_graph(spec: GraphSpec, path: Path, log: Callable[[str], None] = lambda text: None) -> None:
    """Trace a module and write it as ONNX with named inputs, outputs and dynamic axes."""
    log(f"exporting {spec.path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = [{i: Dim.DYNAMIC for i, size in enumerate(tensor.shape) if isinstance(size, str)} for tensor in spec.inputs]
    with _quiet_exporter():
        program = torch.onnx.export(
            spec.module.eval(),
            example_inputs(spec, EXAMPLE_AXES),
            dynamo=True,
            dynamic_shapes=tuple(axes),
            input_names=[t.name for t in spec.inputs],
            output_names=[t.name for t in spec.outputs],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    _name_axes(program.model, spec)
    program.save(str(path))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns of its own use of torch and of packages that nobody needs; none of it is for the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _name_axes(model: onnx_ir.Model, spec: GraphSpec) -> None:
    """Give the dynamic axes of inputs and outputs their names, so that a reader of the graph finds them."""
    for values, tensors in ((model.graph.inputs, spec.inputs), (model.graph.outputs, spec.outputs)):
        for value, tensor in zip(values, tensors, strict=True):
            value.shape = onnx_ir.Shape(tensor.shape)
