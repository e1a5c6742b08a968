"""The decoder's two graphs against Hugging Face's T5: any lengths, any widths, whatever lies where nobody may look."""

import copy
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache, T5Config, T5ForConditionalGeneration

from neuro_latent_core.limits import CACHE_COLUMNS
from neuro_latent_export.decoder_graphs import build_prefill, build_step, cache_names
from neuro_latent_export.decoder_nodes import CONTRIB, OPSET, Dialect, UnsupportedModel
from neuro_latent_export.precision import FP32, INT4, INT8, Precision
from tests.conftest import Pair
from tests.tiny import enliven

pytestmark = pytest.mark.slow

KINDS = ("plain", "gated")
DIALECTS: tuple[Dialect, ...] = ("onnxruntime", "tensorrt")
Array = np.ndarray[Any, Any]


def session(model: ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])


class Graphs:
    """Both graphs of a T5, and the T5."""

    def __init__(self, t5: Any, precision: Precision = FP32, dialect: Dialect = "onnxruntime") -> None:
        self.t5, self.config, self.dialect = t5.eval(), t5.config, dialect
        self.layers = self.config.num_decoder_layers
        self._prefill, self._step = (session(build(t5, precision, dialect)) for build in (build_prefill, build_step))
        self.outputs = [tensor.name for tensor in self._step.get_outputs()]

    def prefill(self, hidden_BQD: Array) -> dict[str, Array]:
        values = self._prefill.run(None, {"encoder_hidden_states": hidden_BQD})
        return dict(zip(cache_names("past_key_values", "encoder", self.layers), values, strict=True))

    def cache(self, rows: int, columns: int, fill: float = 7.0) -> dict[str, Array]:
        if self.dialect == "tensorrt":
            columns = CACHE_COLUMNS
        shape = (rows, self.config.num_heads, columns, self.config.d_kv)
        return {name: np.full(shape, fill, "f4") for name in cache_names("past_key_values", "decoder", self.layers)}

    def step(
        self, tokens_BW: Array, lengths_B: Array, mask_BQ: Array, cache: dict[str, Array], candidates: int = 0
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """The outputs, and the cache after the step."""
        seen = {"columns": lengths_B.max(keepdims=True) + tokens_BW.shape[1]} if self.dialect == "tensorrt" else {}
        found = self._step.run(
            None,
            {
                "decoder_input_ids": tokens_BW,
                "cache_lengths": lengths_B,
                "encoder_attention_mask": mask_BQ,
                "candidates": np.array([candidates]),
                **seen,
                **cache,
            },
        )
        outputs = dict(zip(self.outputs, found, strict=True))
        new = {n.replace("present", "past_key_values"): outputs.pop(n) for n in self.outputs if n.startswith("present")}
        return outputs, {**cache, **new}

    def logprobs(self, hidden_QD: Array, mask_Q: Array, tokens: list[int]) -> Array:
        """Of Hugging Face, after each token: [T, V]."""
        with torch.no_grad():
            logits = self.t5(
                encoder_outputs=(torch.from_numpy(hidden_QD[None]),),
                attention_mask=torch.from_numpy(mask_Q[None]),
                decoder_input_ids=torch.tensor([tokens]),
                use_cache=False,
            ).logits
        result: Array = logits[0].log_softmax(-1).numpy()
        return result


@pytest.fixture(scope="module")
def graphs(pair: Pair, gated_pair: Pair) -> dict[str, Graphs]:
    folders = {"plain": pair.generator, "gated": gated_pair.generator}
    return {kind: Graphs(T5ForConditionalGeneration.from_pretrained(folder)) for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def spoken(graphs: dict[str, Graphs]) -> dict[tuple[str, Dialect], Graphs]:
    """The same in every dialect."""
    others = {(kind, "tensorrt"): Graphs(g.t5, dialect="tensorrt") for kind, g in graphs.items()}
    return {**{(kind, "onnxruntime"): g for kind, g in graphs.items()}, **others}


def prompts(graphs: Graphs, rows: int, wide: int, seed: int) -> tuple[Array, Array]:
    """Encoder states, and masks with their zeros anywhere."""
    rng = np.random.default_rng(seed)
    hidden_BQD = rng.normal(size=(rows, wide, graphs.config.d_model)).astype("f4")
    mask_BQ = (rng.random((rows, wide)) < 0.8).astype(np.int64)
    mask_BQ[:, 0] = 1
    return hidden_BQD, mask_BQ


def assert_close(got: Array, want: Array) -> None:
    np.testing.assert_allclose(got, want, atol=2e-4 * float(np.abs(want).max()))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_rows_of_any_lengths_fed_any_widths_get_the_probabilities_of_hugging_face(
    spoken: dict[tuple[str, Dialect], Graphs], kind: str, dialect: Dialect, rows: int
) -> None:
    """As the engine does it: every row is fed as many tokens, of which some do not count and are written over."""
    g, rng = spoken[kind, dialect], np.random.default_rng(rows)
    hidden_BQD, mask_BQ = prompts(g, rows, 23, seed=rows)
    # Longer than the farthest distance with a bias of its own.
    cache, lengths_B = {**g.prefill(hidden_BQD), **g.cache(rows, 220)}, np.zeros(rows, dtype=np.int64)
    texts: list[list[int]] = [[] for _ in range(rows)]
    for width in [1, 2, 3, 4, 5, 6, 7, 8, 130, 8, 1, 5, 3, 1]:
        tokens_BW = rng.integers(0, g.config.vocab_size, (rows, width))
        outputs, cache = g.step(tokens_BW, lengths_B, mask_BQ, cache, candidates=5)
        for b in range(rows):
            want = g.logprobs(hidden_BQD[b], mask_BQ[b], [*texts[b], *tokens_BW[b].tolist()])[-width:]
            assert_close(outputs["logprobs"][b], want)
            assert (outputs["next_token"][b] == want.argmax(-1)).all()
            assert_close(outputs["next_logprob"][b], want.max(-1))
        count_B = rng.integers(1, width + 1, rows) if width < 100 else np.full(rows, width)
        texts = [[*text, *fed[:count]] for text, fed, count in zip(texts, tokens_BW.tolist(), count_B, strict=True)]
        lengths_B = lengths_B + count_B
    assert rows == 1 or len(set(lengths_B.tolist())) > 1
    assert lengths_B.max() > 140


@pytest.mark.parametrize("kind", KINDS)
def test_prefill_gives_the_keys_and_values_of_hugging_face(graphs: dict[str, Graphs], kind: str) -> None:
    g = graphs[kind]
    hidden_BQD, mask_BQ = prompts(g, 3, 11, seed=4)
    theirs = EncoderDecoderCache(DynamicCache(), DynamicCache())
    with torch.no_grad():
        g.t5.decoder(
            torch.zeros((3, 1), dtype=torch.long),
            encoder_hidden_states=torch.from_numpy(hidden_BQD),
            encoder_attention_mask=torch.from_numpy(mask_BQ),
            past_key_values=theirs,
        )
    ours = g.prefill(hidden_BQD)
    for i, layer in enumerate(theirs.cross_attention_cache.layers):
        assert_close(ours[f"past_key_values.{i}.encoder.key"], layer.keys.numpy())
        assert_close(ours[f"past_key_values.{i}.encoder.value"], layer.values.numpy())


@pytest.fixture(params=DIALECTS)
def ragged(
    spoken: dict[tuple[str, Dialect], Graphs], request: pytest.FixtureRequest
) -> tuple[Graphs, Array, Array, dict[str, Array], Array]:
    """Rows of three lengths with their prompts: graphs, mask, lengths, cache, the tokens to feed."""
    g, rng = spoken["plain", request.param], np.random.default_rng(3)
    hidden_BQD, mask_BQ = prompts(g, 3, 9, seed=3)
    cache = {**g.prefill(hidden_BQD), **g.cache(3, 32)}
    tokens_BW = rng.integers(0, g.config.vocab_size, (3, 20))
    _, cache = g.step(tokens_BW, np.zeros(3, dtype=np.int64), mask_BQ, cache)
    return g, mask_BQ, np.array([0, 7, 20]), cache, rng.integers(0, g.config.vocab_size, (3, 8))


def assert_same(left: dict[str, Array], right: dict[str, Array]) -> None:
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_what_lies_behind_a_rows_tokens_does_not_matter(
    ragged: tuple[Graphs, Array, Array, dict[str, Array], Array],
) -> None:
    g, mask_BQ, lengths_B, cache, tokens_BW = ragged
    changed = {name: value.copy() for name, value in cache.items()}
    for name in cache_names("past_key_values", "decoder", g.layers):
        for b, length in enumerate(lengths_B):
            changed[name][b, :, length:] = 1e4 * (-1) ** b
    for width in range(1, 9):
        want, _ = g.step(tokens_BW[:, :width], lengths_B, mask_BQ, cache, candidates=9)
        got, after = g.step(tokens_BW[:, :width], lengths_B, mask_BQ, changed, candidates=9)
        assert_same(got, want)
        for name in cache_names("past_key_values", "decoder", g.layers):  # nothing but the new columns was written
            for b, length in enumerate(lengths_B):
                np.testing.assert_array_equal(after[name][b, :, :length], cache[name][b, :, :length])
                np.testing.assert_array_equal(
                    after[name][b, :, length + width :], changed[name][b, :, length + width :]
                )


def test_masked_encoder_tokens_do_not_matter(ragged: tuple[Graphs, Array, Array, dict[str, Array], Array]) -> None:
    g, mask_BQ, lengths_B, cache, tokens_BW = ragged
    assert not mask_BQ.all(axis=1).all()
    changed = {
        name: np.where(mask_BQ[:, None, :, None] == 1, value, np.float32(1e4)) if ".encoder." in name else value
        for name, value in cache.items()
    }
    assert_same(
        g.step(tokens_BW, lengths_B, mask_BQ, changed, candidates=9)[0],
        g.step(tokens_BW, lengths_B, mask_BQ, cache, candidates=9)[0],
    )
    padding = np.full((3, g.config.num_heads, 30, g.config.d_kv), -5, dtype="f4")
    padded = {n: np.concatenate([v, padding], axis=2) if ".encoder." in n else v for n, v in cache.items()}
    wide_BQ = np.concatenate([mask_BQ, np.zeros((3, 30), dtype=np.int64)], axis=1)
    assert_close(
        g.step(tokens_BW, lengths_B, wide_BQ, padded)[0]["logprobs"],
        g.step(tokens_BW, lengths_B, mask_BQ, cache)[0]["logprobs"],
    )


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("count", [0, 1, 64])
def test_candidates_are_the_best_of_all_in_order(
    ragged: tuple[Graphs, Array, Array, dict[str, Array], Array], width: int, count: int
) -> None:
    g, mask_BQ, lengths_B, cache, tokens_BW = ragged
    outputs, _ = g.step(tokens_BW[:, :width], lengths_B, mask_BQ, cache, candidates=count)
    tokens, values, all_values = (outputs[n] for n in ("candidate_tokens", "candidate_logprobs", "logprobs"))
    assert tokens.shape == values.shape == (3, width, count)
    np.testing.assert_array_equal(values, -np.sort(-all_values, axis=-1)[..., :count])
    np.testing.assert_array_equal(values, np.take_along_axis(all_values, tokens, axis=-1))
    if count:
        np.testing.assert_array_equal(tokens[..., 0], outputs["next_token"])
        np.testing.assert_array_equal(values[..., 0], outputs["next_logprob"])
    np.testing.assert_array_equal(outputs["next_token"], all_values.argmax(-1))
    np.testing.assert_allclose(np.exp(all_values.astype("f8")).sum(-1), 1, rtol=1e-5)


def small_t5(feed_forward: str, tied: bool = True) -> Any:
    torch.manual_seed(7)
    t5 = T5ForConditionalGeneration(
        T5Config(
            vocab_size=50,
            d_model=16,
            d_kv=6,
            d_ff=20,
            num_layers=1,
            num_decoder_layers=2,
            num_heads=3,
            feed_forward_proj=feed_forward,
            tie_word_embeddings=tied,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=20,
            layer_norm_epsilon=1e-3,
            decoder_start_token_id=0,
        )
    )
    enliven(t5)
    for name, parameter in t5.named_parameters():  # norms that do something
        if "layer_norm" in name:
            parameter.data.uniform_(0.5, 1.5)
    return t5


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("feed_forward", ["relu", "gelu", "silu", "gated-relu", "gated-gelu", "gated-silu"])
def test_every_known_activation_is_that_of_hugging_face(feed_forward: str, tied: bool) -> None:
    g = Graphs(small_t5(feed_forward, tied))
    hidden_BQD, mask_BQ = prompts(g, 2, 5, seed=1)
    tokens_BW = np.random.default_rng(0).integers(0, 50, (2, 30))
    cache = {**g.prefill(hidden_BQD), **g.cache(2, 30)}
    outputs, _ = g.step(tokens_BW, np.zeros(2, dtype=np.int64), mask_BQ, cache)
    for b in range(2):
        assert_close(outputs["logprobs"][b], g.logprobs(hidden_BQD[b], mask_BQ[b], tokens_BW[b].tolist()))


def test_an_unknown_activation_is_refused_by_name() -> None:
    t5 = small_t5("relu")
    t5.config = copy.copy(t5.config)
    t5.config.dense_act_fn = "swish2"
    with pytest.raises(UnsupportedModel, match=r"activation 'swish2' is not supported; known are relu, gelu"):
        build_step(t5, FP32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", [INT8, INT4], ids=lambda p: p.name)
def test_integer_weights_give_nearly_the_same_keys_and_values(
    graphs: dict[str, Graphs], kind: str, precision: Precision
) -> None:
    """Only one product deep: what rounding makes of the tiny model's texts says nothing of a real one."""
    g = graphs[kind]
    quantized = Graphs(g.t5, precision)
    hidden_BQD, _ = prompts(g, 2, 20, seed=5)
    for want, got in zip(g.prefill(hidden_BQD).values(), quantized.prefill(hidden_BQD).values(), strict=True):
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        assert error < (0.02 if precision is INT8 else 0.15)


def test_names_axes_and_opset_are_those_of_the_contract(graphs: dict[str, Graphs]) -> None:
    g = graphs["plain"]
    heads, head_width, layers = g.config.num_heads, g.config.d_kv, g.layers
    step = build_step(g.t5, FP32)
    own, cross = ("batch", heads, "columns", head_width), ("batch", heads, "encoder_tokens", head_width)
    s = g._step
    assert {t.name: tuple(t.shape) for t in s.get_inputs()} == {
        "decoder_input_ids": ("batch", "width"),
        "cache_lengths": ("batch",),
        "encoder_attention_mask": ("batch", "encoder_tokens"),
        "candidates": (1,),
        **dict.fromkeys(cache_names("past_key_values", "decoder", layers), own),
        **dict.fromkeys(cache_names("past_key_values", "encoder", layers), cross),
    }
    assert {t.name: tuple(t.shape) for t in s.get_outputs()} == {
        "next_token": ("batch", "width"),
        "next_logprob": ("batch", "width"),
        "candidate_tokens": ("batch", "width", "candidates"),
        "candidate_logprobs": ("batch", "width", "candidates"),
        "logprobs": ("batch", "width", g.config.vocab_size),
        **dict.fromkeys(cache_names("present", "decoder", layers), own),
    }
    assert step.graph.opset_imports[""] == OPSET == build_prefill(g.t5, FP32).graph.opset_imports[""]
    for precision, operator in ((FP32, "MatMul"), (INT8, "MatMulIntegerToFloat"), (INT4, "MatMulNBits")):
        products = {n.op_type for n in build_step(g.t5, precision).graph if n.op_type.startswith("MatMul")}
        assert products == {operator}
    assert {n.domain for n in step.graph} == {"", CONTRIB}


def test_tensorrt_gets_standard_operators_a_cache_of_fixed_width_and_a_number_of_columns(
    spoken: dict[tuple[str, Dialect], Graphs],
) -> None:
    ours, usual = ({t.name: t.shape for t in spoken["plain", d]._step.get_inputs()} for d in DIALECTS[::-1])
    assert ours.pop("columns") == [1]
    fixed = {name: [CACHE_COLUMNS if axis == "columns" else axis for axis in axes] for name, axes in usual.items()}
    assert ours == fixed
    assert spoken["plain", "tensorrt"].outputs == spoken["plain", "onnxruntime"].outputs
    assert {n.domain for n in build_step(spoken["plain", "tensorrt"].t5, FP32, "tensorrt").graph} == {""}


def test_cache_names_are_those_of_optimum() -> None:
    assert cache_names("present", "decoder", 2) == [
        "present.0.decoder.key",
        "present.0.decoder.value",
        "present.1.decoder.key",
        "present.1.decoder.value",
    ]
