"""The server of the Model Context Protocol, asked by the official client over stdin and stdout, and over HTTP."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from neuro_latent_core.command_line import program
from tests.unit.client.fake_triton import Script

mcp = pytest.importorskip("mcp")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # what the library warns of is not ours

RAW = "Create a function"


@pytest.fixture(params=["stdio", "http"])
def place(request: pytest.FixtureRequest, grpc_url: str) -> Iterator[Any]:
    """What the official client is told of the running command."""
    command = [*program(), "mcp", "--url", grpc_url]
    if request.param == "stdio":
        yield mcp.StdioServerParameters(command=command[0], args=command[1:])
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([*command, "--http-port", str(port)], stderr=subprocess.PIPE) as server:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
        server.terminate()


@pytest.fixture
def with_client(place: Any) -> Callable[[Callable[[Any], Coroutine[Any, Any, Any]]], Any]:
    def run(work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            async with mcp.Client(place, read_timeout_seconds=30) as client:
                return await work(client)

        return asyncio.run(main())

    return run


def test_the_tools_work(with_client: Any, script: Script) -> None:
    async def work(client: Any) -> Any:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"optimize", "feedback"}
        assert tools["optimize"].input_schema["required"] == ["raw_prompt"]
        better = (await client.call_tool("optimize", {"raw_prompt": RAW, "max_length": 50})).structured_content
        rated = await client.call_tool(
            "feedback",
            {
                **{"request_id": better["request_id"], "raw_prompt": RAW, "enhanced_prompt": better["enhanced_prompt"]},
                **{"rating": 1, "comment": "good"},
            },
        )
        return better, rated.structured_content

    better, rated = with_client(work)
    assert (better["enhanced_prompt"], better["added"], better["reason"]) == (f"{RAW}\n\nWell: 0", "Well: 0", "")
    assert rated["created"]
    assert script.requests[0].inputs["max_length"] == 50
    assert next(iter(script.feedback.values()))["comment"] == "good"


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("optimize", {}, "raw_prompt"),
        ("optimize", {"raw_prompt": ""}, "raw_prompt"),
        ("optimize", {"raw_prompt": 7}, "raw_prompt"),
        ("optimize", {"raw_prompt": RAW, "max_length": 0}, "max_length"),
        ("optimize", {"raw_prompt": RAW, "adapter": "none"}, "known are default"),
        ("feedback", {"request_id": "r", "raw_prompt": RAW, "enhanced_prompt": RAW, "rating": 3}, "rating"),
    ],
)
def test_wrong_calls_say_what_is_wrong_and_the_next_one_works(
    with_client: Any, tool: str, arguments: dict[str, Any], message: str
) -> None:
    async def work(client: Any) -> Any:
        wrong = await client.call_tool(tool, arguments)
        return wrong, await client.call_tool("optimize", {"raw_prompt": RAW})

    wrong, right = with_client(work)
    assert wrong.is_error
    assert message in wrong.content[0].text
    assert not right.is_error


def test_a_server_that_is_away_is_an_error_of_the_call(with_client: Any, script: Script) -> None:
    async def work(client: Any) -> Any:
        return await client.call_tool("optimize", {"raw_prompt": RAW})

    script.fail("internal", "no such luck", times=9)
    assert with_client(work).is_error
