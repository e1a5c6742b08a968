"""A model repository as far as it can be read: configurations by Triton's own schema, manifest, files."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from neuro_latent_serving.adapters.records import PROJECTOR, versions
from neuro_latent_serving.doctor.catalogue import Finding
from neuro_latent_serving.server.errors import ServeError
from neuro_latent_serving.server.repository import (
    EXPORT_COMMAND,
    Manifest,
    adapter_artifacts,
    file_problem,
    model_names,
    read_manifest,
)

CONFIG = "config.pbtxt"
PYTHON, ONNXRUNTIME, TENSORRT, ENSEMBLE = "python", "onnxruntime", "tensorrt", "ensemble"

MODEL_FILES = {PYTHON: "model.py", ONNXRUNTIME: "model.onnx", TENSORRT: "model.plan"}
"""What each backend reads in a version's folder."""

PYTHON_FILES: dict[str, tuple[str, ...]] = {
    "tokenizer": ("encoder_tokenizer.json", "generator_tokenizer.json"),
    "encoder": ("model.onnx",),
    "t5_encoder": ("model.onnx",),
    "t5_decoder": ("prefill.onnx", "step.onnx", "generator_tokenizer.json"),
}
"""What the python models read beside their ``model.py``; adapters have records of their own."""


@dataclass(frozen=True)
class Tensor:
    """An input or an output as a configuration lists it; ``dims`` without the batch."""

    name: str
    type: str
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class Model:
    """A folder of the repository with a configuration that can be read (``config``: Triton's ``ModelConfig``)."""

    folder: Path
    config: Any

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def is_ensemble(self) -> bool:
        return bool(self.config.platform == ENSEMBLE)

    @property
    def backend(self) -> str:
        return str(self.config.backend)

    @property
    def inputs(self) -> dict[str, Tensor]:
        return {tensor.name: tensor for tensor in _tensors(self.config.input)}

    @property
    def outputs(self) -> dict[str, Tensor]:
        return {tensor.name: tensor for tensor in _tensors(self.config.output)}

    @property
    def parameters(self) -> dict[str, str]:
        return {name: value.string_value for name, value in self.config.parameters.items()}

    @property
    def instances(self) -> int:
        """How many Triton starts."""
        return sum(max(1, group.count) for group in self.config.instance_group) or 1

    @property
    def on_gpu(self) -> bool:
        return any(group.kind == schema.ModelInstanceGroup.KIND_GPU for group in self.config.instance_group)

    @property
    def served(self) -> Path | None:
        """The folder of the version that Triton serves; None where there is none."""
        numbers = versions(self.folder)
        return self.folder / str(numbers[-1]) if numbers else None


class Repository:
    """A model repository; every part is read when it is first asked for.

    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, root: Path, *, verify: bool = True) -> None:
        self.root, self._verify = root, verify
        self.problem: ServeError | None = None
        try:
            self.names = model_names(root)
        except ServeError as error:
            if error.exit_code == 2:
                raise
            self.names, self.problem = (), error

    @property
    def export_again(self) -> str:
        """The way out of most."""
        return f"Export again: {EXPORT_COMMAND.format(repository=self.root)}"

    @cached_property
    def _read(self) -> tuple[dict[str, Model], dict[str, str]]:
        models, unreadable = {}, {}
        for name in self.names:
            try:
                text = (self.root / name / CONFIG).read_text(encoding="utf-8")
                models[name] = Model(self.root / name, text_format.Parse(text, schema.ModelConfig()))
            except (text_format.ParseError, OSError, UnicodeDecodeError) as error:
                unreadable[name] = str(error)
        return models, unreadable

    @property
    def models(self) -> dict[str, Model]:
        """Those whose configuration can be read, by folder."""
        return self._read[0]

    @property
    def unreadable(self) -> dict[str, str]:
        """Why the configurations of the others cannot be read, by folder."""
        return self._read[1]

    def ensembles(self) -> Iterator[Model]:
        return (model for model in self.models.values() if model.is_ensemble)

    @cached_property
    def manifest(self) -> Manifest | ServeError | None:
        """The manifest; what is wrong with it; None where there is none."""
        try:
            return read_manifest(self.root)
        except ServeError as error:
            return error

    @property
    def has_one_adapter(self) -> bool:
        """Whether the projector is Triton's own backend over one graph, and no set of adapters."""
        projector = self.models.get(PROJECTOR)
        return projector is not None and projector.backend in (ONNXRUNTIME, TENSORRT)

    @cached_property
    def broken_files(self) -> dict[str, Finding]:
        """Files that are missing or not those that were exported, by their path in the repository."""
        artifacts = self.manifest.artifacts if isinstance(self.manifest, Manifest) else {}
        if PROJECTOR in self.models and not self.has_one_adapter:
            with suppress(ServeError, OSError, IndexError):  # the check of the adapters tells
                artifacts = artifacts | adapter_artifacts(self.root)
        broken = {}
        for name, artifact in artifacts.items():
            problem = file_problem(self.root, name, artifact, verify=self._verify)
            if problem is not None:
                broken[name] = Finding(f"file-{problem.kind}", name, problem.text, self.export_again)
        for name in self._needed_files():
            if name not in broken and not (self.root / name).is_file():
                broken[name] = Finding("file-missing", name, "the model's backend reads it", self.export_again)
        return broken

    def _needed_files(self) -> Iterator[str]:
        for model in self.models.values():
            if model.served is None or model.backend not in MODEL_FILES:
                continue
            files = [model.config.default_model_filename or MODEL_FILES[model.backend]]
            if model.backend == PYTHON:
                files += PYTHON_FILES.get(model.name, ())
            for file in files:
                if not (file.endswith(".onnx") and (model.served / file).with_suffix(".plan").is_file()):
                    yield (model.served / file).relative_to(self.root).as_posix()

    def is_sound(self, file: Path) -> bool:
        """Whether a file is there and nothing is known against it."""
        return file.is_file() and file.relative_to(self.root).as_posix() not in self.broken_files


def _tensors(listed: Any) -> Iterator[Tensor]:
    for tensor in listed:
        optional = getattr(tensor, "optional", False)
        yield Tensor(tensor.name, schema.DataType.Name(tensor.data_type), tuple(tensor.dims), optional)
