"""docs/gateways.md: every block is run against the real packages, in front of a real upstream."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from neuro_latent_core.command_line import program
from tests.unit.client.fake_triton import GrpcServicer, Script
from tests.unit.serving.gateway.conftest import Start
from tests.unit.serving.gateway.upstream import Upstream, running

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
TEXT = (ROOT / "docs" / "gateways.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^## (?P<title>.+?)\n|^```(?P<language>\w+)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


def blocks() -> Iterator[tuple[str, str, str]]:
    """Heading, language and code of every block."""
    title = ""
    for found in BLOCK.finditer(TEXT):
        if found["title"]:
            title = found["title"]
        else:
            yield title, found["language"], found["code"]


PROGRAMS = [(title, code) for title, language, code in blocks() if language == "python"]


@pytest.fixture
def triton_url() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(GrpcServicer(Script()), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize(("title", "code"), PROGRAMS, ids=[f"{i} {title}" for i, (title, _) in enumerate(PROGRAMS)])
def test_a_program_prints_the_better_prompt(title: str, code: str, start: Start, triton_url: str) -> None:
    if title == "DSPy":
        pytest.importorskip("dspy")
    with running(Upstream()) as upstream:
        rest = start(upstream=upstream.url)
        here = code.replace("http://127.0.0.1:8080", str(rest.base_url).rstrip("/"))
        here = here.replace("grpc://127.0.0.1:8001", triton_url)
        assert here != code
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", here], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "In Python." in done.stdout or "Well: 0" in done.stdout


def test_the_shell_blocks_name_real_options() -> None:
    shell = "".join(code for _, language, code in blocks() if language == "sh")
    wide = {**os.environ, "COLUMNS": "200"}
    for command in ("serve", "gateway"):
        options = set(re.findall(rf"neuro-latent {command} .*?(--[\w-]+)", shell)) | {"--upstream"}
        shown = subprocess.run([*program(), command, "--help"], capture_output=True, text=True, timeout=120, env=wide)
        assert all(option in shown.stdout for option in options)


def test_rest_and_mcp(start: Start) -> None:
    (command,) = [code for title, language, code in blocks() if title == "REST" and language == "sh"]
    rest = start()
    here = command.replace("127.0.0.1:8080", f"127.0.0.1:{rest.base_url.port}")
    done = subprocess.run(["bash", "-c", here], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["enhanced_prompt"] == "Create a function\n\nIn Python."
    (settings,) = [json.loads(code) for _, language, code in blocks() if language == "json"]
    found = settings["mcpServers"]["neuro-latent"]
    assert found["args"][0] == "mcp"  # which tests/unit/client/test_mcp.py starts as a client would
