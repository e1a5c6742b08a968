"""T5's decoder as two hand-built graphs: prefill (once a request) and step (once for several tokens).

They are built node by node instead of traced, because the step is what an answer's time is made of: one product for
query, key and value, a cache that is written in place, position bias and mask from one table, residual and norm in one
node, and only the best tokens leave the graph. What was tried is in ``docs/experiments.md``.

Shape letters: ``B`` rows, ``W`` tokens a row in this step, ``T`` columns of the cache, ``Q`` encoder tokens,
``D`` model width, ``N`` heads, ``H`` head width, ``V`` vocabulary, ``C`` candidates.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnxscript import GraphBuilder

from neuro_latent_export.precision import Blocks, Precision, Rows, Storage
from neuro_latent_export.row_int8 import quantize_rows
from neuro_latent_export.t5_graphs import position_table
from neuro_latent_export.weight_only import quantize_blocks

OPSET = 24  # the first with TensorScatter, and with an Attention that takes it
CONTRIB = "com.microsoft"
MASKED = float(np.finfo(np.float32).min) / 2
"""Added to the score of a column that must not be seen; half of the lowest number, so that a sum stays finite."""

TENSORRT_COLUMNS = 520
"""Columns of the cache in the step graph of TensorRT, whose cache is as wide from the start as it may ever be: 512 new
tokens, and the up to 8 of one more step."""

Dialect = Literal["onnxruntime", "tensorrt"]
"""Whose operators a graph is made of."""

Weights = npt.NDArray[np.float32]


class UnsupportedModel(ValueError):
    """A T5 with a part that the decoder graphs do not have."""


def cache_names(prefix: str, kind: str, layers: int) -> list[str]:
    """Key and value names of every layer, as optimum names them: ``present.0.decoder.key`` …"""
    return [f"{prefix}.{i}.{kind}.{part}" for i in range(layers) for part in ("key", "value")]


class _Builder:
    """A graph under construction over the weights of a Hugging Face T5, for ONNX Runtime."""

    columns: int | str = "columns"
    """Of the cache."""

    def __init__(self, name: str, t5: Any, precision: Precision) -> None:
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET, CONTRIB: 1}, name=name)
        self.builder = GraphBuilder(self.graph)
        self.op = self.builder.op
        self.config, self.precision = t5.config, precision
        self.heads, self.inner = t5.config.num_heads, t5.config.num_heads * t5.config.d_kv

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.graph.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> None:
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        self.graph.outputs.append(value)

    def constant(self, array: npt.NDArray[Any], name: str) -> ir.Value:
        return self.builder.initializer(ir.tensor(np.ascontiguousarray(array), name=name))

    def ints(self, *values: int) -> ir.Value:
        """A constant list of integers, one for all its uses."""
        name = "ints_" + "_".join(map(str, values))
        return self.graph.initializers.get(name) or self.constant(np.array(values, dtype=np.int64), name)

    def product(self, x: ir.Value, weight_KN: Weights, name: str, storage: Storage | None) -> ir.Value:
        """``x @ weight``, with the weight stored as the precision says."""
        if not isinstance(storage, Blocks):  # rows are quantized when the graph is complete
            return self.op.MatMul(x, self.constant(weight_KN, name))
        levels, scales = quantize_blocks(weight_KN, storage)
        return self.op.MatMulNBits(
            x,
            self.constant(levels, f"{name}.levels"),
            self.constant(scales, f"{name}.scales"),
            _domain=CONTRIB,
            K=weight_KN.shape[0],
            N=weight_KN.shape[1],
            bits=storage.bits,
            block_size=storage.size,
            accuracy_level=4,  # int8 products; without it the weights are made float32 again
        )

    def split_heads(self, x_BLX: ir.Value) -> ir.Value:
        """[B, L, N*H] -> [B, N, L, H]."""
        return self.op.Transpose(self.op.Reshape(x_BLX, self.ints(0, 0, self.heads, -1)), perm=[0, 2, 1, 3])

    def attend(self, q_BWX: ir.Value, k_BNTH: ir.Value, v_BNTH: ir.Value, bias: ir.Value) -> ir.Value:
        """T5 attention: the scores are not scaled. [B, W, N*H] -> [B, W, N*H].

        Each query is a head of its own in the group of its key head, so that the kernel takes one after the other,
        whatever W is: with all W in one product it sums in another order, and a quantized graph makes another token of
        the last bits now and then.

        Args:
            q_BWX: queries.
            k_BNTH: keys.
            v_BNTH: values.
            bias: of :meth:`bias_of_groups`, added to the scores.
        """
        op, width = self.op, self.config.d_kv
        heads_BGH = op.Reshape(self.split_heads(q_BWX), self.ints(0, -1, 1, width))
        mixed_BGH = op.Attention(heads_BGH, k_BNTH, v_BNTH, bias, scale=1.0)
        return self.join_heads(op.Reshape(mixed_BGH, self.ints(0, self.heads, -1, width)))

    def join_heads(self, x_BNLH: ir.Value) -> ir.Value:
        """[B, N, L, H] -> [B, L, N*H]."""
        return self.op.Reshape(self.op.Transpose(x_BNLH, perm=[0, 2, 1, 3]), self.ints(0, 0, self.inner))

    def self_bias(self, bias_BNWT: ir.Value, columns_1: ir.Value) -> ir.Value:
        """The bias as :meth:`attend` wants it: [B, N*W, 1, T], without an axis that could be empty.

        0 takes the size of the batch, T is known from the cache.
        """
        return self.op.Reshape(bias_BNWT, self.op.Concat(self.ints(0, -1, 1), columns_1, axis=0))

    def cross_bias(self, bias_B11Q: ir.Value, width_1: ir.Value) -> ir.Value:
        """The bias as :meth:`attend` wants it: [B, N*W, 1, Q]."""
        groups = self.op.Mul(width_1, self.ints(self.heads))
        return self.op.Expand(bias_B11Q, self.op.Concat(self.ints(1), groups, self.ints(1, 1), axis=0))

    def seen_columns(self, cache: ir.Value) -> ir.Value:
        """How many columns of the caches are attended to, [1]."""
        return self.op.Shape(cache, start=2, end=3)

    def seen(self, cache_BNTH: ir.Value, columns_1: ir.Value) -> ir.Value:
        """The columns of a cache that are attended to."""
        return cache_BNTH

    def norm(self, x: ir.Value, module: Any, name: str) -> ir.Value:
        """T5's norm: the root mean square, no mean, no offset."""
        return self.op.SimplifiedLayerNormalization(
            x, self.constant(_array(module.weight), name), axis=-1, epsilon=module.variance_epsilon, stash_type=1
        )

    def add_and_norm(self, x: ir.Value, change: ir.Value, weight_D: Weights, module: Any, name: str) -> Any:
        """``x + change``, normed and as it is."""
        normed, _, _, total = self.op.SkipSimplifiedLayerNormalization(
            change, x, self.constant(weight_D, name), _domain=CONTRIB, epsilon=module.variance_epsilon, _outputs=4
        )
        return normed, total

    def activation(self, x: ir.Value) -> ir.Value:
        name = self.config.dense_act_fn
        if name == "relu":
            return self.op.Relu(x)
        if name in ("gelu", "gelu_new"):
            return self.op.Gelu(x, approximate="tanh" if name == "gelu_new" else "none")
        if name == "silu":
            return self.op.Mul(x, self.op.Sigmoid(x))
        raise UnsupportedModel(f"the T5's activation {name!r} is not supported; known are relu, gelu, gelu_new, silu")

    def feed_forward(self, x: ir.Value, dense: Any, name: str) -> ir.Value:
        storage = self.precision.decoder
        if not self.config.is_gated_act:
            hidden = self.activation(self.product(x, _transposed(dense.wi), f"{name}.wi", storage))
        else:
            both = np.concatenate([_transposed(dense.wi_0), _transposed(dense.wi_1)], axis=1)
            joined = self.product(x, both, f"{name}.wi", storage)
            gate, value = self.op.Split(joined, axis=-1, num_outputs=2, _outputs=2)
            hidden = self.op.Mul(self.activation(gate), value)
        return self.product(hidden, _transposed(dense.wo), f"{name}.wo", storage)

    def model(self) -> ir.Model:
        model = ir.Model(self.graph, ir_version=11, producer_name="neuro-latent-export")
        if isinstance(self.precision.decoder, Rows):
            quantize_rows(model)
        return model


