"""Whether a server is ready."""

import time
from typing import Final

from neuro_latent_core import protocol

from ._base import BaseClient, Stream
from ._request import check_timeout, make_probe
from .errors import NeuroLatentError
from .results import Health
from .transports.base import LIVE, READY, STREAM_READY, UNARY_READY, UNARY_VERSIONS

HEALTH_TIMEOUT_S: Final = 5.0


async def check_health(client: BaseClient, timeout_s: float, stream: type[Stream]) -> Health:
    """Ask a few questions until something is wrong, then both models: Triton calls a model ready whose process has
    died. A gateway asks them itself."""
    client._check_open()
    check_timeout(timeout_s)
    start_s = time.monotonic()
    url, live, model_version, problem = client._url, False, None, ""
    try:
        live = await client._ask(LIVE, timeout_s)
        if not live:
            problem = f"{url} answers, but not as a live Triton server"
        elif client._transport.name == "rest":
            await client._ask(READY, timeout_s)  # raises what the gateway says is wrong
        elif not (problem := await _what_is_not_ready(client, timeout_s)):
            versions = await client._ask(UNARY_VERSIONS, timeout_s)
            model_version = versions[-1] if versions else None
            await _probe(client, timeout_s, stream)
    except NeuroLatentError as error:
        if protocol.TOO_BUSY not in str(error):  # only a server that works has a full queue
            problem = str(error)
    elapsed_ms = round((time.monotonic() - start_s) * 1000, 3)
    return Health(url, live, live and not problem, model_version, problem, elapsed_ms)


async def _what_is_not_ready(client: BaseClient, timeout_s: float) -> str:
    """What Triton itself calls not ready, "" where nothing is."""
    for question, otherwise in (
        (UNARY_READY, f"model {protocol.UNARY_MODEL} is not ready"),
        (STREAM_READY, f"model {protocol.STREAM_MODEL} is not ready"),
        (READY, "the server is not ready"),
    ):
        if not await client._ask(question, timeout_s):
            return otherwise
    return ""


async def _probe(client: BaseClient, timeout_s: float, stream: type[Stream]) -> None:
    """Have each model answer a prompt, without a second attempt."""
    inputs = make_probe(timeout_s)
    await client._optimize(client._request(protocol.UNARY_MODEL, inputs, timeout_s, None), retries=0)
    pieces = stream(client, client._request(protocol.STREAM_MODEL, inputs, timeout_s, None), retries=0)
    try:
        while await pieces._next_piece():
            pass
    finally:
        await pieces._stop()
