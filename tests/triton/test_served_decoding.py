"""What is decoded: the tokens that torch decodes, whatever the options are and whoever decodes at the same time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from neuro_latent_client import Client, DeadlineError, Optimization, Piece
from neuro_latent_serving.launch import TritonServer
from neuro_latent_trainer.model import PromptOptimizer
from tests import tiny
from tests.triton import wire

pytestmark = pytest.mark.server

PROMPT = "Create a function"
TOKENS = 32
SLOTS = 16


@pytest.fixture(scope="module")
def expected(oracle: PromptOptimizer, prompts: list[str]) -> list[str]:
    texts = oracle.generate(prompts, TOKENS)
    assert len(set(texts)) > 20, "the tiny pair must write something else for every prompt"
    return texts


@contextmanager
def others_decoding(client: Client, prompts: list[str]) -> Iterator[None]:
    """15 other requests at any time, all with other options."""
    stop, failures = threading.Event(), []

    def keep_asking(number: int) -> None:
        try:
            while not stop.is_set():
                client.optimize(
                    prompts[number], max_length=8 + 7 * number, temperature=number / 5, top_k=number, seed=number
                )
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=keep_asking, args=(number,), daemon=True) for number in range(SLOTS - 1)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(2 * wire.TIMEOUT)
    assert not failures


def streamed(client: Client, prompt: str, **options: float) -> tuple[list[Piece], str]:
    with client.stream(prompt, **options) as stream:
        pieces = list(stream)
    return pieces, stream.result.text


def test_texts_equal_torch(client: Client, prompts: list[str], expected: list[str]) -> None:
    assert [client.optimize(prompt, max_length=TOKENS).text for prompt in prompts] == expected


def test_streamed_pieces_join_to_the_text_of_torch(client: Client, prompts: list[str], expected: list[str]) -> None:
    count = 0
    for prompt, text in zip(prompts, expected, strict=True):
        pieces, whole = streamed(client, prompt, max_length=TOKENS)
        count += len(pieces)
        assert not any(piece.sequence_index for piece in pieces)
        assert "".join(piece.text for piece in pieces) == whole == text
    assert count > 2 * len(prompts), "pieces that wait are joined, but not all of them"


def test_texts_equal_torch_while_15_others_decode(grpc: Client, prompts: list[str], expected: list[str]) -> None:
    with others_decoding(grpc, prompts):
        assert [grpc.optimize(prompt, max_length=TOKENS).text for prompt in prompts] == expected
        assert [streamed(grpc, prompt, max_length=TOKENS)[1] for prompt in prompts] == expected


def test_a_seed_gives_the_same_texts_alone_streamed_and_among_others(grpc: Client, prompts: list[str]) -> None:
    options = {"max_length": TOKENS, "temperature": 0.9, "top_k": 40, "top_p": 0.95, "num_return_sequences": 3}
    alone = [s.text for s in grpc.optimize(PROMPT, **options, seed=11).sequences]
    assert len(set(alone)) == 3
    with grpc.stream(PROMPT, **options, seed=11) as stream:
        assert {piece.sequence_index for piece in stream} == {0, 1, 2}
    assert [s.text for s in stream.result.sequences] == alone
    with others_decoding(grpc, prompts):
        for _ in range(3):
            assert [s.text for s in grpc.optimize(PROMPT, **options, seed=11).sequences] == alone
    assert not {s.text for s in grpc.optimize(PROMPT, **options, seed=12).sequences} & set(alone)


def test_without_a_seed_texts_differ(client: Client) -> None:
    assert len({client.optimize(PROMPT, max_length=TOKENS, temperature=1.0).text for _ in range(3)}) == 3


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}])
def test_sampling_from_one_token_is_greedy(
    client: Client, prompts: list[str], expected: list[str], narrow: dict[str, float]
) -> None:
    answers = [client.optimize(p, max_length=TOKENS, temperature=1.5, seed=5, **narrow) for p in prompts[:4]]
    assert [answer.text for answer in answers] == expected[:4]


def test_max_length_is_respected(client: Client, oracle: PromptOptimizer) -> None:
    texts = {}
    for length in (1, 2, 100, 512):
        (sequence,) = client.optimize(PROMPT, max_length=length).sequences
        assert (sequence.generated_tokens, sequence.finish_reason) == (length, "length")
        texts[length] = sequence.text
    assert texts[100] == oracle.generate([PROMPT], 100)[0]
    assert texts[512].startswith(texts[100])
    assert texts[100].startswith(texts[2])


def test_the_end_token_stops_a_text(client: Client) -> None:
    # At temperature 100 every token is about as likely as any other, the end token one in 600.
    answer = client.optimize(PROMPT, max_length=512, temperature=100.0, num_return_sequences=8, seed=1)
    assert {s.finish_reason for s in answer.sequences} == {"stop", "length"}
    for sequence in answer.sequences:
        assert (sequence.generated_tokens == 512) == (sequence.finish_reason == "length")


@torch.no_grad()
def test_a_prompt_longer_than_the_encoder_is_cut_and_the_answer_says_so(
    client: Client, oracle: PromptOptimizer
) -> None:
    long = "write a short story about a dog. " * tiny.ENCODER_TOKENS
    answer = client.optimize(long, max_length=TOKENS)
    assert answer.truncated
    assert answer.text == oracle.generate([long], TOKENS)[0]
    with client.stream(long, max_length=TOKENS) as stream:
        list(stream)
    assert stream.result.truncated
    assert not client.optimize(PROMPT, max_length=1).truncated


def in_flight_together(client: Client, prompts: list[str]) -> int:
    """Open 16 long streams: the most that had their first piece and not yet their last at one time."""
    log: list[int] = []
    start = threading.Barrier(SLOTS)

    def read(prompt: str) -> None:
        start.wait(wire.TIMEOUT)
        with client.stream(prompt, max_length=512) as stream:
            next(stream)
            log.append(1)
            last = list(stream)
        assert last
        log.append(-1)

    threads = [threading.Thread(target=read, args=(prompt,), daemon=True) for prompt in prompts[:SLOTS]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * wire.TIMEOUT)
    assert len(log) == 2 * SLOTS
    return max(sum(log[:end]) for end in range(len(log)))


def test_16_requests_decode_together(grpc: Client, prompts: list[str]) -> None:
    # On a slow machine the first may be ready before the last has arrived; one time together is the proof.
    assert any(in_flight_together(grpc, prompts) == SLOTS for _ in range(5))


def test_the_servers_deadline_ends_a_text_early(client: Client) -> None:
    answer = client.optimize(PROMPT, max_length=512, deadline_ms=1)
    assert answer.finish_reason == "deadline"
    assert answer.sequences[0].generated_tokens < 512
    assert answer.text
    with client.stream(PROMPT, max_length=512, deadline_ms=1) as stream:
        list(stream)
    assert stream.result.finish_reason == "deadline"


def test_a_deadline_counts_from_the_request_on_and_what_is_late_is_not_decoded(
    server: TritonServer, client: Client
) -> None:
    encoder = wire.stub(server, "encoder")

    def streamed() -> Optimization:
        with client.stream(PROMPT, max_length=8, deadline_ms=150) as stream:
            list(stream)
        return stream.result

    for ask in (lambda: client.optimize(PROMPT, max_length=8, deadline_ms=150), streamed):
        threading.Timer(0.4, encoder.resume).start()
        encoder.suspend()  # less than the second after which Triton gives a process up
        answer = ask()
        assert (answer.finish_reason, answer.sequences[0].generated_tokens) == ("deadline", 0)
    assert client.optimize(PROMPT, max_length=8, deadline_ms=30_000).sequences[0].generated_tokens == 8


def test_the_clients_deadline_is_an_error_and_the_server_goes_on(
    server: TritonServer, client: Client, prompts: list[str], expected: list[str]
) -> None:
    with pytest.raises(DeadlineError):
        client.optimize(PROMPT, max_length=512, timeout=0.015)
    with pytest.raises(DeadlineError), client.stream(PROMPT, max_length=512, timeout=0.015) as stream:
        list(stream)
    server.check()
    assert client.optimize(prompts[0], max_length=TOKENS).text == expected[0]


def test_streams_left_early_and_streams_that_fail_do_not_hurt_the_server(
    server: TritonServer, client: Client, prompts: list[str], expected: list[str]
) -> None:
    # Triton 24.10 dies of some in fifty of these when they carry the header triton_grpc_error.
    for number in range(60):
        with client.stream(PROMPT, max_length=8) as stream:
            for _ in range(number % 5):
                next(stream, None)  # pieces that wait are joined, so there may be fewer
        with pytest.raises(ValueError, match="raw_prompt"), client.stream("") as stream:
            list(stream)
    server.check()
    assert client.optimize(prompts[0], max_length=TOKENS).text == expected[0]