class _TensorRTBuilder(_Builder):
    """The same of standard operators, as TensorRT's parser takes them.

    ``TensorScatter`` becomes its KVCacheUpdate, which writes in place, but wants a cache with a fixed number of
    columns. So the graph has one input more, which says how many of them are looked at.
    """

    columns = TENSORRT_COLUMNS

    def attend(self, q_BWX: ir.Value, k_BNTH: ir.Value, v_BNTH: ir.Value, bias: ir.Value) -> ir.Value:
        return self.join_heads(self.op.Attention(self.split_heads(q_BWX), k_BNTH, v_BNTH, bias, scale=1.0))

    def self_bias(self, bias_BNWT: ir.Value, columns_1: ir.Value) -> ir.Value:
        return bias_BNWT

    def cross_bias(self, bias_B11Q: ir.Value, width_1: ir.Value) -> ir.Value:
        return self.op.Expand(bias_B11Q, self.op.Concat(self.ints(1, 1), width_1, self.ints(1), axis=0))

    def seen_columns(self, cache: ir.Value) -> ir.Value:
        return self.input("columns", ir.DataType.INT64, (1,))

    def seen(self, cache_BNTH: ir.Value, columns_1: ir.Value) -> ir.Value:
        return self.op.Slice(cache_BNTH, self.ints(0), columns_1, self.ints(2))

    def norm(self, x: ir.Value, module: Any, name: str) -> ir.Value:
        return self._norm(x, _array(module.weight), module, name)

    def add_and_norm(self, x: ir.Value, change: ir.Value, weight_D: Weights, module: Any, name: str) -> Any:
        total = self.op.Add(x, change)
        return self._norm(total, weight_D, module, name), total

    def _norm(self, x: ir.Value, weight_D: Weights, module: Any, name: str) -> ir.Value:
        return self.op.RMSNormalization(x, self.constant(weight_D, name), axis=-1, epsilon=module.variance_epsilon)


