"""The GPUs of this machine, as nvidia-smi lists them."""

import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass

TIMEOUT_S = 30


@dataclass(frozen=True)
class Gpu:
    """A line of nvidia-smi; ``memory`` as it writes that, which may be "[N/A]"."""

    name: str
    driver: str
    capability: float
    memory: str


def find_gpus() -> list[Gpu]:
    """What nvidia-smi lists; empty where it is not there or fails. Rows that cannot be read are left out."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = list[Gpu]()
    for line in done.stdout.splitlines():
        with suppress(ValueError):
            name, driver, capability, memory = (cell.strip() for cell in line.split(","))
            gpus.append(Gpu(name, driver, float(capability), memory))
    return gpus
