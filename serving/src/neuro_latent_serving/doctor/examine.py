"""All checks in order, each group's outcomes apart."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from neuro_latent_serving.doctor import (
    adapters,
    configs,
    device,
    engines,
    ensembles,
    files,
    graphs,
    machine,
    parameters,
    ports,
    server,
    storage,
    tokens,
    versions,
)
from neuro_latent_serving.doctor.catalogue import Finding, Outcome, Severity
from neuro_latent_serving.doctor.subject import Subject
from neuro_latent_serving.server.errors import UsageError

Check = Callable[[Subject], Iterator[Outcome]]

INSTALLATION: dict[str, Check] = {
    "versions": versions.check,
    "server": server.check,
    "device": device.check,
    "machine": machine.check,
    "ports": ports.check,
    "feedback": storage.check,
}

REPOSITORY: dict[str, Check] = {
    "configurations": configs.check,
    "parameters": parameters.check,
    "ensembles": ensembles.check,
    "files": files.check,
    "adapters": adapters.check,
    "graphs": graphs.check,
    "engines": engines.check,
    "tokens": tokens.check,
}
"""What is said only where a repository is named."""


@dataclass(frozen=True)
class Section:
    """What a group of checks has found, and what is as it should be."""

    name: str
    findings: tuple[Finding, ...]
    passed: tuple[str, ...]

    @property
    def worst(self) -> Severity | None:
        return max((finding.severity for finding in self.findings), default=None)


def examine(subject: Subject) -> list[Section]:
    """Every group; those of the repository only where there is one.

    Raises:
        UsageError: an option has a value that cannot be used.
    """
    groups = {**INSTALLATION, **(REPOSITORY if subject.repository else {})}
    return [examine_group(name, check, subject) for name, check in groups.items()]


def examine_group(name: str, check: Check, subject: Subject) -> Section:
    """One group. What a broken repository does to a check that did not expect it becomes a finding too.

    Raises:
        UsageError: an option has a value that cannot be used.
    """
    findings, passed = list[Finding](), list[str]()
    try:
        for outcome in check(subject):
            if isinstance(outcome, Finding):
                findings.append(outcome)
            else:
                passed.append(outcome)
    except UsageError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        findings.append(Finding("check-failed", f"checks of {name}", what, "Please report it, with this line."))
    return Section(name, tuple(findings), tuple(passed))
