"""The gate: groups that are held out, the regression, and what it serves."""

from typing import Any

import pytest
import torch

from neuro_latent_core.form import join
from neuro_latent_core.guard import NOT_SURE
from neuro_latent_trainer import gate_fit
from neuro_latent_trainer.adapter import AdapterConfig
from neuro_latent_trainer.backbones import load_encoder, load_generator
from neuro_latent_trainer.data import Record
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.written import Part, parts_of, served

KINDS = [f"kind {n}" for n in range(20)]


def record(kind: str, number: int) -> Record:
    raw = f"{kind} request {number}"
    return Record(raw, join(raw, f"Say {kind} first."), (), "", "", number, kind)


@pytest.fixture
def model(pair: Any) -> PromptOptimizer:
    encoder, generator = load_encoder(str(pair.encoder)), load_generator(str(pair.generator))
    return PromptOptimizer.create(
        encoder,
        generator,
        AdapterConfig(encoder_width=encoder.width, generator_width=generator.width, form="complement"),
    ).eval()


def grouped(model: PromptOptimizer, kinds: list[str], rows: int) -> gate_fit.Grouped:
    records = [record(kind, number) for kind in kinds for number in range(rows)]
    return gate_fit.Grouped(records, model.embed([r.raw_prompt for r in records]), [r.kind for r in records])


def test_a_group_is_a_kind_or_a_cluster() -> None:
    records = [record("kind 1", 1), *(Record(f"p{n}", f"p{n}", (), "", "", n) for n in range(40))]
    names = gate_fit.groups_of(records, torch.cat([torch.zeros(1, 4), torch.randn(40, 4)]))
    assert names[0] == "kind 1"
    assert {name.split()[0] for name in names[1:]} == {"cluster"}
    assert 1 < len(set(names[1:])) <= 4


def test_whole_groups_are_held_out_and_none_where_there_are_few() -> None:
    groups = [kind for kind in KINDS for _ in range(5)]
    out = gate_fit.hold_out(groups, 0.1)
    assert sum(out) == 10
    assert len({group for group, held in zip(groups, out, strict=True) if held}) == 2
    assert out == gate_fit.hold_out(groups, 0.1)
    assert not any(gate_fit.hold_out(groups[:25], 0.1))


def test_the_regression_finds_the_signal() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 3)
    weight, bias = gate_fit._logistic_regression(x, (x[:, 1] + 0.1 * torch.randn(400) > 0.5).float())
    assert weight[1] > 3 * weight[[0, 2]].abs().max()
    assert bias < 0


def test_the_threshold_serves_its_share_and_better_texts_first(
    model: PromptOptimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, held_out = grouped(model, KINDS[:15], 6), grouped(model, KINDS[15:], 20)

    def written(model: PromptOptimizer, prompts: list[str], max_length: int) -> list[list[Part]]:
        """Every second text is of the prompt's own kind, and likelier."""
        texts = [r.target("complement") or "" for r in held_out.records]
        right = [n % 2 == 0 for n in range(len(texts))]
        other = [*texts[20:], *texts[:20]]
        return [[Part(a, -0.2) if ok else Part(b, -1.0)] for a, b, ok in zip(texts, other, right, strict=True)]

    monkeypatch.setattr(gate_fit, "write_scored", written)
    found = gate_fit.fit_gate(model, trained, held_out, max_length=8)
    assert found is not None
    assert model.adapter.gate is not None
    assert found["groups"] == 5
    assert found["curve"][0]["served"] == 1.0
    assert found["curve"][-1]["apt"] >= found["curve"][0]["apt"]
    assert found["weights"]["mean log-probability"] > 0
    sure, unsure = model.adapter.confidence(held_out.embeddings_NE[:2], torch.tensor([-0.2, -1.0]))
    assert sure > unsure
    values = model.adapter.gate_values(held_out.embeddings_NE[:1])
    assert values[0, 2].item() == pytest.approx(found["threshold"], abs=1e-3)
    assert values[0, 3].item() == 1


def test_too_few_texts_fit_no_gate(model: PromptOptimizer) -> None:
    assert gate_fit.fit_gate(model, grouped(model, KINDS[:12], 2), grouped(model, KINDS[12:14], 2), 4) is None
    assert model.adapter.gate is None


def test_the_threshold_serves_its_share_of_prompts_by_their_first_sentence(model: PromptOptimizer) -> None:
    """A second sentence is unsure and not apt: what is served is the first alone."""
    data = grouped(model, KINDS[:15], 6)
    gate = gate_fit.make_gate(model, data)
    apt = [row % 2 == 0 for row in range(20)]
    written = [
        [(Part("Use one here. Use two.", -1.5), False), (Part("Use one here.", -0.2 if ok else -1.0), ok)] for ok in apt
    ]
    found = gate_fit.fit_weights(model, gate, data.embeddings_NE[:20], written, served=0.5)
    assert found["curve"][5]["served"] == pytest.approx(0.5)
    assert found["curve"][5]["apt"] == 1
    texts = [[part for part, _ in parts] for parts in written[:2]]
    assert served(model.adapter, data.embeddings_NE[0], "x y", texts[0]) == ("Use one here.", "")
    assert served(model.adapter, data.embeddings_NE[1], "x y", texts[1]) == ("", NOT_SURE)
    sure_again = [Part("Use one here. Use two. Use three.", -0.1), *texts[0]]
    assert served(model.adapter, data.embeddings_NE[0], "x y", sure_again) == ("Use one here.", "")


def test_the_parts_of_a_text_end_with_its_sentences() -> None:
    pieces = ["<s>", "</s>", "Use", " a", " list", ".", " Say", " why", "!"]

    def decode(ids: list[int]) -> str:
        return "".join(pieces[i] for i in ids)

    whole, first = parts_of([2, 3, 4, 5, 6, 7, 8, 1], [-1.0, -1.0, -1.0, -1.0, -3.0, -3.0, -3.0, -3.0], 1, decode)
    assert whole == ("Use a list. Say why!", -2.0)
    assert first == ("Use a list.", -1.0)
    assert parts_of([1], [-0.5], 1, decode) == [("", -0.5)]
