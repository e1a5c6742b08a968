"""The routes."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from neuro_latent_client import (
    AsyncClient,
    AsyncOptimizationStream,
    GenerationOptions,
    Health,
    InvalidRequestError,
    NeuroLatentError,
    Optimization,
    Piece,
)
from neuro_latent_core.protocol import FEEDBACK_MODEL
from neuro_latent_serving import __version__
from neuro_latent_serving.gateway import problems
from neuro_latent_serving.gateway.api_keys import ApiKeys
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.middleware import (
    CLIENT_LEFT,
    AccessMiddleware,
    BodyLimit,
    ForeignPages,
    GatewayMetrics,
    ObservabilityMiddleware,
)
from neuro_latent_serving.gateway.page import docs, page
from neuro_latent_serving.gateway.problems import ProblemError
from neuro_latent_serving.gateway.schemas import (
    FeedbackRequest,
    FeedbackResponse,
    FeedbackState,
    HealthResponse,
    OptimizeRequest,
    OptimizeResponse,
    PieceEvent,
)
from neuro_latent_serving.web.connection import ClientLeft, while_connected

HEALTH_TIMEOUT_S = 2.0
"""For each question: those who ask us wait five seconds (deploy/kubernetes)."""

ANSWERS = (400, 401, 413, 422, 429, 500, 502, 503, 504)
"""The errors of the routes that ask Triton."""

FEEDBACK_CHECK_S = 2.0
"""How long the question may take whether feedback can be stored."""

EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": ["piece", "result", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}


@dataclass
class Gateway:
    """What the routes share. ``client`` is there while the application runs."""

    config: GatewayConfig
    keys: ApiKeys | None
    metrics: GatewayMetrics
    client: AsyncClient
    health: tuple[Health, FeedbackState] | None = None
    health_told_s: float = 0.0
    asking_health: asyncio.Lock = field(default_factory=asyncio.Lock)


router = APIRouter()
bearer = HTTPBearer(auto_error=False, description="An API key")


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


Shared = Annotated[Gateway, Depends(_gateway)]


async def _caller(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
    """The name of the caller's key, "" where there are no keys."""
    name: str = request.state.caller
    return name


Caller = Annotated[str, Depends(_caller)]


def _note_prompt(request: Request, gateway: Gateway, body: OptimizeRequest) -> None:
    request.state.noted["prompt_characters"] = len(body.raw_prompt)
    if gateway.config.log_prompts:
        request.state.noted["raw_prompt"] = body.raw_prompt


def _options(request: Request, body: OptimizeRequest) -> GenerationOptions:
    """The options that the caller gave, with what is left of a deadline."""
    options = body.options()
    if limit := options.get("deadline_ms"):
        spent_ms = (time.perf_counter() - request.state.began) * 1000
        options["deadline_ms"] = max(1, math.ceil(limit - spent_ms))
    return options


def _respond(request: Request, gateway: Gateway, answer: Optimization) -> OptimizeResponse:
    tokens = sum(sequence.generated_tokens for sequence in answer.sequences)
    gateway.metrics.tokens.inc(tokens)
    request.state.noted.update(
        answer=answer.request_id, tokens=tokens, finish_reason=answer.finish_reason, model_version=answer.model_version
    )
    return OptimizeResponse.model_validate(answer)


@router.post("/optimize", responses=problems.responses(*ANSWERS))
async def optimize(request: Request, body: OptimizeRequest, gateway: Shared, caller: Caller) -> OptimizeResponse:
    """Write a better prompt."""
    _note_prompt(request, gateway, body)
    answer = await while_connected(request.receive, gateway.client.optimize(body.raw_prompt, **_options(request, body)))
    return _respond(request, gateway, answer)


