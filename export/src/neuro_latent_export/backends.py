"""Which of Triton's backends runs the encoder, the projector and the T5 encoder, and on what."""

from pathlib import PurePosixPath
from typing import Literal

from neuro_latent_core.repository import ADAPTERS, DEFAULT, PROJECTOR
from neuro_latent_export.precision import Precision

BackendName = Literal["python", "onnxruntime", "tensorrt"]
"""``python`` brings its own ONNX Runtime and serves several adapters; the other two are Triton's own."""

DeviceName = Literal["cpu", "gpu"]

GRAPH_MODELS = ("encoder", "projector", "t5_encoder")
"""The models that are one graph each. The decoder's loop is python in every repository."""

ADAPTER_MODELS = ("encoder", PROJECTOR)
"""The models that a T5 alone does not have."""

ONE_ADAPTER = PurePosixPath(PROJECTOR) / "1"
SEVERAL_ADAPTERS = ONE_ADAPTER / ADAPTERS / DEFAULT

TENSORRT_PRECISIONS = ("fp32", "fp16", "bf16")


def default_device(backend: BackendName) -> DeviceName:
    """What a repository is served on, unless said otherwise."""
    return "gpu" if backend == "tensorrt" else "cpu"


def adapter_path(backend: BackendName) -> PurePosixPath:
    """The folder of a repository with the adapter's graph and its ``adapter.json``."""
    return SEVERAL_ADAPTERS if backend == "python" else ONE_ADAPTER


def unsupported(backend: BackendName, device: DeviceName, precision: Precision) -> str | None:
    """Why a precision cannot be served by a backend on a device, and what to take instead; None where it can."""
    if backend == "tensorrt":
        if device == "cpu":
            return "TensorRT has engines for GPUs alone; take --device gpu"
        if precision.name not in TENSORRT_PRECISIONS:
            return f"the engines' products are of floats; take {', '.join(TENSORRT_PRECISIONS)}"
    if device == "cpu" and precision.name == "bf16":
        return "ONNX Runtime has no bfloat16 products for CPUs; take fp32 or int8, or --device gpu"
    if (backend, device, precision.name) == ("python", "gpu", "bf16"):
        return (
            "the python backend runs the encoders on the CPU, which has no bfloat16 products; take fp32 or fp16, or "
            "--backend onnxruntime"
        )
    if device == "gpu" and precision.encoders is not None:
        return f"ONNX Runtime has no {precision.name} products for GPUs; take fp32, fp16 or bf16, or --device cpu"
    return None


def config_template(backend: BackendName) -> str:
    """The name of a graph model's configuration among the templates; every other model has ``config.pbtxt`` alone."""
    return "config.pbtxt" if backend == "python" else f"config.{backend}.pbtxt"


def backend_values(backend: BackendName, device: DeviceName, *, adapted: bool = True) -> dict[str, str]:
    """What the templates' ``${name}`` stand for that the backend decides.

    ``several_adapters`` comments out the lines of the ensembles that only the python projector has: the adapter that a
    request names, and the version that made its soft prompts. ``gpu_only`` does so with what a CPU has no use for.
    """
    several = adapted and backend == "python"
    return {
        "several_adapters": "" if several else "# python backend: ",
        "has_several_adapters": str(several).lower(),
        "gpu_only": "" if device == "gpu" else "# --device gpu: ",
        "device": device,
        "instance_kind": "KIND_GPU" if device == "gpu" else "KIND_CPU",
    }
