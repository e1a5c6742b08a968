"""Fit the gate: on prompts of groups that the adapter has not been trained on.

A group is a kind of request where the data names them, else a cluster of raw embeddings. For the prompts of held-out
groups the adapter writes its text; the text, or a part of it that ends with a sentence, counts as apt where it is
nearer, by the encoder, to the row's own reference than nine in ten references of other groups are. A logistic
regression on the gate's features and the mean log-probability tells apt from other parts; the threshold is the highest
one with which ``SERVED`` of the prompts still get a part.

Shape letters: ``N`` rows, ``M`` parts of their texts, ``E`` encoder width, ``F`` features.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from neuro_latent_trainer.backbones import padded
from neuro_latent_trainer.data import Record
from neuro_latent_trainer.gate import FEATURES, Gate
from neuro_latent_trainer.losses import IGNORE
from neuro_latent_trainer.model import PromptOptimizer
from neuro_latent_trainer.written import Part, parts_of

LEAST_GROUPS = 10
"""With fewer groups there is no gate: what tells them apart would be chance."""
LEAST_ROWS = 40
"""Of held-out texts."""
MOST_ROWS = 600
INDEX_SIZE = 1024
MOST_EMPTY = 1 / 3
"""Of the index: prompts to which nothing is to be added."""
CLUSTERS = 64
APT_RANK = 0.9
SERVED = 0.7
"""Share of the texts of held-out groups that the default threshold serves."""
CURVE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Shares withheld, of which the card shows how many of the served texts are apt."""


class Grouped(NamedTuple):
    """Records, their raw embeddings [N, E] on the model's device, and their groups."""

    records: Sequence[Record]
    embeddings_NE: Tensor
    groups: Sequence[str]


