"""Writing a model repository: templates filled, graphs exported and checked, manifest last, published by rename."""

import hashlib
import importlib.metadata
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir

from neuro_latent_core.repository import (
    GRAPH,
    MANIFEST,
    PLAN,
    RECORD,
    AdapterRecord,
    ExportedAdapter,
    FileEntry,
    Fits,
    Manifest,
)
from neuro_latent_export import parity
from neuro_latent_export.backends import (
    SEVERAL_ADAPTERS,
    BackendName,
    adapter_path,
    default_device,
    unsupported,
)
from neuro_latent_export.decoder_nodes import OPSET as DECODER_OPSET
from neuro_latent_export.decoder_nodes import Dialect
from neuro_latent_export.errors import ExportError
from neuro_latent_export.graph_files import parity_prompts, traced_paths, write_graphs
from neuro_latent_export.graphs import OPSET, PROJECTOR_PATH, Sizes, graph_specs, write_graph
from neuro_latent_export.job import Job
from neuro_latent_export.move_graph import build_move
from neuro_latent_export.plain import PlainWriter, System
from neuro_latent_export.precision import FP32, Precision
from neuro_latent_export.publishing import check_nothing_is_lost, published
from neuro_latent_export.templates import fill_templates, template_values, write_texts
from neuro_latent_export.tensorrt.engines import write_engines
from neuro_latent_export.tensorrt.library import open_tensorrt, open_tensorrt_rtx
from neuro_latent_trainer import adapter_folder
from neuro_latent_trainer.backbones import Encoder, Generator
from neuro_latent_trainer.model import PromptOptimizer

MOVE_PATH = "t5_decoder/1/move.onnx"


@dataclass(frozen=True)
class _Adapted:
    """An adapter with its frozen models, loaded.

    Attributes:
        weights: of the adapter.
        version: names what is written by these weights in this precision.
    """

    model: PromptOptimizer
    weights: FileEntry
    version: str

    @classmethod
    def load(cls, job: Job) -> "_Adapted":
        assert job.adapter is not None
        folder = adapter_folder.locate(job.adapter)
        job.log(f"loading {folder} and its frozen models")
        before = FileEntry.of(folder / adapter_folder.WEIGHTS_FILE)
        model = PromptOptimizer.from_pretrained(folder, encoder=job.encoder, generator=job.generator)
        weights = FileEntry.of(folder / adapter_folder.WEIGHTS_FILE)
        if weights != before:
            raise ExportError(f"{folder} was written to while it was read (by a training run?); export again")
        return cls(model, weights, _version(model, weights.sha256, job.precision))

    def write_record(self, precision: Precision, graph: Path) -> dict[str, Any]:
        """Write ``adapter.json`` beside the graph (or the engine) of the adapter; returns what is in it."""
        sizes = Sizes.of(self.model)
        fits = Fits(
            encoder=self.model.encoder.sha256,
            generator=self.model.generator.sha256,
            encoder_width=sizes.encoder_width,
            generator_width=sizes.generator_width,
            soft_prompt_tokens=sizes.soft_prompt_tokens,
            pooling=self.model.adapter.config.pooling,
            precision=precision.name,
        )
        record = AdapterRecord(model_version=self.version, weights=self.weights, graph=FileEntry.of(graph), fits=fits)
        return record.write(graph.with_name(RECORD))


def _version(model: System, sha256: str, precision: Precision) -> str:
    """The name of what writes the texts: the generator's, the beginning of a hash, the precision."""
    version = f"{pair_name(model.generator.name)}-{sha256[:12]}"
    return version if precision == FP32 else f"{version}-{precision.name}"


def _load_plain(job: Job) -> tuple[PlainWriter, str]:
    """A T5 to be served alone, and its version: of its weights and its prefix."""
    if job.generator is None:
        raise ExportError("without an adapter, --generator has to say which T5 is exported")
    job.log(f"loading {job.generator}")
    model = PlainWriter.load(job.generator, job.prefix, job.log)
    identity = hashlib.sha256(f"{model.generator.sha256}{job.prefix}".encode()).hexdigest()
    return model, _version(model, identity, job.precision)


def pair_name(generator: str) -> str:
    """A short name for a pair of backbones: the last part of its generator's that says something."""
    path = Path(os.path.abspath(generator))
    name = path.parent.name if path.name == "generator" else path.name
    return re.sub(r"[^\w.-]+", "-", name) or "model"


