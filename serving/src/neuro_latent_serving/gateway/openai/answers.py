"""Enhanced prompts in the shapes of OpenAI's API."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from neuro_latent_client import AsyncOptimizationStream, Optimization, Piece

MODEL = "neuro-latent"
"""The model that answers with a better prompt; ``neuro-latent/NAME`` is that of an adapter."""


def adapter_of(model: Any) -> str | None:
    """The adapter that a model name means, "" for the default; None where it is no model of ours."""
    if model == MODEL:
        return ""
    return model.removeprefix(f"{MODEL}/") if isinstance(model, str) and model.startswith(f"{MODEL}/") else None


def completion(answer: Optimization, model: str) -> dict[str, Any]:
    """A ``chat.completion``, a choice for each sequence."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": sequence.text, "refusal": None},
            "logprobs": None,
            "finish_reason": _finish(sequence.finish_reason),
        }
        for index, sequence in enumerate(answer.sequences)
    ]
    return {**_head(answer.request_id, "chat.completion", model), "choices": choices, "usage": _usage(answer)}


def response(answer: Optimization, model: str) -> dict[str, Any]:
    """A ``response`` with one message."""
    usage = _usage(answer)
    content = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
    return {
        **{"id": f"resp_{answer.request_id}", "object": "response", "created_at": int(time.time()), "model": model},
        **{"status": "completed", "error": None, "incomplete_details": None, "instructions": None, "metadata": {}},
        **{"parallel_tool_calls": False, "tool_choice": "none", "tools": [], "temperature": None, "top_p": None},
        "output": [
            {
                **{"type": "message", "id": f"msg_{answer.request_id}", "status": "completed", "role": "assistant"},
                "content": [content],
            }
        ],
        "usage": {
            **{"input_tokens": 0, "input_tokens_details": {"cached_tokens": 0}},
            **{"output_tokens": usage["completion_tokens"], "output_tokens_details": {"reasoning_tokens": 0}},
            "total_tokens": usage["total_tokens"],
        },
    }


async def chunks(
    stream: AsyncOptimizationStream, first: Piece | None, model: str, request_id: str, usage: bool
) -> AsyncIterator[str]:
    """Server-sent events of ``chat.completion.chunk``, the last one ``[DONE]``; ``first`` has been read already."""
    head = _head(request_id, "chat.completion.chunk", model)

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps({**head, 'choices': choices, **more}, ensure_ascii=False)}\n\n"

    piece, begun = first, set[int]()
    while piece is not None:
        index = piece.sequence_index
        delta = {"content": piece.text} if index in begun else {"role": "assistant", "content": piece.text}
        begun.add(index)
        yield event([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}])
        piece = await anext(stream, None)
    answer = stream.result
    for index, sequence in enumerate(answer.sequences):
        reason = _finish(sequence.finish_reason)
        yield event([{"index": index, "delta": {}, "logprobs": None, "finish_reason": reason}])
    if usage:
        yield event([], usage=_usage(answer))
    yield "data: [DONE]\n\n"


def models(names: list[str]) -> list[dict[str, Any]]:
    """Entries of the list of models."""
    return [{"id": name, "object": "model", "created": 0, "owned_by": MODEL} for name in names]


def _head(request_id: str, kind: str, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{request_id}", "object": kind, "created": int(time.time()), "model": model}


def _finish(reason: str) -> str:
    return "length" if reason in ("length", "deadline") else "stop"


def _usage(answer: Optimization) -> dict[str, int]:
    """Tokens that were written; how many the prompt has is not known here."""
    written = sum(sequence.generated_tokens for sequence in answer.sequences)
    return {"prompt_tokens": 0, "completion_tokens": written, "total_tokens": written}
