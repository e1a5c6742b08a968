"""The engine: the decode loop on a thread of its own."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from neuro_latent_core.errors import InvalidInput, PublicError
from neuro_latent_core.options import RequestOptions
from neuro_latent_serving.engine.decoder_factory import DeviceName, create_decoder
from neuro_latent_serving.engine.loop import DecodeLoop, LoopConfig
from neuro_latent_serving.engine.metrics import EngineMetrics
from neuro_latent_serving.engine.request import Request
from neuro_latent_serving.errors import EngineClosed
from neuro_latent_serving.threads import default_threads
from neuro_latent_serving.tokenization import Detokenizer

SENTENCES = "frequent_sentences.json"
"""What the exported adapter often writes: each sentence, and how many of its training texts have it."""

WARM_UP_LENGTHS = (32, 128)
WARM_UP_TOKENS = 8

FAILED = "unavailable: the decode engine has failed; the server must be restarted"
STOPPING = "the server is stopping"


@dataclass(frozen=True)
class EngineConfig(LoopConfig):
    """Settings of an engine.

    Attributes:
        threads: of ONNX Runtime; 0 takes every core this process may use.
        device: where the decoder runs.
        cuda_graphs: whether steps of a GPU are captured as CUDA graphs, where that is possible.

    Raises:
        ValueError: a size is out of its range, or there is no such device.
    """

    threads: int = 0
    device: DeviceName = "cpu"
    cuda_graphs: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device not in get_args(DeviceName):
            raise ValueError(f"device must be cpu or gpu, not {self.device!r}")
        if self.threads < 0:
            raise ValueError(f"threads must be at least 0, not {self.threads}")


class Engine:
    """Decodes many requests together; requests join and leave between two steps.

    Thread-safe. A context manager; :meth:`close` answers everything that is still in it.

    Args:
        folder: with the graphs ``prefill`` and ``step``, and the sentences to draft from at first, if there are any.
        tokenizer: ``tokenizer.json`` of the generator.
        config: sizes and settings.
        on_failure: called last on the engine's thread when decoding has failed and all requests have their errors.

    Raises:
        DeviceMissing: the device, or what drives it, is not there.
    """

    def __init__(
        self, folder: Path, tokenizer: Path, config: EngineConfig, on_failure: Callable[[], None] | None = None
    ) -> None:
        self._on_failure = on_failure
        self.config = config
        threads = config.threads or default_threads()
        self._decoder = create_decoder(folder, threads, config.slots, config.device, config.cuda_graphs)
        self._loop = DecodeLoop(self._decoder, Detokenizer(tokenizer), config)
        if (sentences := folder / SENTENCES).is_file():
            self._loop.expect(json.loads(sentences.read_bytes()))
        self._changed = threading.Condition()
        self._closing = False
        self._failure: str | None = None
        self._calibration: Future[None] | None = None
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
    def metrics(self) -> EngineMetrics:
        """Counters; read only."""
        return self._loop.metrics

    @property
    def load(self) -> tuple[int, int]:
        """Slots in use, requests waiting."""
        return self._loop.load

    def warm_up(self) -> None:
        """Measure the steps and write a few tokens; before the first request, which then pays for no first time.

        Raises:
            EngineClosed: the engine is stopping or has failed.
            Exception: what the first step has failed with.
        """
        if self.config.speculation:
            self._ask_to_calibrate().result()
        for length in WARM_UP_LENGTHS:
            done: Future[PublicError | None] = Future()
            self.submit(
                Request(
                    raw_prompt="warm up",
                    hidden_QD=np.zeros((length, self._decoder.width), dtype=np.float32),
                    mask_Q=np.ones(length, dtype=np.int64),
                    options=RequestOptions(max_length=WARM_UP_TOKENS),
                    on_event=lambda event: None,
                    on_end=done.set_result,
                )
            )
            done.result()
        self._loop.metrics = EngineMetrics()

    def submit(self, request: Request) -> None:
        """Queue a request; returns at once.

        Raises:
            InvalidInput: its tensors do not fit the graphs, or it needs more slots than there are.
            EngineBusy: the queue is full.
            EngineClosed: the engine is stopping or has failed.
        """
        if request.hidden_QD.ndim != 2 or request.hidden_QD.shape[1] != self._decoder.width:
            raise InvalidInput(
                f"encoder_hidden_states must be [tokens, {self._decoder.width}], not {list(request.hidden_QD.shape)}"
            )
        limit = self._decoder.most_encoder_tokens
        if len(request.hidden_QD) > limit:
            raise InvalidInput(f"encoder_hidden_states has {len(request.hidden_QD)} tokens; the limit is {limit}")
        if request.mask_Q.shape != request.hidden_QD.shape[:1] or not request.mask_Q.any():
            raise InvalidInput("the attention mask must have one entry a token and at least one 1")
        if request.rows > self.config.slots:
            name = "num_beams" if request.options.num_beams > 1 else "num_return_sequences"
            raise InvalidInput(f"{name} must be at most {self.config.slots} (the server's slots), not {request.rows}")
        if self.config.guard:
            _ = request.foreign  # found out here, not on the thread that decodes
        if self.config.cache_bytes:
            _ = request.key
        with self._changed:
            if self._closing or not self._thread.is_alive():
                raise EngineClosed(self._failure or STOPPING)
            self._loop.submit(request)
            self._changed.notify()

    def _ask_to_calibrate(self) -> "Future[None]":
        """On the engine's thread, for ONNX Runtime keeps captured graphs for the thread that has captured them."""
        with self._changed:
            if self._closing:
                raise EngineClosed(self._failure or STOPPING)
            self._calibration = Future()
            self._changed.notify()
            return self._calibration

    def close(self, timeout: float = 30.0) -> None:
        """Refuse new requests, finish those in flight for up to ``timeout`` seconds, end the rest with an error."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._failure = STOPPING
            self._thread.join()

    def _run(self) -> None:
        failed = False
        try:
            while self._failure is None:
                with self._changed:
                    while self._loop.idle and not self._closing and not self._calibration:
                        self._changed.wait()
                    if self._closing and self._loop.idle:
                        return
                    calibration, self._calibration = self._calibration, None
                if calibration:
                    self._calibrate(calibration)
                else:
                    self._loop.turn()
        except Exception:
            failed = True
            # The cause goes to the server's log through the thread's exception hook, not to clients.
            self._failure = FAILED
            raise
        finally:
            with self._changed:
                self._closing = True
            error = EngineClosed(self._failure or STOPPING)
            if self._calibration:
                self._calibration.set_exception(error)
            self._loop.abandon(error)
            if failed and self._on_failure:
                self._on_failure()

    def _calibrate(self, calibration: "Future[None]") -> None:
        """Its failure is told to who waits for it, and ends the engine."""
        try:
            self._loop.calibrate()
        except Exception as error:
            self._failure = FAILED
            calibration.set_exception(error)
        else:
            calibration.set_result(None)
