"""TensorRT's engines, which only their GPU can open: what export has written down of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import PurePosixPath

from pydantic import BaseModel

from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.graphs import compare
from neuro_latent_serving.doctor.repository import MODEL_FILES, TENSORRT, Model, Repository
from neuro_latent_serving.doctor.subject import Subject
from neuro_latent_serving.server.repository import MANIFEST, Manifest

LOADED_BY_TRITON = "TensorRT"

LIBRARY = "tensorrt"
RUNTIME = (LIBRARY, "cuda.bindings")
"""What the decoder imports (``engine/device/tensorrt.py``)."""

TYPES = {
    "float": "TYPE_FP32",
    "half": "TYPE_FP16",
    "bf16": "TYPE_BF16",
    "int64": "TYPE_INT64",
    "int32": "TYPE_INT32",
    "bool": "TYPE_BOOL",
}
"""By TensorRT's names."""


class EngineTensor(BaseModel):
    """An input or output; ``profiles`` has least, usual and greatest shape of an input, for each profile."""

    dtype: str
    shape: list[int]
    profiles: list[list[list[int]]] = []


@dataclass(frozen=True)
class EngineNode:
    """The same as :mod:`graph_config` compares it; ``type`` by Triton's name."""

    name: str
    type: str
    shape: list[int]


class Engine(BaseModel):
    """Inputs and outputs by name."""

    inputs: dict[str, EngineTensor]
    outputs: dict[str, EngineTensor]


class Engines(BaseModel):
    """The manifest's ``tensorrt``: what built the engines, for which GPUs, and each by its path."""

    library: str
    version: str
    compute_capability: str
    engines: dict[str, Engine]


class _Manifest(BaseModel):
    tensorrt: Engines | None = None


def check_slots(path: str, engine: Engine, decoder: Model) -> Iterator[Finding]:
    """The decoder's step against the rows that decode together."""
    mask, slots = engine.inputs.get("encoder_attention_mask"), decoder.parameters.get("slots", "")
    if mask is None or not slots.isdecimal():
        return
    rows = max((greatest[0] for _, _, greatest in mask.profiles), default=0)
    if int(slots) > rows:
        what = f"{rows} rows at most, and the parameter slots of {decoder.name} is {slots}"
        yield Finding("graph-differs", path, what, f"Set slots to at most {rows}.")


def check(subject: Subject) -> Iterator[Outcome]:
    """Where the repository has some: the GPU that they are for, and their tensors against the configurations."""
    repository = subject.repository
    if repository is None or not isinstance(repository.manifest, Manifest):
        return
    built = _Manifest.model_validate_json((repository.root / MANIFEST).read_bytes()).tensorrt
    if built is None:
        return
    yield f"{built.library} {built.version}, for compute capability {built.compute_capability}"
    if built.library != LOADED_BY_TRITON:
        what = f"built with {built.library}, whose engines Triton does not load"
        yield Finding("engines-for-checks", MANIFEST, what, "Export on a machine with the GPU and TensorRT.")
    else:
        yield from check_runtime(built)
    others = {f"{gpu.capability:g}" for gpu in subject.gpus} - {f"{float(built.compute_capability):g}"}
    if others:
        what = f"built for compute capability {built.compute_capability}, and the GPU here has {', '.join(others)}"
        yield Finding("engines-misfit", MANIFEST, what, "Export on this machine.")
    for path, engine in built.engines.items():
        folder, file = PurePosixPath(path).parts[0], PurePosixPath(path).name
        model = repository.models.get(folder)
        if model is not None and file == MODEL_FILES[TENSORRT]:
            yield from check_engine(path, engine, model, repository)
        elif model is not None:
            yield from check_slots(path, engine, model)


def check_runtime(built: Engines) -> Iterator[Finding]:
    """The packages with which the decoder runs its engines."""
    for name in RUNTIME:
        if not is_installed(name):
            mend = "pip install 'neuro-latent-serving[tensorrt]', or use the image of Dockerfile.triton for GPUs."
            yield Finding("engine-runtime-missing", name, "is not installed, and the decoder needs it", mend)
    here = {version(name) for name in packages_distributions().get(LIBRARY, ())}
    if here and here != {built.version}:
        what = f"built with TensorRT {built.version}, and {' and '.join(sorted(here))} is installed here"
        yield Finding("engines-version", MANIFEST, what, "Export with the TensorRT of the server.")


def is_installed(module: str) -> bool:
    """Whether a module can be found, without loading the libraries behind it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


def check_engine(path: str, engine: Engine, model: Model, repository: Repository) -> Iterator[Finding]:
    """One engine against its model's configuration."""
    yield from compare(path, nodes(engine.inputs), nodes(engine.outputs), model, repository)
    for name, tensor in engine.inputs.items():
        rows = max((greatest[0] for _, _, greatest in tensor.profiles), default=0)
        if rows < model.config.max_batch_size:
            what = f"input {name}: {rows} rows at most, and max_batch_size is {model.config.max_batch_size}"
            yield Finding("graph-differs", path, what, repository.export_again)


def nodes(tensors: dict[str, EngineTensor]) -> list[EngineNode]:
    return [EngineNode(name, TYPES.get(tensor.dtype, tensor.dtype), tensor.shape) for name, tensor in tensors.items()]
