"""A tritonserver that is a small script, in the layout of a full installation (bin/ and backends/)."""

import json
import sys
import tempfile
from pathlib import Path

import pytest

from neuro_latent_core.repository import FORMAT

FAKE_SERVER = """#!{python}
import http.server, json, os, signal, socketserver, subprocess, sys, time

options = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:])
fake = options.get("fake", "")
prefix = [word for word in sys.argv if "shm-region-prefix-name" in word][0].rpartition("=")[2]
open(f"/dev/shm/{{prefix}}region", "w").close()
with open({record!r}, "w") as record:
    json.dump({{"arguments": sys.argv[1:], "environment": dict(os.environ), "pid": os.getpid()}}, record)
if os.path.exists({record!r} + ".fail"):
    sys.exit(1)
if fake == "exit":
    print('E1122 17:45:38.199336 1 server.cc:241] "CudaDriverHelper has not been initialized."')
    print('''E1122 17:45:38.590178 1 m.cc:642] "failed to load 'echo' version 1: Internal: no such file: model.onnx"''')
    print("error: creating server: Internal - failed to load all models", flush=True)
    sys.exit(1)
if fake == "child":
    # Its last word is what Triton calls the instance of a model.
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)", "echo_0_0"], start_new_session=True)
    with open({record!r} + ".child", "w") as record:
        record.write(str(child.pid))
signal.signal(signal.SIGTERM, signal.SIG_IGN if fake == "stubborn" else lambda *_: os._exit(0))
if fake == "stubborn":
    print("I am stubborn", flush=True)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = fake != "never-ready" and not (fake == "half-ready" and "models" in self.path)
        self.answer(200 if ready else 400, {{"name": "triton", "version": "9.9.9"}})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, [{{"name": "echo", "version": "1", "state": "READY"}}])

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        return self.socket.accept()[0], ("triton", 0)

Server(options["http-address"].removeprefix("unix:"), Handler).serve_forever()
"""


class FakeServer:
    """The script, and what it was started with."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "triton" / "bin" / "tritonserver"
        self._record = folder / "started.json"
        self.program.parent.mkdir(parents=True)
        (folder / "triton" / "backends").mkdir()
        self.program.write_text(FAKE_SERVER.format(python=sys.executable, record=str(self._record)))
        self.program.chmod(0o755)

    @property
    def started(self) -> dict:
        return json.loads(self._record.read_text())

    @property
    def fails(self) -> Path:
        """While this file is there, it ends at once."""
        return self._record.with_name("started.json.fail")

    @property
    def child(self) -> int:
        return int(self._record.with_name("started.json.child").read_text())


@pytest.fixture
def fake_server(tmp_path: Path) -> FakeServer:
    return FakeServer(tmp_path)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One model and a manifest of its one artefact."""
    folder = tmp_path / "repo"
    (folder / "echo" / "1").mkdir(parents=True)
    (folder / "echo" / "config.pbtxt").write_text('name: "echo"')
    (folder / "echo" / "1" / "model.onnx").write_bytes(b"onnx")
    manifest = {
        "format": FORMAT,
        "artifacts": {
            "echo/1/model.onnx": {
                "sha256": "87e93f89f2be0db364e8be052f79f389e6c2da239831922e24513288af522a43",
                "bytes": 4,
            }
        },
        "adapter": {"sha256": "of another adapter"},
        "model_version": "v1",
        "created": "2026-01-01T00:00:00Z",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(autouse=True)
def run_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run folders are made here, so that a test sees whether one is left."""
    root = tmp_path / "run-root"
    root.mkdir()
    monkeypatch.setenv("TMPDIR", str(root))
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    return root
