"""The feedback model on a real server, alone in its repository: it needs nothing of an export."""

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from neuro_latent_core.protocol import FEEDBACK_INPUT_TYPES, FEEDBACK_MODEL, FEEDBACK_OUTPUT_TYPES
from neuro_latent_serving.feedback import FeedbackStore
from neuro_latent_serving.feedback.feedback_store import TIMEOUT_S
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_serving.settings import FEEDBACK_SECRETS_VARIABLE, FEEDBACK_VARIABLE
from tests.triton import wire

pytestmark = pytest.mark.server

TEMPLATE = Path(__file__).parents[2] / "model_repository" / FEEDBACK_MODEL
GOOD = {"request_id": "r1", "raw_prompt": "Create a function", "enhanced_prompt": "Write é …", "rating": 1}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('feedback')}/feedback.sqlite3"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, url: str) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("repository")
    shutil.copytree(TEMPLATE, repository / FEEDBACK_MODEL)
    with TritonServer(
        repository,
        ServerConfig(ports=FREE_PORTS, environment={FEEDBACK_VARIABLE: url, FEEDBACK_SECRETS_VARIABLE: "refuse"}),
    ) as running:
        yield running


def send(server: TritonServer, transport: str, **values: Any) -> dict[str, Any]:
    """One row of feedback by tritonclient."""
    module = {"grpc": tritonclient.grpc, "http": tritonclient.http}[transport]
    inputs = []
    for name, value in values.items():
        kind = FEEDBACK_INPUT_TYPES[name]
        item = wire.as_bytes(value) if kind == "BYTES" else value
        inputs.append(module.InferInput(name, [1, 1], kind))
        inputs[-1].set_data_from_numpy(np.array([[item]], dtype=wire.DTYPES[kind]))
    address = {"grpc": server.grpc_address, "http": server.http_address}[transport]
    with module.InferenceServerClient(address) as client:
        answer = wire.flat(client.infer(FEEDBACK_MODEL, inputs))
    assert answer.keys() == FEEDBACK_OUTPUT_TYPES.keys()
    return {name: value for name, (value,) in answer.items()}


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_feedback_is_stored_once(server: TritonServer, url: str, transport: str) -> None:
    values = {**GOOD, "user": "ann", "edited_prompt": "Write ✓", "idempotency_key": transport}
    first, again = send(server, transport, **values), send(server, transport, **values)
    assert (first["created"], again["created"]) == (True, False)
    assert first["feedback_id"] == again["feedback_id"]
    assert first["idempotency_key"] == again["idempotency_key"] == transport
    store = FeedbackStore(url)
    (row,) = [row for row in store.records() if row.feedback_id == first["feedback_id"]]
    store.close()
    assert {name: getattr(row.feedback, name) for name in values} == values


def test_generate_takes_plain_json(server: TritonServer) -> None:
    answer = wire.generate(server, {**GOOD, "request_id": "by generate"}, FEEDBACK_MODEL)
    assert answer["created"] is True


@pytest.mark.parametrize("transport", ["grpc", "http"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rating": 5}, "rating must be 1 or -1, not 5"),
        ({"comment": "x" * 4097}, "comment has 4097 characters; the limit is 4096"),
        ({"user": b"\xff"}, "user is not valid UTF-8"),
        ({"request_id": ""}, "request_id is empty"),
        ({"comment": "my DB_PASSWORD=Sup3rS3cret99"}, "a text of the feedback holds a secret"),
    ],
)
def test_a_bad_value_is_named(server: TritonServer, transport: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        send(server, transport, **{**GOOD, **change})
    assert caught.value.status() in ("StatusCode.INVALID_ARGUMENT", "400")


def test_an_unknown_field_is_refused(server: TritonServer) -> None:
    status, text = wire.post(server, f"/v2/models/{FEEDBACK_MODEL}/generate", {**GOOD, "coment": "x"})
    assert (status, "unknown input 'coment'" in text) == (400, True)


def test_no_log_tells_a_secret(server: TritonServer) -> None:
    with pytest.raises(InferenceServerException, match="holds a secret") as caught:
        send(server, "grpc", **{**GOOD, "edited_prompt": "my DB_PASSWORD=Sup3rS3cret99"})
    assert "Sup3rS3cret99" not in f"{caught.value}{server.log_text()}"
    assert "feedback with a secret was refused" in server.log_text()


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_ratings_behind_a_lock_wait_side_by_side(server: TritonServer, url: str, begin: str) -> None:
    def rate(number: int) -> tuple[float, str]:
        began = time.monotonic()
        with pytest.raises(InferenceServerException, match="try again later") as caught:
            send(server, "grpc", **{**GOOD, "request_id": f"{begin} {number}"})
        return time.monotonic() - began, caught.value.status()

    send(server, "grpc", **{**GOOD, "request_id": "before"})
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as holder:
        holder.execute(begin)
        with ThreadPoolExecutor(5) as threads:
            found = list(threads.map(rate, range(5)))
    assert {status for _, status in found} == {"StatusCode.UNAVAILABLE"}
    assert max(seconds for seconds, _ in found) < TIMEOUT_S + 4
    assert send(server, "grpc", **{**GOOD, "request_id": f"{begin} 0"})["created"]


def test_a_lost_or_damaged_file_on_a_running_server(server: TritonServer, url: str) -> None:
    file = Path(url.removeprefix("sqlite:///"))
    file.unlink()
    stored = send(server, "grpc", **{**GOOD, "request_id": "after the file was deleted"})
    store = FeedbackStore(url)
    assert [row.feedback_id for row in store.records()] == [stored["feedback_id"]]
    store.close()
    file.rename(whole := file.with_suffix(".whole"))
    file.write_bytes(b"no database" * 1000)
    for change in ({"request_id": "new"}, {"request_id": ""}):
        with pytest.raises(InferenceServerException, match="the database of the feedback is damaged") as caught:
            send(server, "grpc", **{**GOOD, **change})
        assert caught.value.status() == "StatusCode.INTERNAL"
    assert "file is not a database" in server.log_text()
    whole.replace(file)
    assert send(server, "grpc", **{**GOOD, "request_id": "new"})["created"]


def test_kill_9_of_the_server_loses_nothing_that_was_answered(server: TritonServer, url: str) -> None:
    answered = {send(server, "grpc", **{**GOOD, "request_id": f"kill {i}"})["feedback_id"] for i in range(20)}
    os.kill(server.pid, signal.SIGKILL)
    store = FeedbackStore(url)
    assert answered <= {row.feedback_id for row in store.records()}
    store.close()


def test_a_database_that_can_never_be_written_is_said(tmp_path: Path) -> None:
    shutil.copytree(TEMPLATE, tmp_path / "repository" / FEEDBACK_MODEL)
    (tmp_path / "file").touch()
    environment = {FEEDBACK_VARIABLE: f"sqlite:///{tmp_path}/file/feedback.sqlite3"}
    config = ServerConfig(ports=FREE_PORTS, environment=environment)
    with TritonServer(tmp_path / "repository", config) as running:
        for change in ({}, {"request_id": ""}):
            with pytest.raises(InferenceServerException, match="its operator has to make it writable") as caught:
                send(running, "grpc", **{**GOOD, **change})
            assert caught.value.status() == "StatusCode.INTERNAL"
