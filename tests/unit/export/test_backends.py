"""Repositories for Triton's own onnxruntime backend: layout, configurations, and what old runtimes can load."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime as ort
import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from neuro_latent_export import warm_up
from neuro_latent_export.backends import GRAPH_MODELS, unsupported
from neuro_latent_export.errors import ExportError
from neuro_latent_export.precision import PRECISIONS
from neuro_latent_export.repository import export_repository
from neuro_latent_export.row_int8 import CONTRIB, quantize_rows
from neuro_latent_export.sixteen_bits import narrow_products
from neuro_latent_export.templates import fill_templates, template_values
from neuro_latent_serving.triton.graph_config import check_config
from neuro_latent_trainer.model import PromptOptimizer
from tests import tiny

OLDEST = "1.19.2"
NEWEST_OPSET, NEWEST_IR = 20, 10
"""The most that the oldest runtime is sure to read (it reads opset 21 and IR version 10)."""


def config(repository: Path, model: str) -> dict[str, Any]:
    parsed = text_format.Parse((repository / model / "config.pbtxt").read_text(), ModelConfig())
    return json_format.MessageToDict(parsed, preserving_proto_field_name=True)


def changed(repository: Path, model: str, change: Callable[[onnx_ir.Model], object]) -> onnx_ir.Model:
    graph = onnx_ir.load(repository / model / "1" / "model.onnx")
    change(graph)
    return graph


FORMS: dict[str, Callable[[onnx_ir.Model], object]] = {
    "fp32": lambda graph: None,
    "int8": quantize_rows,
    "fp16": lambda graph: narrow_products(graph, onnx_ir.DataType.FLOAT16),
}


def test_the_projector_has_one_adapter_and_no_python(onnxruntime_repository: Path) -> None:
    for model in GRAPH_MODELS:
        files = {path.name for path in (onnxruntime_repository / model / "1").rglob("*")}
        assert files == {"model.onnx"} | ({"adapter.json"} if model == "projector" else set())
    manifest = json.loads((onnxruntime_repository / "manifest.json").read_text())
    assert (manifest["backend"], manifest["device"]) == ("onnxruntime", "cpu")
    made = {
        str(path.relative_to(onnxruntime_repository))
        for path in onnxruntime_repository.rglob("*")
        if path.suffix in (".onnx", ".json")
    }
    assert set(manifest["artifacts"]) == made - {"manifest.json"}


@pytest.mark.parametrize("model", GRAPH_MODELS)
def test_a_configuration_describes_its_graph(onnxruntime_repository: Path, model: str) -> None:
    written = config(onnxruntime_repository, model)
    session = ort.InferenceSession(str(onnxruntime_repository / model / "1" / "model.onnx"))
    check_config(written, session.get_inputs(), session.get_outputs())
    assert written["instance_group"] == [{"count": 1, "kind": "KIND_CPU"}]
    # With any queue policy, Triton's batcher lets requests wait for half a second.
    assert "default_queue_policy" not in written["dynamic_batching"]
    for request in written["model_warmup"]:
        feeds = {
            name: np.zeros([1, *map(int, tensor["dims"])], np.int64 if "INT64" in tensor["data_type"] else np.float32)
            for name, tensor in request["inputs"].items()
        }
        session.run(None, feeds)


def test_a_gpu_repository_asks_for_the_gpu(optimizer: PromptOptimizer, tmp_path: Path) -> None:
    fill_templates(template_values(optimizer, "v", "onnxruntime", "gpu"), tmp_path, "onnxruntime")
    for model in GRAPH_MODELS:
        written = config(tmp_path, model)
        assert written["instance_group"] == [{"count": 1, "kind": "KIND_GPU"}]
        (accelerator,) = written["optimization"]["execution_accelerators"]["gpu_execution_accelerator"]
        assert accelerator == {"name": "cuda", "parameters": {"use_tf32": "0"}}


def test_the_warm_up_has_the_lengths_that_the_tokenizer_makes() -> None:
    assert warm_up.lengths(tiny.ENCODER_TOKENS) == [8, 12, 16, 20, 24, 28, 32, 40, 48]
    assert warm_up.lengths(512)[-1] == warm_up.LONGEST


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", GRAPH_MODELS)
def test_the_graphs_are_of_a_standard_that_old_runtimes_know(
    onnxruntime_repository: Path, model: str, form: str
) -> None:
    graph = changed(onnxruntime_repository, model, FORMS[form])
    assert graph.ir_version <= NEWEST_IR
    assert graph.opset_imports[""] <= NEWEST_OPSET
    assert {(node.domain, node.op_type) for node in graph.graph if node.domain} <= {(CONTRIB, "MatMulIntegerToFloat")}
    assert not graph.functions


def test_the_graphs_load_in_the_oldest_runtime(onnxruntime_repository: Path, tmp_path: Path) -> None:
    """Beside this environment's numpy; the runtime alone is installed, into a folder."""
    target = tmp_path / "oldest"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    subprocess.run([*install, f"onnxruntime=={OLDEST}"], check=True, capture_output=True, timeout=240)
    paths = []
    for model in GRAPH_MODELS:
        for form, change in FORMS.items():
            paths.append(tmp_path / f"{model}-{form}.onnx")
            onnx_ir.save(changed(onnxruntime_repository, model, change), paths[-1])
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import onnxruntime as ort\n"
        "for path in sys.argv[2:]: ort.InferenceSession(path, providers=['CPUExecutionProvider'])\n"
        "print(ort.__version__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(target), *map(str, paths)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == OLDEST, done.stderr


@pytest.mark.parametrize(
    ("backend", "device", "precision", "words"),
    [
        ("onnxruntime", "cpu", "bf16", "no bfloat16 products for CPUs"),
        ("onnxruntime", "gpu", "int8", "no int8 products for GPUs"),
        ("python", "gpu", "bf16", "runs the encoders on the CPU, .* take fp32 or fp16, or --backend onnxruntime"),
    ],
)
def test_a_precision_without_kernels_is_refused_before_anything_is_loaded(
    tmp_path: Path, backend: Any, device: Any, precision: str, words: str
) -> None:
    with pytest.raises(ExportError, match=words):
        export_repository(
            tmp_path / "nowhere",
            tmp_path / "repository",
            backend=backend,
            device=device,
            precision=PRECISIONS[precision],
        )


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4", "fp16"])
def test_the_other_precisions_are_for_a_cpu(precision: str) -> None:
    assert unsupported("onnxruntime", "cpu", PRECISIONS[precision]) is None
