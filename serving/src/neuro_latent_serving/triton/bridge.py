"""The way from ``t5_decoder_unary`` to the engine in ``t5_decoder``: a local socket between the two stub processes.

Triton's own way (BLS) is not used: with a decoupled model and several threads it crashes the python stub of Triton
24.10 (segmentation fault after some hundred requests). The socket has an abstract name, so nothing is left behind.

The same socket tells when the engine's process has died. Triton does not notice: streams in flight would hang for ever
(tried with 24.10). So whoever watches ends the server, its clients get an error at once, and what has started the
server (``neuro-latent serve``, a container's restart policy) starts it again.
"""

import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import numpy as np

from neuro_latent_core.errors import InvalidInput, PublicError
from neuro_latent_core.protocol import RAW_PROMPT
from neuro_latent_serving.checks import check_prompt
from neuro_latent_serving.engine import Event
from neuro_latent_serving.engine.contract import Floats, Ids
from neuro_latent_serving.errors import EngineBusy, EngineClosed
from neuro_latent_serving.triton.messages import INTERNAL, array, given_rows, log, required

BACKLOG = 256
WATCH, BYE = b"watch", b"bye"
RECONNECT_S = 0.5
ERRORS: dict[str, type[PublicError]] = {e.__name__: e for e in (InvalidInput, EngineBusy, EngineClosed)}


@dataclass(frozen=True)
class DecodeRequest:
    """One row to decode: T5 encoder states [Q, D], T5's mask of the prompt [S], the projector's gate [4] (None where a
    T5 writes alone), the prompt, the options that were given, and when the tokenizer got it (monotonic seconds; None
    where nobody says)."""

    hidden_QD: Floats
    t5_mask_S: Ids
    gate_4: list[float] | None
    raw_prompt: str
    options: dict[str, Any]
    request_id: str
    asked: float | None


def decode_requests(request: Any) -> list[DecodeRequest]:
    """The rows of Triton's request to a decoder; copies, for the request's own memory is Triton's.

    Raises:
        InvalidInput: an input is missing, or has not one value a row.
    """
    hidden_BQD, mask_BS = required(request, "encoder_hidden_states"), required(request, "t5_mask")
    rows = len(hidden_BQD)
    options = [json.loads(row.get("options", b"{}")) for row in given_rows(request, ["options"], rows)]
    gate_B4, arrived_B1 = array(request, "gate"), array(request, "arrived_ns")
    if gate_B4 is not None and gate_B4.shape != (rows, 4):
        raise InvalidInput(f"gate must have shape [{rows}, 4], not {list(gate_B4.shape)}")
    if gate_B4 is not None and not np.isfinite(gate_B4).all():
        raise InvalidInput("gate holds values that are no numbers")
    if arrived_B1 is not None and arrived_B1.shape != (rows, 1):
        raise InvalidInput(f"arrived_ns must have shape [{rows}, 1], not {list(arrived_B1.shape)}")
    return [
        DecodeRequest(
            hidden_QD=np.array(hidden_BQD[row]),
            t5_mask_S=np.array(mask_BS[row]),
            gate_4=None if gate_B4 is None else gate_B4[row].tolist(),
            raw_prompt=check_prompt(prompt),
            options=options[row],
            request_id=request.request_id(),
            asked=None if arrived_B1 is None else _past(float(arrived_B1[0, 0]) / 1e9),
        )
        for row, prompt in enumerate(required(request, RAW_PROMPT)[:rows, 0])
    ]


def _past(seconds: float) -> float | None:
    """A time on the monotonic clock; None where it cannot be one of a request that has come."""
    return seconds if 0 < seconds <= time.monotonic() else None


Submit = Callable[[DecodeRequest, Callable[[Event], None], Callable[[PublicError | None], None]], None]


def address() -> str:
    """Both stubs are children of one tritonserver, whose process id makes the name unique on a machine."""
    return f"\0neuro-latent-engine-{os.getppid()}"


def _is_ours(connection: Connection) -> bool:
    """Whether a process of this same user is at the other end: an abstract socket has no permissions."""
    with socket.socket(fileno=os.dup(connection.fileno())) as other:
        credentials = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _process, user, _group = struct.unpack("3i", credentials)
    return bool(user == os.getuid())


def _connect() -> Connection:
    """A connection to the engine; an OSError where there is none, or another user has taken its name."""
    connection: Connection = Client(address(), family="AF_UNIX")
    if _is_ours(connection):
        return connection
    connection.close()
    raise ConnectionRefusedError("the engine's socket belongs to another user")


