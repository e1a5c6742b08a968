"""Around every request: its id, headers that keep it in its place, a log line, metrics, the limit of its body, and who
may send it."""

import asyncio
import logging
import math
import re
import time
import traceback
import uuid
from collections.abc import Collection
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog
from fastapi import HTTPException
from opentelemetry import propagate, trace
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neuro_latent_serving.errors import UsageError
from neuro_latent_serving.gateway.api_keys import ApiKeys, RateLimit
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.page import HEADERS
from neuro_latent_serving.gateway.problems import OPENAI, ProblemError
from neuro_latent_serving.web.connection import BODY_S
from neuro_latent_serving.web.foreign_page import foreign_page

REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
CLIENT_LEFT = 499

WRONG_KEYS = 30
"""Requests without a known key that one address may send a minute."""


class GatewayMetrics:
    """What ``/metrics`` tells."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "neuro_latent_gateway_requests", "Requests answered", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "neuro_latent_gateway_request_seconds", "From request to whole answer", ("route",), registry=self.registry
        )
        self.in_flight = Gauge("neuro_latent_gateway_in_flight", "Requests being answered", registry=self.registry)
        self.restarts = Counter(
            "neuro_latent_gateway_server_restarts",
            "Servers behind it that ended by themselves; stalled where a process had stood still before",
            ("cause",),
            registry=self.registry,
        )
        self.passed_on = Counter(
            "neuro_latent_gateway_passed_on",
            "Requests that went on to the upstream; added, or why their prompt stayed as it was",
            ("prompt",),
            registry=self.registry,
        )
        self.tokens = Counter("neuro_latent_gateway_tokens", "Tokens in answers", registry=self.registry)


def make_log(stream: TextIO, *, quiet: bool) -> Any:
    """A JSON line an event; ``quiet`` leaves only what went wrong. One that cannot be written is lost."""
    return structlog.wrap_logger(
        structlog.WriteLogger(cast(TextIO, _LossyStream(stream))),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING if quiet else logging.INFO),
    )


class _LossyStream:
    """A stream for a log: a full disk must not fail a request."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class ObservabilityMiddleware:
    """Gives each request an id, answers what nobody caught as a problem, and counts and logs.

    What a request causes belongs to its span, or to its caller's where no spans are made. Routes add to the log line in
    ``request.state.noted``, also the ``end_status`` of an answer that has failed after its beginning; from 500 on the
    line is an error.
    """

    def __init__(self, app: ASGIApp, log: Any, metrics: GatewayMetrics) -> None:
        self._app, self._log, self._metrics = app, log, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        noted: dict[str, Any] = {}
        began, status = time.perf_counter(), CLIENT_LEFT
        scope.setdefault("state", {}).update(request_id=request_id, noted=noted, began=began)
        span = trace.get_current_span()
        if not span.get_span_context().is_valid:
            span = trace.get_current_span(propagate.extract(headers))
        span.set_attribute("http.response.header.x-request-id", [request_id])
        if scope["query_string"]:  # may hold keys
            span.set_attribute("url.query", "REDACTED")

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            with (
                self._metrics.in_flight.track_inprogress(),
                trace.use_span(span, record_exception=False, set_status_on_exception=False),
            ):
                await self._app(scope, receive, send_with_id)
        except Exception as error:  # whose text may quote a prompt
            stack = "".join(traceback.format_tb(error.__traceback__))
            noted |= {"error": type(error).__name__, "stack": stack, "end_status": 500}
            if status == CLIENT_LEFT:
                problem = ProblemError(500, "internal error; the gateway's log has the details")
                await problem.response(scope)(scope, receive, send_with_id)
        finally:
            seconds, route = time.perf_counter() - began, getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            noted |= {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 1)}
            end_status = max(status, noted.get("end_status", 0))
            log = self._log.error if end_status >= 500 else self._log.info
            log("request", request_id=request_id, **noted)


class ForeignPages:
    """Refuses pages of other web sites, where no API key stands between them and what their reader may do."""

    def __init__(self, app: ASGIApp, origins: Collection[str], hosts: Collection[str]) -> None:
        self._app, self._origins, self._hosts = app, origins, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (found := foreign_page(Headers(scope=scope), self._origins, self._hosts)):
            name, value = found
            option = "--allowed-host NAME" if name == "Host" else "--cors-origin ORIGIN"
            problem = ProblemError(403, f"{name} {value!r} is not known here; the gateway's option {option} adds one")
            scope["state"]["noted"]["error"] = f"{name} is not known"
            await problem.response(scope)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class BodyLimit:
    """Refuses a body that is longer than ``most`` bytes, or arrives too slowly, while it arrives."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read, whole, until = 0, False, asyncio.get_running_loop().time() + BODY_S

        async def limited() -> Message:
            nonlocal read, whole
            try:
                async with asyncio.timeout_at(None if whole else until):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the body was not whole after {BODY_S:g} s") from None
            whole = whole or not message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > self._most:
                raise HTTPException(413, f"the body has more than {self._most} bytes")
            return message

        await self._app(scope, limited, send)


class AccessMiddleware:
    """Refuses who has no key, or asks too often, before the body is read.

    A change of the file of keys counts from the next request on; what is being answered is answered to its end.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys | None, config: GatewayConfig, log: Any) -> None:
        self._app, self._keys, self._config, self._log = app, keys, config, log
        self._limit = RateLimit(config.rate) if config.rate else None
        self._wrong = RateLimit(WRONG_KEYS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"] == "POST" or scope["path"].startswith((OPENAI, "/adapters"))):
            try:
                scope["state"]["caller"] = self._authenticate(Request(scope))
            except ProblemError as error:
                scope["state"]["noted"]["error"] = str(error)
                await error.response(scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _authenticate(self, request: Request) -> str:
        name, address = "", request.client.host if request.client else ""
        if self._keys is not None:
            try:
                if self._keys.refresh():
                    self._log.info("keys", count=self._keys.count)
            except UsageError as error:
                self._log.error("keys", error=error.message)
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            given = key.strip() if scheme.lower() == "bearer" else ""
            name = (given and self._keys.name_of(given)) or ""
            if not name:
                if wait := self._wrong.wait_s(address):
                    raise _too_often(f"more than {WRONG_KEYS} requests a minute without a known API key", wait)
                detail = "this API key is not known" if given else "send an API key: Authorization: Bearer KEY"
                raise ProblemError(401, detail, headers={"WWW-Authenticate": "Bearer"})
            request.state.noted["key"] = name
        if self._limit is not None and (wait := self._limit.wait_s(name or address)):
            raise _too_often(f"more than {self._config.rate} requests a minute", wait)
        return name


def _too_often(detail: str, wait_s: float) -> ProblemError:
    return ProblemError(429, detail, headers={"Retry-After": str(math.ceil(wait_s))})
