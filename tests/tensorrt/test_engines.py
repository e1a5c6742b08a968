"""All five graphs, of the embedded pair and at the true sizes, parsed and built by TensorRT-RTX, without a GPU.

An engine can be opened only on its GPU. So what is checked of it is the network that it was built from, its profiles,
and that the names of its tensors are in it.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir
import pytest
import typer
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
from typer.testing import CliRunner

from neuro_latent_core.limits import BUCKETS
from neuro_latent_export.backends import GRAPH_MODELS
from neuro_latent_export.cli import export
from neuro_latent_export.decoder_graphs import build_prefill, build_step
from neuro_latent_export.graph_files import write_16_bit_graphs
from neuro_latent_export.graphs import Sizes, graph_specs, write_graph
from neuro_latent_export.parity import DECODER_PATHS
from neuro_latent_export.precision import FP16, FP32, Precision
from neuro_latent_export.templates import fill_templates, template_values
from neuro_latent_export.tensorrt.engines import write_engines
from neuro_latent_export.tensorrt.library import open_tensorrt_rtx
from neuro_latent_trainer.backbones import resolve
from neuro_latent_trainer.choices import EMBEDDED
from neuro_latent_trainer.model import MAX_SOURCE_TOKENS, PromptOptimizer
from research.synthetic import shapes

pytest.importorskip("tensorrt_rtx_bindings", reason="the wheels of TensorRT-RTX are not installed")

CAPABILITY = "8.9"
ENGINES = {
    "encoder/1/model.plan",
    "projector/1/model.plan",
    "t5_encoder/1/model.plan",
    "t5_decoder/1/prefill.plan",
    "t5_decoder/1/step.plan",
}
TYPES = {"TYPE_INT64": "int64", "TYPE_FP32": "float"}
CACHE_TYPES = {"fp32": "float", "fp16": "half", "bf16": "bf16"}


def check_configuration(repository: Path, model: str, engine: dict[str, Any]) -> None:
    """The configuration of a graph model has the tensors of its engine, and asks for both of its profiles."""
    text = (repository / model / "config.pbtxt").read_text()
    config = json_format.MessageToDict(text_format.Parse(text, ModelConfig()), preserving_proto_field_name=True)
    assert config["backend"] == "tensorrt"
    for side in ("inputs", "outputs"):
        said = {t["name"]: (TYPES[t["data_type"]], [-1, *map(int, t["dims"])]) for t in config[side[:-1]]}
        assert said == {name: (tensor["dtype"], tensor["shape"]) for name, tensor in engine[side].items()}
    (group,) = config["instance_group"]
    assert (group["kind"], group["profile"]) == ("KIND_GPU", ["0", "1"])
    for tensor in engine["inputs"].values():
        assert [[shape[0] for shape in profile] for profile in tensor["profiles"]] == [
            [1, 1, config["max_batch_size"]],
            [1, config["max_batch_size"], config["max_batch_size"]],
        ]
    assert {request["batch_size"] for request in config["model_warmup"]} == {1, config["max_batch_size"]}
    for request in config["model_warmup"]:
        for name, tensor in request["inputs"].items():
            least, _, most = engine["inputs"][name]["profiles"][0]
            shape = [request["batch_size"], *map(int, tensor["dims"])]
            assert all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))


def check_engines(repository: Path, facts: dict[str, Any], sizes: Sizes, encoder_tokens: int, precision: str) -> None:
    """Tensors, types and profiles of the five engines."""
    assert (facts["library"], facts["compute_capability"]) == ("TensorRT-RTX", CAPABILITY)
    engines = facts["engines"]
    assert set(engines) == ENGINES
    for path, engine in engines.items():
        plan = (repository / path).read_bytes()
        for name in [*engine["inputs"], *engine["outputs"]]:
            assert name.encode() in plan
    for model in GRAPH_MODELS:
        check_configuration(repository, model, engines[f"{model}/1/model.plan"])
    for model, most in (("encoder", encoder_tokens), ("t5_encoder", MAX_SOURCE_TOKENS)):
        for low, _, high in engines[f"{model}/1/model.plan"]["inputs"]["input_ids"]["profiles"]:
            assert low[1] <= BUCKETS[0]
            assert high[1] == most
    prefill, step = (engines[f"t5_decoder/1/{name}.plan"] for name in ("prefill", "step"))
    cache, width = CACHE_TYPES[precision], sizes.head_width
    for i in range(sizes.decoder_layers):
        for part in ("key", "value"):
            cross = prefill["outputs"][f"present.{i}.encoder.{part}"]
            assert cross == {"dtype": cache, "shape": [-1, sizes.heads, -1, width]}
            assert step["inputs"][f"past_key_values.{i}.encoder.{part}"].items() >= cross.items()
            own = {"dtype": cache, "shape": [-1, sizes.heads, 520, width]}
            assert step["inputs"][f"past_key_values.{i}.decoder.{part}"].items() >= own.items()
            assert step["outputs"][f"present.{i}.decoder.{part}"] == own
    for name, most in (("columns", 520), ("candidates", 64)):
        size = step["inputs"][name]
        assert size["is_size"]
        assert [(profile[0], profile[2]) for profile in size["profiles"]] == [([1], [most])] * 2
    assert step["inputs"]["decoder_input_ids"]["profiles"][0] == [[1, 1], [1, 1], [16, 8]]
    longest = sizes.soft_prompt_tokens + MAX_SOURCE_TOKENS
    assert step["inputs"]["encoder_attention_mask"]["profiles"][1][2][1] >= longest
    assert {t["dtype"] for name, t in step["outputs"].items() if not name.startswith("present")} == {"int64", "float"}


def test_the_embedded_pair_is_exported_with_its_engines(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(export)
    output, adapter = tmp_path / "repository", Path(resolve(EMBEDDED)) / "adapter"
    arguments = ("--adapter", adapter, "--output", output, "--backend", "tensorrt", "--tensorrt-rtx", CAPABILITY)
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    assert "Triton does not load engines of TensorRT-RTX" in " ".join(done.stderr.split())
    manifest = json.loads(done.stdout.splitlines()[-1])
    generation = manifest["parity"]["generation"]
    assert generation["identical"] == generation["prompts"] == 64
    model = PromptOptimizer.from_pretrained(adapter)
    check_engines(output, manifest["tensorrt"], Sizes.of(model), model.encoder.max_tokens, "fp32")


@pytest.fixture(scope="module")
def true_sizes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PromptOptimizer, Path]]:
    """RoBERTa-base and T5-small with random weights, and their float32 graphs for TensorRT."""
    folder = tmp_path_factory.mktemp("true-sizes")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv(shapes.CACHE_VARIABLE, str(folder))
        models = shapes.prepare("t5-small", "lively", lambda text: None)
    model = PromptOptimizer.from_pretrained(models.adapter)
    for spec in graph_specs(model):
        write_graph(spec, folder / spec.path)
    for path, build in zip(DECODER_PATHS, (build_prefill, build_step), strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        onnx_ir.save(build(model.generator_model, FP32, "tensorrt"), folder / path)
    yield model, folder
    shutil.rmtree(folder)  # gigabytes


@pytest.mark.parametrize("precision", [FP32, FP16], ids=lambda p: p.name)
def test_the_true_sizes_are_built(
    true_sizes: tuple[PromptOptimizer, Path], tmp_path: Path, precision: Precision
) -> None:
    model, graphs = true_sizes
    if precision.products:
        narrow = tmp_path / "narrow"
        write_16_bit_graphs(model, precision, graphs, narrow, lambda text: None, "tensorrt")
        graphs = narrow
    repository = tmp_path / "repository"
    fill_templates(template_values(model, "v", "tensorrt", "gpu"), repository, "tensorrt")
    facts = write_engines(open_tensorrt_rtx(CAPABILITY), model, graphs, repository, lambda text: None)
    check_engines(repository, facts, Sizes.of(model), 512, precision.name)
    shutil.rmtree(tmp_path)
