"""Tasks that a responder is asked: a prompt, and what tells a good answer to it."""

import hashlib
import importlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuro_latent_trainer.errors import TrainerError


class TaskError(TrainerError):
    """A file of tasks cannot be read."""


@dataclass(frozen=True, slots=True)
class Task:
    """One line of a file of tasks.

    Attributes:
        prompt: the raw prompt.
        good, bad: a good and a bad answer to it; "" where there is none.
        checks: IFEval instructions that the answer must follow, each with ``id`` and its ``kwargs``.
        kind: of task; figures are also shown by kind.
    """

    prompt: str
    good: str = ""
    bad: str = ""
    checks: tuple[Mapping[str, Any], ...] = ()
    kind: str = ""


def read_tasks(path: Path) -> list[Task]:
    """Tasks of a file of JSON lines.

    Raises:
        TaskError: a line is no task, or there is none.
    """
    tasks = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                tasks.append(_task(json.loads(line)))
            except ValueError as error:
                raise TaskError(f"{path.name}, line {number}: {error}") from None
    if not tasks:
        raise TaskError(f"{path.name} holds no task; one is a line like "
                        '{"prompt": "…", "good": "…", "bad": "…"}')  # fmt: skip
    return tasks


def sample_tasks(tasks: Sequence[Task], most: int) -> list[Task]:
    """At most ``most`` tasks, in their order where all are taken, else chosen by a hash of their prompts."""
    if len(tasks) <= most:
        return list(tasks)
    return sorted(tasks, key=lambda task: hashlib.sha256(task.prompt.encode()).digest())[:most]


def _task(values: Any) -> Task:
    if not isinstance(values, dict):
        raise ValueError("a task is a JSON object with a prompt")
    texts = {name: values.get(name) or "" for name in ("prompt", "good", "bad", "kind")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a string")
    if not texts["prompt"].strip():
        raise ValueError("prompt is missing or blank")
    if texts["bad"].strip() and not texts["good"].strip():
        raise ValueError("bad stands without a good answer")
    checks = values.get("checks") or []
    if checks and texts["good"].strip():
        raise ValueError("a task has a good answer or checks, not both: make two tasks of it")
    if not isinstance(checks, list) or not all(
        isinstance(c, dict) and isinstance(c.get("id"), str) and isinstance(c.get("kwargs") or {}, dict) for c in checks
    ):
        raise ValueError('checks must be a list like [{"id": "punctuation:no_comma", "kwargs": {}}]')
    return Task(**texts, checks=tuple(checks))


class Checker:
    """IFEval's instructions (Zhou et al. 2023), from the package ``lm-eval``.

    Raises:
        TaskError: the package is missing.
    """

    def __init__(self) -> None:
        try:
            registry = importlib.import_module("lm_eval.tasks.ifeval.instructions_registry")
        except ImportError as error:
            raise TaskError(
                f"tasks with checks need IFEval's instructions ({error}): pip install 'lm-eval[ifeval]'"
            ) from None
        self._instructions: Mapping[str, Any] = registry.INSTRUCTION_DICT

    def check(self, tasks: Sequence[Task]) -> None:
        """Try every instruction once, before anybody is asked.

        Raises:
            TaskError: a check is not known, does not take its ``kwargs``, or needs data that are not there.
        """
        for task in tasks:
            for check in task.checks:
                instruction = self._instruction(check, task.prompt)
                try:
                    instruction.check_following("An answer.")
                except LookupError:
                    what = f"the check {check['id']!r} needs data of the package nltk"
                    raise TaskError(f"{what}: python -m nltk.downloader punkt_tab") from None

    def met(self, task: Task, answer: str) -> float:
        """The share of a task's checks that an answer follows.

        Raises:
            TaskError: a check is not known, or does not take its ``kwargs``.
        """
        if not answer.strip():
            return 0.0
        followed = [self._instruction(check, task.prompt).check_following(answer) for check in task.checks]
        return sum(map(bool, followed)) / len(followed)

    def _instruction(self, check: Mapping[str, Any], prompt: str) -> Any:
        name, given = check["id"], {k: v for k, v in (check.get("kwargs") or {}).items() if v is not None}
        if name not in self._instructions:
            raise TaskError(f"there is no check {name!r}; known are {', '.join(sorted(self._instructions))}")
        random.seed(f"{prompt} {name}")  # what kwargs leave open is drawn: the same for every answer
        instruction = self._instructions[name](name)
        try:
            instruction.build_description(**given)
            if "prompt" in (instruction.get_instruction_args() or {}):
                instruction.build_description(prompt=prompt)
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise TaskError(f"the check {name!r} does not take kwargs {given}: {error}") from None
        return instruction
