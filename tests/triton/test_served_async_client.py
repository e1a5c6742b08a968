"""The asynchronous client and the real server: it answers alike, and bears tasks that are cancelled at any moment."""

import asyncio
import random

import pytest

from neuro_latent_client import AsyncClient, Client
from neuro_latent_serving.launch import TritonServer
from tests.triton import wire

pytestmark = pytest.mark.server

PROMPT = "Create a function"
CANCELLED = 300


@pytest.fixture(params=["grpc", "http", "rest"])
def url(request: pytest.FixtureRequest) -> str:
    client: Client = request.getfixturevalue(request.param)
    return client.health().url


def test_it_answers_as_the_synchronous_client_does(url: str, prompts: list[str]) -> None:
    async def main() -> tuple[list[str], str]:
        async with AsyncClient(url, timeout=wire.TIMEOUT) as client:
            answers = await client.optimize_many(prompts[:8], max_length=16)
            async with client.stream(prompts[0], max_length=16) as stream:
                assert "".join([piece.text async for piece in stream]) == stream.result.text
            assert (await client.health()).ready
        return [answer.text for answer in answers], stream.result.text  # type: ignore[union-attr]

    many, streamed = asyncio.run(main())
    with Client(url, timeout=wire.TIMEOUT) as client:
        assert many == [client.optimize(prompt, max_length=16).text for prompt in prompts[:8]]
    assert streamed == many[0]


def test_cancelled_tasks_do_not_hurt_the_server(server: TritonServer, url: str) -> None:
    rng = random.Random(0)

    async def ask(client: AsyncClient, number: int) -> None:
        if number % 2:
            await client.optimize(PROMPT, max_length=512)
        async with client.stream(PROMPT, max_length=512) as stream:
            async for _piece in stream:
                pass

    async def leave(client: AsyncClient, number: int, turns: asyncio.Semaphore) -> None:
        async with turns:
            task = asyncio.create_task(ask(client, number))
            await asyncio.sleep(rng.uniform(0, 0.05))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def main() -> None:
        turns = asyncio.Semaphore(8)
        async with AsyncClient(url, timeout=wire.TIMEOUT) as client:
            await asyncio.gather(*(leave(client, number, turns) for number in range(CANCELLED)))
            assert (await client.optimize(PROMPT, max_length=4)).text

    asyncio.run(main())
    server.check()
