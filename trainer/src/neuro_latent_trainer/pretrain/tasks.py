"""Training examples from token ids.

Encoder: masked language modelling (RoBERTa), and a short request must find the text that it was made of. Generator, a
mixture:

* span corruption (T5, Raffel et al. 2020, section 3.1.4): 15 % of the tokens, spans of 3 on average;
* continuation: the start of a text -> the rest of it;
* repair: a sentence with false starts, doubled and missing words -> the sentence;
* expansion: a few words or phrases of a text, its first words or its first sentence -> the whole text. Its sources look
  like short user requests;
* rewriting: a raw prompt of the grammar of everyday requests (``everyday.py``) -> its rewrite.

Most repairs, expansions and rewritings are *steered*: before the source stand soft prompts made of an embedding of the
text that is to be written (``steering.py``), as an adapter will put them there. The others carry an instruction in
words, on prompts EXPAND_PROMPT, whose embeddings the soft prompts start from.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from neuro_latent_trainer.choices import INSTRUCTION
from neuro_latent_trainer.losses import IGNORE
from neuro_latent_trainer.pretrain.tokenizer import ENCODER_SPECIALS
from neuro_latent_trainer.pretrain.tokens import KINDS, TokenStore

EXPAND_PROMPT = INSTRUCTION
EXPAND_TEXT = "Write a text about: "
CONTINUE = "Continue this text: "
FALSE_STARTS = (" no", " uh", " um", " sorry", " I mean", " no wait", " actually", " or rather", " make that", " er")
"""What people say when they correct themselves."""
PROMPTS = ("prompt", "enhanced", "request", "everyday")
"""Kinds of text that are prompts."""
PAIRED = ("everyday",)
"""Kinds that are a raw prompt and its rewrite, which is never begun in the middle: its subject comes first."""
MAX_REPAIR = 40
"""The longest sentence of a repair, in tokens."""


@dataclass(frozen=True)
class Mixture:
    """Shares of the document kinds and of the generator's tasks, and the chunk lengths in tokens.

    Attributes:
        rewriting: share of the repairs and expansions of paired texts that are rewritings instead.
        steered: share of the repairs, expansions and rewritings that are steered.
        instruction_dropout: share of the instructions in words that are left out.
    """

    kinds: dict[str, float] = field(
        default_factory=lambda: {
            "prompt": 0.12,
            "instruction_response": 0.13,
            "prose": 0.04,
            "qa": 0.04,
            "enhanced": 0.22,
            "request": 0.15,
            "everyday": 0.3,
        }
    )
    span_corruption: float = 0.1
    continuation: float = 0.1
    repair: float = 0.2
    expansion: float = 0.6
    rewriting: float = 0.6
    steered: float = 0.7
    instruction_dropout: float = 0.2
    min_chunk: int = 16
    max_chunk: int = 112


class Vocabulary:
    """What the tasks must know of a byte-level BPE: where words and sentences end, which words carry content."""

    def __init__(self, tokenizer: Tokenizer, counts: np.ndarray) -> None:
        pieces = [tokenizer.id_to_token(i) or "" for i in range(tokenizer.get_vocab_size())]
        self.starts_word = np.array([p.startswith(("Ġ", "Ċ")) for p in pieces])
        self.ends_sentence = np.array([p.endswith((".", "!", "?", "Ċ")) for p in pieces])
        letters = np.array([sum(c.isalnum() for c in p.lstrip("Ġ")) >= 2 for p in pieces])
        frequent = np.zeros(len(pieces), dtype=bool)
        frequent[np.argsort(-counts)[:120]] = True
        self.carries_content = letters & ~frequent
        ids = {piece: i for i, piece in enumerate(pieces)}
        self.is_blank = np.array([p != "" and not p.strip("ĠĊ") for p in pieces])
        self.without_space = np.array([ids.get(p.removeprefix("Ġ"), i) for i, p in enumerate(pieces)])
        self.instructions = {
            text: np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)
            for text in (EXPAND_PROMPT, EXPAND_TEXT, CONTINUE)
        }
        self.false_starts = [
            np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64) for text in FALSE_STARTS
        ]
        self.eos = ids["</s>"]
        self.first_sentinel = ids["<extra_id_0>"]
        self.line_break = ids["Ċ"]

    def strip(self, ids: np.ndarray) -> np.ndarray:
        """Drop blank tokens and the space at the start, as a text that someone typed has none."""
        inked = np.flatnonzero(~self.is_blank[ids])
        ids = ids[inked[0] if len(inked) else 0 :].copy()
        ids[:1] = self.without_space[ids[:1]]
        return ids


class Sampler:
    """Draws chunks: kind by share, document by length (capped), start at a sentence, end at a sentence."""

    def __init__(self, store: TokenStore, documents: np.ndarray, mixture: Mixture, vocabulary: Vocabulary) -> None:
        self.store, self.mixture, self.vocabulary = store, mixture, vocabulary
        lengths = np.diff(store.starts)[documents]
        self.by_kind: list[tuple[np.ndarray, np.ndarray]] = []
        shares = []
        for index, kind in enumerate(KINDS):
            chosen = (store.kinds[documents] == index) & (lengths >= mixture.min_chunk)
            weights = np.minimum(lengths[chosen], 6 * mixture.max_chunk).astype(np.float64)
            self.by_kind.append((documents[chosen], np.cumsum(weights)))
            shares.append(mixture.kinds[kind] if chosen.any() else 0.0)
        self.kind_shares = np.array(shares) / np.sum(shares)

    def chunk(self, rng: np.random.Generator) -> tuple[np.ndarray, int, np.ndarray | None]:
        """Return ``(token ids int64 [n], kind index, its raw prompt)``; the last only of a paired kind."""
        kind = int(rng.choice(len(KINDS), p=self.kind_shares))
        documents, weights = self.by_kind[kind]
        ids = self.store.document(documents[np.searchsorted(weights, rng.random() * weights[-1])]).astype(np.int64)
        raw = None
        if KINDS[kind] in PAIRED:
            at = int(np.argmax(ids == self.vocabulary.line_break))
            raw, ids = ids[:at], ids[at + 1 :]
        sentence_end = self.vocabulary.ends_sentence[ids]
        if raw is None and rng.random() < 0.5:
            starts = np.flatnonzero(sentence_end[: max(1, len(ids) - self.mixture.min_chunk)]) + 1
            if len(starts):
                ids = ids[starts[rng.integers(len(starts))] :]
                sentence_end = self.vocabulary.ends_sentence[ids]
        longest = int(rng.integers(self.mixture.min_chunk, self.mixture.max_chunk + 1))
        if len(ids) > longest:
            ends = np.flatnonzero(sentence_end[self.mixture.min_chunk // 2 : longest])
            ids = ids[: ends[-1] + self.mixture.min_chunk // 2 + 1] if len(ends) else ids[:longest]
        return self.vocabulary.strip(ids), kind, raw


def span_corruption(ids: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Replace random spans by sentinels; the target lists what was removed."""
    n_spans = max(1, round(len(ids) * 0.15 / 3))
    starts = np.sort(rng.choice(len(ids), size=min(n_spans, len(ids)), replace=False))
    source: list[int] = []
    target: list[int] = []
    position = 0
    sentinel = vocabulary.first_sentinel
    for start in starts:
        if start < position or sentinel > vocabulary.first_sentinel + 30:
            continue
        end = min(len(ids), start + 1 + int(rng.poisson(2)))
        source += [*ids[position:start], sentinel]
        target += [sentinel, *ids[start:end]]
        position, sentinel = end, sentinel + 1
    source += ids[position:].tolist()
    return np.array(source), np.array(target)


