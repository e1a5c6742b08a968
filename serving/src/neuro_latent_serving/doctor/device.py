"""A GPU, its driver and ONNX Runtime's provider, where the repository needs them."""

import ctypes
from collections.abc import Iterator

import onnxruntime as ort

from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.repository import ONNXRUNTIME, PYTHON, TENSORRT
from neuro_latent_serving.doctor.subject import Subject
from neuro_latent_serving.server.repository import EXPORT_COMMAND, GPU_ONLY
from neuro_latent_serving.sessions import CUDA, CUDA_INSTALL

MADE_FOR_GPUS = "fp16"
FIRST_WITH = {"bf16": 8.0, "fp16": 5.3}
"""The CUDA compute capability from which on a GPU has products of that precision."""


def check(subject: Subject) -> Iterator[Outcome]:
    """The device that the manifest and the configurations ask for, and the precision on it."""
    if subject.repository is None:
        return
    precision = subject.manifest.precision if subject.manifest else ""
    if not needs_gpu(subject):
        yield "the repository needs no GPU"
        yield from check_cpu(subject, precision)
        if subject.gpus:
            what = "is here, and the repository is for the CPU"
            mend = f"Export for it: {EXPORT_COMMAND.format(repository=subject.repository.root)} --device gpu"
            yield Finding("gpu-unused", subject.gpus[0].name, what, mend)
        return
    if not subject.gpus:
        mend = "Start the container with --gpus all, install the driver, or export with --device cpu."
        yield Finding("gpu-missing", "GPU", "nvidia-smi is not there, fails, or lists none", mend)
    if not loads("libcuda.so.1"):
        mend = "Install NVIDIA's driver; in a container it comes with --gpus all."
        yield Finding("gpu-driver-missing", "libcuda.so.1", "cannot be loaded", mend)
    if decoder_needs_cuda(subject) and CUDA not in ort.get_available_providers():
        mend = f"Install the one for GPUs in its place: {CUDA_INSTALL}"
        yield Finding("cuda-provider-missing", "onnxruntime", f"has no {CUDA}, which the decoder needs", mend)
    for gpu in subject.gpus:
        yield f"{gpu.name}, {gpu.memory}, driver {gpu.driver}, compute capability {gpu.capability}"
        if gpu.capability < FIRST_WITH.get(precision, 0):
            what = f"{gpu.name} has compute capability {gpu.capability}; {precision} needs {FIRST_WITH[precision]}"
            yield Finding("precision-unsupported", precision, what, "Export with --precision fp32.")


def needs_gpu(subject: Subject) -> bool:
    """Whether any part of the repository runs on a GPU."""
    models = subject.models.values()
    asked = subject.manifest is not None and subject.manifest.device == "gpu"
    return asked or any(model.on_gpu or model.backend == TENSORRT for model in models)


def decoder_needs_cuda(subject: Subject) -> bool:
    """Whether the decoder, or the stand-in of a backend, runs its graphs with our own ONNX Runtime on the GPU."""
    if subject.manifest is None or subject.manifest.device != "gpu":
        return False
    return all(model.backend in (PYTHON, ONNXRUNTIME, "") for model in subject.models.values())


def check_cpu(subject: Subject, precision: str) -> Iterator[Finding]:
    """A precision that the CPU has no kernels for, or only slow ones."""
    assert subject.repository is not None
    mend = f"Export for the CPU: {EXPORT_COMMAND.format(repository=subject.repository.root)} --precision int8"
    if precision in GPU_ONLY:
        yield Finding("precision-unsupported", precision, "is for GPUs; the CPU has no kernels for it", mend)
    elif precision == MADE_FOR_GPUS:
        yield Finding("precision-slow", precision, "is for GPUs; the CPU converts it to float32 and back", mend)


def loads(library: str) -> bool:
    """Whether a shared library can be loaded."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