class _EventStream(StreamingResponse):
    """Server-sent events from a stream that is closed when the last one is sent, or the client has left."""

    media_type = "text/event-stream"

    def __init__(self, stream: AsyncOptimizationStream, events: AsyncIterator[str]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._stream.close()


@router.post(
    "/optimize/stream",
    response_class=Response,
    responses=problems.responses(*ANSWERS)
    | {
        200: {
            "description": "Events `piece` (`text`, `sequence_index`; nothing sent is taken back), then one `result` "
            "(OptimizeResponse) or `error` (Problem).",
            "content": {"text/event-stream": {"itemSchema": EVENT}},
        }
    },
)
async def optimize_stream(request: Request, body: OptimizeRequest, gateway: Shared, caller: Caller) -> Response:
    """Write a better prompt and send it piece by piece, as server-sent events."""
    _note_prompt(request, gateway, body)
    stream = gateway.client.stream(body.raw_prompt, **_options(request, body))
    first = await while_connected(request.receive, _next(stream))  # an error before it still gets a status of its own
    return _EventStream(stream, _events(request, gateway, stream, first))


async def _next(stream: AsyncOptimizationStream) -> Piece | None:
    return await anext(stream, None)


async def _events(
    request: Request, gateway: Gateway, stream: AsyncOptimizationStream, piece: Piece | None
) -> AsyncIterator[str]:
    try:
        while piece is not None:
            yield _event("piece", PieceEvent.model_validate(piece))
            piece = await _next(stream)
        yield _event("result", _respond(request, gateway, stream.result))
    except NeuroLatentError as error:
        request.state.noted["error"] = problems.logged(error)
        yield _event("error", problems.from_client(error).problem(request.state.request_id))


def _event(name: str, data: BaseModel) -> str:
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n"


@router.post(
    "/feedback",
    status_code=201,
    responses=problems.responses(*ANSWERS, 403)
    | {200: {"model": FeedbackResponse, "description": "The key was known; nothing new was stored"}},
)
async def feedback(body: FeedbackRequest, response: Response, gateway: Shared, caller: Caller) -> FeedbackResponse:
    """Say what an answer was worth; answered when it is on disk."""
    if caller and body.user not in ("", caller) and caller not in (gateway.keys.proxies if gateway.keys else ()):
        raise ProblemError(403, f"user: this API key gives feedback for {caller} only; leave user out")
    values = body.model_dump(exclude_unset=True)
    answer, rating = values.pop("request_id"), values.pop("rating")
    receipt = await gateway.client.feedback(answer, rating, **{**values, "user": body.user or caller or None})
    if not receipt.created:
        response.status_code = 200
    return FeedbackResponse(feedback_id=receipt.feedback_id, created=receipt.created)


async def _feedback_state(request: Request, client: AsyncClient) -> FeedbackState:
    """Whether feedback is stored now, as :class:`HealthResponse` says it."""
    wrong: dict[str, str | int | float | bool] = {
        "request_id": "",
        "raw_prompt": "",
        "enhanced_prompt": "",
        "rating": 1,
    }
    try:
        await client._infer(client._request(FEEDBACK_MODEL, wrong, FEEDBACK_CHECK_S, None))
    except InvalidRequestError:  # which a store that does not work answers otherwise
        return "ready"
    except NeuroLatentError as error:
        request.state.noted["feedback"] = str(error)
        return "damaged" if problems.needs_operator(error) else "unavailable"
    return "ready"


@router.head("/health", include_in_schema=False)
@router.get("/health", responses=problems.responses(500, 503))
async def health(request: Request, gateway: Shared) -> HealthResponse:
    """Whether prompts can be answered now (both models have just answered one), and feedback stored."""
    arrived_s = time.monotonic()
    async with gateway.asking_health:
        if gateway.health is None or gateway.health_told_s < arrived_s:  # else it was told while this one waited
            found = await gateway.client.health(timeout=HEALTH_TIMEOUT_S)
            stored = await _feedback_state(request, gateway.client) if found.ready else "unavailable"
            gateway.health, gateway.health_told_s = (found, stored), time.monotonic()
        state, stored = gateway.health
    if not state.ready:
        request.state.noted["problem"] = state.problem
        what = "the models are not ready" if state.live else "the server cannot be reached"
        raise ProblemError(503, what, headers=problems.RETRY_AFTER)
    return HealthResponse(ready=True, feedback=stored)


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", include_in_schema=False)
async def metrics(gateway: Shared) -> Response:
    return Response(generate_latest(gateway.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def create_app(config: GatewayConfig, connect: Callable[[], AsyncClient], log: Any, metrics: GatewayMetrics) -> FastAPI:
    """The application; ``connect`` makes its client when it starts, ``log`` is a structlog.

    Raises:
        UsageError: the file of API keys cannot be read.
    """
    keys = ApiKeys(config.api_keys) if config.api_keys else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with connect() as client:
            app.state.gateway = Gateway(config, keys, metrics, client)
            yield

    app = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        title="Neuro-Latent Optimizer",
        version=__version__,
        summary="Raw prompts in, better prompts out.",
        lifespan=lifespan,
    )
    app.include_router(router)
    for path, answer in (("/", page), ("/docs", docs)):
        app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)
    problems.install(app)
    app.add_exception_handler(ClientLeft, _answer_nobody)
    app.add_middleware(BodyLimit, most=config.max_body)
    app.add_middleware(AccessMiddleware, keys=keys, config=config)
    if keys is None:  # outside of it: a page of another site uses up nobody's rate
        app.add_middleware(ForeignPages, origins=config.cors_origins, hosts=config.allowed_hosts)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    app.add_middleware(ObservabilityMiddleware, log=log, metrics=metrics)
    make_schema = app.openapi
    app.openapi = lambda: app.openapi_schema or problems.document(make_schema(), keys=keys is not None)  # type: ignore[method-assign]
    return app


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)
