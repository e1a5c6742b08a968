"""Writing a model repository: templates filled, graphs exported and checked, manifest last, published by rename."""

import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx_ir

from neuro_latent_core.repository import FORMAT, MANIFEST, RECORD, added_adapters, held_alone, sha256
from neuro_latent_export import parity
from neuro_latent_export.agreement import Agreement, CheckData
from neuro_latent_export.backends import (
    SEVERAL_ADAPTERS,
    BackendName,
    DeviceName,
    adapter_path,
    default_device,
    unsupported,
)
from neuro_latent_export.decoder_nodes import OPSET as DECODER_OPSET
from neuro_latent_export.errors import ExportError
from neuro_latent_export.graph_files import ENCODER_PATHS, parity_prompts, write_graphs
from neuro_latent_export.graphs import OPSET, PROJECTOR_PATH, Sizes, graph_specs, write_graph
from neuro_latent_export.move_graph import build_move
from neuro_latent_export.precision import FP32, Precision
from neuro_latent_export.templates import fill_templates, template_values, write_texts
from neuro_latent_export.tensorrt.engines import plan_path, write_engines
from neuro_latent_export.tensorrt.library import Library, open_tensorrt, open_tensorrt_rtx
from neuro_latent_trainer import adapter_folder
from neuro_latent_trainer.model import PromptOptimizer

MOVE_PATH = "t5_decoder/1/move.onnx"


@dataclass(frozen=True)
class Loaded:
    """A system to export.

    Attributes:
        weights: hash and size of the adapter's weights, as :func:`file_entry` gives them.
        model_version: names what is written by these weights in this precision.
    """

    model: PromptOptimizer
    weights: dict[str, Any]
    precision: Precision
    model_version: str

    @property
    def backbones(self) -> dict[str, dict[str, str]]:
        """Names and fingerprints of the frozen models."""
        model = self.model
        return {
            "encoder": {"name": model.encoder.name, "sha256": model.encoder.sha256},
            "generator": {"name": model.generator.name, "sha256": model.generator.sha256},
        }


def load(
    adapter: Path,
    encoder: str | None,
    generator: str | None,
    precision: Precision,
    log: Callable[[str], None] = lambda text: None,
) -> Loaded:
    """Load an adapter (its folder, or a training run) with its frozen models.

    Raises:
        AdapterError, BackboneError: one of them cannot be loaded.
        ExportError: the adapter was written to meanwhile.
    """
    folder = adapter_folder.locate(adapter)
    log(f"loading {folder} and its frozen models")
    before = file_entry(folder / adapter_folder.WEIGHTS_FILE)
    model = PromptOptimizer.from_pretrained(folder, encoder=encoder, generator=generator)
    weights = file_entry(folder / adapter_folder.WEIGHTS_FILE)
    if weights != before:
        raise ExportError(f"{folder} was written to while it was read (by a training run?); export again")
    model_version = f"{pair_name(model.generator.name)}-{weights['sha256'][:12]}"
    if precision != FP32:  # it writes other texts
        model_version += f"-{precision.name}"
    return Loaded(model, weights, precision, model_version)


def write_adapter_record(loaded: Loaded, graph: Path) -> None:
    """Write ``adapter.json`` beside the graph (or the engine) of an adapter.

    Its ``fits`` is all that the frozen graphs of a repository were made with and an adapter could have otherwise:
    serving adds an adapter only where it is the same.
    """
    sizes, config = Sizes.of(loaded.model), loaded.model.adapter.config
    record = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_version": loaded.model_version,
        "weights": loaded.weights,
        "graph": file_entry(graph),
        "fits": {
            "encoder": loaded.model.encoder.sha256,
            "generator": loaded.model.generator.sha256,
            "encoder_width": sizes.encoder_width,
            "generator_width": sizes.generator_width,
            "soft_prompt_tokens": sizes.soft_prompt_tokens,
            "pooling": config.pooling,
            "precision": loaded.precision.name,
        },
    }
    graph.with_name(RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def file_entry(path: Path) -> dict[str, Any]:
    """Hash and size of a file, for the manifest."""
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def pair_name(generator: str) -> str:
    """A short name for a pair of backbones: the last part of its generator's that says something."""
    path = Path(os.path.abspath(generator))
    name = path.parent.name if path.name == "generator" else path.name
    return re.sub(r"[^\w.-]+", "-", name) or "model"


def _publish(building: Path, output: Path) -> None:
    """Put ``building`` in the place of ``output``; what was there goes only after that."""
    if not output.exists():
        building.rename(output)
        return
    old = building.with_name(building.name + ".old")
    with _not_served(output):
        output.rename(old)
        try:
            building.rename(output)
        except OSError:
            old.rename(output)
            raise
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old)


