"""How the weights of a repository are stored, and what each choice may cost."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Blocks:
    """Weights as integers in blocks along the input axis, each with a float scale.

    Attributes:
        bits: 4 or 8.
        size: weights that share a scale; a power of two, at least 16.
    """

    bits: int
    size: int


@dataclass(frozen=True)
class Precision:
    """One way to store the weights; activations between products stay float32.

    Attributes:
        name: as on the command line.
        decoder: the decoder's matrices; None keeps float32.
        head: the LM head; None keeps float32.
        encoders: whether encoder and T5 encoder get int8 weights with a scale per activation row.
    """

    name: str
    decoder: Blocks | None = None
    head: Blocks | None = None
    encoders: bool = False


FP32 = Precision("fp32")
# With these block sizes ONNX Runtime's kernels give a row the same bits whatever else is in its batch (AVX-512 VNNI);
# with 4-bit blocks of 64 or 128, or 8-bit blocks of 128, an odd last row is summed in another order.
INT8 = Precision("int8", decoder=Blocks(8, 64), head=Blocks(8, 64), encoders=True)
INT4 = Precision("int4", decoder=Blocks(4, 32), head=Blocks(8, 64), encoders=True)

PRECISIONS = {precision.name: precision for precision in (FP32, INT8, INT4)}
