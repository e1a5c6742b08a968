"""The client inside LangChain and DSPy, with the real libraries where they are installed."""

import asyncio

import pytest

from neuro_latent_client import InvalidRequestError
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
