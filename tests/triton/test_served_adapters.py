"""Several adapters on one server: which one answers, how they come and go while it serves, that nothing is mixed."""

import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from typer.testing import CliRunner

from neuro_latent_client import AccessDeniedError, Client, InvalidRequestError, ServedAdapter
from neuro_latent_core.protocol import OWN_HEADER
from neuro_latent_core.repository import sha256
from neuro_latent_export.repository import export_adapter
from neuro_latent_serving.adapters.access import find_access
from neuro_latent_serving.adapters.adapter_store import AdapterStore, Version
from neuro_latent_serving.adapters.cli import app
from neuro_latent_serving.adapters.promotion import promote
from neuro_latent_serving.launch import FREE_PORTS, ServeError, ServerConfig, TritonServer
from neuro_latent_trainer.model import PromptOptimizer
from tests import tiny
from tests.triton import wire
from tests.triton.conftest import through_gateway

pytestmark = pytest.mark.server

TOKENS = 16
CLIENTS = 16
COMMAND = Path(sys.executable).parent / "neuro-latent"
NAMES = ("default", "team", "style.2")


@dataclasses.dataclass(frozen=True)
class Exported:
    """An adapter as torch has it and as export writes it."""

    trained: Path
    folder: Path
    model_version: str
    texts: dict[str, str]  # by prompt


@pytest.fixture(scope="module")
def exported(
    adapter: Path, pair: Any, prompts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Exported]:
    """Three adapters of one pair; ``default`` is the one that the shared repository was exported with."""
    made = {}
    for seed, name in enumerate(NAMES):
        root = tmp_path_factory.mktemp(f"adapter{seed}")
        trained = tiny.write_adapter(root / "adapter", pair.encoder, pair.generator, seed=seed) if seed else adapter
        record = export_adapter(trained, root / "exported")
        texts = PromptOptimizer.from_pretrained(trained).generate(prompts, TOKENS)
        made[name] = Exported(
            trained, root / "exported", record["model_version"], dict(zip(prompts, texts, strict=True))
        )
    columns = zip(*(one.texts.values() for one in made.values()), strict=True)
    assert sum(len(set(column)) == len(NAMES) for column in columns) > 20, "the adapters must write different texts"
    return made


