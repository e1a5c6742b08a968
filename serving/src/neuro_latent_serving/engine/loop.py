"""The decode loop: requests wait, get slots, decode together, leave. One turn is one step of all rows.

Only :meth:`DecodeLoop.submit` may be called from other threads; everything else belongs to the one that decodes.
"""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from neuro_latent_core.errors import PublicError
from neuro_latent_core.guard import LANGUAGE, NOT_SURE
from neuro_latent_core.limits import MAX_STEP_TOKENS
from neuro_latent_core.protocol import TOO_BUSY
from neuro_latent_serving.byte_cache import OVERHEAD, ByteCache
from neuro_latent_serving.engine.contract import Decoder
from neuro_latent_serving.engine.metrics import EngineMetrics
from neuro_latent_serving.engine.request import Request
from neuro_latent_serving.engine.running import RunningRequest, start_running
from neuro_latent_serving.engine.sequence import DEADLINE, UNCHANGED, WITHHELD, Event, OutputSequence
from neuro_latent_serving.engine.speculation import Copying, Drafter, History, StepCost, best_width
from neuro_latent_serving.errors import EngineBusy
from neuro_latent_serving.tokenization import Detokenizer

log = logging.getLogger(__name__)

PREFILL_TOKENS = 512
"""Encoder tokens that are prefilled between two steps; one request is, however long. It bounds how long running
requests wait for new ones."""

DRAFT_PROMPT_TOKENS = 512

CALIBRATION_TOKENS = 64
CALIBRATION_WIDTHS = (1, 2, 3, 4, 6, MAX_STEP_TOKENS)
CALIBRATION_ROUNDS = 5


