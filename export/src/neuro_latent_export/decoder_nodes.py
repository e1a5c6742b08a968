"""The operators that the decoder's graphs are made of: ONNX Runtime's, and those that TensorRT takes.

Shape letters: ``B`` rows, ``L`` tokens, ``W`` tokens a row in this step, ``T`` columns of the cache, ``Q`` encoder
tokens, ``N`` heads, ``H`` head width, ``X = N * H``.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnxscript import GraphBuilder

from neuro_latent_core.limits import CACHE_COLUMNS
from neuro_latent_export.precision import Blocks, Precision, RowScaled, Storage
from neuro_latent_export.row_int8 import CONTRIB, quantize_rows
from neuro_latent_export.weight_only import quantize_blocks

OPSET = 24  # the first with TensorScatter, and with an Attention that takes it

Dialect = Literal["onnxruntime", "tensorrt"]
"""Whose operators a graph is made of."""

Weights = npt.NDArray[np.float32]


class UnsupportedModel(ValueError):
    """A T5 with a part that the decoder graphs do not have."""


class Builder:
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
            bias: of :meth:`self_bias` or :meth:`cross_bias`, added to the scores.
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
            x, self.constant(array_of(module.weight), name), axis=-1, epsilon=module.variance_epsilon, stash_type=1
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
            hidden = self.activation(self.product(x, transposed(dense.wi), f"{name}.wi", storage))
        else:
            both = np.concatenate([transposed(dense.wi_0), transposed(dense.wi_1)], axis=1)
            joined = self.product(x, both, f"{name}.wi", storage)
            gate, value = self.op.Split(joined, axis=-1, num_outputs=2, _outputs=2)
            hidden = self.op.Mul(self.activation(gate), value)
        return self.product(hidden, transposed(dense.wo), f"{name}.wo", storage)

    def model(self) -> ir.Model:
        model = ir.Model(self.graph, ir_version=11, producer_name="neuro-latent-export")
        if isinstance(self.precision.decoder, RowScaled):
            quantize_rows(model)
        return model


class TensorRTBuilder(Builder):
    """The same of standard operators, as TensorRT's parser takes them.

    ``TensorScatter`` becomes its KVCacheUpdate, which writes in place, but wants a cache with a fixed number of
    columns. So the graph has one input more, which says how many of them are looked at.
    """

    columns = CACHE_COLUMNS

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
        return self._norm(x, array_of(module.weight), module, name)

    def add_and_norm(self, x: ir.Value, change: ir.Value, weight_D: Weights, module: Any, name: str) -> Any:
        total = self.op.Add(x, change)
        return self._norm(total, weight_D, module, name), total

    def _norm(self, x: ir.Value, weight_D: Weights, module: Any, name: str) -> ir.Value:
        return self.op.RMSNormalization(x, self.constant(weight_D, name), axis=-1, epsilon=module.variance_epsilon)


BUILDERS = {"onnxruntime": Builder, "tensorrt": TensorRTBuilder}


def array_of(parameter: Any) -> Weights:
    array: Weights = parameter.detach().float().cpu().numpy()
    return array


def transposed(linear: Any) -> Weights:
    """The weight of a torch ``Linear`` as [inputs, outputs]."""
    return array_of(linear.weight).T
