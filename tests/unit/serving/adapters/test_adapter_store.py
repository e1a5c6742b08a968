"""The adapters on disk, without a server: what a change writes, what is refused, and what a killed change leaves."""

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner, Result

from neuro_latent_client import Client
from neuro_latent_core.repository import FORMAT, sha256
from neuro_latent_serving.adapters import adapter_store as module
from neuro_latent_serving.adapters.adapter_store import AdapterStore, StopRequestedError
from neuro_latent_serving.adapters.cli import app
from neuro_latent_serving.adapters.promotion import ProbeError, promote, settle
from neuro_latent_serving.adapters.published import PublishedAdapters
from neuro_latent_serving.errors import ServeError, UsageError
from neuro_latent_serving.launch import adapter_watch
from neuro_latent_serving.launch.cli import adapter_versions
from neuro_latent_serving.repository.check import check_repository
from neuro_latent_serving.repository.export import is_exported, refuse_to_drop_adapters

FITS = {
    "encoder": "e" * 64,
    "generator": "f" * 64,
    "encoder_width": 3,
    "generator_width": 2,
    "soft_prompt_tokens": 4,
    "pooling": "mean",
    "precision": "fp32",
}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """An exported adapter with a graph of one product; returns its folder."""

    def write(name: str, scale: float = 1.0, **fits: Any) -> Path:
        folder = tmp_path / "exported" / name
        folder.mkdir(parents=True)
        shape = [0, FITS["soft_prompt_tokens"], FITS["generator_width"]]
        weights = np.full((FITS["encoder_width"], shape[1] * shape[2]), scale, np.float32)
        to_gate = np.zeros((FITS["encoder_width"], 4), np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", ["raw_embedding", "weights"], ["flat"]),
                helper.make_node("Reshape", ["flat", "shape"], ["soft_prompts"]),
                helper.make_node("MatMul", ["raw_embedding", "to_gate"], ["gate"]),
            ],
            "adapter",
            [helper.make_tensor_value_info("raw_embedding", TensorProto.FLOAT, ["batch", FITS["encoder_width"]])],
            [
                helper.make_tensor_value_info("soft_prompts", TensorProto.FLOAT, ["batch", *shape[1:]]),
                helper.make_tensor_value_info("gate", TensorProto.FLOAT, ["batch", 4]),
            ],
            [
                helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights.ravel()),
                helper.make_tensor("to_gate", TensorProto.FLOAT, to_gate.shape, to_gate.ravel()),
                helper.make_tensor("shape", TensorProto.INT64, [3], shape),
            ],
        )
        opsets = [helper.make_opsetid("", 18)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "model.onnx")
        record = {
            "format": FORMAT,
            "created": "2026-01-01T00:00:00Z",
            "model_version": f"mini-{name}",
            "weights": {"sha256": name, "bytes": 1},
            "graph": {"sha256": sha256(folder / "model.onnx"), "bytes": (folder / "model.onnx").stat().st_size},
            "fits": FITS | fits,
        }
        (folder / "adapter.json").write_text(json.dumps(record))
        return folder

    return write