@contextmanager
def _not_served(repository: Path) -> Iterator[None]:
    """While this lasts no server starts with a repository.

    Raises:
        ExportError: a server runs with it.
    """
    try:
        with held_alone(repository):
            yield
    except BlockingIOError:
        raise ExportError(
            f"{repository} is being served. To change one adapter: neuro-latent adapters add NAME --adapter DIR "
            f"--repository {repository}. To export all of it, stop the server first, or choose another --output"
        ) from None


def _check_nothing_is_lost(output: Path, adapter: Path) -> None:
    """Raise an ExportError where a new export would delete what was added to a repository."""
    if added := added_adapters(output):
        raise ExportError(
            f"{output} has {added}; a new export would delete them. To change one adapter: neuro-latent adapters add "
            f"NAME --adapter {adapter} --repository {output}. To lose them, --force"
        )


def _versions() -> dict[str, str]:
    names = ("neuro-latent-export", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "tokenizers")
    return {name: importlib.metadata.version(name) for name in names}


def _place_adapter(building: Path, backend: BackendName) -> list[Path]:
    """Put the adapter where a backend looks for it; returns its files, relative to the repository."""
    written, folder = building / SEVERAL_ADAPTERS, Path(adapter_path(backend))
    if backend != "python":
        for file in written.iterdir():
            file.rename(building / folder / file.name)
        written.rmdir()
        written.parent.rmdir()
    return [folder / name for name in (Path(PROJECTOR_PATH).name, RECORD)]


@dataclass(frozen=True)
class _Models:
    """What was written of a system's models.

    Attributes:
        files: in the repository.
        parity: the manifest's section.
        agreement: with float32, of another precision.
        tensorrt: the facts of the engines, of a repository that has some.
    """

    files: list[str]
    parity: dict[str, Any]
    agreement: Agreement | None
    tensorrt: dict[str, Any] | None = None


def _open_library(backend: BackendName, tensorrt_rtx: str | None) -> Library | None:
    """The TensorRT that builds a repository's engines, where it has some."""
    if backend != "tensorrt":
        return None
    return open_tensorrt() if tensorrt_rtx is None else open_tensorrt_rtx(tensorrt_rtx)


def _write_onnx(
    loaded: Loaded,
    backend: BackendName,
    check_data: CheckData | None,
    building: Path,
    log: Callable[[str], None],
    progress: Callable[[str], None],
) -> _Models:
    model, precision = loaded.model, loaded.precision
    compared, agreed = write_graphs(model, precision, check_data, building, log, progress, "onnxruntime")
    write_adapter_record(loaded, building / PROJECTOR_PATH)
    adapter = [str(path) for path in _place_adapter(building, backend)]
    onnx_ir.save(build_move(), building / MOVE_PATH)
    return _Models([*ENCODER_PATHS, *parity.DECODER_PATHS, MOVE_PATH, *adapter], compared, agreed)


def _write_engines(
    loaded: Loaded,
    library: Library,
    check_data: CheckData | None,
    building: Path,
    log: Callable[[str], None],
    progress: Callable[[str], None],
) -> _Models:
    """The graphs are checked on the CPU, and the engines made of them; only these are kept."""
    model = loaded.model
    with tempfile.TemporaryDirectory(prefix=".graphs-", dir=building) as folder:
        graphs = Path(folder)
        compared, agreed = write_graphs(model, loaded.precision, check_data, graphs, log, progress, "tensorrt")
        facts = write_engines(library, model, graphs, building, log)
    adapter = Path(plan_path(PROJECTOR_PATH))
    write_adapter_record(loaded, building / adapter)
    return _Models([*facts["engines"], str(adapter.with_name(RECORD))], compared, agreed, facts)


