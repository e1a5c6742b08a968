"""Measures of the latent space: intents and soft prompts.

Shape letters: ``N`` rows, ``E`` encoder width, ``P`` soft prompts, ``D`` generator width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from neuro_latent_trainer.evaluation import statistics
from neuro_latent_trainer.evaluation.statistics import Interval


def effective_rank(soft_NPD: Tensor) -> float:
    """How many directions the soft prompts of different inputs really use.

    The exponential of the entropy of the singular values' shares, after the mean over inputs is taken off (Roy and
    Vetterli 2007). 1 at the least, where inputs differ along one direction only or not at all; at most N - 1.
    """
    flat_NX = soft_NPD.flatten(1).double()
    values = torch.linalg.svdvals(flat_NX - flat_NX.mean(0))
    total = values.sum()
    if len(flat_NX) < 2 or total <= 1e-12 * flat_NX.abs().sum():
        return 1.0
    shares = values[values > 0] / total
    return float(torch.exp(-(shares * shares.log()).sum()))


def retrieval(query_NE: Tensor, target_NE: Tensor) -> Interval:
    """Mean reciprocal rank of each query's own target among all targets, by cosine."""
    similarity_NN = F.normalize(query_NE.double(), dim=-1) @ F.normalize(target_NE.double(), dim=-1).T
    own_N1 = similarity_NN.diagonal()[:, None]
    rank_N = (similarity_NN > own_N1).sum(1) + 1
    return statistics.mean((1 / rank_N.double()).numpy())


def explained(intent_NE: Tensor, target_NE: Tensor) -> float:
    """R²: the share of the targets' variance around the training mean that the intents explain.

    Both are standardised, so the mean predictor says 0.
    """
    return float(1 - (intent_NE - target_NE).square().sum() / target_NE.square().sum().clamp(min=1e-12))
