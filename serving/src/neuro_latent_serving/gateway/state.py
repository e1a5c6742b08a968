"""What the routes share: the client of Triton, who asks, what is logged and counted of an answer."""

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from neuro_latent_client import AsyncClient, GenerationOptions, Health, Optimization
from neuro_latent_serving.gateway.api_keys import ApiKeys
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.middleware import GatewayMetrics
from neuro_latent_serving.gateway.schemas import HealthResponse, OptimizeRequest

if TYPE_CHECKING:
    from neuro_latent_serving.gateway.openai.upstream import Upstream


@dataclass
class Gateway:
    """What the routes share. ``client`` is there while the application runs; requests go on to ``upstream``, if any."""

    config: GatewayConfig
    keys: ApiKeys | None
    metrics: GatewayMetrics
    client: AsyncClient
    upstream: "Upstream | None" = None
    health: tuple[Health, HealthResponse] | None = None
    health_told_s: float = 0.0
    asking_health: asyncio.Lock = field(default_factory=asyncio.Lock)


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


def note_prompt(request: Request, gateway: Gateway, body: OptimizeRequest) -> None:
    """For the log line."""
    request.state.noted["prompt_characters"] = len(body.raw_prompt)
    if gateway.config.log_prompts:
        request.state.noted["raw_prompt"] = body.raw_prompt


def options_of(request: Request, body: OptimizeRequest) -> GenerationOptions:
    """The options that the caller gave, with what is left of a deadline."""
    options = body.options()
    if limit := options.get("deadline_ms"):
        spent_ms = (time.perf_counter() - request.state.began) * 1000
        options["deadline_ms"] = max(1, math.ceil(limit - spent_ms))
    return options


def note_answer(request: Request, gateway: Gateway, answer: Optimization) -> None:
    """For the log line and the metrics."""
    tokens = sum(sequence.generated_tokens for sequence in answer.sequences)
    gateway.metrics.tokens.inc(tokens)
    request.state.noted.update(
        answer=answer.request_id, tokens=tokens, finish_reason=answer.finish_reason, model_version=answer.model_version
    )
