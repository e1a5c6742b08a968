"""Graphs whose products are in float16 or bfloat16, as ``torch.autocast`` would run them.

What moves most bytes and does most arithmetic is in 16 bits: products, attention, and the caches. Norms, the residual
stream, softmax and the scores of tokens stay float32, so they neither overflow nor lose small differences. Inputs and
outputs stay float32 as well, but for the caches.

Such graphs are for GPUs: ONNX Runtime's CPU has no bfloat16 products, and makes float16 ones float32 by its own rules.
So a 16-bit graph is judged by its reference model (:func:`float32_reference`), which every processor runs: float32
arithmetic on values that are rounded wherever the 16-bit graph rounds. That is what a kernel computes that multiplies
in 16 bits and adds in float32, as those of GPUs do.
"""

from collections.abc import Callable
from typing import Final

import ml_dtypes
import numpy as np
import onnx_ir as ir

PRODUCTS: Final = {"MatMul": (0, 1), "Gemm": (0, 1, 2), "Attention": (0, 1, 2, 3), "TensorScatter": (0, 1)}
"""Operators that work in 16 bits, and which of their inputs do."""

SHAPING: Final = frozenset({"Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that only move values: they stay as wide as what they are given."""

CACHES: Final = ("past_key_values.", "present.")
"""How the names of 16-bit inputs and outputs begin."""

NUMPY: Final = {ir.DataType.FLOAT16: np.dtype(np.float16), ir.DataType.BFLOAT16: np.dtype(ml_dtypes.bfloat16)}

Keep = Callable[[ir.Node], bool]


def narrow_products(model: ir.Model, dtype: ir.DataType, keep: Keep = lambda node: False) -> int:
    """Make the products of a float32 graph 16-bit, in place; returns how many operators were changed.

    Args:
        model: a float32 graph without subgraphs.
        dtype: FLOAT16 or BFLOAT16.
        keep: which operators stay float32 all the same.
    """
    return _Narrowing(model.graph, dtype, keep).run()


def feed_forward_outputs(inner: int, width: int) -> Keep:
    """Products with the weights [inner, width] of T5's feed-forward outputs.

    Hugging Face, too, keeps them float32 in a float16 model (``T5PreTrainedModel._keep_in_fp32_modules``): they are
    where a trained T5 leaves float16's range.
    """

    def keep(node: ir.Node) -> bool:
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        tensor = ir.convenience.get_const_tensor(weight) if weight is not None else None
        return tensor is not None and tuple(tensor.shape) == (inner, width)

    return keep


def float32_reference(model: ir.Model) -> ir.Model:
    """A graph with the results of a 16-bit one, all of whose tensors are float32 (caches too)."""
    reference = model.clone()
    graph = reference.graph
    for value in [*graph.inputs, *graph.initializers.values()]:
        if value.dtype in NUMPY:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
    for node in list(graph):
        for value in node.outputs:
            if value.dtype in NUMPY:
                narrow, value.type = value.dtype, ir.TensorType(ir.DataType.FLOAT)
                if node.op_type not in SHAPING:  # what was rounded before
                    if node.op_type == "Cast":
                        node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT.value)
                    _round(graph, node, value, narrow)
    return reference


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value, dtype: ir.DataType) -> None:
    """Round ``value`` for all who use it."""
    down = _cast(value, dtype)
    up = _cast(down.outputs[0], ir.DataType.FLOAT)
    rounded = up.outputs[0]
    users, name = [use for use in value.uses() if use.node is not down], value.name
    graph.insert_after(node, [down, up])
    for user, index in users:
        user.replace_input_with(index, rounded)
    if value.is_graph_output():
        graph.outputs[graph.outputs.index(value)] = rounded
        value.name, rounded.name = f"{name}.exact", name


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    node = ir.node("Cast", [value], {"to": dtype.value})
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(dtype), value.shape
    return node


class _Narrowing:
    """One pass over a graph in topological order."""

    def __init__(self, graph: ir.Graph, dtype: ir.DataType, keep: Keep) -> None:
        self.graph, self.dtype, self.keep = graph, dtype, keep
        self.narrowed: dict[ir.Value, ir.Value] = {}
        self.widened: dict[ir.Value, ir.Value] = {}

    def run(self) -> int:
        changed = 0
        self._make_narrow(*(value for value in self.graph.inputs if self._is_cache(value)))
        for node in list(self.graph):
            if node.op_type in PRODUCTS and not node.domain and not self.keep(node):
                for index in PRODUCTS[node.op_type]:
                    if index < len(node.inputs) and (value := node.inputs[index]) is not None:
                        node.replace_input_with(index, self._narrow(value, node))
                self._make_narrow(*node.outputs)
                changed += 1
            elif node.op_type in SHAPING and self._is_narrow(node.inputs[0]):
                self._make_narrow(*node.outputs)
            else:
                for index, value in enumerate(node.inputs):
                    if value is not None and self._is_narrow(value):
                        node.replace_input_with(index, self._widen(value, node))
        for index, output in enumerate(self.graph.outputs):
            if self._is_narrow(output) and not self._is_cache(output):
                self.graph.outputs[index] = self._output(output)
        for name in [name for name, value in self.graph.initializers.items() if not value.uses()]:
            del self.graph.initializers[name]
        return changed

    def _is_cache(self, value: ir.Value) -> bool:
        return (value.name or "").startswith(CACHES)

    def _is_narrow(self, value: ir.Value | None) -> bool:
        return value is not None and value.dtype == self.dtype

    def _make_narrow(self, *values: ir.Value) -> None:
        for value in values:
            value.type = ir.TensorType(self.dtype)

    def _narrow(self, value: ir.Value, user: ir.Node) -> ir.Value:
        """The 16-bit form of a value, for ``user`` and those after it."""
        if self._is_narrow(value):
            return value
        if value not in self.narrowed:
            constant = value.is_initializer() and value.const_value is not None
            self.narrowed[value] = self._constant(value) if constant else self._cast(value, self.dtype, user)
        return self.narrowed[value]

    def _widen(self, value: ir.Value, user: ir.Node) -> ir.Value:
        """The float32 form of a 16-bit value, for ``user`` and those after it."""
        if value not in self.widened:
            self.widened[value] = self._cast(value, ir.DataType.FLOAT, user)
        return self.widened[value]

    def _cast(self, value: ir.Value, dtype: ir.DataType, user: ir.Node) -> ir.Value:
        node = _cast(value, dtype)
        self.graph.insert_before(user, node)
        return node.outputs[0]

    def _constant(self, value: ir.Value) -> ir.Value:
        """A stored tensor in 16 bits; the float32 one goes when nobody uses it any more."""
        assert value.const_value is not None
        array = value.const_value.numpy().astype(NUMPY[self.dtype])
        name = f"{value.name}.{self.dtype.name.lower()}"
        narrow = ir.Value(
            name=name,
            type=ir.TensorType(self.dtype),
            shape=value.shape,
            const_value=ir.tensor(array, dtype=self.dtype, name=name),
        )
        self.graph.register_initializer(narrow)
        return narrow

    def _output(self, value: ir.Value) -> ir.Value:
        """A float32 output in the place of a 16-bit one, with its name."""
        producer, name = value.producer(), value.name
        assert producer is not None
        node = _cast(value, ir.DataType.FLOAT)
        self.graph.insert_after(producer, node)
        value.name, node.outputs[0].name = f"{name}.{self.dtype.name.lower()}", name
        return node.outputs[0]
