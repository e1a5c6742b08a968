"""Our engine behind the protocol of :mod:`worker`: encoder states of known token ids in, token ids out."""

import importlib.metadata
import time
from pathlib import Path
from typing import Any

import numpy as np

from neuro_latent_benchmarks.pipeline import Flight, open_engine
from neuro_latent_serving.sessions import open_session
from research.baselines.worker import serve


class OurEngine:
    """The engine on the graphs of a repository.

    The baselines know no soft prompts. So that all decode the same, the engine gets the encoder states of the bare
    token ids, made beforehand (``states``, an .npz of ``ids_N`` and ``hidden_N``). The work of encoding is done and
    timed all the same, with the soft prompts that the baselines do without; its outcome is not used.
    """

    def __init__(self, folder: str, threads: int, states: str, numbers: str, speculation: bool) -> None:
        with np.load(states) as arrays:
            count = len(arrays.files) // 2
            self._hidden = {tuple(arrays[f"ids_{i}"].tolist()): arrays[f"hidden_{i}"] for i in range(count)}
        self._encoder = open_session(Path(folder) / "t5_encoder" / "1" / "model.onnx", threads)
        _, soft_tokens, width = {wanted.name: wanted.shape for wanted in self._encoder.get_inputs()}["soft_prompts"]
        self._soft = np.zeros((1, soft_tokens, width), dtype=np.float32)
        # A tokenizer whose text is the ids: the engine streams text as it does when it serves, and we read tokens.
        self._engine = open_engine(Path(folder), threads=threads, speculation=speculation, tokenizer=Path(numbers))

    @property
    def versions(self) -> dict[str, str]:
        """Of what does the work."""
        return {name: importlib.metadata.version(name) for name in ("neuro-latent-serving", "onnxruntime")}

    def generate(self, ids: list[int], new_tokens: int) -> dict[str, Any]:
        """One text: T5 encoder, prefill, steps."""
        feeds = {
            "soft_prompts": self._soft,
            "input_ids": np.array([ids], dtype=np.int64),
            "attention_mask": np.ones((1, len(ids)), dtype=np.int64),
        }
        hidden, prompt = self._hidden[tuple(ids)], " ".join(map(str, ids))
        start = time.perf_counter()
        self._encoder.run(None, feeds)
        text = Flight(self._engine, hidden, prompt, new_tokens).result().text
        return {"seconds": time.perf_counter() - start, "tokens": [int(token) for token in text.split()]}

    def close(self) -> None:
        """Stop the engine's thread."""
        self._engine.close()


if __name__ == "__main__":
    serve(lambda question: OurEngine(**question))
