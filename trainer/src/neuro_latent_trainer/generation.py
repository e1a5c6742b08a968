"""The cross-entropy through the frozen T5, and its gradient for the soft prompts, piece by piece.

T5 is all that is large in a step. Of one batch, each process takes a share of the rows through it, in micro-batches,
and only the gradient of the soft prompts is summed (GradCache, Gao et al. 2021, section 3). What comes before the soft
prompts is small: every process does it for the whole batch, so that InfoNCE and the KL see all rows, and all processes
take the same step. So several processes, and micro-batches, give what one process gives with the whole batch, but for
the order of sums.

Shape letters: ``B`` batch, ``S`` source tokens, ``T`` target tokens, ``P`` soft prompts, ``D`` generator width.
"""

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor
from torch.nn import functional as F

from neuro_latent_trainer.backbones import Generator, autocast
from neuro_latent_trainer.choices import Precision
from neuro_latent_trainer.losses import IGNORE


def generation_gradient(
    generator: Generator,
    soft_BPD: Tensor,
    source_ids_BS: Tensor,
    source_mask_BS: Tensor,
    labels_BT: Tensor,
    micro_batch_size: int = 0,
    precision: Precision = "auto",
) -> tuple[Tensor, Tensor]:
    """Mean loss of the batch's target tokens, in nats, and its gradient for the soft prompts [B, P, D].

    Args:
        generator: the frozen T5.
        soft_BPD: soft prompts; nothing flows back through them here.
        source_ids_BS, source_mask_BS, labels_BT: raw prompts and targets, IGNORE where padded.
        micro_batch_size: the most rows that T5 sees at once; 0 is all of this process's.
        precision: of T5's products.
    """
    state = PartialState()
    rows = list(range(len(soft_BPD)))[state.process_index :: state.num_processes]
    size = micro_batch_size or max(1, len(rows))
    tokens = (labels_BT != IGNORE).sum().clamp(min=1)
    leaf_BPD = soft_BPD.detach().clone().requires_grad_()
    leaf_BPD.grad = torch.zeros_like(leaf_BPD)
    nats = soft_BPD.new_zeros(1)
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        mask_bS, labels_bT = source_mask_BS[some], labels_BT[some]
        source, target = _longest(mask_bS != 0), _longest(labels_bT != IGNORE)
        labels_bT = labels_bT[:, :target]
        with autocast(soft_BPD.device, precision):
            hidden, mask = generator.encode_soft(leaf_BPD[some], source_ids_BS[some, :source], mask_bS[:, :source])
            logits = generator.logits(hidden, mask, labels_bT)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), labels_bT.flatten(), ignore_index=IGNORE, reduction="sum")
        (loss / tokens).backward()
        nats += loss.detach() / tokens
    if state.num_processes > 1:
        packed = reduce(torch.cat([leaf_BPD.grad.flatten(), nats]), "sum")
        return packed[-1], packed[:-1].view_as(leaf_BPD)
    return nats[0], leaf_BPD.grad


def _longest(present: Tensor) -> int:
    """How many columns are needed to hold every row's values: int of a bool [B, L]."""
    columns = present.any(0).nonzero()
    return int(columns[-1]) + 1 if len(columns) else 1
