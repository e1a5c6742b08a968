"""Quantized repositories: what they lose is measured right, is in the manifest, and too much is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir
import pytest
import torch

from neuro_latent_core.form import Form
from neuro_latent_export import agreement, parity
from neuro_latent_export.agreement import (
    Agreement,
    AgreementError,
    CheckData,
    check,
    common_share,
    compare,
    greedy_references,
    read_check_data,
)
from neuro_latent_export.backends import BackendName, adapter_path
from neuro_latent_export.parity import Sessions
from neuro_latent_export.precision import BF16, FP16, FP32, INT4, INT8, MIN_ROWS, PRECISIONS, Precision
from neuro_latent_export.repository import MOVE_PATH, export_repository
from neuro_latent_trainer.data import DataError, Record
from neuro_latent_trainer.model import PromptOptimizer
from tests import tiny
from tests.conftest import Pair

pytestmark = pytest.mark.slow

GRAPHS = (
    "encoder/1/model.onnx",
    "projector/1/adapters/default/model.onnx",
    "t5_encoder/1/model.onnx",
    "t5_decoder/1/prefill.onnx",
    "t5_decoder/1/step.onnx",
)
GOOD = Agreement("some.jsonl", 40, 900, 3.0, 3.001, 0.99, 48, 0.9, 0.95)


def lenient(precision: Precision) -> Precision:
    """Random models have no clear next token, so they lose more than any that was trained."""
    return replace(precision, max_cross_entropy_change=1.0, min_next_token_agreement=0.0)


@pytest.fixture(scope="module")
def data() -> CheckData:
    return read_check_data(rows=MIN_ROWS)


@pytest.fixture(scope="module")
def sessions(repository: Path) -> Sessions:
    return {path: parity.open_session(repository / path) for path in GRAPHS}


@pytest.mark.parametrize(
    ("a", "b", "share"),
    [
        ([], [], 1.0),
        ([5], [], 0.0),
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        ([1, 2, 3, 4], [1, 2, 9, 4], 0.5),
        ([1, 2], [1, 2, 3, 4], 0.5),
        ([9, 2, 3], [1, 2, 3], 0.0),
    ],
)
def test_the_common_share_ends_at_the_first_difference(a: list[int], b: list[int], share: float) -> None:
    assert common_share(a, b) == common_share(b, a) == share


def test_float32_agrees_with_itself_and_its_cross_entropy_is_that_of_torch(
    optimizer: PromptOptimizer, sessions: Sessions, data: CheckData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "MAX_LENGTH", 6)
    monkeypatch.setattr(agreement, "MAX_REFERENCE_TOKENS", 30)
    steps: list[tuple[int, int]] = []
    found = compare(optimizer, sessions, sessions, data, lambda done, rows: steps.append((done, rows)))
    assert found.cross_entropy_change == 0
    assert found.next_token_agreement == found.greedy_identical == found.greedy_token_agreement == 1
    assert (found.rows, found.data, found.greedy_max_length) == (MIN_ROWS, "neuro-latent-sample", 6)
    assert steps[-1] == (MIN_ROWS, MIN_ROWS)

    loss = tokens = 0.0
    for record in data.records:  # row by row, where nothing is padded
        labels = torch.tensor([optimizer.generator.text_ids([record.enhanced_prompt or ""])[0][:30]])
        ids = optimizer.generator.tokenize([record.raw_prompt], 512)
        with torch.no_grad():
            hidden, mask = optimizer.encode(
                optimizer.embed([record.raw_prompt]), ids["input_ids"], ids["attention_mask"]
            )
            logits = optimizer.generator.logits(hidden, mask, labels)[0]
        loss += float(torch.nn.functional.cross_entropy(logits, labels[0], reduction="sum"))
        tokens += labels.shape[1]
    assert found.reference_tokens == tokens
    assert found.cross_entropy_fp32 == pytest.approx(loss / tokens, rel=1e-5)


def test_rewrites_cannot_judge_an_adapter_of_complements(pair: Pair, tmp_path: Path, sessions: Sessions) -> None:
    folder = tiny.write_adapter(tmp_path / "adapter", pair.encoder, pair.generator, form="complement")
    rewrites = tuple(Record(f"prompt {i}", f"text {i}", (), "", "", i) for i in range(MIN_ROWS))
    with pytest.raises(AgreementError, match="pairs has 0 rows for an adapter of the complement form, of 32"):
        compare(PromptOptimizer.from_pretrained(folder), sessions, sessions, CheckData("pairs", rewrites))


def test_an_adapter_of_complements_is_judged_by_complements(
    pair: Pair, tmp_path: Path, sessions: Sessions, data: CheckData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "MAX_LENGTH", 2)
    folder = tiny.write_adapter(tmp_path / "adapter", pair.encoder, pair.generator, form="complement")
    model = PromptOptimizer.from_pretrained(folder)
    found = compare(model, sessions, sessions, data)
    complements = model.generator.text_ids([record.target("complement") or "" for record in data.records])
    assert found.reference_tokens == sum(min(len(ids), 128) for ids in complements)


@pytest.mark.parametrize("form", ["rewrite", "complement"])
def test_without_check_data_a_precision_is_judged_by_what_float32_writes(
    pair: Pair, tmp_path: Path, sessions: Sessions, data: CheckData, monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    monkeypatch.setattr(parity, "MAX_LENGTH", 6)
    folder = tiny.write_adapter(tmp_path / "adapter", pair.encoder, pair.generator, form=form)
    model = PromptOptimizer.from_pretrained(folder)
    assert not data.of_the_model
    found = greedy_references(model, sessions, data)
    assert (found.name, found.of_the_model) == (data.name, True)
    for record, sample in zip(found.records, data.records, strict=True):
        feeds = parity.token_feeds(model, [sample.raw_prompt])
        (ids,) = parity.greedy(model, sessions, feeds)
        assert record.raw_prompt == sample.raw_prompt
        assert record.target(form) == model.generator.decode(ids).strip()
    assert compare(model, sessions, sessions, found).rows == MIN_ROWS


def test_check_data_of_ones_own_are_judged_by_their_texts(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"raw_prompt": "a", "enhanced_prompt": "b"}\n' * MIN_ROWS)
    assert read_check_data(path).of_the_model


def test_check_data_of_which_much_is_lost_stop_the_export(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"raw_prompt": "a", "enhanced_prompt": "b"}\n' * MIN_ROWS + "{\n" * 4)
    with pytest.raises(DataError, match="4 of 36 rows are bad"):
        read_check_data(path)


def test_check_data_is_spread_over_its_file_without_rows_that_have_no_reference(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows: list[dict[str, Any]] = [{"raw": f"prompt {i}", "better": f"text {i}"} for i in range(80)]
    rows[0] = {"raw": "only a failed one", "failed_prompts": ["x"]}
    rows[1] = {"better": "no prompt"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told: list[str] = []
    found = read_check_data(path, {"raw": "raw", "enhanced": "better"}, 39, told.append)
    assert found.name == "pairs.jsonl"
    assert [r.raw_prompt for r in found.records] == [f"prompt {i}" for i in range(2, 80, 2)]
    assert told == ["1 bad row:\npairs.jsonl:2: raw is missing"]
    assert len(read_check_data(path, {"raw": "raw", "enhanced": "better"}, 500).records) == 78


def test_too_few_rows_and_an_unreadable_file_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    path.write_text('{"raw_prompt": "a", "enhanced_prompt": "b"}\n' * 5)
    with pytest.raises(
        ValueError, match=r"few\.jsonl has 5 rows with an enhanced prompt; a precision is judged on at least 32"
    ):
        read_check_data(path)
    with pytest.raises(ValueError, match="at least 32 rows, not on 31"):
        read_check_data(rows=31)
    with pytest.raises(DataError, match="does not exist"):
        read_check_data(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize(
    ("precision", "others"),
    [
        (INT8, "--precision fp32"),
        (INT4, "--precision int8 or --precision fp32"),
        (FP16, "--precision fp32"),
        (BF16, "--precision fp16 or --precision fp32"),
    ],
)
def test_a_good_agreement_passes_and_a_bad_one_names_figure_bound_and_way_out(
    precision: Precision, others: str
) -> None:
    check(GOOD, precision)
    with pytest.raises(
        AgreementError,
        match=rf"^{precision.name} loses 0\.5000 nats a token of cross-entropy; allowed are 0\.0\d+ "
        rf"\(on 40 rows of some\.jsonl\)\. Nothing was written; export with {others}$",
    ):
        check(replace(GOOD, cross_entropy=3.5), precision)
    with pytest.raises(AgreementError, match=r"the same next token before 40\.00% of the tokens; allowed are \d+\.00%"):
        check(replace(GOOD, next_token_agreement=0.6), precision)


@pytest.mark.parametrize("figure", ["cross_entropy", "next_token_agreement"])
def test_no_number_is_no_agreement(figure: str) -> None:
    with pytest.raises(AgreementError):
        check(replace(GOOD, **{figure: float("nan")}), INT4)


def test_every_precision_has_bounds_and_float32_may_lose_nothing() -> None:
    assert FP32.bounds() == {"max_cross_entropy_change": 0.0, "min_next_token_agreement": 1.0}
    for precision in PRECISIONS.values():
        assert 0 <= precision.max_cross_entropy_change < 0.1
        assert 0.8 < precision.min_next_token_agreement <= 1


def ops(path: Path) -> set[str]:
    return {node.op_type for node in onnx_ir.load(path).graph}


STEP_PRODUCTS = {"int8": "MatMulIntegerToFloat", "int4": "MatMulNBits", "fp16": "MatMul", "bf16": "MatMul"}


@pytest.mark.parametrize("precision", [INT8, INT4, FP16, BF16], ids=lambda p: p.name)
def test_a_repository_of_less_precision_says_what_it_loses(
    adapter: Path, traced: None, data: CheckData, tmp_path: Path, repository: Path, precision: Precision
) -> None:
    output, told = tmp_path / "repository", list[str]()
    backend: BackendName = "onnxruntime" if precision is BF16 else "python"
    projector = str(adapter_path(backend) / "model.onnx")
    manifest = export_repository(
        adapter,
        output,
        precision=lenient(precision),
        backend=backend,
        device="gpu" if precision is BF16 else "cpu",
        check_data=data,
        progress=told.append,
    )
    assert manifest == json.loads((output / "manifest.json").read_text())
    assert manifest["precision"] == precision.name
    assert manifest["model_version"].endswith(f"-{precision.name}")
    found = manifest["agreement"]
    assert found["bounds"] == {"max_cross_entropy_change": 1.0, "min_next_token_agreement": 0.0}
    assert (found["data"], found["rows"]) == ("neuro-latent-sample", MIN_ROWS)
    assert found["cross_entropy_change"] == found["cross_entropy"] - found["cross_entropy_fp32"] != 0
    assert 0 < found["next_token_agreement"] <= 1
    # The float32 graphs were compared with torch all the same.
    assert len(manifest["parity"]["graphs"]) == 4
    assert manifest["parity"]["generation"]["identical"] == 12
    assert told[-1] == f"comparing {precision.name} with float32: {MIN_ROWS} of {MIN_ROWS} rows"
    assert {str(p.relative_to(output)) for p in output.rglob("*.onnx")} == {*GRAPHS, MOVE_PATH} - {GRAPHS[1]} | {
        projector
    }
    assert {p.name for p in output.iterdir()} == {p.name for p in repository.iterdir()}
    assert ("MatMul" if precision.products else "MatMulIntegerToFloat") in ops(output / GRAPHS[0])
    assert STEP_PRODUCTS[precision.name] in ops(output / GRAPHS[4])
    assert (output / projector).read_bytes() == (repository / GRAPHS[1]).read_bytes()


def test_a_model_that_does_not_bear_its_precision_is_refused_and_the_old_repository_stays(
    adapter: Path, traced: None, data: CheckData, tmp_path: Path
) -> None:
    output = tmp_path / "repository"
    output.mkdir()
    (output / "manifest.json").write_text('{"model_version": "good"}')
    with pytest.raises(AgreementError, match="int8 loses the same next token"):
        export_repository(adapter, output, precision=INT8, check_data=data)
    assert "good" in (output / "manifest.json").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["repository"]
