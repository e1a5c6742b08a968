"""The examples in docstrings do what they show."""

import doctest
import importlib
import pkgutil

import pytest

import neuro_latent_core

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(neuro_latent_core.__path__, "neuro_latent_core.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
