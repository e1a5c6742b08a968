"""NVIDIA's perf_analyzer against both ensembles: load and figures of a client that this project did not write."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuro_latent_benchmarks.report import BenchError
from neuro_latent_benchmarks.shapes import cache_folder, prompt_texts
from neuro_latent_benchmarks.statistics import percentile, significant
from neuro_latent_core.protocol import STREAM_MODEL, UNARY_MODEL
from neuro_latent_serving.server.binary import wheel_program

Log = Callable[[str], None]

WHEEL = "tritonclient==2.50.0"
"""A release whose wheel for Linux on x86-64 has the program; later ones have not."""

LIBRARIES = {"libcudart.so.12": "libcudart-*.so.12*", "libb64.so.0d": "libb64-*.so.0d"}
"""What the program wants beyond libc, and its name in the folder of libraries that nvidia-pytriton brings."""

PROMPTS = 32
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """Clients at a time, tokens that a request asks for, and requests of a measuring window (there are at least 3)."""

    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16)
    max_length: int = 64
    requests: int = 100

    def quick(self) -> "LoadConfig":
        """Enough to see that everything works."""
        return LoadConfig((1, 2), 8, 5)


def measure(program: Path, address: str, config: LoadConfig, log: Log) -> list[dict[str, Any]]:
    """Load each ensemble of the server at ``address`` (host:port of its gRPC) at each concurrency.

    Raises:
        BenchError: perf_analyzer failed; the text has its last lines.
    """
    points = []
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.json"
        prompts.write_text(json.dumps(input_data(config.max_length)))
        for model in (UNARY_MODEL, STREAM_MODEL):
            for clients in config.concurrency:
                log(f"  {model}, {clients} clients")
                exported = Path(folder) / f"{model}-{clients}.json"
                run(program, [*arguments(model, address, prompts, clients, config.requests), str(exported)])
                points.append({"model": model, "clients": clients, **figures(json.loads(exported.read_text()))})
    return points


def input_data(max_length: int) -> dict[str, Any]:
    """Prompts of the sample set, as perf_analyzer reads them."""
    return {"data": [{"raw_prompt": [text], "max_length": [max_length]} for text in prompt_texts(PROMPTS)]}


def arguments(model: str, address: str, prompts: Path, clients: int, requests: int) -> list[str]:
    """The command line; the file for the times of every request comes last, after its option."""
    return [
        *("-m", model, "-u", address, "-i", "grpc", "--async", "--input-data", str(prompts)),
        *(["--streaming"] if model == STREAM_MODEL else []),
        *("--concurrency-range", str(clients), "--measurement-mode", "count_windows"),
        # Windows need not agree: the percentiles that are made of all of their requests show how much they do.
        *("--measurement-request-count", str(requests), "--stability-percentage", "999"),
        "--profile-export-file",
    ]


def figures(exported: dict[str, Any]) -> dict[str, Any]:
    """Of the times that perf_analyzer wrote, in nanoseconds: of each request, and of each of its responses.

    Raises:
        BenchError: no request was answered.
    """
    everything = exported["experiments"][0]["requests"]
    requests = [request for request in everything if request["response_timestamps"]]
    if not requests:
        raise BenchError(f"none of {len(everything)} requests was answered; the server's log says why")
    whole = [(r["response_timestamps"][-1] - r["timestamp"]) / 1e6 for r in requests]
    first = [(r["response_timestamps"][0] - r["timestamp"]) / 1e6 for r in requests]
    seconds = (max(r["response_timestamps"][-1] for r in requests) - min(r["timestamp"] for r in requests)) / 1e9
    return {
        "requests": len(requests),
        "failed": len(everything) - len(requests),
        "requests_per_second": significant(len(requests) / seconds),
        "latency_ms": {f"p{p}": significant(percentile(whole, p)) for p in (50, 95, 99)},
        "first_response_ms": {f"p{p}": significant(percentile(first, p)) for p in (50, 95)},
    }


def find_program(option: Path | None, log: Log) -> Path:
    """perf_analyzer: the option, the one on PATH, else out of an old wheel of tritonclient, kept in the cache folder.

    Raises:
        BenchError: there is none, and it cannot be had.
    """
    if option is not None:
        if not os.access(option, os.X_OK):
            raise BenchError(f"--program {option}: not an executable file")
        return option
    if on_path := shutil.which("perf_analyzer"):
        return Path(on_path)
    kept = cache_folder() / "perf_analyzer" / WHEEL / "perf_analyzer"
    if not kept.is_file():
        log(f"fetching {kept.name} from {WHEEL} (14 MB; once)")
        fetch(kept)
    return kept


def fetch(target: Path) -> None:
    """Put the program of the wheel at ``target``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*pip, "--platform", "manylinux1_x86_64", "--dest", folder, WHEEL], capture_output=True, text=True
        )
        if done.returncode:
            raise BenchError(
                f"perf_analyzer cannot be had: {done.stderr.strip()}\n"
                "Name one with --program, or run this in NVIDIA's image nvcr.io/nvidia/tritonserver:26.08-py3-sdk."
            )
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            (name,) = [name for name in packed.namelist() if name.endswith("/bin/perf_analyzer")]
            (Path(folder) / "program").write_bytes(packed.read(name))
        (Path(folder) / "program").chmod(0o755)
        (Path(folder) / "program").replace(target)


def run(program: Path, words: Sequence[str]) -> None:
    """Run perf_analyzer, with libraries that nvidia-pytriton has where the machine has none.

    Raises:
        BenchError: it failed, or took longer than ``TIMEOUT_S``.
    """
    with tempfile.TemporaryDirectory() as folder:
        server = wheel_program()
        libraries = server.parents[3] / "nvidia_pytriton.libs" if server else Path(folder)
        for name, pattern in LIBRARIES.items():
            for library in libraries.glob(pattern):
                (Path(folder) / name).symlink_to(library)
        path = os.pathsep.join([*filter(None, [os.environ.get("LD_LIBRARY_PATH")]), folder, str(libraries)])
        try:
            done = subprocess.run(
                [str(program), *words],
                env={**os.environ, "LD_LIBRARY_PATH": path},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise BenchError(
                f"perf_analyzer did not end within {TIMEOUT_S:.0f} s; give a lower --requests or --max-length"
            ) from None
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
        raise BenchError(f"perf_analyzer ended with exit code {done.returncode}:\n{said}")