@pytest.fixture
def repository(tmp_path: Path, make: Make) -> Path:
    """As export writes it, as far as adapters go."""
    root = tmp_path / "repository"
    target = root / "projector" / "1" / "adapters" / "default"
    shutil.copytree(make("first"), target)
    (root / "projector" / "config.pbtxt").write_text('name: "projector"')
    (root / "projector" / "1" / "model.py").write_text("")
    files = {str(file.relative_to(root)): file for file in target.iterdir()}
    manifest = {
        "format": FORMAT,
        "artifacts": {name: {"sha256": sha256(f), "bytes": f.stat().st_size} for name, f in files.items()},
        "adapter": {"sha256": "first"},
        "model_version": "mini-first",
        "created": "",
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root


@pytest.fixture
def store(repository: Path) -> AdapterStore:
    return AdapterStore(repository)


def served(store: AdapterStore) -> dict[str, str]:
    """What a server that starts now serves, as it checks it."""
    check_repository(store.repository, verify=True)
    return {name: record.model_version for name, record in store.newest().adapters.items()}


def test_a_change_writes_a_new_version_and_leaves_the_old_ones_as_they_are(store: AdapterStore, make: Make) -> None:
    def tree(number: int) -> dict[str, bytes]:
        folder = store.repository / "projector" / str(number)
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    first = tree(1)
    assert store.add("team", make("a")).number == 2
    second = tree(2)
    assert served(store) == {"default": "mini-first", "team": "mini-a"}
    assert store.add("default", make("b", 2.0)).number == 3
    assert served(store) == {"default": "mini-b", "team": "mini-a"}
    assert store.remove("team").number == 4
    assert served(store) == {"default": "mini-b"}
    assert (tree(1), tree(2)) == (first, second)
    linked, copy = (store.version(n).folder_of("team") / "model.onnx" for n in (2, 3))
    assert linked.stat().st_ino == copy.stat().st_ino


def test_rollbacks_take_back_one_change_after_the_other(store: AdapterStore, make: Make) -> None:
    store.add("default", make("a"))
    store.add("team", make("b"))
    undone = store.rollback()
    assert (undone.number, undone.change.adapter, undone.change.restores) == (4, "team", 2)
    assert served(store) == {"default": "mini-a"}
    undone = store.rollback()
    assert (undone.number, undone.change.adapter, undone.change.restores) == (5, "default", 1)
    assert served(store) == {"default": "mini-first"}
    with pytest.raises(UsageError, match="nothing to go back to"):
        store.rollback()
    store.add("default", make("c"))
    assert store.rollback().change.restores == 5
    assert served(store) == {"default": "mini-first"}


def test_old_versions_go_and_the_repository_is_still_whole(store: AdapterStore, make: Make) -> None:
    for number in range(6):
        store.add("default", make(f"v{number}"))
    assert store.numbers() == [4, 5, 6, 7]
    assert served(store) == {"default": "mini-v5"}
    for name in ("v4", "v3", "v2"):
        store.rollback()
        assert served(store) == {"default": f"mini-{name}"}
    with pytest.raises(UsageError, match="version 3 is not kept any more; 3 changes can be taken back"):
        store.rollback()


@pytest.mark.parametrize(
    ("fits", "text"),
    [
        ({"encoder": "0" * 64}, "encoder: weights 000000000000, and the repository has weights eeeeeeeeeeee"),
        ({"soft_prompt_tokens": 5}, "soft_prompt_tokens: 5, and the repository has 4"),
        ({"pooling": "cls"}, 'pooling: "cls", and the repository has "mean"'),
        ({"precision": "int8"}, 'precision: "int8", and the repository has "fp32"'),
        ({"newer": 1}, "newer: 1, and the repository has null"),
        ({"memory_prompts": 3}, "memory_prompts: 3, and the repository has 0"),  # of an earlier version
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    store: AdapterStore, make: Make, fits: dict[str, Any], text: str
) -> None:
    with pytest.raises(ServeError, match="does not fit") as caught:
        store.add("team", make("other", **fits))
    assert text in caught.value.message
    assert store.numbers() == [1]


def test_an_adapter_that_an_earlier_version_exported_fits(store: AdapterStore, make: Make) -> None:
    store.add("team", make("earlier", memory_prompts=0))
    assert store.numbers() == [1, 2]


def broken_graph(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(b"\0" * len(data))


def other_graph(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data.replace(b"adapter", b"ADAPTER"))


def no_graph(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def no_record(folder: Path) -> None:
    (folder / "adapter.json").unlink()


def odd_record(folder: Path) -> None:
    (folder / "adapter.json").write_text('{"format": "one"}')


def older_record(folder: Path) -> None:
    record = json.loads((folder / "adapter.json").read_text())
    (folder / "adapter.json").write_text(json.dumps(record | {"format": 1}))


def cut_graph(folder: Path) -> None:
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (broken_graph, r"cannot be run"),
        (other_graph, r"its sha256 is not that of adapter\.json"),
        (no_graph, r"holds no exported adapter \(model\.onnx is missing\)"),
        (no_record, r"holds no exported adapter \(adapter\.json is missing\)"),
        (odd_record, r"cannot be read: format: Input should be a valid integer"),
        (older_record, r"format 1, and this version reads 3; export it again"),
        (cut_graph, r"bytes, and adapter\.json says"),
    ],
)
def test_a_damaged_adapter_is_refused(
    store: AdapterStore, make: Make, damage: Callable[[Path], None], text: str
) -> None:
    folder = make("a")
    damage(folder)
    with pytest.raises(ServeError, match=text):
        store.add("team", folder)
    assert store.numbers() == [1]
    assert not list(store.repository.glob("projector/.building-*"))


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "..", "a b", "x" * 65, "é"])
def test_what_can_be_no_name_is_refused(store: AdapterStore, make: Make, name: str) -> None:
    with pytest.raises(UsageError, match="adapter must be a name of at most 64"):
        store.add(name, make("a"))


