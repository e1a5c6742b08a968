"""Feedback: one writer behind gRPC, HTTP, the SDK and the gateway."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from neuro_latent_client.protocol import FEEDBACK_INPUT_TYPES
from neuro_latent_serving.errors import InvalidInput, StoreDamaged, StoreUnavailable
from neuro_latent_serving.feedback import Feedback, FeedbackStore
from neuro_latent_serving.settings import feedback_url, refuses_secrets
from neuro_latent_serving.triton.messages import (
    bytes_tensor,
    error_response,
    given_rows,
    log,
    refuse_unknown_parameters,
    required,
    tensor,
)


class FeedbackModel:
    """Checks all rows of a request, then stores them; a request that is answered is on disk."""

    def initialize(self, args: dict[str, str]) -> None:
        self._store = FeedbackStore(feedback_url())
        self._refuses_secrets, self._refused = refuses_secrets(), 0

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        self._store.close()

    def _answer(self, request: Any) -> Any:
        try:
            refuse_unknown_parameters(request, FEEDBACK_INPUT_TYPES)
            rows = given_rows(request, FEEDBACK_INPUT_TYPES, len(required(request, "request_id")))
            stored = [self._store.add(feedback) for feedback in self._checked(rows)]
        except Exception as error:
            if isinstance(error, StoreDamaged | StoreUnavailable):  # its reason is the operator's alone
                log.error("feedback was not stored", exc_info=error)
            return error_response(error)
        return pb_utils.InferenceResponse(
            output_tensors=[
                bytes_tensor("feedback_id", [[row.feedback_id] for row in stored]),
                tensor("created", [[row.created] for row in stored], np.bool_),
            ]
        )

    def _checked(self, rows: list[dict[str, Any]]) -> list[Feedback]:
        """The rows as feedback. A wrong row is told only where the store works, so one that is wrong on purpose asks
        for its health."""
        try:
            checked = [Feedback(**row) for row in rows]
            if self._refuses_secrets and any(row.has_secret() for row in checked):
                self._refused += 1
                log.warning("feedback with a secret was refused, %d times since the start", self._refused)
                raise InvalidInput("a text of the feedback holds a secret (a key or a password); send it without")
            return checked
        except InvalidInput:
            self._store.check()
            raise
