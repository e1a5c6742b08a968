"""The public names, the addresses, and what an import costs."""

import dataclasses
import subprocess
import sys

import pytest

import neuro_latent_client
from neuro_latent_client import Client, InvalidRequestError, NeuroLatentError, Piece
from neuro_latent_client._endpoint import parse_url


def test_public_names():
    assert neuro_latent_client.__all__ == [
        "AccessDeniedError",
        "AsyncClient",
        "AsyncOptimizationStream",
        "Client",
        "DeadlineError",
        "Feedback",
        "FeedbackDetails",
        "GeneratedSequence",
        "GenerationOptions",
        "Health",
        "InvalidRequestError",
        "ModelNotFoundError",
        "NeuroLatentError",
        "Optimization",
        "OptimizationStream",
        "Piece",
        "Progress",
        "ServedModel",
        "ServerError",
        "ServerUnavailableError",
        "TlsConfig",
    ]
    assert all(hasattr(neuro_latent_client, name) for name in neuro_latent_client.__all__)


def test_every_error_is_in_the_tree_and_in_its_drawing():
    errors = [name for name in neuro_latent_client.__all__ if name.endswith("Error")]
    assert all(issubclass(getattr(neuro_latent_client, name), NeuroLatentError) for name in errors)
    assert all(name in neuro_latent_client.errors.__doc__ for name in errors)
    assert issubclass(neuro_latent_client.InvalidRequestError, ValueError)
    assert issubclass(neuro_latent_client.DeadlineError, TimeoutError)


@pytest.mark.parametrize(
    "name", ["Feedback", "GeneratedSequence", "Health", "Optimization", "Piece", "Progress", "ServedModel", "TlsConfig"]
)
def test_results_are_frozen_and_slotted(name):
    record = getattr(neuro_latent_client, name)
    assert record.__dataclass_params__.frozen
    assert "__slots__" in vars(record)


def test_a_result_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Piece("x", 0).text = "y"


@pytest.mark.parametrize(
    ("url", "netloc", "path", "is_loopback"),
    [
        ("grpc://127.0.0.1", "127.0.0.1:8001", "", True),
        ("grpc://[::1]:9", "[::1]:9", "", True),
        ("grpcs://models.example:443", "models.example:443", "", False),
        ("http://localhost", "localhost:8000", "", True),
        ("https://models.example/triton/", "models.example:443", "/triton", False),
    ],
)
def test_urls_that_are_addresses(url, netloc, path, is_loopback):
    endpoint = parse_url(url)
    assert (endpoint.netloc, endpoint.path, endpoint.is_loopback) == (netloc, path, is_loopback)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8001",
        "127.0.0.1:8001",
        "ftp://localhost",
        "grpc://",
        "grpc://host:port",
        "grpc://host:99999",
        "grpc://host/path",
        "http://host?query",
        "http://user:secret@host",
        "http://[bad",
        None,
    ],
)
def test_a_bad_url_raises(url):
    with pytest.raises(InvalidRequestError, match="url"):
        Client(url)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), "30", None])
def test_a_bad_timeout_raises(timeout):
    with pytest.raises(InvalidRequestError, match="timeout"):
        Client(timeout=timeout)


@pytest.mark.parametrize(
    "code",
    [
        "import neuro_latent_client",
        "from typer.testing import CliRunner; from neuro_latent_client.cli import app;"
        " assert CliRunner().invoke(app, ['--help']).exit_code == 0",
        "from neuro_latent_client import Client; Client('grpc://127.0.0.1:1').close(); Client('http://[::1]:1').close()",
    ],
)
def test_no_model_framework_is_imported(code):
    heavy = "{'torch', 'onnxruntime', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", f"import sys; {code}; assert not {heavy}, {heavy}"], check=True)
