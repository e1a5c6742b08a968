"""Training examples from feedback: every rule from a row to a record, and which records are trained on and held out."""

import json
from pathlib import Path
from typing import Any

import pytest

from neuro_latent_core.form import Form
from neuro_latent_core.secrets import has_secret
from neuro_latent_trainer.data import DataError, Record
from neuro_latent_trainer.retraining.feedback import RatedAnswer, read_feedback
from neuro_latent_trainer.retraining.feedback_examples import EDIT, KNOWN, LIKED, FeedbackExamples, learn
from neuro_latent_trainer.retraining.retrain_config import Margins, RetrainConfig
from neuro_latent_trainer.retraining.training_mix import TrainingMix, mix
from tests.cases import case

RAW, ANSWER, EDITED = "name rivers", "List rivers.", "List the rivers of France with their lengths."


def rated(number: int = 0, rating: int = -1, **fields: str) -> RatedAnswer:
    """By nobody in particular, each of a request of its own."""
    texts = {"raw_prompt": RAW, "enhanced_prompt": ANSWER}
    return RatedAnswer(**{"request_id": f"r{number}", **texts, **fields}, rating=rating)


def taught(*ratings: RatedAnswer, known: str | None = None, form: Form = "rewrite") -> FeedbackExamples:
    """``known``: an enhanced prompt of the original data."""
    original = {} if known is None else {RAW: Record(RAW, known, (), "", "", 1)}
    return learn(ratings, original, form, 4000)


def left_out(examples: FeedbackExamples) -> dict[str, int]:
    return {name: count for name, count in examples.left_out.items() if count}


def only(examples: FeedbackExamples) -> tuple[str, str | None, tuple[str, ...], str]:
    (record,) = examples.records
    return record.raw_prompt, record.enhanced_prompt, record.failed_prompts, record.source


# A row -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rating", [1, -1])
def test_an_edit_is_a_pair_and_its_answer_a_failure_whatever_the_thumb(rating: int) -> None:
    examples = taught(rated(rating=rating, edited_prompt=EDITED))
    assert only(examples) == (RAW, EDITED, (ANSWER,), EDIT)
    assert (examples.rows, examples.failures, left_out(examples)) == (1, 1, {})


def test_a_thumb_up_is_a_success() -> None:
    assert only(taught(rated(rating=1))) == (RAW, ANSWER, (), LIKED)


def test_a_thumb_down_joins_the_successes_of_its_prompt() -> None:
    examples = taught(rated(0, rating=1), rated(1, enhanced_prompt="Rivers?", raw_prompt=" NAME  rivers "))
    assert only(examples)[1:] == (ANSWER, ("Rivers?",), LIKED)


def test_a_thumb_down_alone_takes_the_success_of_the_original_data() -> None:
    assert only(taught(rated(), known=EDITED))[1:] == (EDITED, (ANSWER,), KNOWN)


@pytest.mark.parametrize("known", [None, ANSWER])
def test_a_thumb_down_without_any_success_teaches_nothing_and_is_counted(known: str | None) -> None:
    examples = taught(rated(), known=known)
    assert not examples.records
    assert left_out(examples) == {"no success": 1}


def test_an_empty_answer_is_no_failed_prompt() -> None:
    assert only(taught(rated(enhanced_prompt="", edited_prompt=EDITED)))[2] == ()


# Several ratings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [({"user": "ann", "number": 1}, {"user": "ann", "number": 2}), ({"number": 1}, {"number": 1})],
)
def test_the_latest_rating_of_one_person_counts(first: Any, second: Any) -> None:
    examples = taught(rated(**first), rated(**second, rating=1))
    assert only(examples)[1:] == (ANSWER, (), LIKED)
    assert left_out(examples) == {"superseded": 1}


def test_ratings_of_different_people_that_disagree_cancel() -> None:
    examples = taught(rated(1, rating=1), rated(2, rating=-1))
    assert not examples.records
    assert left_out(examples) == {"disputed": 1}


def test_a_majority_decides() -> None:
    assert only(taught(rated(1, rating=1), rated(2, rating=-1), rated(3, rating=1)))[1] == ANSWER


def test_a_disputed_answer_does_not_keep_an_edit_from_teaching() -> None:
    examples = taught(rated(1, rating=1), rated(2, edited_prompt=EDITED))
    assert only(examples)[1:] == (EDITED, (), EDIT)
    assert left_out(examples) == {"disputed": 1}


