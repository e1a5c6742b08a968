"""The losses of both phases.

Shape letters: ``B`` batch, ``E`` encoder width, ``P`` soft prompts, ``T`` target tokens, ``D`` generator width,
``V`` vocabulary, ``K`` hard negatives.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORE = -100
"""Label of padded target positions."""


def generation_loss(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Cross-entropy of the enhanced prompt through the frozen T5, mean over its tokens, in nats."""
    return F.cross_entropy(logits_BTV.flatten(0, 1).float(), labels_BT.flatten(), ignore_index=IGNORE)


def distillation_loss(intent_BE: Tensor, target_BE: Tensor) -> Tensor:
    """MSE between the optimized intents and the standardised embeddings of the enhanced prompts.

    1.0 is what predicting the training mean gives, because the targets have unit spread.
    """
    return F.mse_loss(intent_BE, target_BE)


class ContrastiveHead(nn.Module):
    """Maps intents and standardised text embeddings onto one unit sphere; used in training only."""

    def __init__(self, width: int, out_width: int = 128) -> None:
        super().__init__()
        self.query = nn.Linear(width, out_width)
        self.key = nn.Linear(width, out_width)

    def forward(self, intent_BE: Tensor, texts_BE: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors of intents and of texts."""
        return F.normalize(self.query(intent_BE), dim=-1), F.normalize(self.key(texts_BE), dim=-1)


def info_nce(
    query_BH: Tensor,
    positive_BH: Tensor,
    hard_BKH: Tensor,
    hard_mask_BK: Tensor,
    temperature: float,
    alike_BB: Tensor | None = None,
    kind_B: Tensor | None = None,
) -> Tensor:
    """InfoNCE (van den Oord et al. 2018): own enhanced prompt against the batch's and one's own failed prompts.

    Where kinds are known it is the supervised form (Khosla et al. 2020): the enhanced prompts of all rows of the same
    kind are positives, and a row's loss is the mean over its positives.

    Args:
        query_BH: unit vectors of the optimized intents.
        positive_BH: unit vectors of the successful prompts; row i is the positive of query i.
        hard_BKH: unit vectors of the failed prompts of the same raw prompt.
        hard_mask_BK: True where there is one.
        alike_BB: True where the row's and the column's raw or enhanced prompts are the same: what is right for a row is
            no wrong answer of it, though it stands in the batch again.
        kind_B: int64, the kind of each row's request; below 0 where it is unknown.
    """
    batch_BB = query_BH @ positive_BH.T
    right_BB = torch.eye(len(batch_BB), dtype=torch.bool, device=batch_BB.device)
    if kind_B is not None:
        right_BB |= (kind_B[:, None] == kind_B) & (kind_B >= 0)
    if alike_BB is not None:
        batch_BB = batch_BB.masked_fill(alike_BB & ~right_BB, float("-inf"))
    hard_BK = torch.einsum("bh,bkh->bk", query_BH, hard_BKH).masked_fill(~hard_mask_BK, float("-inf"))
    logprobs_BB = (torch.cat([batch_BB, hard_BK], dim=1) / temperature).log_softmax(1)[:, : len(batch_BB)]
    return -(logprobs_BB.masked_fill(~right_BB, 0.0).sum(1) / right_BB.sum(1)).mean()


def soft_prompt_kl(soft_BPD: Tensor, table_mean_D: Tensor, table_variance_D: Tensor) -> Tensor:
    """KL between the soft prompts' and the embedding table's distributions, mean over dimensions.

    Both are taken as Gaussians with independent dimensions; the moments of the soft prompts are over batch and slots,
    so the penalty holds the population in the readable region without pulling every soft prompt to one constant::

        KL = 1/2 * (var_s / var_e + (mean_e - mean_s)^2 / var_e - 1 + ln var_e - ln var_s)
    """
    flat = soft_BPD.flatten(0, 1).float()
    mean, variance = flat.mean(0), flat.var(0, correction=0).clamp(min=1e-8)
    ratio = variance / table_variance_D
    return 0.5 * (ratio + (table_mean_D - mean).square() / table_variance_D - 1 - ratio.log()).mean()
