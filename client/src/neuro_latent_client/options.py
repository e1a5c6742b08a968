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
        deadline_ms: after this time the server answers with what it has, ``finish_reason`` ``deadline`` (0, none). It
            counts from the arrival of each attempt. The server is never given more time than is left of ``timeout``:
            what it writes later nobody reads. So a ``deadline_ms`` below ``timeout`` brings an answer in time, and
            without one a call that is late is a :class:`DeadlineError`.
        min_confidence: the least confidence, in [0, 1], to serve a text; below it the raw prompt comes back,
            ``finish_reason`` ``withheld`` (the adapter's own threshold; 0 switches the gate off).
        adapter: the name of the adapter that answers, where a server has several ("default").
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
    min_confidence: float | None
    adapter: str | None


class FeedbackDetails(TypedDict, total=False):
    """What may be said of an answer besides its rating; what is left out or None is not sent.

    Attributes:
        raw_prompt: the prompt that was improved; an :class:`Optimization` brings it.
        enhanced_prompt: the text that is rated; an :class:`Optimization` brings its first.
        edited_prompt: what the answer should have been.
        comment: in words.
        model_version: the adapter's version that answered; an :class:`Optimization` brings it.
        user: whose feedback it is, as the caller names people.
        idempotency_key: feedback with the same key is stored once; without one it is the request id, so that an answer
            is rated once. Give one for a second rating of the same answer.
    """

    raw_prompt: str | None
    enhanced_prompt: str | None
    edited_prompt: str | None
    comment: str | None
    model_version: str | None
    user: str | None
    idempotency_key: str | None
