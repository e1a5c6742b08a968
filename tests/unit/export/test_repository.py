"""The exported repository: what is in it, and that nothing wrong is ever published."""

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from neuro_latent_core.repository import hold
from neuro_latent_export import decoder_graphs, parity, t5_graphs, templates
from neuro_latent_export.errors import ExportError
from neuro_latent_export.parity import ParityError
from neuro_latent_export.precision import INT8
from neuro_latent_export.repository import export_adapter, export_repository, pair_name
from neuro_latent_export.templates import TEMPLATES, fill_templates
from neuro_latent_trainer.adapter_folder import AdapterError
from neuro_latent_trainer.backbones import BackboneError, fingerprint
from neuro_latent_trainer.model import PromptOptimizer
from tests import tiny
from tests.unit.export.conftest import tree

pytestmark = pytest.mark.slow


@pytest.fixture
def manifest(repository: Path) -> dict[str, Any]:
    return json.loads((repository / "manifest.json").read_text())


def test_the_manifest_says_what_was_exported_and_how_it_was_checked(
    manifest: dict[str, Any], adapter: Path, pair: Any, optimizer: PromptOptimizer
) -> None:
    weights = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert manifest["format"] == 3
    assert (manifest["precision"], manifest["agreement"]) == ("fp32", None)
    assert manifest["adapter"]["sha256"] == weights
    assert manifest["adapter"]["config"] == optimizer.adapter.config.model_dump()
    assert manifest["model_version"].endswith(f"-{weights[:12]}")
    for name, model in (("encoder", optimizer.encoder_model), ("generator", optimizer.generator_model)):
        assert manifest["backbones"][name] == {"name": str(getattr(pair, name)), "sha256": fingerprint(model)}
    assert manifest["versions"]["torch"] == importlib.metadata.version("torch")
    generation = manifest["parity"]["generation"]
    assert generation["identical"] == generation["prompts"] >= 50
    assert len(manifest["parity"]["graphs"]) == 4  # the decoder's two are compared together
    assert all(g["max_difference"] <= g["tolerance"] for g in manifest["parity"]["graphs"])


def test_the_manifest_has_hash_and_size_of_every_artifact(repository: Path, manifest: dict[str, Any]) -> None:
    made = {str(p.relative_to(repository)) for p in repository.rglob("*") if p.suffix in (".onnx", ".json")}
    assert set(manifest["artifacts"]) == made - {"manifest.json"}
    for relative, entry in manifest["artifacts"].items():
        data = (repository / relative).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def test_the_decoder_has_the_sentences_to_draft_from(repository: Path) -> None:
    assert json.loads((repository / "t5_decoder" / "1" / "frequent_sentences.json").read_text()) == tiny.SENTENCES


def test_every_template_is_there_and_filled(repository: Path, optimizer: PromptOptimizer) -> None:
    expected = {p.relative_to(TEMPLATES) for p in TEMPLATES.rglob("config.pbtxt")}
    assert {p.relative_to(repository) for p in repository.rglob("config.pbtxt")} == expected
    for path in repository.rglob("config.pbtxt"):
        text = path.read_text()
        assert "$" not in text, path
        assert re.search(rf'^name: "{path.parent.name}"$', text, re.MULTILINE)
    assert "dims: [ 5, 24 ]" in (repository / "projector" / "config.pbtxt").read_text()
    assert f'string_value: "{tiny.ENCODER_TOKENS}"' in (repository / "tokenizer" / "config.pbtxt").read_text()


def test_a_template_that_names_an_unknown_value_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "templates" / "encoder").mkdir(parents=True)
    (tmp_path / "templates" / "encoder" / "config.pbtxt").write_text("dims: [ ${encoder_widht} ]")
    monkeypatch.setattr(templates, "TEMPLATES", tmp_path / "templates")
    with pytest.raises(ExportError, match=r"encoder/config\.pbtxt: cannot fill the template: 'encoder_widht'"):
        fill_templates({"encoder_width": "32"}, tmp_path / "out")


def test_nothing_is_left_beside_a_new_repository(adapter: Path, traced: None, tmp_path: Path, repository: Path) -> None:
    output = tmp_path / "deep" / "repository"
    manifest = export_repository(adapter, output)
    assert json.loads((output / "manifest.json").read_text()) == manifest
    assert [p.name for p in output.parent.iterdir()] == ["repository"]
    assert output.stat().st_mode & 0o777 == 0o755
    # Other tests serve the shared one, and python keeps its bytecode there.
    assert set(tree(output)) == {path for path in tree(repository) if "__pycache__" not in path}


def test_a_training_run_is_exported_by_its_adapter(adapter: Path, traced: None, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "run" / "adapter")
    manifest = export_repository(tmp_path / "run", tmp_path / "repository")
    assert (tmp_path / "repository" / "manifest.json").is_file()
    assert manifest["adapter"]["bytes"] == (adapter / "adapter_model.safetensors").stat().st_size


