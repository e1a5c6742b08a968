"""Products with int8 weights, where every activation row has a scale of its own.

With ``K`` inputs and ``N`` outputs, ``x @ W`` becomes

    amax = max |x| over the row            float32
    q    = round(127 * x / amax) + 128     uint8, 1..255
    y    = ((q - 128) @ W8) * amax * step  W8 int8 [K, N], step float32 [N]

A row's result depends on that row only, to the bit: its scale is its own, and sums of integers have no order. ONNX
Runtime's ``quantize_dynamic`` has one scale for the whole tensor, so there a row depends on its batch mates and on
padding.
"""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

CONTRIB = "com.microsoft"

MIN_SIZE = 16
"""Products with fewer inputs or outputs stay float32: quantizing their rows would take as long as the product."""

Floats = npt.NDArray[np.float32]


def quantize_rows(model: ir.Model, reduce_range: bool = True) -> int:
    """Replace the products of an activation with a constant weight, in place; returns how many were replaced.

    Left alone: weights that are not float32 [K, N] or smaller than :data:`MIN_SIZE` in a direction, products of two
    activations (attention), and tables that are looked up, even where a product shares them. Products of one
    activation share its quantized form.

    Args:
        model: a graph whose ``MatMul`` and ``Gemm`` nodes are looked at; subgraphs are not.
        reduce_range: weights in -64..64 instead of -127..127. x86 processors without VNNI (Intel before Cascade Lake,
            AMD before Zen 4) add pairs of uint8 x int8 products in 16 bits, where 2 * 255 * 127 does not fit and is cut
            off without a word, but 2 * 255 * 64 does. So this is the default: it costs a bit of the weights, no
            time, and gives every processor the same sums, so that what was checked at export holds where it is served.
    """
    rows = _Rows(model.graph, 64 if reduce_range else 127)
    products = [(node, weight) for node in model.graph if (weight := _weight(node)) is not None]
    for node, weight_KN in products:
        rows.replace(node, weight_KN)
    if products:
        model.graph.opset_imports[CONTRIB] = 1
    for name in [name for name, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]
    return len(products)


def quantize_columns(weight_KN: Floats, most: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Round each column to ``-most..most`` times its own step: levels int8 [K, N] and steps float32 [N]."""
    amax_N = np.abs(weight_KN).max(axis=0)
    step_N = (np.where(amax_N > 0, amax_N, 1.0) / most).astype(np.float32)
    return np.clip(np.rint(weight_KN / step_N), -most, most).astype(np.int8), step_N


def _weight(node: ir.Node) -> Floats | None:
    """The constant weight [K, N] of a product that can be replaced, else None."""
    if node.domain or node.op_type not in ("MatMul", "Gemm"):
        return None
    defaults = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    if any(a.name in defaults and a.value != defaults[a.name] for a in node.attributes.values()):
        return None
    weight_value = node.inputs[1]
    tensor = ir.convenience.get_const_tensor(weight_value) if weight_value is not None else None
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 2:
        return None
    weight = tensor.numpy()
    if "transB" in node.attributes and node.attributes["transB"].value:
        weight = weight.T
    return weight if min(weight.shape) >= MIN_SIZE else None


class _Rows:
    """Replacement in one graph; remembers the activations and weights that are quantized already."""

    def __init__(self, graph: ir.Graph, most: int) -> None:
        self.graph, self.most = graph, most
        self.activations: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self.weights: dict[ir.Value | None, tuple[ir.Value, ir.Value]] = {}

    def replace(self, node: ir.Node, weight_KN: Floats) -> None:
        tape = ir.tape.Tape()
        x, weight = node.inputs[:2]
        assert x is not None
        if x not in self.activations:
            self.activations[x] = self._quantize(tape, x)
        if weight not in self.weights:
            levels_KN, step_N = quantize_columns(weight_KN, self.most)
            name = f"{node.outputs[0].name}.weight"
            # x / amax has steps of 1 / 127; that factor is part of the column's.
            self.weights[weight] = (
                self._constant(levels_KN, f"{name}.levels"),
                self._constant(step_N / np.float32(127), f"{name}.steps"),
            )
        (q, amax), (levels, steps) = self.activations[x], self.weights[weight]
        one, zero = self._constant(np.float32(1), "one"), self._constant(np.uint8(128), "zero")
        y = tape.op("MatMulIntegerToFloat", [q, levels, one, steps, zero], domain=CONTRIB)
        y = tape.op("Mul", [y, amax])
        if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
            y = tape.op("Add", [y, node.inputs[2]])
        ir.convenience.replace_nodes_and_values(self.graph, node, [node], tape.nodes, node.outputs, [y])

    def _quantize(self, tape: ir.tape.Tape, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Levels uint8 of ``x``'s shape, and the largest absolute value of each row, [..., 1]."""
        last = self._constant(np.array([-1]), "last_axis")
        amax = tape.op("ReduceMax", [tape.op("Abs", [x]), last], {"keepdims": 1})
        # A row of zeros: 0 / tiny is 0, and so is its result.
        amax = tape.op("Max", [amax, self._constant(np.finfo(np.float32).tiny, "tiny")])
        step, zero = self._constant(np.float32(1 / 127), "step"), self._constant(np.uint8(128), "zero")
        return tape.op("QuantizeLinear", [tape.op("Div", [x, amax]), step, zero]), amax

    def _constant(self, array: npt.NDArray[np.generic] | np.generic, name: str) -> ir.Value:
        name = f"row_int8.{name}"
        if name not in self.graph.initializers:
            tensor = ir.tensor(np.ascontiguousarray(array).reshape(np.shape(array)), name=name)
            value = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(np.shape(array)), const_value=tensor
            )
            self.graph.register_initializer(value)
        return self.graph.initializers[name]