def test_an_edit_that_others_disliked_as_an_answer_is_no_success() -> None:
    examples = taught(
        rated(1, edited_prompt=EDITED), rated(2, enhanced_prompt=EDITED), rated(3, enhanced_prompt=EDITED)
    )
    assert not examples.records


# What is left out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ("  \n", "blank edit"),
        ("the " * 20, "edit is degenerate"),
        ("Name  Rivers", "edit is the prompt"),
        ("list RIVERS.", "edit is the answer"),
    ],
)
def test_an_edit_that_teaches_nothing_leaves_its_thumb(edit: str, reason: str) -> None:
    examples = taught(rated(rating=1, edited_prompt=edit))
    assert only(examples)[1:] == (ANSWER, (), LIKED)
    assert left_out(examples) == {reason: 1}


@pytest.mark.parametrize(
    ("answer", "reason"), [("Name rivers", "answer is the prompt"), ("\ufffd\ufffd", "answer is degenerate")]
)
def test_a_liked_answer_that_nobody_should_learn_is_left_out(answer: str, reason: str) -> None:
    examples = taught(rated(rating=1, enhanced_prompt=answer))
    assert not examples.records
    assert left_out(examples) == {reason: 1}


@pytest.mark.parametrize("name", ["raw_prompt", "enhanced_prompt", "edited_prompt"])
@pytest.mark.parametrize(
    "secret",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "Yk3vPq8sTz1LwXc6RbNm4GhJd9FaUe2oQi7V",
        "-----BEGIN RSA PRIVATE KEY-----",
        "postgres://ann:hunter2@db.example.org/x",
        'api_key = "9f8a7b6c5d4e"',
        "password: hunter22",
        "Authorization: Bearer abcd1234efgh5678ijkl",
        "access_token=9f8e7d6c5b4a3210",
        "SG." + "ngeVfQFYQlKU0ufo8x5d1A" + ".TwL2iGABf9DHoTf-09kqeF8tAmbihYzrnopKc-1s5cr",
        "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dcQ2x",
        "npm_" + "q7Zk2VtP9sLx4WcR6bNm8GhJd1FaUe3oYi5T",
        "dapi" + "7c1e9b3f5a2d8046e1f7b9c3d5a20864",
    ],
)
def test_a_row_with_a_secret_is_left_out(name: str, secret: str) -> None:
    examples = taught(rated(**{"edited_prompt": EDITED, name: f"Use {secret} to connect."}))
    assert not examples.records
    assert left_out(examples) == {"secret": 1}


@pytest.mark.parametrize(
    "raw",
    [
        "Fix my .env file: DB_PASSWORD=Sup3rS3cret99",
        "Why does OPENAI_API_KEY=abcd1234efgh5678 not work",
        "connect to redis://:pa55word99@cache:6379/0",
        "curl -H 'Authorization: Bearer abcd1234efgh5678ijkl' fails",
        "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCY2X",
        "my secretKey: 'a8b7c6d5e4f3' leaked",
        "passphrase: correct9horse",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----",
        "clone https://a8f9c0d1e2b3a4f5c6d7e8f9@github.com/x",
        "set client_secret=9f8e7d6c5b4a3210 in oauth",
        "password=Sup3rS3cret99 is refused",
    ],
)
def test_a_prompt_with_a_secret_is_left_out(raw: str) -> None:
    edited = f"Explain step by step how to solve this: {raw}"
    examples = taught(rated(rating=1, raw_prompt=raw, edited_prompt=edited))
    assert not examples.records
    assert left_out(examples) == {"secret": 1}
    assert raw not in examples.describe()


@pytest.mark.parametrize(
    "text",
    [
        "Pin sk-learn-pipeline-with-columns and npm_config_strict_peer_dependencies",
        "A password: [a-z0-9]{8,32}, or api_key=process.env.API_KEY_2",
        "max_token=1000000000 and token=tokenizer.encode_v2",
        "Explain OAuth2: client_id, client_secret and access_token",
        "Set API_KEY=your-api-key-here in .env",
        "password=$PASSWORD or password=os.environ['DB_PASSWORD']?",
        "Use Authorization: Bearer <token> in the docs",
        "redis://localhost:6379/0 and https://user@example.com/path",
        "commit 9f8e7d6c5b4a32109f8e7d6c5b4a32109f8e7d6c broke 550e8400-e29b-41d4-a716-446655440000",
        "Check a password: at least 8 characters and 1 digit",
    ],
)
def test_a_text_without_a_secret_is_learned(text: str) -> None:
    assert only(taught(rated(raw_prompt=text, edited_prompt=EDITED)))[1] == EDITED


