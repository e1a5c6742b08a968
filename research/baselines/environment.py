"""The baselines' own Python environment, made on first use."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from neuro_latent_benchmarks.report import BenchError
from research.synthetic.shapes import cache_folder

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
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


def requirements() -> str:
    """The pins."""
    return REQUIREMENTS.read_text(encoding="utf-8")


def pins(text: str) -> dict[str, str | None]:
    """Version by distribution, None where it does not matter.

    >>> pins("# a comment\\na==1.0\\nb>=2")
    {'a': '1.0', 'b': None}
    """
    found: dict[str, str | None] = {}
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line:
            name, _, version = line.partition("==")
            found[name.split(">")[0].strip()] = version.strip() or None
    return found


def default_folder() -> Path:
    """In the cache folder, by the pins: other pins make another environment."""
    return cache_folder() / f"baselines-{hashlib.sha256(requirements().encode()).hexdigest()[:12]}"


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "bin" / "python"


def differences(folder: Path) -> list[str]:
    """What an environment lacks, in words; empty when it is as pinned."""
    wanted = pins(requirements())
    try:
        done = subprocess.run(
            [str(python_of(folder)), "-c", _ASK, *wanted], capture_output=True, text=True, timeout=120, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return [f"no working Python in it ({error})"]
    found: dict[str, str | None] = json.loads(done.stdout)
    return [
        f"{name} {found[name] or 'is missing'}, not {version or 'any version'}"
        for name, version in wanted.items()
        if found[name] is None or (version is not None and found[name].split("+")[0] != version)  # type: ignore[union-attr]
    ]


def ready(folder: Path | None, log: Callable[[str], None]) -> Path:
    """The interpreter of the baselines' environment; makes the environment where it is not there or not complete.

    Args:
        folder: an environment of the user's, which is never changed; None is :func:`default_folder`.

    Raises:
        BenchError: the user's environment is not as pinned, or pip cannot make ours.
    """
    if folder is not None:
        if wrong := differences(folder):
            raise BenchError(
                f"--environment {folder}: {'; '.join(wrong)}. Leave the option out to have an environment made, or "
                f"make it with: python -m venv {folder} && {folder}/bin/pip install -r {REQUIREMENTS}"
            )
        return python_of(folder)
    folder = default_folder()
    if not python_of(folder).is_file() or differences(folder):
        _make(folder, log)
    return python_of(folder)


def _make(folder: Path, log: Callable[[str], None]) -> None:
    log(f"making the baselines' environment in {folder} (a few minutes, about 2 GB; once)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)], log)
    pip = [str(python_of(folder)), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    if index := os.environ.get(TORCH_INDEX_VARIABLE):  # a CPU build, where pip would bring the CUDA one
        _run([*pip, "--index-url", index, f"torch=={pins(requirements())['torch']}"], log)
    _run([*pip, "--requirement", str(REQUIREMENTS)], log)
    if wrong := differences(folder):
        raise BenchError(f"the baselines' environment in {folder} is not as pinned: {'; '.join(wrong)}")


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
            "the baselines' environment could not be made; pip said:\n  "
            + "\n  ".join(errors[-4:])
            + "\nIt needs a package index: set PIP_INDEX_URL to one that can be reached, or give a ready environment "
            "with --environment DIR."
        )
