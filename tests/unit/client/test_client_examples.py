"""The examples in docstrings and documents do what they show; a user's program is well typed."""

import asyncio
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import neuro_latent_client
from neuro_latent_client.testing import FakeServer
from neuro_latent_core import protocol
from tests.unit.client import user_program

ROOT = Path(__file__).parents[3]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(neuro_latent_client.__path__, "neuro_latent_client.")
    if not module.name.endswith("__main__")
)
EXTRAS = {
    "neuro_latent_client.integrations.langchain": "langchain_core",
    "neuro_latent_client.integrations.dspy": "dspy",
    "neuro_latent_client.integrations.litellm": "litellm",
}


@pytest.fixture
def server():
    answers = {"Create a function": "In Python."}
    return FakeServer(answers, adapters={"default": "fake-1", "team": "fake-2"})


@pytest.fixture
def names(server):
    """What the examples take for granted: clients, and a server at every address."""
    return {
        "asyncio": asyncio,
        "client": server.client(),
        "async_client": server.async_client(),
        "Client": lambda url, **settings: server.client(url=url, **settings),
        "AsyncClient": lambda url, **settings: server.async_client(url=url, **settings),
    }


@pytest.mark.filterwarnings("ignore")  # of the libraries that the extras import
@pytest.mark.parametrize("name", ["neuro_latent_client", *MODULES])
def test_examples_in_docstrings(name, names):
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name])
    module = importlib.import_module(name)
    results = doctest.testmod(module, extraglobs=names)
    assert results.failed == 0


def test_every_public_method_of_the_client_has_an_example():
    documented = [neuro_latent_client.Client, neuro_latent_client.AsyncClient, neuro_latent_client.OptimizationStream]
    methods = ["optimize", "optimize_many", "stream", "feedback", "health", "models", "adapters"]
    documented += [getattr(neuro_latent_client.Client, name) for name in methods]
    assert all(">>>" in thing.__doc__ for thing in documented)
    assert all(hasattr(neuro_latent_client.AsyncClient, name) for name in methods)


@pytest.mark.parametrize("page", ["client/README.md", "docs/answers.md"])
def test_a_pages_python_runs(names, monkeypatch, page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    monkeypatch.setattr(neuro_latent_client, "Client", names["Client"])
    monkeypatch.setattr(neuro_latent_client, "AsyncClient", names["AsyncClient"])
    for block in blocks:
        exec(block, {})


def test_a_program_with_every_method_runs(server):
    with server.client() as client:
        user_program.use(client)
    asyncio.run(user_program.use_async(server.async_client()))
    assert {request.model for request in server.requests} == set(server.models)


def test_a_program_with_every_method_is_well_typed(tmp_path):
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), user_program.__file__]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_page_of_answers_names_all_there_is():
    page = (ROOT / "docs" / "answers.md").read_text()
    assert all(f"| `{reason}` |" in page for reason in protocol.FINISH_REASONS)
    assert all(f"`{name}`" in page for name in protocol.OUTPUT_TYPES.keys() - {"adapter_version"})
