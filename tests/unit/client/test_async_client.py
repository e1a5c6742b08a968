"""What only the asynchronous client can do: be cancelled."""

import asyncio
import copy
import gc
import pickle
import time
from functools import partial

import anyio
import pytest

from neuro_latent_client import AsyncClient, Client, InvalidRequestError, ModelNotFoundError
from tests.unit.client.blocking import BlockingClient

pytestmark = pytest.mark.slow


@pytest.fixture
def async_client(transport, script, request):
    """Makes an AsyncClient; it must be used in the event loop of the test."""
    if transport == "fake":
        return script.async_client
    return lambda: AsyncClient(request.getfixturevalue(f"{transport}_url"))


async def optimize(client):
    await client.optimize("x")


async def stream(client):
    async with client.stream("x") as pieces:
        async for _piece in pieces:
            pass


async def until(condition, seconds=2.0):
    limit = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < limit
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("ask", [optimize, stream])
def test_a_cancelled_task_cancels_its_request(async_client, script, make_response, ask):
    script.delay_s = 0.5
    script.responses = [make_response("word ")] * 10

    async def main():
        async with async_client() as client:
            task = asyncio.create_task(ask(client))
            await until(lambda: script.requests)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: script.cancelled)

    asyncio.run(main())
    assert script.cancelled == {script.requests[0].request_id}
    assert script.hung_up == []  # the stream ended by itself: its call was not cancelled


@pytest.mark.parametrize("ask", [optimize, stream])
def test_a_scope_that_cancels_again_and_again_does_so_too(async_client, script, make_response, ask):
    """As web frameworks do: anyio's scopes cancel every await of what clears up."""
    script.delay_s = 0.3
    script.responses = [make_response("word ")] * 10

    async def main():
        async with async_client() as client:
            async with anyio.create_task_group() as group:
                group.start_soon(ask, client)
                await until(lambda: script.requests)
                group.cancel_scope.cancel()
            await until(lambda: script.cancelled)

    asyncio.run(main())
    assert script.hung_up == []


def test_many_that_are_cancelled_stop_together(async_client, script):
    script.delay_s = 0.5

    async def main():
        async with async_client() as client:
            task = asyncio.create_task(client.optimize_many(["x"] * 20, concurrency=4))
            await until(lambda: len(script.requests) == 4)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: len(script.cancelled) == 4)

    asyncio.run(main())
    assert len(script.requests) == 4


@pytest.mark.parametrize("transport", ["grpc", "http", "fake"], indirect=True)
def test_streams_left_early_are_not_cancelled_as_calls(async_client, script, make_response):
    script.delay_s = 0.02
    script.responses = [make_response("word ")] * 200

    async def leave_early(client):
        async with client.stream("x") as pieces:
            async for _piece in pieces:
                return

    async def main():
        async with async_client() as client:
            await asyncio.gather(*(leave_early(client) for _ in range(5)))

    start = time.perf_counter()
    asyncio.run(main())
    assert time.perf_counter() - start < 1.5
    assert len(script.cancelled) == 5
    assert script.hung_up == []


def test_a_stream_that_does_not_end_is_cancelled_after_a_while(grpc_url, script, make_response, monkeypatch):
    monkeypatch.setattr("neuro_latent_client.transports.grpc.END_S", 0.1)
    monkeypatch.setattr(script, "cancel", lambda request_id: None)  # a server that does not listen
    script.delay_s = 0.05
    script.responses = [make_response("word ")] * 100

    async def main():
        async with AsyncClient(grpc_url) as client, client.stream("x") as pieces:
            await anext(pieces)
        await until(lambda: script.hung_up)

    start = time.perf_counter()
    asyncio.run(main())
    assert time.perf_counter() - start < 1.5
    assert script.hung_up == [script.requests[0].request_id]


def test_the_loop_is_free_while_it_waits(async_client, script):
    script.delay_s = 0.1

    async def main():
        async with async_client() as client:
            start = time.perf_counter()
            await asyncio.gather(*(client.optimize("x") for _ in range(6)))
            return time.perf_counter() - start

    assert asyncio.run(main()) < 0.4


