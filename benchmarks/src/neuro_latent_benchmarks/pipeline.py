"""An exported repository run in one process: the same steps and sessions as behind Triton, without it.

Shape letters: ``Q`` encoder tokens, ``D`` width of T5.
"""

import dataclasses
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from neuro_latent_benchmarks.report import BenchError
from neuro_latent_core.errors import PublicError
from neuro_latent_core.options import RequestOptions
from neuro_latent_core.repository import DEFAULT, GRAPH, PROJECTOR, versions
from neuro_latent_serving.engine import Engine, EngineConfig, Event, Request
from neuro_latent_serving.engine.decoder_factory import DeviceName
from neuro_latent_serving.repository.records import adapter_folders
from neuro_latent_serving.sessions import open_session
from neuro_latent_serving.threads import default_threads
from neuro_latent_serving.tokenization import TextTokenizer

NEVER = -1
"""An end token that no step can choose: texts then have the length asked for."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Decoded:
    """One text, and when it came. Times in seconds from the submission."""

    text: str
    tokens: int
    first_s: float
    total_s: float


def parameters(repository: Path, model: str) -> dict[str, str]:
    """The ``parameters`` of a model's ``config.pbtxt``.

    Raises:
        BenchError: there is no such model.
    """
    path = repository / model / "config.pbtxt"
    if not path.is_file():
        raise BenchError(f"--repository {repository}: no {model}/config.pbtxt in it; make one with neuro-latent export")
    config = text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
    return {name: value.string_value for name, value in config.parameters.items()}


def open_engine(
    repository: Path,
    *,
    threads: int = 0,
    slots: int = 16,
    speculation: bool = True,
    ends: bool = True,
    tokenizer: Path | None = None,
    device: DeviceName = "cpu",
) -> Engine:
    """The decode engine of a repository.

    Args:
        threads: of ONNX Runtime; 0 takes every core.
        ends: whether ``</s>`` ends a text.
        tokenizer: that makes its text; None is the repository's.
        device: where the decoder runs.
    """
    values = parameters(repository, "t5_decoder")
    folder = repository / "t5_decoder" / "1"
    config = EngineConfig(
        decoder_start_id=int(values["decoder_start_id"]),
        eos_id=int(values["eos_id"]) if ends else NEVER,
        slots=slots,
        queue=256,
        threads=threads,
        speculation=speculation,
        device=device,
    )
    engine = Engine(folder, tokenizer or folder / "generator_tokenizer.json", config)
    engine.warm_up()  # as the server does before it is ready
    return engine


class Flight:
    """A request in an engine: submitted at once, waited for by :meth:`result`."""

    def __init__(self, engine: Engine, hidden_QD: Floats, raw_prompt: str, new_tokens: int) -> None:
        self._ended = threading.Event()
        self._first: float | None = None
        self._end = 0.0
        self._last: Event | None = None
        self._error: PublicError | None = None
        self._start = time.perf_counter()
        engine.submit(
            Request(
                raw_prompt=raw_prompt,
                hidden_QD=hidden_QD,
                mask_Q=np.ones(len(hidden_QD), dtype=np.int64),
                options=RequestOptions(max_length=new_tokens),
                on_event=self._take,
                on_end=self._finish,
            )
        )

    def result(self) -> Decoded:
        """Wait for the text.

        Raises:
            PublicError: the engine could not make it.
        """
        self._ended.wait()
        if self._error is not None:
            raise self._error
        assert self._last is not None
        first = (self._first or self._end) - self._start
        return Decoded(self._last.text, self._last.generated_tokens, first, self._end - self._start)

    def _take(self, event: Event) -> None:
        if self._first is None:
            self._first = time.perf_counter()
        self._last = event

    def _finish(self, error: PublicError | None) -> None:
        self._end, self._error = time.perf_counter(), error
        self._ended.set()


class Pipeline:
    """Raw prompt in, text out: tokenizers, encoder, projector, T5 encoder, engine. A context manager."""

    def __init__(self, repository: Path, *, threads: int = 0, ends: bool = True) -> None:
        values = parameters(repository, "tokenizer")
        threads = threads or default_threads()
        folder = repository / "tokenizer" / "1"

        def tokenizer(name: str, key: str, prefix: str = "") -> TextTokenizer:
            file, most, pad_id = folder / f"{name}_tokenizer.json", values[f"{key}_max_tokens"], values[f"{key}_pad_id"]
            return TextTokenizer(file, int(most), int(pad_id), prefix)

        self._generator_tokenizer = tokenizer("generator", "source", values.get("prefix", ""))
        self._t5_encoder = open_session(repository / "t5_encoder/1" / GRAPH, threads)
        projector = repository / PROJECTOR
        self._is_adapted = projector.is_dir()
        if self._is_adapted:
            newest = adapter_folders(projector / str(versions(projector)[-1]))[DEFAULT]  # as Triton serves it
            self._encoder_tokenizer = tokenizer("encoder", "encoder")
            self._encoder = open_session(repository / "encoder/1" / GRAPH, threads)
            self._projector = open_session(newest / GRAPH, threads)
        self.engine = open_engine(repository, threads=threads, ends=ends)

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def encode(self, prompt: str) -> Floats:
        """T5's encoder states of a prompt and its soft prompts, if any, [Q, D], padding left out."""
        t5 = self._generator_tokenizer.encode([prompt])
        feeds: dict[str, Any] = {"input_ids": t5.ids_BL, "attention_mask": t5.mask_BL}
        real = int(t5.mask_BL.sum())
        if self._is_adapted:
            tokens = self._encoder_tokenizer.encode([prompt])
            (embedding,) = self._encoder.run(None, {"input_ids": tokens.ids_BL, "attention_mask": tokens.mask_BL})
            (feeds["soft_prompts"],) = self._projector.run(["soft_prompts"], {"raw_embedding": embedding})
            real += feeds["soft_prompts"].shape[1]
        (hidden,) = self._t5_encoder.run(None, feeds)
        states: Floats = hidden[0, :real]
        return states

    def answer(self, prompt: str, max_length: int) -> Decoded:
        """The whole work of one request."""
        start = time.perf_counter()
        states = self.encode(prompt)
        encoded = time.perf_counter() - start
        decoded = Flight(self.engine, states, prompt, max_length).result()
        return dataclasses.replace(decoded, first_s=decoded.first_s + encoded, total_s=decoded.total_s + encoded)
