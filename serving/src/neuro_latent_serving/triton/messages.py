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
from neuro_latent_serving.errors import StoreUnwritable, Unavailable

log = logging.getLogger("neuro_latent_serving")

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
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in names:
        value = array(request, name)
        if value is not None:
            if value.shape != (rows, 1):
                raise InvalidInput(f"{name} must have shape [{rows}, 1], not {list(value.shape)}")
            columns[name] = value[:, 0]
    return [{name: _scalar(column[row]) for name, column in columns.items()} for row in range(rows)]


def read_options(request: Any, rows: int) -> list[dict[str, Any]]:
    """The options of each row, as the tokenizer has read them ([B, 1], JSON); none where they are missing.

    Raises:
        InvalidInput: they have not one value a row.
    """
    return [json.loads(row.get("options", b"{}")) for row in given_rows(request, ["options"], rows)]


def gates_of(request: Any, rows: int) -> list[list[float]]:
    """The projector's ``gate`` [B, 4] by row.

    Raises:
        InvalidInput: it is missing, or is no such tensor.
    """
    gate_B4 = required(request, "gate")
    if gate_B4.shape != (rows, 4):
        raise InvalidInput(f"gate must have shape [{rows}, 4], not {list(gate_B4.shape)}")
    if not np.isfinite(gate_B4).all():
        raise InvalidInput("gate holds values that are no numbers")
    return [[float(value) for value in row] for row in gate_B4]


def asked_at(request: Any, rows: int) -> float | None:
    """When the tokenizer got the request, in seconds of the monotonic clock; None where it did not come through it.

    Raises:
        InvalidInput: it is no such tensor.
    """
    arrived_B1 = array(request, "arrived_ns")
    if arrived_B1 is None:
        return None
    if arrived_B1.shape != (rows, 1):
        raise InvalidInput(f"arrived_ns must have shape [{rows}, 1], not {list(arrived_B1.shape)}")
    return float(arrived_B1[0, 0]) / 1e9


def _scalar(value: Any) -> Any:
    return value if isinstance(value, bytes) else value.item()


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
        return pb_utils.InferenceResponse(
            error=pb_utils.TritonError(
                "internal error; the server's log has the details", pb_utils.TritonError.INTERNAL
            )
        )
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))


def send_last(sender: Any, response: Any) -> None:
    """Send the one response of a request that is answered later."""
    try:
        sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    except Exception as error:  # a request that gets no final response stays in Triton for ever
        sender.send(error_response(error), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