def test_the_default_stays_and_only_what_is_there_is_removed(store: AdapterStore) -> None:
    with pytest.raises(UsageError, match="default cannot be removed"):
        store.remove("default")
    with pytest.raises(UsageError, match=r"no adapter 'team' in .*; there are default"):
        store.remove("team")


def test_a_repository_that_cannot_be_written_is_served_and_not_changed(store: AdapterStore, make: Make) -> None:
    (store.repository / "projector" / ".lock").mkdir()  # as root, a test has no other way
    with pytest.raises(ServeError, match="cannot be changed: ") as caught:
        store.add("team", make("a"))
    assert "only where the repository can be written" in caught.value.hint
    assert served(store) == {"default": "mini-first"}


def add_and_die(repository: Path, exported: Path, at: str) -> None:
    """Add an adapter, and be killed at one of the steps on the way."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if at == "rename":
        module.Path.rename = die  # type: ignore[method-assign]
    else:
        setattr(module, at, die)
    AdapterStore(repository).add("team", exported)


@pytest.mark.parametrize("at", ["_link", "_to_disk", "rename"])
def test_an_add_that_is_killed_leaves_the_repository_as_it_was(store: AdapterStore, make: Make, at: str) -> None:
    folder = make("a")
    process = multiprocessing.get_context("fork").Process(target=add_and_die, args=(store.repository, folder, at))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list(store.repository.glob("projector/.building-*"))
    assert served(store) == {"default": "mini-first"}
    store.add("team", folder)
    assert served(store) == {"default": "mini-first", "team": "mini-a"}
    assert not list(store.repository.glob("projector/.building-*"))


def test_changes_at_the_same_time_come_one_after_the_other(repository: Path, make: Make) -> None:
    folders = [make(f"v{number}") for number in range(4)]
    threads = [
        threading.Thread(target=lambda n=n: AdapterStore(repository).add(f"team{n}", folders[n])) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served(AdapterStore(repository)).keys() == {"default", "team0", "team1", "team2", "team3"}


def test_a_file_that_was_changed_later_is_found_before_the_start(store: AdapterStore, make: Make) -> None:
    version = store.add("team", make("a"))
    (version.folder_of("team") / "model.onnx").unlink()
    with pytest.raises(ServeError, match=r"holds no complete export; missing:\s.*model\.onnx is missing"):
        check_repository(store.repository)


def test_a_repository_without_adapters_is_told(tmp_path: Path) -> None:
    (tmp_path / "echo").mkdir()
    (tmp_path / "echo" / "config.pbtxt").write_text("")
    with pytest.raises(ServeError, match=r"so it has no adapters: its T5 writes by itself \(export --no-adapter\)"):
        AdapterStore(tmp_path)


def test_a_run_is_exported_where_its_weights_are_the_first_or_the_newest_default(
    store: AdapterStore, make: Make, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    weights.write_text("trained further")
    assert not is_exported(weights, store.repository)
    refuse_to_drop_adapters(tmp_path, store.repository)
    folder = make("b")
    record = json.loads((folder / "adapter.json").read_text())
    record["weights"]["sha256"] = sha256(weights)
    (folder / "adapter.json").write_text(json.dumps(record))
    store.add("default", folder)
    assert is_exported(weights, store.repository)
    store.add("team", make("c"))
    with pytest.raises(ServeError, match=r"has the adapters team and 3 versions .*which a new export would drop"):
        refuse_to_drop_adapters(tmp_path, store.repository)


def test_a_server_that_is_not_there_leaves_the_repository_as_it_was(store: AdapterStore, make: Make) -> None:
    with (
        Client("grpc://127.0.0.1:9") as client,
        pytest.raises(ServeError, match="version 2 was not loaded and is withdrawn") as caught,
    ):
        promote(store, lambda: store.add("team", make("a")), client)
    assert "--offline only writes" in caught.value.hint
    assert store.numbers() == [1]


def run(store: AdapterStore, *arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--repository", str(store.repository)])


def test_the_command_offline(store: AdapterStore, make: Make) -> None:
    done = run(store, "add", "team", "--adapter", make("a"), "--offline", "--json")
    assert json.loads(done.stdout) == {"adapter": "team", "version": 2, "previous": 1, "model_version": "mini-a"}
    listed = json.loads(run(store, "list", "--offline", "--json").stdout)
    assert (listed["version"], listed["live"]) == (2, None)
    assert listed["adapters"] == {"default": "mini-first", "team": "mini-a"}
    assert [v["version"] for v in listed["versions"]] == [1, 2]
    done = run(store, "rollback", "--offline", "--json")
    assert json.loads(done.stdout) == {"adapter": "team", "version": 3, "previous": 2, "model_version": None}
    done = run(store, "list", "--offline")
    assert done.exit_code == 0
    assert "mini-first" in done.output
    assert "no server was asked" in done.output


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["remove", "default", "--offline"], 2, "default cannot be removed"),
        (["add", "a b", "--adapter", ".", "--offline"], 2, "adapter must be a name"),
        (["add", "a", "--adapter", "nowhere", "--offline"], 2, "no such folder"),
        (["rollback", "--offline"], 2, "nothing to go back to"),
        (["rollback", "--url", "ftp://x"], 2, "--url: "),
    ],
)
def test_the_command_refuses(store: AdapterStore, arguments: list[str], code: int, text: str) -> None:
    done = run(store, *arguments)
    assert done.exit_code == code
    assert text in " ".join(done.output.split())


def test_a_repository_with_one_adapter_is_served_and_its_adapters_stay(repository: Path, make: Make) -> None:
    version = repository / "projector" / "1"
    for file in (version / "adapters" / "default").iterdir():
        file.rename(version / file.name)
    shutil.rmtree(version / "adapters")
    manifest = json.loads((repository / "manifest.json").read_text())
    manifest["artifacts"] = {
        name.replace("adapters/default/", ""): entry for name, entry in manifest["artifacts"].items()
    }
    (repository / "manifest.json").write_text(json.dumps(manifest))
    checked = check_repository(repository, verify=True)
    assert adapter_versions(repository, checked) == {"default": "mini-first"}
    for command in (["list"], ["add", "team", "--adapter", make("a")], ["remove", "team"], ["rollback"]):
        refused = CliRunner().invoke(app, [*map(str, command), "--repository", str(repository), "--offline"])
        assert refused.exit_code == 1
        assert "has one adapter" in refused.output
        assert "export with --backend python" in refused.output
    (version / "model.onnx").unlink()
    with pytest.raises(ServeError, match=r"model\.onnx is missing"):
        check_repository(repository)


def test_who_waits_for_another_change_can_be_stopped(repository: Path, store: AdapterStore) -> None:
    asked: list[bool] = []

    def should_stop() -> bool:
        asked.append(True)
        return len(asked) > 2

    waiting = AdapterStore(repository, should_stop)
    with store.changing(), pytest.raises(StopRequestedError):
        settle(waiting, lambda probe: None)
    assert len(asked) == 3
    assert settle(waiting, lambda probe: None) == [], "nobody holds it any more"


@pytest.mark.parametrize("answers", [True, False])
def test_a_broken_off_change_in_a_repository_that_is_only_read_is_probed_and_stays(
    store: AdapterStore, make: Make, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    class Killed(BaseException):
        """SIGKILL, as far as files go."""

    class Dies:
        def load_adapters(self) -> None:
            raise Killed

    with pytest.raises(Killed):
        promote(store, lambda: store.add("team", make("second")), Dies())  # type: ignore[arg-type]
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))
    monkeypatch.setattr(AdapterStore, "changing", lambda self: pytest.fail("it is written"))
    probed: list[object] = []

    def ask(probe: object) -> None:
        probed.append(probe)
        if not answers:
            raise ProbeError("no answer")

    if answers:
        assert settle(store, ask) == []
    else:
        with pytest.raises(ProbeError):
            settle(store, ask)
    assert len(probed) == 1
    assert store.newest().number == 2


# Published ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "object store"])
def test_what_is_published_is_read_back_and_old_files_go(
    kind: str, repository: Path, make: Make, tmp_path: Path
) -> None:
    place = PublishedAdapters(f"memory://{tmp_path.name}" if kind == "object store" else str(tmp_path / "place"))
    store = AdapterStore(repository)
    assert place.read() is None
    stranger = f"{place._root}/{'0' * 64}"  # of somebody else, with a name like ours
    place._files.makedirs(stranger)
    place._files.pipe_file(f"{stranger}/blob", b"theirs")
    for number, name in enumerate(("a", "b", "c")):
        version = store.add("default", make(name, number + 1.0))
        published = place.publish(version)
        assert place.read() == published
        target = tmp_path / f"fetched-{name}"
        target.mkdir()
        place.fetch(published.adapters["default"], target)
        for file in ("model.onnx", "adapter.json"):
            assert (target / file).read_bytes() == (version.folder_of("default") / file).read_bytes()
    files, root = place._files, place._root
    assert len([path for path in files.ls(root, detail=False) if len(Path(path).name) == 64]) == 2 + 1  # now and before
    assert files.cat_file(f"{stranger}/blob") == b"theirs"
    files.pipe_file(f"{root}/published.json", b"{")  # by a publisher that was killed
    assert place.publish(store.newest()).adapters == published.adapters


def test_what_is_not_as_listed_is_refused(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "place"
    place = PublishedAdapters(str(folder))
    published = place.publish(AdapterStore(repository).newest())
    digest = published.adapters["default"]
    (folder / digest / "model.onnx").write_bytes(b"another")
    with pytest.raises(ServeError, match=r"model\.onnx: its sha256 is not that of adapter\.json"):
        place.fetch(digest, tmp_path)
    (folder / digest / "adapter.json").write_bytes(b"{}")
    with pytest.raises(ServeError, match=r"adapter\.json: its sha256 is not that of published\.json"):
        place.fetch(digest, tmp_path)
    (folder / digest / "adapter.json").unlink()
    with pytest.raises(ServeError, match="not there whole"):
        place.fetch(digest, tmp_path)
    (folder / "published.json").write_text('{"format": 99, "adapters": {}}')
    with pytest.raises(ServeError, match="format 99 with the adapters \\(none\\); this version reads"):
        place.read()
    for wrong in ("{", '{"adapters": {"default": "../../etc"}}', '{"adapters": {"../x": "' + digest + '"}}'):
        (folder / "published.json").write_text(wrong)
        with pytest.raises(ServeError, match="is no list of adapters"):
            place.read()


@pytest.mark.parametrize("url", ["nonsense://bucket/adapters", "s3://bucket/adapters"])
def test_an_address_that_nothing_here_reads_is_told_without_its_credentials(url: str) -> None:
    with pytest.raises(ServeError, match=f"^{url} cannot be read: "):
        PublishedAdapters(url.replace("//", "//key:secret@"))


def test_the_copy_of_a_server_that_was_killed_goes_with_the_next_start(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(adapter_watch, "LEFT_S", -1.0)
    left = tmp_path / f"{adapter_watch.OWN_PREFIX}left"
    left.mkdir()
    with adapter_watch.with_own_adapters(repository) as running, adapter_watch.with_own_adapters(repository) as own:
        assert running.is_dir()
        assert own.is_dir()
        assert not left.exists()
    assert not [*tmp_path.glob(f"{adapter_watch.OWN_PREFIX}*")]
