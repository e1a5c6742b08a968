"""Where the user's last text stands in a request of OpenAI's API, and when nothing is added to it."""

import asyncio

import pytest

from neuro_latent_client.chat import ChatOptimizer
from neuro_latent_client.testing import FakeServer

RAW = "Create a function"


def improve(body, switch="", **limits):
    server = FakeServer({RAW: "In Python."})
    return asyncio.run(ChatOptimizer(server.async_client(), **limits).improve(body, switch)).word


def chat(*texts, role="user"):
    """Texts of a user and an assistant in turn; ``role`` is the last one's."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    messages[-1]["role"] = role
    return {"messages": messages}


@pytest.mark.parametrize("body", [None, 7, "text", [], {"messages": [1]}, {"input": 7}, {"messages": {}}])
def test_odd_bodies_are_left_alone(body):
    before = repr(body)
    assert improve(body) in ("no object", "no messages")
    assert repr(body) == before


@pytest.mark.parametrize(
    ("word", "body", "limits"),
    [
        ("added", chat(RAW), {}),
        ("added", {"input": RAW}, {}),
        ("added", {"input": [{"role": "user", "content": [{"type": "input_text", "text": RAW}]}]}, {}),
        ("added", chat("Hello", "Hi", RAW), {"every_turn": True}),
        ("shadow", chat(RAW), {"shadow": True}),
        ("a later turn", chat("Hello", "Hi", RAW), {}),
        ("a later turn", {"input": RAW, "previous_response_id": "r1"}, {}),
        ("not the user's turn", chat(RAW, role="tool"), {}),
        ("blank", chat("  "), {}),
        ("long", chat(RAW), {"longest": 5}),
        ("code", chat(f"{RAW}\n```\nx\n```"), {}),
        ("no text", chat(None), {}),
        ("several texts", chat([{"type": "text", "text": RAW}] * 2), {}),
    ],
)
def test_what_becomes_of_a_request(word, body, limits):
    before = repr(body)
    assert improve(body, **limits) == word
    assert (repr(body) != before) == (word == "added")


def test_the_switch():
    assert [improve(chat(RAW), said) for said in ("OFF ", "done", "on")] == ["off", "done", "added"]
