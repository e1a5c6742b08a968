"""docs/gateways.md: every block is run against the real packages, in front of a real upstream."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import httpx2
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


PYTHON = [(title, code) for title, language, code in blocks() if language == "python"]
PROGRAMS = [(title, code) for title, code in PYTHON if "print(" in code]
PARTS = {title: code for title, code in PYTHON if "print(" not in code}
"""Code for the inside of another program."""


BETTER = "Create a function\n\nWell: 0"
"""What the stand-in for Triton makes of that prompt."""


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


def test_the_proxy_of_litellm_makes_prompts_better(tmp_path: Path, triton_url: str) -> None:
    """The real proxy, from its settings in the document."""
    needs = Path(sys.prefix) / "litellm-proxy"
    if not needs.exists():
        pytest.skip("what LiteLLM's proxy needs is not installed: make install")
    (settings,) = [code for _, language, code in blocks() if language == "yaml"]
    (tmp_path / "hook.py").write_text(PARTS["LiteLLM"].replace("grpc://127.0.0.1:8001", triton_url))
    with running(Upstream()) as upstream, socket.create_server(("127.0.0.1", 0)) as free:
        own = f'api_key: none, api_base: "{upstream.url}"'
        (tmp_path / "config.yaml").write_text(settings.replace("api_key: os.environ/OPENAI_API_KEY", own))
        port = free.getsockname()[1]
        free.close()
        env = {**os.environ, "PYTHONPATH": f"{needs}:{os.environ.get('PYTHONPATH', '')}"}
        env |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*", "PYTHONWARNINGS": "ignore"}
        command = [Path(sys.executable).with_name("litellm"), "--config", "config.yaml", "--telemetry", "False"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        with (
            (tmp_path / "log").open("w") as log,
            subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log) as proxy,
            httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as rest,
        ):
            try:
                wait_for(rest, "/health/liveliness")
                body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Create a function"}]}
                added = rest.post("/v1/chat/completions", json=body)
                assert (added.status_code, added.headers["x-neuro-latent"]) == (200, "added"), added.text
                assert upstream.last_text == BETTER
                assert upstream.headers[-1]["x-neuro-latent"] == "done"
                left = rest.post("/v1/chat/completions", json=body, headers={"x-neuro-latent": "off"})
                assert (left.headers["x-neuro-latent"], upstream.last_text) == ("off", "Create a function")
                rest.post("/v1/embeddings", json={"model": "gpt-5-mini", "input": "Create a function"})
                assert upstream.bodies[-1]["input"] == "Create a function"
            finally:
                proxy.terminate()


def wait_for(rest: httpx2.Client, path: str) -> None:
    """Until a server answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            rest.get(path)
        except httpx2.TransportError:
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.2)
        else:
            return


def test_the_filter_of_open_webui(triton_url: str) -> None:
    """Loaded and called as Open WebUI does: code in a module, settings before each call, keywords of the signature."""
    module: dict[str, Any] = {}
    exec(PARTS["Open WebUI"], module)
    found = module["Filter"]()
    shown: list[Any] = []

    async def emit(event: Any) -> None:
        shown.append(event)

    def chat(text: str) -> dict[str, Any]:
        return {"model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": text}]}

    async def use() -> None:
        for url, expected in (
            (triton_url, BETTER),
            ("grpc://127.0.0.1:1", "Create a function"),
        ):
            found.valves = found.Valves(url=url, seconds=5)
            body = await found.inlet(body=chat("Create a function"), __event_emitter__=emit)
            assert body == chat(expected)

    asyncio.run(use())
    assert found.toggle
    assert [event["data"]["description"] for event in shown] == ["Added to your prompt: Well: 0"]


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
