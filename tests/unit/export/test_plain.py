"""A fine-tuned T5 exported alone writes what Hugging Face writes, in every precision's file layout; bad folders."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import torch
from google.protobuf import text_format
from transformers import AutoTokenizer, T5ForConditionalGeneration
from tritonclient.grpc import model_config_pb2 as schema

from neuro_latent_benchmarks.pipeline import Pipeline
from neuro_latent_export import parity
from neuro_latent_export.errors import ExportError
from neuro_latent_export.graph_files import write_fp32_graphs
from neuro_latent_export.plain import PlainWriter
from neuro_latent_export.precision import PRECISIONS
from neuro_latent_export.repository import export_repository
from neuro_latent_export.templates import fill_templates, template_values
from neuro_latent_serving.doctor.findings import Finding
from neuro_latent_serving.doctor.repository_checks import check_files
from neuro_latent_serving.repository.check import check_repository
from neuro_latent_serving.triton.graph_config import differences
from neuro_latent_trainer.backbones import BackboneError
from neuro_latent_trainer.sample import sample_rows
from tests import tiny
from tests.exports import copy_traced

TOKENS = 32
PROMPTS = [row["raw_prompt"] for row in sample_rows()[:8]]
MODELS = ["neuro_latent_optimizer", "neuro_latent_optimizer_stream", "t5_decoder", "t5_decoder_unary", "t5_encoder"]


@torch.no_grad()
def by_hugging_face(generator: Path, prefix: str, prompts: list[str], **options: Any) -> list[str]:
    """What a model card's own lines write: the prefix and the prompt tokenized together, then ``generate``."""
    tokenizer, t5 = AutoTokenizer.from_pretrained(generator), T5ForConditionalGeneration.from_pretrained(generator)
    texts = []
    for prompt in prompts:
        ids = tokenizer(prefix + prompt, return_tensors="pt").input_ids
        (row,) = t5.generate(ids, max_new_tokens=TOKENS, use_cache=False, do_sample=False, **options)
        texts.append(tokenizer.decode(row, skip_special_tokens=True).strip())
    return texts


def test_a_gated_t5_with_a_head_of_its_own_writes_what_hugging_face_writes(
    plain_repository: Path, gated_pair: Any
) -> None:
    t5 = T5ForConditionalGeneration.from_pretrained(gated_pair.generator)
    assert not torch.equal(t5.lm_head.weight, t5.shared.weight)
    with Pipeline(plain_repository, threads=1) as pipeline:
        written = [pipeline.answer(prompt, TOKENS).text for prompt in PROMPTS]
    assert written == by_hugging_face(gated_pair.generator, tiny.PREFIX, PROMPTS)
    assert written != by_hugging_face(gated_pair.generator, "", PROMPTS)


def test_a_t5_with_relu_and_a_tied_head_writes_what_hugging_face_writes(pair: Any, tmp_path: Path) -> None:
    writer = PlainWriter.load(str(pair.generator), "")
    sessions, compared = write_fp32_graphs(writer, tmp_path, lambda text: None)
    assert compared["generation"]["identical"] == parity.PROMPTS
    rows = parity.greedy(writer, sessions, parity.token_feeds(writer, PROMPTS))
    want = by_hugging_face(pair.generator, "", PROMPTS)
    assert [writer.generator.decode(row[:TOKENS]).strip() for row in rows] == want


def test_the_repository_has_no_adapter_and_is_whole(plain_repository: Path) -> None:
    manifest = json.loads((plain_repository / "manifest.json").read_text())
    assert manifest["adapter"] is None
    assert manifest["backbones"]["generator"]["prefix"] == tiny.PREFIX
    assert check_repository(plain_repository, verify=True).adapter is None
    assert not [found for found in check_files(plain_repository, verify=True) if isinstance(found, Finding)]
    assert {path.parent.name for path in plain_repository.glob("*/config.pbtxt")} == {*MODELS, "tokenizer", "feedback"}
    configs = {
        path.parent.name: text_format.Parse(path.read_text(), schema.ModelConfig())
        for path in plain_repository.glob("*/config.pbtxt")
    }
    assert configs["tokenizer"].parameters["prefix"].string_value == tiny.PREFIX
    assert configs["t5_decoder"].parameters["guard"].string_value == "false"
    steps = [step.model_name for step in configs["neuro_latent_optimizer"].ensemble_scheduling.step]
    assert steps == ["tokenizer", "t5_encoder", "t5_decoder_unary"]


