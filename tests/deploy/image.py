"""Builds a Dockerfile without Docker: a real parser reads it, its steps run in layers over this machine's root.

Stages, build arguments, ``.dockerignore`` and the instructions of our Dockerfile are followed; others are refused, so
that none is passed over in silence. An image of a registry is stood for by a folder that is laid over the root.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import dockerfile
import pathspec

from tests.deploy.namespaces import Mount, Root

STEP_TIMEOUT_S = 240
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
EXEC_FORM = ("ENTRYPOINT", "CMD", "HEALTHCHECK")
PASSED_OVER = ("EXPOSE", "STOPSIGNAL", "LABEL")


class BuildError(Exception):
    """A step failed; the text begins with its line."""


@dataclass(frozen=True)
class Image:
    """What a stage makes. ``layers``: the first on top."""

    layers: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin"})
    folder: str = "/"
    user: str = "0:0"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    health: tuple[str, ...] = ()


class Build:
    """The images of one Dockerfile.

    Args:
        context: the folder that is sent to the builder.
        bases: what stands for the images of registries.
        arguments: ``--build-arg``.
    """

    def __init__(
        self, file: Path, context: Path, scratch: Path, bases: Mapping[str, Image], arguments: Mapping[str, str]
    ) -> None:
        self._context, self._scratch, self._bases, self._given = context, scratch, bases, arguments
        ignored = file.with_name(f"{file.name}.dockerignore")
        lines = [line for line in ignored.read_text().splitlines() if line and not line.startswith("#")]
        self._ignored = pathspec.GitIgnoreSpec.from_lines(f"/{line}" for line in lines)
        self._globals: dict[str, str] = {}
        self._stages: dict[str, list[dockerfile.Command]] = {}
        self._made: dict[str, Image] = {}
        steps: list[dockerfile.Command] | None = None
        for step in dockerfile.parse_file(str(file)):
            if step.cmd == "FROM":
                name = step.value[2] if len(step.value) == 3 else ""
                steps = self._stages.setdefault(name, [])
            if step.cmd in EXEC_FORM and not step.json:
                raise BuildError(f"line {step.start_line}: {step.cmd} is not in the exec form, which signals reach")
            if steps is None:
                self._globals |= self._argument(step)
            else:
                steps.append(step)

    def image(self, target: str = "") -> Image:
        """The image of a stage ("" is the last one, which has no name); only the stages that it needs are made."""
        if target not in self._made:
            begin, *steps = self._stages[target]
            image, scope = self._from(begin), dict[str, str]()
            for step in steps:
                image = self._step(image, step, scope)
            self._made[target] = image
        return self._made[target]

    def _from(self, step: dockerfile.Command) -> Image:
        name = filled(step, step.value[0], self._globals)
        if name in self._stages:
            return self.image(name)
        if name not in self._bases:
            raise BuildError(f"line {step.start_line}: no image {name}")
        return self._bases[name]

    def _argument(self, step: dockerfile.Command) -> dict[str, str]:
        name, _, default = step.value[0].partition("=")
        return {name: self._given.get(name, default)}

    def _step(self, image: Image, step: dockerfile.Command, scope: dict[str, str]) -> Image:
        values = {**scope, **image.environment}
        match step.cmd:
            case "ARG":
                scope.update(self._argument(step))
                return image
            case "ENV":
                words = [filled(step, word, values) for word in step.value]
                return replace(
                    image, environment={**image.environment, **dict(zip(words[::2], words[1::2], strict=True))}
                )
            case "WORKDIR":
                return replace(image, folder=str(Path(image.folder) / filled(step, step.value[0], values)))
            case "USER":
                return replace(image, user=step.value[0])
            case "ENTRYPOINT":
                return replace(image, entrypoint=step.value, command=())
            case "CMD":
                return replace(image, command=step.value)
            case "HEALTHCHECK":
                return replace(image, health=step.value[1:])
            case "COPY":
                return self._copy(image, step, values)
            case "RUN":
                return self._run(image, step, values)
            case known if known in PASSED_OVER:
                return image
        raise BuildError(f"line {step.start_line}: {step.cmd} is not followed here")

    def _copy(self, image: Image, step: dockerfile.Command, values: Mapping[str, str]) -> Image:
        if step.flags:
            raise BuildError(f"line {step.start_line}: COPY {' '.join(step.flags)} is not followed here")
        *sources, target = (filled(step, word, values) for word in step.value)
        layer = self._layer()
        place = layer / str(Path(image.folder) / target).lstrip("/")
        for source in sources:
            origin = self._context / source
            if not origin.exists() or self._is_ignored(origin):
                raise BuildError(f"line {step.start_line}: {source} is not in the build context")
            if origin.is_file():
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, place)
            else:
                shutil.copytree(origin, place, ignore=self._ignored_in, dirs_exist_ok=True)
        return replace(image, layers=(layer, *image.layers))

    def _is_ignored(self, path: Path) -> bool:
        return self._ignored.match_file(path.relative_to(self._context))

    def _ignored_in(self, folder: str, names: list[str]) -> list[str]:
        return [name for name in names if self._is_ignored(Path(folder) / name)]

    def _run(self, image: Image, step: dockerfile.Command, values: Mapping[str, str]) -> Image:
        layer = self._layer()
        mounts = [mount for flag in step.flags for mount in self._mounts(step, flag)]
        command = Root(image.layers, layer).command(
            ["/bin/sh", "-c", step.value[0]], values, user=image.user, folder=image.folder, mounts=mounts
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_TIMEOUT_S)
        if done.returncode:
            raise BuildError(f"line {step.start_line}: exit code {done.returncode}: {done.stdout}{done.stderr}")
        return replace(image, layers=(layer, *image.layers))

    def _mounts(self, step: dockerfile.Command, flag: str) -> list[Mount]:
        """A folder of another stage; a cache only saves time, and pip's own is in this machine's root already."""
        options = dict(part.split("=", 1) for part in flag.removeprefix("--mount=").split(","))
        if options["type"] == "cache":
            return []
        inside = options["source"].lstrip("/")
        layers = self.image(options["from"]).layers
        top, *below = [layer / inside for layer in layers if (layer / inside).is_dir()] or [None]
        if top is None:
            raise BuildError(f"line {step.start_line}: no {options['source']} in {options['from']}")
        return [Mount(top, options["target"], below=tuple(below))]

    def _layer(self) -> Path:
        number = len(list(self._scratch.iterdir()))
        layer = self._scratch / str(number) / "upper"
        layer.mkdir(parents=True)
        return layer


def filled(step: dockerfile.Command, text: str, values: Mapping[str, str]) -> str:
    """``text`` with its variables replaced."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in values:
            raise BuildError(f"line {step.start_line}: {name} is not defined")
        return values[name]

    return VARIABLE.sub(value, text)
