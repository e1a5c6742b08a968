"""Does the encoder tell kinds of request apart? ``python -m research.evaluate.probe --work work``.

A linear probe on unit vectors of two hasty requests a training form, tested on the forms that are held out.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from research.pretrain.grammar import kinds
from research.pretrain.intent import embed, load_encoder
from research.pretrain.noise import hasty
from research.pretrain.rows import trained_kinds

EPOCHS = 25


def main() -> None:
    """Read the options, train the probe, print its accuracy as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    rng, device = random.Random(0), torch.device("cpu")
    known: list[tuple[str, int]] = []
    unseen: list[tuple[str, int]] = []
    for number, index in enumerate(trained_kinds()):
        kind = kinds()[index]
        known += [(hasty(kind.request(rng, form), rng) or "x", number) for form in kind.forms for _ in range(2)]
        unseen += [(kind.request(rng, form), number) for form in kind.held_out_forms]
    encoder, tokenizer = load_encoder(options.work, device)

    def vectors(rows: list[tuple[str, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        unit = F.normalize(embed(encoder, tokenizer, [text for text, _ in rows], device, 256), dim=-1)
        return unit, torch.tensor([label for _, label in rows])

    (x, y), (x_unseen, y_unseen) = vectors(known), vectors(unseen)
    mean, spread = x.mean(0), x.std(0)
    probe = nn.Linear(x.shape[1], len(trained_kinds()))
    optimizer = torch.optim.AdamW(probe.parameters(), lr=3e-3, weight_decay=0.01)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(512):
            F.cross_entropy(probe((x[rows] - mean) / spread), y[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
    right = (probe((x_unseen - mean) / spread).argmax(1) == y_unseen).float().mean().item()
    print(json.dumps({"kinds": len(trained_kinds()), "held_out_forms": len(unseen), "accuracy": round(right, 4)}))


if __name__ == "__main__":
    main()
