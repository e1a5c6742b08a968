"""Tokenizers and token files: ``python -m research.pretrain.prepare --corpus corpus.jsonl.xz --work work``.

Writes ``generator_tokenizer.json``, ``encoder_tokenizer.json``, ``tokens.npz`` (the corpus) and ``prose.json``
(passages that are no request). Small enough to be sent to another machine.
"""

import argparse
import json
import lzma
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from research.pretrain.rows import grammar_row, teacher_split
from research.pretrain.tokenizers import encoder_tokenizer, generator_tokenizer

VOCABULARY = 8192
KINDS = ("prompt", "instruction_response", "prose", "qa")
LEFT_OUT = ("teknium1/GPTeacher", "lm-sys/arena-hard-auto", "yizhongw/self-instruct")
"""Sources that are answers of closed models under an open licence: not clear enough to ship weights from."""
GRAMMAR_TEXTS = 60_000
PROSE_PASSAGES = 12_000


def documents(corpus: Path) -> Iterator[tuple[str, int]]:
    """Text and kind of each document of the corpus."""
    opener = lzma.open if corpus.suffix == ".xz" else open
    with opener(corpus, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["source"] not in LEFT_OUT:
                yield row["text"], KINDS.index(row["kind"])


def requests() -> Iterator[str]:
    """Whole enhanced prompts of the grammar and of the teacher's training pairs."""
    rng = random.Random(0)
    for _ in range(GRAMMAR_TEXTS):
        yield grammar_row(rng, lambda _: "", noise=False).enhanced
    for row in teacher_split()[0]:
        yield row.enhanced


def prose(texts: list[str]) -> list[str]:
    """Passages of 40 to 90 words out of long texts."""
    rng, passages = random.Random(1), []
    while len(passages) < PROSE_PASSAGES:
        words = rng.choice(texts).split()
        at = rng.randrange(max(1, len(words) - 40))
        passages.append(" ".join(words[at : at + rng.randint(40, 90)]))
    return passages


def main() -> None:
    """Read the options and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokenizers-at-hand", action="store_true", help="take those that are in the work folder")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    texts, kinds = zip(*documents(options.corpus), strict=True)
    own = list(requests())
    if options.tokenizers_at_hand:
        generator = Tokenizer.from_file(str(options.work / "generator_tokenizer.json"))
    else:
        # Half of the merges' text is what the generator has to write, so that a complement takes few tokens.
        sample = [text[:3000] for text in texts[::4]]
        wanted = sum(map(len, sample))
        sample += own * max(1, wanted // sum(map(len, own)))
        generator = generator_tokenizer(iter(sample), VOCABULARY)
        generator.save(str(options.work / "generator_tokenizer.json"))
        encoder_tokenizer(generator).save(str(options.work / "encoder_tokenizer.json"))
    encoded = [
        np.asarray(encoding.ids, dtype=np.uint16)
        for at in range(0, len(texts), 2048)
        for encoding in generator.encode_batch_fast(texts[at : at + 2048], add_special_tokens=False)
    ]
    lengths = np.array([len(ids) for ids in encoded], dtype=np.uint32)
    np.savez(options.work / "tokens.npz", ids=np.concatenate(encoded), lengths=lengths, kinds=np.uint8(kinds))
    passages = prose(
        [text for text, kind in zip(texts, kinds, strict=True) if KINDS[kind] == "prose" and len(text) > 500]
    )
    (options.work / "prose.json").write_text(json.dumps(passages), encoding="utf-8")
    own_tokens = sum(len(e.ids) for e in generator.encode_batch_fast(own[:2000]))
    words = sum(len(text.split()) for text in own[:2000])
    print(json.dumps({"documents": len(texts), "tokens": int(lengths.sum()), "tokens_a_word": own_tokens / words}))


if __name__ == "__main__":
    main()
