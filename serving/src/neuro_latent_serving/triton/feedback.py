"""Feedback: one store behind gRPC, HTTP, the SDK and the gateway."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from neuro_latent_core.errors import InvalidInput
from neuro_latent_core.protocol import FEEDBACK_INPUT_TYPES
from neuro_latent_serving.errors import StoreDamaged, StoreUnavailable
from neuro_latent_serving.feedback import FeedbackEntry, FeedbackStore
from neuro_latent_serving.feedback.feedback_store import Stored
from neuro_latent_serving.settings import feedback_url, refuses_secrets
from neuro_latent_serving.triton.messages import (
    bytes_tensor,
    error_response,
    given_rows,
    log,
    refuse_unknown_parameters,
    required,
    send_last,
    tensor,
)
from neuro_latent_serving.triton.send_queue import SendQueue

WAITING = 16
"""Requests that wait for the database side by side."""


class FeedbackModel:
    """Checks all rows of a request, then stores them; a request that is answered is on disk.

    Requests are answered by threads: while another process holds the database, each waits for as long as the store
    lets it, and not for those before it too.
    """

    def initialize(self, args: dict[str, str]) -> None:
        self._store = FeedbackStore(feedback_url())
        self._refuses_secrets, self._refused = refuses_secrets(), 0
        self._threads, self._send_queue = ThreadPoolExecutor(WAITING, "feedback"), SendQueue()

    def execute(self, requests: list[Any]) -> list[None]:
        for request in requests:
            sender = request.get_response_sender()
            try:
                refuse_unknown_parameters(request, FEEDBACK_INPUT_TYPES)
                rows = given_rows(request, FEEDBACK_INPUT_TYPES, len(required(request, "request_id")))
            except Exception as error:
                send_last(sender, error_response(error))
                continue
            self._threads.submit(self._answer, sender, rows)
        return [None] * len(requests)

    def finalize(self) -> None:
        self._threads.shutdown()
        self._send_queue.close()
        self._store.close()

    def _answer(self, sender: Any, rows: list[dict[str, Any]]) -> None:
        outcome: list[Stored] | Exception
        try:
            outcome = [self._store.add(feedback) for feedback in self._checked(rows)]
        except Exception as error:
            if isinstance(error, StoreDamaged | StoreUnavailable):  # its reason is the operator's alone
                log.error("feedback was not stored", exc_info=error)
            outcome = error
        self._send_queue.put(partial(_send, sender, outcome))

    def _checked(self, rows: list[dict[str, Any]]) -> list[FeedbackEntry]:
        """The rows as feedback. A wrong row is told only where the store works, so one that is wrong on purpose asks
        for its health."""
        try:
            checked = [FeedbackEntry(**row) for row in rows]
            if self._refuses_secrets and any(row.has_secret() for row in checked):
                self._refused += 1
                log.warning("feedback with a secret was refused, %d times since the start", self._refused)
                raise InvalidInput("a text of the feedback holds a secret (a key or a password); send it without")
            return checked
        except InvalidInput:
            self._store.check()
            raise


def _send(sender: Any, outcome: list[Stored] | Exception) -> None:
    """Answer a request that was stored, or tell why it was not."""
    if isinstance(outcome, Exception):
        send_last(sender, error_response(outcome))
        return
    tensors = [
        bytes_tensor("feedback_id", [[row.feedback_id] for row in outcome]),
        tensor("created", [[row.created] for row in outcome], np.bool_),
        bytes_tensor("idempotency_key", [[row.key] for row in outcome]),
    ]
    send_last(sender, pb_utils.InferenceResponse(output_tensors=tensors))
