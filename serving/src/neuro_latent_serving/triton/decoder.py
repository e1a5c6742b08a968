"""The decoder: owns the engine, answers a response a piece (decoupled)."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import triton_python_backend_utils as pb_utils

from neuro_latent_core.errors import InvalidInput, PublicError
from neuro_latent_core.options import RequestOptions
from neuro_latent_serving.engine import Engine, EngineConfig, Event, GateOutput, Request
from neuro_latent_serving.engine.decoder_factory import DeviceName
from neuro_latent_serving.settings import cache_bytes, guard_is_on, min_confidence
from neuro_latent_serving.triton import bridge
from neuro_latent_serving.triton.engine_report import EngineReport
from neuro_latent_serving.triton.messages import (
    answer_tensors,
    array,
    error_response,
    log,
    made_by,
    model_parameters,
    required,
    send_last,
    switch,
    tensor,
    whole_number,
)
from neuro_latent_serving.triton.send_queue import PendingResponses, SendQueue

CANCELLATION_POLL_S = 0.25
"""Asking Triton whether a stream was cancelled crosses a process boundary, and it is asked of waiting ones too: of 64
every 20 ms took a sixth of the answers. (Only who asks this model itself is seen: ensembles pass no cancellation.)"""

NICENESS = 19
"""Where cores are short the encoders go first: a step takes hardly longer for more rows, so it should wait for them.
(16 clients, true sizes, two cores: 755 tokens a second instead of 540.)"""

CANCELLATION_IS_REMEMBERED_S = 60.0
"""A cancelled request may still be on its way through the ensemble; ids are the callers', so not for ever."""


class DecoderModel:
    """Encoder states in, pieces of text out.

    A request with only ``cancel`` cancels the request of that id: Triton tells a running step of an ensemble nothing of
    a cancellation, so the client says it here. ``t5_decoder_unary`` reaches the same engine through :mod:`bridge`.
    """

    def initialize(self, args: dict[str, str]) -> None:
        parameters = model_parameters(args)
        folder = Path(args["model_repository"]) / args["model_version"]
        self._model_version = parameters["model_version"]
        self._cancelled: dict[str, float] = {}
        self._send_queue = SendQueue()  # before the engine, which may fail already while it warms up
        before = _threads()
        self._engine = Engine(
            folder,
            folder / "generator_tokenizer.json",
            EngineConfig(
                decoder_start_id=whole_number(parameters, "decoder_start_id"),
                eos_id=whole_number(parameters, "eos_id"),
                slots=whole_number(parameters, "slots"),
                queue=whole_number(parameters, "queue"),
                threads=whole_number(parameters, "threads"),
                device=cast(DeviceName, parameters.get("device", "cpu")),
                cuda_graphs=switch(parameters, "cuda_graphs", "true"),
                speculation=switch(parameters, "speculation"),
                guard=switch(parameters, "guard", "true") and guard_is_on(),
                min_confidence=min_confidence(),
                cache_bytes=cache_bytes(),
            ),
            on_failure=self._fail,
        )
        self._engine.warm_up()
        for thread in _threads() - before:  # after the warm-up, which measures steps: the engine's and its sessions'
            with suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, thread, NICENESS)
        self._send_queue.tick = EngineReport(
            self._engine.metrics, self._engine.config.slots, self._model_version
        ).publish
        self._bridge = bridge.Bridge(self._submit)

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            try:
                if (cancel := array(request, "cancel")) is not None:
                    self._cancel(cancel[0, 0].decode(errors="replace"))
                    send_last(sender)
                else:
                    self._submit_stream(request, sender)
            except Exception as error:
                send_last(sender, error_response(error))

    def finalize(self) -> None:
        self._bridge.close()
        self._engine.close()
        self._send_queue.close()

    def _fail(self) -> None:
        """The engine's thread has died: so must this process, for Triton goes on asking it."""
        log.critical("the decode engine has failed; its process ends")
        self._send_queue.close()  # every request has its error by now
        os._exit(1)

    def _cancel(self, request_id: str) -> None:
        now = time.monotonic()
        self._cancelled = {i: t for i, t in self._cancelled.items() if now - t < CANCELLATION_IS_REMEMBERED_S}
        self._cancelled[request_id] = now

    def _submit_stream(self, request: Any, sender: Any) -> None:
        """A piece a response; a PublicError where the request is wrong, or the engine does not take it."""
        hidden = required(request, "encoder_hidden_states")
        if len(hidden) != 1:
            raise InvalidInput(f"the streaming model takes one raw_prompt a request, not {len(hidden)}")
        (row,) = bridge.decode_requests(request)
        cut, version = array(request, "truncated"), made_by(request, 1, self._model_version)
        truncated = [[cut is not None and bool(cut.all())]]

        pending = PendingResponses(
            self._send_queue,
            lambda event: sender.send(_response(event, truncated, version)),
            lambda error: send_last(sender, error and error_response(error)),
        )
        self._submit(row, pending.put, pending.end, _polled(sender.is_cancelled))

    def _submit(
        self,
        row: bridge.DecodeRequest,
        on_event: Callable[[Event], None],
        on_end: Callable[[PublicError | None], None],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        soft_tokens = len(row.hidden_QD) - len(row.t5_mask_S)
        if soft_tokens < 0:
            raise InvalidInput("t5_mask is longer than encoder_hidden_states")

        def end(error: PublicError | None) -> None:
            self._cancelled.pop(row.request_id, None)
            on_end(error)

        self._engine.submit(
            Request(
                raw_prompt=row.raw_prompt,
                hidden_QD=row.hidden_QD,
                mask_Q=np.concatenate([np.ones(soft_tokens, dtype=np.int64), row.t5_mask_S]),
                options=RequestOptions.from_values(row.options),
                on_event=on_event,
                on_end=end,
                gate=GateOutput() if row.gate_4 is None else GateOutput.of_values(row.gate_4),
                asked=row.asked,
                is_cancelled=lambda: (bool(row.request_id) and row.request_id in self._cancelled) or is_cancelled(),
            )
        )


def _response(event: Event, truncated: Any, made_by: Any) -> Any:
    index = tensor("sequence_index", [[event.sequence_index]], np.int32)
    return pb_utils.InferenceResponse(output_tensors=[*answer_tensors([[event]], "piece", truncated, made_by), index])


def _threads() -> set[int]:
    """Ids of this process's threads."""
    return {int(task) for task in os.listdir("/proc/self/task")}


def _polled(is_cancelled: Callable[[], bool]) -> Callable[[], bool]:
    """Ask at most once in CANCELLATION_POLL_S, and remember a yes."""
    asked, cancelled = time.monotonic(), False

    def ask() -> bool:
        nonlocal asked, cancelled
        if not cancelled and time.monotonic() - asked >= CANCELLATION_POLL_S:
            asked, cancelled = time.monotonic(), is_cancelled()
        return cancelled

    return ask
