"""What the routes take and give. Limits and defaults are the server's own."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from neuro_latent_core.limits import ADAPTER_NAME, MAX_ADAPTER_NAME, MAX_PROMPT_CHARACTERS
from neuro_latent_core.options import OPTIONS, GenerationOptions, Option, RequestOptions
from neuro_latent_core.protocol import FEEDBACK_LIMITS, FINISH_REASONS
from neuro_latent_serving.checks import check_prompt
from neuro_latent_serving.feedback.record import FeedbackEntry


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


def _field(option: Option) -> Any:
    low: dict[str, Any] = {"gt" if option.above_low else "ge": option.low}
    kind: Any = Integer if option.kind is int else float
    return kind | None, Field(option.default, **low, le=option.high, description=option.help)


if TYPE_CHECKING:
    _Options = _Body
else:
    _Options = create_model("_Options", __base__=_Body, **{name: _field(option) for name, option in OPTIONS.items()})


class OptimizeRequest(_Options):
    """A raw prompt, and how to write the better one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"raw_prompt": "Create a function", "max_length": 200}]})

    raw_prompt: str = Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)
    adapter: str | None = Field(
        None,
        pattern=f"^{ADAPTER_NAME}$",
        max_length=MAX_ADAPTER_NAME,
        description="the name of the adapter that answers; the server's default",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_prompt(self.raw_prompt)
        RequestOptions.from_values({k: v for k, v in self.options().items() if k in OPTIONS})
        return self

    def options(self) -> GenerationOptions:
        """Those that the caller gave."""
        return cast(GenerationOptions, self.model_dump(exclude={"raw_prompt"}, exclude_unset=True))


class _Answer(BaseModel):
    """Made of what the client gives."""

    model_config = ConfigDict(from_attributes=True)


class Sequence(_Answer):
    """One enhanced prompt."""

    text: str
    added: str = Field(description='what stands behind the raw prompt; "" where nothing does, or it was rewritten')
    score: float = Field(description="confidence in what the model wrote, 0 to 1, also where that was withheld")
    generated_tokens: int
    finish_reason: str = Field(json_schema_extra={"enum": [*FINISH_REASONS]})
    reason: str = Field(description='why it was withheld, else ""')


class OptimizeResponse(_Answer):
    """The answer to one raw prompt."""

    enhanced_prompt: str = Field(validation_alias="text", description="the text of the first sequence")
    sequences: list[Sequence]
    truncated: bool = Field(description="the raw prompt was longer than what the models read")
    cached: bool = Field(description="the server had kept the whole answer from an earlier request")
    model_version: str
    request_id: str = Field(description="name the answer by it in feedback")
    elapsed_ms: float


class Adapter(_Answer):
    """A loaded adapter."""

    name: str
    version: str = Field(description="what its answers have as model_version")


class AdaptersResponse(BaseModel):
    """All that are loaded, `default` first."""

    adapters: list[Adapter]


class PieceEvent(_Answer):
    """A piece of text: the data of an event ``piece``."""

    text: str
    sequence_index: int


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
        FeedbackEntry(**self.model_dump())
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
    adapters: dict[str, str] = Field(
        description="the version of each adapter that is loaded, by name; where callers need a key, /adapters tells"
    )
