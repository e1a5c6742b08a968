"""Distil a sentence encoder into the embedded RoBERTa.

``python -m research.pretrain.encoder --teacher DIR --work work``

The student learns the teacher's vectors of short texts (cosine through a linear map that is thrown away, and the
similarities within a batch on its own vectors), and that requests of one kind belong together (supervised contrastive
loss, Khosla et al. 2020). Writes ``encoder.pt``.

``--start-from encoder.pt`` goes on from one in place of a teacher: mostly with requests as people type them, whose
family it learns to name, near the vectors that it had.
"""

import argparse
import json
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, RobertaConfig, RobertaModel

from research.pretrain.families import families
from research.pretrain.grammar import kinds
from research.pretrain.noise import hasty
from research.pretrain.optim import fast_dtype, make_optimizers, take_step
from research.pretrain.rows import NO_KIND, empty_row, grammar_row, teacher_row, teacher_split, watched_pairs

LAYERS, WIDTH, INNER, HEADS = 4, 256, 1024, 4
ENCODER_TOKENS = 256
"""The longest text the encoder reads, in tokens, special tokens included."""
MOST_TOKENS = 96
"""The longest text of the distillation."""
SIMILARITY_TEMPERATURE, KIND_TEMPERATURE = 0.05, 0.1
RELATION_WEIGHT, KIND_WEIGHT, FAMILY_WEIGHT = 0.5, 0.1, 0.5
SHARES, SHARES_LATER = (0.5, 0.1, 0.05), (0.1, 0.8, 0.03)
"""Of the grammar, requests as people type them, and texts with nothing to add; at first, and when it goes on. The rest
are lines of the corpus."""
WHOLE, WHOLE_LATER = 0.3, 0.05
"""Share of the requests whose whole enhanced prompt (or failed one) is a text too; at first, and when it goes on."""
NO_FAMILY = -1
DROPPED = 0.1
"""Share of a text's tokens that are left out when it goes on: it saw these requests before."""


def student(vocabulary: int) -> Any:
    """The RoBERTa to train, without a pooler."""
    config = RobertaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        max_position_embeddings=ENCODER_TOKENS + 2,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return RobertaModel(config, add_pooling_layer=False)


_drawn_from: tuple[list[str], list[str]] = ([], [])
"""Passages and lines, which forked processes share."""


def draw_texts(count: int, shares: tuple[float, float, float], whole: float, seed: int) -> list[tuple[str, int, int]]:
    """Texts with the kind and the family of request that they are."""
    rng, texts = random.Random(seed), []
    prose, lines = _drawn_from
    passage = lambda r: " ".join(r.choice(prose).split()[: r.randint(10, 50)])  # noqa: E731
    draws = (lambda: grammar_row(rng, passage), lambda: teacher_row(rng), lambda: empty_row(rng, passage), None)
    while len(texts) < count:
        draw = rng.choices(draws, (*shares, 1 - sum(shares)))[0]
        if draw is None:
            words = rng.choice(lines).split()
            start = 0 if rng.random() < 0.5 else rng.randrange(max(1, len(words) - 3))
            text = " ".join(words[start : start + rng.choice((3, 6, 9, 12, 20, 40))])
            texts.append((hasty(text, rng) or "x", NO_KIND, NO_FAMILY))
            continue
        row = draw()
        family = row.choice.family if row.choice else NO_FAMILY
        texts.append((row.raw, row.kind, family))
        if row.complement and rng.random() < whole:
            texts.append((row.enhanced, row.kind, NO_FAMILY))
        if row.failed and rng.random() < whole:
            texts.append((f"{row.raw}\n\n{row.failed}", NO_KIND, NO_FAMILY))
    return texts


def corpus_lines(work: Path, documents: int = 40_000) -> list[str]:
    """Lines of the corpus, at most 60 words each."""
    data = np.load(work / "tokens.npz")
    tokenizer = Tokenizer.from_file(str(work / "generator_tokenizer.json"))
    starts = np.concatenate([[0], np.cumsum(data["lengths"], dtype=np.int64)])
    ids, rng, lines = data["ids"], random.Random(3), []
    numbers = rng.sample(range(len(starts) - 1), min(len(starts) - 1, documents))
    for text in tokenizer.decode_batch([ids[starts[n] : starts[n] + 250].tolist() for n in numbers]):
        found = [" ".join(line.split()[:60]) for line in text.splitlines() if len(line.split()) >= 3]
        lines += rng.sample(found, min(4, len(found)))
    return lines


