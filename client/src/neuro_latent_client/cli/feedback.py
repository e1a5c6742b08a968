"""``neuro-latent feedback``: say how good an answer was. What follows it comes from other distributions."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from neuro_latent_client.errors import InvalidRequestError
from neuro_latent_client.options import FeedbackDetails
from neuro_latent_core.cli import FeedbackGroup
from neuro_latent_core.encoding import decode

from ._options import (
    DEFAULT_URL,
    ApiKey,
    Ca,
    Certificate,
    ConnectionOptions,
    Json,
    Key,
    Timeout,
    Url,
    errors_as_lines,
    print_json,
)

_OF_THE_ANSWER = ("request_id", "raw_prompt", "enhanced_prompt", "model_version")


feedback = typer.Typer(name="feedback", cls=FeedbackGroup, invoke_without_command=True)


@feedback.callback()
def send(
    context: typer.Context,
    good: Annotated[bool | None, typer.Option("--good/--bad", help="How the answer was.", show_default=False)] = None,
    answer: Annotated[
        Path | None, typer.Option(help="What 'optimize --json' or a row of 'optimize --file' gave; - is stdin.")
    ] = None,
    request_id: Annotated[str | None, typer.Option(help="Of the answer, where there is no --answer.")] = None,
    raw_prompt: Annotated[str | None, typer.Option(help="The prompt that was improved.")] = None,
    enhanced_prompt: Annotated[str | None, typer.Option(help="The text that is rated.")] = None,
    model_version: Annotated[str | None, typer.Option(help="The version that answered.")] = None,
    edited_prompt: Annotated[str | None, typer.Option(help="What the answer should have been.")] = None,
    comment: Annotated[str | None, typer.Option(help="In words.")] = None,
    user: Annotated[str | None, typer.Option(help="Whose feedback it is.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Stored once for each; default: the request id.")] = None,
    url: Url = DEFAULT_URL,
    timeout: Timeout = 30.0,
    as_json: Json = False,
    api_key: ApiKey = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Say how good an answer was."""
    if context.invoked_subcommand:
        return
    if good is None:
        raise typer.BadParameter("say --good or --bad")
    rating: Literal[1, -1] = 1 if good else -1
    details: FeedbackDetails = {
        "raw_prompt": raw_prompt,
        "enhanced_prompt": enhanced_prompt,
        "model_version": model_version,
        "edited_prompt": edited_prompt,
        "comment": comment,
        "user": user,
        "idempotency_key": idempotency_key,
    }
    with errors_as_lines():
        known = _read_answer(answer) if answer else {}
        for name in ("raw_prompt", "enhanced_prompt", "model_version"):
            details[name] = details[name] or known.get(name)
        with ConnectionOptions(url, api_key, ca, certificate, key, timeout).client() as client:
            result = client.feedback(request_id or known.get("request_id") or "", rating, **details)
    if as_json:
        print_json(result)
    else:
        typer.echo(f"{result.feedback_id} {'stored' if result.created else 'was stored before; nothing was changed'}")


def _read_answer(path: Path) -> dict[str, str]:
    """What an answer says of itself, the first text for several."""
    try:
        content = typer.get_binary_stream("stdin").read() if str(path) == "-" else path.read_bytes()
        answer = json.loads(decode(content))
        answer.setdefault("enhanced_prompt", answer["sequences"][0]["text"])
        return {name: answer[name] for name in _OF_THE_ANSWER}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InvalidRequestError(
            f"answer: {path} is not what 'neuro-latent optimize --json' prints ({type(error).__name__}: {error})"
        ) from None
