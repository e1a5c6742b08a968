"""Writing the graphs of a system in a precision, each compared with torch or with float32."""

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir

from neuro_latent_export import agreement, parity
from neuro_latent_export.agreement import Agreement
from neuro_latent_export.decoder_graphs import build_prefill, build_step
from neuro_latent_export.decoder_nodes import Dialect
from neuro_latent_export.graphs import ENCODER_PATHS, PROJECTOR_PATH, graph_specs, write_graph
from neuro_latent_export.job import Job
from neuro_latent_export.parity import Sessions
from neuro_latent_export.plain import System
from neuro_latent_export.precision import FP32, Precision
from neuro_latent_export.row_int8 import quantize_rows
from neuro_latent_export.sixteen_bits import feed_forward_outputs, float32_reference, narrow_products
from neuro_latent_trainer.sample import sample_rows


def traced_paths(model: System) -> tuple[str, ...]:
    """The graphs of a system that are traced: three, of a T5 alone one."""
    return tuple(spec.path for spec in graph_specs(model))


def parity_prompts(count: int) -> list[str]:
    """Prompts of the sample data set, as many as asked for."""
    return [row["raw_prompt"] for row in sample_rows()[:count]]


def write_fp32_graphs(
    model: System, folder: Path, log: Callable[[str], None], dialect: Dialect = "onnxruntime"
) -> tuple[Sessions, dict[str, Any]]:
    """Write all graphs in float32 and compare them with torch; returns their sessions and the manifest's section.

    Raises:
        ParityError: a graph or the whole generation differs from torch.
    """
    sessions, checked = {}, []
    for spec in graph_specs(model):
        write_graph(spec, folder / spec.path, log)
        sessions[spec.path] = parity.open_session(folder / spec.path)
        checked.append(parity.check_graph(spec, sessions[spec.path]))
    sessions |= _write_decoder(model, FP32, folder, log, dialect)
    checked.append(parity.check_decoder(model, sessions))
    log("comparing the whole generation with torch")
    generation = parity.check_generation(model, sessions, parity_prompts(parity.PROMPTS))
    return sessions, parity.as_json(checked, generation)


def write_quantized_graphs(
    model: System, precision: Precision, fp32: Path, folder: Path, log: Callable[[str], None]
) -> Sessions:
    """Write all graphs in ``precision``, from the float32 graphs in the folder ``fp32`` where those were traced."""
    sessions = {}
    for path in traced_paths(model):
        target = _made(folder / path)
        if precision.encoders and path in ENCODER_PATHS:
            log(f"quantizing {path}")
            graph = onnx_ir.load(fp32 / path)
            quantize_rows(graph)
            onnx_ir.save(graph, target)
        else:
            shutil.copyfile(fp32 / path, target)
        sessions[path] = parity.open_session(target)
    return sessions | _write_decoder(model, precision, folder, log)


def write_16_bit_graphs(
    model: System,
    precision: Precision,
    fp32: Path,
    folder: Path,
    log: Callable[[str], None],
    dialect: Dialect = "onnxruntime",
) -> Sessions:
    """Write all graphs with 16-bit products, from the float32 graphs in the folder ``fp32``.

    Returns:
        sessions of their float32 reference models, which every processor runs.
    """
    dtype = onnx_ir.DataType.FLOAT16 if precision.products == "float16" else onnx_ir.DataType.BFLOAT16
    t5 = model.generator_model.config
    wide_outputs = precision.products == "float16" or dialect == "tensorrt"
    keep = feed_forward_outputs(t5.d_ff, t5.d_model) if wide_outputs else lambda node: False
    sessions = {}
    for path in (*traced_paths(model), *parity.DECODER_PATHS):
        if path == PROJECTOR_PATH:
            shutil.copyfile(fp32 / path, _made(folder / path))
            sessions[path] = parity.open_session(folder / path)
            continue
        log(f"narrowing {path}")
        graph = onnx_ir.load(fp32 / path)
        narrow_products(graph, dtype, keep)
        onnx_ir.save(graph, _made(folder / path))
        with tempfile.NamedTemporaryFile(prefix=".reference-", suffix=".onnx", dir=folder) as reference:
            onnx_ir.save(float32_reference(graph), reference.name)
            sessions[path] = parity.open_session(Path(reference.name))
    return sessions


def _write_decoder(
    model: System,
    precision: Precision,
    folder: Path,
    log: Callable[[str], None],
    dialect: Dialect = "onnxruntime",
) -> Sessions:
    sessions = {}
    for path, build in zip(parity.DECODER_PATHS, (build_prefill, build_step), strict=True):
        log(f"building {path}")
        onnx_ir.save(build(model.generator_model, precision, dialect), _made(folder / path))
        sessions[path] = parity.open_session(folder / path)
    return sessions


def _made(path: Path) -> Path:
    """A path whose folder is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_graphs(job: Job, model: System, folder: Path, dialect: Dialect) -> tuple[dict[str, Any], Agreement | None]:
    """Write and check the graphs of a precision; returns the manifest's parity and, where quantized, the agreement.

    The float32 graphs are made and compared with torch for every precision: quantized ones are compared with them.
    """
    precision, log = job.precision, job.log
    if precision == FP32:
        return write_fp32_graphs(model, folder, log, dialect)[1], None
    with tempfile.TemporaryDirectory(prefix=".fp32-", dir=folder) as fp32:
        reference, compared = write_fp32_graphs(model, Path(fp32), log, dialect)
        write = partial(write_16_bit_graphs, dialect=dialect) if precision.products else write_quantized_graphs
        sessions = write(model, precision, Path(fp32), folder, log)
        data = job.check_data or agreement.read_check_data()
        if not data.of_the_model:
            data = agreement.greedy_references(model, reference, data)
        what = f"comparing {precision.name} with float32"
        log(f"{what} on {len(data.records)} rows of {data.name}")
        found = agreement.compare(
            model, reference, sessions, data, lambda done, rows: job.progress(f"{what}: {done} of {rows} rows")
        )
    agreement.check(found, precision)
    return compared, found
