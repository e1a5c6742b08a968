"""Each traced graph against torch, at sizes other than those of tracing."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from neuro_latent_export import parity
from neuro_latent_export.graphs import OPSET, GraphSpec, Sizes, example_inputs, graph_specs, write_graph
from neuro_latent_export.t5_graphs import T5EncoderGraph, position_table
from neuro_latent_trainer.gate import Gate
from neuro_latent_trainer.model import PromptOptimizer
from tests import tiny

pytestmark = pytest.mark.slow

PATHS = (
    "encoder/1/model.onnx",
    "projector/1/adapters/default/model.onnx",
    "t5_encoder/1/model.onnx",
)
AXES = ({"batch": 1, "tokens": 1}, {"batch": 5, "tokens": 3}, {"batch": 2, "tokens": tiny.ENCODER_TOKENS})


@pytest.fixture(scope="module")
def gated(gated_pair: Any, tmp_path_factory: pytest.TempPathFactory) -> PromptOptimizer:
    folder = tmp_path_factory.mktemp("adapter")
    tiny.write_adapter(
        folder, gated_pair.encoder, gated_pair.generator, projector="dense", pooling="cls", form="complement"
    )
    model = PromptOptimizer.from_pretrained(folder)
    torch.manual_seed(0)
    width = model.encoder.width
    gate = Gate(torch.randn(6, width), torch.tensor([0.0, 1.0] * 3), torch.randn(3, width))
    gate.weight.copy_(torch.tensor([2.0, -3.0, 1.0]))
    for name, value in (("bias", 0.5), ("logprob_weight", 0.75), ("threshold", 0.625)):
        getattr(gate, name).fill_(value)
    model.adapter.gate = gate
    return model


@pytest.fixture(scope="module")
def gated_graphs(gated: PromptOptimizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graphs that differ in a gated T5 with a dense adapter: all but the encoder's."""
    folder = tmp_path_factory.mktemp("graphs")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for spec in graph_specs(gated)[1:]:
            write_graph(spec, folder / spec.path)
    return folder


def assert_as_torch(spec: GraphSpec, session: ort.InferenceSession, axes: dict[str, int], seed: int) -> None:
    inputs = example_inputs(spec, axes, seed)
    with torch.no_grad():
        expected = spec.module(*inputs)
    expected = (expected,) if isinstance(expected, torch.Tensor) else expected
    got = session.run(None, {t.name: v.numpy() for t, v in zip(spec.inputs, inputs, strict=True)})
    for tensor, want, array in zip(spec.outputs, expected, got, strict=True):
        assert array.shape == tuple(want.shape), tensor.name
        np.testing.assert_allclose(
            array, want.numpy(), atol=2e-4 * max(1.0, float(want.abs().max())), err_msg=tensor.name
        )


def by_path(model: PromptOptimizer) -> dict[str, GraphSpec]:
    return {spec.path: spec for spec in graph_specs(model)}


@pytest.mark.parametrize("path", PATHS)
def test_a_graph_computes_what_torch_computes(repository: Path, optimizer: PromptOptimizer, path: str) -> None:
    session = parity.open_session(repository / path)
    for seed, axes in enumerate(AXES):
        assert_as_torch(by_path(optimizer)[path], session, axes, seed)


@pytest.mark.parametrize("path", PATHS[1:])
def test_a_graph_of_a_gated_t5_with_a_dense_adapter_computes_what_torch_computes(
    gated_graphs: Path, gated: PromptOptimizer, path: str
) -> None:
    session = parity.open_session(gated_graphs / path)
    for seed, axes in enumerate(AXES):
        assert_as_torch(by_path(gated)[path], session, axes, seed)


def test_the_gate_of_a_graph_is_that_of_its_adapter(
    repository: Path, optimizer: PromptOptimizer, gated_graphs: Path, gated: PromptOptimizer
) -> None:
    for folder, model in ((repository, optimizer), (gated_graphs, gated)):
        session = parity.open_session(folder / PATHS[1])
        embedding_BE = torch.randn(7, model.encoder.width)
        (gate_B4,) = session.run(["gate"], {"raw_embedding": embedding_BE.numpy()})
        np.testing.assert_allclose(gate_B4, model.adapter.gate_values(embedding_BE).detach().numpy(), atol=1e-4)
    assert gate_B4[:, 1:].tolist() == [[0.75, 0.625, 1.0]] * 7
    assert np.ptp(gate_B4[:, 0]) > 0.1, "the prior differs from prompt to prompt"
    rewrites = parity.open_session(repository / PATHS[1]).run(["gate"], {"raw_embedding": embedding_BE.numpy()})[0]
    assert rewrites.tolist() == [[10.0, 0.0, 0.0, 0.0]] * 7


@pytest.mark.parametrize("path", PATHS)
def test_names_and_axes_of_a_graph_are_those_of_its_contract(
    repository: Path, optimizer: PromptOptimizer, path: str
) -> None:
    session, spec = parity.open_session(repository / path), by_path(optimizer)[path]
    for ours, theirs in ((spec.inputs, session.get_inputs()), (spec.outputs, session.get_outputs())):
        assert [(t.name, tuple(t.shape)) for t in theirs] == [(t.name, t.shape) for t in ours]


def test_every_graph_has_the_stated_opset_and_no_file_beside_it(repository: Path) -> None:
    import onnx

    for path in PATHS:
        model = onnx.load(str(repository / path))
        assert {o.version for o in model.opset_import if o.domain == ""} == {OPSET}
        onnx.checker.check_model(model)
    assert not list(repository.rglob("*.onnx.data"))


@pytest.mark.parametrize("gated_t5", [False, True])
def test_the_encoder_module_computes_what_hugging_face_computes(
    optimizer: PromptOptimizer, gated: PromptOptimizer, gated_t5: bool
) -> None:
    model = gated if gated_t5 else optimizer
    t5, sizes = model.generator_model, Sizes.of(model)
    torch.manual_seed(1)
    soft, ids = torch.randn(2, sizes.soft_prompt_tokens, sizes.generator_width), torch.randint(3, 500, (2, 170))
    mask = torch.ones_like(ids)
    mask[1, 100:] = 0
    with torch.no_grad():
        hidden, whole_mask = model.generator.encode_soft(soft, ids, mask)
        ours = T5EncoderGraph(t5)(ids, mask, soft)
    torch.testing.assert_close(ours[whole_mask == 1], hidden[whole_mask == 1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
@pytest.mark.parametrize("length", [1, 40, 128, 129, 400])
def test_the_position_table_is_the_bias_of_hugging_face_at_any_length(
    optimizer: PromptOptimizer, stack: str, length: int
) -> None:
    attention = getattr(optimizer.generator_model, stack).block[0].layer[0].SelfAttention
    bidirectional = stack == "encoder"
    table = position_table(attention, bidirectional)
    most = (len(table) - 1) // (2 if bidirectional else 1)
    position = torch.arange(length)
    offset = position[None, :] - position[:, None]
    ours = table[offset.clamp(-most, most) + most] if bidirectional else table[(-offset).clamp(0, most)]
    with torch.no_grad():
        theirs = attention.compute_bias(length, length)
    if not bidirectional:  # what lies in the future is masked anyway
        ours, theirs = ours * (offset <= 0)[..., None], theirs * (offset <= 0)
    assert torch.equal(ours.permute(2, 0, 1)[None], theirs)
