"""The baselines' own Python environments, made on first use: their pins cannot share one."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from neuro_latent_benchmarks.report import BenchError
from research.synthetic.shapes import cache_folder

BASELINES, OPENVINO, LLAMA = "baselines", "openvino", "llama"

REQUIREMENTS: Final = {
    BASELINES: Path(__file__).with_name("requirements.txt"),
    OPENVINO: Path(__file__).with_name("requirements-openvino.txt"),
    LLAMA: Path(__file__).with_name("requirements-llama.txt"),
}
"""The pins of each environment, by its name."""

TORCH_INDEX_VARIABLE = "TORCH_INDEX"
"""An index with a CPU build of torch, as for ``make``."""

_ASK = """
import importlib.metadata as m, json, sys
found = {}
for name in sys.argv[1:]:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: found[name] = None
print(json.dumps(found))
"""


def requirements(name: str = BASELINES) -> str:
    """The pins of an environment."""
    return REQUIREMENTS[name].read_text(encoding="utf-8")


def pins(text: str) -> dict[str, str | None]:
    """Version by distribution, None where it does not matter.

    >>> pins("# a comment\\na==1.0 --config-settings=x=1\\nb>=2")
    {'a': '1.0', 'b': None}
    """
    found: dict[str, str | None] = {}
    for line in text.splitlines():
        line = line.split("#")[0].split(" --")[0].strip()
        if line:
            name, _, version = line.partition("==")
            found[name.split(">")[0].strip()] = version.strip() or None
    return found


def default_folder(name: str) -> Path:
    """In the cache folder, by the pins: other pins make another environment."""
    return cache_folder() / f"{name}-{hashlib.sha256(requirements(name).encode()).hexdigest()[:12]}"


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "bin" / "python"


def differences(folder: Path, name: str = BASELINES) -> list[str]:
    """What an environment lacks, in words; empty when it is as pinned."""
    wanted = pins(requirements(name))
    try:
        done = subprocess.run(
            [str(python_of(folder)), "-c", _ASK, *wanted], capture_output=True, text=True, timeout=120, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return [f"no working Python in it ({error})"]
    found: dict[str, str | None] = json.loads(done.stdout)
    return [
        f"{package} {found[package] or 'is missing'}, not {version or 'any version'}"
        for package, version in wanted.items()
        if found[package] is None or (version is not None and found[package].split("+")[0] != version)  # type: ignore[union-attr]
    ]


def ready(folder: Path | None, log: Callable[[str], None], name: str = BASELINES) -> Path:
    """The interpreter of an environment; makes the environment where it is not there or not complete.

    Args:
        folder: an environment of the user's, which is never changed; None is :func:`default_folder`.

    Raises:
        BenchError: the user's environment is not as pinned, or pip cannot make ours.
    """
    if folder is not None:
        if wrong := differences(folder, name):
            raise BenchError(
                f"--environment {folder}: {'; '.join(wrong)}. Leave the option out to have an environment made, or "
                f"make it with: python -m venv {folder} && {folder}/bin/pip install -r {REQUIREMENTS[name]}"
            )
        return python_of(folder)
    folder = default_folder(name)
    if not python_of(folder).is_file() or differences(folder, name):
        _make(folder, name, log)
    return python_of(folder)


def ready_all(folder: Path | None, log: Callable[[str], None]) -> dict[str, Path | BenchError]:
    """The interpreter of every environment, or why there is none; only the first must be there.

    Args:
        folder: of the first environment, as for :func:`ready`.

    Raises:
        BenchError: the first environment is not as pinned, or cannot be made.
    """
    found: dict[str, Path | BenchError] = {BASELINES: ready(folder, log)}
    for name in (OPENVINO, LLAMA):
        try:
            found[name] = ready(None, log, name)
        except BenchError as error:
            found[name] = error
    return found


def _make(folder: Path, name: str, log: Callable[[str], None]) -> None:
    log(f"making the environment {name} in {folder} (a few minutes, up to 2 GB; once)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)], log)
    pip = [str(python_of(folder)), "-m", "pip", "--disable-pip-version-check"]
    install = [*pip, "install", "--progress-bar", "off"]
    index, torch = os.environ.get(TORCH_INDEX_VARIABLE), pins(requirements(name)).get("torch")
    if index and torch:  # a CPU build, where pip would bring the CUDA one
        _run([*install, "--index-url", index, f"torch=={torch}"], log)
    _run([*install, "--requirement", str(REQUIREMENTS[name])], log)
    # optimum-intel asks for it and does not need it; PyPI's build fails beside a CPU build of torch.
    _run([*pip, "uninstall", "--yes", "torchvision"], log)
    if wrong := differences(folder, name):
        raise BenchError(f"the environment {name} in {folder} is not as pinned: {'; '.join(wrong)}")


def _run(command: list[str], log: Callable[[str], None]) -> None:
    """Run and show each line; the command ends when we do."""
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                if line.startswith(("Collecting", "Downloading", "Installing", "Successfully")):
                    log(f"  {line.rstrip()[:100]}")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        errors = [line for line in lines if "ERROR" in line] or lines[-3:]
        raise BenchError(
            "an environment of the baselines could not be made; pip said:\n  "
            + "\n  ".join(errors[-4:])
            + "\nIt needs a package index: set PIP_INDEX_URL to one that can be reached, or give a ready environment "
            "with --environment DIR."
        )
