"""The engine: a queue, one thread that decodes all requests together, and callbacks."""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neuro_latent_serving.engine.cache import RowCache
from neuro_latent_serving.engine.decoder import Decoder, Floats, Ids
from neuro_latent_serving.engine.sequence import DEADLINE, Event, Sequence
from neuro_latent_serving.errors import EngineBusy, EngineClosed, InvalidInput, ServingError
from neuro_latent_serving.options import GenerationOptions
from neuro_latent_serving.sessions import default_threads
from neuro_latent_serving.tokenization import Detokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineConfig:
    """Sizes and special tokens of an engine.

    Attributes:
        decoder_start_id: T5's first decoder input.
        eos_id: the token that ends a text.
        slots: how many texts decode together.
        queue: how many requests may wait for a slot; one more is refused.
        threads: of ONNX Runtime; 0 takes every core this process may use.

    Raises:
        ValueError: a size is out of its range.
    """

    decoder_start_id: int
    eos_id: int
    slots: int = 16
    queue: int = 128
    threads: int = 0

    def __post_init__(self) -> None:
        for name, low in (("slots", 1), ("queue", 1), ("threads", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, not {getattr(self, name)}")


@dataclass(eq=False)  # a request is itself only; comparing arrays has no one answer
class Request:
    """One prompt to decode.

    Attributes:
        raw_prompt: the text that takes the answer's place when nothing could be written.
        hidden_QD: T5 encoder states.
        mask_Q: 1 where ``hidden_QD`` is real.
        options: how to decode.
        on_event: called on the engine's thread with each piece; must be quick.
        on_end: called on the engine's thread exactly once, after the last event, with the error if there was one.
        is_cancelled: asked before every step; once true the request leaves.
    """

    raw_prompt: str
    hidden_QD: Floats
    mask_Q: Ids
    options: GenerationOptions
    on_event: Callable[[Event], None]
    on_end: Callable[[ServingError | None], None]
    is_cancelled: Callable[[], bool] = lambda: False
    arrived: float = field(default_factory=time.monotonic)

    @property
    def overdue(self) -> bool:
        """Whether its deadline has passed."""
        limit = self.options.deadline_ms
        return bool(limit) and (time.monotonic() - self.arrived) * 1000 >= limit


@dataclass(eq=False)
class _Running:
    """A request in its slots."""

    request: Request
    sequences: list[Sequence]
    ended: bool = False

    def end(self, error: ServingError | None = None) -> None:
        """Say that there is nothing more to come; only the first time counts."""
        if not self.ended:
            self.ended = True
            self.request.on_end(error)


class Engine:
    """Decodes many requests together; requests join and leave between two steps.

    Thread-safe. A context manager; :meth:`close` answers everything that is still in it.
    """

    def __init__(self, folder: Path, tokenizer: Path, config: EngineConfig) -> None:
        self.config = config
        self._decoder = Decoder(folder, config.threads or default_threads())
        self._detokenizer = Detokenizer(tokenizer)
        self._cache = RowCache(self._decoder)
        self._rows: list[tuple[_Running, Sequence]] = []  # in the order of the cache's rows
        self._waiting: deque[Request] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failure: str | None = None
        self.steps = 0
        self.tokens = 0
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def healthy(self) -> bool:
        """Whether requests are taken."""
        return self._thread.is_alive() and not self._closing

    @property
    def load(self) -> tuple[int, int]:
        """Texts in slots, requests waiting."""
        return len(self._rows), len(self._waiting)

    def submit(self, request: Request) -> None:
        """Queue a request; returns at once.

        Raises:
            InvalidInput: its tensors do not fit the graphs.
            EngineBusy: the queue is full.
            EngineClosed: the engine is stopping or has failed.
        """
        if request.hidden_QD.ndim != 2 or request.hidden_QD.shape[1] != self._decoder.width:
            raise InvalidInput(
                f"encoder_hidden_states must be [tokens, {self._decoder.width}], not {list(request.hidden_QD.shape)}"
            )
        if request.mask_Q.shape != request.hidden_QD.shape[:1] or not request.mask_Q.any():
            raise InvalidInput("the attention mask must have one entry a token and at least one 1")
        if request.options.num_return_sequences > self.config.slots:
            raise InvalidInput(
                f"num_return_sequences must be at most {self.config.slots} (the server's slots), "
                f"not {request.options.num_return_sequences}"
            )
        with self._changed:
            if self._closing or not self._thread.is_alive():
                raise EngineClosed(self._failure or "the server is stopping")
            if len(self._waiting) >= self.config.queue:
                raise EngineBusy(
                    f"the server is too busy: its queue holds {self.config.queue} requests already; try again later"
                )
            self._waiting.append(request)
            self._changed.notify()

    def close(self, timeout: float = 30.0) -> None:
        """Refuse new requests, finish those in flight for up to ``timeout`` seconds, end the rest with an error."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._failure = "the server is stopping"
            self._thread.join()

    # The loop; everything below runs on the engine's thread ------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._failure is None:
                with self._changed:
                    while not self._waiting and not self._rows and not self._closing:
                        self._changed.wait()
                    if self._closing and not self._waiting and not self._rows:
                        return
                self._leave()
                self._admit()
                if self._rows:
                    self._step()
        except Exception:
            # The cause goes to the server's log through the thread's exception hook, not to clients.
            self._failure = "unavailable: the decode engine has failed; the server must be restarted"
            raise
        finally:
            self._end_all()

    def _end_all(self) -> None:
        """Answer every request that is left."""
        with self._changed:
            self._closing = True
            left = list(self._waiting)
            self._waiting.clear()
        unfinished = [*dict.fromkeys(r for r, _ in self._rows), *(_Running(request, []) for request in left)]
        self._rows = []
        for running in unfinished:
            try:
                running.end(EngineClosed(self._failure or "the server is stopping"))
            except Exception:
                log.exception("a request could not be told that the engine has stopped")

    def _leave(self) -> None:
        """Take out what was cancelled, and end what is overdue."""
        for running in dict.fromkeys(r for r, _ in self._rows):
            if running.request.is_cancelled():
                for sequence in running.sequences:
                    sequence.finished = True
                running.end()
            elif running.request.overdue:
                for sequence in running.sequences:
                    if not sequence.finished:
                        running.request.on_event(sequence.finish(DEADLINE))
                running.end()
        self._compact()

    def _compact(self) -> None:
        """Free the slots of finished texts."""
        keep = [i for i, (_, sequence) in enumerate(self._rows) if not sequence.finished]
        self._rows = [self._rows[i] for i in keep]
        self._cache.keep(np.array(keep, dtype=np.intp))

    def _admit(self) -> None:
        """Give free slots to waiting requests, first come, first served."""
        self._drop_waiting()
        while self._waiting:
            request = self._waiting[0]
            if len(self._rows) + request.options.num_return_sequences > self.config.slots:
                return  # those behind it wait too: a large request must not starve
            error: ServingError | None = None
            try:
                self._start(request)
            except Exception:
                log.exception("a request could not be started")
                error = ServingError("internal error; the server's log has the details")
            with self._changed:
                self._waiting.popleft()
            if error is not None:
                request.on_end(error)

    def _drop_waiting(self) -> None:
        """Answer waiting requests that were cancelled or whose deadline has passed."""
        with self._changed:
            waiting = list(self._waiting)
        for request in waiting:
            cancelled = request.is_cancelled()
            if not (cancelled or request.overdue):
                continue
            with self._changed:
                self._waiting.remove(request)
            if not cancelled:
                for sequence in self._sequences(request):
                    request.on_event(sequence.finish(DEADLINE))
            request.on_end(None)

    def _sequences(self, request: Request) -> list[Sequence]:
        options = request.options
        seed = options.seed if options.seed is not None else secrets.randbits(63)
        return [
            Sequence(request.raw_prompt, options, seed, i, self._detokenizer, self.config.eos_id)
            for i in range(options.num_return_sequences)
        ]

    def _start(self, request: Request) -> None:
        running = _Running(request, self._sequences(request))
        real = int(np.flatnonzero(request.mask_Q)[-1]) + 1  # padding at the end costs time in every step
        cross = self._decoder.prefill(np.ascontiguousarray(request.hidden_QD[:real], dtype=np.float32))
        self._cache.join(cross, request.mask_Q[:real].astype(np.int64), copies=len(running.sequences))
        self._rows += [(running, sequence) for sequence in running.sequences]

    def _step(self) -> None:
        """One token for every row."""
        result = self._decoder.step(
            np.array(
                [s.tokens[-1] if s.tokens else self.config.decoder_start_id for _, s in self._rows], dtype=np.int64
            ),
            self._cache.self_mask(),
            self._cache.encoder_mask_BQ,
            self._cache.self_cache,
            self._cache.cross_cache,
            with_logits=any(s.sampler is not None for _, s in self._rows),
        )
        self._cache.advance(result.self_cache)
        self.steps += 1
        self.tokens += len(self._rows)
        for row, (running, sequence) in enumerate(self._rows):
            token, logprob = sequence.choose(
                int(result.next_token_B[row]),
                float(result.next_logprob_B[row]),
                None if result.logits_BV is None else result.logits_BV[row],
            )
            event = sequence.accept(token, logprob)
            if event is not None:
                running.request.on_event(event)
            if sequence.finished and all(s.finished for s in running.sequences):
                running.end()
        self._compact()
