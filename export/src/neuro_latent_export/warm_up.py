"""The warm-up of the graph models that Triton's own backends run: the lengths of prompts that the tokenizer makes.

Triton runs these requests before a model is ready, so that the first requests do not pay for allocations and for the
choice of kernels. What is in the tensors does not matter to either, so it is zeros.
"""

from collections.abc import Mapping, Sequence

from neuro_latent_core.limits import BUCKETS
from neuro_latent_export.tensorrt.profiles import ROWS, USUAL_TOKENS

LONGEST = 128
"""The longest prompt of the warm-up: a longer one's own time makes up for the allocations."""

Tensors = Mapping[str, tuple[str, Sequence[int | None]]]
"""Type and dimensions of inputs by name, without the batch; None is the number of tokens."""

TOKENS: Tensors = {"input_ids": ("TYPE_INT64", [None]), "attention_mask": ("TYPE_INT64", [None])}


def lengths(max_tokens: int) -> list[int]:
    """The lengths of the prompts that a model reads at most ``max_tokens`` of, as far as they are warmed up."""
    return sorted({min(length, max_tokens) for length in BUCKETS if length <= LONGEST})


def warm_up(inputs: Tensors, max_tokens: int) -> str:
    """``model_warmup`` entries of a ``config.pbtxt``: a request of each length."""
    return ",\n".join(_request(inputs, length) for length in lengths(max_tokens))


def full_batch(inputs: Tensors, max_tokens: int) -> str:
    """A ``model_warmup`` entry for the profile of an engine that is tuned for many rows."""
    return _request(inputs, min(USUAL_TOKENS, max_tokens), ROWS)


def _request(inputs: Tensors, length: int, rows: int = 1) -> str:
    tensors = [
        f'    inputs {{ key: "{name}", value {{ data_type: {kind}, dims: {_dims(dims, length)}, zero_data: true }} }}'
        for name, (kind, dims) in inputs.items()
    ]
    name = f"{length} tokens" if rows == 1 else f"{length} tokens, {rows} rows"
    return "\n".join(["  {", f'    name: "{name}", batch_size: {rows}', *tensors, "  }"])


def _dims(dims: Sequence[int | None], length: int) -> list[int]:
    return [length if size is None else size for size in dims]
