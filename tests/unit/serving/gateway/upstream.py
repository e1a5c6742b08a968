"""A real server of OpenAI's API, whose model says what it was asked, on a free port."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from neuro_latent_serving.web.asgi import AsgiServer


@dataclass
class Upstream:
    """What it was asked, and how it is to answer.

    Attributes:
        bodies, headers: of the requests, in order.
        status: of every answer; from 400 on it is an error.
        delay_s: before an answer.
        breaks: a stream ends in the middle.
        url: with /v1.
    """

    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    delay_s: float = 0.0
    breaks: bool = False
    left: int = 0
    url: str = ""

    @property
    def last_text(self) -> Any:
        """The content of the last message that it was sent."""
        return self.bodies[-1]["messages"][-1]["content"]

    def app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        async def received(request: Request) -> Any:
            raw = await request.body()
            self.bodies.append(json.loads(raw) if raw else None)
            self.headers.append(dict(request.headers))
            await asyncio.sleep(self.delay_s)
            return self.bodies[-1]

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            body = await received(request)
            if self.status >= 400:
                error = {"message": "out of credit", "type": "insufficient_quota", "param": None, "code": "quota"}
                return JSONResponse({"error": error}, self.status, headers={"retry-after-ms": "1"})
            text = json.dumps(body["messages"][-1]["content"])
            if body.get("stream"):
                return StreamingResponse(self._chunks(text), media_type="text/event-stream")
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            found = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
            return JSONResponse(found, headers={"x-request-id": "theirs", "openai-version": "2020"})

        @app.post("/v1/responses")
        async def responses(request: Request) -> Response:
            body = await received(request)
            return JSONResponse(
                {"id": "r", "object": "response", "created_at": 1, "model": body["model"], "output": []}
            )

        @app.get("/v1/models")
        async def models(request: Request) -> Response:
            self.headers.append(dict(request.headers))
            return JSONResponse({"object": "list", "data": [{"id": "large", "object": "model", "owned_by": "them"}]})

        @app.post("/v1/embeddings")
        async def embeddings(request: Request) -> Response:
            body = await received(request)
            return JSONResponse({"query": str(request.url.query), "data": [], "model": body["model"]})

        return app

    async def _chunks(self, text: str) -> AsyncIterator[str]:
        try:
            for number, character in enumerate(text):
                if self.breaks and number == 3:
                    raise ConnectionError("as if the machine was gone")
                choice = {"index": 0, "delta": {"content": character}, "finish_reason": None}
                chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "large"}
                yield f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n"
                await asyncio.sleep(self.delay_s)
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.left += 1
            raise


@contextmanager
def running(upstream: Upstream) -> Iterator[Upstream]:
    """The server while the block runs."""
    server = AsgiServer(upstream.app(), "upstream", "127.0.0.1", 0)
    server.start()
    upstream.url = f"{server.url}/v1"
    try:
        yield upstream
    finally:
        server.stop(lambda: True)
