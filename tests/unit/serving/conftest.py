"""The exported tiny decoder, and prompts as the graphs before it would hand them over."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from neuro_latent_trainer.model import PromptOptimizer

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
