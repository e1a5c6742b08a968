"""The routes below ``/v1``."""

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from neuro_latent_client import AsyncOptimizationStream, NeuroLatentError, Piece
from neuro_latent_client.chat import SWITCH, Untouched, find_prompt
from neuro_latent_serving.gateway import problems
from neuro_latent_serving.gateway.openai import answers
from neuro_latent_serving.gateway.problems import ProblemError
from neuro_latent_serving.gateway.schemas import OptimizeRequest
from neuro_latent_serving.gateway.state import (
    Caller,
    Gateway,
    Shared,
    note_answer,
    note_prompt,
    options_of,
)
from neuro_latent_serving.gateway.streams import event_stream
from neuro_latent_serving.web.connection import while_connected

ADDED = "x-neuro-latent-added"
"""The header of an answer with what was put behind the prompt, percent-encoded."""
MOST_SHOWN = 2000
"""Characters of it in the header."""

OPTIONS = {
    "n": "num_return_sequences",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "max_tokens": "max_length",
    "max_completion_tokens": "max_length",
    "max_output_tokens": "max_length",
}
"""Fields of OpenAI's requests that mean something to us; others are ignored."""

router = APIRouter(prefix=problems.OPENAI.rstrip("/"), include_in_schema=False)


@router.get("/models")
async def models(request: Request, gateway: Shared, caller: Caller) -> Response:
    """Our own model, that of each adapter, and those of the upstream."""
    adapters: list[str] = []
    with suppress(NeuroLatentError):  # without Triton the upstream's are there
        adapters = [f"{answers.MODEL}/{adapter.name}" for adapter in await gateway.client.adapters()]
    found = answers.models([answers.MODEL, *adapters])
    if gateway.upstream is not None:
        found += await gateway.upstream.models(request)
    return JSONResponse({"object": "list", "data": found})


@router.post("/chat/completions")
@router.post("/responses")
async def answer(request: Request, gateway: Shared, caller: Caller) -> Response:
    """A better prompt where the model is ours; else the upstream's answer to a better prompt."""
    path = request.url.path.removeprefix(problems.OPENAI)
    raw = await request.body()
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    model = body.get("model") if isinstance(body, dict) else None
    if (adapter := answers.adapter_of(model)) is not None:
        return await _enhanced(request, gateway, path, body, str(model), adapter)
    if gateway.upstream is not None:
        return await _passed_on(request, gateway, path, raw, body)
    if body is None:
        raise ProblemError(400, problems.NO_OBJECT)
    raise ProblemError(
        404,
        f"model: only {answers.MODEL} and {answers.MODEL}/ADAPTER are here; the gateway's --upstream URL passes "
        "requests for other models on",
    )


@router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def rest(request: Request, path: str, gateway: Shared, caller: Caller) -> Response:
    """The rest of the upstream's API, as it is."""
    if gateway.upstream is None:
        raise ProblemError(404, "there is no such route here; the gateway's --upstream URL passes requests on")
    encoded = request.scope["raw_path"].decode("latin-1").removeprefix(problems.OPENAI)
    return await gateway.upstream.pass_on(request, encoded, await request.body(), {})


async def _enhanced(
    request: Request, gateway: Gateway, path: str, body: dict[str, Any], model: str, adapter: str
) -> Response:
    """The better prompt itself."""
    try:
        prompt = find_prompt(body).text
        values = {ours: body[theirs] for theirs, ours in OPTIONS.items() if body.get(theirs) is not None}
        asked = OptimizeRequest.model_validate(
            {"raw_prompt": prompt, **values, **({"adapter": adapter} if adapter else {})}
        )
    except Untouched as why:
        raise ProblemError(400, f"the last message must be the user's, with one text ({why})") from None
    except ValidationError as error:
        raise problems.from_validation(error.errors()) from None
    note_prompt(request, gateway, asked)
    options = options_of(request, asked)
    if body.get("stream"):
        if path != "chat/completions":
            raise ProblemError(400, "stream: only chat/completions streams better prompts; leave stream out")
        stream = gateway.client.stream(asked.raw_prompt, **options)
        first = await while_connected(request.receive, anext(stream, None))
        settings = body.get("stream_options")
        usage = bool(isinstance(settings, dict) and settings.get("include_usage"))
        return event_stream(stream, _events(request, gateway, stream, first, model, usage))
    found = await while_connected(request.receive, gateway.client.optimize(asked.raw_prompt, **options))
    note_answer(request, gateway, found)
    shape = answers.completion if path == "chat/completions" else answers.response
    return JSONResponse(shape(found, model))


async def _events(
    request: Request,
    gateway: Gateway,
    stream: AsyncOptimizationStream,
    first: Piece | None,
    model: str,
    usage: bool,
) -> AsyncIterator[str]:
    try:
        async for event in answers.chunks(stream, first, model, request.state.request_id, usage):
            yield event
        note_answer(request, gateway, stream.result)
    except NeuroLatentError as error:
        yield f"data: {json.dumps(problems.ending(request, error).for_openai())}\n\n"


async def _passed_on(request: Request, gateway: Gateway, path: str, raw: bytes, body: Any) -> Response:
    """The upstream's answer; whatever goes wrong here, the request goes on as it came."""
    assert gateway.upstream is not None
    improving = gateway.upstream.chat.improve(body, request.headers.get(SWITCH, ""))
    outcome = await while_connected(request.receive, improving)
    gateway.metrics.passed_on.labels(outcome.word).inc()
    request.state.noted |= {"prompt": outcome.word, "added_characters": len(outcome.added)}
    if outcome.answer is not None:
        note_answer(request, gateway, outcome.answer)
    headers = {SWITCH: outcome.word}
    if done := outcome.word == "added":
        raw = json.dumps(body).encode()
        headers[ADDED] = quote(outcome.added[:MOST_SHOWN], safe=" ,.;:!?'()")
    return await gateway.upstream.pass_on(request, path, raw, headers, done)