@pytest.mark.parametrize("linked", [False, True])
def test_a_repository_that_is_there_is_replaced_whole(
    adapter: Path, traced: None, tmp_path: Path, linked: bool
) -> None:
    output = tmp_path / "repository"
    old = tmp_path / "elsewhere" if linked else output
    (old / "stale").mkdir(parents=True)
    (old / "manifest.json").write_text("{}")
    if linked:
        output.symlink_to(old)
    export_repository(adapter, output)
    assert not (output / "stale").exists()
    assert json.loads((output / "manifest.json").read_text())["format"] == 3
    assert {p.name for p in tmp_path.iterdir()} <= {"repository", "elsewhere"}


def test_an_empty_folder_may_become_a_repository_even_the_working_folder(
    adapter: Path, traced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    export_repository(adapter, Path("."))
    assert (tmp_path / "empty" / "manifest.json").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("versions", "lost"),
    [
        ({1: ["default"], 2: ["default"]}, "2 versions of its adapters"),
        ({1: ["default", "team", "legal"]}, "the adapters legal, team;"),
        ({4: ["default"], 5: ["default", "team"], 6: ["default"]}, "the adapters team and 3 versions of its adapters"),
        ({1: ["default"]}, ""),
        ({}, ""),
    ],
)
def test_adapters_that_were_added_are_lost_only_by_force(
    adapter: Path, traced: None, tmp_path: Path, versions: dict[int, list[str]], lost: str
) -> None:
    output = tmp_path / "repository"
    for number, names in versions.items():
        for name in names:
            (output / "projector" / str(number) / "adapters" / name).mkdir(parents=True)
    (output / "projector" / ".building-x" / "adapters" / "half").mkdir(parents=True)
    (output / "manifest.json").write_text("{}")
    if lost:
        with pytest.raises(ExportError, match=rf"(?s){lost}.*neuro-latent adapters add NAME --adapter .*--force"):
            export_repository(adapter, output)
        assert (output / "manifest.json").read_text() == "{}"
        assert [p.name for p in tmp_path.iterdir()] == ["repository"]
    export_repository(adapter, output, force=bool(lost))
    assert [p.name for p in (output / "projector").iterdir() if p.is_dir()] == ["1"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("linked", [False, True])
def test_a_repository_that_is_served_is_never_replaced(
    adapter: Path, traced: None, tmp_path: Path, force: bool, linked: bool
) -> None:
    output = served = tmp_path / "repository"
    served.mkdir()
    (served / "manifest.json").write_text("{}")
    if linked:
        output = tmp_path / "link"
        output.symlink_to(served)
    servers = [hold(served) for _ in range(2)]
    with pytest.raises(ExportError, match=r"is being served.*neuro-latent adapters add.*stop the server"):
        export_repository(adapter, output, force=force)
    os.close(servers.pop())
    with pytest.raises(ExportError, match="is being served"):
        export_repository(adapter, output, force=force)
    os.close(servers.pop())
    export_repository(adapter, output, force=force)


def test_a_server_that_starts_while_a_repository_is_built_keeps_its_files(
    adapter: Path, traced: None, tmp_path: Path
) -> None:
    output = tmp_path / "repository"
    output.mkdir()
    (output / "manifest.json").write_text("{}")
    servers: list[int] = []

    def start(text: str) -> None:
        servers[:] = servers or [hold(output)]

    with pytest.raises(ExportError, match="is being served"):
        export_repository(adapter, output, log=start)
    os.close(servers.pop())
    assert [p.name for p in output.iterdir()] == ["manifest.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["repository"]


def test_an_adapter_alone_does_not_replace_a_repository(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(
        ExportError, match="no exported adapter; to add an adapter to a repository: neuro-latent adapters"
    ):
        export_adapter(adapter, tmp_path)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_an_output_that_is_no_repository_is_left_alone(adapter: Path, tmp_path: Path, what: str) -> None:
    output = tmp_path / "notes"
    if what == "file":
        output.write_text("precious")
    else:
        output.mkdir()
        (output / "thesis.txt").write_text("precious")
    with pytest.raises(ExportError, match="exists and is no exported repository"):
        export_repository(adapter, output)
    assert (output if what == "file" else output / "thesis.txt").read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["notes"]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A repository that must survive a refused export."""
    output = tmp_path / "repository"
    output.mkdir()
    (output / "manifest.json").write_text('{"format": 1, "model_version": "good"}')
    return output


def refuse(adapter: Path, published: Path, words: str, **options: Any) -> None:
    with pytest.raises(ParityError, match=words):
        export_repository(adapter, published, **options)
    assert json.loads((published / "manifest.json").read_text())["model_version"] == "good"
    assert [p.name for p in published.parent.iterdir()] == ["repository"]


def test_graphs_of_other_weights_are_refused(pair: Any, traced: None, published: Path, tmp_path_factory: Any) -> None:
    other = tiny.write_adapter(tmp_path_factory.mktemp("other"), pair.encoder, pair.generator, instruction="Other: ")
    refuse(other, published, r"projector/1/adapters/default/model\.onnx: differs from torch by")


def test_a_generation_that_differs_is_refused_though_every_graph_agrees(
    pair: Any, traced: None, published: Path, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny.write_adapter(tmp_path_factory.mktemp("other"), pair.encoder, pair.generator, instruction="Other: ")
    monkeypatch.setattr(parity, "GRAPH_TOLERANCE", float("inf"))
    monkeypatch.setattr(parity, "check_graph", lambda spec, session: parity.GraphParity(spec.path, 0.0))
    refuse(other, published, r"prompt \d+: the exported graphs write other tokens than torch from \d+ on")


def test_graphs_with_a_wrong_position_bias_are_refused(
    adapter: Path, traced: None, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = t5_graphs.position_table
    monkeypatch.setattr(t5_graphs, "position_table", lambda attention, both: right(attention, both).roll(1, 0))
    refuse(adapter, published, r"t5_encoder/1/model\.onnx: differs from torch")


def test_a_decoder_with_a_wrong_position_bias_is_refused(
    adapter: Path, traced: None, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = decoder_graphs.position_table
    monkeypatch.setattr(
        decoder_graphs, "position_table", lambda attention, bidirectional: right(attention, bidirectional).roll(1, 0)
    )
    refuse(adapter, published, "the decoder graphs differ from torch by")


def test_an_adapter_and_backbones_that_cannot_be_loaded_leave_the_old_repository(
    adapter: Path, published: Path, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match="no adapter in"):
        export_repository(tmp_path / "nowhere", published)
    with pytest.raises(BackboneError, match=r"no such folder: '\./nowhere'"):
        export_repository(adapter, published, encoder="./nowhere")
    with pytest.raises(BackboneError, match=r"no such folder: '\./nowhere'"):
        export_repository(adapter, published, generator="./nowhere")
    assert "good" in (published / "manifest.json").read_text()


def test_backbones_at_another_place_can_be_named(adapter: Path, pair: Any, traced: None, tmp_path: Path) -> None:
    moved = {
        name: str(shutil.copytree(getattr(pair, name), tmp_path / "my pair" / name))
        for name in ("encoder", "generator")
    }
    manifest = export_repository(adapter, tmp_path / "repository", **moved)
    assert {name: manifest["backbones"][name]["name"] for name in moved} == moved
    assert manifest["model_version"].startswith("my-pair-")
    assert 'string_value: "my-pair-' in (tmp_path / "repository" / "t5_decoder" / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("generator", "name"),
    [
        ("google-t5/t5-small", "t5-small"),
        ("neuro-latent-mini/generator", "neuro-latent-mini"),
        ("/models/my t5/generator/", "my-t5"),
        ("t5-small", "t5-small"),
        ("/", "model"),
    ],
)
def test_a_version_is_named_after_the_part_that_says_something(generator: str, name: str) -> None:
    assert pair_name(generator) == name


def test_exported_tokenizers_neither_pad_nor_cut(repository: Path) -> None:
    for path in repository.rglob("*_tokenizer.json"):
        spec = json.loads(path.read_text())
        assert spec["padding"] is None
        assert spec["truncation"] is None


def test_an_adapter_alone_is_what_the_repository_holds_of_it(
    adapter: Path, repository: Path, traced: None, tmp_path: Path
) -> None:
    record = export_adapter(adapter, tmp_path / "alone")
    inside = repository / "projector" / "1" / "adapters" / "default"
    theirs = json.loads((inside / "adapter.json").read_text())
    assert (
        json.loads((tmp_path / "alone" / "adapter.json").read_text())
        == record
        == theirs | {"created": record["created"]}
    )
    assert (tmp_path / "alone" / "model.onnx").read_bytes() == (inside / "model.onnx").read_bytes()
    assert record["model_version"] == json.loads((repository / "manifest.json").read_text())["model_version"]
    assert export_adapter(adapter, tmp_path / "alone", precision=INT8)["model_version"].endswith("-int8")
    with pytest.raises(ExportError, match="exists and is no exported adapter"):
        export_adapter(adapter, repository)


def test_a_graph_of_another_adapter_is_refused_alone_too(
    pair: Any, traced: None, tmp_path: Path, tmp_path_factory: Any
) -> None:
    other = tiny.write_adapter(tmp_path_factory.mktemp("other"), pair.encoder, pair.generator, instruction="Other: ")
    with pytest.raises(ParityError, match="differs from torch by"):
        export_adapter(other, tmp_path / "alone")
    assert not list(tmp_path.iterdir())
