"""Commands of other distributions of this environment, run as a user would: the trainer imports neither."""

import importlib.util
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from neuro_latent_core.command_line import program
from neuro_latent_trainer.errors import TrainerError

SERVING: Final = "neuro_latent_serving"
FEEDBACK_VARIABLE: Final = "NEURO_LATENT_FEEDBACK_URL"
"""Where serving keeps feedback, for all of its commands."""


class CommandError(TrainerError):
    """Another command is not installed, or failed; what it said of that stands on stderr."""


@dataclass(frozen=True)
class Promoted:
    """What a promotion says: the adapter's name, its version there, the one before, and the answers' model version."""

    adapter: str
    version: int
    previous: int | None
    model_version: str


def export_feedback(url: str | None, target: Path) -> None:
    """Write the feedback of a database (None: where serving keeps it) as JSON lines to a file that only its owner can
    read.

    Raises:
        CommandError: serving is not installed here, or the database cannot be read.
    """
    if importlib.util.find_spec(SERVING) is None:
        raise CommandError(
            "feedback in a database is read by neuro-latent-serving, which is not installed here. Install it "
            "(pip install neuro-latent-serving), or write a file elsewhere with "
            "`neuro-latent feedback export --output FILE` and give that one with --feedback FILE"
        )
    # In the environment, for others on this machine can read arguments, and a URL may hold a password.
    environment = {} if url is None else {FEEDBACK_VARIABLE: url}
    target.touch(mode=0o600)
    with target.open("wb") as file:
        _run(["feedback", "export"], environment, stdout=file)


def promote(adapter: Path, name: str, repository: Path, url: str) -> Promoted:
    """Put a version of an adapter (a folder or run) into a served repository; it is loaded and probed.

    Raises:
        CommandError: the command is not installed or failed; what was served before still is.
    """
    arguments = ["adapters", "add", name, "--adapter", str(adapter), "--repository", str(repository), "--url", url]
    return Promoted(*_answer([*arguments, "--json"], "adapter", "version", "previous", "model_version"))


def served(repository: Path, name: str) -> str | None:
    """The model version that a repository has under an adapter's name; None where it has no such adapter.

    Raises:
        CommandError: the command is not installed or failed.
    """
    (adapters,) = _answer(["adapters", "list", "--repository", str(repository), "--offline", "--json"], "adapters")
    version: str | None = adapters.get(name)
    return version


def rollback_command(repository: Path, url: str) -> list[str]:
    """What undoes a promotion, the newest change of a repository."""
    return ["neuro-latent", "adapters", "rollback", "--repository", str(repository), "--url", url]


def _answer(arguments: Sequence[str], *names: str) -> list[Any]:
    """Fields of the JSON that a command prints last."""
    done = _run(arguments, {}, subprocess.PIPE)
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        return [found[name] for name in names]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        command = " ".join(arguments[:2])
        raise CommandError(f"`neuro-latent {command}` ended well, but its answer cannot be read: {error!r}") from error


def _run(arguments: Sequence[str], environment: Mapping[str, str], stdout: Any) -> "subprocess.CompletedProcess[bytes]":
    """Run ``neuro-latent``; its stderr is this process's."""
    done = subprocess.run(
        [*program(), *arguments], stdin=subprocess.DEVNULL, stdout=stdout, env={**os.environ, **environment}
    )
    if done.returncode != 0:
        raise CommandError(f"`neuro-latent {' '.join(arguments[:2])}` failed with exit code {done.returncode}")
    return done