def export_repository(adapter: Path | None, output: Path, **settings: Any) -> dict[str, Any]:
    """Export an adapter with its frozen models, or a T5 alone, to a Triton model repository; returns its manifest.

    The repository is built and checked beside ``output`` and takes its place only when every check passed; a
    repository that is there already is replaced if no server runs with it, anything else is left alone.

    Args:
        adapter, output, settings: the attributes of a :class:`Job`.

    Raises:
        AdapterError, BackboneError: the adapter or a frozen model cannot be loaded.
        ParityError: a float32 graph or their whole generation differs from torch; nothing was written.
        AgreementError: the precision loses more than its bounds allow; nothing was written.
        ExportError: ``output`` exists and is no repository, is being served, or has adapters that would be lost; or the
            backend cannot run the precision on the device; or the adapter was written to meanwhile.
        TensorRTError: TensorRT is missing, or does not take a graph; nothing was written.
    """
    job = Job(adapter, output, **settings)
    precision, backend, log = job.precision, job.backend, job.log
    device = job.device or default_device(backend)
    if reason := unsupported(backend, device, precision):
        raise ExportError(f"{precision.name} with --backend {backend} --device {device}: {reason}")
    library = None
    if backend == "tensorrt":
        library = open_tensorrt() if job.tensorrt_rtx is None else open_tensorrt_rtx(job.tensorrt_rtx)
    if not job.force:
        check_nothing_is_lost(output, adapter)
    with published(output, MANIFEST) as building:
        adapted = _Adapted.load(job) if adapter else None
        model: System
        model, version = (adapted.model, adapted.version) if adapted else _load_plain(job)
        fill_templates(template_values(model, version, backend, device), building, backend)
        artifacts = write_texts(model, building)
        parity.check_tokenizers(model, building, parity_prompts(parity.PROMPTS))
        dialect: Dialect = "tensorrt" if library else "onnxruntime"
        compared, agreed = write_graphs(job, model, building, dialect)
        graphs, engines = (*traced_paths(model), *parity.DECODER_PATHS), None
        if library:  # the graphs were checked on the CPU; only the engines that are made of them are kept
            engines = write_engines(library, model, building, building, log)
            for path in graphs:
                (building / path).unlink()
            artifacts += engines["engines"]
        else:
            onnx_ir.save(build_move(), building / MOVE_PATH)
            artifacts += [*(path for path in graphs if path != PROJECTOR_PATH), MOVE_PATH]
        exported, backbones = None, {"generator": _named(model.generator) | {"prefix": model.generator.prefix}}
        if adapted:
            projector = _place_adapter(building, backend)
            adapted.write_record(precision, projector)
            artifacts += [str(file.relative_to(building)) for file in (projector, projector.with_name(RECORD))]
            config = adapted.model.adapter.config.model_dump()
            exported = ExportedAdapter(**asdict(adapted.weights), config=config)
            backbones = {"encoder": _named(adapted.model.encoder), "generator": _named(model.generator)}
        manifest = Manifest(
            model_version=version,
            precision=precision.name,
            backend=backend,
            device=device,
            opset={"encoders": OPSET, "decoder": DECODER_OPSET},
            adapter=exported,
            backbones=backbones,
            sizes=vars(Sizes.of(model)),
            parity=compared,
            agreement={**agreed.as_json(), "bounds": precision.bounds()} if agreed else None,
            tensorrt=engines,
            versions=_versions(),
            artifacts={relative: FileEntry.of(building / relative) for relative in sorted(set(artifacts))},
        ).write(building / MANIFEST)
        if not job.force:  # an export takes minutes
            check_nothing_is_lost(output, adapter)
    return manifest


def export_adapter(adapter: Path, output: Path, **settings: Any) -> dict[str, Any]:
    """Export an adapter alone, for a repository that has its frozen models; returns its record.

    The folder ``output`` gets ``model.onnx``, compared with torch, and ``adapter.json``; it is published as
    :func:`export_repository` does. ``precision`` is that of the repository: the adapter's own graph is float32 in all
    of them, but its texts are named after it.

    Args:
        adapter, output, settings: ``encoder``, ``generator``, ``precision`` and ``log`` of a :class:`Job`.

    Raises:
        As :func:`export_repository`.
    """
    job = Job(adapter, output, **settings)
    with published(output, RECORD) as building:
        system = _Adapted.load(job)
        (spec,) = (spec for spec in graph_specs(system.model) if spec.path == PROJECTOR_PATH)
        graph = building / GRAPH
        write_graph(spec, graph, job.log)
        parity.check_graph(spec, parity.open_session(graph))
        return system.write_record(job.precision, graph)


def _named(backbone: Encoder | Generator) -> dict[str, str]:
    return {"name": backbone.name, "sha256": backbone.sha256}


def _place_adapter(building: Path, backend: BackendName) -> Path:
    """Put the adapter where a backend looks for it; returns its graph, or its engine."""
    written, folder = building / SEVERAL_ADAPTERS, building / adapter_path(backend)
    if folder != written:
        for file in written.iterdir():
            file.rename(folder / file.name)
        written.rmdir()
        written.parent.rmdir()
    return folder / (PLAN if backend == "tensorrt" else GRAPH)


def _versions() -> dict[str, str]:
    names = ("neuro-latent-export", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "tokenizers")
    return {name: importlib.metadata.version(name) for name in names}
