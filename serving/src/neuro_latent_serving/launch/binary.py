"""Find a ``tritonserver`` to run: an option, the PATH, or the wheel ``nvidia-pytriton``."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neuro_latent_serving.errors import ServeError, UsageError

WHEEL = "nvidia-pytriton==0.7.0"

DEBIAN_PACKAGES: Mapping[str, str] = {
    "libstdc++.so.6": "libstdc++6",
    "libgcc_s.so.1": "libgcc-s1",
    "libz.so.1": "zlib1g",
    "libexpat.so.1": "libexpat1",
}
"""What the wheel's files need beyond libc6 and what the wheel brings itself."""


@dataclass(frozen=True)
class TritonBinary:
    """A tritonserver and what it needs to run."""

    path: Path
    backends: Path
    source: str  # "option", "PATH" or "wheel": how it was found
    stubs: Path | None = None  # folder 3.X/triton_python_backend_stub, which the wheel keeps apart from its backends
    environment: Mapping[str, str] = field(default_factory=dict)


def find_tritonserver(option: Path | None = None) -> TritonBinary:
    """The server named by ``option``, else the one on the PATH, else the wheel's."""
    if option is not None:
        if not is_program(option):
            raise UsageError(
                f"--tritonserver {option}: not an executable file", "Give the path of the program tritonserver itself."
            )
        return describe(option.resolve(), "option")
    on_path = shutil.which("tritonserver")
    if on_path is not None:
        return describe(Path(on_path).resolve(), "PATH")
    in_wheel = wheel_program()
    if in_wheel is not None and is_program(in_wheel):
        return describe(in_wheel, "wheel")
    wheel_line = f"{in_wheel}: no such program" if in_wheel is not None else "nvidia-pytriton: not installed"
    raise ServeError(
        f"no tritonserver was found. Tried: --tritonserver (not given); tritonserver on PATH (none); {wheel_line}",
        f"Install one with: pip install {WHEEL}\n"
        "or run inside NVIDIA's container nvcr.io/nvidia/tritonserver, or name one with --tritonserver PATH.",
    )


def wheel_program() -> Path | None:
    """Where nvidia-pytriton has its server; looked up, not imported, because importing pytriton starts things."""
    spec = importlib.util.find_spec("pytriton")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        return Path(folder) / "tritonserver" / "bin" / "tritonserver"
    return None


def describe(path: Path, source: str) -> TritonBinary:
    """Tell the wheel's layout from that of a full installation (``/opt/tritonserver``) by its folder of stubs."""
    root = path.parent.parent
    backends = root / "backends"
    if not backends.is_dir():
        raise ServeError(
            f"{path} has no backends: {backends} is not a folder",
            "Use a tritonserver from an installation with bin/ and backends/ side by side.",
        )
    stubs = root / "python_backend_stubs"
    if not stubs.is_dir():
        return TritonBinary(path, backends, source)
    libraries = root.parent.parent / "nvidia_pytriton.libs"
    folders = os.pathsep.join(filter(None, (str(libraries), os.environ.get("LD_LIBRARY_PATH"))))
    return TritonBinary(path, backends, source, stubs, {"LD_LIBRARY_PATH": folders})


def check_libraries(programs: Iterable[Path], environment: Mapping[str, str]) -> None:
    """Raise a ServeError that names the shared libraries, and the Debian packages of them, that are not installed."""
    ldd = shutil.which("ldd")
    if ldd is None:
        return  # the start itself will tell
    missing: set[str] = set()
    for program in programs:
        listing = subprocess.run(
            [ldd, str(program)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        missing.update(re.findall(r"^\s*(\S+) => not found", listing.stdout, re.MULTILINE))
    if missing:
        packages = sorted({debian_package(library) for library in missing})
        raise ServeError(
            f"tritonserver cannot run: missing shared libraries {', '.join(sorted(missing))}",
            f"On Debian or Ubuntu: apt-get install {' '.join(packages)}",
        )


def debian_package(library: str) -> str:
    """The Debian package of a shared library, or its name when it is not one of the known ones."""
    python = re.fullmatch(r"(libpython3\.\d+)\.so\.1\.0", library)
    return python[1] if python else DEBIAN_PACKAGES.get(library, library)


def is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
