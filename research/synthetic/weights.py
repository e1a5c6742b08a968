"""Random T5 weights that behave: texts that vary, texts that copy their prompt, texts that never end early.

No benchmark here downloads a model, and a T5 as it is initialised writes one token for ever. What is done to the
weights is simple enough to state, and every system that is compared gets the same ones. The time of a step does not
depend on the values of weights; what is written does, and only speculation (which guesses tokens) can tell.
"""

from typing import Any

import torch

Weights = Any  # a transformers T5ForConditionalGeneration; untyped there

LIVELY = 1.5
"""Strength of :func:`enliven`; a stronger one multiplies rounding errors up to the distance of the best two tokens."""


QUIET = 0.05
"""What is left of the random output of a layer that the copying circuit needs to be read through."""
WRITTEN = 0.6
MATCHED = 0.8
COPY_GAIN = 3.5


@torch.no_grad()
def enliven(t5: Weights, strength: float = LIVELY) -> None:
    """Make a random T5 write varied text: the token's own vote is weakened, everything else strengthened."""
    t5.shared.weight.mul_(0.3)
    for stack in (t5.encoder, t5.decoder):
        stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight.normal_(0, 2)
        for name, parameter in stack.named_parameters():
            if name.endswith((".q.weight", ".k.weight", ".v.weight", ".o.weight", ".wi.weight", ".wo.weight")):
                parameter.mul_(strength)


@torch.no_grad()
def mute_end(t5: Weights) -> None:
    """Give ``</s>`` a score of almost 0, which never is the best: texts then have exactly the length asked for.

    Baselines can be told "no end before n tokens", our engine cannot; weights that never end mean the same for all.
    Not exactly 0, which a quantiser would divide by.
    """
    t5.shared.weight[t5.config.eos_token_id].mul_(1e-3)
    if t5.lm_head.weight.data_ptr() != t5.shared.weight.data_ptr():
        t5.lm_head.weight[t5.config.eos_token_id].mul_(1e-3)


@torch.no_grad()
def wire_copying(t5: Weights, gain: float = COPY_GAIN) -> None:
    """Wire a circuit into an enlivened T5 that copies stretches of the prompt, as rewriting does.

    An induction circuit (Olsson et al. 2022) that works without training and compares two tokens instead of one:

    * encoder, layer 0: head 0 looks one token back, head 1 two, and each writes a random projection of what it sees
      beside the token itself; the rest of the encoder is made quiet, so that all three arrive at its end;
    * decoder, layer 0: head 0 of the self-attention looks one token back in the same way; then every cross-attention
      head compares the last two tokens with what the encoder holds, so it looks at the source token that followed the
      same two there, and writes a slice of that token; together the heads write all of it, ``gain`` times.

    The other layers stay as random as they were. They decide when the last tokens are not in the source, and now and
    then outvote the copy: the text leaves its source, wanders, and comes back.

    Args:
        t5: enlivened, with heads that together are as wide as the model or wider.
        gain: how loudly the copy is voted for.

    Raises:
        ValueError: the heads are too narrow.
    """
    width, head_width, heads = t5.config.d_model, t5.config.d_kv, t5.config.num_heads
    if heads * head_width < width or heads < 2:
        raise ValueError(f"num_heads * d_kv must be at least d_model ({width}), not {heads} * {head_width}")
    generator = torch.Generator().manual_seed(1)

    def orthonormal(rows: int) -> torch.Tensor:
        return torch.linalg.qr(torch.randn(width, rows, generator=generator))[0].T

    last_seen, before_seen = orthonormal(head_width), orthonormal(head_width)  # what is read of a token
    places = orthonormal(2 * head_width)  # where it is written: directions that do not overlap
    last_kept, before_kept = places[:head_width], places[head_width:]
    most = head_width * 3 // 4

    def look_back(attention: Weights, head: int, distance: int, seen: torch.Tensor, kept: torch.Tensor) -> None:
        """Make a head write ``seen`` of the token at ``distance`` to the directions ``kept``."""
        rows = slice(head * head_width, (head + 1) * head_width)
        attention.q.weight[rows] = 0
        attention.v.weight[rows], attention.o.weight[:, rows] = seen, WRITTEN * kept.T

    for block in t5.encoder.block:
        block.layer[0].SelfAttention.o.weight.mul_(QUIET)
        block.layer[1].DenseReluDense.wo.weight.mul_(QUIET)
    reader = t5.encoder.block[0].layer[0].SelfAttention
    writer = t5.decoder.block[0].layer[0].SelfAttention
    writer.o.weight.mul_(QUIET)
    for attention, head, distance in ((reader, 0, 1), (reader, 1, 2), (writer, 0, 1)):
        # Bucket n of T5's relative positions is the key n tokens before the query, for the first few n.
        attention.relative_attention_bias.weight[:, head] = 0
        attention.relative_attention_bias.weight[distance, head] = 12.0
    look_back(reader, 0, 1, last_seen, last_kept)
    look_back(reader, 1, 2, before_seen, before_kept)
    look_back(writer, 0, 1, before_seen, before_kept)

    cross = t5.decoder.block[0].layer[1].EncDecAttention
    identity = orthonormal(width)
    for head in range(heads):
        rows = slice(head * head_width, (head + 1) * head_width)
        cross.q.weight[rows] = MATCHED * torch.cat([last_seen[:most], before_kept[: head_width - most]])
        cross.k.weight[rows] = MATCHED * torch.cat([last_kept[:most], before_kept[: head_width - most]])
        part = identity[rows]
        value = torch.cat([part, torch.zeros(head_width - len(part), width)])
        cross.v.weight[rows], cross.o.weight[:, rows] = value, gain * value.T
