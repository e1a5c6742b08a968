"""ONNX Runtime sessions, opened the same way everywhere."""

import os
from pathlib import Path

import onnxruntime as ort


def default_threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    """A CPU session with ``threads`` threads that sleep when idle.

    Several sessions share the cores in turn; threads that spin while they wait would take them from the one at work.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
