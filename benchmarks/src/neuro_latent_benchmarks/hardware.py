"""What the numbers were taken on: processor, memory, load, versions."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

FLAGS = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""Instruction sets that the speed of matrix products depends on."""

DISTRIBUTIONS = ("neuro-latent-serving", "nvidia-pytriton", "onnxruntime", "numpy", "tokenizers")

BUSY = 0.5
"""A load (processes that wanted to run in the last minute) above which other work disturbs the measurement."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def hardware() -> dict[str, Any]:
    """Processor, cores, instruction sets, memory in GiB, the load when this was asked."""
    cpu = _table(Path("/proc/cpuinfo"))
    memory = _table(Path("/proc/meminfo")).get("MemTotal", "0 kB").split()[0]
    known = cpu.get("flags", "").split()
    return {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "family_model": f"{cpu.get('cpu family', '?')}/{cpu.get('model', '?')}",
        "cores": cores(),
        "flags": [flag for flag in FLAGS if flag in known],
        "memory_gib": round(int(memory) / 2**20, 1),
        "system": platform.platform(terse=True),
        "load": round(os.getloadavg()[0], 2),
    }


def versions(*more: str) -> dict[str, str]:
    """Python and the distributions that do the work, ``more`` among them."""
    found = {"python": platform.python_version()}
    for name in (*DISTRIBUTIONS, *more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _table(path: Path) -> dict[str, str]:
    """The first value of each ``name: value`` line."""
    rows = [line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line]
    return {name.strip(): value.strip() for name, value in reversed(rows)}
