"""What is compared: ways to make a better prompt of a raw one.

Shape letters: ``N`` rows, ``Q`` encoder tokens, ``D`` generator width, ``T`` target tokens.
"""

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from neuro_latent_trainer.backbones import Generator, padded
from neuro_latent_trainer.command_line import tracked
from neuro_latent_trainer.losses import IGNORE
from neuro_latent_trainer.model import MAX_SOURCE_TOKENS, PromptOptimizer
from neuro_latent_trainer.settings import EvaluationConfig
from neuro_latent_trainer.written import Part, parts_of

BATCH = 32
WRITING_BATCH = 128
"""Larger: a step of writing costs little more for more rows."""

Condition = Callable[[list[str]], tuple[Tensor, Tensor]]
"""Raw prompts -> T5 encoder states [N, Q, D] and their mask [N, Q]."""


def batches(texts: Sequence[Sized], size: int, name: str = "") -> Iterable[list[int]]:
    """Row numbers in batches of similar length; those of a named stage are :func:`tracked`."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    rows = [order[at : at + size] for at in range(0, len(order), size)]
    return tracked(rows, name, len(rows))


@dataclass(frozen=True)
class Losses:
    """Teacher-forced losses of texts, in nats, and how many tokens each has."""

    nats: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.float64]

    @property
    def per_token(self) -> npt.NDArray[np.float64]:
        """Mean loss of each text."""
        return self.nats / np.maximum(self.tokens, 1)


class Conditioned:
    """A T5 behind some encoder states.

    Args:
        generator, condition: the T5, and what makes the encoder states.
        config: how long a text it writes, and how much of one counts in :meth:`losses`.
    """

    def __init__(self, generator: Generator, condition: Condition, config: EvaluationConfig) -> None:
        self._generator, self._condition, self._config = generator, condition, config

    @torch.no_grad()
    def write(self, prompts: Sequence[str], stage: str = "") -> list[str]:
        """For each raw prompt a complement or a rewrite, as the form of the adapter is that is judged."""
        texts = [""] * len(prompts)
        for rows in batches(prompts, WRITING_BATCH, stage):
            hidden, mask = self._condition([prompts[row] for row in rows])
            ids = self._generator.write_ids(hidden, mask, self._config.max_length)
            written = self._generator.tokenizer.batch_decode(ids, skip_special_tokens=True)
            for row, text in zip(rows, written, strict=True):
                texts[row] = text.strip()
        return texts

    @torch.no_grad()
    def token_losses(
        self, prompts: Sequence[str], texts: Sequence[str], stage: str = ""
    ) -> list[tuple[list[int], list[float]]]:
        """The tokens of ``texts``, ``</s>`` included, and the cross-entropy of each, given the prompts."""
        targets = [ids[: self._config.max_target_tokens] for ids in self._generator.text_ids(list(texts))]
        losses: list[list[float]] = [[] for _ in prompts]
        for rows in batches(targets, BATCH, stage):
            labels = padded([targets[row] for row in rows], IGNORE, self._generator.device)["input_ids"]
            hidden, mask = self._condition([prompts[row] for row in rows])
            logits = self._generator.logits(hidden, mask, labels)
            each = F.cross_entropy(
                logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE, reduction="none"
            ).view(labels.shape)
            for row, nats in zip(rows, each.tolist(), strict=True):
                losses[row] = nats[: len(targets[row])]
        return list(zip(targets, losses, strict=True))

    def losses(self, prompts: Sequence[str], texts: Sequence[str], stage: str = "") -> Losses:
        """Cross-entropy of ``texts``, given the prompts."""
        found = self.token_losses(prompts, texts, stage)
        return Losses(np.array([sum(nats) for _, nats in found]), np.array([float(len(ids)) for ids, _ in found]))

    def parts(self, prompts: Sequence[str], texts: Sequence[str]) -> list[list[Part]]:
        """The parts of ``texts``, with their log-probabilities given the prompts."""
        generator = self._generator
        return [
            parts_of(ids, [-loss for loss in nats], generator.eos_id, generator.decode)
            for ids, nats in self.token_losses(prompts, texts)
        ]


def instructed(generator: Generator, instruction: str) -> Condition:
    """A fixed instruction in words before the raw prompt, which is what soft prompts start from."""

    def condition(prompts: list[str]) -> tuple[Tensor, Tensor]:
        tokens = generator.tokenize([instruction + p for p in prompts], MAX_SOURCE_TOKENS, generator.device)
        hidden = generator.model.encoder(**tokens).last_hidden_state
        return hidden, tokens["attention_mask"]

    return condition


def softly_prompted(generator: Generator, soft_prompts: Callable[[list[str]], Tensor]) -> Condition:
    """Soft prompts before the raw prompt; ``soft_prompts`` makes those of some prompts, [N, P, D]."""

    def condition(prompts: list[str]) -> tuple[Tensor, Tensor]:
        tokens = generator.tokenize(prompts, MAX_SOURCE_TOKENS, generator.device)
        soft_NPD = soft_prompts(prompts).to(generator.device)
        return generator.encode_soft(soft_NPD, tokens["input_ids"], tokens["attention_mask"])

    return condition


def prompted(generator: Generator, soft_PD: Tensor) -> Condition:
    """The same soft prompts before every raw prompt, as prompt tuning learns them."""
    return softly_prompted(generator, lambda prompts: soft_PD.expand(len(prompts), -1, -1))


def adapted(model: PromptOptimizer) -> Condition:
    """The adapter's soft prompts before the raw prompt."""
    return model.states


def embeddings(model: PromptOptimizer, texts: Sequence[str]) -> Tensor:
    """Raw embeddings of texts, [N, E]."""
    found = torch.zeros(len(texts), model.encoder.width)
    for rows in batches(texts, BATCH):
        found[rows] = model.embed([texts[row] for row in rows]).cpu()
    return found.to(model.device)


def nearest(model: PromptOptimizer, known: Sequence[str], texts: Sequence[str]) -> Callable[[Sequence[str]], list[str]]:
    """What gives for each prompt the text of the most similar known prompt, by cosine of the raw embeddings."""
    known_KE = F.normalize(embeddings(model, known), dim=-1)

    def find(prompts: Sequence[str]) -> list[str]:
        asked_NE = F.normalize(embeddings(model, prompts), dim=-1)
        return [texts[i] for i in (asked_NE @ known_KE.T).argmax(1).tolist()]

    return find


def typical(model: PromptOptimizer, texts: Sequence[str]) -> str:
    """Of some texts the one whose embedding is the most similar to the mean of all, by cosine."""
    distinct = list(dict.fromkeys(texts))
    found = embeddings(model, distinct)
    return distinct[int(F.cosine_similarity(found, found.mean(0, keepdim=True)).argmax())]
