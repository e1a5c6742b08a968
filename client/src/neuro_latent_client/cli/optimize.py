"""``neuro-latent optimize``."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from neuro_latent_client.client import Client
from neuro_latent_client.errors import InvalidRequestError
from neuro_latent_client.options import GenerationOptions
from neuro_latent_client.results import GeneratedSequence, Optimization
from neuro_latent_core.command_line import note
from neuro_latent_core.encoding import decode
from neuro_latent_core.form import SEPARATOR

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
    takes_request_options,
)


@takes_request_options
def optimize(
    raw_prompt: Annotated[
        str | None, typer.Argument(help="The prompt to make better; - reads it from stdin.", show_default=False)
    ] = None,
    url: Url = DEFAULT_URL,
    stream: Annotated[bool, typer.Option("--stream", help="Show the text while it is written.")] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Mark what is new: what was added, or the words changed.")
    ] = False,
    file: Annotated[Path | None, typer.Option(help='Many prompts instead: JSON lines with "raw_prompt".')] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Where their answers go, as JSON lines; what is there is not asked again."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="How many of them are asked at a time.")] = 8,
    adapter: Annotated[str | None, typer.Option(help="Name of the adapter that answers.")] = None,
    timeout: Timeout = 30.0,
    as_json: Json = False,
    api_key: ApiKey = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    **given: Any,
) -> None:
    """Make a raw prompt better."""
    if (raw_prompt is None) == (file is None):
        raise typer.BadParameter("give one prompt (- reads it from stdin), or --file with many")
    if file and (stream or diff or as_json):
        raise typer.BadParameter("--file writes JSON lines: leave out --stream, --diff and --json")
    if output and not file:
        raise typer.BadParameter("--output is for --file: leave it out, or write > FILE")
    if diff and (stream or as_json):
        raise typer.BadParameter("--diff shows whole answers: leave out --stream and --json")
    if stream and given["num_return_sequences"] not in (None, 1):
        raise typer.BadParameter("--stream shows one answer: leave out --stream or --num-return-sequences")
    options = cast(GenerationOptions, {**given, "adapter": adapter})
    connection = ConnectionOptions(url, api_key, ca, certificate, key, timeout)
    with errors_as_lines():
        if file:
            from ._batch import optimize_file

            if not optimize_file(connection, file, output, concurrency, options):
                raise typer.Exit(1)
            return
        prompt = _read_stdin() if raw_prompt == "-" else str(raw_prompt)
        with connection.client() as client:
            if stream:
                answer = _show_stream(client, prompt, options, to_stderr=as_json)
            else:
                answer = client.optimize(prompt, **options)
    if as_json:
        print_json(answer)
        return
    if not stream:
        _write("\n\n".join(_shown(answer.raw_prompt, sequence, diff=diff) for sequence in answer.sequences) + "\n")
    _say_notes(answer)


def _shown(raw_prompt: str, sequence: GeneratedSequence, *, diff: bool) -> str:
    """The text: an addition is marked on a terminal, and with ``diff`` everywhere, as are the words of a rewrite."""
    from neuro_latent_core.diff import added_lines, changed_words

    if sequence.added and (diff or _is_terminal()):
        return sequence.text.removesuffix(sequence.added) + added_lines(sequence.added, colour=_colour())
    return changed_words(raw_prompt, sequence.text, colour=_colour()) if diff else sequence.text


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _colour() -> bool:
    return _is_terminal() and not os.environ.get("NO_COLOR")


def _read_stdin() -> str:
    try:
        text = decode(typer.get_binary_stream("stdin").read())
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"raw_prompt: stdin is not UTF-8: {error.reason} at byte {error.start}") from None
    except ValueError as error:
        raise InvalidRequestError(f"raw_prompt: stdin cannot be read: {error}") from None
    return text.removesuffix("\n").removesuffix("\r")


def _show_stream(client: Client, prompt: str, options: GenerationOptions, *, to_stderr: bool) -> Optimization:
    from neuro_latent_core.diff import added_lines

    marks = _is_terminal() and not to_stderr
    shown = ""
    with client.stream(prompt, **options) as stream:
        for piece in stream:
            text = piece.text
            shown += text
            added = shown.removeprefix(prompt + SEPARATOR)
            if marks and added and text.endswith(added) and added != shown:
                text = text.removesuffix(added) + added_lines(added, colour=_colour())
            _write(text, to_stderr=to_stderr)
    _write("\n", to_stderr=to_stderr)
    return stream.result


def _write(text: str, *, to_stderr: bool = False) -> None:
    """Write all of a text, control sequences in a prompt too."""
    typer.echo(text, nl=False, err=to_stderr, color=True)


def _say_notes(answer: Optimization) -> None:
    if answer.truncated:
        note("note: the raw prompt was longer than what the models read; its middle was not used")
    for number, sequence in enumerate(answer.sequences, start=1):
        which = f"answer {number} " if len(answer.sequences) > 1 else ""
        match sequence.finish_reason:
            case "unchanged":
                note(f"{which}unchanged: nothing to add")
            case "withheld":
                note(f"{which}withheld: {sequence.reason}")
            case "length" | "deadline":
                note(f"{which}ended by {sequence.finish_reason}")
    note(f"{answer.elapsed_ms:.0f} ms, {answer.transport}, model version {answer.model_version}")
