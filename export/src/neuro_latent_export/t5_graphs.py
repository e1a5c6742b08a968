"""T5 as three graphs with flat tensors, on the weights of a Hugging Face T5.

Only weights and submodules without shape logic are taken from Hugging Face; attention is written out, so that the
position bias is a table lookup and the KV cache is plain tensors that each have a name.

Shape letters: ``B`` batch, ``P`` soft prompts, ``S`` source tokens, ``Q = P + S``, ``T`` cached target tokens,
``D`` model width, ``N`` heads, ``H`` head width, ``V`` vocabulary.
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
    """Soft prompts and prompt tokens -> encoder hidden states."""

    bias_table: Tensor

    def __init__(self, t5: Any) -> None:
        super().__init__()
        self.embed: nn.Embedding = t5.get_input_embeddings()
        self.blocks: Any = t5.encoder.block
        self.final_norm: nn.Module = t5.encoder.final_layer_norm
        self.heads: int = t5.config.num_heads
        self.register_buffer("bias_table", position_table(self.blocks[0].layer[0].SelfAttention, True))

    def forward(self, soft_prompts: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """``soft_prompts`` [B, P, D], ``input_ids`` and ``attention_mask`` int64 [B, S] -> [B, P+S, D]."""
        x_BQD = torch.cat([soft_prompts, self.embed(input_ids)], dim=1)
        mask_BQ = torch.cat([torch.ones_like(soft_prompts[..., 0], dtype=attention_mask.dtype), attention_mask], dim=1)
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


class PrefillGraph(nn.Module):
    """Encoder hidden states -> cross-attention keys and values of every decoder layer, computed once a request."""

    def __init__(self, t5: Any) -> None:
        super().__init__()
        self.attentions: Any = nn.ModuleList(block.layer[1].EncDecAttention for block in t5.decoder.block)
        self.heads: int = t5.config.num_heads

    def forward(self, encoder_hidden_states: Tensor) -> tuple[Tensor, ...]:
        """[B, Q, D] -> for each layer key and value [B, N, Q, H]."""
        cross: list[Tensor] = []
        for attention in self.attentions:
            cross.append(split_heads(attention.k(encoder_hidden_states), self.heads))
            cross.append(split_heads(attention.v(encoder_hidden_states), self.heads))
        return tuple(cross)


class StepGraph(nn.Module):
    """One decoder step with a growing self-attention cache.

    The cache is right-aligned: a row's newest token is always the last column, and T5's bias depends on distances
    only, so rows of different age share one bias and differ only in their mask.
    """

    bias_table: Tensor

    def __init__(self, t5: Any) -> None:
        super().__init__()
        self.embed: nn.Embedding = t5.decoder.embed_tokens
        self.head: nn.Linear = t5.lm_head
        self.blocks: Any = t5.decoder.block
        self.final_norm: nn.Module = t5.decoder.final_layer_norm
        self.heads: int = t5.config.num_heads
        tied = getattr(t5.config, "scale_decoder_outputs", t5.config.tie_word_embeddings)
        self.output_scale = t5.config.d_model**-0.5 if tied else 1.0
        self.register_buffer("bias_table", position_table(self.blocks[0].layer[0].SelfAttention, False))

    def forward(
        self, decoder_input_ids: Tensor, self_attention_mask: Tensor, encoder_attention_mask: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """One token a row.

        Args:
            decoder_input_ids: int64 [B, 1].
            self_attention_mask: int64 [B, T+1], 1 where the column holds a token of the row (the newest included).
            encoder_attention_mask: int64 [B, Q].
            past: for each layer self key, self value [B, N, T, H], cross key, cross value [B, N, Q, H].

        Returns:
            logits [B, V]; the best token int64 [B] and its log-probability [B]; for each layer the grown self key and
            value [B, N, T+1, H].
        """
        x_B1D = self.embed(decoder_input_ids)
        most = self.bias_table.shape[0] - 1
        columns = self_attention_mask.shape[1]
        distance_T = (columns - 1 - torch.arange(columns, device=x_B1D.device)).clamp(max=most)
        self_bias = self.bias_table[distance_T].T[None, :, None, :]
        self_bias = self_bias + masked_bias(self_attention_mask, x_B1D.dtype)[:, None, None, :]
        cross_bias = masked_bias(encoder_attention_mask, x_B1D.dtype)[:, None, None, :]
        present: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            self_k, self_v, cross_k, cross_v = past[4 * i : 4 * i + 4]
            attention, norm = block.layer[0].SelfAttention, block.layer[0].layer_norm
            n_B1D = norm(x_B1D)
            q, k, v = (split_heads(p(n_B1D), self.heads) for p in (attention.q, attention.k, attention.v))
            self_k, self_v = torch.cat([self_k, k], dim=2), torch.cat([self_v, v], dim=2)
            present += [self_k, self_v]
            x_B1D = x_B1D + attention.o(attend(q, self_k, self_v, self_bias))
            cross = block.layer[1].EncDecAttention
            q = split_heads(cross.q(block.layer[1].layer_norm(x_B1D)), self.heads)
            x_B1D = x_B1D + cross.o(attend(q, cross_k, cross_v, cross_bias))
            x_B1D = x_B1D + block.layer[2].DenseReluDense(block.layer[2].layer_norm(x_B1D))
        logits_BV = self.head(self.final_norm(x_B1D) * self.output_scale)[:, 0]
        best_B = logits_BV.argmax(-1)
        best_logit_B = logits_BV.gather(1, best_B[:, None])[:, 0]
        return logits_BV, best_B, best_logit_B - torch.logsumexp(logits_BV, dim=-1), *present
