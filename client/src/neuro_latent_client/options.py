"""What a call may ask for besides its prompt."""

from typing import TypedDict

from neuro_latent_core.options import GenerationOptions as GenerationOptions


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
