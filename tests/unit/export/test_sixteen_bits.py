"""16-bit graphs: what is narrow in them and what stays float32, and that the float32 reference computes the same."""

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnxscript import GraphBuilder
from transformers import T5ForConditionalGeneration

from neuro_latent_export.decoder_graphs import build_prefill, build_step, cache_names
from neuro_latent_export.precision import FP32
from neuro_latent_export.sixteen_bits import feed_forward_outputs, float32_reference, narrow_products
from tests.conftest import Pair

Array = np.ndarray[Any, Any]
FLOAT, FLOAT16, BFLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16
BOTH = pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=lambda d: d.name)


def run(model: ir.Model, feeds: dict[str, Array]) -> dict[str, Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


@pytest.fixture(scope="module")
def t5(pair: Pair) -> Iterator[Any]:
    with torch.no_grad():
        yield T5ForConditionalGeneration.from_pretrained(pair.generator).eval()


def products_graph(weight_KN: Array) -> ir.Model:
    """x @ weight, its ReLU, and the same moved to another shape."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 24}, name="test")
    builder = GraphBuilder(graph)
    op = builder.op
    x = ir.Value(name="x", type=ir.TensorType(FLOAT), shape=ir.Shape((2, weight_KN.shape[0])))
    graph.inputs.append(x)
    y = op.MatMul(x, builder.initializer(ir.tensor(weight_KN, name="weight")))
    z = op.Reshape(y, builder.initializer(ir.tensor(np.array([-1]), name="flat")))
    relu = op.Relu(y)
    for value, name in ((y, "y"), (z, "z"), (relu, "relu")):
        value.name, value.type = name, ir.TensorType(FLOAT)
        graph.outputs.append(value)
    return ir.Model(graph, ir_version=11)


@BOTH
def test_a_product_rounds_its_inputs_and_its_result_and_outputs_stay_float32(dtype: ir.DataType) -> None:
    rng = np.random.default_rng(0)
    weight_KN, x = rng.normal(size=(7, 5)).astype("f4"), rng.normal(size=(2, 7)).astype("f4")
    narrow = {FLOAT16: np.float16, BFLOAT16: ml_dtypes.bfloat16}[dtype]
    model = products_graph(weight_KN)
    assert narrow_products(model, dtype) == 1
    assert {v.dtype for v in model.graph.outputs} == {FLOAT}
    assert [v.dtype for n, v in model.graph.initializers.items() if n != "flat"] == [dtype]

    rounded = (x.astype(narrow).astype("f4") @ weight_KN.astype(narrow).astype("f4")).astype(narrow).astype("f4")
    got = run(float32_reference(model), {"x": x})
    np.testing.assert_allclose(got["y"], rounded, rtol=2 * float(ml_dtypes.finfo(narrow).eps))
    assert (got["y"] == got["y"].astype(narrow)).all()
    np.testing.assert_array_equal(got["z"], got["y"].ravel())
    np.testing.assert_array_equal(got["relu"], np.maximum(got["y"], 0))


@BOTH
def test_only_caches_cross_a_decoder_graph_in_16_bits(t5: Any, dtype: ir.DataType) -> None:
    for build in (build_prefill, build_step):
        model = build(t5, FP32)
        narrow_products(model, dtype)
        for value in [*model.graph.inputs, *model.graph.outputs]:
            if value.name.startswith(("past_key_values.", "present.")):
                assert value.dtype == dtype
            else:
                assert value.dtype in (FLOAT, ir.DataType.INT64)
        by_type = {n.op_type: n for n in model.graph}
        assert by_type["MatMul"].inputs[1].dtype == dtype
        for name in ("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "LogSoftmax"):
            if name in by_type:
                assert by_type[name].inputs[0].dtype != dtype


def step_feeds(t5: Any, cache: type) -> dict[str, Array]:
    config, rng, layers = t5.config, np.random.default_rng(1), t5.config.num_decoder_layers
    shape = (2, config.num_heads, 12, config.d_kv)
    names = [n for kind in ("decoder", "encoder") for n in cache_names("past_key_values", kind, layers)]
    return {
        "decoder_input_ids": rng.integers(3, 50, (2, 3)),
        "cache_lengths": np.array([0, 7]),
        "encoder_attention_mask": np.array([[1] * 12, [1] * 9 + [0] * 3]),
        "candidates": np.array([4]),
        **{name: rng.normal(size=shape).astype(np.float16).astype(cache) for name in names},
    }


def test_the_reference_computes_what_the_float16_graph_computes_on_this_processor(t5: Any) -> None:
    model = build_step(t5, FP32)
    exact = run(model, step_feeds(t5, np.float32))
    narrow_products(model, FLOAT16)
    real, reference = run(model, step_feeds(t5, np.float16)), run(float32_reference(model), step_feeds(t5, np.float32))
    assert real["present.0.decoder.key"].dtype == np.float16
    assert reference["present.0.decoder.key"].dtype == np.float32
    for name in exact:
        largest = np.abs(exact[name]).max()
        assert np.abs(reference[name] - real[name]).max() <= 4e-3 * largest, name
        assert np.abs(reference[name] - exact[name]).max() <= 4e-3 * largest, name
    assert (reference["logprobs"] != exact["logprobs"]).any()


def test_feed_forward_outputs_can_stay_float32(t5: Any) -> None:
    config = t5.config
    model = build_step(t5, FP32)
    every = narrow_products(build_step(t5, FP32), FLOAT16)
    keep = feed_forward_outputs(config.d_ff, config.d_model)
    assert narrow_products(model, FLOAT16, keep) == every - config.num_decoder_layers
    kept = [n for n in model.graph if n.op_type == "MatMul" and n.inputs[1].dtype == FLOAT]
    assert [n.inputs[1].name for n in kept] == [f"{i}.feed_forward.wo" for i in range(config.num_decoder_layers)]


def test_a_product_beyond_float16_is_infinite_unless_it_is_kept() -> None:
    weight_KN, x = np.full((4, 6), 300, "f4"), np.full((2, 4), 100, "f4")
    lost, kept = products_graph(weight_KN), products_graph(weight_KN)
    narrow_products(lost, FLOAT16)
    assert narrow_products(kept, FLOAT16, feed_forward_outputs(4, 6)) == 0
    assert np.isinf(run(float32_reference(lost), {"x": x})["y"]).all()
    assert (run(kept, {"x": x})["y"] == 120_000).all()
