"""What a call may ask for besides its prompt."""

from typing import TypedDict


class GenerationOptions(TypedDict, total=False):
    """How to write the answer. An option that is left out or None is not sent: the server's default holds.

    Attributes:
        max_length: the most tokens written (server's default 200).
        num_return_sequences: how many answers (1).
        temperature: 0 is greedy (0), above it samples.
        top_k: sample from the k likeliest tokens (0, off).
        top_p: sample from the likeliest tokens that hold this probability (1, off).
        num_beams: width of the beam search (1, off).
        length_penalty: of the beam search; above 0 prefers longer answers (1).
        seed: makes sampling repeatable.
        deadline_ms: after this time the server answers with what it has, ``finish_reason`` ``deadline`` (0, none).
    """

    max_length: int | None
    num_return_sequences: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    num_beams: int | None
    length_penalty: float | None
    seed: int | None
    deadline_ms: int | None
