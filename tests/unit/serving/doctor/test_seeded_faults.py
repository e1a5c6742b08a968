"""One repository a fault: each is found, and nothing else is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuro_latent_core.protocol import STREAM_MODEL, UNARY_MODEL
from neuro_latent_serving.adapters.store import AdapterStore
from neuro_latent_serving.doctor.catalogue import KINDS, Severity
from tests.unit.serving.doctor.conftest import TENSORRT, Examine
from tests.unit.serving.doctor.spoil import (
    ENCODER,
    MADE_BY,
    T5_ENCODER,
    Fault,
    both,
    copy,
    drop,
    edit,
    exported,
    flip,
    foreign_adapter,
    manifest,
    record,
    remove,
    several_adapters,
    write,
)

TOKENIZERS = "tokenizer/1/encoder_tokenizer.json", "t5_decoder/1/generator_tokenizer.json"
SEED = '{ name: "seed", data_type: TYPE_INT64, dims: [ 1 ], optional: true }'
MAPPED_TWICE = both(
    edit(UNARY_MODEL, 'value: "adapter_name" }', 'value: "raw_prompt" }', count=2),
    edit(UNARY_MODEL, 'key: "adapter_name", value: "raw_prompt"', 'key: "adapter_name", value: "t5_ids"'),
)


MODELS = sorted(path.name for path in (Path(__file__).parents[4] / "model_repository").iterdir() if path.is_dir())


def set_parameter(model: str, name: str, old: str, new: str) -> Fault:
    text = f'key: "{name}", value {{ string_value: "%s" }}'
    return edit(model, text % old, text % new)


FAULTS: list[tuple[str, str, Fault]] = [
    # configurations
    ("config-unreadable", "not a message", write("encoder/config.pbtxt", b"name: [")),
    ("config-unreadable", "a field that Triton does not know", edit("feedback", "max_batch_size", "max_batch_sise")),
    ("config-unreadable", "no text", write("tokenizer/config.pbtxt", b"\xff\xfe\x00")),
    ("config-name", "a folder was renamed", edit("feedback", 'name: "feedback"', 'name: "opinions"')),
    ("backend-implicit", "none", drop("feedback", r'backend: "python"\n')),
    ("config-backend", "one that nothing here has", edit("feedback", '"python"', '"pytorch"')),
    ("config-batch", "none", edit("feedback", "max_batch_size: 16", "max_batch_size: 0")),
    ("config-tensors", "no shape", edit("feedback", "TYPE_BOOL, dims: [ 1 ]", "TYPE_BOOL")),
    ("config-tensors", "twice", edit("t5_decoder", '{ name: "cancel"', f'{SEED},\n  {{ name: "cancel"')),
    (
        "contract-broken",
        "an output less",
        both(*(drop(UNARY_MODEL, rf"\n[^\n]*{text}[^\n]*") for text in ('name: "score"', 'key: "score"'))),
    ),
    ("contract-broken", "another type", edit("feedback", "TYPE_INT32", "TYPE_INT64")),
    ("contract-broken", "must be given", edit("feedback", ", optional: true", "")),
    ("decoupled-wrong", "the stream", edit("t5_decoder", "decoupled: true", "decoupled: false")),
    ("instances-implicit", "no group", drop("encoder", r"instance_group[^\n]*")),
    ("instances-implicit", "no kind", edit("encoder", ", kind: KIND_CPU", "")),
    ("versions-implicit", "no policy", drop(STREAM_MODEL, r"version_policy[^\n]*")),
    ("queue-unbounded", "no size", edit("encoder", ", max_queue_size: 256", "")),
    ("queue-delays", "delay", edit("encoder", "timeout_action: REJECT", "timeout_action: DELAY")),
    ("batching-off", "no batcher", drop("encoder", r"dynamic_batching \{.*?\n\}")),
    ("model-missing", "no feedback", remove("feedback")),
    ("repository-empty", "no model", both(*map(remove, MODELS))),
    # parameters
    ("parameter-missing", "no slots", drop("t5_decoder", r'parameters \{ key: "slots"[^\n]*')),
    ("parameter-invalid", "no slot", set_parameter("t5_decoder", "slots", "16", "0")),
    ("parameter-invalid", "no device", set_parameter("t5_decoder", "device", "cpu", "cuda")),
    ("parameter-invalid", "no switch", set_parameter("t5_decoder", "speculation", "true", "yes")),
    ("threads-exceed-cores", "many", set_parameter("encoder", "threads", "0", "4096")),
    ("threads-exceed-cores", "instances", edit("encoder", "count: 1", "count: 2")),
    ("slots-few", "two", set_parameter("t5_decoder", "slots", "16", "2")),
    # ensembles
    ("step-model-missing", "a wrong name", edit(UNARY_MODEL, '"t5_encoder"', '"t5_encodr"')),
    ("step-version-missing", "version 7", edit(STREAM_MODEL, "model_version: -1", "model_version: 7")),
    ("step-input-unmapped", "no mask", drop(UNARY_MODEL, r'input_map \{ key: "t5_mask"[^\n]*')),
    (
        "step-tensor-unknown",
        "a wrong name",
        edit(UNARY_MODEL, 'key: "max_length", value: "max_length"', 'key: "max_len", value: "max_length"'),
    ),
    (
        "tensor-type-differs",
        "a number",
        edit("t5_decoder_unary", MADE_BY, MADE_BY.replace("TYPE_STRING", "TYPE_INT32")),
    ),
    ("tensor-shape-differs", "two texts", edit("t5_decoder_unary", MADE_BY, MADE_BY.replace("1", "2"))),
    (
        "tensor-unmade tensor-unused",
        "a wrong name",
        edit(STREAM_MODEL, 'key: "attention_mask", value: "encoder_mask"', 'key: "attention_mask", value: "mask"'),
    ),
    (
        "tensor-unmade tensor-unused",
        "a circle",
        edit(STREAM_MODEL, 'key: "adapter", value: "adapter"', 'key: "adapter", value: "made_by"'),
    ),
    ("tensor-unused", "of a step", drop(STREAM_MODEL, r'input_map \{ key: "truncated"[^\n]*')),
    ("tensor-made-twice", "t5_ids", MAPPED_TWICE),
    (
        "optional-into-required tensor-unused",
        "the adapter",
        edit(UNARY_MODEL, 'key: "adapter", value: "adapter_name"', 'key: "adapter", value: "adapter"'),
    ),
    ("batch-size-small", "8", edit("encoder", "max_batch_size: 16", "max_batch_size: 8")),
    ("batch-size-large", "32", edit("encoder", "max_batch_size: 16", "max_batch_size: 32")),
    # files
    ("manifest-missing", "none", remove("manifest.json")),
    ("manifest-unreadable", "half of it", write("manifest.json", b'{"artifacts"')),
    ("manifest-differs", "another backend", manifest(backend="onnxruntime")),
    ("version-missing", "of an ensemble", remove(f"{UNARY_MODEL}/1")),
    ("version-unknown", "a second one", copy("encoder/1", "encoder/2")),
    ("file-missing", "a graph", remove(ENCODER)),
    ("file-missing", "a program", remove("t5_decoder_unary/1/model.py")),
    ("file-changed", "other bytes of the same size", flip("t5_decoder/1/step.onnx")),
    ("file-changed", "cut", write(TOKENIZERS[0], b"{}")),
    ("file-outside", "above", manifest(artifacts={"../secret": {"sha256": "", "bytes": 0}})),
    ("file-unknown", "left over", write("encoder/1/model.onnx.bak", b"")),
    # adapters
    ("adapters-incomplete", "no record", exported("projector/1/adapters/default/adapter.json", b"{}")),
    ("adapter-misfits", "another T5", record(generator="0" * 64)),
    ("adapter-misfits", "another width", record(generator_width=7)),
    ("adapters-setting", "one", lambda repository: several_adapters(repository, "false")),
    # graphs and tokens
    ("graph-unreadable", "no graph", exported(ENCODER, b"no graph")),
    ("graph-differs", "another graph", exported(ENCODER, like=T5_ENCODER)),
    ("graph-differs", "of an adapter", foreign_adapter),
    ("graph-differs step-tensor-unknown", "no name", edit("encoder", 'name: "raw_embedding", ', "")),
    ("decoder-graphs-differ", "another graph", exported("t5_decoder/1/prefill.onnx", like=ENCODER)),
    ("tokenizer-unreadable", "no tokenizer", exported(TOKENIZERS[0], b"{}")),
    ("tokenizer-differs", "that of the encoder", exported(TOKENIZERS[1], like=TOKENIZERS[0])),
    ("token-unknown", "no such end", set_parameter("t5_decoder", "eos_id", "1", "999999")),
    # device
    ("precision-unsupported", "bf16", both(manifest(precision="bf16"), record(precision="bf16"))),
    ("precision-slow", "fp16", both(manifest(precision="fp16"), record(precision="fp16"))),
]


def test_an_export_has_no_fault(repository: Path, examine_repository: Examine) -> None:
    assert examine_repository(repository) == []


def test_adapters_that_were_added_are_no_fault(spoilt: Path, examine_repository: Examine) -> None:
    store = AdapterStore(spoilt)
    for name in ("team", "default", "team", "default", "other"):  # so many that the first versions are gone
        store.add(name, store.newest().folder_of("default"))
    assert not (spoilt / "projector" / "1").exists()
    assert examine_repository(spoilt) == []
    remove(f"projector/{store.newest().number}/adapters/other/model.onnx")(spoilt)
    assert {f.id for f in examine_repository(spoilt)} == {"adapters-incomplete"}


@pytest.mark.parametrize(("ids", "what", "fault"), FAULTS, ids=[f"{ids}: {what}" for ids, what, _ in FAULTS])
def test_a_fault_is_found_and_nothing_else(
    ids: str, what: str, fault: Fault, spoilt: Path, examine_repository: Examine
) -> None:
    fault(spoilt)
    findings, expected = examine_repository(spoilt), set(ids.split())
    assert {f.id for f in findings if f.severity > Severity.NOTE or f.id in expected} == expected
    assert all(f.what and f.where and f.mend for f in findings)


LACKING = {"gpu-missing", "gpu-driver-missing", "engines-for-checks"}
"""What is found of engines that were built for checks, on a machine without a GPU."""


def test_an_export_for_the_onnxruntime_backend_has_no_fault(
    onnxruntime_repository: Path, examine_repository: Examine
) -> None:
    assert examine_repository(onnxruntime_repository) == []


def test_an_export_for_the_tensorrt_backend_wants_its_gpu_and_has_no_fault(
    tensorrt_repository: Path, examine_repository: Examine
) -> None:
    assert {f.id for f in examine_repository(tensorrt_repository)} == LACKING


def test_a_graph_for_the_onnxruntime_backend_is_judged_by_its_rules(
    onnxruntime_repository: Path, tmp_path: Path, examine_repository: Examine
) -> None:
    spoilt = Path(shutil.copytree(onnxruntime_repository, tmp_path / "spoilt"))
    edit("encoder", "dims: [ -1 ]", "dims: [ 7 ], allow_ragged_batch: true")(spoilt)
    edit("encoder", "dims: [ -1 ]", "dims: [ 7 ]")(spoilt)
    told = [f.what for f in examine_repository(spoilt) if f.id == "graph-differs"]
    assert [text.split()[1] for text in told] == ["input_ids:", "input_ids:", "attention_mask:"]


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_repositories_of_other_backends_have_faults_of_their_own(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path, examine_repository: Examine
) -> None:
    spoilt = Path(shutil.copytree(request.getfixturevalue(f"{backend}_repository"), tmp_path / "spoilt"))
    remove(f"projector/1/model.{'onnx' if backend == 'onnxruntime' else 'plan'}")(spoilt)
    several_adapters(spoilt, "true")
    policy = "default_queue_policy { timeout_action: REJECT, max_queue_size: 256 }"
    edit("encoder", "dynamic_batching {", f"dynamic_batching {{ {policy}")(spoilt)
    drop("t5_encoder", r"model_warmup.*\n\]")(spoilt)
    expected = {"file-missing", "adapters-incomplete", "adapters-setting", "queue-stalls", "warmup-missing"}
    assert {f.id for f in examine_repository(spoilt)} - LACKING == expected


def test_engines_are_judged_by_what_export_says_of_them(
    tensorrt_repository: Path, tmp_path: Path, examine_repository: Examine, nvidia_smi: Callable[[str], None]
) -> None:
    spoilt = Path(shutil.copytree(tensorrt_repository, tmp_path / "spoilt"))
    nvidia_smi("NVIDIA L4, 580.95.05, 8.9, 23034 MiB")
    built = json.loads((spoilt / "manifest.json").read_text())["tensorrt"]
    built |= {"library": "TensorRT", "version": TENSORRT}

    def ids_with(**facts: Any) -> set[str]:
        manifest(tensorrt=built | facts)(spoilt)
        return {f.id for f in examine_repository(spoilt)}

    assert ids_with() == set()
    assert ids_with(compute_capability="9.0") == {"engines-misfit"}
    assert ids_with(version="10.15.1.29") == {"engines-version"}
    assert ids_with(library="TensorRT-RTX") == {"engines-for-checks"}
    engine = built["engines"]["encoder/1/model.plan"]
    output, ids = engine["outputs"]["raw_embedding"], engine["inputs"]["input_ids"]
    for tensor, change in ((output, {"dtype": "half"}), (output, {"shape": [-1, 7]}), (ids, {"profiles": []})):
        before = dict(tensor)
        tensor.update(change)
        assert ids_with() == {"graph-differs"}
        tensor.update(before)
    set_parameter("t5_decoder", "slots", "16", "17")(spoilt)
    assert ids_with() == {"graph-differs"}
    set_parameter("t5_decoder", "slots", "17", "16")(spoilt)
    for package in ("cuda", "tensorrt"):
        shutil.rmtree(tmp_path / "site" / package)
        assert ids_with() == {"engine-runtime-missing"}


def test_whatever_file_is_lost_or_spoilt_no_check_fails(
    repository: Path, spoilt: Path, examine_repository: Examine
) -> None:
    files = (path for path in spoilt.rglob("*") if path.is_file() and path.suffix != ".pyc")  # a server leaves those
    for file in sorted(files):
        content = file.read_bytes()
        for spoil in (file.unlink, lambda file=file: file.write_bytes(b"{\x00}")):
            spoil()
            found = {f.id for f in examine_repository(spoilt)}
            assert "check-failed" not in found
            assert found or file.name == "model.py", file
        file.write_bytes(content)


def test_the_page_lists_every_finding() -> None:
    page = (Path(__file__).parents[4] / "docs" / "doctor.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{id_}` | {severity.name.lower()} | {meaning} |" for id_, (severity, meaning) in KINDS.items()]
