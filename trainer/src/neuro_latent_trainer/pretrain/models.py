"""The two small architectures: RoBERTa and T5, built from scratch."""

from typing import Any

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