def test_no_comment_lets_a_secret_pass() -> None:
    secret = "dapi" + "7c1e9b3f5a2d8046e1f7b9c3d5a20864"
    assert left_out(taught(rated(edited_prompt=f"Use {secret} # pragma: allowlist secret"))) == {"secret": 1}


@pytest.mark.parametrize("before", [0, 3_570, 4_090, 10_000, 32_000])
def test_a_secret_is_found_wherever_it_stands_in_a_long_text(before: int) -> None:
    text = ("token=" * 6000)[:before]
    assert not has_secret(text)
    assert has_secret(f"{text} dapi7c1e9b3f5a2d8046e1f7b9c3d5a20864")


def test_what_only_speaks_of_passwords_is_no_secret() -> None:
    edited = "Explain how to hash a password: which function, which salt, and why https://a.org:8080/x@y says so."
    raw = "hash a password, see https://a.org:8080/x@y"
    assert only(taught(rated(raw_prompt=raw, edited_prompt=edited)))[1] == edited


def test_a_text_that_is_too_long_is_left_out() -> None:
    examples = learn([rated(edited_prompt=EDITED)], {}, "rewrite", len(EDITED) - 1)
    assert not examples.records
    assert left_out(examples) == {"too long": 1}


def test_answers_of_other_adapters_are_left_out_and_counted() -> None:
    def said(number: int, version: str) -> RatedAnswer:
        return rated(number, raw_prompt=f"{RAW} {number}", edited_prompt=EDITED, model_version=version)

    mine = [said(0, "mini-aaaaaaaaaaaa"), said(1, "mini-bbbbbbbbbbbb-int8"), said(2, "")]
    others = [said(3, "mini-cccccccccccc"), said(4, "unknown")]
    examples = learn([*mine, *others], {}, "rewrite", 4000, versions=["aaaaaaaaaaaa", "bbbbbbbbbbbb"])
    assert [record.raw_prompt for record in examples.records] == [f"{RAW} {number}" for number in range(3)]
    assert left_out(examples) == {"other adapter": 2}
    assert "left out: 2 on answers of other adapters" in examples.describe()
    assert examples.rows == 5


@pytest.mark.parametrize("edit", ["\u200b", " \u200d\ufeff\n", "\u2060"])
def test_texts_that_cannot_be_seen_are_none(edit: str) -> None:
    assert left_out(taught(rated(edited_prompt=edit)))["blank edit"] == 1
    assert left_out(taught(rated(raw_prompt=edit, edited_prompt=EDITED))) == {"malformed": 1}


def test_the_report_has_every_count_and_no_text() -> None:
    ratings = [rated(edited_prompt=EDITED), rated(1, raw_prompt="what", rating=-1)]
    examples = learn(ratings, {}, "rewrite", 4000, malformed=3)
    line = examples.describe()
    assert line == (
        "5 rows of feedback: 1 edited answers, 0 liked ones, 1 failed ones to learn from; left out: "
        "3 no rows of feedback, 1 failures of prompts without a success"
    )


# Complements ----------------------------------------------------------------------------------------------------

ADDED = f"{RAW}\n\nGive their lengths."
BETTER = f"{RAW}\n\nGive lengths and sources."


@pytest.mark.parametrize(
    ("answer", "edit", "complement"),
    [
        (ADDED, BETTER, "Give lengths and sources."),
        (ADDED, RAW, ""),
        (ADDED, " NAME  rivers\n", ""),
        (RAW, BETTER, "Give lengths and sources."),
        (ADDED, f"{RAW}\nGive lengths.", "Give lengths."),
    ],
)
def test_an_edit_that_keeps_the_prompt_teaches_its_rest(answer: str, edit: str, complement: str) -> None:
    examples = taught(rated(enhanced_prompt=answer, edited_prompt=edit), form="complement")
    (record,) = examples.records
    assert (record.target("complement"), record.failed_prompts, record.source) == (complement, (answer,), EDIT)
    assert left_out(examples) == {}


