"""A proxy in front of Triton's HTTP: it forwards what Triton can handle, from callers who are allowed to ask.

Triton 24.10 dies of deeply nested JSON (its parser calls itself for every bracket), and takes requests of web pages. So
it listens on a socket that only this user reaches, and this listens on the port. gRPC has neither fault.
"""

import asyncio
import hmac
import json
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from itertools import accumulate
from typing import Any
from urllib.parse import quote

import h11

from neuro_latent_core.protocol import OWN_HEADER
from neuro_latent_serving.web.connection import BODY_S, ClientLeft, while_connected
from neuro_latent_serving.web.foreign_page import foreign_page

READY = "/v2/health/ready"

MAX_BODY = 64 * 2**20
"""Bytes; newer Tritons have the same limit."""

MAX_JSON = 4 * 2**20
"""Bytes of JSON; larger tensors go as binary ones behind it."""

MAX_DEPTH = 64
"""Of brackets in JSON; requests of the protocol have about five."""

OPEN = re.compile(
    r"/v2/?(health/(live|ready)|models/stats|models/[^/]+(/versions/\d+)?(/(ready|config|stats|infer|generate(_stream)?))?)?"
)
"""The paths that want no secret: answers, health and what models there are."""

STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

JSON_LENGTH = "inference-header-content-length"
"""Before binary tensors: how many bytes of the body are JSON."""

NOT_PASSED_ON = {"host", "connection", "keep-alive", "te", "transfer-encoding", "upgrade", "expect"} | {
    "content-length",
    "content-encoding",
    OWN_HEADER,
}
CHUNK = 2**16
HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding"}


class RefusalError(Exception):
    """A request that Triton does not see."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Front:
    """An ASGI application before the Triton that listens on ``socket``.

    Args:
        socket: path of Triton's socket.
        secret: opens what is closed to others, as the value of the header ``neuro-latent``.
        any_host: whether the server is known by names that nobody has told us.
    """

    def __init__(self, socket: str, secret: str, *, any_host: bool) -> None:
        self._socket, self._secret, self._any_host = socket, secret.encode(), any_host
        self.held_back = False
        """Whether the server says that it is not ready, whatever Triton says."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            path = self._checked_path(scope, headers)
            try:
                async with asyncio.timeout(BODY_S):
                    body = await _read(receive, headers.get("content-encoding", ""))
            except TimeoutError:
                raise RefusalError(408, f"the body was not whole after {BODY_S:g} s") from None
            _check_json(path, headers, body)
        except RefusalError as refusal:
            await _answer(send, refusal.status, str(refusal))
            return
        except ClientLeft:
            return
        passed = {name: value for name, value in headers.items() if name not in NOT_PASSED_ON}
        passed |= {"host": "triton", "connection": "close", "content-length": str(len(body))}
        target = quote(path).encode() + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in passed.items()]
        request = h11.Request(method=scope["method"], target=target, headers=fields)
        with suppress(ClientLeft):
            await while_connected(receive, self._relay(request, body, send))

    def _checked_path(self, scope: Any, headers: Mapping[str, str]) -> str:
        path: str = scope["path"]
        if self.held_back and path == READY:
            raise RefusalError(503, "unavailable: the adapters that are published are being loaded")
        if not path.isprintable():
            raise RefusalError(400, f"{path!r} is no path")
        host = "localhost" if self._any_host else headers.get("host", "")
        if foreign := ("Origin", headers["origin"]) if "origin" in headers else foreign_page({"host": host}):
            raise RefusalError(403, f"{foreign[0]} {foreign[1]!r}: pages of web sites may not ask Triton")
        if headers.get("content-type", "").partition(";")[0].strip().lower() in ("text/plain", "multipart/form-data"):
            raise RefusalError(415, "send JSON, with Content-Type: application/json")
        given = headers.get(OWN_HEADER, "").encode("latin-1")
        if not OPEN.fullmatch(path) and not hmac.compare_digest(given, self._secret):
            raise RefusalError(403, f"{path} wants the server's secret in the header {OWN_HEADER}")
        return path

    async def _relay(self, request: h11.Request, body: bytes, send: Any) -> None:
        """Ask Triton, on a connection of its own: Triton waits for open ones when it stops."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            await _answer(send, 503, "unavailable: the server is not ready")
            return
        triton, started = h11.Connection(h11.CLIENT), False
        try:
            for part in (request, h11.Data(data=body), h11.EndOfMessage()):
                writer.write(triton.send(part) or b"")
            while not isinstance(event := triton.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    triton.receive_data(await reader.read(CHUNK))
                elif isinstance(event, h11.Response):
                    headers, started = [item for item in event.headers if item[0] not in HOP_BY_HOP], True
                    await send({"type": "http.response.start", "status": event.status_code, "headers": headers})
                elif isinstance(event, h11.Data):
                    await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except (OSError, h11.RemoteProtocolError):
            if not started:  # what Triton has not answered whole ends with the connection
                await _answer(send, 503, "unavailable: the server has ended")
        finally:
            writer.close()


async def _read(receive: Any, encoding: str) -> bytes:
    """The body, unpacked."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MAX_BODY:
            raise RefusalError(413, f"the body has more than {MAX_BODY} bytes")
    body = b"".join(parts)
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise RefusalError(415, f"Content-Encoding {encoding!r} is not known; use gzip, deflate or none")
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        body = unpacking.decompress(body, MAX_BODY)
    except zlib.error as error:
        raise RefusalError(400, f"the body is not {encoding}: {error}") from None
    if not unpacking.eof and not unpacking.unconsumed_tail:
        raise RefusalError(400, f"the body is not whole {encoding}")
    if unpacking.unconsumed_tail:
        raise RefusalError(413, f"the body has more than {MAX_BODY} bytes when it is unpacked")
    return body


def _check_json(path: str, headers: Mapping[str, str], body: bytes) -> None:
    length = headers.get(JSON_LENGTH)
    if length is not None and path.endswith("/infer"):
        if not (length.isascii() and length.isdecimal() and int(length) <= len(body)):
            raise RefusalError(400, f"{JSON_LENGTH} {length!r} is not a part of the body's {len(body)} bytes")
        body = body[: int(length)]
    if len(body) > MAX_JSON:
        raise RefusalError(413, f"the JSON has more than {MAX_JSON} bytes; send large tensors as binary data")
    if depth(body) > MAX_DEPTH:
        raise RefusalError(400, f"the JSON has more than {MAX_DEPTH} brackets inside each other")


def depth(text: bytes) -> int:
    """How many brackets of JSON are open at once, at most; of what is no JSON, what a parser sees before it stops."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return 0
    brackets = STRINGS.sub(b"", text).translate(None, NOT_BRACKETS)
    return max(accumulate(map(STEPS.__getitem__, brackets)), default=0)


async def _answer(send: Any, status: int, text: str) -> None:
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
