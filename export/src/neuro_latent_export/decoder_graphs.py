"""T5's decoder as two hand-built graphs: prefill (once a request) and step (once for several tokens).

They are built node by node instead of traced, because the step is what an answer's time is made of: one product for
query, key and value, a cache that is written in place, position bias and mask from one table, residual and norm in one
node, and only the best tokens leave the graph. What was tried is in ``docs/experiments.md``.

Shape letters: ``B`` rows, ``W`` tokens a row in this step, ``T`` columns of the cache, ``Q`` encoder tokens,
``D`` model width, ``N`` heads, ``H`` head width, ``V`` vocabulary, ``C`` candidates.
"""

from typing import Any

import numpy as np
import onnx_ir as ir

from neuro_latent_export.decoder_nodes import BUILDERS, Builder, Dialect, array_of, transposed
from neuro_latent_export.precision import Precision
from neuro_latent_export.t5_graphs import position_table

MASKED = float(np.finfo(np.float32).min) / 2
"""Added to the score of a column that must not be seen; half of the lowest number, so that a sum stays finite."""


def cache_names(prefix: str, kind: str, layers: int) -> list[str]:
    """Key and value names of every layer, as optimum names them: ``present.0.decoder.key`` …"""
    return [f"{prefix}.{i}.{kind}.{part}" for i in range(layers) for part in ("key", "value")]


def build_prefill(t5: Any, precision: Precision, dialect: Dialect = "onnxruntime") -> ir.Model:
    """Encoder hidden states -> cross-attention keys and values of every decoder layer.

    Input ``encoder_hidden_states`` float32 [B, Q, D]; outputs ``present.I.encoder.key|value`` float32 [B, N, Q, H].
    """
    b = BUILDERS[dialect]("prefill", t5, precision)
    hidden = b.input("encoder_hidden_states", ir.DataType.FLOAT, ("batch", "encoder_tokens", t5.config.d_model))
    attentions = [block.layer[1].EncDecAttention for block in t5.decoder.block]
    weights = [transposed(linear) for attention in attentions for linear in (attention.k, attention.v)]
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
        columns: int64 [1], for TensorRT alone, whose caches always have ``CACHE_COLUMNS`` columns: only the first
            so many are looked at, which must be ``cache_lengths + W`` of the longest row or more.

    Outputs:
        next_token: int64 [B, W].
        next_logprob: float32 [B, W].
        candidate_tokens, candidate_logprobs: [B, W, C], best first.
        logprobs: float32 [B, W, V].
        present.I.decoder.key|value: float32 [B, N, T, H].

    Raises:
        UnsupportedModel: the T5's activation is not known here.
    """
    b = BUILDERS[dialect]("step", t5, precision)
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
    x = op.Gather(b.constant(array_of(stack.embed_tokens.weight), "embedding"), ids_BW)
    normed = b.norm(x, stack.block[0].layer[0].layer_norm, "0.self.norm")
    present: dict[str, ir.Value] = {}
    for i, block in enumerate(stack.block):
        self_layer, cross_layer, feed_forward = block.layer
        attention = self_layer.SelfAttention
        joined = np.concatenate([transposed(p) for p in (attention.q, attention.k, attention.v)], axis=1)
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
        change = b.product(mixed, transposed(attention.o), f"{i}.self.o", precision.decoder)
        norm = cross_layer.layer_norm
        normed, x = b.add_and_norm(x, change, array_of(norm.weight), norm, f"{i}.cross.norm")

        attention = cross_layer.EncDecAttention
        q = b.product(normed, transposed(attention.q), f"{i}.cross.q", precision.decoder)
        keys, values = (cross[f"past_key_values.{i}.encoder.{part}"] for part in ("key", "value"))
        mixed = b.attend(q, keys, values, cross_bias)
        change = b.product(mixed, transposed(attention.o), f"{i}.cross.o", precision.decoder)
        norm = feed_forward.layer_norm
        normed, x = b.add_and_norm(x, change, array_of(norm.weight), norm, f"{i}.feed_forward.norm")

        change = b.feed_forward(normed, feed_forward.DenseReluDense, f"{i}.feed_forward")
        last = i == layers - 1
        norm = stack.final_layer_norm if last else stack.block[i + 1].layer[0].layer_norm
        weight_D = array_of(norm.weight) * (_output_scale(config) if last else 1.0)
        normed, x = b.add_and_norm(x, change, weight_D, norm, "final.norm" if last else f"{i + 1}.self.norm")

    logits = b.product(normed, transposed(t5.lm_head), "head", precision.head)
    token_BW = op.ArgMax(logits, axis=-1, keepdims=0)
    logprobs = op.LogSoftmax(logits, axis=-1)
    best_logprobs, best_tokens = op.TopK(logprobs, candidates, axis=-1, _outputs=2)
    b.output(token_BW, "next_token", ints, ("batch", "width"))
    # Not ReduceMax: ONNX Runtime's takes 2 ms on an H100 for 128 rows of 32,128 scores.
    best = op.GatherElements(logprobs, op.Unsqueeze(token_BW, b.ints(-1)), axis=-1)
    b.output(op.Squeeze(best, b.ints(-1)), "next_logprob", floats, ("batch", "width"))
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


def _self_bias(b: Builder, ids_BW: ir.Value, lengths_B: ir.Value, columns_1: ir.Value, stack: Any) -> ir.Value:
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


def _cross_bias(b: Builder, ids_BW: ir.Value, mask_BQ: ir.Value) -> ir.Value:
    """0 where an encoder token is real."""
    op = b.op
    bias_BQ = op.Mul(
        op.Cast(op.Sub(b.constant(np.array(1), "unmasked"), mask_BQ), to=ir.DataType.FLOAT),
        b.constant(np.array(MASKED, dtype=np.float32), "masked"),
    )
    return b.cross_bias(op.Unsqueeze(bias_BQ, b.ints(1, 2)), op.Shape(ids_BW, start=1, end=2))
