"""The REST API of a gateway, where an HTTP server has that in place of Triton's: the same requests as other JSON."""

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn

import httpx2

from neuro_latent_core import protocol

from .._answers import MODEL_VERSION, SEQUENCE
from .._failures import Failures
from .._request import InferRequest
from ._http_api import Questions, check_ok, error_of_status, is_ok, json_reader, reading
from .base import Tensors

_PIECE: Final[Tensors] = {
    "added": [""],
    "score": [0.0],
    "generated_tokens": [0],
    "finish_reason": [""],
    "reason": [""],
    "truncated": [False],
    MODEL_VERSION: [""],
}
"""What a response of a stream has beside its text before its sequence has ended."""


_PATHS: Final = {
    protocol.UNARY_MODEL: "/optimize",
    protocol.STREAM_MODEL: "/optimize/stream",
    protocol.FEEDBACK_MODEL: "/feedback",
}


def _optimized(answer: dict[str, Any]) -> Tensors:
    """The answer to a prompt."""
    sequences = [{**sequence, "enhanced_prompt": sequence["text"]} for sequence in answer["sequences"]]
    return {
        **{name: [sequence[name] for sequence in sequences] for name in SEQUENCE},
        "truncated": [answer["truncated"]],
        "cached": [answer.get("cached", False)],
        MODEL_VERSION: [answer["model_version"]],
        "request_id": [answer["request_id"]],
    }


def _tensors(answer: dict[str, Any]) -> Tensors:
    """Any answer."""
    if "sequences" in answer:
        return _optimized(answer)
    if "adapters" in answer:
        return {MODEL_VERSION: [json.dumps({adapter["name"]: adapter["version"] for adapter in answer["adapters"]})]}
    return {name: [value] for name, value in answer.items()}


_TENSORS: Callable[[httpx2.Response, Failures], Tensors] = json_reader(_tensors)


def _is_ready(response: httpx2.Response, failures: Failures) -> bool:
    check_ok(response, failures)  # says what is wrong
    return True


def _not_here(response: httpx2.Response, failures: Failures) -> NoReturn:
    raise failures.invalid(
        f"url: {failures.address} is a gateway, which does not tell of Triton's models nor load them; give the address "
        "of the Triton behind it, such as grpc://HOST:8001"
    )


_QUESTIONS: Final[Questions] = {
    "live": ("HEAD", "/", is_ok),
    "ready": ("GET", "/health", _is_ready),
    "index": ("HEAD", "/", _not_here),
    "load": ("HEAD", "/", _not_here),
}


class RestApi:
    """``/optimize``, ``/optimize/stream``, ``/feedback``, ``/adapters`` and ``/health``."""

    name = "rest"
    questions = _QUESTIONS

    def message(self, request: InferRequest, *, stream: bool) -> tuple[str, str, Any]:
        if request.inputs.get(protocol.ADAPTER) == protocol.EVERY_ADAPTER:
            return "GET", "/adapters", None
        # Without "", which is the default's name to Triton and none to a gateway.
        body = {name: value for name, value in request.inputs.items() if (name, value) != (protocol.ADAPTER, "")}
        return "POST", _PATHS[request.model], body

    tensors = staticmethod(_TENSORS)

    def responses(self, event: httpx2.ServerSentEvent, failures: Failures) -> list[Tensors]:
        with reading(failures):
            fields: dict[str, Any] = json.loads(event.data)
            match event.event:
                case "piece":
                    part = {"enhanced_prompt": [fields["text"]], "sequence_index": [fields["sequence_index"]]}
                    return [{**_PIECE, **part}]
                case "result":  # the texts have come already
                    sequences = [{**sequence, "text": ""} for sequence in fields["sequences"]]
                    return [
                        {**_optimized({**fields, "sequences": [sequence]}), "sequence_index": [index]}
                        for index, sequence in enumerate(sequences)
                    ]
                case "error":
                    status, detail = int(fields["status"]), str(fields["detail"])
                case _:
                    return []
        raise error_of_status(status, detail, failures, problem=True)