def test_an_edit_that_changes_the_prompt_teaches_nothing_and_is_counted() -> None:
    examples = taught(rated(enhanced_prompt=ADDED, edited_prompt=EDITED), form="complement")
    assert not examples.records
    assert left_out(examples) == {"edit changes the prompt": 1, "no success": 1}


def test_thumbs_on_complements() -> None:
    liked, disliked = rated(1, rating=1, enhanced_prompt=ADDED), rated(2, enhanced_prompt=BETTER)
    assert only(taught(liked, disliked, form="complement"))[1:] == (ADDED, (BETTER,), LIKED)
    assert only(taught(rated(rating=1, enhanced_prompt=RAW), form="complement"))[1] == RAW
    examples = taught(rated(rating=1), form="complement")
    assert left_out(examples) == {"answer changes the prompt": 1}


def test_a_complement_stands_behind_the_prompt_as_it_was_written_last() -> None:
    first = rated(1, rating=1, enhanced_prompt=ADDED)
    last = rated(2, raw_prompt="Name Rivers", enhanced_prompt="Name Rivers\n\nIn rhyme.")
    examples = taught(first, last, form="complement")
    assert only(examples)[:3] == ("Name Rivers", "Name Rivers\n\nGive their lengths.", ("Name Rivers\n\nIn rhyme.",))
    known = taught(
        rated(raw_prompt="Name RIVERS", enhanced_prompt="Name RIVERS\n\nBah."), known=ADDED, form="complement"
    )
    assert only(known) == (RAW, ADDED, (f"{RAW}\n\nBah.",), KNOWN)


def test_rewrites_of_the_original_data_are_not_mixed_with_complements() -> None:
    rewrites, kept = records("old", 5), [Record("a", "a\n\nIn Go.", (), "", "", 1)]
    training_mix = mix(kept, rewrites, [*rewrites, *kept], "complement", RetrainConfig())
    assert (training_mix.original_rows, len(training_mix.original)) == (0, 1)


# The file -------------------------------------------------------------------------------------------------------


def row(**fields: Any) -> str:
    return json.dumps(
        {"request_id": "r", "raw_prompt": RAW, "enhanced_prompt": ANSWER, "rating": 1, "comment": "no", **fields}
    )


def test_rows_are_read_oldest_first_and_wrong_ones_are_named_without_their_text(tmp_path: Path) -> None:
    file = tmp_path / "feedback.jsonl"
    wrong = ["{", row(rating=True), row(raw_prompt=7), row(enhanced_prompt=None), row(raw_prompt="a\0b")]
    good = [row(created_at="2026-01-02", request_id="b"), row(created_at="2026-01-01", request_id="a")]
    file.write_bytes("\n".join([*wrong, *good, ""]).encode() + b"\xff" + RAW.encode() + b"\n")
    ratings, problems = read_feedback(file)
    assert [found.request_id for found in ratings] == ["a", "b"]
    assert [problem.split(":")[1] for problem in problems] == ["1", "2", "3", "4", "5", "8"]
    assert RAW not in "".join(problems)


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    row = {"request_id": "r", "raw_prompt": "\ufeffa", "enhanced_prompt": "b", "rating": 1}
    path.write_text(f"{json.dumps(row)}\n" * 3, encoding="utf-8-sig")
    assert ([found.raw_prompt for found in read_feedback(path)[0]], read_feedback(path)[1]) == (["\ufeffa"] * 3, [])
    path.write_text("\n" + json.dumps(row), encoding="utf-8-sig")
    assert len(read_feedback(path)[0]) == 1


def test_the_case_of_a_byte_order_mark() -> None:
    marked, wrong = read_feedback(case("09-byte-order-mark/feedback_bom.jsonl"))
    plain, _ = read_feedback(case("07-feedback-secrets/feedback.jsonl"))
    assert (marked, wrong) == (plain, [])


