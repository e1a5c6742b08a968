"""A shim for Triton's onnxruntime backend, which the wheel for development and tests does not have.

It accepts and refuses the same configurations as the real one, so a repository that loads here loads there. It is
slower: every request crosses a process boundary.
"""

import json

import onnxruntime as ort
import triton_python_backend_utils as pb_utils

from neuro_latent_serving.triton.graph import GraphModel
from neuro_latent_serving.triton.graph_config import ConfigError, check_config
from neuro_latent_serving.triton.messages import model_parameters, whole_number


class OnnxRuntimeModel(GraphModel):
    """Runs the graph of a model with ``backend: "onnxruntime"``; Triton does its warm-up."""

    def initialize(self, args: dict[str, str]) -> None:
        if args["model_instance_kind"] == "GPU":
            raise ConfigError("this shim runs on the CPU; use NVIDIA's image, or export with --device cpu")
        self._open(args, whole_number(model_parameters(args), "intra_op_thread_count", "0"))
        check_config(json.loads(args["model_config"]), self._session.get_inputs(), self._session.get_outputs())
        pb_utils.Logger.log_warn(
            f"{args['model_name']}: this Triton has no onnxruntime backend, so Python's ONNX Runtime "
            f"{ort.__version__} runs in its place; NVIDIA's image has one"
        )