def export_repository(
    adapter: Path,
    output: Path,
    *,
    encoder: str | None = None,
    generator: str | None = None,
    precision: Precision = FP32,
    backend: BackendName = "python",
    device: DeviceName | None = None,
    tensorrt_rtx: str | None = None,
    check_data: CheckData | None = None,
    force: bool = False,
    log: Callable[[str], None] = lambda text: None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Export an adapter with its frozen models to a Triton model repository; returns its manifest.

    The repository is built and checked beside ``output`` and takes its place only when every check passed; a
    repository that is there already is replaced if no server runs with it, anything else is left alone.

    Args:
        adapter: an adapter folder, or a training run.
        output: the folder of the repository.
        encoder: frozen encoder, if not the one that the adapter names.
        generator: likewise.
        precision: how weights are stored.
        backend: what runs the encoder, the projector and the T5 encoder.
        device: where the decoder runs, and with Triton's own backends all else too (the backend ``python`` has the
            encoders on the CPU in any case); None takes the backend's usual one.
        tensorrt_rtx: build the engines of the backend ``tensorrt`` with TensorRT-RTX for GPUs of this compute
            capability (``8.9``), which need not be at hand: for checks, since Triton does not load such engines.
        check_data: what a quantized repository is compared with float32 on; None takes the prompts of the
            project's own sample, with what float32 writes for them.
        force: replace a repository to which adapters were added, too; they are lost.
        log: told of each stage.
        progress: told how far a long stage is.

    Raises:
        AdapterError, BackboneError: the adapter or a frozen model cannot be loaded.
        ParityError: a float32 graph or their whole generation differs from torch; nothing was written.
        AgreementError: the precision loses more than its bounds allow; nothing was written.
        ExportError: ``output`` exists and is no repository, is being served, or has adapters that would be lost; or the
            backend cannot run the precision on the device.
        TensorRTError: TensorRT is missing, or does not take a graph; nothing was written.
    """
    device = device or default_device(backend)
    if reason := unsupported(backend, device, precision):
        raise ExportError(f"{precision.name} with --backend {backend} --device {device}: {reason}")
    library = _open_library(backend, tensorrt_rtx)
    if not force:
        _check_nothing_is_lost(output, adapter)
    with _published(output, MANIFEST) as building:
        loaded = load(adapter, encoder, generator, precision, log)
        model = loaded.model
        fill_templates(template_values(model, loaded.model_version, backend, device), building, backend)
        artifacts = write_texts(model, building)
        parity.check_tokenizers(model, building, parity_prompts(parity.PROMPTS))
        told = (check_data, building, log, progress)
        written = _write_engines(loaded, library, *told) if library else _write_onnx(loaded, backend, *told)
        artifacts += written.files
        manifest = {
            "format": FORMAT,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model_version": loaded.model_version,
            "precision": precision.name,
            "backend": backend,
            "device": device,
            "opset": {"encoders": OPSET, "decoder": DECODER_OPSET},
            "adapter": {**loaded.weights, "config": model.adapter.config.model_dump()},
            "backbones": loaded.backbones,
            "sizes": vars(Sizes.of(model)),
            "parity": written.parity,
            "agreement": written.agreement and {**written.agreement.as_json(), "bounds": precision.bounds()},
            "tensorrt": written.tensorrt,
            "versions": _versions(),
            "artifacts": {relative: file_entry(building / relative) for relative in sorted(artifacts)},
        }
        (building / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        if not force:  # an export takes minutes
            _check_nothing_is_lost(output, adapter)
    return manifest


def export_adapter(
    adapter: Path,
    output: Path,
    *,
    encoder: str | None = None,
    generator: str | None = None,
    precision: Precision = FP32,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Export an adapter alone, for a repository that has its frozen models; returns its record.

    The folder ``output`` gets ``model.onnx``, compared with torch, and ``adapter.json``; it is published as
    :func:`export_repository` does. ``precision`` is that of the repository: the adapter's own graph is float32 in all
    of them, but its texts are named after it.

    Raises:
        As :func:`export_repository`.
    """
    with _published(output, RECORD) as building:
        loaded = load(adapter, encoder, generator, precision, log)
        (spec,) = (spec for spec in graph_specs(loaded.model) if spec.path == PROJECTOR_PATH)
        path = building / Path(PROJECTOR_PATH).name
        write_graph(spec, path, log)
        parity.check_graph(spec, parity.open_session(path))
        write_adapter_record(loaded, path)
        record: dict[str, Any] = json.loads((building / RECORD).read_text(encoding="utf-8"))
    return record


@contextmanager
def _published(output: Path, marker: str) -> Iterator[Path]:
    """A new folder to write to, which takes the place of ``output`` at the end, if there was no error.

    Raises:
        ExportError: ``output`` is there, is not empty, and lacks the file ``marker`` of an earlier export.
    """
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / marker).is_file())):
        kind = "exported repository" if marker == MANIFEST else "exported adapter"
        hint = "choose another --output or remove it"
        if (output / MANIFEST).is_file():
            hint = (
                f"to add an adapter to a repository: neuro-latent adapters add NAME --adapter DIR --repository {output}"
            )
        raise ExportError(f"{output} exists and is no {kind}; {hint}")
    if output.exists():
        with _not_served(output):  # told before an export, not after it
            pass
    output = Path(os.path.abspath(output))
    output.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        os.chmod(building, 0o755)
        yield building
        _publish(building, output)
    finally:
        shutil.rmtree(building, ignore_errors=True)
