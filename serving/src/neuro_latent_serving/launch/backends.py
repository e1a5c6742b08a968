"""The folder of backends that a server is started with."""

import shutil
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

from neuro_latent_serving.errors import ServeError
from neuro_latent_serving.launch.binary import TritonBinary, check_libraries
from neuro_latent_serving.repository.check import is_shell_safe

STUB = "triton_python_backend_stub"
LIBRARY = "libtriton_python.so"

ONNXRUNTIME = "onnxruntime"
SHIM_MODEL = '"""In place of Triton\'s onnxruntime backend, which this installation does not have."""\n\n' + (
    "from neuro_latent_serving.triton.onnxruntime_shim import OnnxRuntimeModel as TritonPythonModel  # noqa: F401\n"
)
"""Triton takes a folder with a ``model.py`` as a backend that is written in Python."""


def prepare_backends(binary: TritonBinary, run_dir: Path, python: str | None = None) -> TritonBinary:
    """The server with backends that it can run, by links in ``run_dir``.

    The wheel's backends get the stub of ``python`` ("3.11"; default: the running one).
    The wheel has no onnxruntime backend, so it gets a shim that is written in Python (``triton/onnxruntime_shim.py``).
    A full installation has a stub in its python backend already and is used as it is, by a link where its path is not
    shell-safe.
    """
    folder = run_dir / "backends"
    if binary.stubs is None:
        if is_shell_safe(binary.backends):
            return binary
        folder.symlink_to(binary.backends)
        return replace(binary, backends=folder)
    python = python or f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = find_stub(binary.path, binary.stubs, python)
    for backend in binary.backends.iterdir():
        link = folder / backend.name
        link.mkdir(parents=True)
        for file in backend.iterdir():
            if file.name not in (STUB, "__pycache__"):
                _place(file, link / file.name)
    (folder / "python" / STUB).symlink_to(stub)
    if not (folder / ONNXRUNTIME).exists():
        (folder / ONNXRUNTIME).mkdir()
        (folder / ONNXRUNTIME / "model.py").write_text(SHIM_MODEL, encoding="utf-8")
    environment = dict(binary.environment)
    library = python_library(python)
    if library is not None:
        # Only this one library is on the path: its folder can hold others (conda's libstdc++) that would interfere.
        library_folder = run_dir / "lib"
        library_folder.mkdir()
        (library_folder / library.name).symlink_to(library)
        environment["LD_LIBRARY_PATH"] = f"{library_folder}:{environment['LD_LIBRARY_PATH']}"
    check_libraries([binary.path, stub], environment)
    return replace(binary, backends=folder, environment=environment)


def find_stub(server: Path, stubs: Path, python: str) -> Path:
    """The wheel's stub for a Python ("3.11"); a ServeError names those that it has."""
    stub = stubs / python / STUB
    if not stub.is_file():
        known = sorted((folder.name for folder in stubs.iterdir()), key=lambda name: int(name.split(".")[-1]))
        raise ServeError(
            f"{server} has no python backend for Python {python}; it has {', '.join(known) or 'none'}",
            "Run neuro-latent serve from a virtual environment of one of those versions.",
        )
    return stub


def python_library(python: str) -> Path | None:
    """The shared library of the running Python, so that the stub is not another Python; None if it is static."""
    name = f"libpython{python}.so.1.0"
    for folder in (sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib"):
        if folder and (Path(folder) / name).is_file():
            return Path(folder) / name
    return None


def _place(file: Path, target: Path) -> None:
    """A link to a file; a copy of the python backend's library, which Triton refuses to take from another folder."""
    if file.name == LIBRARY:
        shutil.copyfile(file, target)
    else:
        target.symlink_to(file)
