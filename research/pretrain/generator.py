"""Pre-train the embedded T5 for the complement form: ``python -m research.pretrain.generator --work work --minutes 7``.

A mix of streams: complements behind soft prompts made of the black box's intent (dropped in a quarter of the rows),
the same as whole rewrites behind an instruction, and of the corpus span corruption, continuation, and what follows the
first sentence of a prompt. Writes ``generator.pt`` (T5 and projector) every few minutes, and ``log.jsonl``.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import T5Config, T5ForConditionalGeneration

from neuro_latent_trainer.adapter import AdapterConfig, BlackBox, ResidualProjector, Standardizer
from research.pretrain.encoder import mean_pool
from research.pretrain.grammar import kinds
from research.pretrain.intent import load_encoder
from research.pretrain.optim import fast_dtype, make_optimizers, take_step
from research.pretrain.prepare import KINDS
from research.pretrain.rows import Row, details_of, empty_row, grammar_row, teacher_row, teacher_split, watched_pairs

INSTRUCTION = "Add what is missing to this request: "
REWRITE = "Rewrite this request as a clear and detailed prompt: "
WIDTH, INNER, HEADS, ENCODER_LAYERS, DECODER_LAYERS = 320, 1024, 5, 6, 3
SOFT = 20
MOST_SOURCE, MOST_TARGET = 110, 110
CORPUS_SHARES = (0.45, 0.2, 0.15, 0.2)
"""Of prompts, instructions with responses, prose, questions."""
STEERED = 0.75
HIDDEN = (0.0, 0.0, 0.0, 0.0, 0.0, 0.3)
FINISH_HIDDEN = (0.0, 0.0, 0.3, 0.5, 0.7, 1.0)
"""Shares of a prompt's tokens that are left out before a T5 that has soft prompts, one drawn a row: what it can't read,
it must hear from them. Without that it knows a request by its words, and takes a new word for a known one."""
FINISH_INTENT_NOISE = 0.4
POOL = 24
"""Batches that are drawn at once and sorted by length."""


@dataclass(frozen=True)
class StreamMix:
    """Shares of the streams; the rest is the corpus."""

    grammar: float
    teacher: float
    empty: float
    rewrite: float


EARLY, LATE = StreamMix(0.34, 0.05, 0.03, 0.05), StreamMix(0.47, 0.16, 0.07, 0.03)
"""Until ``LATE_FROM`` of the time, and after it, while the rate falls."""
FINISH = StreamMix(0.27, 0.55, 0.1, 0.01)
"""Of the finishing run, which learns to choose a family's sentences."""
CHOSEN = 0.9
"""Share of the finishing run's rows with a choice that are steered and have the chosen sentences as target."""
LATE_FROM = 0.6


