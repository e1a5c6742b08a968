"""One response a request, from the engine in ``t5_decoder``.

Triton's unary front ends refuse a decoupled model; this one is not decoupled, but answers later from its own threads,
so that any number of requests decode together.
"""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from neuro_latent_core.protocol import RAW_PROMPT
from neuro_latent_serving.checks import check_prompt
from neuro_latent_serving.engine import Event
from neuro_latent_serving.errors import EngineBusy
from neuro_latent_serving.triton import bridge
from neuro_latent_serving.triton.messages import (
    array,
    asked_at,
    bytes_tensor,
    error_response,
    gates_of,
    log,
    model_parameters,
    read_options,
    required,
    send_last,
    tensor,
)
from neuro_latent_serving.triton.send_queue import SendQueue


class UnaryDecoderModel:
    """Collects what the engine writes; the rows of a request decode at the same time."""

    def initialize(self, args: dict[str, str]) -> None:
        self._model_version = model_parameters(args).get("model_version", "")
        self._threads: set[threading.Thread] = set()
        self._send_queue = SendQueue()
        bridge.watch(self._engine_lost)

    def execute(self, requests: list[Any]) -> list[None]:
        for request in requests:
            sender = request.get_response_sender()
            try:
                rows = self._parse(request)
                # Copies: the request's own memory is Triton's.
                rest = np.array(required(request, "truncated")), self._made_by(request, len(rows))
            except Exception as error:
                send_last(sender, error_response(error))
                continue
            thread = threading.Thread(target=self._answer, args=(sender, rows, *rest), name="unary", daemon=True)
            self._threads = {t for t in self._threads if t.is_alive()} | {thread}
            thread.start()
        return [None] * len(requests)

    def finalize(self) -> None:
        for thread in self._threads:
            thread.join()
        self._send_queue.close()

    @staticmethod
    def _engine_lost() -> None:
        log.critical("the process of the decode engine is gone; the server ends, so that nobody waits for an answer")
        bridge.end_server()

    @staticmethod
    def _parse(request: Any) -> list[bridge.DecodeRequest]:
        hidden, mask = required(request, "encoder_hidden_states"), required(request, "t5_mask")
        prompts, options = required(request, RAW_PROMPT), read_options(request, len(hidden))
        gates, asked = gates_of(request, len(hidden)), asked_at(request, len(hidden))
        # Copies: the request's own memory is Triton's.
        return [
            bridge.DecodeRequest(
                hidden_QD=np.array(hidden[i]),
                t5_mask_S=np.array(mask[i]),
                gate_4=gates[i],
                raw_prompt=check_prompt(prompts[i, 0]),
                options=options[i],
                request_id=request.request_id(),
                asked=asked,
            )
            for i in range(len(hidden))
        ]

    def _made_by(self, request: Any, rows: int) -> npt.NDArray[np.object_]:
        """The version that made each row's soft prompts: a projector that is one graph does not say it."""
        given = array(request, "made_by")
        return np.full((rows, 1), self._model_version.encode(), np.object_) if given is None else np.array(given)

    def _answer(self, sender: Any, rows: list[bridge.DecodeRequest], truncated: Any, made_by: Any) -> None:
        answers: list[list[Event] | Exception] = [EngineBusy("not decoded")] * len(rows)

        def decode(row: int) -> None:
            try:
                answers[row] = bridge.decode(rows[row])
            except (OSError, EOFError):
                answers[row] = EngineBusy("unavailable: the decode engine is not there; try again later")
            except Exception as error:
                answers[row] = error

        others = [threading.Thread(target=decode, args=(row,), daemon=True) for row in range(1, len(rows))]
        for thread in others:
            thread.start()
        decode(0)
        for thread in others:
            thread.join()
        failed = next((answer for answer in answers if isinstance(answer, Exception)), None)
        texts = [answer for answer in answers if not isinstance(answer, Exception)]
        if failed is None and not all(texts):
            failed = EngineBusy("the request was cancelled")
        self._send_queue.put(_UnaryAnswer(self, sender, texts if failed is None else failed, truncated, made_by))

    def response(self, texts: list[list[Event]], truncated: Any, made_by: Any) -> Any:
        """The texts of each row, and the versions that made them, as Triton's response."""
        return pb_utils.InferenceResponse(
            output_tensors=[
                bytes_tensor("enhanced_prompt", [[event.text for event in row] for row in texts]),
                bytes_tensor("added", [[event.added for event in row] for row in texts]),
                tensor("score", [[event.score for event in row] for row in texts], np.float32),
                tensor("generated_tokens", [[event.generated_tokens for event in row] for row in texts], np.int32),
                bytes_tensor("finish_reason", [[event.finish_reason for event in row] for row in texts]),
                bytes_tensor("reason", [[event.reason for event in row] for row in texts]),
                tensor("truncated", truncated, np.bool_),
                tensor("model_version", made_by, np.object_),
                tensor("adapter_version", made_by, np.object_),
            ]
        )


@dataclass(frozen=True)
class _UnaryAnswer:
    """A finished request, on its way out."""

    model: UnaryDecoderModel
    sender: Any
    outcome: list[list[Event]] | Exception
    truncated: Any
    made_by: Any

    def deliver(self) -> None:
        if isinstance(self.outcome, Exception):
            response = error_response(self.outcome)
        else:
            response = self.model.response(self.outcome, self.truncated, self.made_by)
        send_last(self.sender, response)
