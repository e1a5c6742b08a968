"""TLS and mutual TLS, with certificates made here."""

import codecs
import shutil
import ssl
import subprocess
import threading
from concurrent import futures
from functools import partial
from http.server import ThreadingHTTPServer

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from neuro_latent_client import AsyncClient, Client, InvalidRequestError, ServerUnavailableError, TlsConfig
from neuro_latent_client._failures import Failures
from neuro_latent_client.transports.http import network
from tests.unit.client.blocking import BlockingClient
from tests.unit.client.fake_triton import GrpcServicer, HttpHandler


@pytest.fixture(scope="session")
def pem(tmp_path_factory):
    """A folder with an authority and what it signed: server and client."""
    if not shutil.which("openssl"):
        pytest.skip("needs the command openssl")
    folder = tmp_path_factory.mktemp("pem")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    openssl(*new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-addext", "keyUsage=critical,keyCertSign")
    for name in ("server", "client"):
        names = [
            "-subj",
            f"/CN={name}",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=CA:FALSE",
        ]
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-CA", "ca.pem", "-CAkey", "ca.key", *names)
    return folder


@pytest.fixture
def grpcs_url(script, pem):
    pair = ((pem / "server.key").read_bytes(), (pem / "server.pem").read_bytes())
    credentials = grpc.ssl_server_credentials([pair], (pem / "ca.pem").read_bytes(), require_client_auth=True)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(GrpcServicer(script), server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"grpcs://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def https_url(script, pem):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem / "server.pem", pem / "server.key")
    context.load_verify_locations(pem / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HttpHandler,), {"script": script}))
    server.handle_error = lambda *args: None
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["grpcs", "https"])
def tls_url(request):
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(params=["sync", "async"])
def make(request):
    return Client if request.param == "sync" else partial(BlockingClient, AsyncClient)


def test_mutual_tls(make, tls_url, pem):
    tls = TlsConfig(ca=pem / "ca.pem", certificate=pem / "client.pem", key=pem / "client.key")
    with make(tls_url, tls=tls) as client:
        assert client.optimize("x").text == "x\n\nWell: 0"


def test_a_byte_order_mark_in_a_pem_file_is_skipped(make, tls_url, pem, tmp_path):
    files = {"ca": "ca.pem", "certificate": "client.pem", "key": "client.key"}
    for file in files.values():
        (tmp_path / file).write_bytes(codecs.BOM_UTF8 + (pem / file).read_bytes())
    with make(tls_url, tls=TlsConfig(**{name: tmp_path / file for name, file in files.items()})) as client:
        assert client.optimize("x").text == "x\n\nWell: 0"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("files", [{}, {"ca": "ca.pem"}, {"certificate": "client.pem", "key": "client.key"}])
def test_who_is_not_trusted_gets_nothing(make, tls_url, pem, files, script):
    tls = TlsConfig(**{name: pem / file for name, file in files.items()})
    with make(tls_url, tls=tls, retries=0) as client, pytest.raises(ServerUnavailableError):
        client.optimize("x", timeout=5)
    assert script.requests == []


def test_an_alert_after_the_handshake_is_a_server_that_cannot_be_reached():
    """TLS 1.3 servers refuse a certificate late, in the first read; whether it is read there is a matter of timing."""
    with pytest.raises(ServerUnavailableError, match="certificate required"), network(Failures("https://x", 1.0, "m")):
        raise ssl.SSLError(1, "tlsv13 alert certificate required")


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("url", ["grpcs://127.0.0.1:1", "https://127.0.0.1:1"])
def test_files_that_cannot_be_used_are_named(client, url, tmp_path):
    path = tmp_path / "ca.pem"
    with pytest.raises(InvalidRequestError, match="tls: ca cannot be read"):
        client(url, tls=TlsConfig(ca=path))
    path.write_text("no certificate")
    with pytest.raises(InvalidRequestError, match="a PEM file cannot be used"):
        client(url, tls=TlsConfig(ca=path))


def test_half_a_certificate_is_refused():
    with pytest.raises(InvalidRequestError, match="certificate and key are needed together"):
        TlsConfig(certificate="client.pem")


def test_tls_needs_an_encrypted_url():
    with pytest.raises(InvalidRequestError, match="write grpcs://"):
        Client("grpc://127.0.0.1", tls=TlsConfig())
