"""Python, the distributions of this project and what they need."""

import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.subject import Subject

DISTRIBUTIONS = tuple(f"neuro-latent-{part}" for part in ("client", "serving", "trainer", "export", "benchmarks"))
WITH_NEEDS = (*DISTRIBUTIONS, "nvidia-pytriton")
SHOWN = ("onnxruntime", "tokenizers", "numpy", "tritonclient", "grpcio")
ALTERNATIVES = {"onnxruntime": ("onnxruntime-gpu",)}
"""Packages that bring the same module as the one that is asked for; one of them is enough."""


def check(_: Subject) -> Iterator[Outcome]:
    """What pip would check, for this project's distributions."""
    python = platform.python_version()
    installed = {name: version for name in DISTRIBUTIONS if (version := installed_version(name))}
    yield f"Python {python}, {sys.executable}"
    yield ", ".join(f"{name} {version}" for name, version in installed.items())
    yield ", ".join(f"{name} {installed_version(name) or 'missing'}" for name in SHOWN)
    for name in filter(installed_version, WITH_NEEDS):
        allowed = distribution(name).metadata["Requires-Python"]
        if allowed and Version(python) not in SpecifierSet(allowed):
            yield Finding(
                "python-unsupported", name, f"needs Python {allowed}, and this is {python}", "Use such a one."
            )
        yield from unmet(name)


def unmet(name: str) -> Iterator[Finding]:
    """The requirements of a distribution, extras left out, that are not met."""
    for text in distribution(name).requires or ():
        need = Requirement(text)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        found = installed_version(need.name)
        if found is None or not need.specifier.contains(found, prereleases=True):
            state = f"{found} is installed" if found else "it is not installed"
            mend = f'Install it with: pip install "{need.name}{need.specifier}"'
            yield Finding("requirement-unmet", name, f"needs {need.name} {need.specifier}, and {state}", mend)


def installed_version(name: str) -> str | None:
    """The version of an installed package, or of one in its place."""
    for candidate in (name, *ALTERNATIVES.get(name, ())):
        with suppress(PackageNotFoundError):
            return distribution(candidate).version
    return None
