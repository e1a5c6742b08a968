"""Products in int8 with a scale for every row: close to float32, and no row depends on another."""

import logging
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from neuro_latent_export.row_int8 import MIN_SIZE, quantize_columns, quantize_rows

pytestmark = pytest.mark.slow

Run = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]

WIDTH = 48


class Shared(nn.Module):
    """Three products of one input, as query, key and value, then two more; one with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.wi, self.wo = nn.Linear(WIDTH, 80), nn.Linear(80, WIDTH, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.wo(torch.relu(self.wi(self.q(x_BLD) * self.k(x_BLD) + self.v(x_BLD))))


def traced(module: nn.Module, example: Tensor) -> ir.Model:
    """The graph of a module; all axes but the last are dynamic."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=(dict.fromkeys(range(example.ndim - 1), Dim.DYNAMIC),),
            opset_version=18,
            verbose=False,
        )
    assert program is not None
    return program.model


def runner(model: ir.Model) -> Run:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    return lambda x: session.run(None, {name: x})[0]


def rows(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Rows of very different size, as activations have them."""
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(size=(*shape[:-1], 1)) * 2)
    return (rng.normal(size=shape) * scale).astype(np.float32)


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.fixture(scope="module")
def shared() -> tuple[Run, Run, ir.Model]:
    """float32, int8, and the int8 graph of :class:`Shared`."""
    torch.manual_seed(0)
    model = traced(Shared(), torch.randn(2, 3, WIDTH))
    plain = runner(model)
    assert quantize_rows(model) == 5
    return plain, runner(model), model


def test_products_of_one_input_share_its_quantized_form(shared: tuple[Run, Run, ir.Model]) -> None:
    assert ops(shared[2]).count("QuantizeLinear") == 3  # of x, of wi's input, of wo's input
    assert ops(shared[2]).count("MatMulIntegerToFloat") == 5
    assert not {"MatMul", "Gemm"} & set(ops(shared[2]))


def test_no_float_weight_is_left(shared: tuple[Run, Run, ir.Model]) -> None:
    tensors = [value.const_value for value in shared[2].graph.initializers.values()]
    assert {t.dtype for t in tensors if t is not None and len(t.shape) == 2} == {ir.DataType.INT8}


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (8, 33)])
def test_results_are_close_to_float32(shared: tuple[Run, Run, ir.Model], shape: tuple[int, int]) -> None:
    x = rows(*shape, WIDTH)
    want, got = shared[0](x), shared[1](x)
    error = np.linalg.norm(got - want, axis=-1) / np.linalg.norm(want, axis=-1)
    assert error.max() < 0.05


def test_a_row_has_the_same_bits_alone_with_batch_mates_and_with_padding(shared: tuple[Run, Run, ir.Model]) -> None:
    _, quantized, _ = shared
    for length in (1, 5, 16):
        x = rows(1, length, WIDTH, seed=length)
        alone = quantized(x)
        for place in range(8):
            batch = rows(8, length, WIDTH, seed=99) * 100
            batch[place] = x
            np.testing.assert_array_equal(quantized(batch)[place], alone[0])
        padded = np.concatenate([x, np.full((1, 9, WIDTH), 1e4, np.float32)], axis=1)
        np.testing.assert_array_equal(quantized(padded)[:, :length], alone)


def test_a_row_of_zeros_gives_what_the_bias_gives(shared: tuple[Run, Run, ir.Model]) -> None:
    plain, quantized, _ = shared
    x = rows(2, 4, WIDTH)
    x[0, 1], x[1, 2] = 0, 1e-42  # the second is below what a float32 holds with full precision
    want, got = plain(x), quantized(x)
    np.testing.assert_allclose(got[0, 1], want[0, 1], rtol=0.05, atol=0.02)
    assert np.isfinite(got).all()


@pytest.mark.parametrize("bias", [False, True])
def test_a_product_of_a_table_of_rows_keeps_its_bias(bias: bool) -> None:
    """Of two axes torch makes a Gemm with a transposed weight."""
    torch.manual_seed(1)
    model = traced(nn.Linear(WIDTH, 64, bias=bias), torch.randn(2, WIDTH))
    plain, x = runner(model), rows(5, WIDTH)
    assert quantize_rows(model) == 1
    want, got = plain(x), runner(model)(x)
    assert np.abs(got - want).max() < 0.02 * np.abs(want).max()


@pytest.mark.parametrize(("inputs", "outputs"), [(MIN_SIZE - 1, 64), (64, MIN_SIZE - 1)])
def test_small_products_stay_as_they_are(inputs: int, outputs: int) -> None:
    model = traced(nn.Linear(inputs, outputs), torch.randn(2, 3, inputs))
    before = ops(model)
    assert quantize_rows(model) == 0
    assert ops(model) == before
    assert "com.microsoft" not in model.opset_imports


def test_a_table_that_a_product_shares_is_kept_for_the_look_up() -> None:
    table = ir.tensor(rows(40, 36), name="table")
    weight = ir.Value(name="table", const_value=table, type=ir.TensorType(table.dtype), shape=table.shape)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(("rows", 40)))
    ids = ir.tensor(np.array([3]), name="ids")
    at = ir.Value(name="ids", const_value=ids, type=ir.TensorType(ids.dtype), shape=ids.shape)
    nodes = [ir.node("MatMul", [x, weight]), ir.node("Gather", [weight, at])]
    nodes.append(ir.node("Add", [node.outputs[0] for node in nodes]))
    nodes[-1].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], nodes[-1].outputs, nodes=nodes, initializers=[weight, at], opset_imports={"": 18}, name="g")
    model = ir.Model(graph, ir_version=10)
    assert quantize_rows(model) == 1
    x_value = rows(2, 40)
    want = x_value @ table.numpy() + table.numpy()[3]
    np.testing.assert_allclose(runner(model)(x_value), want, atol=0.03 * np.abs(want).max())


def test_products_of_activations_stay_as_they_are() -> None:
    class Attention(nn.Module):
        def forward(self, x_BLD: Tensor) -> Tensor:
            return x_BLD @ x_BLD.transpose(1, 2)

    assert quantize_rows(traced(Attention(), torch.randn(2, 40, 40))) == 0


@pytest.mark.parametrize(("reduce_range", "most"), [(True, 64), (False, 127)])
def test_the_range_of_the_weights(reduce_range: bool, most: int) -> None:
    model = traced(nn.Linear(WIDTH, 64, bias=False), torch.randn(2, 3, WIDTH))
    quantize_rows(model, reduce_range)
    (levels,) = (
        value.const_value.numpy()
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype == ir.DataType.INT8
    )
    assert np.abs(levels.astype(int)).max(axis=0).tolist() == [most] * 64


def test_pairs_of_products_fit_16_bits() -> None:
    """What processors without VNNI need of the default range."""
    assert 2 * 255 * 64 <= np.iinfo(np.int16).max < 2 * 255 * 127


def test_columns_are_within_half_a_step_and_a_column_of_zeros_is_zero() -> None:
    weight = rows(50, 40)
    weight[:, 7] = 0
    levels, steps = quantize_columns(weight, 64)
    assert (np.abs(levels * steps - weight) <= steps * 0.5001).all()
    assert not levels[:, 7].any()
    assert steps.dtype == np.float32