def continuation(ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split a text: its start is the source, the rest the target."""
    cut = int(rng.integers(4, max(5, len(ids) // 2)))
    return ids[:cut], ids[cut:]


def expansion(ids: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make a short request out of a text; the target is the whole text."""
    form = rng.random()
    if form < 0.25:
        ends = np.flatnonzero(vocabulary.ends_sentence[ids])
        if len(ends) and 3 <= ends[0] < len(ids) - 4:
            return ids[: ends[0] + 1], ids
    word = np.cumsum(vocabulary.starts_word[ids])
    if form > 0.8:
        return ids[word < rng.integers(2, 10)], ids
    content = np.flatnonzero(vocabulary.carries_content[ids])
    if len(content) == 0:
        return ids[: len(ids) // 2 + 1], ids
    weights = np.exp(-2.0 * content / len(ids))  # the subject of a text tends to come first
    n_phrases = int(rng.integers(1, 1 + min(8, len(content))))
    phrase_words = int(rng.integers(1, 6))
    kept = np.zeros(len(ids), dtype=bool)
    for start in rng.choice(content, size=n_phrases, replace=False, p=weights / weights.sum()):
        length = int(rng.integers(1, phrase_words + 1))
        kept |= (word >= word[start]) & (word < word[start] + length)
    return vocabulary.strip(ids[kept]), ids


def repair(ids: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make a hasty version of a text's first sentence; the target is the sentence."""
    ends = np.flatnonzero(vocabulary.ends_sentence[ids[:MAX_REPAIR]])
    sentence = ids[: ends[0] + 1] if len(ends) and ends[0] >= 3 else ids[:MAX_REPAIR]
    words = [word for word in np.split(sentence, np.flatnonzero(vocabulary.starts_word[sentence])) if len(word)]
    hasty: list[np.ndarray] = []
    for word in words:
        chance = rng.random()
        if chance < 0.08 and not vocabulary.carries_content[word].any():
            continue
        hasty += [word, word] if chance > 0.97 else [word]
    if rng.random() < 0.8:  # a false start: some words that belong elsewhere, then the correction
        first = int(rng.integers(len(words)))
        wrong = words[first : first + int(rng.integers(1, 5))]
        start = vocabulary.false_starts[int(rng.integers(len(vocabulary.false_starts)))]
        at = int(rng.integers(len(hasty) + 1))
        hasty[at:at] = [*wrong, start]
    return vocabulary.strip(np.concatenate(hasty or words)), sentence


@dataclass(frozen=True)
class GeneratorExample:
    """Token ids of one example; source and target end with ``</s>``.

    Attributes:
        guide: the text whose embedding steers, without special tokens; None where nothing does.
    """

    source: np.ndarray
    target: np.ndarray
    guide: np.ndarray | None = None


class GeneratorTasks:
    """An endless stream of examples for the generator."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.mixture, self.vocabulary = sampler, sampler.mixture, sampler.vocabulary

    def example(self, rng: np.random.Generator) -> GeneratorExample:
        """Draw a text and a task."""
        ids, kind, raw = self.sampler.chunk(rng)
        mixture, vocabulary = self.mixture, self.vocabulary
        shares = np.cumsum([mixture.span_corruption, mixture.continuation, mixture.repair])
        task = int(np.searchsorted(shares, rng.random(), side="right"))
        instruction, guide = None, None
        if task == 0:
            source, target = span_corruption(ids, vocabulary, rng)
        elif task == 1:
            source, target = continuation(ids, rng)
            instruction = CONTINUE
        else:
            if raw is not None and rng.random() < mixture.rewriting:
                source, target = raw, ids
            else:
                source, target = (repair if task == 2 else expansion)(ids, vocabulary, rng)
            if rng.random() < mixture.steered:
                guide = target
            else:
                instruction = EXPAND_PROMPT if KINDS[kind] in PROMPTS else EXPAND_TEXT
        if instruction is not None and rng.random() >= mixture.instruction_dropout:
            source = np.concatenate([vocabulary.instructions[instruction], source])
        return GeneratorExample(np.append(source, vocabulary.eos), np.append(target, vocabulary.eos), guide)


class EncoderFrame:
    """Generator token ids -> encoder token ids with ``<s>`` and ``</s>``."""

    def __init__(self, generator: Tokenizer, encoder: Tokenizer) -> None:
        vocabulary = encoder.get_vocab()
        self.special = {name: vocabulary[name] for name in ENCODER_SPECIALS}
        self.to_encoder = np.full(generator.get_vocab_size(), self.special["<unk>"])
        for piece, i in generator.get_vocab().items():
            self.to_encoder[i] = vocabulary.get(piece, self.special["<unk>"])

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        return np.concatenate([[self.special["<s>"]], self.to_encoder[ids], [self.special["</s>"]]])


def pad(rows: list[np.ndarray], value: int) -> np.ndarray:
    """Right-pad rows to the longest: int64 [B, L]."""
    out = np.full((len(rows), max(len(r) for r in rows)), value, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def mask_of(rows: list[np.ndarray], width: int) -> np.ndarray:
    """1 where :func:`pad` has put a row's own values: int64 [B, width]."""
    return (np.arange(width) < np.array([[len(row)] for row in rows])).astype(np.int64)


def generator_batches(
    tasks: GeneratorTasks, frame: EncoderFrame, batch_size: int, seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batches for the generator.

    ``input_ids``, ``attention_mask`` [B, S] and ``labels`` [B, T] (IGNORE where padded); ``guide_ids``, ``guide_mask``
    [B, L], encoder ids of the texts that steer, and ``steered`` [B], 1 where one does.

    Eight batches are drawn at a time and sorted by length, so that little is spent on padding.
    """
    rng = np.random.default_rng(seed)
    while True:
        rows = [tasks.example(rng) for _ in range(8 * batch_size)]
        rows.sort(key=lambda row: (len(row.target) // 16, len(row.source)))
        for group in rng.permutation(8):
            part = rows[group * batch_size : (group + 1) * batch_size]
            sources = [row.source for row in part]
            guides = [frame(row.guide if row.guide is not None else row.target[:0]) for row in part]
            input_ids, guide_ids = pad(sources, 0), pad(guides, frame.special["<pad>"])
            yield {
                "input_ids": input_ids,
                "attention_mask": mask_of(sources, input_ids.shape[1]),
                "labels": pad([row.target for row in part], IGNORE),
                "guide_ids": guide_ids,
                "guide_mask": mask_of(guides, guide_ids.shape[1]),
                "steered": np.array([row.guide is not None for row in part], dtype=np.int64),
            }


def encoder_batches(
    sampler: Sampler, frame: EncoderFrame, batch_size: int, seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batches for the encoder: texts to fill in, and for each a short request made of it by :func:`expansion`.

    ``input_ids``, ``attention_mask``, ``labels`` [B, L]: 20 % of the tokens are predicted, 90 % of these masked, 10 %
    replaced by a random token. ``request_ids``, ``request_mask`` [B, R]: the requests, unmasked.
    """
    rng = np.random.default_rng(seed)
    special, low = frame.special, max(frame.special.values()) + 1
    while True:
        rows = []
        for _ in range(8 * batch_size):
            ids, *_ = sampler.chunk(rng)
            request, _ = expansion(ids, sampler.vocabulary, rng)
            rows.append((frame(ids), frame(request)))
        rows.sort(key=lambda row: len(row[0]))
        for group in rng.permutation(8):
            part = rows[group * batch_size : (group + 1) * batch_size]
            ids = pad([text for text, _ in part], special["<pad>"])
            requests = pad([request for _, request in part], special["<pad>"])
            predicted = (ids >= low) & (rng.random(ids.shape) < 0.2)
            noise = rng.random(ids.shape)
            masked = np.where(predicted & (noise < 0.9), special["<mask>"], ids)
            masked = np.where(predicted & (noise >= 0.9), rng.integers(low, frame.to_encoder.max(), ids.shape), masked)
            yield {
                "input_ids": masked,
                "attention_mask": (ids != special["<pad>"]).astype(int),
                "labels": np.where(predicted, ids, IGNORE),
                "request_ids": requests,
                "request_mask": (requests != special["<pad>"]).astype(int),
            }