# Nobody can close the connections of a loop that has ended: they go with their last reference, and warn.
SOCKETS_OF_A_LOOP = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)


@pytest.fixture
def collected():
    yield
    gc.collect()


@SOCKETS_OF_A_LOOP
def test_a_second_event_loop(url, collected):
    client = AsyncClient(url)

    async def ask():
        answer = await client.optimize("x")
        async with client.stream("x") as stream:
            async for _ in stream:
                pass
        return answer.text

    assert [asyncio.run(ask()) for _ in range(3)] == ["x\n\nWell: 0"] * 3
    asyncio.run(client.close())


@SOCKETS_OF_A_LOOP
def test_a_client_closed_in_another_event_loop(url, collected):
    client = AsyncClient(url)
    asyncio.run(client.health())
    asyncio.run(client.close())
    with pytest.raises(RuntimeError, match="the client is closed"):
        asyncio.run(client.optimize("x"))


async def text_of(stream):
    return "".join([piece.text async for piece in stream])


@SOCKETS_OF_A_LOOP
def test_a_stream_belongs_to_the_event_loop_it_is_first_iterated_in(async_client, collected):
    client = async_client()
    made_before, left, closed = (client.stream("x") for _ in range(3))
    for ask in (client.optimize, lambda prompt: text_of(client.stream(prompt))):
        asyncio.run(ask("x"))
    assert asyncio.run(text_of(made_before)) == made_before.result.text == "Write a\u2028test."
    asyncio.run(anext(left))
    with pytest.raises(InvalidRequestError, match="the stream began in another event loop"):
        asyncio.run(text_of(left))
    asyncio.run(closed.close())
    assert asyncio.run(text_of(closed)) == ""
    asyncio.run(client.close())


@SOCKETS_OF_A_LOOP
@pytest.mark.parametrize("ask", [optimize, stream])
def test_a_client_whose_stream_was_made_outside_goes_on_in_another_event_loop(async_client, collected, ask):
    client = async_client()
    first = client.stream("x")
    asyncio.run(text_of(first))
    asyncio.run(ask(client))
    asyncio.run(client.close())


@SOCKETS_OF_A_LOOP
def test_two_event_loops_at_a_time_are_refused(url, collected):
    client, first = AsyncClient(url), asyncio.new_event_loop()
    first.run_until_complete(client.optimize("x"))
    with pytest.raises(InvalidRequestError, match="make one for each loop"):
        asyncio.run(client.optimize("x"))
    first.run_until_complete(client.close())
    first.close()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_copy_keeps_all_settings_and_a_pickle_no_secret(url, kind):
    client = kind(url, timeout=7, retries=1, api_key="SECRET-key", headers={"x-team": "SECRET-team"})
    assert repr(copy.deepcopy(client)) == repr(copy.copy(client)) == repr(client)
    assert copy.deepcopy(client)._settings == client._settings
    assert copy.deepcopy(client)._transport is not client._transport
    pickled = pickle.dumps(client)
    assert b"SECRET" not in pickled
    assert repr(pickle.loads(pickled)) == repr(kind(url, timeout=7, retries=1))


@pytest.mark.parametrize("how", ["optimize", "stream", "health"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_other_protocols_port_is_named(grpc_url, http_url, kind, how):
    make = Client if kind == "sync" else partial(BlockingClient, AsyncClient)
    for url, found in (
        (grpc_url.replace("grpc", "http"), "does not speak HTTP; it seems to be a gRPC port"),
        (http_url.replace("http", "grpc"), "does not speak gRPC; it seems to be an HTTP port"),
    ):
        with make(url, timeout=10) as client:
            if how == "health":
                assert found in client.health().problem
                continue
            with pytest.raises(ModelNotFoundError, match=found):
                client.optimize("x") if how == "optimize" else list(client.stream("x"))