def decode(request: DecodeRequest) -> list[Event]:
    """Have the engine decode a request; waits, and returns the last event of each sequence, in their order.

    Raises:
        PublicError: what the engine raised, in the same class.
        OSError, EOFError: the engine's process is not there, or went away.
    """
    with _connect() as connection:
        connection.send_bytes(_pack(request))
        answer = json.loads(connection.recv_bytes())
    if "error" in answer:
        raise ERRORS.get(answer["kind"], PublicError)(answer["error"])
    return [Event(**event) for event in answer["events"]]


class Bridge:
    """The engine's side: answers :func:`decode` and holds the lines of :func:`watch`, on threads of its own."""

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._watchers: list[Connection] = []
        listener = Listener(address(), family="AF_UNIX", backlog=BACKLOG)

        def accept() -> None:
            while True:
                connection = listener.accept()
                if not _is_ours(connection):
                    connection.close()
                    continue
                threading.Thread(target=self._serve, args=(connection,), name="unary", daemon=True).start()

        threading.Thread(target=accept, name="bridge", daemon=True).start()

    def close(self) -> None:
        """Announce that the engine ends normally; the process runs until Triton ends it."""
        for connection in self._watchers:
            with suppress(OSError):
                connection.send_bytes(BYE)

    def _serve(self, connection: Connection) -> None:
        try:
            message = connection.recv_bytes()
        except (OSError, EOFError):
            connection.close()
            return
        if message == WATCH:
            self._watchers.append(connection)
        else:
            _decode(connection, message, self._submit)


def watch() -> None:
    """End the server when the engine's process dies without having said goodbye; watches on a thread of its own.

    Waits for an engine that is not there yet, or that was replaced normally.
    """

    def run() -> None:
        while True:
            try:
                with _connect() as connection:
                    connection.send_bytes(WATCH)
                    goodbye = connection.recv_bytes() == BYE
            except (ConnectionRefusedError, FileNotFoundError):
                time.sleep(RECONNECT_S)
                continue
            except (OSError, EOFError):
                goodbye = False
            if not goodbye:
                log.critical("the process of the decode engine is gone; the server ends, so that nobody waits for it")
                server = os.getppid()
                # The first process of a container cannot be killed from inside, but it can be asked.
                os.kill(server, signal.SIGTERM if server == 1 else signal.SIGKILL)
                return
            time.sleep(RECONNECT_S)

    threading.Thread(target=run, name="watch", daemon=True).start()


def _decode(connection: Connection, message: bytes, submit: Submit) -> None:
    """Hand a request to the engine, wait for its texts and send them back."""
    ended: Future[None] = Future()
    events: list[Event] = []

    def on_event(event: Event) -> None:
        if event.finish_reason:
            events.append(event)

    def on_end(error: PublicError | None) -> None:
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    with connection:
        try:
            submit(_unpack(message), on_event, on_end)
            ended.result()
            events.sort(key=lambda event: event.sequence_index)
            answer: dict[str, Any] = {"events": [asdict(event) for event in events]}
        except PublicError as error:
            answer = {"error": str(error), "kind": type(error).__name__}
        except Exception:
            log.exception("a unary request failed")
            answer = {"error": INTERNAL, "kind": PublicError.__name__}
        try:
            connection.send_bytes(json.dumps(answer).encode())
        except OSError:
            log.warning("a unary answer could not be delivered")


def _pack(request: DecodeRequest) -> bytes:
    """The rest of a request as a line of JSON, then its tensors, as they lie in memory."""
    tensors = (request.hidden_QD, request.t5_mask_S)
    head = {name: value for name, value in vars(request).items() if not isinstance(value, np.ndarray)}
    head["shape"] = request.hidden_QD.shape
    return b"".join([json.dumps(head).encode(), b"\n", *(tensor.tobytes() for tensor in tensors)])


def _unpack(message: bytes) -> DecodeRequest:
    line, tensors = message.split(b"\n", 1)
    head = json.loads(line)
    shape = head.pop("shape")
    values = int(np.prod(shape))
    hidden_QD = np.frombuffer(tensors, dtype=np.float32, count=values).reshape(shape)
    return DecodeRequest(hidden_QD, np.frombuffer(tensors, dtype=np.int64, offset=hidden_QD.nbytes), **head)
