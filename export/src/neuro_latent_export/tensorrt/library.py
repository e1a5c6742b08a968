"""Which TensorRT builds the engines, and for which GPU; found before any long work is done.

TensorRT builds on the GPU that the engines are for. TensorRT-RTX builds without a GPU, for any that it knows; Triton
does not load its engines, so it is for checking graphs and repositories where there is no GPU.
"""

import ctypes
import importlib
from dataclasses import dataclass
from typing import Any, Final

from neuro_latent_export.errors import ExportError

INSTALL = "pip install 'neuro-latent-export[tensorrt]' tensorrt==VERSION, the version of the Triton that will serve,"
INSTALL_RTX = "pip install 'neuro-latent-export[tensorrt-rtx]'"

CAPABILITY_MAJOR: Final = 75
CAPABILITY_MINOR: Final = 76
"""Attributes of a device in CUDA's driver API."""


class TensorRTError(ExportError):
    """TensorRT cannot be used here, or does not take a graph."""


@dataclass(frozen=True)
class Library:
    """A TensorRT to build engines with.

    Attributes:
        name: ``TensorRT``, or ``TensorRT-RTX``.
        version: of the library; an engine runs with no other.
        compute_capability: of the GPUs that the engines are for, like ``8.9``.
        target: the same as the library's own constant, where it builds for another GPU than the one at hand.
        module: its Python module.
    """

    name: str
    version: str
    compute_capability: str
    module: Any
    target: Any = None


def open_tensorrt() -> Library:
    """TensorRT, for the GPU at hand.

    Raises:
        TensorRTError: the package, the driver or the GPU is missing, or the package is too old.
    """
    elsewhere = "(--tensorrt-rtx builds engines without a GPU, for checks; Triton does not load them)"
    try:
        module = importlib.import_module("tensorrt")
    except ImportError as error:
        raise TensorRTError(
            f"--backend tensorrt needs Python's TensorRT, which cannot be loaded ({error}): {INSTALL} on a machine "
            f"with the GPU that will serve {elsewhere}"
        ) from None
    if not hasattr(module, "IKVCacheUpdateLayer"):
        raise TensorRTError(
            f"--backend tensorrt needs TensorRT 10.15 or newer, whose decoder cache is written in place, not "
            f"{module.__version__}: {INSTALL} on the machine with the GPU"
        )
    try:
        capability = gpu_capability()
    except TensorRTError as error:
        raise TensorRTError(f"TensorRT builds engines on the GPU that they are for, and {error} {elsewhere}") from None
    return Library("TensorRT", module.__version__, capability, module)


def open_tensorrt_rtx(compute_capability: str) -> Library:
    """TensorRT-RTX, for GPUs of a compute capability, which need not be at hand.

    Raises:
        TensorRTError: the package is missing, or does not know such GPUs.
    """
    try:
        module = importlib.import_module("tensorrt_rtx_bindings")
    except ImportError as error:
        raise TensorRTError(f"--tensorrt-rtx needs the package of TensorRT-RTX ({error}): {INSTALL_RTX}") from None
    known = {
        _with_dot(name): value
        for name, value in module.ComputeCapability.__members__.items()
        if name[-1] in "0123456789"
    }
    if compute_capability not in known:
        raise TensorRTError(f"--tensorrt-rtx {compute_capability}: known compute capabilities are {', '.join(known)}")
    return Library("TensorRT-RTX", module.__version__, compute_capability, module, known[compute_capability])


def _with_dot(name: str) -> str:
    """``SM89`` -> ``8.9``."""
    digits = name.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"


def gpu_capability() -> str:
    """The compute capability of the first GPU that this process may use.

    Raises:
        TensorRTError: there is none.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise TensorRTError("this machine has no NVIDIA driver (libcuda.so.1 is missing)") from None
    device, numbers = ctypes.c_int(), (ctypes.c_int(), ctypes.c_int())
    status = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0)
    for number, attribute in zip(numbers, (CAPABILITY_MAJOR, CAPABILITY_MINOR), strict=True):
        status = status or driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
    if status:
        raise TensorRTError(
            f"this process sees no GPU (CUDA's error {status}; see nvidia-smi and CUDA_VISIBLE_DEVICES)"
        )
    return f"{numbers[0].value}.{numbers[1].value}"