@pytest.fixture(scope="module")
def own(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that may be changed, in which an add was killed half-way, at a path that a shell does not take."""
    folder = tmp_path_factory.mktemp("own") / "a$(touch ran) b'é测试"
    shutil.copytree(repository, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "projector" / ".building-killed" / "adapters" / "team").mkdir(parents=True)
    (folder / "projector" / ".building-killed" / "adapters" / "team" / "model.onnx").write_bytes(b"half")
    return folder


@pytest.fixture(scope="module")
def server(own: Path) -> Iterator[TritonServer]:
    with TritonServer(own, ServerConfig(ports=FREE_PORTS, drain_timeout=3, environment=wire.PLAIN)) as running:
        yield running


@pytest.fixture(scope="module")
def grpc(server: TritonServer) -> Iterator[Client]:
    with Client(server.grpc_url, timeout=wire.TIMEOUT) as client:
        yield client


@pytest.fixture(scope="module")
def http(server: TritonServer) -> Iterator[Client]:
    with Client(server.http_url, timeout=wire.TIMEOUT) as client:
        yield client


@pytest.fixture(scope="module")
def rest(server: TritonServer) -> Iterator[Client]:
    with through_gateway(server) as client:
        yield client


@pytest.fixture
def adapters(server: TritonServer, own: Path, exported: dict[str, Exported]) -> dict[str, Exported]:
    """All three are served."""
    newest = AdapterStore(own).newest()
    for name, one in exported.items():
        if name not in newest.adapters or newest.adapters[name].model_version != one.model_version:
            change(server, own, "add", name, "--adapter", one.folder)
    return exported


def change(server: TritonServer, repository: Path, *arguments: object) -> dict[str, Any]:
    """``neuro-latent adapters``; its JSON line."""
    words = [*map(str, arguments), "--repository", str(repository), "--url", server.grpc_url, "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def ask(client: Client, prompt: str, *, streamed: bool = False, **options: Any) -> tuple[str, str]:
    """The text, and the version that it says has made it."""
    if not streamed:
        answer = client.optimize(prompt, max_length=TOKENS, **options)
        return answer.text, answer.model_version
    with client.stream(prompt, max_length=TOKENS, **options) as stream:
        text = "".join(piece.text for piece in stream)
    assert text == stream.result.text
    return text, stream.result.model_version


def test_adapters_are_added_and_removed_while_the_server_serves(
    server: TritonServer, own: Path, exported: dict[str, Exported], client: Client, prompts: list[str]
) -> None:
    before = change(server, own, "list")
    assert before["adapters"].keys() == {"default"}
    assert client.adapters() == (ServedAdapter("default", exported["default"].model_version),)
    assert before["live"] == before["version"]
    with pytest.raises(InvalidRequestError, match=r"adapter 'team' is not known here; known are default \("):
        ask(client, prompts[0], adapter="team")
    added = change(server, own, "add", "team", "--adapter", exported["team"].folder)
    assert added == {
        "adapter": "team",
        "version": before["version"] + 1,
        "previous": before["version"],
        "model_version": exported["team"].model_version,
    }
    assert [adapter.name for adapter in client.adapters()] == ["default", "team"]
    assert client.adapters()[1].version == added["model_version"]
    assert not list(own.glob("projector/.building-*")), "what a killed add has left"
    for name, streamed in itertools.product((None, "", "default", "team"), (False, True)):
        one = exported[name or "default"]
        assert ask(client, prompts[1], adapter=name, streamed=streamed) == (one.texts[prompts[1]], one.model_version)
    removed = change(server, own, "remove", "team")
    assert (removed["version"], removed["model_version"]) == (added["version"] + 1, None)
    for streamed in (False, True):
        with pytest.raises(InvalidRequestError, match="adapter 'team' is not known here"):
            ask(client, prompts[0], adapter="team", streamed=streamed)
    with urllib.request.urlopen(f"{server.http_url}/v2/health/ready", timeout=10) as ready:
        assert ready.status == 200
    assert client.health().ready
    assert [adapter.name for adapter in client.adapters()] == ["default"]


@pytest.mark.parametrize("route", wire.ROUTES)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no-such", "adapter 'no-such' is not known here; known are default, style.2, team"),
        ("../default", "adapter must be a name of at most 64 letters, digits, '.', '_' and '-'"),
        ("x" * 65, "adapter must be a name of at most 64"),
    ],
)
def test_a_name_that_is_not_there_is_refused_on_every_route(
    server: TritonServer, adapters: dict[str, Exported], route: str, name: str, text: str
) -> None:
    answer = wire.ask(server, route, {"raw_prompt": "Create a function", "max_length": 4, "adapter": name})
    assert isinstance(answer, wire.Refusal), answer
    assert answer.status == {"grpc infer": "StatusCode.INVALID_ARGUMENT", "grpc stream": None}.get(route, 400)
    assert text in answer.text


@pytest.mark.parametrize("route", ["grpc infer", "http infer", "http generate"])
def test_the_rows_of_a_batch_may_have_different_adapters(
    server: TritonServer, adapters: dict[str, Exported], prompts: list[str], route: str
) -> None:
    names = [NAMES[row % 3] for row in range(12)]
    values = {"raw_prompt": prompts[:12], "max_length": [TOKENS] * 12, "adapter": names}
    (answer,) = wire.ask(server, route, values)
    assert answer["enhanced_prompt"] == [
        adapters[name].texts[prompt] for name, prompt in zip(names, prompts[:12], strict=True)
    ]
    assert answer["adapter_version"] == [adapters[name].model_version for name in names]


def test_requests_of_different_adapters_decode_together(
    server: TritonServer, adapters: dict[str, Exported], client: Client, prompts: list[str]
) -> None:
    def counters() -> dict[str, float]:
        time.sleep(1.2)  # they are told twice a second
        text = urllib.request.urlopen(server.metrics_url, timeout=10).read().decode()
        return {name: float(value) for name, value in re.findall(r"^neuro_latent_(\w+)\{.*\} (\S+)$", text, re.M)}

    cases = list(itertools.product(prompts, NAMES, (False, True)))
    before = counters()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda case: ask(client, case[0], adapter=case[1], streamed=case[2]), cases))
    after = counters()
    for (prompt, name, _), answer in zip(cases, answers, strict=True):
        assert answer == (adapters[name].texts[prompt], adapters[name].model_version)
    rows, steps = (after[name] - before[name] for name in ("step_rows_total", "steps_total"))
    assert rows > 2 * steps, "texts a step; there are three adapters, so two of a step have different ones"


class Load:
    """16 clients that ask all the time, half of them for streams; every answer must be the text of its version."""

    def __init__(self, server: TritonServer, texts: dict[str, dict[str, str]], prompts: list[str]) -> None:
        self.wrong: list[object] = []
        self.answers: Counter[str] = Counter()
        self._stop = threading.Event()
        self._texts, self._prompts = texts, prompts
        self._threads = [threading.Thread(target=self._ask, args=(server, n), daemon=True) for n in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(wire.TIMEOUT)
        assert not self.wrong, self.wrong[:3]

    def _ask(self, server: TritonServer, number: int) -> None:
        url = (server.grpc_url, server.http_url)[number % 2]
        with Client(url, timeout=wire.TIMEOUT, retries=0) as client:
            for turn in itertools.count(number):
                if self._stop.is_set():
                    return
                prompt = self._prompts[turn % len(self._prompts)]
                try:
                    text, version = ask(client, prompt, streamed=number % 4 < 2)
                    if text != self._texts[version][prompt]:
                        self.wrong.append((version, prompt, text))
                    self.answers[version] += 1
                except Exception as error:
                    self.wrong.append(error)


def projectors(server: TritonServer) -> int:
    """How many processes hold a version of the projector."""
    return sum("projector" in " ".join(p.cmdline()) for p in psutil.Process(server.pid).children(recursive=True))


def test_promotion_and_rollback_under_load_fail_no_request_and_mix_nothing(
    server: TritonServer, own: Path, adapters: dict[str, Exported], prompts: list[str]
) -> None:
    a, b = adapters["default"], adapters["team"]
    with Load(server, {one.model_version: one.texts for one in (a, b)}, prompts) as load:
        for _ in range(2):
            assert change(server, own, "add", "default", "--adapter", b.folder)["model_version"] == b.model_version
            seen = load.answers[b.model_version]
            time.sleep(0.5)
            assert load.answers[b.model_version] > seen
            assert change(server, own, "rollback")["model_version"] == a.model_version
            time.sleep(0.5)
    assert min(load.answers[one.model_version] for one in (a, b)) > CLIENTS
    deadline = time.monotonic() + 20
    while projectors(server) > 1 and time.monotonic() < deadline:  # the requests of the old one end first
        time.sleep(0.1)
    assert projectors(server) == 1
    assert len(AdapterStore(own).numbers()) <= 5, "the newest, the one before, three to go back to"


def test_a_version_that_does_not_load_or_answer_is_taken_back(
    server: TritonServer, own: Path, adapters: dict[str, Exported], prompts: list[str]
) -> None:
    store, b = AdapterStore(own), adapters["team"]

    def broken() -> Version:
        version = store.add("default", b.folder)
        graph = version.folder_of("default") / "model.onnx"
        graph.unlink()  # it has other names in other versions
        graph.write_bytes(b"broken")
        return version

    def another() -> Version:
        version = store.add("default", b.folder)
        record = version.adapters["default"].model_copy(update={"model_version": "another"})
        return dataclasses.replace(version, adapters={**version.adapters, "default": record})

    number = store.newest().number
    access = find_access(server.grpc_url)
    assert access is not None
    assert {model.name for model in server.models} > {"neuro_latent_optimizer", "t5_decoder"}
    with Client(access.http, timeout=wire.TIMEOUT, headers={OWN_HEADER: access.secret}) as client:
        with pytest.raises(ServeError, match=r"was not loaded and is withdrawn: .*6 bytes, and adapter\.json says"):
            promote(store, broken, client)
        assert store.newest().number == number
        assert ask(client, prompts[0]) == (adapters["default"].texts[prompts[0]], adapters["default"].model_version)
        with pytest.raises(
            ServeError, match=rf"answered by {b.model_version}, not by another; version {number + 2} has"
        ):
            promote(store, another, client)
        assert ask(client, prompts[0]) == (adapters["default"].texts[prompts[0]], adapters["default"].model_version)


def never_sure(folder: Path) -> None:
    """Give an adapter a graph that runs when it is added, and whose gate is no number for the embedding of a prompt."""
    model = onnx.load(folder / "model.onnx")
    for node in model.graph.node:
        node.output[:] = ["old_gate" if name == "gate" else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    model.graph.node.extend(
        [
            onnx.helper.make_node("Sub", ["raw_embedding", "half"], ["above"]),
            onnx.helper.make_node("Log", ["above"], ["logs"]),
            onnx.helper.make_node("ReduceSum", ["logs"], ["sum"], keepdims=0),
            onnx.helper.make_node("Add", ["old_gate", "sum"], ["gate"]),
        ]
    )
    onnx.save(model, folder / "model.onnx")
    record = json.loads((folder / "adapter.json").read_text())
    record["graph"] = {
        "sha256": sha256(folder / "model.onnx"),
        "bytes": (folder / "model.onnx").stat().st_size,
    }
    (folder / "adapter.json").write_text(json.dumps(record))


def test_what_a_killed_add_has_published_is_probed_before_it_is_served(
    own: Path, exported: dict[str, Exported], tmp_path: Path
) -> None:
    class Killed(BaseException):
        """SIGKILL, as far as files go: nothing is taken back."""

    class Dies:
        def load_adapters(self) -> None:
            raise Killed

    bad = tmp_path / "bad"
    shutil.copytree(exported["team"].folder, bad)
    never_sure(bad)
    folder = tmp_path / "repository"
    shutil.copytree(own, folder, ignore=shutil.ignore_patterns("__pycache__"))
    store = AdapterStore(folder)
    before = store.newest()
    with pytest.raises(Killed):
        promote(store, lambda: store.add("default", bad), Dies())  # type: ignore[arg-type]
    assert store.newest().number == before.number + 1
    arguments = ["serve", "--repository", folder, "--no-gateway", "--json"]
    for port in ("http", "grpc", "metrics"):
        arguments += [f"--{port}-port", 0]
    with subprocess.Popen([COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline() or "{}")
        process.terminate()
    assert facts.get("model_version") == before.adapters["default"].model_version
    assert store.newest().number == before.number
    assert store.unprobed() is None


def test_a_training_run_is_exported_and_added_by_the_command(
    server: TritonServer, own: Path, adapters: dict[str, Exported], grpc: Client, prompts: list[str]
) -> None:
    one = adapters["style.2"]
    arguments = ["adapters", "add", "default", "--adapter", one.trained.parent]  # a run holds its adapter in adapter/
    arguments += ["--repository", own, "--url", server.http_url, "--json"]
    done = subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    number = AdapterStore(own).newest().number
    assert json.loads(line) == {
        "adapter": "default",
        "version": number,
        "previous": number - 1,
        "model_version": one.model_version,
    }
    assert ask(grpc, prompts[0]) == (one.texts[prompts[0]], one.model_version)


def test_no_page_of_a_web_site_can_load_a_model(server: TritonServer) -> None:
    status, text = wire.post(server, "/v2/repository/models/projector/load", b"{}")
    assert (status, "neuro-latent" in text) == (403, True)


def test_replicas_take_what_is_published_and_refuse_what_does_not_answer(
    repository: Path, exported: dict[str, Exported], prompts: list[str], tmp_path: Path
) -> None:
    """Two servers on a network, of one repository that they only read; promotion and rollback are files."""
    desk, place = tmp_path / "desk", tmp_path / "published"
    shutil.copytree(repository, desk, ignore=shutil.ignore_patterns("__pycache__"))
    store = AdapterStore(desk)
    a, b = exported["default"], exported["team"]

    def publish() -> None:
        done = CliRunner().invoke(app, ["publish", str(place), "--repository", str(desk)], catch_exceptions=False)
        assert done.exit_code == 0, done.output

    def told(text: str) -> None:
        """Both have said something, within seconds."""
        deadline = time.monotonic() + 20
        while not all(text in " ".join(log.read_text().split()) for log in logs) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert all(text in " ".join(log.read_text().split()) for log in logs), [log.read_text() for log in logs]

    store.add("team", b.folder)
    publish()
    before = AdapterStore(repository).numbers()
    ports = "--http-port 0 --grpc-port 0 --metrics-port 0"
    options = f"--host 0.0.0.0 {ports} --no-gateway --no-guard --min-confidence 0 --json --watch-every 0.2".split()
    command = [COMMAND, "serve", "--repository", repository, "--watch-adapters", place, *options]
    with ExitStack() as stack:
        logs = [tmp_path / f"log{i}" for i in range(2)]
        replicas = []
        for log in logs:
            stderr = stack.enter_context(log.open("w"))
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True))
            stack.callback(process.terminate)
            assert process.stdout is not None
            facts = json.loads(process.stdout.readline() or "{}")
            assert facts["adapters"] == {"default": a.model_version, "team": b.model_version}
            replicas.append(stack.enter_context(Client(facts["grpc"], timeout=wire.TIMEOUT)))
            with Client(facts["http"]) as stranger, pytest.raises(AccessDeniedError):
                stranger.load_adapters()

        def answers(name: str) -> set[tuple[str, str]]:
            return {ask(client, prompts[0], adapter=name) for client in replicas}

        assert answers("team") == {(b.texts[prompts[0]], b.model_version)}

        store.add("default", b.folder)
        store.remove("team")
        publish()
        told(f"adapters default {b.model_version} (from")
        assert answers("default") == {(b.texts[prompts[0]], b.model_version)}
        with pytest.raises(InvalidRequestError, match="'team' is not known"):
            answers("team")

        bad = tmp_path / "bad"
        shutil.copytree(exported["style.2"].folder, bad)
        never_sure(bad)
        store.add("default", bad)
        store.add("team", b.folder)  # is served all the same
        publish()
        told("the probe of adapter default")
        assert answers("team") == {(b.texts[prompts[0]], b.model_version)}
        assert answers("default") == {(b.texts[prompts[0]], b.model_version)}

        store.remove("team")
        store.add("default", exported["style.2"].folder)
        publish()
        told(f"adapters default {exported['style.2'].model_version} (from")
        (place / "published.json").write_text("{")
        told("is no list of adapters")
        assert answers("default") == {(exported["style.2"].texts[prompts[0]], exported["style.2"].model_version)}
    assert AdapterStore(repository).numbers() == before
