"""Weights in blocks: how far they are from what they were, how ONNX Runtime reads them, and that no row of a product
depends on another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import T5ForConditionalGeneration

from neuro_latent_export.decoder_nodes import Builder
from neuro_latent_export.precision import INT4, PRECISIONS, Blocks
from neuro_latent_export.weight_only import quantize_blocks
from tests.conftest import Pair

Array = np.ndarray[Any, Any]
Product = Callable[[Array], Array]

# Of all precisions: 4-bit blocks of 32 and 8-bit blocks of 64.
USED = sorted(
    {b for p in PRECISIONS.values() for b in (p.decoder, p.head) if isinstance(b, Blocks)}, key=lambda b: b.bits
)


def restored(levels: Array, scales_NG: Array, blocks: Blocks, inputs: int) -> Array:
    """The weight [K, N] that levels and scales stand for, by the definition of the format."""
    outputs, groups = scales_NG.shape
    if blocks.bits == 4:
        low, high = levels & 15, levels >> 4
        levels = np.stack([low, high], axis=-1).reshape(outputs, groups, blocks.size)
    assert levels.shape == (outputs, groups, blocks.size)
    weight_NGZ = (levels.astype("f4") - 2 ** (blocks.bits - 1)) * scales_NG[..., None]
    result: Array = weight_NGZ.reshape(outputs, -1)[:, :inputs].T
    return result


def weights(inputs: int, outputs: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(inputs, outputs)) * np.exp(rng.normal(size=outputs))).astype("f4")


@given(
    st.integers(1, 200), st.integers(1, 12), st.sampled_from([4, 8]), st.sampled_from([16, 32, 64]), st.integers(0, 99)
)
@settings(max_examples=60)
def test_no_weight_is_further_off_than_its_block_allows(
    inputs: int, outputs: int, bits: int, size: int, seed: int
) -> None:
    blocks, weight_KN = Blocks(bits, size), weights(inputs, outputs, seed)
    levels, scales_NG = quantize_blocks(weight_KN, blocks)
    groups = -(-inputs // size)
    assert (levels.dtype, levels.shape) == (np.uint8, (outputs, groups, size * bits // 8))
    assert (scales_NG.dtype, scales_NG.shape) == (np.float32, (outputs, groups))
    padded = np.zeros((groups * size, outputs), dtype="f4")
    padded[:inputs] = weight_KN
    blocks_NGZ = padded.T.reshape(outputs, groups, size)
    error_NGZ = blocks_NGZ - restored(levels, scales_NG, blocks, groups * size).T.reshape(outputs, groups, size)

    # The plain way: the largest weight of a block gets the lowest level, everything else the nearest one.
    half = 2 ** (bits - 1)
    at = np.abs(blocks_NGZ).argmax(-1)[..., None]
    step_NG1 = np.take_along_axis(blocks_NGZ, at, -1) / -half
    step_NG1[step_NG1 == 0] = 1
    plain_NGZ = blocks_NGZ - np.clip(np.rint(blocks_NGZ / step_NG1), -half, half - 1) * step_NG1
    assert (np.square(error_NGZ).sum(-1) <= np.square(plain_NGZ).sum(-1) * 1.0001 + 1e-12).all()
    # Half a step, or a whole one for a weight as large as the largest with the other sign; with 4 bits up to 30 % of
    # the largest weight may be cut off besides.
    most_NG1 = np.abs(step_NG1) * (1.001 if bits == 8 else 1.001 + 0.3 * half)
    assert (np.abs(error_NGZ) < most_NG1 + 1e-9).all()


@pytest.mark.parametrize("blocks", USED, ids=str)
@pytest.mark.parametrize("inputs", [64, 96, 33, 1])
def test_weights_that_are_levels_already_are_kept_as_they_are(blocks: Blocks, inputs: int) -> None:
    rng = np.random.default_rng(1)
    half = 2 ** (blocks.bits - 1)
    levels = rng.integers(-half, half, (inputs, 7))
    levels[:: blocks.size] = -half  # each block reaches its end
    for scale in (0.25, -0.25):
        weight_KN = (levels * scale).astype("f4")
        np.testing.assert_array_equal(restored(*quantize_blocks(weight_KN, blocks), blocks, inputs), weight_KN)


@pytest.mark.parametrize("blocks", USED, ids=str)
def test_a_block_of_zeros_stays_zero(blocks: Blocks) -> None:
    weight_KN = weights(2 * blocks.size, 3)
    weight_KN[: blocks.size, 1] = 0
    levels, scales_NG = quantize_blocks(weight_KN, blocks)
    assert np.isfinite(scales_NG).all()
    assert not restored(levels, scales_NG, blocks, len(weight_KN))[: blocks.size, 1].any()


# As ONNX Runtime reads them -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def product(pair: Pair) -> Callable[..., Product]:
    """Makes a session of one product, built as the decoder's are."""
    t5 = T5ForConditionalGeneration.from_pretrained(pair.generator)

    def make(weight_KN: Array, blocks: Blocks, threads: int = 1) -> Product:
        b = Builder("product", t5, INT4)
        x = b.input("x", ir.DataType.FLOAT, ("rows", "width", weight_KN.shape[0]))
        y = b.product(x, weight_KN, "weight", blocks)
        b.output(y, "y", ir.DataType.FLOAT, ("rows", "width", weight_KN.shape[1]))
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        model = ir.to_proto(b.model()).SerializeToString()
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

        def run(x: Array) -> Array:
            found: Array = session.run(None, {"x": x})[0]
            return found

        return run

    return make


