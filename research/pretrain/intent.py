"""Train the black box that steers the generator: ``python -m research.pretrain.intent --work work``.

On cached vectors of the frozen encoder, as phases 1 and 2 of the trainer do it: MSE to the embedding of the whole
enhanced prompt, and a supervised contrastive loss in which the enhanced prompts of one family are positives and failed
ones negatives; and a linear head, which is then thrown away, names the family from the intent. Writes ``intent.pt``:
standardizer and black box, named as in the adapter.
"""

import argparse
import json
import os
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_latent_trainer.adapter import AdapterConfig, BlackBox, Standardizer
from research.pretrain.encoder import MOST_TOKENS, NO_FAMILY, WIDTH, student, vectors_of
from research.pretrain.families import families, group_sentences
from research.pretrain.rows import Row, empty_row, every_pair, grammar_row, teacher_row, watched_pairs

HEAD, TEMPERATURE = 128, 0.1
CONTRASTIVE_WEIGHT, FAMILY_WEIGHT, SMOOTHING = 0.3, 0.5, 0.1


def draw_rows(prose: list[str], count: int, seed: int) -> list[Row]:
    """Rows to learn the intent from: of the grammar, the teacher, and some with nothing to add."""
    rng = random.Random(10_000 + seed)
    passage = lambda r: " ".join(r.choice(prose).split()[: r.randint(10, 50)])  # noqa: E731
    rows = []
    while len(rows) < count:
        chance = rng.random()
        if chance < 0.9:
            row = grammar_row(rng, passage) if chance < 0.3 else teacher_row(rng)
            rows.append(row.advised(rng))
        else:
            rows.append(empty_row(rng, passage))
    return rows


def group(row: Row, number: int) -> int:
    """What a row has in common with others: its family, or that there is nothing to add; else a number of its own."""
    if not row.complement:
        return len(families())
    return row.choice.family if row.choice else len(families()) + 1 + number


def load_encoder(work: Path, device: torch.device) -> tuple[Any, Tokenizer]:
    """The frozen RoBERTa of ``encoder.py`` and its tokenizer."""
    tokenizer = Tokenizer.from_file(str(work / "encoder_tokenizer.json"))
    model = student(tokenizer.get_vocab_size())
    model.load_state_dict(torch.load(work / "encoder.pt", weights_only=True, map_location="cpu"))
    return model.half().float().to(device).eval().requires_grad_(False), tokenizer


def embed(model: Any, tokenizer: Tokenizer, texts: list[str], device: torch.device, batch: int = 256) -> Tensor:
    """Raw embeddings [N, E], float32."""
    tokenizer.enable_truncation(MOST_TOKENS)
    return vectors_of(model, [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)], device, batch)


@torch.no_grad()
def watched(scores: Callable[[Tensor], Tensor], embed_texts: Callable[[list[str]], Tensor]) -> dict[str, float]:
    """How often a watched pair's family has the best score, one of the best three, or the group of the best one."""
    pairs = watched_pairs()
    best = scores(embed_texts([row.raw for row in pairs]))[:, :-1].topk(3).indices
    right = torch.tensor([row.choice.family for row in pairs if row.choice], device=best.device)[:, None]
    told_apart = {sentence: number for number, sentence in enumerate(dict.fromkeys(group_sentences()))}
    group_of = torch.tensor([told_apart[sentence] for sentence in group_sentences()], device=best.device)
    return {"pairs": len(pairs), "first": (best[:, :1] == right).float().mean().item(),
            "three": (best == right).any(1).float().mean().item(),
            "group": (group_of[best[:, :1]] == group_of[right]).float().mean().item()}  # fmt: skip


