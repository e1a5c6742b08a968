"""Between Triton's requests and the library's types."""

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from neuro_latent_core.errors import InvalidInput, PublicError
from neuro_latent_core.protocol import INPUT_TYPES
from neuro_latent_serving.engine import Event
from neuro_latent_serving.errors import StoreUnwritable, Unavailable

log = logging.getLogger("neuro_latent_serving")

INTERNAL = "internal error; the server's log has the details"

KNOWN_PARAMETERS = {"id", "triton_enable_empty_final_response", "binary_data_output"}
"""Request parameters that Triton's own front ends and clients set."""


def model_parameters(args: dict[str, str]) -> dict[str, str]:
    """The ``parameters`` of a model's ``config.pbtxt``."""
    config = json.loads(args["model_config"])
    return {name: value["string_value"] for name, value in config.get("parameters", {}).items()}


def whole_number(parameters: Mapping[str, str], name: str, default: str = "") -> int:
    """A parameter that is a whole number from 0 on.

    Raises:
        ValueError: it is none, or is not given and has no default.
    """
    text = parameters.get(name, default)
    if not text.isdecimal():
        raise ValueError(f"parameter {name} of config.pbtxt must be a whole number from 0 on, not {text!r}")
    return int(text)


def switch(parameters: Mapping[str, str], name: str, default: str = "") -> bool:
    """A parameter that is ``true`` or ``false``.

    Raises:
        ValueError: it is neither, or is not given and has no default.
    """
    text = parameters.get(name, default)
    if text not in ("true", "false"):
        raise ValueError(f"parameter {name} of config.pbtxt must be true or false, not {text!r}")
    return text == "true"


def array(request: Any, name: str) -> npt.NDArray[Any] | None:
    """An input tensor as an array, None when the request left it out."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def required(request: Any, name: str) -> npt.NDArray[Any]:
    """An input tensor as an array.

    Raises:
        InvalidInput: it is not there.
    """
    value = array(request, name)
    if value is None:
        raise InvalidInput(f"the input {name} is missing")
    return value


def refuse_unknown_parameters(request: Any, inputs: Iterable[str] = INPUT_TYPES) -> None:
    """Triton's ``generate`` turns every JSON key that is no input into a request parameter, without a word.

    Raises:
        InvalidInput: there is a parameter that nothing here knows.
    """
    names = set(json.loads(request.parameters() or "{}"))
    if unknown := sorted(names - KNOWN_PARAMETERS):
        raise InvalidInput(f"unknown input {unknown[0]!r}; known are {', '.join(inputs)}")


def given_rows(request: Any, names: Iterable[str], rows: int) -> list[dict[str, Any]]:
    """The inputs of these names that a request gives, by row.

    Raises:
        InvalidInput: an input has not one value a row.
    """
    columns: dict[str, list[Any]] = {}
    for name in names:
        value = array(request, name)
        if value is not None:
            if value.shape != (rows, 1):
                raise InvalidInput(f"{name} must have shape [{rows}, 1], not {list(value.shape)}")
            columns[name] = value[:, 0].tolist()
    return [{name: column[row] for name, column in columns.items()} for row in range(rows)]


def made_by(request: Any, rows: int, version: str) -> npt.NDArray[np.object_]:
    """The version that made each row's soft prompts [B, 1]; ``version`` where the projector does not say."""
    given = array(request, "made_by")
    return np.full((rows, 1), version.encode(), np.object_) if given is None else np.array(given)


def answer_tensors(rows: list[list[Event]], text: str, truncated: Any, made_by: Any) -> list[Any]:
    """The outputs of a decoder.

    Args:
        rows: an event of each sequence, by row.
        text: the attribute of the events that is answered, ``text`` or ``piece``.
        truncated: whether each row's prompt was cut [B, 1].
        made_by: the version that made each row's soft prompts [B, 1].
    """

    def column(name: str) -> list[list[Any]]:
        return [[getattr(event, name) for event in row] for row in rows]

    return [
        bytes_tensor("enhanced_prompt", column(text)),
        *(bytes_tensor(name, column(name)) for name in ("added", "finish_reason", "reason")),
        tensor("score", column("score"), np.float32),
        tensor("generated_tokens", column("generated_tokens"), np.int32),
        tensor("truncated", truncated, np.bool_),
        tensor("cached", [[row[0].cached] for row in rows], np.bool_),
        *(tensor(name, made_by, np.object_) for name in ("model_version", "adapter_version")),
    ]


def bytes_tensor(name: str, values: list[list[str]]) -> Any:
    """A BYTES tensor from rows of texts."""
    return pb_utils.Tensor(name, np.array([[v.encode() for v in row] for row in values], dtype=np.object_))


def tensor(name: str, values: Any, dtype: type) -> Any:
    """A tensor from rows of numbers."""
    return pb_utils.Tensor(name, np.array(values, dtype=dtype))


def error_response(error: Exception) -> Any:
    """An error as Triton sends it: what a client may see, with the right code; anything else only goes to the log."""
    if isinstance(error, InvalidInput):
        code = pb_utils.TritonError.INVALID_ARG
    elif isinstance(error, Unavailable) and not isinstance(error, StoreUnwritable):
        code = pb_utils.TritonError.UNAVAILABLE
    elif isinstance(error, PublicError):
        code = pb_utils.TritonError.INTERNAL
    else:
        log.error("request failed", exc_info=error)
        error, code = PublicError(INTERNAL), pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))


def send_last(sender: Any, response: Any = None) -> None:
    """Send the last response of a request that is answered later; without one it just ends."""
    final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    if response is None:
        sender.send(flags=final)
        return
    try:
        sender.send(response, flags=final)
    except Exception as error:  # a request that gets no final response stays in Triton for ever
        sender.send(error_response(error), flags=final)
