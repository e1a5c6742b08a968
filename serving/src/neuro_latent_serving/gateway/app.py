"""The routes."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from neuro_latent_client import (
    AsyncClient,
    AsyncOptimizationStream,
    InvalidRequestError,
    NeuroLatentError,
    Piece,
)
from neuro_latent_client.chat import ChatOptimizer
from neuro_latent_core import __version__
from neuro_latent_core.protocol import FEEDBACK_MODEL
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
from neuro_latent_serving.gateway.openai.routes import router as openai_router
from neuro_latent_serving.gateway.openai.upstream import Upstream
from neuro_latent_serving.gateway.page import docs, page
from neuro_latent_serving.gateway.problems import ProblemError
from neuro_latent_serving.gateway.schemas import (
    AdaptersResponse,
    FeedbackRequest,
    FeedbackResponse,
    FeedbackState,
    HealthResponse,
    OptimizeRequest,
    OptimizeResponse,
    PieceEvent,
)
from neuro_latent_serving.gateway.state import (
    Caller,
    Gateway,
    Shared,
    note_answer,
    note_prompt,
    options_of,
)
from neuro_latent_serving.gateway.streams import event_stream
from neuro_latent_serving.web.connection import ClientLeft, while_connected

HEALTH_TIMEOUT_S = 2.0
"""For each question: those who ask us wait five seconds (deploy/helm)."""

ANSWERS = (400, 401, 413, 422, 429, 500, 502, 503, 504)
"""The errors of the routes that ask Triton."""

ADAPTERS_TIMEOUT_S = 0.5
"""How long the question may take which adapters there are; health is told without them."""

FEEDBACK_CHECK_S = 2.0
"""How long the question may take whether feedback can be stored."""

TELEMETRY: TelemetryConfig = {
    "auto_configure": True,
    "exclude": lambda scope: scope["path"] in ("/health", "/metrics"),
    "logs": False,  # they have the texts of exceptions
    "metrics": False,
    "operation_spans": False,
}
"""A span of each request, for the collector that OpenTelemetry's variables name, if any."""

EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": ["piece", "result", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}


router = APIRouter()


@router.post("/optimize", responses=problems.responses(*ANSWERS))
async def optimize(request: Request, body: OptimizeRequest, gateway: Shared, caller: Caller) -> OptimizeResponse:
    """Write a better prompt."""
    note_prompt(request, gateway, body)
    options = options_of(request, body)
    answer = await while_connected(request.receive, gateway.client.optimize(body.raw_prompt, **options))
    note_answer(request, gateway, answer)
    return OptimizeResponse.model_validate(answer)


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
    note_prompt(request, gateway, body)
    stream = gateway.client.stream(body.raw_prompt, **options_of(request, body))
    # An error before the first piece still gets a status of its own.
    first = await while_connected(request.receive, anext(stream, None))
    return event_stream(stream, _events(request, gateway, stream, first))


async def _events(
    request: Request, gateway: Gateway, stream: AsyncOptimizationStream, piece: Piece | None
) -> AsyncIterator[str]:
    try:
        while piece is not None:
            yield _event("piece", PieceEvent.model_validate(piece))
            piece = await anext(stream, None)
        note_answer(request, gateway, stream.result)
        yield _event("result", OptimizeResponse.model_validate(stream.result))
    except NeuroLatentError as error:
        yield _event("error", problems.ending(request, error).problem(request.state.request_id))


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


@router.get("/adapters", responses=problems.responses(401, 429, 500, 502, 503, 504))
async def adapters(gateway: Shared, caller: Caller) -> AdaptersResponse:
    """The adapters that are loaded, `default` first: names for the field `adapter` of a prompt."""
    return AdaptersResponse.model_validate({"adapters": await gateway.client.adapters()})


@router.head("/health", include_in_schema=False)
@router.get("/health", responses=problems.responses(500, 503))
async def health(request: Request, gateway: Shared) -> HealthResponse:
    """Whether prompts can be answered now (both models have just answered one), and feedback stored."""
    arrived_s = time.monotonic()
    async with gateway.asking_health:
        if gateway.health is None or gateway.health_told_s < arrived_s:  # else it was told while this one waited
            found = await gateway.client.health(timeout=HEALTH_TIMEOUT_S)
            told = HealthResponse(ready=found.ready, feedback="unavailable", adapters={})
            if found.ready:
                told.feedback = await _feedback_state(request, gateway.client)
            if found.ready and gateway.keys is None:
                with suppress(NeuroLatentError):
                    loaded = await gateway.client.adapters(timeout=ADAPTERS_TIMEOUT_S)
                    told.adapters = {adapter.name: adapter.version for adapter in loaded}
            gateway.health, gateway.health_told_s = (found, told), time.monotonic()
        state, told = gateway.health
    if not state.ready:
        request.state.noted["problem"] = state.problem
        what = "the models are not ready" if state.live else "the server cannot be reached"
        raise ProblemError(503, what, headers=problems.RETRY_AFTER)
    return told


async def _metrics(gateway: Shared) -> Response:
    return Response(generate_latest(gateway.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def create_app(config: GatewayConfig, connect: Callable[[], AsyncClient], log: Any, metrics: GatewayMetrics) -> FastAPI:
    """The application; ``connect`` makes its client when it starts, ``log`` is a structlog.

    Raises:
        UsageError: the file of API keys cannot be read.
    """
    keys = ApiKeys(config.api_keys) if config.api_keys else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(connect())
            gateway = Gateway(config, keys, metrics, client)
            if config.upstream:
                chat = ChatOptimizer(
                    client,
                    budget_s=config.upstream_budget,
                    longest=config.upstream_longest,
                    every_turn=config.upstream_every_turn,
                    shadow=config.upstream_shadow,
                )
                gateway.upstream = Upstream(config.upstream, chat, config.upstream_key)
                stack.push_async_callback(gateway.upstream.close)
            app.state.gateway = gateway
            yield

    app = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        title="Neuro-Latent Optimizer",
        version=__version__,
        summary="Raw prompts in, better prompts out.",
        lifespan=lifespan,
        telemetry=TELEMETRY,
    )
    app.include_router(router)
    app.include_router(openai_router)
    pages: dict[str, Callable[..., Any]] = {"/": page, "/docs": docs}
    if config.metrics_port is None:
        pages["/metrics"] = _metrics
    for path, answer in pages.items():
        app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)
    problems.install(app)
    app.add_exception_handler(ClientLeft, _answer_nobody)
    app.add_middleware(BodyLimit, most=config.max_body)
    app.add_middleware(AccessMiddleware, keys=keys, config=config, log=log)
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
