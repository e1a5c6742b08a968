"""The adapter: both projectors, its configuration, its folder."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuro_latent_core.form import Form
from neuro_latent_trainer import adapter_folder
from neuro_latent_trainer.adapter import Adapter, AdapterConfig, BlackBox, Standardizer
from neuro_latent_trainer.adapter_folder import AdapterError
from neuro_latent_trainer.backbones import Encoder, Generator, fingerprint, load_encoder, load_generator
from neuro_latent_trainer.gate import Gate
from neuro_latent_trainer.model import PromptOptimizer

SIZES = {"encoder_width": 12, "generator_width": 8}


@pytest.fixture(scope="module")
def frozen(pair: Any) -> tuple[Encoder, Generator]:
    return load_encoder(str(pair.encoder)), load_generator(str(pair.generator))


def fresh(frozen: tuple[Encoder, Generator], **settings: Any) -> PromptOptimizer:
    widths = {"encoder_width": frozen[0].width, "generator_width": frozen[1].width}
    return PromptOptimizer.create(*frozen, AdapterConfig(**widths, **settings)).eval()


@pytest.mark.parametrize("form", ["residual", "dense"])
@given(batch=st.integers(1, 4), encoder=st.integers(1, 20), generator=st.integers(2, 20), prompts=st.integers(1, 9))
def test_every_form_has_the_shapes_of_its_configuration(
    form: Any, batch: int, encoder: int, generator: int, prompts: int
) -> None:
    config = AdapterConfig(
        encoder_width=encoder,
        generator_width=generator,
        black_box_width=16,
        soft_prompt_tokens=prompts,
        projector=form,
        bottleneck_width=4,
    )
    adapter = Adapter(config).eval()
    embedding = torch.randn(batch, encoder)
    assert adapter.intent(embedding).shape == (batch, encoder)
    soft = adapter(embedding)
    assert soft.shape == (batch, prompts, generator)
    assert torch.equal(soft, adapter.projector(adapter.intent(embedding)))


def test_the_dense_form_is_the_specifications_one_linear_layer() -> None:
    adapter = Adapter(AdapterConfig(encoder_width=768, generator_width=512, projector="dense"))
    linears = [tuple(p.shape) for p in adapter.parameters() if p.ndim == 2]
    assert linears == [(1024, 768), (768, 1024), (20 * 512, 768)]
    assert adapter.black_box.dropout.p == 0.1


def test_at_step_zero_the_residual_form_is_the_instruction_and_a_small_residual(
    frozen: tuple[Encoder, Generator],
) -> None:
    model = fresh(frozen, soft_prompt_tokens=7)
    table = frozen[1].embeddings.weight
    ids = frozen[1].tokenizer(model.adapter.config.instruction, add_special_tokens=False)["input_ids"]
    assert len(ids) >= 7
    assert torch.equal(model.adapter.projector.base, table[ids[:7]])
    soft = model.adapter(model.embed(["Create a function", "Sort a list of numbers"]))
    residual = soft - table[ids[:7]]
    assert 0 < residual.std() < 0.2 * table.std()
    assert not torch.equal(soft[0], soft[1])


def test_a_short_instruction_is_repeated_and_an_empty_one_is_the_end_token(frozen: tuple[Encoder, Generator]) -> None:
    table = frozen[1].embeddings.weight
    ids = frozen[1].tokenizer("a", add_special_tokens=False)["input_ids"]
    repeated = fresh(frozen, instruction="a", soft_prompt_tokens=5).adapter.projector.base
    assert torch.equal(repeated, table[(ids * 5)[:5]])
    empty = fresh(frozen, instruction="", soft_prompt_tokens=2).adapter.projector.base
    assert torch.equal(empty, table[[frozen[1].eos_id] * 2])


def test_the_dense_form_starts_at_the_scale_of_the_embedding_table(frozen: tuple[Encoder, Generator]) -> None:
    torch.manual_seed(0)
    projector = fresh(frozen, projector="dense").adapter.projector
    soft = projector(torch.randn(500, frozen[0].width))
    table = frozen[1].embeddings.weight
    assert soft.std().item() == pytest.approx(table.std().item(), rel=0.1)
    torch.testing.assert_close(soft.mean((0, 1)), table.mean(0), atol=0.1 * table.std().item(), rtol=0)


def test_standardised_training_targets_have_mean_zero_and_spread_one() -> None:
    standardizer = Standardizer(4)
    values = torch.randn(100, 4) * torch.tensor([1.0, 10.0, 0.01, 0.0]) + 3
    standardizer.fit(values)
    out = standardizer(values)
    torch.testing.assert_close(out.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.std(0, correction=0), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-3, rtol=0)


def test_a_dimension_without_spread_is_not_blown_up() -> None:
    standardizer = Standardizer(3)
    standardizer.fit(torch.ones(1, 3))
    assert standardizer(torch.full((1, 3), 1.5)).abs().max() <= 0.5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoder_width", 0),
        ("generator_width", -1),
        ("black_box_width", 0),
        ("soft_prompt_tokens", 2.5),
        ("bottleneck_width", "8"),
        ("dropout", 1.0),
        ("dropout", float("nan")),
        ("projector", "deep"),
        ("pooling", "max"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field) as caught:
        AdapterConfig.from_dict({**SIZES, field: value})
    assert repr(value) in str(caught.value)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no setting is called 'heads'.*; no setting is called 'layers'"):
        AdapterConfig.from_dict({**SIZES, "heads": 1, "layers": 2})


def test_a_configuration_of_an_earlier_version_is_read() -> None:
    assert AdapterConfig.from_dict({**SIZES, "memory_prompts": 0}) == AdapterConfig(**SIZES)


def test_a_configuration_survives_its_dictionary() -> None:
    config = AdapterConfig(**SIZES, projector="dense", pooling="cls", instruction="Improve: ")
    assert AdapterConfig.from_dict(json.loads(json.dumps(config.model_dump()))) == config


def test_an_adapter_folder_gives_back_what_was_written(tmp_path: Path) -> None:
    adapter = Adapter(AdapterConfig(**SIZES))
    names = adapter_folder.BackboneName("an/encoder", "ab"), adapter_folder.BackboneName("a/generator")
    adapter_folder.write(tmp_path / "adapter", adapter, *names, {"steps": 3}, "# Card\n", {"Say who it is for. é": 3})
    for place in (tmp_path, tmp_path / "adapter"):  # a run, and the folder itself
        saved = adapter_folder.read(place)
        assert (saved.config, saved.encoder, saved.generator) == (adapter.config, *names)
        assert saved.training == {"steps": 3}
        assert saved.sentences == {"Say who it is for. é": 3}
        assert all(torch.equal(saved.tensors[name], value) for name, value in adapter.state_dict().items())
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "frequent_sentences.json.gz",
    ]
    adapter_folder.write(tmp_path / "adapter", adapter, *names, {}, "# Card\n")
    assert adapter_folder.read(tmp_path).sentences == {}


def test_a_loaded_adapter_computes_what_the_saved_one_did(adapter: Path, optimizer: PromptOptimizer) -> None:
    again = PromptOptimizer.from_pretrained(adapter)
    embedding = again.embed(["Create a function"])
    assert torch.equal(again.adapter(embedding), optimizer.adapter(embedding))
    assert not again.training


def test_a_folder_without_an_adapter_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"adapter_config\.json and adapter_model\.safetensors"):
        adapter_folder.read(tmp_path)


@pytest.fixture
def copy(adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "copy"))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def damage_config(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{")


def damage_weights(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def drop_the_encoder(folder: Path) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "encoder"}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_config, "cannot read the adapter"),
        (damage_weights, "cannot read the adapter"),
        (drop_the_encoder, "encoder"),
        (lambda folder: edit(folder, format=2), "format 2, expected 1"),
        (lambda folder: edit(folder, adapter={**SIZES, "layers": 2}), "no setting is called 'layers'"),
        (lambda folder: edit(folder, adapter={**SIZES, "dropout": 2}), "dropout must be"),
        (lambda folder: edit(folder, adapter={**SIZES, "memory_prompts": 3}), "memory_prompts 3, an option that has"),
    ],
)
def test_a_damaged_adapter_is_one_clear_error(copy: Path, damage: Any, words: str) -> None:
    damage(copy)
    with pytest.raises(AdapterError, match=words) as caught:
        adapter_folder.read(copy)
    assert str(copy) in str(caught.value)


def test_weights_that_do_not_fit_their_configuration_are_an_adapter_error(copy: Path) -> None:
    config = json.loads((copy / "adapter_config.json").read_text())["adapter"]
    edit(copy, adapter={**config, "bottleneck_width": 3})
    with pytest.raises(AdapterError, match="do not fit its configuration"):
        PromptOptimizer.from_pretrained(copy)


def test_a_black_box_can_start_as_a_linear_map() -> None:
    config = AdapterConfig(encoder_width=6, generator_width=8, black_box_width=15)
    linear, bias, raw = torch.randn(6, 6), torch.randn(6), torch.randn(20, 6)
    black_box = BlackBox(config).eval()
    black_box.start_from(linear, bias)
    torch.testing.assert_close(black_box(raw), raw @ linear + bias, rtol=1e-4, atol=1e-4)
    narrow = BlackBox(config.replace(black_box_width=4)).eval()
    narrow.start_from(linear, bias)
    left, values, right = torch.linalg.svd(linear)
    best = left[:, :2] @ torch.diag(values[:2]) @ right[:2]  # of rank 2
    torch.testing.assert_close(narrow(raw), raw @ best + bias, rtol=1e-4, atol=1e-4)


def gate_of(adapter: Adapter, threshold: float = 0.5) -> Gate:
    """A gate with random prompts in its index."""
    width = adapter.config.encoder_width
    gate = Gate(torch.randn(5, width), torch.tensor([0, 1, 0, 0, 1]), torch.randn(3, width))
    gate.weight.copy_(torch.tensor([2.0, -1.0, 0.5]))
    gate.bias.fill_(0.3)
    gate.logprob_weight.fill_(0.7)
    gate.threshold.fill_(threshold)
    return gate


def test_a_gate_of_an_earlier_version_is_of_raw_embeddings() -> None:
    torch.manual_seed(2)
    adapter = Adapter(AdapterConfig(encoder_width=6, generator_width=8, form="complement")).eval()
    adapter.gate = gate_of(adapter)
    older = {name: value for name, value in adapter.state_dict().items() if name != "gate.of_intents"}
    again = Adapter(adapter.config).eval()
    again.load_tensors(older)
    assert again.gate is not None
    embedding = torch.randn(3, 6)
    standard = again.standardizer(embedding)
    nearest = torch.nn.functional.normalize(standard, dim=-1) @ again.gate.index.T
    torch.testing.assert_close(again.gate.features(standard, again.intent(embedding))[:, 0], nearest.amax(-1))
    again.load_tensors(adapter.state_dict())
    torch.testing.assert_close(again.gate_values(embedding), adapter.gate_values(embedding))


@pytest.mark.parametrize(("form", "number"), [("complement", 1.0), ("rewrite", 0.0)])
def test_without_a_gate_everything_is_served(form: Form, number: float) -> None:
    adapter = Adapter(AdapterConfig(encoder_width=6, generator_width=8, form=form))
    assert adapter.gate_values(torch.randn(2, 6)).tolist() == [[10.0, 0.0, 0.0, number]] * 2
    assert adapter.confidence(torch.randn(2, 6), torch.tensor([-9.0, 0.0])).min() > 0.99


def test_a_gate_turns_what_it_sees_into_a_confidence_that_a_text_changes() -> None:
    torch.manual_seed(1)
    adapter = Adapter(AdapterConfig(encoder_width=6, generator_width=8, form="complement")).eval()
    adapter.gate = gate_of(adapter)
    embedding = torch.randn(4, 6)
    values = adapter.gate_values(embedding)
    features = adapter.gate.features(adapter.standardizer(embedding), adapter.intent(embedding))
    torch.testing.assert_close(values[:, 0], features @ adapter.gate.weight + adapter.gate.bias)
    torch.testing.assert_close(values[:, 1:], torch.tensor([[0.7, 0.5, 1.0]]).expand(4, 3))
    confidence = adapter.confidence(embedding, torch.tensor([-1.0, -2.0, -3.0, -4.0]))
    torch.testing.assert_close(confidence, torch.sigmoid(values[:, 0] - 0.7 * torch.arange(1.0, 5.0)))


def test_a_gate_is_saved_and_loaded_with_its_adapter(adapter: Path, tmp_path: Path) -> None:
    model = PromptOptimizer.from_pretrained(adapter)
    model.adapter.gate = gate_of(model.adapter, threshold=0.4)
    model.save_pretrained(tmp_path / "gated")
    again = PromptOptimizer.from_pretrained(tmp_path / "gated")
    embedding = torch.randn(3, model.encoder.width)
    torch.testing.assert_close(again.adapter.gate_values(embedding), model.adapter.gate_values(embedding))
    again.load_adapter(adapter_folder.read(adapter), "one without")
    assert again.adapter.gate is None


def test_an_adapter_without_a_form_rewrites() -> None:
    assert AdapterConfig.from_dict({"encoder_width": 6, "generator_width": 8}).form == "rewrite"
    with pytest.raises(ValueError, match="form must be one of complement, rewrite, not 'both'"):
        AdapterConfig.from_dict({"encoder_width": 6, "generator_width": 8, "form": "both"})


def test_an_adapter_is_saved_and_loaded_again_with_its_card_and_its_facts(
    optimizer: PromptOptimizer, adapter: Path, tmp_path: Path
) -> None:
    model = PromptOptimizer.from_pretrained(adapter)
    model.trained, model.card = {"steps": 3}, "# A card"
    model.save_pretrained(tmp_path / "saved")
    again = PromptOptimizer.from_pretrained(tmp_path / "saved")
    assert (again.trained, again.card) == ({"steps": 3}, "# A card")
    assert again.generate(["Create a function"], 8) == optimizer.generate(["Create a function"], 8)
    config = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert config["encoder"]["sha256"] == fingerprint(model.encoder_model)


class FakeHub:
    """Keeps what is pushed, in the way of HfApi."""

    pushed: ClassVar[dict[str, dict[str, bytes]]] = {}

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
        self.pushed[repo_id] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        return SimpleNamespace(commit_url=f"https://hub.test/{repo_id}/commit/1")


def test_an_adapter_goes_to_the_hub_and_comes_back(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuro_latent_trainer.model.HfApi", FakeHub)

    def download(repo_id: str, allow_patterns: list[str]) -> str:
        folder = tmp_path / "cache"
        folder.mkdir()
        for name in allow_patterns:
            (folder / name).write_bytes(FakeHub.pushed[repo_id][name])
        return str(folder)

    monkeypatch.setattr("neuro_latent_trainer.adapter_folder.snapshot_download", download)
    model = PromptOptimizer.from_pretrained(adapter)
    with pytest.raises(ValueError, match="which nobody else can load"):
        model.push_to_hub("me/adapter")
    folders = model.encoder.name, model.generator.name
    model.encoder, model.generator = replace(model.encoder, name="me/e"), replace(model.generator, name="me/g")
    assert model.push_to_hub("me/adapter") == "https://hub.test/me/adapter/commit/1"
    again = PromptOptimizer.from_pretrained("me/adapter", encoder=folders[0], generator=folders[1])
    assert again.generate(["Create a function"], 8) == model.generate(["Create a function"], 8)


def test_an_adapter_that_is_nowhere_is_one_clear_error() -> None:
    with pytest.raises(AdapterError, match="no adapter 'nobody/nothing': no such folder here, and not"):
        PromptOptimizer.from_pretrained("nobody/nothing")
