"""The ensembles: do their steps exist, and does every tensor fit where it goes?"""

from collections.abc import Iterator
from typing import Any

from neuro_latent_serving.adapters.records import versions
from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.repository import CONFIG, Model, Repository, Tensor
from neuro_latent_serving.doctor.subject import Subject


def check(subject: Subject) -> Iterator[Outcome]:
    """All ensembles of the repository."""
    if subject.repository is None:
        return
    for ensemble in subject.repository.ensembles():
        yield from Flow(ensemble, subject.repository).check()
        yield f"{ensemble.name}: {len(ensemble.config.ensemble_scheduling.step)} steps"


class Flow:
    """One ensemble: its tensors by the names that it gives them."""

    def __init__(self, ensemble: Model, repository: Repository) -> None:
        self._ensemble, self._repository = ensemble, repository
        self._where = f"{ensemble.name}/{CONFIG}"
        self._steps = list(ensemble.config.ensemble_scheduling.step)
        self._made: dict[str, Tensor] = dict(ensemble.inputs)
        # Made twice, or by a model that cannot be read, which is told of elsewhere: no type to compare.
        self._opaque: set[str] = set()

    def check(self) -> Iterator[Finding]:
        """Everything about it."""
        for step in self._steps:
            yield from self._check_model(step)
            yield from self._check_names(step)
            yield from self._collect_outputs(step)
        for step in self._steps:
            yield from self._check_inputs(step)
        yield from self._check_order()
        for output in self._ensemble.outputs.values():
            yield from self._check_fit(output.name, output, f"output {output.name}")
        read = {value for step in self._steps for value in step.input_map.values()} | set(self._ensemble.outputs)
        for value in sorted((set(self._made) | self._opaque) - read):
            yield self._found("tensor-unused", f"nothing reads {value}")

    def _model(self, step: Any) -> Model | None:
        return self._repository.models.get(step.model_name)

    def _found(self, id_: str, what: str) -> Finding:
        return Finding(id_, self._where, what, self._repository.export_again)

    def _check_model(self, step: Any) -> Iterator[Finding]:
        if step.model_name not in self._repository.names:
            yield self._found("step-model-missing", f"step {step.model_name}: no such model")
        model = self._model(step)
        if model is None:
            return
        if step.model_version > 0 and step.model_version not in versions(model.folder):
            yield self._found("step-version-missing", f"step {model.name}: no version {step.model_version}")
        mine, theirs = self._ensemble.config.max_batch_size, model.config.max_batch_size
        if mine != theirs:
            id_ = "batch-size-small" if theirs < mine else "batch-size-large"
            yield self._found(id_, f"max_batch_size is {theirs} in {model.name}, and {mine} here")

    def _check_names(self, step: Any) -> Iterator[Finding]:
        model = self._model(step)
        if model is None:
            return
        for kind, mapped, known in (
            ("input", step.input_map, model.inputs),
            ("output", step.output_map, model.outputs),
        ):
            for name in sorted(set(mapped) - set(known)):
                yield self._found("step-tensor-unknown", f"step {model.name}: it has no {kind} {name}")
        for name, tensor in model.inputs.items():
            if not tensor.optional and name not in step.input_map:
                yield self._found("step-input-unmapped", f"step {model.name}: nothing goes to its input {name}")

    def _collect_outputs(self, step: Any) -> Iterator[Finding]:
        model = self._model(step)
        for name, value in sorted(step.output_map.items()):
            if value in self._made or value in self._opaque:
                self._made.pop(value, None)
                self._opaque.add(value)
                yield self._found("tensor-made-twice", f"step {step.model_name} makes {value}, which is there already")
            elif model is None or name not in model.outputs:
                self._opaque.add(value)
            else:
                self._made[value] = model.outputs[name]

    def _check_inputs(self, step: Any) -> Iterator[Finding]:
        model = self._model(step)
        for name, value in sorted(step.input_map.items()):
            reader = f"step {step.model_name}, input {name}"
            wanted = model.inputs.get(name) if model else None
            yield from self._check_fit(value, wanted, reader)
            source = self._ensemble.inputs.get(value)
            if wanted and source and source.optional and not wanted.optional:
                yield self._found("optional-into-required", f"{reader}: {value} may be left out by a caller")

    def _check_fit(self, value: str, wanted: Tensor | None, reader: str) -> Iterator[Finding]:
        """Whether the tensor ``value`` is made, as its reader wants it."""
        if value in self._opaque:
            return
        made = self._made.get(value)
        if made is None:
            yield self._found("tensor-unmade", f"{reader}: nothing makes {value}")
        elif wanted is not None and made.type != wanted.type:
            yield self._found("tensor-type-differs", f"{reader}: {value} is {made.type}, not {wanted.type}")
        elif wanted is not None and not fit(made.dims, wanted.dims):
            what = f"{reader}: {value} is {list(made.dims)}, not {list(wanted.dims)}"
            yield self._found("tensor-shape-differs", what)

    def _check_order(self) -> Iterator[Finding]:
        """No step may wait for its own result."""
        there = set(self._ensemble.inputs)
        waiting = list(self._steps)
        everything = set(self._made) | self._opaque
        while ready := [step for step in waiting if there >= set(step.input_map.values()) & everything]:
            there.update(*(step.output_map.values() for step in ready))
            waiting = [step for step in waiting if step not in ready]
        if waiting:
            names = ", ".join(step.model_name for step in waiting)
            yield self._found("tensor-unmade", f"the steps {names} wait for each other")


def fit(made: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether shapes can be the same; -1 is any size."""
    return len(made) == len(wanted) and all(a == b or -1 in (a, b) for a, b in zip(made, wanted, strict=True))
