"""Requests as clients nobody here wrote send them (tritonclient over gRPC and HTTP, plain HTTP), with time limits."""

import json
import queue
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from neuro_latent_core.protocol import INPUT_TYPES, STREAM_MODEL, UNARY_MODEL
from neuro_latent_serving.launch import TritonServer
from neuro_latent_serving.settings import CACHE_VARIABLE, GUARD_VARIABLE

TIMEOUT = 60
"""Seconds; only a server that hangs needs them."""
PLAIN = {GUARD_VARIABLE: "off", CACHE_VARIABLE: "0"}
"""For servers whose texts are compared with torch's, or whose work is watched: each request is decoded, as it is."""

DTYPES = {
    "BYTES": np.object_,
    "BOOL": np.bool_,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
    "FP64": np.float64,
}
ROUTES = ("grpc infer", "grpc stream", "http infer", "http generate", "http generate_stream")


@dataclass(frozen=True)
class Tensor:
    """An input that is not what the contract says."""

    datatype: str
    values: Any


@dataclass(frozen=True)
class Refusal:
    """An error: HTTP's or gRPC's status (``None`` in a gRPC stream, where Triton sends a text only)."""

    status: str | int | None
    text: str


Answer = dict[str, list[Any]]
"""Outputs by name, flattened; texts as str."""


def stub(server: TritonServer, model: str) -> psutil.Process:
    """The process of a python model."""
    (found,) = [
        process
        for process in psutil.Process(server.pid).children(recursive=True)
        if f"/{model}/" in " ".join(process.cmdline())
    ]
    return found


def post(server: TritonServer, path: str, body: object) -> tuple[int, str]:
    """POST JSON (or bytes as they are): status and text."""
    data = body if isinstance(body, bytes) else to_json(body)
    return _open(urllib.request.Request(f"{server.http_url}{path}", data=data))


def get(server: TritonServer, path: str) -> tuple[int, str]:
    """GET: status and text."""
    return _open(urllib.request.Request(f"{server.http_url}{path}"))


def _open(request: urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def to_json(body: object) -> bytes:
    """JSON that may hold what is no UTF-8 (as surrogate escapes), NaN and Infinity."""
    return json.dumps(body, ensure_ascii=False, default=escaped).encode("utf-8", "surrogateescape")


def escaped(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def generate(server: TritonServer, body: object, model: str = UNARY_MODEL) -> dict[str, Any]:
    """The answer of Triton's ``generate``."""
    status, text = post(server, f"/v2/models/{model}/generate", body)
    assert status == 200, text
    return json.loads(text)


def events(text: str) -> list[dict[str, Any]]:
    """The events of a ``generate_stream`` body."""
    return [json.loads(block.removeprefix("data:")) for block in text.split("\n\n") if block.strip()]


def ask(server: TritonServer, route: str, values: Mapping[str, Any]) -> list[Answer] | Refusal:
    """Send one request by one of ROUTES. A value is a scalar, a list (a row each), or a :class:`Tensor`."""
    match route:
        case "grpc infer":
            return ask_grpc(server, values)
        case "grpc stream":
            return ask_grpc_stream(server, values)
        case "http infer":
            return ask_http(server, values)
    endpoint = route.removeprefix("http ")
    model = STREAM_MODEL if endpoint == "generate_stream" else UNARY_MODEL
    status, text = post(server, f"/v2/models/{model}/{endpoint}", values)
    answers = events(text) if text.startswith("data:") else [json.loads(text)]
    if status != 200 or "error" in answers[-1]:
        return Refusal(status, answers[-1]["error"])
    return [{name: value if isinstance(value, list) else [value] for name, value in a.items()} for a in answers]


def ask_grpc(server: TritonServer, values: Mapping[str, Any], model: str = UNARY_MODEL) -> list[Answer] | Refusal:
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        try:
            result = client.infer(model, inputs(tritonclient.grpc, values), client_timeout=TIMEOUT)
        except InferenceServerException as error:
            return Refusal(error.status(), error.message())
    return [flat(result)]


def ask_grpc_stream(server: TritonServer, values: Mapping[str, Any], model: str = STREAM_MODEL) -> Any:
    arrived: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    answers: list[Answer] = []
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        client.start_stream(lambda result, error: arrived.put((result, error)), stream_timeout=TIMEOUT)
        client.async_stream_infer(model, inputs(tritonclient.grpc, values), enable_empty_final_response=True)
        while True:
            result, error = arrived.get(timeout=TIMEOUT)
            if error is not None:
                return Refusal(error.status(), error.message())
            response = result.get_response()
            if response.outputs:
                answers.append(flat(result))
            if response.parameters["triton_final_response"].bool_param:
                return answers


def ask_http(server: TritonServer, values: Mapping[str, Any], model: str = UNARY_MODEL) -> list[Answer] | Refusal:
    """Binary tensors in both directions, tritonclient's default."""
    with tritonclient.http.InferenceServerClient(server.http_address, network_timeout=TIMEOUT) as client:
        try:
            result = client.infer(model, inputs(tritonclient.http, values))
        except InferenceServerException as error:
            return Refusal(int(error.status()), error.message())
    return [flat(result)]


def inputs(module: ModuleType, values: Mapping[str, Any]) -> list[Any]:
    """InferInputs of ``tritonclient.grpc`` or ``tritonclient.http``; a list gives one row an entry."""
    made = []
    for name, value in values.items():
        if not isinstance(value, Tensor):
            rows = value if isinstance(value, list) else [value]
            value = Tensor(INPUT_TYPES[name], [[row] for row in rows])
        array = np.array(value.values, dtype=DTYPES[value.datatype])
        if array.dtype == np.object_:
            array = np.frompyfunc(as_bytes, 1, 1)(array)
        made.append(module.InferInput(name, list(array.shape), value.datatype))
        made[-1].set_data_from_numpy(array)
    return made


def as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def flat(result: Any) -> Answer:
    """The outputs of a tritonclient result of either transport."""
    response = result.get_response()
    outputs = response["outputs"] if isinstance(response, dict) else response.outputs
    names = [output["name"] if isinstance(output, dict) else output.name for output in outputs]
    return {name: [v.decode() if isinstance(v, bytes) else v for v in result.as_numpy(name).ravel()] for name in names}


class RawStream:
    """One tritonclient gRPC stream that carries many requests; leaving it cancels them all."""

    def __init__(self, server: TritonServer) -> None:
        self.arrived: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._client = tritonclient.grpc.InferenceServerClient(server.grpc_address)
        self._client.start_stream(lambda result, error: self.arrived.put((result, error)), stream_timeout=TIMEOUT)
        self.send = partial(self._client.async_stream_infer)

    def __enter__(self) -> "RawStream":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop_stream(cancel_requests=True)
        self._client.close()
