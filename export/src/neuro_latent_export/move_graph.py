"""The graph by which the decoder on a GPU moves the rows of its cache, for ONNX Runtime has no call for that."""

import onnx_ir as ir
from onnxscript import GraphBuilder

OPSET = 20


def build_move() -> ir.Model:
    """``target[a, j] = source[a, index[j]]``: source int32 [A, I, C], index int64 [J], target int32 [A, J, C].

    A word may be one float32 or two values of 16 bits, and the axes are whatever the caller sees in its memory: rows,
    or columns. So one graph does for every model and precision.
    """
    source, index = (
        ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        for name, dtype, shape in (
            ("source", ir.DataType.INT32, ("a", "i", "c")),
            ("index", ir.DataType.INT64, ("j",)),
        )
    )
    graph = ir.Graph([source, index], [], nodes=[], opset_imports={"": OPSET}, name="move")
    target = GraphBuilder(graph).op.Gather(source, index, axis=1)
    target.name, target.type, target.shape = "target", ir.TensorType(ir.DataType.INT32), ir.Shape(("a", "j", "c"))
    graph.outputs.append(target)
    return ir.Model(graph, ir_version=11, producer_name="neuro-latent-export")
