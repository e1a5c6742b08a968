"""Weights as 4- or 8-bit integers in blocks, as ONNX Runtime's ``MatMulNBits`` takes them.

Only weights are stored so; the operator quantizes each activation row by itself, block by block, so a row's result
does not depend on its batch mates. ``K`` inputs, ``N`` outputs, ``G`` blocks a column, ``Z`` weights a block.
"""

import numpy as np
import numpy.typing as npt

from neuro_latent_export.precision import Blocks

Floats = npt.NDArray[np.float32]

SHRINK = np.linspace(0.7, 1.0, 13)
"""Scales tried for a 4-bit block, relative to the one that reaches its largest weight: cutting off the largest weight
a little makes all others finer."""


def quantize_blocks(weight_KN: Floats, blocks: Blocks) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Round to the nearest of ``2**bits`` levels, with the scale of least squared error in each block.

    Returns:
        packed levels uint8 [N, G, Z * bits / 8] (two 4-bit levels a byte, the even one low) and scales float32
        [N, G]; a level stands for ``(level - 2**(bits - 1)) * scale``.
    """
    inputs, outputs = weight_KN.shape
    groups = -(-inputs // blocks.size)
    padded_NK = np.zeros((outputs, groups * blocks.size), dtype=np.float32)
    padded_NK[:, :inputs] = weight_KN.T
    weight_NGZ = padded_NK.reshape(outputs, groups, blocks.size)
    half = 2 ** (blocks.bits - 1)
    # The level -half has no positive mate, so the largest weight of a block, whatever its sign, gets it.
    at = np.abs(weight_NGZ).argmax(axis=-1)[..., None]
    widest_NG = np.take_along_axis(weight_NGZ, at, axis=-1)[..., 0] / -half
    widest_NG[widest_NG == 0] = 1.0
    scale_NG = widest_NG
    if blocks.bits == 4:
        least_NG = np.full(widest_NG.shape, np.inf, dtype=np.float32)
        for shrink in SHRINK:
            tried_NG = (widest_NG * shrink).astype(np.float32)
            error_NG = np.square(_restore(_levels(weight_NGZ, tried_NG, half), tried_NG, half) - weight_NGZ).sum(-1)
            better = error_NG < least_NG
            scale_NG = np.where(better, tried_NG, scale_NG)
            least_NG = np.where(better, error_NG, least_NG)
    levels_NGZ = _levels(weight_NGZ, scale_NG, half)
    if blocks.bits == 4:
        levels_NGZ = np.bitwise_or(levels_NGZ[..., 0::2], levels_NGZ[..., 1::2] << np.uint8(4))
    return levels_NGZ, scale_NG.astype(np.float32)


def _levels(weight_NGZ: Floats, scale_NG: Floats, half: int) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(weight_NGZ / scale_NG[..., None]) + half, 0, 2 * half - 1).astype(np.uint8)


def _restore(levels_NGZ: npt.NDArray[np.uint8], scale_NG: Floats, half: int) -> Floats:
    return (levels_NGZ.astype(np.float32) - half) * scale_NG[..., None]
