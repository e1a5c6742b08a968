"""Records as tensors: tokenized once, batched by length, in an order that only the seed and the epoch decide."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuro_latent_core.form import Form
from neuro_latent_trainer.backbones import Generator, padded
from neuro_latent_trainer.data import Record
from neuro_latent_trainer.embeddings import EmbeddingCache
from neuro_latent_trainer.losses import IGNORE

MAX_FAILED = 4
"""The most failed prompts of one record that a batch takes as hard negatives."""


@dataclass(frozen=True)
class Batch:
    """One training batch (``B`` rows, ``S`` source tokens, ``T`` target tokens, ``K`` hard negatives).

    Attributes:
        kind_B: int64, equal for rows of one kind of request; -1 where it is unknown.
    """

    source_ids_BS: Tensor
    source_mask_BS: Tensor
    labels_BT: Tensor
    raw_BE: Tensor
    enhanced_BE: Tensor
    failed_BKE: Tensor
    failed_mask_BK: Tensor
    kind_B: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on ``device``."""
        return Batch(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


class TokenizedPairs:
    """Records as token ids: sources and targets.

    Args:
        records: those that have nothing to write in this form are left out (:meth:`~Record.target`).
        generator: whose tokenizer reads them.
        max_source_tokens: of a longer raw prompt the beginning and the end are read; it ends with ``</s>``.
        max_target_tokens: where targets are cut, without a ``</s>`` then.
        prefix: text before every raw prompt.
    """

    def __init__(
        self,
        records: Sequence[Record],
        generator: Generator,
        form: Form,
        max_source_tokens: int,
        max_target_tokens: int,
        prefix: str = "",
    ) -> None:
        targets = [(record, record.target(form)) for record in records]
        self.records = [record for record, target in targets if target is not None]
        self._pad_id = generator.pad_id
        self.sources = generator.source_ids([prefix + r.raw_prompt for r in self.records], max_source_tokens)
        # Cut here and not by the tokenizer, which would end a cut target with </s> and so teach to stop anywhere.
        whole = generator.text_ids([target for _, target in targets if target is not None])
        self.targets = [ids[:max_target_tokens] for ids in whole]

    def __len__(self) -> int:
        return len(self.records)

    def digest(self) -> str:
        """SHA-256 over all that training sees of the records, in their order."""
        digest = hashlib.sha256()
        for record in self.records:
            texts = (record.raw_prompt, record.enhanced_prompt, *record.failed_prompts[:MAX_FAILED])
            digest.update(json.dumps([record.kind, *texts]).encode())
        return digest.hexdigest()

    def order(self, batch_size: int, seed: tuple[int, ...]) -> list[list[int]]:
        """Row numbers of each batch of an epoch: shuffled, rows of similar length together."""
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(self.records))
        batches: list[list[int]] = []
        for start in range(0, len(rows), 16 * batch_size):
            pool = sorted(rows[start : start + 16 * batch_size], key=lambda r: len(self.targets[r]))
            batches += [[int(r) for r in pool[i : i + batch_size]] for i in range(0, len(pool), batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def endless(self, batch_size: int, seed: int) -> Iterator[list[int]]:
        """Row numbers of batches, epoch after epoch."""
        for epoch in itertools.count():
            yield from self.order(batch_size, (seed, epoch))

    def tokens(self, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Of some rows: source ids and mask, int64 [B, S], and labels [B, T], IGNORE where padded."""
        sources = padded([self.sources[r] for r in rows], self._pad_id)
        labels = padded([self.targets[r] for r in rows], IGNORE)["input_ids"]
        return sources["input_ids"], sources["attention_mask"], labels


class Examples(TokenizedPairs):
    """Pairs with the cached embeddings of their texts."""

    def __init__(
        self,
        records: Sequence[Record],
        generator: Generator,
        cache: EmbeddingCache,
        form: Form,
        max_source_tokens: int,
        max_target_tokens: int,
    ) -> None:
        super().__init__(records, generator, form, max_source_tokens, max_target_tokens)
        self.cache = cache
        kinds = {kind: number for number, kind in enumerate(sorted({r.kind for r in self.records} - {""}))}
        self._kinds = [kinds.get(r.kind, -1) for r in self.records]

    def batch(self, rows: list[int]) -> Batch:
        """The tensors of some rows, on the CPU."""
        records = [self.records[r] for r in rows]
        source_ids_BS, source_mask_BS, labels_BT = self.tokens(rows)
        failed = [r.failed_prompts[:MAX_FAILED] for r in records]
        most = max((len(f) for f in failed), default=0)
        failed_BKE = torch.zeros(len(rows), most, self.cache.width)
        for i, texts in enumerate(failed):
            failed_BKE[i, : len(texts)] = self.cache.get(list(texts))
        return Batch(
            source_ids_BS=source_ids_BS,
            source_mask_BS=source_mask_BS,
            labels_BT=labels_BT,
            raw_BE=self.cache.get([r.raw_prompt for r in records]),
            enhanced_BE=self.cache.get([r.enhanced_prompt or "" for r in records]),
            failed_BKE=failed_BKE,
            failed_mask_BK=torch.tensor([[k < len(f) for k in range(most)] for f in failed])
            .reshape(len(rows), most)
            .bool(),
            kind_B=torch.tensor([self._kinds[r] for r in rows]),
        )


def all_texts(records: list[Record]) -> list[str]:
    """Every text of the records that needs an embedding."""
    texts = [r.raw_prompt for r in records]
    texts += [r.enhanced_prompt for r in records if r.enhanced_prompt is not None]
    texts += [f for r in records for f in r.failed_prompts[:MAX_FAILED]]
    return texts
