"""The exported tiny decoder, and prompts as the graphs before it would hand them over."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from neuro_latent_core.options import RequestOptions
from neuro_latent_serving.engine import Engine, EngineConfig, Request
from neuro_latent_serving.engine.gate import OPEN, GateOutput
from neuro_latent_trainer.sample import sample_rows
from tests.unit.serving.askers import Asker

if TYPE_CHECKING:
    from neuro_latent_trainer.model import PromptOptimizer

PROMPTS = [row["raw_prompt"] for row in sample_rows()[:12]]
LENGTH = 20

SHARED_TOKENIZERS = Path(__file__).parents[4] / "shared" / "tokenizers"


@pytest.fixture(scope="session")
def shared_tokenizer() -> Callable[[str], Path]:
    """The ``tokenizer.json`` of a reference backbone."""

    def find(name: str) -> Path:
        path = SHARED_TOKENIZERS / name / "tokenizer.json"
        if not path.is_file():
            pytest.skip(f"{path} is not there: the real tokenizers are not in this checkout's shared/ folder")
        return path

    return find


@pytest.fixture(scope="session")
def encoded(optimizer: "PromptOptimizer") -> Callable[[str], tuple[Any, Any]]:
    """Encoder states [Q, D] and mask [Q] of a prompt, padded at its end by ``padding`` columns of rubbish."""

    def encode(text: str, padding: int = 0) -> tuple[Any, Any]:
        import torch

        tokens = optimizer.generator.tokenize([text], 512)
        with torch.no_grad():
            hidden, mask = optimizer.encode(optimizer.embed([text]), tokens["input_ids"], tokens["attention_mask"])
        rubbish = np.full((padding, hidden.shape[2]), 7.0, dtype=np.float32)
        return (
            np.concatenate([hidden[0].numpy(), rubbish]),
            np.concatenate([mask[0].numpy(), np.zeros(padding, dtype=np.int64)]),
        )

    return encode


@pytest.fixture(scope="session")
def ask(encoded: Callable[..., tuple[Any, Any]]) -> Callable[..., Asker]:
    """Makes a request (not submitted yet) for a prompt."""
    known = {text: encoded(text) for text in PROMPTS}

    def make(
        text: str = PROMPTS[0],
        padding: int = 0,
        cancel_after: int | None = None,
        gate: GateOutput = OPEN,
        **options: Any,
    ) -> Asker:
        hidden, mask = known[text] if not padding and text in known else encoded(text, padding)
        asker = Asker(text, RequestOptions(**{"max_length": LENGTH, **options}), cancel_after=cancel_after)
        asker.request = Request(
            text, hidden, mask, asker.options, asker.on_event, asker.on_end, lambda: asker.cancelled, gate
        )
        return asker

    return make


@pytest.fixture
def start(repository: Path) -> Iterator[Callable[..., Engine]]:
    """Starts engines; closes them in the end."""
    engines: list[Engine] = []
    folder = repository / "t5_decoder" / "1"

    def make(**config: Any) -> Engine:
        engine = Engine(
            folder, folder / "generator_tokenizer.json", EngineConfig(decoder_start_id=0, eos_id=1, threads=1, **config)
        )
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close(timeout=0)


@pytest.fixture(scope="session")
def expected(optimizer: "PromptOptimizer") -> dict[str, tuple[str, int]]:
    """What torch writes greedily for each prompt: text and number of tokens."""
    rows = optimizer.generate_ids(PROMPTS, LENGTH)
    texts = [text.strip() for text in optimizer.generator.tokenizer.batch_decode(rows, skip_special_tokens=True)]
    assert len(set(texts)) > len(PROMPTS) // 2, "the tiny model must write different texts"
    return {p: (text, len(row)) for p, text, row in zip(PROMPTS, texts, rows, strict=True)}
