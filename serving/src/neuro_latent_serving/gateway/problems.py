"""Errors as RFC 9457 has them: ``application/problem+json``."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from opentelemetry import trace
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Scope

from neuro_latent_client import (
    DeadlineError,
    InvalidRequestError,
    ModelNotFoundError,
    NeuroLatentError,
    ServerError,
    ServerUnavailableError,
)
from neuro_latent_serving.errors import NEEDS_OPERATOR

MEDIA_TYPE = "application/problem+json"
NO_OBJECT = "send a JSON object, with Content-Type: application/json"
RETRY_AFTER = {"Retry-After": "1"}
OPENAI = "/v1/"
"""Paths of OpenAI's API."""


class FieldError(BaseModel):
    """What is wrong with one field."""

    pointer: str = Field(description="JSON pointer to the field, `#` for the whole body")
    detail: str


class Problem(BaseModel):
    """What went wrong."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldError] = []


class ProblemError(Exception):
    """Raised in a route, answered as a problem."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: list[FieldError] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.errors = status, detail, headers, errors or []

    def problem(self, request_id: str) -> Problem:
        """What the caller is told."""
        return Problem(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            request_id=request_id,
            errors=self.errors,
        )

    def response(self, scope: Scope) -> JSONResponse:
        """The answer to a request; below ``/v1`` an error as OpenAI's API has it."""
        headers = dict(self.headers or {})
        if scope["path"].startswith(OPENAI):
            return JSONResponse(self.for_openai(), self.status, headers=headers)
        body = self.problem(scope["state"]["request_id"]).model_dump()
        return JSONResponse(body, self.status, headers=headers, media_type=MEDIA_TYPE)

    def for_openai(self) -> dict[str, Any]:
        """What the caller is told, as OpenAI's API has it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.detail, "type": kind, "param": None, "code": None}}


def from_client(error: NeuroLatentError) -> ProblemError:
    """The client's error for those who know no Triton: its own text names addresses and commands of the operator."""
    match error:
        case InvalidRequestError():
            return ProblemError(422, error.message)  # a caller knows a request by the gateway's id
        case ServerUnavailableError() | ModelNotFoundError():
            return ProblemError(503, "the server is busy or not ready; try again in a moment", headers=RETRY_AFTER)
        case DeadlineError():
            return ProblemError(504, "no whole answer in time; lower max_length, or set deadline_ms")
        case ServerError() if text := needs_operator(error):
            return ProblemError(502, text)
        case _:
            return ProblemError(502, "the server failed; its log has the details")


def needs_operator(error: NeuroLatentError) -> str:
    """What feedback is answered where trying again is no use, if that is what went wrong, else ""."""
    return next((text for text in NEEDS_OPERATOR if text in str(error)), "")


def from_validation(errors: Sequence[Any]) -> ProblemError:
    """What is wrong with the fields of a body, by pydantic."""
    fields = []
    for item in errors:
        pointer = "/".join(["#", *(_escape(part) for part in item["loc"])])
        is_object = item["type"] != "model_attributes_type"
        detail = item.get("ctx", {}).get("error", item["msg"]) if is_object else NO_OBJECT
        fields.append(FieldError(pointer=pointer, detail=str(detail)))
    told = (f"{field.pointer[2:]}: {field.detail}".removeprefix(": ") for field in fields)
    return ProblemError(422, "; ".join(told), errors=fields)


def logged(error: Exception) -> str:
    """What the log says of an error. The texts of wrong requests quote them, so kinds and known fields are left."""
    if isinstance(error, RequestValidationError):
        fields = [
            (item["type"], *(part for part in item["loc"][1:] if item["type"] != "extra_forbidden"))
            for item in error.errors()
        ]
        return "; ".join(" ".join(map(str, field)) for field in fields)
    if isinstance(error, InvalidRequestError):
        return type(error).__name__
    return f"{type(error).__name__}: {error}" if isinstance(error, NeuroLatentError) else str(error)


def ending(request: Request, error: NeuroLatentError) -> ProblemError:
    """What the caller is told of an error in a stream that has begun; for its log line and span too."""
    problem = from_client(error)
    trace.get_current_span().set_status(trace.StatusCode.ERROR)
    request.state.noted |= {"error": logged(error), "end_status": problem.status}
    return problem


def _escape(part: Any) -> str:
    text = str(part).encode(errors="replace").decode()  # a caller's key can hold half of a surrogate pair
    return text.replace("~", "~0").replace("/", "~1")


def install(app: FastAPI) -> None:
    """Answer every error of a route as a problem."""

    def handler(make: Any) -> Any:
        async def handle(request: Request, error: Exception) -> JSONResponse:
            problem: ProblemError = make(error)
            request.state.noted["error"] = logged(error)
            return problem.response(request.scope)

        return handle

    app.add_exception_handler(ProblemError, handler(lambda error: error))
    app.add_exception_handler(NeuroLatentError, handler(from_client))
    app.add_exception_handler(
        RequestValidationError,
        handler(lambda error: from_validation([{**item, "loc": item["loc"][1:]} for item in error.errors()])),
    )
    app.add_exception_handler(
        HTTPException, handler(lambda e: ProblemError(e.status_code, str(e.detail), headers=e.headers))
    )


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route can answer, for its documentation."""
    retry = {"headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds to wait"}}}
    return {
        status: {"model": Problem, "description": HTTPStatus(status).phrase, **(retry if status in (429, 503) else {})}
        for status in statuses
    }


def document(schema: dict[str, Any], *, keys: bool) -> dict[str, Any]:
    """Give the problems of an OpenAPI schema their media type (FastAPI writes that of the route), and tell of API keys
    only where there are some."""
    for operation in (operation for path in schema["paths"].values() for operation in path.values()):
        if not keys:
            operation.pop("security", None)
        for status, response in operation["responses"].items():
            if status >= "400":
                response["content"] = {MEDIA_TYPE: next(iter(response["content"].values()))}
    return schema