_BUILDERS = {"onnxruntime": _Builder, "tensorrt": _TensorRTBuilder}


def _array(parameter: Any) -> Weights:
    array: Weights = parameter.detach().float().cpu().numpy()
    return array


def _transposed(linear: Any) -> Weights:
    """The weight of a torch ``Linear`` as [inputs, outputs]."""
    return _array(linear.weight).T


def build_prefill(t5: Any, precision: Precision, dialect: Dialect = "onnxruntime") -> ir.Model:
    """Encoder hidden states -> cross-attention keys and values of every decoder layer.

    Input ``encoder_hidden_states`` float32 [B, Q, D]; outputs ``present.I.encoder.key|value`` float32 [B, N, Q, H].
    """
    b = _BUILDERS[dialect]("prefill", t5, precision)
    hidden = b.input("encoder_hidden_states", ir.DataType.FLOAT, ("batch", "encoder_tokens", t5.config.d_model))
    attentions = [block.layer[1].EncDecAttention for block in t5.decoder.block]
    weights = [_transposed(linear) for attention in attentions for linear in (attention.k, attention.v)]
    parts = b.op.Split(
        b.product(hidden, np.concatenate(weights, axis=1), "cross", precision.decoder),
        axis=-1,
        num_outputs=len(weights),
        _outputs=len(weights),
    )
    for name, part in zip(cache_names("present", "encoder", len(attentions)), parts, strict=True):
        shape = ("batch", b.heads, "encoder_tokens", t5.config.d_kv)
        b.output(b.split_heads(part), name, ir.DataType.FLOAT, shape)
    return b.model()


