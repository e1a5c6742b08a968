"""The two small architectures: RoBERTa and T5, built from scratch."""

from typing import Any

import torch
from transformers import RobertaConfig, RobertaForMaskedLM, T5Config, T5ForConditionalGeneration

VOCABULARY = 8192
ENCODER_TOKENS = 256
"""The longest text the encoder reads, in tokens, special tokens included."""


# The arguments of the base configuration are not in the signatures that transformers gives to type checkers.
_T5Config: Any = T5Config


def small_encoder(vocab_size: int) -> RobertaForMaskedLM:
    """A RoBERTa of 3 layers and width 256 (about 4 M parameters)."""
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=vocab_size,
            hidden_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=768,
            max_position_embeddings=ENCODER_TOKENS + 2,
            type_vocab_size=1,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def small_generator(vocab_size: int) -> T5ForConditionalGeneration:
    """A T5 of 3 + 3 layers and width 256 (about 7 M parameters), embeddings shared with the LM head."""
    return T5ForConditionalGeneration(
        _T5Config(
            vocab_size=vocab_size,
            d_model=256,
            d_kv=64,
            d_ff=768,
            num_layers=3,
            num_decoder_layers=3,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="relu",
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
            attn_implementation="eager",
        )
    )


COPY_HEADS = 2
"""Cross-attention heads of every decoder layer that start as copying heads."""


@torch.no_grad()
def wire_copying(t5: Any, seed: int = 0) -> None:
    """Start a fresh T5 with a circuit that copies from the source, in the way of mimetic initialisation.

    Copying is what a rewriter needs most, and what a T5 from random weights learns last (an induction circuit over two
    layers). Here the circuit is there from the first step and training only has to learn when to use it:

    * encoder, layer 0, head 0 attends to the previous token (by position bias) and writes a random projection ``P`` of
      it through ``R`` into the residual stream;
    * cross-attention heads compare ``P`` of the decoder's current token with what ``R`` holds, so they look at the
      source token that followed the same token, and write that token's embedding into the stream, slice by slice.

    Needs a T5 with at least COPY_HEADS heads. The idea is Trockman and Kolter 2023, the circuit is ours.
    """
    config = t5.config
    width, head_width = config.d_model, config.d_kv
    generator = torch.Generator().manual_seed(seed)

    def projection() -> torch.Tensor:
        """Random orthonormal rows, [head width, width]."""
        return torch.linalg.qr(torch.randn(width, head_width, generator=generator))[0].T

    previous, stored = projection(), projection()
    first = slice(0, head_width)
    reader = t5.encoder.block[0].layer[0].SelfAttention
    reader.relative_attention_bias.weight[1, 0] = 6.0  # bucket 1 is the key just before the query
    reader.q.weight[first] = 0
    reader.v.weight[first] = previous
    reader.o.weight[:, first] = stored.T
    for block in t5.decoder.block:
        cross = block.layer[1].EncDecAttention
        for head in range(COPY_HEADS):
            rows = slice(head * head_width, (head + 1) * head_width)
            value = projection()
            cross.q.weight[rows] = 0.45 * previous
            cross.k.weight[rows] = 0.45 * stored
            cross.v.weight[rows] = value
            cross.o.weight[:, rows] = 0.7 * value.T
