"""The server that requests go on to, with a better prompt in them. Nothing here may hold up or lose a request."""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import unquote

import httpx2
from opentelemetry import propagate
from starlette.requests import Request
from starlette.responses import Response

from neuro_latent_client.chat import SWITCH, ChatOptimizer
from neuro_latent_serving.gateway.problems import ProblemError
from neuro_latent_serving.gateway.streams import ClosingResponse
from neuro_latent_serving.web.connection import while_connected

CONNECT_S, ANSWER_S = 10.0, 600.0
"""How long the upstream may take to take a connection, and between two pieces of an answer."""

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"}
    | {"upgrade"}
)
"""Headers of a connection, which are not passed on (RFC 9110, 7.6.1)."""


class Upstream:
    """An OpenAI-compatible server.

    Args:
        url: its address, with ``/v1`` or what stands in its place.
        chat: makes the prompts better on their way.
        key: sent in place of the caller's; "" passes the caller's on.
    """

    def __init__(self, url: str, chat: ChatOptimizer, key: str = "") -> None:
        self._url, self.chat, self._key = url.rstrip("/"), chat, key
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
        self._client = httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=False)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def pass_on(
        self, request: Request, path: str, body: bytes, headers: Mapping[str, str], done: bool = False
    ) -> Response:
        """Send a request on, and its answer back, piece by piece as it arrives.

        Args:
            path: behind the upstream's address, percent-encoded.
            headers: of ours, added to the answer.
            done: tell other systems like this one that a better prompt is in it already.

        Raises:
            ClientLeft: nobody waits for the answer any more.
            ProblemError: the upstream cannot be reached, or the path leads out of its API.
        """
        if ".." in unquote(path).split("/"):
            raise ProblemError(404, "there is no such route here")
        url = httpx2.URL(f"{self._url}/{path}").copy_with(query=request.url.query.encode() or None)
        asked = self._client.build_request(request.method, url, headers=self._asked(request, done), content=body)
        try:
            answer = await while_connected(request.receive, self._client.send(asked, stream=True))
        except httpx2.HTTPError as error:
            request.state.noted["upstream"] = type(error).__name__
            late = isinstance(error, httpx2.TimeoutException)
            detail = "the upstream gave no answer in time" if late else "the upstream cannot be reached"
            raise ProblemError(504 if late else 502, detail) from None
        if answer.is_server_error:
            request.state.noted["upstream"] = f"HTTP {answer.status_code}"
        given = [(name, value) for name, value in answer.headers.multi_items() if name.lower() not in _NOT_BACK]
        response = ClosingResponse(_pieces(request, answer), answer.aclose, status_code=answer.status_code)
        response.raw_headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in given]
        if upstream_id := answer.headers.get("x-request-id"):
            response.headers["x-upstream-request-id"] = upstream_id
        response.headers.update(headers)
        return response

    async def models(self, request: Request) -> list[Any]:
        """The upstream's models; none where it does not say."""
        try:
            found = await self._client.get(
                f"{self._url}/models", headers=self._asked(request, False), timeout=CONNECT_S
            )
            models = found.raise_for_status().json()["data"]
        except (httpx2.HTTPError, ValueError, LookupError, TypeError):
            return []
        return models if isinstance(models, list) else []

    def _asked(self, request: Request, done: bool) -> list[tuple[str, str]]:
        """The headers of a request as they are sent on."""
        left_out = HOP_BY_HOP | {"host", "content-length", SWITCH} | ({"authorization"} if self._key else set())
        named = {name.strip().lower() for name in request.headers.get("connection", "").split(",")}
        trace: dict[str, str] = {}
        propagate.inject(trace)
        found = [(name, value) for name, value in request.headers.items() if name not in left_out | named | set(trace)]
        found += trace.items()
        if self._key:
            found.append(("authorization", f"Bearer {self._key}"))
        if done:
            found.append((SWITCH, "done"))
        return found


_NOT_BACK = HOP_BY_HOP | {"date", "server", "x-request-id"}


async def _pieces(request: Request, answer: httpx2.Response) -> AsyncIterator[bytes]:
    """The bytes of an answer as they arrive; a connection that breaks breaks the caller's too."""
    try:
        async for piece in answer.aiter_raw():
            yield piece
    except httpx2.HTTPError as error:
        request.state.noted["upstream"] = type(error).__name__
        raise
