"""Whether a server is ready."""

import math
import time
from typing import Final

from neuro_latent_core import protocol
from neuro_latent_core.limits import MAX_DEADLINE_MS

from ._base import BaseClient, Stream
from ._request import check_timeout, make_inputs
from .errors import NeuroLatentError
from .options import GenerationOptions
from .results import Health
from .transports.base import LIVE, READY, STREAM_READY, UNARY_READY, UNARY_VERSIONS

HEALTH_TIMEOUT_S: Final = 5.0

_PROMPT: Final = "Create a function"


async def check_health(client: BaseClient, timeout_s: float, stream: type[Stream]) -> Health:
    """Ask a few questions until something is wrong, then both models.

    Triton calls a model ready whose process has died.
    """
    client._check_open()
    check_timeout(timeout_s)
    start_s = time.monotonic()
    url, live, model_version, problem = client._url, False, None, ""
    try:
        for question, otherwise in (
            (LIVE, f"{url} answers, but not as a live Triton server"),
            (UNARY_READY, f"model {protocol.UNARY_MODEL} is not ready"),
            (STREAM_READY, f"model {protocol.STREAM_MODEL} is not ready"),
            (READY, "the server is not ready"),
        ):
            if not await client._ask(question, timeout_s):
                problem = otherwise
                break
            live = True
        else:
            versions = await client._ask(UNARY_VERSIONS, timeout_s)
            model_version = versions[-1] if versions else None
            await _probe(client, timeout_s, stream)
    except NeuroLatentError as error:
        if protocol.TOO_BUSY not in str(error):  # only a server that works has a full queue
            problem = str(error)
    elapsed_ms = round((time.monotonic() - start_s) * 1000, 3)
    return Health(url, live, live and not problem, model_version, problem, elapsed_ms)


async def _probe(client: BaseClient, timeout_s: float, stream: type[Stream]) -> None:
    """Have each model answer a prompt, without a second attempt: one token, and half of the time to wait in queues.

    What is late is answered without being decoded, so that a busy server answers it too.
    """
    options: GenerationOptions = {"max_length": 1, "deadline_ms": min(MAX_DEADLINE_MS, math.ceil(timeout_s * 500))}
    inputs = make_inputs(_PROMPT, options)
    await client._optimize(client._request(protocol.UNARY_MODEL, inputs, timeout_s, None), retries=0)
    pieces = stream(client, client._request(protocol.STREAM_MODEL, inputs, timeout_s, None), retries=0)
    try:
        while await pieces._next_piece():
            pass
    finally:
        await pieces._stop()