@dataclass(frozen=True)
class LoopConfig:
    """Sizes and special tokens.

    Attributes:
        decoder_start_id: T5's first decoder input.
        eos_id: the end token.
        slots: how many sequences decode together.
        queue: how many requests may wait for a slot; one more is refused.
        speculation: whether greedy sequences get drafts.
        guard: whether finished texts are cut back to whole sentences, and rejected where they break a rule.
        min_confidence: the lowest that is served, for requests that do not say; None is each adapter's own.
        cache_bytes: of greedy answers that are kept for the same request; 0 keeps none.

    Raises:
        ValueError: a size is out of its range.
    """

    decoder_start_id: int
    eos_id: int
    slots: int = 16
    queue: int = 128
    speculation: bool = True
    guard: bool = False
    min_confidence: float | None = None
    cache_bytes: int = 0

    def __post_init__(self) -> None:
        for name in ("slots", "queue"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence must be between 0 and 1, not {self.min_confidence}")


class DecodeLoop:
    """Queue, slots and step of an engine, without a thread."""

    def __init__(
        self,
        decoder: Decoder,
        detokenizer: Detokenizer,
        config: LoopConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.metrics = config, EngineMetrics()
        self._decoder, self._cache, self._detokenizer, self._clock = decoder, decoder.cache, detokenizer, clock
        self._lock = threading.Lock()
        self._waiting: deque[Request] = deque()
        self._running: list[RunningRequest] = []
        self._without_token: set[RunningRequest] = set()
        self._cost, self._history = StepCost(), History()
        self._answers: ByteCache[list[Event]] = ByteCache(config.cache_bytes)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._waiting and not self._running

    @property
    def load(self) -> tuple[int, int]:
        """Slots in use, requests waiting."""
        return self._cache.rows, len(self._waiting)

    def submit(self, request: Request) -> None:
        """Queue a request; from any thread.

        Raises:
            EngineBusy: the queue is full.
        """
        with self._lock:
            if len(self._waiting) >= self.config.queue:
                self.metrics.refused += 1
                raise EngineBusy(f"{TOO_BUSY}: its queue holds {self.config.queue} requests already; try again later")
            self._waiting.append(request)
            self.metrics.waiting = len(self._waiting)

    def expect(self, sentences: dict[str, int]) -> None:
        """Draft sentences that are likely to be written, each as if it had been written so often; before the first
        request. The most frequent come first."""
        for text, times in reversed(sentences.items()):  # the most frequent are remembered longest
            self._history.add(self._detokenizer.encode(text, DRAFT_PROMPT_TOKENS), times)

    def calibrate(self) -> None:
        """Measure what steps of some sizes cost, on made-up rows; before the first request."""
        hidden_QD = np.zeros((CALIBRATION_TOKENS, self._decoder.width), dtype=np.float32)
        mask_Q = np.ones(CALIBRATION_TOKENS, dtype=np.int64)
        # In rounds over all sizes, because other models load meanwhile: a slow moment does not hit one size only.
        for _ in range(CALIBRATION_ROUNDS):
            for rows in sorted({1, min(4, self.config.slots), self.config.slots}):
                joined = self._decoder.join(hidden_QD, mask_Q, rows)
                for width in CALIBRATION_WIDTHS:
                    started = self._clock()
                    self._decoder.step(np.zeros((rows, width), dtype=np.int64))
                    self._cost.measured(rows * width, self._clock() - started)
                self._cache.leave(joined)

    def turn(self) -> None:
        """Let requests leave and join, then run one step of all."""
        self._end_running()
        self._end_waiting()
        self._admit()
        if self._running:
            self._step()
        self.metrics.slots_used = self._cache.rows

    def abandon(self, error: PublicError) -> None:
        """Answer every request that is left with an error."""
        with self._lock:
            left = [*(running.request for running in self._running), *self._waiting]
            self._waiting.clear()
        self._running.clear()
        self._cache.leave(range(self._cache.rows))
        self.metrics.slots_used = self.metrics.waiting = 0
        for request in left:
            try:
                request.on_end(error)
            except Exception:
                log.exception("a request could not be told that the engine has stopped")

    # Leaving ------------------------------------------------------------------------------------------------------

    def _end_running(self) -> None:
        """Take out what was cancelled, and end what is overdue."""
        now = self._clock()
        for running in list(self._running):
            request = running.request
            if request.is_cancelled():
                self.metrics.cancelled += 1
                self._free(running.rows)
                self._finish(running, whole=False)
            elif request.overdue(now):
                self.metrics.overdue += 1
                rows = list(running.rows)
                self._emit(request, running.stop())
                self._free(rows)
                self._finish(running, whole=False)

    def _end_waiting(self) -> None:
        """Answer waiting requests that were cancelled, whose deadline has passed, that nothing is written for, or whose
        answer is known."""
        now = self._clock()
        with self._lock:
            asked = [(request, request.is_cancelled()) for request in self._waiting]
            gone = [
                (request, cancelled)
                for request, cancelled in asked
                if cancelled or request.overdue(now) or (self.config.guard and request.foreign) or self._known(request)
            ]
            for request, _ in gone:
                self._waiting.remove(request)
            self.metrics.waiting = len(self._waiting)
        for request, cancelled in gone:
            if cancelled:
                self.metrics.cancelled += 1
            elif request.overdue(now):
                self.metrics.overdue += 1
                self._emit(request, [sequence.finish(DEADLINE) for sequence in self._sequences(request)])
            elif known := self._known(request):
                self.metrics.cached += 1
                self._emit(request, [replace(event, cached=True) for event in known])
            else:
                self._emit(request, [sequence.withhold(LANGUAGE) for sequence in self._sequences(request)])
            request.on_end(None)

    def _known(self, request: Request) -> list[Event] | None:
        """How the same request was answered before."""
        return self._answers.get(request.key) if self.config.cache_bytes and request.key else None

    def _free(self, rows: list[int]) -> None:
        if rows:
            moved = self._cache.leave(rows)
            for running in self._running:
                running.moved(moved)

    def _finish(self, running: RunningRequest, *, whole: bool = True) -> None:
        """Let a request go; only what ended by itself is the same for who asks again."""
        self._running.remove(running)
        self._without_token.discard(running)
        request = running.request
        self.metrics.request_seconds += self._clock() - request.arrived
        if whole and request.events:
            characters = sum(len(text) for event in request.events for text in (event.piece, event.text, event.added))
            self._answers.put(request.key, request.events, 4 * characters + OVERHEAD * len(request.events))
        request.on_end(None)

    # Joining ------------------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Give free slots to waiting requests, first come, first served."""
        prefilled = 0
        while self._waiting:
            request = self._waiting[0]
            if self._cache.rows + request.rows > self.config.slots:
                return  # those behind it wait too: a large request must not starve
            if prefilled and prefilled + len(request.mask_Q) > PREFILL_TOKENS:
                return
            prefilled += len(request.mask_Q)
            with self._lock:
                self._waiting.popleft()
                self.metrics.waiting = len(self._waiting)
            try:
                self._start(request)
            except Exception:
                log.exception("a request could not be started")
                request.on_end(PublicError("internal error; the server's log has the details"))

    def _start(self, request: Request) -> None:
        real = int(np.flatnonzero(request.mask_Q)[-1]) + 1  # padding at the end costs time in every step
        seed, drafter, sequences = request.options.seed, self._drafter(request), self._sequences(request)
        self._emit(request, [event for sequence in sequences if (event := sequence.begin())])
        hidden_QD = np.ascontiguousarray(request.hidden_QD[:real], dtype=np.float32)
        started = self._clock()
        rows = self._decoder.join(hidden_QD, request.mask_Q[:real].astype(np.int64), request.rows)
        self.metrics.prefill_seconds += self._clock() - started
        self.metrics.queue_seconds += started - request.arrived
        self.metrics.encode_seconds += request.arrived - (request.asked or request.arrived)
        running = start_running(
            request,
            sequences,
            rows,
            start_id=self.config.decoder_start_id,
            eos_id=self.config.eos_id,
            seed=seed if seed is not None else secrets.randbits(63),
            drafter=drafter,
        )
        self._running.append(running)
        self._without_token.add(running)
        self.metrics.prefills += 1

    def _drafter(self, request: Request) -> Drafter | None:
        options = request.options
        if not (self.config.speculation and options.greedy and options.num_beams == 1):
            return None
        if request.gate.form == "complement":  # it stands behind the prompt and does not repeat it
            return Drafter(self._history)
        prompt_ids = self._detokenizer.encode(request.raw_prompt, DRAFT_PROMPT_TOKENS)
        return Drafter(self._history, Copying(prompt_ids, self.config.decoder_start_id))

    def _sequences(self, request: Request) -> list[OutputSequence]:
        config, options, gate = self.config, request.options, request.gate
        asked = (options.min_confidence, config.min_confidence, gate.threshold)
        least = next(value for value in asked if value is not None)
        return [
            OutputSequence(
                *(i, request.raw_prompt, options.max_length, self._detokenizer, config.eos_id),
                guarded=config.guard,
                gate=gate,
                min_confidence=least,
            )
            for i in range(options.num_return_sequences)
        ]

    # Decoding -----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        """At least one token for every row."""
        began, rows, requests = self._clock(), self._cache.rows, len(self._running)
        drafts = [draft for running in self._running for draft in running.drafts(MAX_STEP_TOKENS - 1)]
        width = best_width(drafts, rows, MAX_STEP_TOKENS, self._cost)
        tokens_BW = np.zeros((rows, width), dtype=np.int64)
        for running in self._running:
            for row, feed in zip(running.rows, running.feeds(width), strict=True):
                tokens_BW[row, : len(feed)] = feed
        started = self._clock()
        result = self._decoder.step(
            tokens_BW,
            with_candidates=any(running.needs_candidates for running in self._running),
            with_logprobs=any(running.needs_logprobs for running in self._running),
        )
        stepped = self._clock()
        seconds = stepped - started

        freed: list[int] = []
        for running in list(self._running):
            events, done = running.take(result, self._cache, self.metrics)
            freed += done
            if running in self._without_token:
                self._without_token.discard(running)
                self.metrics.first_token_seconds.append(self._clock() - running.request.arrived)
            self._emit(running.request, events)
            if not running.rows:
                self._finish(running)
                self.metrics.text_seconds += self._clock() - stepped
        self._free(freed)
        self.metrics.text_seconds += (started - began) * requests + (self._clock() - stepped) * len(self._running)
        self.metrics.decode_seconds += seconds * requests
        self.metrics.steps += 1
        self.metrics.rows += rows
        self.metrics.step_seconds += seconds

    def _emit(self, request: Request, events: list[Event]) -> None:
        for event in events:
            self.metrics.unchanged += event.finish_reason == UNCHANGED
            if event.finish_reason == WITHHELD:
                self.metrics.withheld_by_gate += event.reason == NOT_SURE
                self.metrics.withheld_by_guard += event.reason != NOT_SURE
            if self.config.cache_bytes and request.key:
                request.events.append(event)
            request.on_event(event)