def build_step(t5: Any, precision: Precision, dialect: Dialect = "onnxruntime") -> ir.Model:
    """Some tokens a row -> the best next tokens after each of them.

    Row ``b``'s tokens take the columns ``cache_lengths[b]``, ``cache_lengths[b] + 1`` … of its cache; each sees the
    columns before it and itself, so rows may have any lengths, and what a later column holds does not matter. With
    the caches' inputs and outputs bound to the same memory nothing is copied.

    Inputs:
        decoder_input_ids: int64 [B, W].
        cache_lengths: int64 [B]; ``cache_lengths + W`` may not be above ``T``.
        encoder_attention_mask: int64 [B, Q].
        candidates: int64 [1], how many of the best tokens to return; 0 for none.
        past_key_values.I.decoder.key|value: float32 [B, N, T, H].
        past_key_values.I.encoder.key|value: float32 [B, N, Q, H].

    Outputs:
        next_token: int64 [B, W].
        next_logprob: float32 [B, W].
        candidate_tokens, candidate_logprobs: [B, W, C], best first.
        logprobs: float32 [B, W, V].
        present.I.decoder.key|value: float32 [B, N, T, H].

    Raises:
        UnsupportedModel: the T5's activation is not known here.
    """
    b = _BUILDERS[dialect]("step", t5, precision)
    op = b.op
    config, stack, layers = t5.config, t5.decoder, len(t5.decoder.block)
    ints, floats = ir.DataType.INT64, ir.DataType.FLOAT
    ids_BW = b.input("decoder_input_ids", ints, ("batch", "width"))
    lengths_B = b.input("cache_lengths", ints, ("batch",))
    mask_BQ = b.input("encoder_attention_mask", ints, ("batch", "encoder_tokens"))
    candidates = b.input("candidates", ints, (1,))
    cache_shape = ("batch", b.heads, b.columns, config.d_kv)
    cross_shape = ("batch", b.heads, "encoder_tokens", config.d_kv)
    past = {n: b.input(n, floats, cache_shape) for n in cache_names("past_key_values", "decoder", layers)}
    cross = {n: b.input(n, floats, cross_shape) for n in cache_names("past_key_values", "encoder", layers)}

    columns = b.seen_columns(past["past_key_values.0.decoder.key"])
    self_bias = _self_bias(b, ids_BW, lengths_B, columns, stack)
    cross_bias = _cross_bias(b, ids_BW, mask_BQ)
    x = op.Gather(b.constant(_array(stack.embed_tokens.weight), "embedding"), ids_BW)
    normed = b.norm(x, stack.block[0].layer[0].layer_norm, "0.self.norm")
    present: dict[str, ir.Value] = {}
    for i, block in enumerate(stack.block):
        self_layer, cross_layer, feed_forward = block.layer
        attention = self_layer.SelfAttention
        joined = np.concatenate([_transposed(p) for p in (attention.q, attention.k, attention.v)], axis=1)
        q, kv = op.Split(
            b.product(normed, joined, f"{i}.self.qkv", precision.decoder),
            b.ints(b.inner, 2 * b.inner),
            axis=-1,
            _outputs=2,
        )
        both_BNWH = op.Transpose(op.Reshape(kv, b.ints(0, 0, 2 * b.heads, -1)), perm=[0, 2, 1, 3])
        for part, new in zip(("key", "value"), op.Split(both_BNWH, axis=1, num_outputs=2, _outputs=2), strict=True):
            old = past[f"past_key_values.{i}.decoder.{part}"]
            present[f"present.{i}.decoder.{part}"] = op.TensorScatter(old, new, lengths_B, axis=2)
        keys, values = (b.seen(present[f"present.{i}.decoder.{part}"], columns) for part in ("key", "value"))
        mixed = b.attend(q, keys, values, self_bias)
        change = b.product(mixed, _transposed(attention.o), f"{i}.self.o", precision.decoder)
        norm = cross_layer.layer_norm
        normed, x = b.add_and_norm(x, change, _array(norm.weight), norm, f"{i}.cross.norm")

        attention = cross_layer.EncDecAttention
        q = b.product(normed, _transposed(attention.q), f"{i}.cross.q", precision.decoder)
        keys, values = (cross[f"past_key_values.{i}.encoder.{part}"] for part in ("key", "value"))
        mixed = b.attend(q, keys, values, cross_bias)
        change = b.product(mixed, _transposed(attention.o), f"{i}.cross.o", precision.decoder)
        norm = feed_forward.layer_norm
        normed, x = b.add_and_norm(x, change, _array(norm.weight), norm, f"{i}.feed_forward.norm")

        change = b.feed_forward(normed, feed_forward.DenseReluDense, f"{i}.feed_forward")
        last = i == layers - 1
        norm = stack.final_layer_norm if last else stack.block[i + 1].layer[0].layer_norm
        weight_D = _array(norm.weight) * (_output_scale(config) if last else 1.0)
        normed, x = b.add_and_norm(x, change, weight_D, norm, "final.norm" if last else f"{i + 1}.self.norm")

    logits = b.product(normed, _transposed(t5.lm_head), "head", precision.head)
    token_BW = op.ArgMax(logits, axis=-1, keepdims=0)
    logprobs = op.LogSoftmax(logits, axis=-1)
    best_logprobs, best_tokens = op.TopK(logprobs, candidates, axis=-1, _outputs=2)
    b.output(token_BW, "next_token", ints, ("batch", "width"))
    b.output(op.ReduceMax(logprobs, b.ints(-1), keepdims=0), "next_logprob", floats, ("batch", "width"))
    b.output(best_tokens, "candidate_tokens", ints, ("batch", "width", "candidates"))
    b.output(best_logprobs, "candidate_logprobs", floats, ("batch", "width", "candidates"))
    b.output(logprobs, "logprobs", floats, ("batch", "width", config.vocab_size))
    for name, value in present.items():
        b.output(value, name, floats, cache_shape)
    return b.model()


