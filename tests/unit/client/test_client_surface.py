"""The public names, the addresses, and what an import costs."""

import dataclasses
import subprocess
import sys
from types import SimpleNamespace

import grpc
import pytest
from tritonclient.grpc import service_pb2

import neuro_latent_client
from neuro_latent_client import (
    AccessDeniedError,
    Client,
    InvalidRequestError,
    NeuroLatentError,
    Piece,
    ServerError,
    ServerUnavailableError,
    triton_pb2,
)
from neuro_latent_client._endpoint import parse_url
from neuro_latent_client._failures import Failures
from neuro_latent_client.testing import FakeServer
from neuro_latent_client.transports.grpc import error_of


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
        "ServedAdapter",
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
    "name",
    ["Feedback", "GeneratedSequence", "Health", "Optimization", "Piece", "Progress", "ServedAdapter", "TlsConfig"],
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
        "from typer.testing import CliRunner; from neuro_latent_core.cli import app;"
        " assert CliRunner().invoke(app, ['--help']).exit_code == 0",
        "from neuro_latent_client import Client; Client('grpc://127.0.0.1:1').close(); Client('http://[::1]:1').close()",
    ],
)
def test_no_model_framework_is_imported(code):
    heavy = "{'torch', 'onnxruntime', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", f"import sys; {code}; assert not {heavy}, {heavy}"], check=True)


def test_the_grpc_messages_are_tritons():
    for name, ours in triton_pb2.DESCRIPTOR.message_types_by_name.items():
        check_fields(ours, service_pb2.DESCRIPTOR.message_types_by_name[name])


def check_fields(ours, theirs):
    for field in ours.fields:
        same = theirs.fields_by_name[field.name]
        for fact in ("number", "type", "is_repeated"):
            assert getattr(field, fact) == getattr(same, fact), field.full_name
        if field.message_type:
            check_fields(field.message_type, same.message_type)


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "no", AccessDeniedError),
        (grpc.StatusCode.UNAVAILABLE, "This protocol is restricted, expecting header 'x'", AccessDeniedError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "no", ServerUnavailableError),
        (grpc.StatusCode.UNKNOWN, "", ServerError),
    ],
)
def test_what_a_grpc_status_means(code, text, expected):
    error = SimpleNamespace(code=lambda: code, details=lambda: text)
    assert type(error_of(error, Failures("grpc://here", 1.0))) is expected


def test_a_program_may_load_tritonclient_too():
    code = "import tritonclient.grpc, neuro_latent_client.transports.grpc"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_current_trace_is_passed_on():
    trace = pytest.importorskip("opentelemetry.trace")
    context = trace.SpanContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0xF067AA0BA902B7, False, trace.TraceFlags(1))
    server = FakeServer()
    with server.client() as client, trace.use_span(trace.NonRecordingSpan(context)):
        client.optimize("x")
    assert server.requests[0].headers["traceparent"] == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"headers": {"a b": "x"}}, "headers: 'a b' is not a name"),
        ({"headers": {"a": "x\ny"}}, "headers: 'a' is not a name, or its value"),
        ({"api_key": "schlüssel"}, "headers: 'authorization'"),
        ({"api_key": "x", "headers": {"Authorization": "y"}}, "given twice"),
        ({"retries": -1}, "retries: -1 is below 0"),
        ({"retries": 1.5}, "retries: must be int"),
    ],
)
def test_a_bad_setting_is_named_without_its_secret(settings, words):
    with pytest.raises(InvalidRequestError, match=words) as caught:
        Client(**settings)
    assert "schl" not in str(caught.value)
