"""ONNX Runtime sessions, opened the same way everywhere."""

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""ONNX Runtime 1.32 takes 0.8 ms for a fused residual and norm of 384 x 768, and 0.3 ms for an Add and a norm."""


SPIN_US = 300
"""Longer than the gap between two steps. By itself ONNX Runtime goes on spinning for tens of milliseconds after a text
is written, on a core that the encoders of the next request need."""

Provider = str | tuple[str, dict[str, str]]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
CUDA_INSTALL = "pip uninstall -y onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]>=1.31'"
"""How to get the provider; both packages bring the same module, so one has to go first."""


def open_session(
    path: Path, threads: int, spin: bool = False, providers: Sequence[Provider] = (CPU,)
) -> ort.InferenceSession:
    """A session with ``threads`` threads.

    Args:
        path: the graph.
        threads: of each run, the caller's own included.
        spin: whether idle threads stay awake for :data:`SPIN_US`, in a run and after it. That is worth it for a graph
            of many small nodes that runs again and again, and takes the cores from everybody else.
        providers: of ONNX Runtime, the first choice first.

    Raises:
        RuntimeError: a provider has failed to start. (One whose libraries are missing is left out, without a word.)
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    return ort.InferenceSession(
        str(path),
        options,
        providers=list(providers),
        disabled_optimizers=SLOW_FUSIONS,
        enable_fallback=0,  # else it prints an error and opens the graph on the CPU
    )


def graph_shapes(session: ort.InferenceSession) -> dict[str, list[int]]:
    """Shapes of a graph's inputs and outputs by name; an axis that is not fixed has a name in place of its size."""
    return {tensor.name: tensor.shape for tensor in [*session.get_inputs(), *session.get_outputs()]}
