"""What the routes take and give. Limits and defaults are the server's own."""

from dataclasses import fields
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from neuro_latent_client import GenerationOptions as SentOptions
from neuro_latent_client import Optimization, Piece
from neuro_latent_core.protocol import FEEDBACK_LIMITS, FINISH_REASONS, MAX_DEADLINE_MS
from neuro_latent_serving import options as limits
from neuro_latent_serving.feedback.record import Feedback
from neuro_latent_serving.options import GenerationOptions, check_prompt

DEFAULTS = {field.name: field.default for field in fields(GenerationOptions)}


def _option(name: str, low: float | None = None, high: float | None = None, **more: Any) -> Any:
    return Field(DEFAULTS[name], ge=low, le=high, **more)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_whole)]
"""7.0 is an integer in JSON; text and booleans are none."""


class _Body(BaseModel):
    """Unknown fields are refused: a misspelt option must not be ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, values: Any) -> Any:
        """null in an optional field is as if it was left out, as None is in Python."""
        if not isinstance(values, dict):
            return values
        optional = {name for name, known in cls.model_fields.items() if not known.is_required()}
        return {name: value for name, value in values.items() if value is not None or name not in optional}


class OptimizeRequest(_Body):
    """A raw prompt, and how to write the better one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"raw_prompt": "Create a function", "max_length": 200}]})

    raw_prompt: str = Field(min_length=1, max_length=limits.MAX_PROMPT_CHARACTERS)
    max_length: Integer | None = _option("max_length", 1, limits.MAX_NEW_TOKENS, description="the most tokens written")
    num_return_sequences: Integer | None = _option(
        "num_return_sequences",
        1,
        limits.MAX_SEQUENCES,
        description="how many answers; more than one needs a temperature above 0, or as many beams",
    )
    temperature: float | None = _option("temperature", 0, 100, description="0 is greedy, above it samples")
    top_k: Integer | None = _option("top_k", 0, 2**31 - 1, description="sample from the k likeliest tokens; 0 is off")
    top_p: float | None = _option("top_p", None, 1, gt=0, description="sample from this much probability; 1 is off")
    num_beams: Integer | None = _option(
        "num_beams", 1, limits.MAX_BEAMS, description="width of the beam search; 1 is off"
    )
    length_penalty: float | None = _option(
        "length_penalty", -2, 10, description="of the beam search; above 0 likes length"
    )
    seed: Integer | None = _option("seed", 0, limits.MAX_INT64, description="makes sampling repeatable")
    deadline_ms: Integer | None = _option(
        "deadline_ms", 0, MAX_DEADLINE_MS, description="answer with what is written by then; 0 is off"
    )
    min_confidence: float | None = _option(
        "min_confidence", 0, 1, description="below it the raw prompt comes back; 0 is off; by default the adapter's own"
    )
    adapter: str | None = Field(
        None,
        pattern=f"^{limits.ADAPTER_NAME}$",
        max_length=limits.MAX_ADAPTER_NAME,
        description="the name of the adapter that answers; the server's default",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_prompt(self.raw_prompt)
        GenerationOptions.from_values({k: v for k, v in self.options().items() if k in DEFAULTS})
        return self

    def options(self) -> SentOptions:
        """Those that the caller gave."""
        return cast(SentOptions, self.model_dump(exclude={"raw_prompt"}, exclude_unset=True))


class Sequence(BaseModel):
    """One enhanced prompt."""

    text: str
    added: str = Field(description='what stands behind the raw prompt; "" where nothing does, or it was rewritten')
    score: float = Field(description="confidence in what the model wrote, 0 to 1, also where that was withheld")
    generated_tokens: int
    finish_reason: str = Field(json_schema_extra={"enum": [*FINISH_REASONS]})
    reason: str = Field(description='why it was withheld, else ""')


class OptimizeResponse(BaseModel):
    """The answer to one raw prompt."""

    enhanced_prompt: str = Field(description="the text of the first sequence")
    sequences: list[Sequence]
    truncated: bool = Field(description="the raw prompt was longer than what the models read")
    model_version: str
    request_id: str = Field(description="name the answer by it in feedback")
    elapsed_ms: float

    @classmethod
    def of(cls, answer: Optimization) -> "OptimizeResponse":
        return cls(
            enhanced_prompt=answer.text,
            sequences=[Sequence.model_validate(sequence, from_attributes=True) for sequence in answer.sequences],
            truncated=answer.truncated,
            model_version=answer.model_version,
            request_id=answer.request_id,
            elapsed_ms=answer.elapsed_ms,
        )


class PieceEvent(BaseModel):
    """A piece of text: the data of an event ``piece``."""

    text: str
    sequence_index: int

    @classmethod
    def of(cls, piece: Piece) -> "PieceEvent":
        return cls.model_validate(piece, from_attributes=True)


def _text(name: str, **more: Any) -> Any:
    return Field(max_length=FEEDBACK_LIMITS[name], **more)


class FeedbackRequest(_Body):
    """What somebody says of an answer."""

    request_id: str = _text("request_id", min_length=1, description="of the answer")
    raw_prompt: str = _text("raw_prompt", min_length=1)
    enhanced_prompt: str = _text("enhanced_prompt")
    rating: Integer = Field(json_schema_extra={"enum": [1, -1]})
    edited_prompt: str | None = _text("edited_prompt", default="", description="what the answer should have been")
    comment: str | None = _text("comment", default="")
    model_version: str | None = _text("model_version", default="", description="of the answer")
    user: str | None = _text(
        "user", default="", description="whose feedback it is; with API keys, by default the key's name"
    )
    idempotency_key: str | None = _text(
        "idempotency_key", default="", description="the same key again stores nothing; by default the request_id"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        Feedback(**self.model_dump())
        return self


class FeedbackResponse(BaseModel):
    """The feedback is on disk."""

    feedback_id: str
    created: bool = Field(description="false where the key was known")


FeedbackState = Literal["ready", "unavailable", "damaged"]


class HealthResponse(BaseModel):
    """Triton and both models are ready."""

    ready: bool
    feedback: FeedbackState = Field(
        description="whether feedback is stored: unavailable may pass; damaged needs the operator to mend the "
        "database, or to make it writable"
    )
