"""One response a request: the same engine, asked through Triton (BLS), its texts collected.

Triton's unary front ends refuse a decoupled model; this one is not decoupled, but answers later from its own thread,
so that any number of requests decode together.
"""

import threading
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from neuro_latent_client.protocol import OPTION_TYPES, RAW_PROMPT
from neuro_latent_serving.errors import EngineBusy
from neuro_latent_serving.triton.messages import array, bytes_tensor, error_response, passed_on, required, tensor

ENGINE_MODEL = "t5_decoder"
PER_ROW = ("encoder_hidden_states", "t5_mask", RAW_PROMPT, "truncated", *OPTION_TYPES)


class UnaryDecoderModel:
    """Collects what ``t5_decoder`` sends; the rows of a request decode at the same time."""

    def initialize(self, args: dict[str, str]) -> None:
        self._threads: set[threading.Thread] = set()

    def execute(self, requests: list[Any]) -> list[None]:
        for request in requests:
            thread = threading.Thread(target=self._answer, args=(request,), name="unary", daemon=True)
            self._threads = {t for t in self._threads if t.is_alive()} | {thread}
            thread.start()
        return [None] * len(requests)

    def finalize(self) -> None:
        for thread in self._threads:
            thread.join()

    def _answer(self, request: Any) -> None:
        sender = request.get_response_sender()
        try:
            response = self._collect(request)
        except Exception as error:
            response = error_response(error)
        try:
            sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as error:  # a request that gets no final response stays in Triton for ever
            sender.send(error_response(error), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _collect(self, request: Any) -> Any:
        given = {name: value for name in PER_ROW if (value := array(request, name)) is not None}
        rows = len(required(request, "encoder_hidden_states"))
        # All rows are submitted before the first is waited for.
        streams = [
            pb_utils.InferenceRequest(
                model_name=ENGINE_MODEL,
                request_id=request.request_id(),
                requested_output_names=[
                    "enhanced_prompt",
                    "score",
                    "generated_tokens",
                    "finish_reason",
                    "truncated",
                    "model_version",
                    "adapter_version",
                    "sequence_index",
                ],
                inputs=[
                    *(pb_utils.Tensor(name, value[row : row + 1]) for name, value in given.items()),
                    pb_utils.Tensor("whole", np.array([[True]])),
                ],
            ).exec(decoupled=True)
            for row in range(rows)
        ]
        answers = [self._sequences(stream) for stream in streams]
        columns = {name: [[sequence[name] for sequence in row] for row in answers] for name in answers[0][0]}
        return pb_utils.InferenceResponse(
            output_tensors=[
                bytes_tensor("enhanced_prompt", columns["enhanced_prompt"]),
                tensor("score", columns["score"], np.float32),
                tensor("generated_tokens", columns["generated_tokens"], np.int32),
                bytes_tensor("finish_reason", columns["finish_reason"]),
                tensor("truncated", [[row[0]] for row in columns["truncated"]], np.bool_),
                bytes_tensor("model_version", [[row[0]] for row in columns["model_version"]]),
                bytes_tensor("adapter_version", [[row[0]] for row in columns["adapter_version"]]),
            ]
        )

    @staticmethod
    def _sequences(stream: Any) -> list[dict[str, Any]]:
        """The texts of one row, in the order of their sequence index."""
        found: list[dict[str, Any]] = []
        for response in stream:
            if response.has_error():
                raise passed_on(response.error().message())
            values = {}
            for output in response.output_tensors():
                value = output.as_numpy().ravel()[0]
                values[output.name()] = value.decode() if isinstance(value, bytes) else value.item()
            if values:  # the final response is empty
                found.append(values)
        if not found:
            raise EngineBusy("the request was cancelled")
        return sorted(found, key=lambda values: values["sequence_index"])