def test_tritons_own_backend_is_told_of_the_graphs_inputs(
    plain_repository: Path, gated_pair: Any, tmp_path: Path
) -> None:
    writer = PlainWriter.load(str(gated_pair.generator), tiny.PREFIX)
    fill_templates(template_values(writer, "v", "onnxruntime"), tmp_path, "onnxruntime")
    config = text_format.Parse((tmp_path / "t5_encoder" / "config.pbtxt").read_text(), schema.ModelConfig())
    session = ort.InferenceSession(str(plain_repository / "t5_encoder" / "1" / "model.onnx"))
    as_json = {
        "max_batch_size": config.max_batch_size,
        **{
            kind: [
                {"name": t.name, "data_type": schema.DataType.Name(t.data_type), "dims": [*t.dims]}
                for t in getattr(config, kind)
            ]
            for kind in ("input", "output")
        },
    }
    assert not [*differences(as_json, session.get_inputs(), session.get_outputs())]


@pytest.mark.parametrize("precision", ["int8", "int4", "fp16"])
def test_other_precisions_are_compared_with_float32(
    plain_repository: Path, gated_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    copy_traced(monkeypatch, plain_repository)
    lenient = replace(PRECISIONS[precision], max_cross_entropy_change=9.0, min_next_token_agreement=0.0)
    generator = str(gated_pair.generator)
    manifest = export_repository(None, tmp_path / "repository", generator=generator, precision=lenient)
    assert manifest["model_version"].endswith(f"-{precision}")
    assert manifest["agreement"]["rows"] >= 32
    assert manifest["agreement"]["next_token_agreement"] > 0.2  # random weights bear rounding badly; chance is 1 in 600
    with Pipeline(tmp_path / "repository", threads=1) as pipeline:
        assert pipeline.answer(PROMPTS[0], 8).text


def test_what_the_folder_asks_of_a_decoder_is_told_and_not_done(gated_pair: Any, tmp_path: Path) -> None:
    generator = Path(shutil.copytree(gated_pair.generator, tmp_path / "generator"))
    file = generator / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_beams": 4, "repetition_penalty": 1.2}))
    said: list[str] = []
    writer = PlainWriter.load(str(generator), "", said.append)
    assert "num_beams=4, repetition_penalty=1.2" in said[0]
    same = PlainWriter.load(str(gated_pair.generator), "")
    assert writer.generate_ids(PROMPTS[:2], 8) == same.generate_ids(PROMPTS[:2], 8)


def without_tokenizer(generator: Path) -> None:
    (generator / "tokenizer.json").unlink()


def another_model(generator: Path) -> None:
    file = generator / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "mt5"}))


@pytest.mark.parametrize(
    ("spoil", "prefix", "message"),
    [
        (without_tokenizer, "", "has no tokenizer: no tokenizer.json and no spiece.model in its folder"),
        (another_model, "", "is a 'mt5'; only T5 models can be used"),
        (lambda generator: None, "detail " * 400, r"--prefix has \d+ tokens; .* the prefix may have 255 of them"),
        (lambda generator: None, "a\0b", "--prefix has a control character"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_written(
    gated_pair: Any, tmp_path: Path, spoil: Callable[[Path], None], prefix: str, message: str
) -> None:
    generator = Path(shutil.copytree(gated_pair.generator, tmp_path / "generator"))
    spoil(generator)
    with pytest.raises((BackboneError, ExportError), match=message):
        export_repository(None, tmp_path / "repository", generator=str(generator), prefix=prefix)
    assert not (tmp_path / "repository").exists()