def _output_scale(config: Any) -> float:
    """T5 with tied embeddings scales the head's input; in the graph the scale is part of the last norm's weight."""
    tied = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)
    return float(config.d_model**-0.5) if tied else 1.0


def _self_bias(b: _Builder, ids_BW: ir.Value, lengths_B: ir.Value, columns_1: ir.Value, stack: Any) -> ir.Value:
    """Position bias and causal mask in one look-up, for the first ``columns_1`` columns.

    The table's row 0 masks a column that lies ahead, row ``1 + d`` is the bias of a column ``d`` tokens back; beyond
    the last row the bias does not change any more.
    """
    op = b.op
    by_distance = position_table(stack.block[0].layer[0].SelfAttention, bidirectional=False).float().numpy()
    table = np.concatenate([np.full((1, by_distance.shape[1]), MASKED, dtype=np.float32), by_distance])
    zero, one = b.constant(np.array(0), "zero"), b.constant(np.array(1), "one")
    column_T = op.Range(zero, op.Squeeze(columns_1), one)
    offset_W = op.Range(zero, op.Squeeze(op.Shape(ids_BW, start=1, end=2)), one)
    position_BW = op.Add(op.Unsqueeze(lengths_B, b.ints(1)), op.Unsqueeze(offset_W, b.ints(0)))
    distance_BWT = op.Sub(op.Unsqueeze(position_BW, b.ints(2)), column_T)
    ahead, farthest = b.constant(np.array(-1), "ahead"), b.constant(np.array(len(by_distance) - 1), "farthest")
    row_BWT = op.Add(op.Clip(distance_BWT, ahead, farthest), one)
    bias_BNWT = op.Transpose(op.Gather(b.constant(table, "bias_table"), row_BWT), perm=[0, 3, 1, 2])
    return b.self_bias(bias_BNWT, columns_1)


def _cross_bias(b: _Builder, ids_BW: ir.Value, mask_BQ: ir.Value) -> ir.Value:
    """0 where an encoder token is real."""
    op = b.op
    bias_BQ = op.Mul(
        op.Cast(op.Sub(b.constant(np.array(1), "unmasked"), mask_BQ), to=ir.DataType.FLOAT),
        b.constant(np.array(MASKED, dtype=np.float32), "masked"),
    )
    return b.cross_bias(op.Unsqueeze(bias_BQ, b.ints(1, 2)), op.Shape(ids_BW, start=1, end=2))
