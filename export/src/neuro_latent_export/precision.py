"""How the weights of a repository are stored, and what each choice may cost."""

from dataclasses import dataclass
from typing import Literal

PrecisionName = Literal["fp32", "int8", "int4", "fp16", "bf16"]

ROWS = 256
"""How many rows of the check data a precision is judged on, unless asked otherwise."""
MIN_ROWS = 32
"""With fewer rows chance decides, so fewer are refused."""


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
class RowScaled:
    """Weights as 8-bit integers with a scale a column, multiplied by activation rows as integers with a scale each."""


Storage = Blocks | RowScaled


@dataclass(frozen=True)
class Precision:
    """One way to store the weights; what lies between the products stays float32.

    The bounds are of what an export may lose against float32 on its check data. 0.01 nats a token is 1 % of
    perplexity. The texts have to be of the kind that the model writes; where no check data are given, they are what the
    float32 graphs write. There the embedded pair in int8 lost 0.0002 nats and had another next token before 0.6 % of
    the tokens; in int4 0.021 nats and 2.8 %. (On texts that it would never write, at 7.5 nats a token, 6 % and 27 %: by
    chance.) A bound is far enough from that for another pair, another text and other processors, and catches a model
    that does not bear its rounding. int8 itself has the same sums on every processor (row_int8.py).

    Attributes:
        name: as on the command line.
        decoder: the decoder's matrices; None keeps float32.
        head: the LM head; None keeps float32.
        encoders: the matrices of encoder and T5 encoder; None keeps float32.
        products: the type of all products and of the caches, where that is not float32; for GPUs.
        max_cross_entropy_change: the most that the cross-entropy of the reference texts may grow, in nats a token.
        min_next_token_agreement: the least share of the reference tokens before which the most likely next token is
            that of float32. (Not the share of equal greedy texts: after one other token all the rest differs, so
            that share tells the length of the texts as much as the loss.)
    """

    name: PrecisionName
    decoder: Storage | None = None
    head: Storage | None = None
    encoders: RowScaled | None = None
    products: Literal["float16", "bfloat16"] | None = None
    max_cross_entropy_change: float = 0.0
    min_next_token_agreement: float = 1.0

    def bounds(self) -> dict[str, float]:
        """What an export in this precision is held to, for its manifest."""
        return {name: getattr(self, name) for name in ("max_cross_entropy_change", "min_next_token_agreement")}


FP32 = Precision("fp32")
# Sums of integers: a row has the same bits whatever else is in its batch, on every processor; and the fastest products
# where many rows decode together.
INT8 = Precision(
    "int8",
    decoder=RowScaled(),
    head=RowScaled(),
    encoders=RowScaled(),
    max_cross_entropy_change=0.01,
    min_next_token_agreement=0.97,
)
# The fewest bytes, and so the fastest for one row. With these block sizes ONNX Runtime's kernels give a row the same
# bits whatever else is in its batch (AVX-512 VNNI); with 4-bit blocks of 64 or 128, or 8-bit blocks of 128, an odd last
# row is summed in another order. Without VNNI (AVX2) that holds for 8-bit blocks of any size and 4-bit blocks of 16;
# with 4-bit blocks of 32 a row that is alone differs in its last bits from one in a batch.
INT4 = Precision(
    "int4",
    decoder=Blocks(4, 32),
    head=Blocks(8, 64),
    encoders=RowScaled(),
    max_cross_entropy_change=0.05,
    min_next_token_agreement=0.85,
)

FP16 = Precision("fp16", products="float16", max_cross_entropy_change=0.002, min_next_token_agreement=0.99)
BF16 = Precision("bf16", products="bfloat16", max_cross_entropy_change=0.005, min_next_token_agreement=0.97)

PRECISIONS: dict[str, Precision] = {precision.name: precision for precision in (FP32, INT8, INT4, FP16, BF16)}


def stricter(precision: Precision) -> list[str]:
    """Names of the precisions that may lose less and run where this one runs, the nearest first."""
    found = [
        other
        for other in PRECISIONS.values()
        if other.max_cross_entropy_change < precision.max_cross_entropy_change
        and (other.products is None or precision.products is not None)
    ]
    return [other.name for other in sorted(found, key=lambda other: -other.max_cross_entropy_change)]