@pytest.mark.parametrize("blocks", USED, ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 40), (128, 33), (75, 20), (33, 1), (24, 72)])
def test_the_packing_is_that_of_onnx_runtime(
    product: Callable[..., Product], blocks: Blocks, inputs: int, outputs: int
) -> None:
    """The product with the identity is the weight that is stored."""
    weight_KN = weights(inputs, outputs)
    got = product(weight_KN, blocks)(np.eye(inputs, dtype="f4")[None])[0]
    want = restored(*quantize_blocks(weight_KN, blocks), blocks, inputs)
    np.testing.assert_allclose(got, want, atol=1e-6 * float(np.abs(want).max()))


@pytest.mark.parametrize(("blocks", "most"), [(INT4.decoder, 0.12), (INT4.head, 0.012)])
def test_a_product_is_near_the_one_in_float32(product: Callable[..., Product], blocks: Blocks, most: float) -> None:
    weight_KN, x = weights(256, 96), np.random.default_rng(2).normal(size=(3, 5, 256)).astype("f4")
    want = x @ weight_KN
    assert np.linalg.norm(product(weight_KN, blocks)(x) - want) / np.linalg.norm(want) < most


# No row depends on another ------------------------------------------------------------------------------------------


def processor_flags() -> set[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return set(next((line.split(":")[1] for line in lines if line.startswith("flags")), "").split())


@pytest.mark.skipif(
    "avx512_vnni" not in processor_flags(),
    reason="this processor has no AVX-512 VNNI, for which the block sizes were chosen; elsewhere ONNX Runtime has "
    "other kernels, which may sum a row in another order in another batch",
)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("inputs", "outputs"), [(512, 1536), (2048, 512), (256, 768), (512, 4000), (24, 72), (48, 24)])
@pytest.mark.parametrize("blocks", USED, ids=str)
def test_a_row_has_the_same_bits_alone_and_at_any_place_of_any_batch(
    product: Callable[..., Product], blocks: Blocks, inputs: int, outputs: int, threads: int
) -> None:
    run = product(weights(inputs, outputs), blocks, threads)
    rng = np.random.default_rng(6)
    x = (rng.normal(size=(16, 1, inputs)) * np.exp(2 * rng.normal(size=(16, 1, 1)))).astype("f4")
    alone = np.concatenate([run(x[i : i + 1]) for i in range(16)])
    for size in range(2, 17):
        for first in {0, 16 - size, int(rng.integers(0, 17 - size))}:
            np.testing.assert_array_equal(run(x[first : first + size]), alone[first : first + size])
    for size in (3, 7, 16):  # the same rows at other places
        order = rng.permutation(16)[:size]
        np.testing.assert_array_equal(run(x[order]), alone[order])
    for width in (2, 3, 8):  # several tokens a row
        np.testing.assert_array_equal(
            run(x[: 16 // width * width].reshape(-1, width, inputs)).reshape(-1, outputs),
            alone[: 16 // width * width, 0],
        )
