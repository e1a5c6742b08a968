"""The client inside LangChain and DSPy, with the real libraries where they are installed."""

import asyncio
import copy

import pytest

from neuro_latent_client import AsyncClient, Client, InvalidRequestError
from neuro_latent_client.testing import FakeServer

ANSWERS = {"Create a function": "In Python."}
ANSWERED = ["a\n\nSay for whom it is.", "b\n\nSay for whom it is."]

pytestmark = pytest.mark.filterwarnings("ignore")  # what the libraries warn of is not ours


@pytest.fixture
def server():
    return FakeServer(ANSWERS)


@pytest.fixture
def langchain():
    pytest.importorskip("langchain_core")
    from neuro_latent_client.integrations import langchain

    return langchain


@pytest.fixture
def dspy():
    pytest.importorskip("dspy")
    from neuro_latent_client.integrations import dspy

    return dspy


def test_a_langchain_chain(langchain, server):
    from langchain_core.prompts import PromptTemplate

    step = langchain.PromptOptimizer(server.client(), options={"seed": 7})
    chain = PromptTemplate.from_template("Create a {thing}") | step.bind(max_length=9) | str.upper
    assert chain.invoke({"thing": "function"}) == "CREATE A FUNCTION\n\nIN PYTHON."
    inputs = server.requests[0].inputs
    assert (inputs["seed"], inputs["max_length"]) == (7, 9)
    assert step.batch(["a", "b"]) == ANSWERED
    assert list(step.stream("a")) == ANSWERED[:1]


def test_a_langchain_step_with_the_whole_answer(langchain, server):
    step = langchain.PromptOptimizer(server.client(), server.async_client(), {"min_confidence": 0.5})
    assert step.answers.invoke("Create a function").added == "In Python."
    answer = asyncio.run(step.answers.ainvoke("a", min_confidence=1))
    assert (answer.unchanged, answer.reason) == (True, "not sure enough")
    assert [request.inputs["min_confidence"] for request in server.requests] == [0.5, 1]


def chat(*messages):
    from langchain_core.prompts import ChatPromptTemplate

    return ChatPromptTemplate.from_messages([*messages]).invoke({"x": "function"})


HUMAN = ("human", "Create a {x}")
BETTER = "Create a function\n\nIn Python."
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], []),
        ([("system", "You are helpful.")], []),
        ([("system", "Be brief."), ("human", [PICTURE]), ("ai", "A cat.")], []),
        ([("human", "hello"), ("ai", "Hi.")], [("ai", "Which language?")]),
    ],
)
def test_only_the_last_human_message_is_changed(langchain, server, asynchronous, before, after):
    step = langchain.PromptOptimizer(server.client(), server.async_client())
    given = chat(*before, HUMAN, *after)
    found = asyncio.run(step.ainvoke(given)) if asynchronous else step.invoke(given)
    assert server.requests[0].inputs["raw_prompt"] == "Create a function"
    if not before:
        assert found == BETTER
        return
    messages, place = found.to_messages(), len(before)
    assert messages[place].content == BETTER
    assert messages[:place] + messages[place + 1 :] == [
        m for m in given.to_messages() if m is not given.messages[place]
    ]
    assert step.invoke(given.to_messages()) == messages
    assert given.messages[place].content == "Create a function"


def test_text_in_parts_is_one_text(langchain, server):
    given = chat(("human", [{"type": "text", "text": "Create "}, {"type": "text", "text": "a {x}"}]))
    assert langchain.PromptOptimizer(server.client()).invoke(given) == BETTER


@pytest.mark.parametrize(
    "messages",
    [
        [("human", [{"type": "text", "text": "What is this?"}, PICTURE])],
        [("system", "x"), ("human", [PICTURE])],
        [("system", "only this")],
        [("human", "hello"), ("ai", "Hi."), ("human", [PICTURE, {"type": "text", "text": "this"}])],
    ],
)
def test_messages_without_a_human_text_are_refused(langchain, server, messages):
    with pytest.raises(InvalidRequestError, match="raw_prompt: "):
        langchain.PromptOptimizer(server.client()).invoke(chat(*messages))
    assert server.requests == []


def test_a_langchain_failure_is_the_clients(langchain, server):
    server.fail("invalid", "seed: no")
    with pytest.raises(InvalidRequestError, match="seed: no"):
        langchain.PromptOptimizer(server.client()).invoke("a")


def test_langchain_without_threads(langchain, server):
    async def main(async_client):
        step = langchain.PromptOptimizer(server.client(), async_client)
        return await step.abatch(["a", "b"])

    assert asyncio.run(main(server.async_client())) == ANSWERED
    assert asyncio.run(main(None)) == ANSWERED


def test_a_dspy_module(dspy, server):
    step = dspy.PromptOptimizer(server.client(), server.async_client(), {"seed": 7})
    prediction = step(raw_prompt="Create a function")
    assert (prediction.enhanced_prompt, prediction.added) == ("Create a function\n\nIn Python.", "In Python.")
    assert (prediction.unchanged, prediction.finish_reason, prediction.reason) == (False, "stop", "")
    assert prediction.request_id == server.requests[0].request_id
    assert server.requests[0].inputs["seed"] == 7
    assert asyncio.run(step.acall(raw_prompt="a")).enhanced_prompt == ANSWERED[0]


def test_a_dspy_program(dspy, server):
    import dspy as library

    class Program(library.Module):
        def __init__(self):
            super().__init__()
            self.improve = dspy.PromptOptimizer(server.client())

        def forward(self, raw_prompt):
            return library.Prediction(text=self.improve(raw_prompt=raw_prompt).enhanced_prompt.upper())

    assert Program()(raw_prompt="a").text == "A\n\nSAY FOR WHOM IT IS."
    assert dspy.PromptOptimizer(server.client()).named_predictors() == []
    with pytest.raises(TypeError, match="async_client"):
        asyncio.run(dspy.PromptOptimizer(server.client()).acall(raw_prompt="a"))


@pytest.mark.parametrize("options", [{}, {"seed": 7}])
def test_a_dspy_program_can_be_copied_and_saved(dspy, url, tmp_path, options):
    import dspy as library

    step = dspy.PromptOptimizer(Client(url, api_key="SECRET-key"), AsyncClient(url, api_key="SECRET-key"), options)
    for copied in (copy.deepcopy(step), step.deepcopy(), copy.copy(step)):
        assert copied(raw_prompt="x").enhanced_prompt == "x\n\nWell: 0"
    step.save(str(tmp_path / "program"), save_program=True)
    loaded = library.load(str(tmp_path / "program"), allow_pickle=True)
    assert loaded(raw_prompt="x").enhanced_prompt == "x\n\nWell: 0"
    assert loaded.options == options
    for file in (tmp_path / "program").iterdir():
        assert b"SECRET" not in file.read_bytes()
