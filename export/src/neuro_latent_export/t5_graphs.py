"""T5's encoder as a module that traces well, on the weights of a Hugging Face T5.

Only weights and submodules without shape logic are taken from Hugging Face; attention is written out, so that the
position bias is a table lookup. The decoder is built by hand in ``decoder_graphs.py``.

Shape letters: ``B`` batch, ``P`` soft prompts, ``S`` source tokens, ``Q = P + S``, ``D`` model width, ``N`` heads,
``H`` head width.
"""

from typing import Any

import torch
from torch import Tensor, nn


def masked_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """1 -> 0, 0 -> the lowest number of ``dtype``, to be added to attention scores."""
    return (1 - mask.to(dtype)) * torch.finfo(dtype).min


def split_heads(states_BLX: Tensor, heads: int) -> Tensor:
    """[B, L, N*H] -> [B, N, L, H]."""
    return states_BLX.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(q_BNLH: Tensor, k_BNKH: Tensor, v_BNKH: Tensor, bias: Tensor) -> Tensor:
    """T5 attention: no scaling of the scores; ``bias`` holds position bias and mask. Returns [B, L, N*H]."""
    weights = torch.softmax(q_BNLH @ k_BNKH.transpose(-1, -2) + bias, dim=-1)
    return (weights @ v_BNKH).transpose(1, 2).flatten(-2)


def position_table(attention: Any, bidirectional: bool) -> Tensor:
    """Position bias by clipped distance, so that no bucket arithmetic is left in the graph.

    Buckets do not change beyond ``max_distance``, so the table is exact for any length. Returns [2*M + 1, N] for
    offsets key - query in -M..M (bidirectional), or [M + 1, N] for distances query - key in 0..M.
    """
    most = attention.relative_attention_max_distance
    offsets = torch.arange(-most, most + 1) if bidirectional else -torch.arange(most + 1)
    buckets = attention._relative_position_bucket(
        offsets,
        bidirectional=bidirectional,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=most,
    )
    table: Tensor = attention.relative_attention_bias.weight.detach()[buckets]
    return table


class T5EncoderGraph(nn.Module):
    """Prompt tokens, behind soft prompts if any -> encoder hidden states, with the weights of Hugging Face's ``t5``."""

    bias_table: Tensor

    def __init__(self, t5: Any) -> None:
        super().__init__()
        self.embed: nn.Embedding = t5.get_input_embeddings()
        self.blocks: Any = t5.encoder.block
        self.final_norm: nn.Module = t5.encoder.final_layer_norm
        self.heads: int = t5.config.num_heads
        self.register_buffer("bias_table", position_table(self.blocks[0].layer[0].SelfAttention, True))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, soft_prompts: Tensor | None = None) -> Tensor:
        """``input_ids`` and ``attention_mask`` int64 [B, S], ``soft_prompts`` [B, P, D] -> [B, P+S, D]."""
        x_BQD, mask_BQ = self.embed(input_ids), attention_mask
        if soft_prompts is not None:
            x_BQD = torch.cat([soft_prompts, x_BQD], dim=1)
            mask_BQ = torch.cat([torch.ones_like(soft_prompts[..., 0], dtype=mask_BQ.dtype), mask_BQ], dim=1)
        most = (self.bias_table.shape[0] - 1) // 2
        position_Q = torch.arange(x_BQD.shape[1], device=x_BQD.device)
        offset_QQ = (position_Q[None, :] - position_Q[:, None]).clamp(-most, most) + most
        bias = self.bias_table[offset_QQ].permute(2, 0, 1)[None] + masked_bias(mask_BQ, x_BQD.dtype)[:, None, None, :]
        for block in self.blocks:
            attention, norm = block.layer[0].SelfAttention, block.layer[0].layer_norm
            n_BQD = norm(x_BQD)
            q, k, v = (split_heads(p(n_BQD), self.heads) for p in (attention.q, attention.k, attention.v))
            x_BQD = x_BQD + attention.o(attend(q, k, v, bias))
            x_BQD = x_BQD + block.layer[1].DenseReluDense(block.layer[1].layer_norm(x_BQD))
        hidden_BQD: Tensor = self.final_norm(x_BQD)
        return hidden_BQD