def make_t5(vocabulary: int) -> Any:
    """The T5, from random weights."""
    config: Any = T5Config
    return T5ForConditionalGeneration(
        config(
            vocab_size=vocabulary,
            d_model=WIDTH,
            d_kv=64,
            d_ff=INNER,
            num_layers=ENCODER_LAYERS,
            num_decoder_layers=DECODER_LAYERS,
            num_heads=HEADS,
            dropout_rate=0.0,
            feed_forward_proj="relu",
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )


class SteeredT5(nn.Module):
    """A T5 behind soft prompts that a projector makes of intents."""

    def __init__(self, t5: Any, instruction_ids: list[int], intent_width: int) -> None:
        super().__init__()
        self.t5 = t5
        self.projector = ResidualProjector(AdapterConfig(encoder_width=intent_width, generator_width=t5.config.d_model))
        table_VD = t5.get_input_embeddings().weight.detach()
        slots = [instruction_ids[i % len(instruction_ids)] for i in range(SOFT)]
        self.projector.start_from(table_VD, table_VD[slots])

    def loss(self, batch: dict[str, Tensor], intent_BE: Tensor) -> Tensor:
        """Cross-entropy of each target token, float32 [N]."""
        soft_BPD = self.projector(intent_BE)
        source_BSD = self.t5.get_input_embeddings()(batch["source"])
        mask_BQ = torch.cat([batch["steered"][:, None].expand(-1, SOFT), batch["source_mask"]], dim=1)
        hidden = self.t5.encoder(inputs_embeds=torch.cat([soft_BPD, source_BSD], 1), attention_mask=mask_BQ)
        decoded = self.t5.decoder(
            input_ids=batch["decoder_in"],
            encoder_hidden_states=hidden.last_hidden_state,
            encoder_attention_mask=mask_BQ,
            use_cache=False,
        ).last_hidden_state
        kept_ND = decoded.flatten(0, 1)[batch["kept"]] * self.t5.config.d_model**-0.5
        return F.cross_entropy(self.t5.lm_head(kept_ND).float(), batch["labels"], reduction="none")


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Batches of about ``tokens`` padded tokens, from as many processes as there are."""

    def __init__(self, work: Path, tokens: int, minutes: float, seed: int, finish: bool = False) -> None:
        self.work, self.tokens, self.minutes, self.seed, self.finish = work, tokens, minutes, seed, finish

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        number = worker.id if worker else 0
        if worker:
            torch.set_num_threads(1)
        self.rng, self.np_rng = (
            random.Random(self.seed * 1000 + number),
            np.random.default_rng(self.seed * 1000 + number),
        )
        self.tokenizer = Tokenizer.from_file(str(self.work / "generator_tokenizer.json"))
        encoder = Tokenizer.from_file(str(self.work / "encoder_tokenizer.json")).get_vocab()
        pieces = self.tokenizer.get_vocab()
        self.to_encoder = np.full(max(pieces.values()) + 1, encoder["<unk>"])
        for piece, i in pieces.items():
            self.to_encoder[i] = encoder.get(piece, encoder["<unk>"])
        self.ends = np.zeros(len(self.to_encoder), dtype=bool)
        for piece, i in pieces.items():
            self.ends[i] = piece.endswith((".", "!", "?", "Ċ"))
        self.sentinel = pieces["<extra_id_0>"]
        self.instruction, self.rewrite = self.ids(INSTRUCTION), self.ids(REWRITE)
        self.prose = json.loads((self.work / "prose.json").read_text())
        data = np.load(self.work / "tokens.npz")
        self.corpus, self.starts = data["ids"], np.concatenate([[0], np.cumsum(data["lengths"], dtype=np.int64)])
        self.by_kind = []
        for kind in range(len(KINDS)):
            found = np.flatnonzero((data["kinds"] == kind) & (data["lengths"] >= 24))
            self.by_kind.append((found, np.cumsum(np.minimum(data["lengths"][found], 1500).astype(np.float64))))
        began = time.monotonic()
        while True:
            late = time.monotonic() - began > 60 * self.minutes * LATE_FROM
            yield from self.pool(FINISH if self.finish else LATE if late else EARLY)

    def ids(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def pool(self, mix: StreamMix) -> list[dict[str, Tensor]]:
        """Some batches, of rows of similar length."""
        rows, size = [], 0
        while size < POOL * self.tokens:
            row = self.row(mix)
            rows.append(row)
            size += len(row[0]) + len(row[1]) + SOFT
        rows.sort(key=lambda row: (len(row[1]) // 8, len(row[0])))
        batches, start = [], 0
        while start < len(rows):
            end, source, target = start, 0, 0
            while end < len(rows):
                source, target = max(source, len(rows[end][0])), max(target, len(rows[end][1]))
                if (end + 1 - start) * (source + target + SOFT) > self.tokens:
                    break
                end += 1
            batches.append(self.batch(rows[start:end]))
            start = end
        self.rng.shuffle(batches)
        return batches

    def passage(self, rng: random.Random) -> str:
        """A piece of a text to paste."""
        return " ".join(rng.choice(self.prose).split()[: rng.randint(10, 50)])

    def row(self, mix: StreamMix) -> tuple[list[int], list[int], list[int]]:
        """Source, target and guide (what the encoder reads; empty where nothing steers), without special tokens."""
        rng, chance = self.rng, self.rng.random()
        for share, draw in (
            (mix.grammar, lambda: grammar_row(rng, self.passage)),
            (mix.teacher, lambda: teacher_row(rng)),
            (mix.empty, lambda: empty_row(rng, self.passage)),
        ):
            if chance < share:
                return self.complement(draw())
            chance -= share
        if chance < mix.rewrite:
            return self.whole()
        return self.of_corpus()

    def complement(self, row: Row) -> tuple[list[int], list[int], list[int]]:
        """Raw prompt -> complement."""
        rng = self.rng
        chosen = self.finish and row.choice is not None
        if chosen and (chosen := rng.random() < CHOSEN):
            row = row.advised(rng)
        raw = self.ids(row.raw)[:MOST_SOURCE]
        target = self.ids(row.complement)[:MOST_TARGET]
        if chosen or not row.complement or (not self.finish and rng.random() < STEERED):
            hidden = rng.choice(FINISH_HIDDEN if self.finish else HIDDEN)
            return [i for i in raw if rng.random() >= hidden], target, raw
        return (self.instruction + raw if rng.random() < 0.5 else raw), target, []

    def whole(self) -> tuple[list[int], list[int], list[int]]:
        """Raw prompt -> a rewrite that begins with a sentence of its own, behind an instruction in words."""
        row = grammar_row(self.rng, self.passage, noise=False)
        kind = kinds()[row.kind]
        first = row.raw[0].upper() + row.raw[1:].rstrip(".?!") + "."
        target = " ".join([first, *details_of(kind, self.rng)])
        return self.rewrite + self.ids(row.raw), self.ids(target)[:MOST_TARGET], []

    def of_corpus(self) -> tuple[list[int], list[int], list[int]]:
        """A piece of the corpus: spans, a continuation, or what follows a first sentence."""
        rng = self.np_rng
        kind = int(rng.choice(len(KINDS), p=CORPUS_SHARES))
        found, weights = self.by_kind[kind]
        number = found[np.searchsorted(weights, rng.random() * weights[-1])]
        ids = self.corpus[self.starts[number] : self.starts[number + 1]]
        whole_start = rng.random() < 0.4
        if not whole_start:
            at = int(rng.integers(max(1, len(ids) - 40)))
            ids = ids[at : at + 400]
            sentence = np.flatnonzero(self.ends[ids[:60]])
            ids = ids[sentence[0] + 1 :] if len(sentence) and sentence[0] + 24 < len(ids) else ids
        piece = ids[: int(rng.integers(40, MOST_SOURCE + MOST_TARGET - 20))].astype(np.int64)
        if rng.random() < 0.45:
            return (*self.spans(piece[: MOST_SOURCE + 10]), [])
        ends = np.flatnonzero(self.ends[piece[:MOST_SOURCE]])
        cut = (
            int(ends[rng.integers(min(3, len(ends)))]) + 1
            if len(ends)
            else int(rng.integers(6, max(7, len(piece) // 2)))
        )
        cut = min(max(cut, 3), MOST_SOURCE)
        source, target = piece[:cut].tolist(), piece[cut : cut + MOST_TARGET]
        last = np.flatnonzero(self.ends[target])
        target = target[: last[-1] + 1] if len(last) else target
        return source, target.tolist(), source if kind == 0 and whole_start else []

    def spans(self, ids: np.ndarray) -> tuple[list[int], list[int]]:
        """Random spans replaced by sentinels, and what was removed (Raffel et al. 2020)."""
        starts = np.sort(self.np_rng.choice(len(ids), size=max(1, round(len(ids) * 0.2 / 3)), replace=False))
        source: list[int] = []
        target: list[int] = []
        position, sentinel = 0, self.sentinel
        for start in starts:
            if start < position or sentinel > self.sentinel + 30:
                continue
            end = min(len(ids), start + 1 + int(self.np_rng.poisson(2)))
            source += [*ids[position:start].tolist(), sentinel]
            target += [sentinel, *ids[start:end].tolist()]
            position, sentinel = end, sentinel + 1
        return source + ids[position:].tolist(), target

    def batch(self, rows: list[tuple[list[int], list[int], list[int]]]) -> dict[str, Tensor]:
        """Rows as tensors: sources and targets end with ``</s>`` (id 1), guides stand in ``<s> </s>``."""
        sources, targets = [[*source, 1] for source, _, _ in rows], [[*target, 1] for _, target, _ in rows]
        guides = [[0, *self.to_encoder[guide].tolist(), 2] if guide else [0, 2] for _, _, guide in rows]
        source, source_mask = _padded(sources, 0)
        decoder_in, target_mask = _padded([[0, *target[:-1]] for target in targets], 0)
        guide, guide_mask = _padded(guides, 1)
        return {
            "source": source,
            "source_mask": source_mask,
            "decoder_in": decoder_in,
            "kept": torch.from_numpy(np.flatnonzero(target_mask.numpy())),
            "labels": torch.tensor([token for target in targets for token in target]),
            "guide": guide,
            "guide_mask": guide_mask,
            "steered": torch.tensor([int(bool(guide)) for _, _, guide in rows]),
        }


def _padded(rows: list[list[int]], value: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    out, mask = np.full((len(rows), width), value, dtype=np.int64), np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return torch.from_numpy(out), torch.from_numpy(mask)


def held_out(stream: Stream) -> dict[str, list[dict[str, Tensor]]]:
    """Fixed batches of forms and of kinds that are not trained on, and of the teacher's held-out pairs."""
    rng, rows = random.Random(5), {"forms": [], "kinds": [], "teacher": []}
    for kind in kinds():
        for form in kind.forms[:2] if kind.held_out else kind.held_out_forms[:1]:
            rows["kinds" if kind.held_out else "forms"].append(
                Row(kind.request(rng, form), " ".join(details_of(kind, rng)))
            )
    rows["teacher"] = [row for row in teacher_split()[1] if row.complement]
    rows["chosen"] = [row.advised() for row in watched_pairs()]
    batches = {}
    for name, some in rows.items():
        some = rng.sample(some, min(480, len(some)))
        triples = [
            (stream.ids(r.raw)[:MOST_SOURCE], stream.ids(r.complement)[:MOST_TARGET], stream.ids(r.raw)[:MOST_SOURCE])
            for r in some
        ]
        batches[name] = [stream.batch(triples[at : at + 240]) for at in range(0, len(triples), 240)]
    return batches


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--tokens", type=int, default=65_536, help="padded tokens a step")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--embedding-rate", type=float, default=1.5e-2)
    parser.add_argument("--workers", type=int, default=13)
    parser.add_argument("--report-every", type=int, default=100)
    parser.add_argument("--judge-every", type=float, default=45, help="seconds between held-out losses")
    parser.add_argument("--start-from", type=Path, help="a generator.pt to go on from")
    parser.add_argument("--finish", action="store_true", help="a finishing run: complements, with much left out")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    log = (options.work / "log.jsonl").open("a")
    encoder, _ = load_encoder(options.work, device)
    width = encoder.config.hidden_size
    box, standardizer = BlackBox(AdapterConfig(encoder_width=width, generator_width=1)), Standardizer(width)
    state = torch.load(options.work / "intent.pt", weights_only=True)
    box.load_state_dict({k.removeprefix("black_box."): v for k, v in state.items() if k.startswith("black_box.")})
    standardizer.load_state_dict({k.removeprefix("standardizer."): v for k, v in state.items() if "standardizer" in k})
    box, standardizer = box.to(device).eval().requires_grad_(False), standardizer.to(device)
    stream = Stream(options.work, options.tokens, options.minutes, options.seed, options.finish)
    tokenizer = Tokenizer.from_file(str(options.work / "generator_tokenizer.json"))
    ids = list(tokenizer.encode(INSTRUCTION, add_special_tokens=False).ids)
    model = SteeredT5(make_t5(tokenizer.get_vocab_size()), ids, width)
    if options.start_from:
        model.load_state_dict(torch.load(options.start_from, weights_only=True))
    model.to(device)
    if device.type == "cuda":
        for module in model.modules():  # one kernel in place of six
            if type(module).__name__ == "T5LayerNorm":
                module.forward = lambda x, m=module: F.rms_norm(
                    x, (x.shape[-1],), m.weight.to(x.dtype), m.variance_epsilon
                )  # type: ignore[method-assign,misc]
    optimizers = make_optimizers(model, options.rate, options.embedding_rate)

    @torch.no_grad()
    def intent_of(batch: dict[str, Tensor]) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_dtype(device) == torch.bfloat16):
            hidden = encoder(batch["guide"], batch["guide_mask"]).last_hidden_state
        return box(standardizer(mean_pool(hidden, batch["guide_mask"])))

    fixed_stream = Stream(options.work, 4096, 1, 7)
    next(iter(fixed_stream))  # opens its files
    fixed = {
        name: [{k: v.to(device) for k, v in batch.items()} for batch in batches]
        for name, batches in held_out(fixed_stream).items()
    }

    @torch.no_grad()
    def judge() -> dict[str, float]:
        """Held-out losses with own, other rows' and no soft prompts."""
        found = {}
        model.eval()
        for name, batches in fixed.items():
            sums = {"own": 0.0, "other": 0.0, "none": 0.0}
            for batch in batches:
                intent = intent_of(batch)
                with torch.autocast(device.type, torch.bfloat16, enabled=fast_dtype(device) == torch.bfloat16):
                    sums["own"] += model.loss(batch, intent).mean().item()
                    sums["other"] += model.loss(batch, intent.roll(1, 0)).mean().item()
                    none = {**batch, "steered": torch.zeros_like(batch["steered"])}
                    sums["none"] += model.loss(none, intent).mean().item()
            found |= {f"{name}_{key}": round(value / len(batches), 4) for key, value in sums.items()}
        model.train()
        return found

    def save() -> None:
        partial = options.work / "generator.partial"
        torch.save(model.state_dict(), partial)
        partial.replace(options.work / "generator.pt")

    def note(**values: Any) -> None:
        line = json.dumps(values)
        print(line, flush=True)
        log.write(line + "\n")
        log.flush()

    loader = iter(DataLoader(stream, batch_size=None, num_workers=options.workers, pin_memory=device.type == "cuda",
                             prefetch_factor=4 if options.workers else None))  # fmt: skip
    step = tokens = padded = 0
    running = torch.zeros((), device=device)
    started = judged = saved = time.monotonic()
    waited = 0.0
    while (progress := (time.monotonic() - started) / (60 * options.minutes)) < 1:
        before = time.monotonic()
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in next(loader).items()}
        waited += time.monotonic() - before
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_dtype(device) == torch.bfloat16):
            intent = intent_of(batch)
            if options.finish:
                noise = FINISH_INTENT_NOISE * torch.rand(len(intent), 1, device=device)
                intent = intent + noise * torch.randn_like(intent) * intent.std(0)
            loss = model.loss(batch, intent).mean()
        loss.backward()
        take_step(optimizers, model, progress)
        running += loss.detach()
        step += 1
        tokens += len(batch["labels"])
        padded += batch["source"].numel() + batch["decoder_in"].numel() + SOFT * len(batch["source"])
        if step % options.report_every == 0:
            seconds = time.monotonic() - started
            speed = {"padded_per_s": int(padded / seconds), "waited": round(waited / seconds, 3)}
            mean = round(running.item() / options.report_every, 4)
            note(step=step, loss=mean, target_tokens=tokens, minutes=round(seconds / 60, 2), **speed)
            running.zero_()
            if not np.isfinite(loss.item()):
                raise FloatingPointError(f"the loss is {loss.item()} at step {step}")
        if time.monotonic() - judged > options.judge_every:
            judged = time.monotonic()
            note(step=step, **judge())
        if time.monotonic() - saved > 100:
            saved = time.monotonic()
            save()
    save()
    note(step=step, tokens=tokens, padded=padded, **judge())


if __name__ == "__main__":
    main()
