"""Which of Triton's backends runs the encoder, the projector and the T5 encoder, and on what."""

from typing import Literal

BackendName = Literal["python", "onnxruntime", "tensorrt"]
"""``python`` brings its own ONNX Runtime and serves several adapters; the other two are Triton's own."""

DeviceName = Literal["cpu", "gpu"]

GRAPH_MODELS = ("encoder", "projector", "t5_encoder")
"""The models that are one graph each. The decoder's loop is python in every repository."""


def config_template(backend: BackendName) -> str:
    """The name of a graph model's configuration among the templates; every other model has ``config.pbtxt`` alone."""
    return "config.pbtxt" if backend == "python" else f"config.{backend}.pbtxt"


def backend_values(backend: BackendName, device: DeviceName) -> dict[str, str]:
    """What the templates' ``${name}`` stand for that the backend decides.

    ``several_adapters`` comments out the lines of the ensembles that only the python projector has: the adapter that a
    request names, and the version that made its soft prompts.
    """
    return {
        "several_adapters": "" if backend == "python" else "# python backend: ",
        "device": device,
        "instance_kind": "KIND_GPU" if device == "gpu" else "KIND_CPU",
    }
