"""One response a request, from the engine in ``t5_decoder``.

Triton's unary front ends refuse a decoupled model; this one is not decoupled, but answers later from its own threads,
so that any number of requests decode together.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from neuro_latent_serving.engine import Event
from neuro_latent_serving.errors import EngineBusy
from neuro_latent_serving.triton import bridge
from neuro_latent_serving.triton.messages import (
    answer_tensors,
    error_response,
    made_by,
    model_parameters,
    required,
    send_last,
)
from neuro_latent_serving.triton.send_queue import SendQueue


class UnaryDecoderModel:
    """Collects what the engine writes; the rows of a request decode at the same time."""

    def initialize(self, args: dict[str, str]) -> None:
        self._model_version = model_parameters(args).get("model_version", "")
        self._threads: set[threading.Thread] = set()
        self._send_queue = SendQueue()
        bridge.watch()

    def execute(self, requests: list[Any]) -> list[None]:
        for request in requests:
            sender = request.get_response_sender()
            try:
                rows = bridge.decode_requests(request)
                # A copy: the request's own memory is Triton's.
                rest = np.array(required(request, "truncated")), made_by(request, len(rows), self._model_version)
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

    def _answer(self, sender: Any, rows: list[bridge.DecodeRequest], truncated: Any, made_by: Any) -> None:
        def decode(row: bridge.DecodeRequest) -> list[Event] | Exception:
            try:
                return bridge.decode(row)
            except (OSError, EOFError):
                return EngineBusy("unavailable: the decode engine is not there; try again later")
            except Exception as error:
                return error

        with ThreadPoolExecutor(len(rows)) as threads:
            others = threads.map(decode, rows[1:])
            answers = [decode(rows[0]), *others]
        failed = next((answer for answer in answers if isinstance(answer, Exception)), None)
        texts = [answer for answer in answers if not isinstance(answer, Exception)]
        if failed is None and not all(texts):
            failed = EngineBusy("the request was cancelled")

        def send() -> None:
            if failed is not None:
                send_last(sender, error_response(failed))
            else:
                tensors = answer_tensors(texts, "text", truncated, made_by)
                send_last(sender, pb_utils.InferenceResponse(output_tensors=tensors))

        self._send_queue.put(send)
