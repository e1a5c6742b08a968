"""The fake server left alone, as a user's tests have it."""

import pytest

from neuro_latent_client import InvalidRequestError, Piece, ServerUnavailableError, testing
from neuro_latent_client.testing import FakeServer


def test_answers_are_the_same_every_time():
    server = FakeServer({"a": "b c"}, form="rewrite")
    with server.client() as client:
        first, again = client.optimize("a"), client.optimize("a")
        with client.stream("a", num_return_sequences=2) as stream:
            pieces = list(stream)
    assert (first.text, first.sequences) == ("b c", again.sequences)
    assert pieces == [Piece("b ", 0), Piece("b ", 1), Piece("c", 0), Piece("c", 1)]
    assert [sequence.text for sequence in stream.result.sequences] == ["b c", "b c"]
    assert first.model_version == testing.MODEL_VERSION


def test_a_stream_sends_the_prompt_first():
    with FakeServer({"a": "B."}).client() as client, client.stream("a") as stream:
        assert [piece.text for piece in stream] == ["a", "\n\nB."]
        assert stream.result.sequences == client.optimize("a").sequences
    assert (stream.result.text, stream.result.added, stream.result.score) == ("a\n\nB.", "B.", 0.9)


@pytest.mark.parametrize("form", ["complement", "rewrite"])
@pytest.mark.parametrize("method", ["optimize", "stream"])
def test_nothing_is_changed_without_a_good_text(form, method):
    server = FakeServer({"nothing": ""}, form=form, withheld={"again": "loop"})
    ended = {"again": ("withheld", "loop"), "unsure": ("withheld", "not sure enough")}
    ended["nothing"] = ("unchanged", "") if form == "complement" else ("withheld", "blank")
    with server.client() as client:
        for prompt, (finish_reason, reason) in ended.items():
            confidence = 0.95 if prompt == "unsure" else None
            if method == "optimize":
                answer = client.optimize(prompt, min_confidence=confidence)
            else:
                with client.stream(prompt, min_confidence=confidence) as stream:
                    assert [piece.text for piece in stream] == [prompt]
                answer = stream.result
            assert (answer.text, answer.added, answer.unchanged) == (prompt, "", True)
            assert (answer.finish_reason, answer.reason, answer.score) == (finish_reason, reason, 0.9)


def test_failures_come_in_their_order_and_end():
    server = FakeServer()
    server.fail("busy", "the queue is full", times=2)
    with server.client(retries=0) as client:
        for _ in range(2):
            with pytest.raises(ServerUnavailableError, match="the queue is full"):
                client.optimize("a")
        assert client.optimize("a").added == "Say for whom it is."


def test_what_was_asked_told_and_cancelled_is_recorded():
    server = FakeServer()
    with server.client() as client:
        answer = client.optimize("a", seed=7)
        client.feedback(answer, -1)
        with client.stream("a b c") as stream:
            next(stream)
    assert server.requests[0].inputs["seed"] == 7
    assert server.feedback[answer.request_id]["rating"] == -1
    assert server.cancelled == {stream.request_id}


def test_a_server_that_is_not_ready():
    server = FakeServer(ready=False)
    with server.client() as client:
        assert client.health().problem == "the server is not ready"


def test_adapters_answer_by_their_names():
    server = FakeServer(adapters={"default": "v1", "team": "v2"})
    with server.client() as client:
        assert client.optimize("a").model_version == client.optimize("a", adapter="").model_version == "v1"
        assert [a.model_version for a in client.optimize_many(["a", "b"], adapter="team")] == ["v2", "v2"]
        with client.stream("a", adapter="team") as stream:
            list(stream)
        assert stream.result.model_version == "v2"
        with pytest.raises(InvalidRequestError, match="adapter 'other' is not known here; known are default, team"):
            client.optimize("a", adapter="other")