def test_the_case_of_secrets() -> None:
    ratings, _ = read_feedback(case("07-feedback-secrets/feedback.jsonl"))
    assert left_out(learn(ratings, {}, "complement", 4000)) == {"secret": len(ratings)} == {"secret": 6}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_feedback_in_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "feedback.jsonl"
    path.write_text('{"request_id": "r"}\n', encoding=encoding)
    with pytest.raises(DataError, match=f"the text is {encoding[:6].upper()}; save it as UTF-8"):
        read_feedback(path)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(DataError, match="no feedback"):
        read_feedback(tmp_path / "x.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_feedback(tmp_path / "none.jsonl")


# The training mix ----------------------------------------------------------------------------------------------


def records(name: str, count: int, source: str = "") -> list[Record]:
    return [Record(f"{name} {i}", f"better {name} {i}", (), source, "", i) for i in range(count)]


def raws(found: tuple[Record, ...]) -> set[str]:
    return {record.raw_prompt for record in found}


def mixed(feedback: int, original: int, **settings: Any) -> TrainingMix:
    old, held_out = records("old", original), records("held", 30)
    return mix(records("new", feedback, EDIT), old, held_out, "rewrite", RetrainConfig(**settings))


def test_held_out_prompts_stay_held_out_when_feedback_grows() -> None:
    few, many = mixed(50, 50), mixed(500, 50)
    assert raws(few.feedback) == raws(many.feedback) & {f"new {i}" for i in range(50)}
    assert 60 < len(many.feedback) < 140
    for training_mix in (few, many):
        assert not raws(training_mix.train) & (raws(training_mix.feedback) | raws(training_mix.original))


def test_a_prompt_held_out_of_one_kind_is_trained_on_in_neither() -> None:
    feedback = [Record("HELD 3", "Act.", (), EDIT, "", 1), *records("new", 40, EDIT)]
    original = [*records("New", 40), *records("old", 40)]
    training_mix = mix(feedback, original, records("held", 30), "rewrite", RetrainConfig())
    assert "HELD 3" in raws(training_mix.feedback)
    trained = {raw.lower() for raw in raws(training_mix.train)}
    assert not trained & {raw.lower() for raw in raws(training_mix.feedback) | raws(training_mix.original)}


@pytest.mark.parametrize(
    ("original", "settings", "copies"),
    [(1000, {}, 4), (1000, {"most_copies": 2}, 2), (70, {}, 1), (10, {}, 1), (1000, {"feedback_share": 0.25}, 4)],
)
def test_the_share_of_feedback_is_kept_by_repetition_and_bounded(
    original: int, settings: dict[str, Any], copies: int
) -> None:
    training_mix = mixed(60, original, **settings)
    assert training_mix.feedback_rows == copies * training_mix.distinct
    share = training_mix.feedback_rows / len(training_mix.train)
    assert share == pytest.approx(settings.get("feedback_share", 0.5), abs=0.01)
    old = [record.raw_prompt for record in training_mix.train if record.raw_prompt.startswith("old")]
    counts = {old.count(raw) for raw in old}
    assert max(counts) - min(counts) <= 1


def test_liked_answers_are_trained_on_but_nothing_is_judged_by_them() -> None:
    training_mix = mix(records("new", 200, LIKED), records("old", 10), [], "rewrite", RetrainConfig())
    assert training_mix.distinct > 100
    assert not training_mix.feedback


def test_without_original_data_feedback_stands_alone() -> None:
    training_mix = mixed(40, 0)
    assert training_mix.original_rows == 0
    assert training_mix.feedback_rows == training_mix.distinct


# Settings -------------------------------------------------------------------------------------------------------


def test_settings_come_from_a_file_and_its_gaps_from_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "retrain.toml"
    file.write_text("phase1_epochs = 5\nrate_factor = 1\n[margins]\nce = 0.2\n")
    assert RetrainConfig.read(file) == RetrainConfig(phase1_epochs=5, rate_factor=1.0, margins=Margins(ce=0.2))
    file.write_text(RetrainConfig().to_toml())
    assert RetrainConfig.read(file) == RetrainConfig()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("phase = 1", "no setting is called 'phase'"),
        ("phase1_epochs = 1.5", "phase1_epochs must be a whole number, not 1.5"),
        ("feedback_share = 1", "feedback_share must be above 0 and below 1"),
        ("margins.ce = -1", "margins.ce must be at least 0"),
        ("margins = 3", "margins must be a table"),
        ("phase1_epochs = 0\nphase2_epochs = 0", "nothing to train"),
        ("=", "retrain.toml"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "retrain.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=problem):
        RetrainConfig.read(file)