def groups_of(records: Sequence[Record], embeddings_NE: Tensor) -> list[str]:
    """The group of each record: its kind, or the cluster of its raw embedding."""
    unnamed = [i for i, record in enumerate(records) if not record.kind]
    names = [record.kind for record in records]
    if unnamed:
        clusters = min(CLUSTERS, max(1, len(unnamed) // 10))
        for i, cluster in zip(unnamed, _clusters(embeddings_NE[unnamed], clusters).tolist(), strict=True):
            names[i] = f"cluster {cluster}"
    return names


def _clusters(vectors_NE: Tensor, count: int) -> Tensor:
    """Spherical k-means (Dhillon and Modha 2001): the cluster of each row [N]."""
    unit_NE = F.normalize(vectors_NE - vectors_NE.mean(0), dim=-1)
    centre_CE = unit_NE[:: max(1, len(unit_NE) // count)][:count]
    for _ in range(20):
        nearest_N = (unit_NE @ centre_CE.T).argmax(-1)
        sums_CE = torch.zeros_like(centre_CE).index_add_(0, nearest_N, unit_NE)
        centre_CE = torch.where(sums_CE.any(-1, keepdim=True), F.normalize(sums_CE, dim=-1), centre_CE)
    return (unit_NE @ centre_CE.T).argmax(-1)


def _logistic_regression(x_NF: Tensor, label_N: Tensor, penalty: float = 1.0) -> tuple[Tensor, Tensor]:
    """Weights [F] and bias [1] of a logistic regression with an L2 penalty on the weights; ``x_NF`` is standardised."""
    parameters = torch.zeros(x_NF.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = x_NF @ parameters[:-1] + parameters[-1]
        value = F.binary_cross_entropy_with_logits(logits, label_N, reduction="sum")
        value = value + penalty / 2 * parameters[:-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[arg-type]  # the stubs want a float
    return parameters[:-1].detach(), parameters[-1:].detach()


def hold_out(groups: Sequence[str], share: float) -> list[bool]:
    """Which rows are of held-out groups, chosen by a hash of the groups' names; none where there are too few groups."""
    names = sorted(set(groups), key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(names) < LEAST_GROUPS:
        return [False] * len(groups)
    chosen = set(names[: max(1, round(share * len(names)))])
    return [group in chosen for group in groups]


def sample(rows: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of some row numbers, evenly spaced."""
    step = max(1.0, len(rows) / most)
    return [rows[int(i * step)] for i in range(min(most, len(rows)))]


@torch.no_grad()
def make_gate(model: PromptOptimizer, trained: Grouped) -> Gate:
    """An unfitted gate: the index and the groups of the training records."""
    adapter, (records, embeddings_NE, groups) = model.adapter, trained
    standard_NE = adapter.standardizer(embeddings_NE)
    intent_NE = adapter.black_box(standard_NE)
    by_group: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        by_group.setdefault(group, []).append(row)
    is_empty = [record.target("complement") == "" for record in records]
    empty_rows = [row for row, empty in enumerate(is_empty) if empty]
    chosen = sample(empty_rows, int(MOST_EMPTY * INDEX_SIZE))
    # As evenly as it can be over the groups, so that the index knows all of them.
    share = max(1, (INDEX_SIZE - len(chosen)) // len(by_group))
    for rows in by_group.values():
        chosen += sample([row for row in rows if not is_empty[row]], share)
    empty = torch.tensor([is_empty[row] for row in chosen], device=standard_NE.device)
    means_GE = torch.stack([F.normalize(intent_NE[rows], dim=-1).mean(0) for rows in by_group.values()])
    return Gate(intent_NE[chosen], empty, means_GE).to(standard_NE.device)


@torch.no_grad()
def aptness(model: PromptOptimizer, texts: Sequence[str], references: Sequence[str], groups: Sequence[str]) -> Tensor:
    """Whether each text is apt, bool [N]: the share of other groups' references that are less similar than its own."""
    text_NE, reference_NE = (F.normalize(_embedded(model, some), dim=-1) for some in (texts, references))
    near_NN = text_NE @ reference_NE.T
    other_NN = torch.tensor([[a != b for b in groups] for a in groups], device=near_NN.device)
    below_NN = (near_NN < near_NN.diagonal()[:, None]) & other_NN
    return below_NN.sum(1) >= APT_RANK * other_NN.sum(1).clamp(min=1)


def _embedded(model: PromptOptimizer, texts: Sequence[str], batch: int = 64) -> Tensor:
    return torch.cat([model.embed(list(texts[at : at + batch])) for at in range(0, len(texts), batch)])


@torch.no_grad()
def write_scored(model: PromptOptimizer, prompts: Sequence[str], max_length: int) -> list[list[Part]]:
    """Greedy texts of some prompts, each with its parts."""
    generator, written = model.generator, []
    for at in range(0, len(prompts), 32):
        hidden, mask = model.states(list(prompts[at : at + 32]))
        ids = generator.write_ids(hidden, mask, max_length)
        ended = [[*row, generator.eos_id] if len(row) < max_length else row for row in ids]
        labels = padded(ended, IGNORE, model.device)["input_ids"]
        logits = generator.logits(hidden, mask, labels).float().transpose(1, 2)
        nats = F.cross_entropy(logits, labels, reduction="none").tolist()
        for row, losses in zip(ended, nats, strict=True):
            logprobs = [-loss for loss in losses[: len(row)]]
            written.append(parts_of(row, logprobs, generator.eos_id, generator.decode))
    return written


def fit_gate(model: PromptOptimizer, trained: Grouped, held_out: Grouped, max_length: int) -> dict[str, Any] | None:
    """Give the adapter its gate; returns what the card says of it, or None where there is too little to fit one on.

    ``trained`` is what the adapter was trained on, ``held_out`` groups that it was not.
    """
    model.adapter.gate = None
    gate = make_gate(model, trained)
    rows = sample(range(len(held_out.records)), MOST_ROWS)
    records, groups = [held_out.records[row] for row in rows], [held_out.groups[row] for row in rows]
    written = write_scored(model, [record.raw_prompt for record in records], max_length)
    if model.adapter.config.form == "rewrite":  # of which nothing is ever cut
        written = [parts[:1] for parts in written]
    references = [record.target(model.adapter.config.form) or "" for record in records]
    some = [i for i, parts in enumerate(written) if parts[0].text]
    if len(some) < LEAST_ROWS:
        return None
    of_row = [i for i in some for _ in written[i]]
    apt_M = aptness(
        model,
        [part.text for i in some for part in written[i]],
        [references[i] or records[i].raw_prompt for i in of_row],
        [groups[i] for i in of_row],
    ) & torch.tensor([bool(references[i]) for i in of_row], device=model.device)
    if apt_M.all() or not apt_M.any():
        return None
    apt = iter(apt_M.tolist())
    marked = [[(part, next(apt)) for part in written[i]] for i in some]
    found = fit_weights(model, gate, held_out.embeddings_NE[[rows[i] for i in some]], marked)
    return {"rows": len(some), "groups": len(set(groups)), **found}


def fit_weights(
    model: PromptOptimizer,
    gate: Gate,
    embeddings_NE: Tensor,
    written: Sequence[Sequence[tuple[Part, bool]]],
    served: float = SERVED,
    left_alone: int = 0,
) -> dict[str, Any]:
    """Fit a gate on texts of which it is known whether they are apt, and give it to the adapter.

    Args:
        model: its adapter gets the gate.
        gate: with its index and groups.
        embeddings_NE: raw embeddings of the prompts.
        written: for each prompt the parts of its text, the longest first, and whether each is apt.
        served: share of these prompts that get a text at the threshold.
        left_alone: so many prompts at the end should get none; they count for the weights, not for threshold and curve.

    Returns:
        Threshold, weights and curve, as the card shows them.
    """
    standard_NE = model.adapter.standardizer(embeddings_NE)
    with torch.no_grad():
        features_NF = gate.features(standard_NE, model.adapter.black_box(standard_NE)).cpu()
    of_row = torch.tensor([row for row, parts in enumerate(written) for _ in parts])
    logprob_M = torch.tensor([part.mean_logprob for parts in written for part, _ in parts])
    apt_M = torch.tensor([apt for parts in written for _, apt in parts]).float()
    x = torch.cat([features_NF[of_row], logprob_M.unsqueeze(-1)], dim=-1)
    mean, spread = x.mean(0), x.std(0).clamp(min=1e-6)
    with torch.enable_grad():
        standard_weight, bias = _logistic_regression((x - mean) / spread, apt_M)
    weight = standard_weight / spread
    gate.weight.copy_(weight[: len(FEATURES)])
    gate.logprob_weight.copy_(weight[len(FEATURES) :])
    gate.bias.copy_(bias - weight @ mean)
    confidence_M = (x @ weight + gate.bias.cpu()).sigmoid()
    # A text is served if its first sentence, its shortest part, may be.
    judged = range(len(written) - left_alone)
    first_N = torch.stack([confidence_M[of_row == row][-1] for row in judged])
    gate.threshold.copy_(first_N.quantile(1 - served).reshape(1))
    model.adapter.gate = gate.to(model.device)
    curve = []
    for withheld in CURVE:
        threshold = first_N.quantile(withheld).item()
        apt = []
        for number in judged:
            unsure = (confidence_M[of_row == number] < threshold).nonzero()
            start = int(unsure.max()) + 1 if len(unsure) else 0
            apt.append(apt_M[of_row == number][start : start + 1])  # the longest before the first that is not sure
        kept = torch.cat(apt)
        row = {"threshold": threshold, "served": len(kept) / len(judged), "apt": kept.mean().item()}
        curve.append({name: round(value, 4) for name, value in row.items()})
    names = (*FEATURES, "mean log-probability")
    return {
        "threshold": round(gate.threshold.item(), 4),
        "weights": {name: round(w, 4) for name, w in zip(names, standard_weight.tolist(), strict=True)},
        "curve": curve,
    }
