"""The public contract of the served models: model names, tensor names and data types.

Shapes: ``B`` rows of a request, ``n`` sequences a row. Every tensor has the row axis first.
"""

from typing import Final

from neuro_latent_core.limits import MAX_PROMPT_CHARACTERS
from neuro_latent_core.options import OPTIONS, TritonType

UNARY_MODEL: Final = "neuro_latent_optimizer"
"""Ensemble, one response a request: outputs are [B, n]."""

STREAM_MODEL: Final = "neuro_latent_optimizer_stream"
"""Ensemble, decoupled: one row a request, a response a piece of text; outputs are [1, 1]."""

RAW_PROMPT: Final = "raw_prompt"

OPTION_TYPES: Final[dict[str, TritonType]] = {name: option.triton_type for name, option in OPTIONS.items()}
"""Optional inputs, each [B, 1]."""

ADAPTER: Final = "adapter"
"""Optional input, [B, 1]: the name of the adapter that answers; absent or "" is the server's default."""

EVERY_ADAPTER: Final = "*"
"""In place of an adapter's name: the default answers, and the output ``adapter_version`` names all adapters that are
loaded: a JSON object of their versions by name. A server that has only the default gives its version alone."""

INPUT_TYPES: Final[dict[str, TritonType]] = {RAW_PROMPT: "BYTES", **OPTION_TYPES, ADAPTER: "BYTES"}

OUTPUT_TYPES: Final[dict[str, TritonType]] = {
    "enhanced_prompt": "BYTES",  # unary: the whole text; stream: the next piece, "" when there is none
    "added": "BYTES",  # complement form: what stands behind the prompt, "" when nothing does; stream: with its piece
    "score": "FP32",  # confidence in what the model wrote, in [0, 1], also where that was withheld
    "generated_tokens": "INT32",  # tokens written so far
    "finish_reason": "BYTES",  # one of FINISH_REASONS; stream: "" while the sequence goes on
    "reason": "BYTES",  # why it was withheld, else ""
    "truncated": "BOOL",  # the raw prompt was longer than what the models read
    "cached": "BOOL",  # the whole answer was kept from an earlier request
    "model_version": "BYTES",  # of the adapter that made it
    # The same text again: Triton's generate endpoints write a "model_version" of their own ("1") over the tensor.
    "adapter_version": "BYTES",
}
"""Outputs of both ensembles."""

STREAM_OUTPUT_TYPES: Final[dict[str, TritonType]] = {
    **OUTPUT_TYPES,
    "sequence_index": "INT32",  # which of the num_return_sequences this piece belongs to
}
"""Outputs of the streaming ensemble."""

OWN_HEADER: Final = "neuro-latent"
"""HTTP's header with the secret of a server that `neuro-latent serve` has started: it opens what is closed to others
(model repository, shared memory, trace and log settings)."""

PROJECTOR_MODEL: Final = "projector"
"""The step whose versions are sets of adapters."""

TOO_BUSY: Final = "the server is too busy"
"""How the engine's refusal begins when its queue is full."""

CANCEL_MODEL: Final = "t5_decoder"
CANCEL_INPUT: Final = "cancel"
"""Decoupled; with this BYTES input alone ([1, 1], a request id) it stops decoding that request and answers nothing."""

FINISH_REASONS: Final = ("stop", "length", "deadline", "unchanged", "withheld")
"""The model ended; ``max_length`` or the deadline ended it; it wrote nothing; gate or guard kept its text back."""

FEEDBACK_MODEL: Final = "feedback"
"""Stores what people say of an answer; answered when it is on disk. Every tensor is [B, 1]."""

FEEDBACK_INPUT_TYPES: Final[dict[str, TritonType]] = {
    "request_id": "BYTES",  # of the answer that is rated
    "raw_prompt": "BYTES",
    "enhanced_prompt": "BYTES",
    "rating": "INT32",  # 1 or -1
    "edited_prompt": "BYTES",  # what the answer should have been; "" is none
    "comment": "BYTES",
    "model_version": "BYTES",  # of the answer
    "user": "BYTES",  # whose feedback it is, as the caller names people; "" is nobody's
    "idempotency_key": "BYTES",  # the same key again stores nothing and gives the same id; "" is the request id
}
"""All but the first four are optional."""

FEEDBACK_OUTPUT_TYPES: Final[dict[str, TritonType]] = {
    "feedback_id": "BYTES",
    "created": "BOOL",  # False where the key was known
    "idempotency_key": "BYTES",  # of the feedback that is answered
}

FEEDBACK_LIMITS: Final = {
    "request_id": 128,
    "raw_prompt": MAX_PROMPT_CHARACTERS,
    "enhanced_prompt": MAX_PROMPT_CHARACTERS,
    "edited_prompt": MAX_PROMPT_CHARACTERS,
    "comment": 4096,
    "model_version": 128,
    "user": 256,
    "idempotency_key": 128,
}
"""The most characters of each text."""
