"""A small OpenAI-compatible server over a local responder: chat completions, and completions with ``echo``."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException

from neuro_latent_trainer.responders.local import LocalResponder


class OpenAIServer:
    """What the server was asked, and what it should do wrong.

    Attributes:
        requests: bodies, in order of arrival.
        failures: how many of the next requests are answered with 503.
        echoes: whether completions tell likelihoods.
    """

    def __init__(self, responder: LocalResponder) -> None:
        self.responder, self.requests = responder, list[dict[str, Any]]()
        self.failures, self.echoes, self.url = 0, True, ""

    def app(self) -> FastAPI:
        app = FastAPI()

        def take(body: dict[str, Any]) -> None:
            self.requests.append(body)
            if self.failures:
                self.failures -= 1
                raise HTTPException(503, "busy")

        @app.post("/v1/chat/completions")
        def chat(body: dict[str, Any]) -> dict[str, Any]:
            take(body)
            (text,) = self.responder.answers([body["messages"][-1]["content"]], body["max_tokens"])
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
            return _named("chat.completion", body) | {"choices": [choice], "usage": usage}

        @app.post("/v1/completions")
        def complete(body: dict[str, Any]) -> dict[str, Any]:
            take(body)
            told = None
            if self.echoes:
                prompt, answer = body["prompt"].split("\n\n", 1)
                (nats,) = self.responder.log_likelihoods([(prompt, answer)])
                begin = len(body["prompt"]) - len(answer)
                told = {"tokens": [prompt, answer], "text_offset": [0, begin], "token_logprobs": [None, nats]}
            choice = {"index": 0, "text": body["prompt"], "finish_reason": "length", "logprobs": told}
            usage = {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21}
            return _named("text_completion", body) | {"choices": [choice], "usage": usage}

        return app


def _named(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"id": "1", "object": kind, "created": 0, "model": body["model"]}


@contextlib.contextmanager
def serving(server: OpenAIServer) -> Iterator[OpenAIServer]:
    """The server on a free port of 127.0.0.1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = uvicorn.Server(uvicorn.Config(server.app(), host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=run.run)
    thread.start()
    try:
        while not run.started:
            assert thread.is_alive()
        server.url = f"http://127.0.0.1:{port}/v1"
        yield server
    finally:
        run.should_exit = True
        thread.join()
