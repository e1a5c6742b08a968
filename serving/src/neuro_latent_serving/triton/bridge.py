"""The way from ``t5_decoder_unary`` to the engine in ``t5_decoder``: a local socket between the two stub processes.

Triton's own way (BLS) is not used: with a decoupled model and several threads it crashes the python stub of Triton
24.10 (segmentation fault after some hundred requests). The socket has an abstract name, so nothing is left behind.
"""

import io
import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import numpy as np

from neuro_latent_serving.engine import Event
from neuro_latent_serving.engine.decoder import Floats, Ids
from neuro_latent_serving.errors import EngineBusy, EngineClosed, InvalidInput, ServingError
from neuro_latent_serving.triton.messages import log

BACKLOG = 256
ERRORS: dict[str, type[ServingError]] = {e.__name__: e for e in (InvalidInput, EngineBusy, EngineClosed)}


@dataclass(frozen=True)
class DecodeRequest:
    """One row to decode: T5 encoder states [Q, D], T5's mask of the prompt [S], the prompt, its given options."""

    hidden_QD: Floats
    t5_mask_S: Ids
    raw_prompt: str
    options: dict[str, Any]
    request_id: str


Submit = Callable[[DecodeRequest, Callable[[Event], None], Callable[[ServingError | None], None]], None]


def address() -> str:
    """Both stubs are children of one tritonserver, whose process id makes the name unique on a machine."""
    return f"\0neuro-latent-engine-{os.getppid()}"


def decode(request: DecodeRequest) -> list[Event]:
    """Have the engine decode a request; waits, and returns the last event of each text, in their order.

    Raises:
        ServingError: what the engine raised, in the same class.
        OSError, EOFError: the engine's process is not there, or went away.
    """
    with Client(address(), family="AF_UNIX") as connection:
        connection.send_bytes(_pack(request))
        answer = json.loads(connection.recv_bytes())
    if "error" in answer:
        raise ERRORS.get(answer["kind"], ServingError)(answer["error"])
    return [Event(**event) for event in answer["events"]]


def serve(submit: Submit) -> None:
    """Answer :func:`decode` from now on, on threads of this process, until it ends."""
    listener = Listener(address(), family="AF_UNIX", backlog=BACKLOG)

    def accept() -> None:
        while True:
            connection = listener.accept()
            threading.Thread(target=_answer, args=(connection, submit), name="unary", daemon=True).start()

    threading.Thread(target=accept, name="bridge", daemon=True).start()


def _answer(connection: Connection, submit: Submit) -> None:
    ended = threading.Event()
    events: list[Event] = []
    errors: list[ServingError] = []

    def on_event(event: Event) -> None:
        if event.finish_reason:
            events.append(event)

    def on_end(error: ServingError | None) -> None:
        if error is not None:
            errors.append(error)
        ended.set()

    with connection:
        try:
            submit(_unpack(connection.recv_bytes()), on_event, on_end)
            ended.wait()
        except ServingError as error:
            errors.append(error)
        except Exception:
            log.exception("a unary request failed")
            errors.append(ServingError("internal error; the server's log has the details"))
        if errors:
            answer: dict[str, Any] = {"error": str(errors[0]), "kind": type(errors[0]).__name__}
        else:
            events.sort(key=lambda event: event.sequence_index)
            answer = {"events": [asdict(event) for event in events]}
        try:
            connection.send_bytes(json.dumps(answer).encode())
        except OSError:
            log.warning("a unary answer could not be delivered")


def _pack(request: DecodeRequest) -> bytes:
    buffer = io.BytesIO()
    rest = {"raw_prompt": request.raw_prompt, "options": request.options, "request_id": request.request_id}
    text = np.frombuffer(json.dumps(rest).encode(), dtype=np.uint8)
    np.savez(buffer, hidden=request.hidden_QD, mask=request.t5_mask_S, rest=text)
    return buffer.getvalue()


def _unpack(message: bytes) -> DecodeRequest:
    with np.load(io.BytesIO(message), allow_pickle=False) as arrays:
        return DecodeRequest(arrays["hidden"], arrays["mask"], **json.loads(arrays["rest"].tobytes()))