def mean_pool(hidden_BLE: Tensor, mask_BL: Tensor) -> Tensor:
    """Mean over real tokens, float32 [B, E]."""
    weights = mask_BL.unsqueeze(-1).float()
    return (hidden_BLE.float() * weights).sum(1) / weights.sum(1).clamp(min=1)


def padded(rows: list[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, L]."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    mask = np.arange(width) < np.array([[len(row)] for row in rows])
    return (
        torch.from_numpy(ids).to(device, non_blocking=True),
        torch.from_numpy(mask.astype(np.int64)).to(device, non_blocking=True),
    )


@torch.no_grad()
def teacher_vectors(folder: str, texts: list[str], device: torch.device, batch: int = 2048) -> Tensor:
    """Unit vectors of a sentence encoder, float16 [N, 384] on ``device``."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float16 if device.type == "cuda" else torch.float32)
    model.to(device).eval()
    tokenizer.backend_tokenizer.enable_truncation(MOST_TOKENS)
    tokenizer.backend_tokenizer.no_padding()
    vectors = torch.empty(len(texts), model.config.hidden_size, dtype=torch.float16, device=device)
    for chunk in range(0, len(texts), 200_000):
        rows = [e.ids for e in tokenizer.backend_tokenizer.encode_batch_fast(texts[chunk : chunk + 200_000])]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for at in range(0, len(order), batch):
            some = order[at : at + batch]
            ids, mask = padded([rows[i] for i in some], 0, device)
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            places = torch.tensor([chunk + i for i in some], device=device)
            vectors[places] = F.normalize(mean_pool(hidden, mask), dim=-1).half()
    return vectors


@torch.no_grad()
def vectors_of(model: Any, rows: list[list[int]], device: torch.device, batch: int = 2048) -> Tensor:
    """The student's vectors of token ids, float32 [N, E] on ``device``."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    vectors = torch.empty(len(rows), WIDTH, device=device)
    for at in range(0, len(order), batch):
        some = order[at : at + batch]
        ids, mask = padded([rows[i] for i in some], 1, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            hidden = model(ids, mask).last_hidden_state
        vectors[torch.tensor(some, device=device)] = mean_pool(hidden, mask)
    return vectors


def shortened(ids: list[int], share: float, rng: np.random.Generator) -> list[int]:
    """The ids without ``share`` of those between the first and the last."""
    if not share:
        return ids
    kept = rng.random(len(ids)) >= share
    kept[[0, -1]] = True
    return [token for token, keep in zip(ids, kept, strict=True) if keep]


def kind_loss(unit_BE: Tensor, kind_B: Tensor) -> Tensor:
    """Supervised contrastive loss over the rows that have a kind."""
    unit_BE, kind_B = unit_BE[kind_B != NO_KIND], kind_B[kind_B != NO_KIND]
    scores = unit_BE @ unit_BE.T / KIND_TEMPERATURE
    scores.fill_diagonal_(-1e4)
    same = (kind_B[:, None] == kind_B).fill_diagonal_(False)
    found = same.sum(1)
    loss = -(scores.log_softmax(1) * same).sum(1) / found.clamp(min=1)
    return (loss * (found > 0)).sum() / (found > 0).sum().clamp(min=1)


def main() -> None:
    """Read the options, draw the texts, distil."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--teacher", help="folder of a sentence encoder, to distil")
    source.add_argument("--start-from", type=Path, help="an encoder.pt to go on from")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=1_500_000)
    parser.add_argument("--batch", type=int, default=3072)
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--embedding-rate", type=float, default=2e-3)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    began = time.monotonic()

    def note(**values: Any) -> None:
        print(json.dumps({"s": round(time.monotonic() - began, 1), **values}), flush=True)

    global _drawn_from
    _drawn_from = json.loads((options.work / "prose.json").read_text()), corpus_lines(options.work)
    workers = os.cpu_count() or 1
    teacher_split()  # read once, before the processes are made
    kinds()
    with ProcessPoolExecutor(workers) as pool:
        share = options.texts // (4 * workers) + 1
        mix = (SHARES_LATER, WHOLE_LATER) if options.start_from else (SHARES, WHOLE)
        draw = partial(draw_texts, share, *mix)
        rows = list(
            {row[0]: row for part in pool.map(draw, range(4 * workers)) for row in part if row[0].strip()}.values()
        )
    note(texts=len(rows))
    tokenizer = Tokenizer.from_file(str(options.work / "encoder_tokenizer.json"))
    tokenizer.enable_truncation(MOST_TOKENS)
    ids = [e.ids for at in range(0, len(rows), 100_000)
           for e in tokenizer.encode_batch_fast([text for text, _, _ in rows[at : at + 100_000]])]  # fmt: skip
    kind_N, family_N = (torch.tensor([row[i] for row in rows], device=device) for i in (1, 2))
    model = student(tokenizer.get_vocab_size()).to(device)
    if options.start_from:
        model.load_state_dict(torch.load(options.start_from, weights_only=True, map_location=device))
        target = F.normalize(vectors_of(model, ids, device, batch=512), dim=-1).half()
    else:
        target = teacher_vectors(options.teacher, [text for text, _, _ in rows], device)
    note(targets=list(target.shape))
    family_weight, dropped = (FAMILY_WEIGHT, DROPPED) if options.start_from else (0.0, 0.0)
    name_family = nn.Linear(WIDTH, len(families())).to(device)
    lift = nn.Linear(WIDTH, target.shape[1], bias=False).to(device)
    if options.start_from:
        nn.init.eye_(lift.weight)
        with torch.no_grad():
            middle = target.float().mean(0)
            for number in family_N.unique().tolist():
                if number != NO_FAMILY:
                    centre = target[family_N == number].float().mean(0) - middle
                    name_family.weight[number] = F.normalize(centre, dim=0)
    together = nn.ModuleDict({"model": model, "lift": lift, "family": name_family})
    optimizers = make_optimizers(together, options.rate, options.embedding_rate)
    pairs = [(row.raw, row.choice.family) for row in watched_pairs() if row.choice]

    @torch.no_grad()
    def watched() -> dict[str, float]:
        batch_ids, mask = padded([e.ids for e in tokenizer.encode_batch_fast([raw for raw, _ in pairs])], 1, device)
        scores = name_family(F.normalize(mean_pool(model(batch_ids, mask).last_hidden_state, mask), dim=-1))
        right = scores.topk(3).indices == torch.tensor([family for _, family in pairs], device=device)[:, None]
        return {"first": right[:, 0].float().mean().item(), "three": right.any(1).float().mean().item()}

    rng, step, started, report = np.random.default_rng(0), 0, time.monotonic(), 0.0
    while (progress := (time.monotonic() - started) / (60 * options.minutes)) < 1:
        pool_rows = rng.integers(len(rows), size=16 * options.batch)
        pool_rows = pool_rows[np.argsort([len(ids[i]) for i in pool_rows], kind="stable")]
        for part in rng.permutation(16):
            some = pool_rows[part * options.batch : (part + 1) * options.batch]
            batch_ids, mask = padded([shortened(ids[i], dropped, rng) for i in some], 1, device)
            places = torch.from_numpy(some).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=fast_dtype(device) == torch.bfloat16):
                hidden = model(batch_ids, mask).last_hidden_state
            vector, wanted = mean_pool(hidden, mask), target[places].float()
            unit = F.normalize(vector, dim=-1)
            cosine = (F.normalize(lift(vector), dim=-1) * wanted).sum(-1).mean()
            own = (unit @ unit.T / SIMILARITY_TEMPERATURE).fill_diagonal_(-1e4).log_softmax(1)
            given = (wanted @ wanted.T / SIMILARITY_TEMPERATURE).fill_diagonal_(-1e4).softmax(1)
            relation = F.kl_div(own, given, reduction="batchmean")
            by_kind = kind_loss(unit, kind_N[places])
            by_family = F.cross_entropy(name_family(unit) / KIND_TEMPERATURE, family_N[places], ignore_index=NO_FAMILY)
            loss = 4 * (1 - cosine) + RELATION_WEIGHT * relation + KIND_WEIGHT * by_kind
            (loss + family_weight * by_family).backward()
            take_step(optimizers, together, progress)
            step += 1
        if time.monotonic() - report > 20:
            report = time.monotonic()
            note(
                step=step, cosine=cosine.item(), relation=relation.item(), kind=by_kind.item(),
                family=by_family.item(), **watched()
            )  # fmt: skip
    torch.save(model.state_dict(), options.work / "encoder.pt")
    note(step=step, cosine=cosine.item(), **watched())


if __name__ == "__main__":
    main()