def main() -> None:
    """Read the options, draw the rows, embed them, train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--rows", type=int, default=300_000, help="drawn besides the teacher's pairs, each of which is one"
    )
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--start-from", type=Path, help="an intent.pt to go on from")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    prose = json.loads((options.work / "prose.json").read_text())
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers) as pool:
        parts = pool.map(partial(draw_rows, prose, options.rows // workers), range(workers))
        rows = [row.advised() for row in every_pair()] + [row for part in parts for row in part]
    encoder, tokenizer = load_encoder(options.work, device)
    raw_NE = embed(encoder, tokenizer, [row.raw for row in rows], device)
    enhanced_NE = embed(encoder, tokenizer, [row.enhanced for row in rows], device)
    with_failed = [i for i, row in enumerate(rows) if row.failed]
    failed_KE = embed(encoder, tokenizer, [f"{rows[i].raw}\n\n{rows[i].failed}" for i in with_failed] or ["x"], device)
    failed_of = torch.full((len(rows),), -1, device=device)
    failed_of[torch.tensor(with_failed, dtype=torch.long, device=device)] = torch.arange(
        len(with_failed), device=device
    )
    standardizer = Standardizer(WIDTH).to(device)
    standardizer.fit(enhanced_NE)
    groups = torch.tensor([group(row, number) for number, row in enumerate(rows)], device=device)
    config = AdapterConfig(encoder_width=WIDTH, generator_width=1)
    box, query, key = BlackBox(config).to(device), nn.Linear(WIDTH, HEAD).to(device), nn.Linear(WIDTH, HEAD).to(device)
    if options.start_from:
        state = torch.load(options.start_from, weights_only=True)
        box.load_state_dict({k.removeprefix("black_box."): v for k, v in state.items() if k.startswith("black_box.")})
        standardizer.load_state_dict(
            {k.removeprefix("standardizer."): v for k, v in state.items() if k.startswith("standardizer.")}
        )
    name_family = nn.Linear(WIDTH, len(families()) + 1).to(device)  # the last: nothing to add
    learned = [*box.parameters(), *query.parameters(), *key.parameters(), *name_family.parameters()]
    named = groups.masked_fill(groups > len(families()), NO_FAMILY)
    optimizer = torch.optim.AdamW(learned, lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=options.steps, pct_start=0.05)
    raw_NE, enhanced_NE, failed_KE = map(standardizer, (raw_NE, enhanced_NE, failed_KE))
    for step in range(options.steps):
        some = torch.randint(len(rows), (options.batch,), device=device)
        intent = box(raw_NE[some])
        asked, told = F.normalize(query(intent), dim=-1), F.normalize(key(enhanced_NE[some]), dim=-1)
        wrong = F.normalize(key(failed_KE[failed_of[some].clamp(min=0)]), dim=-1)
        scores = asked @ told.T / TEMPERATURE
        own_failed = (asked * wrong).sum(-1, keepdim=True) / TEMPERATURE
        own_failed = own_failed.masked_fill((failed_of[some] < 0)[:, None], -1e4)
        same = groups[some][:, None] == groups[some]
        log_share = torch.cat([scores, own_failed], 1).log_softmax(1)[:, : len(some)]
        contrastive = -((log_share * same).sum(1) / same.sum(1)).mean()
        distillation = F.mse_loss(intent, enhanced_NE[some])
        by_family = F.cross_entropy(name_family(intent), named[some], ignore_index=NO_FAMILY, label_smoothing=SMOOTHING)
        (distillation + CONTRASTIVE_WEIGHT * contrastive + FAMILY_WEIGHT * by_family).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 500 == 499:
            nearest = scores.detach().fill_diagonal_(-1e4).argmax(1)
            right = (groups[some][nearest] == groups[some])[same.sum(1) > 1].float().mean()
            print(json.dumps({"step": step + 1, "mse": distillation.item(), "contrastive": contrastive.item(),
                              "family_of_nearest": right.item()}), flush=True)  # fmt: skip
    box.eval()
    found = watched(
        lambda raw_NE: name_family(box(standardizer(raw_NE))), lambda texts: embed(encoder, tokenizer, texts, device)
    )
    print(json.dumps({"watched pairs whose family is named": found}))
    state = {f"standardizer.{name}": value.cpu() for name, value in standardizer.state_dict().items()}
    state |= {f"black_box.{name}": value.detach().cpu() for name, value in box.state_dict().items()}
    torch.save(state, options.work / "intent.pt")


if __name__ == "__main__":
    main()
