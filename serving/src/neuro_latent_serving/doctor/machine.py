"""Cores, shared memory, memory and open files of this machine or container, against what the models take."""

import math
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from neuro_latent_core.limits import BUCKETS
from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.repository import PYTHON, Model
from neuro_latent_serving.doctor.subject import Subject
from neuro_latent_serving.settings import guard_is_on, min_confidence, refuses_secrets
from neuro_latent_serving.threads import THREADS_VARIABLE, available_cores, default_threads

MIB = 2**20
SHARED_MEMORY = Path("/dev/shm")
SHARED_AT_START = MIB
"""Of the python backend, for each instance of a model; it grows by as much until its tensors fit."""

CGROUP_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
SERVER_MEMORY, INSTANCE_MEMORY, GRAPH_FACTOR = 150 * MIB, 50 * MIB, 3
"""What tritonserver with its gateway and each python process take, and how much larger than its file a graph is in
memory, with what its runs need (docs/experiments.md)."""

OPEN_FILES = 1024

TYPE_BYTES = {"TYPE_FP32": 4, "TYPE_INT32": 4, "TYPE_INT64": 8, "TYPE_FP16": 2, "TYPE_BF16": 2, "TYPE_BOOL": 1}


def check(subject: Subject) -> Iterator[Outcome]:
    """All of them."""
    yield from check_settings()
    python_models = [model for model in subject.models.values() if model.backend == PYTHON]
    yield from check_shared_memory(python_models)
    yield from check_memory(subject, sum(model.instances for model in python_models))
    yield from check_open_files()


def check_settings() -> Iterator[Outcome]:
    """Environment variables that the models read."""
    readers: tuple[Callable[[], object], ...] = (default_threads, guard_is_on, min_confidence, refuses_secrets)
    for read in readers:
        try:
            read()
        except ValueError as error:
            yield Finding("setting-invalid", str(error).split()[0], str(error), "Correct it, or unset it.")
    cores, threads = available_cores(), os.environ.get(THREADS_VARIABLE, "")
    if threads.isdecimal() and int(threads) > cores:
        what = f"{threads} threads, on {cores} cores"
        yield Finding("threads-exceed-cores", THREADS_VARIABLE, what, "Use fewer, or unset it: every core.")
    yield f"{cores} cores"


def check_shared_memory(python_models: list[Model]) -> Iterator[Outcome]:
    """``/dev/shm``, over which Triton and the python models hand tensors to each other."""
    if not SHARED_MEMORY.is_dir():
        yield Finding("shared-memory-small", str(SHARED_MEMORY), "is not there", "Mount a tmpfs on it.")
        return
    space = os.statvfs(SHARED_MEMORY)
    free = space.f_bavail * space.f_frsize
    start = sum(model.instances for model in python_models) * SHARED_AT_START
    full = start + sum(model.instances * batch_bytes(model) for model in python_models)
    text = f"{free // MIB} MiB free; the python models take {start // MIB} MiB at their start"
    mend = f"Give the container --shm-size {-(-full // MIB)}m or more (Docker's default is 64m)."
    if free < start:
        yield Finding("shared-memory-small", str(SHARED_MEMORY), text, mend)
    elif free < full:
        yield Finding(
            "shared-memory-tight", str(SHARED_MEMORY), f"{text}, and {full // MIB} MiB with full batches", mend
        )
    else:
        yield f"{SHARED_MEMORY}: {free // MIB} MiB free"


def batch_bytes(model: Model) -> int:
    """The numbers of a full batch of the longest prompts, inputs and outputs; texts are small beside them."""
    tensors = [*model.inputs.values(), *model.outputs.values()]
    sizes = (TYPE_BYTES.get(t.type, 0) * math.prod(d if d > 0 else BUCKETS[-1] for d in t.dims) for t in tensors)
    return max(1, int(model.config.max_batch_size)) * sum(sizes)


def check_memory(subject: Subject, python_instances: int) -> Iterator[Outcome]:
    """The machine's memory, or the container's limit, against an estimate of what the models take."""
    limit = memory_limit()
    if subject.repository is None:
        yield f"{limit // MIB} MiB of memory"
        return
    graphs = sum(file.stat().st_size for file in subject.repository.root.rglob("*") if is_graph(file))
    need = SERVER_MEMORY + python_instances * INSTANCE_MEMORY + GRAPH_FACTOR * graphs
    if limit < need:
        what = f"{limit // MIB} MiB, and the models are likely to take {need // MIB} MiB"
        yield Finding("memory-low", "memory", what, "Raise the limit, or export with --precision int8.")
    else:
        yield f"{limit // MIB} MiB of memory; the models are likely to take {need // MIB} MiB"


def is_graph(file: Path) -> bool:
    return file.suffix in (".onnx", ".plan", ".data") and file.is_file()


def memory_limit() -> int:
    """Bytes that all processes here may have: the machine's memory, or a container's limit if that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in CGROUP_MEMORY:
        if file.is_file() and (text := file.read_text().strip()).isdecimal():  # "max" is no limit
            limits.append(int(text))
    return min(limits)


def check_open_files() -> Iterator[Outcome]:
    """Every connection is an open file of the server."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        what = f"{soft} may be open at a time; the server needs one a connection, and some hundred"
        yield Finding("open-files-low", "open files", what, f"Raise it: ulimit -n {OPEN_FILES * 4}.")
    else:
        yield f"{soft} open files"
