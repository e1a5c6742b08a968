"""Bad input: the error names field, limit and value, has the right class on every route, and the server goes on."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from neuro_latent_client import Client, InvalidRequestError
from neuro_latent_core import protocol
from neuro_latent_serving.adapters.access import find_access
from neuro_latent_serving.launch import TritonServer
from tests.triton import wire
from tests.triton.wire import Tensor

pytestmark = pytest.mark.server

GOOD = {"raw_prompt": "Create a function", "max_length": 4}
INTERNALS = re.compile(r'Traceback|File "|\.py\b|(/[\w.-]+){2}|0x[0-9a-f]{6}')
BYTES_ROUTES = [route for route in wire.ROUTES if "generate" not in route]

PROMPTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "raw_prompt is empty"),
    "white space": (" \n\t\u2003", "raw_prompt holds only white space"),
    "not UTF-8": (b"caf\xe9!", "raw_prompt is not valid UTF-8: byte 0xe9 at position 3"),
    "half of a surrogate pair": (b"ab\xed\xa0\x80", "raw_prompt is not valid UTF-8: byte 0xed at position 2"),
    "NUL": ("ab\0c", "raw_prompt holds a NUL character at position 2"),
    "1 MB": ("word " * 200_000, "raw_prompt has 1000000 characters; the limit is 32768"),
}

OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"max_length": 0}, "max_length must be between 1 and 512, not 0"),
    ({"max_length": -1}, "max_length must be between 1 and 512, not -1"),
    ({"max_length": 513}, "max_length must be between 1 and 512, not 513"),
    ({"num_return_sequences": 0}, "num_return_sequences must be between 1 and 8, not 0"),
    ({"num_return_sequences": 100}, "num_return_sequences must be between 1 and 8, not 100"),
    ({"num_return_sequences": 2}, "num_return_sequences is 2, but temperature 0"),
    ({"num_return_sequences": 2, "temperature": 0.0}, "num_return_sequences is 2, but temperature 0"),
    ({"temperature": -0.5}, "temperature must be between 0 and 100, not -0.5"),
    ({"temperature": float("nan")}, "temperature must be between 0 and 100, not nan"),
    ({"temperature": float("inf")}, "temperature must be between 0 and 100, not inf"),
    ({"top_k": -1}, "top_k must be between 0 and 2147483647, not -1"),
    ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0"),
    ({"top_p": 1.5}, "top_p must be above 0 and at most 1, not 1.5"),
    ({"top_p": float("nan")}, "top_p must be above 0 and at most 1, not nan"),
    ({"num_beams": 0}, "num_beams must be between 1 and 8, not 0"),
    ({"num_beams": 9}, "num_beams must be between 1 and 8, not 9"),
    ({"num_beams": 2, "temperature": 0.5}, "num_beams is 2 and temperature 0.5: a beam search does not sample"),
    ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences must be at most num_beams (2), not 3"),
    ({"num_beams": 2, "length_penalty": 11.0}, "length_penalty must be between -2 and 10, not 11"),
    ({"length_penalty": float("nan")}, "length_penalty must be between -2 and 10, not nan"),
    ({"seed": -1}, "seed must be between 0 and 9223372036854775807, not -1"),
    ({"deadline_ms": -1}, "deadline_ms must be between 0 and 600000, not -1"),
]

WRONG_TENSORS: list[tuple[dict[str, Any], str]] = [  # the texts are Triton's
    ({"max_length": Tensor("INT64", [[4]])}, "'max_length' data-type is 'INT64'"),
    ({"temperature": Tensor("FP64", [[0.5]])}, "'temperature' data-type is 'FP64'"),
    ({"raw_prompt": Tensor("INT32", [[4]])}, "'raw_prompt' data-type is 'INT32'"),
    ({"raw_prompt": Tensor("BYTES", ["a"])}, "unexpected shape for input 'raw_prompt'"),
    ({"raw_prompt": Tensor("BYTES", [["a", "b"]])}, "unexpected shape for input 'raw_prompt'"),
    ({"max_length": Tensor("INT32", [[4, 4]])}, "unexpected shape for input 'max_length'"),
    ({"raw_prompt": ["a", "b"]}, "input 'raw_prompt' batch size does not match"),
    ({"raw_prompt": ["a"] * 17, "max_length": [4] * 17}, "batch-size must be <= 16"),
    ({"temprature": Tensor("FP32", [[0.5]])}, "unexpected inference input 'temprature'"),
]


@pytest.fixture(scope="module")
def good_text(grpc: Client) -> str:
    return grpc.optimize(GOOD["raw_prompt"], max_length=GOOD["max_length"]).text


@pytest.fixture(autouse=True)
def the_server_goes_on(server: TritonServer, grpc: Client, good_text: str) -> Iterator[None]:
    yield
    server.check()
    assert grpc.optimize(GOOD["raw_prompt"], max_length=GOOD["max_length"]).text == good_text


def check_refusal(route: str, answer: object, text: str) -> None:
    assert isinstance(answer, wire.Refusal), answer
    assert answer.status == {"grpc infer": "StatusCode.INVALID_ARGUMENT", "grpc stream": None}.get(route, 400)
    assert text in answer.text
    assert not INTERNALS.search(answer.text), answer.text


@pytest.mark.parametrize("route", wire.ROUTES)
@pytest.mark.parametrize("case", PROMPTS)
def test_a_bad_prompt_is_refused(server: TritonServer, route: str, case: str) -> None:
    prompt, text = PROMPTS[case]
    check_refusal(route, wire.ask(server, route, {**GOOD, "raw_prompt": prompt}), text)


@pytest.mark.parametrize("route", wire.ROUTES)
@pytest.mark.parametrize(("options", "text"), OPTIONS, ids=[str(options) for options, _ in OPTIONS])
def test_a_bad_option_is_refused(server: TritonServer, route: str, options: dict[str, Any], text: str) -> None:
    check_refusal(route, wire.ask(server, route, GOOD | options), text)


@pytest.mark.parametrize("route", BYTES_ROUTES)
@pytest.mark.parametrize(("values", "text"), WRONG_TENSORS, ids=[text for _, text in WRONG_TENSORS])
def test_a_tensor_of_the_wrong_type_or_shape_is_refused(
    server: TritonServer, route: str, values: dict[str, Any], text: str
) -> None:
    check_refusal(route, wire.ask(server, route, GOOD | values), text)


@pytest.mark.parametrize("prompt", [text for text, _ in PROMPTS.values() if isinstance(text, str)], ids=len)
def test_the_client_raises_for_a_bad_prompt(client: Client, prompt: str) -> None:
    with pytest.raises(InvalidRequestError, match="raw_prompt"):
        client.optimize(prompt)
    with pytest.raises(InvalidRequestError, match="raw_prompt"), client.stream(prompt) as stream:
        list(stream)


@pytest.mark.parametrize(("options", "text"), OPTIONS, ids=[str(options) for options, _ in OPTIONS])
def test_the_client_raises_for_a_bad_option(client: Client, options: dict[str, Any], text: str) -> None:
    name = text.partition(" ")[0]
    with pytest.raises(InvalidRequestError, match=name):
        client.optimize("x", **options)
    with pytest.raises(InvalidRequestError, match=name), client.stream("x", **options) as stream:
        list(stream)


@pytest.mark.parametrize("route", ["http generate", "http generate_stream"])
def test_an_unknown_key_is_named(server: TritonServer, route: str) -> None:
    answer = wire.ask(server, route, {**GOOD, "temprature": 0.5})
    check_refusal(route, answer, "unknown input 'temprature'; known are raw_prompt, max_length, num")


def test_an_unknown_parameter_is_named(server: TritonServer) -> None:
    tensor = {"name": "raw_prompt", "datatype": "BYTES", "shape": [1, 1], "data": ["a"]}
    path = f"/v2/models/{protocol.UNARY_MODEL}/infer"
    status, text = wire.post(server, path, {"inputs": [tensor], "parameters": {"temprature": 1}})
    assert (status, "unknown input 'temprature'" in text) == (400, True)


@pytest.mark.parametrize("route", wire.ROUTES)
def test_a_request_without_inputs_is_told_that_raw_prompt_is_missing(server: TritonServer, route: str) -> None:
    check_refusal(route, wire.ask(server, route, {}), "missing required input(s) ['raw_prompt']")


@pytest.mark.parametrize("route", ["grpc infer", "http infer", "http generate"])
def test_options_without_a_prompt_are_refused(server: TritonServer, route: str) -> None:
    # Triton counts the inputs only, and then finds that the ensemble cannot start; the text is its own.
    check_refusal(route, wire.ask(server, route, {"max_length": 4}), "")


def test_options_without_a_prompt_do_not_hang_a_stream(server: TritonServer) -> None:
    # For the same reason; Triton 24.10 then ends a stream without a word.
    assert wire.ask(server, "grpc stream", {"max_length": 4}) == []
    path = f"/v2/models/{protocol.STREAM_MODEL}/generate_stream"
    assert wire.post(server, path, {"max_length": 4}) == (200, "")


def test_the_streaming_model_takes_one_prompt(server: TritonServer) -> None:
    for route in ("grpc stream", "http generate_stream"):
        answer = wire.ask(server, route, {"raw_prompt": ["a", "b"]})
        check_refusal(route, answer, "the streaming model takes one raw_prompt a request, not 2")


def test_rows_that_want_different_numbers_of_sequences_are_refused(server: TritonServer) -> None:
    values = {"raw_prompt": ["a", "b"], "num_return_sequences": [1, 2], "temperature": [0.5, 0.5]}
    for route in ("grpc infer", "http infer", "http generate"):
        answer = wire.ask(server, route, values)
        check_refusal(route, answer, "num_return_sequences must be the same for all rows")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"text"', b"\xff", *map(wire.to_json, ({"raw_prompt": 5}, {**GOOD, "max_length": "4"}))],
    ids=str,
)
@pytest.mark.parametrize("endpoint", ["infer", "generate"])
def test_a_body_that_is_not_the_expected_json_is_an_error_in_json(
    server: TritonServer, endpoint: str, body: bytes
) -> None:
    status, text = wire.post(server, f"/v2/models/{protocol.UNARY_MODEL}/{endpoint}", body)
    assert status in (400, 500)  # Triton 24.10 answers what its JSON reader refuses with 500
    assert not INTERNALS.search(json.loads(text)["error"])


@pytest.mark.parametrize("tokens", [513, 7000])
def test_an_inner_model_takes_no_more_tokens_than_the_tokenizer_makes(
    server: TritonServer, repository: Path, tokens: int
) -> None:
    status, text = wire.get(server, "/v2/models/t5_encoder/config")
    shapes = {one["name"]: [int(size) for size in one["dims"]] for one in json.loads(text)["input"]}
    assert status == 200
    ids = [1] * tokens
    soft = [0.0] * math.prod(shapes["soft_prompts"])
    for model in ("encoder", "t5_encoder"):
        given = [
            {"name": name, "datatype": "INT64", "shape": [1, tokens], "data": ids}
            for name in ("input_ids", "attention_mask")
        ]
        if model == "t5_encoder":
            given += [{"name": "soft_prompts", "datatype": "FP32", "shape": [1, *shapes["soft_prompts"]], "data": soft}]
        status, text = wire.post(server, f"/v2/models/{model}/infer", {"inputs": given})
        assert (status, f"input_ids has {tokens} tokens; the limit is 512" in text) == (400, True), text


STRANGER = """
import os, sys
from multiprocessing.connection import Client
os.setgid(65534)
os.setuid(65534)
try:
    with Client(sys.argv[1].replace("@", chr(0)), family="AF_UNIX") as engine:
        engine.send_bytes(b"watch")
        print("open" if not engine.poll(2) else engine.recv_bytes())
except (OSError, EOFError) as error:
    print("closed")
for name in os.listdir("/dev/shm"):
    if name.startswith(sys.argv[2]):
        try:
            print("read", open("/dev/shm/" + name, "rb").read(1))
        except PermissionError:
            print("closed")
try:
    open(sys.argv[3])
    print("read the secret")
except OSError:
    print("closed")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_reaches_neither_the_engine_nor_the_memory_nor_the_secret(server: TritonServer) -> None:
    access = find_access(server.grpc_url)
    assert access is not None
    prefix = next(w for w in psutil.Process(server.pid).cmdline() if "shm-region-prefix" in w).rpartition("=")[2]
    command = [sys.executable, "-c", STRANGER, f"@neuro-latent-engine-{server.pid}", prefix, str(access.file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=wire.TIMEOUT)
    assert set(done.stdout.split()) == {"closed"}, done
    assert done.stdout.count("closed") > 5, "a region for each model"


def test_no_error_brings_a_request_into_the_log(server: TritonServer) -> None:
    marker = "SECRETmarker"
    for values in (
        {"raw_prompt": f"{marker}\0"},
        {"raw_prompt": marker, "max_length": 0},
        {"raw_prompt": marker * 3000},
        {"raw_prompt": marker, "adapter": f"../{marker}"},
        {"raw_prompt": marker, "adapter": marker},
        {"raw_prompt": Tensor("BYTES", [[marker, marker]])},
        {"raw_prompt": marker},
    ):
        for route in BYTES_ROUTES:
            wire.ask(server, route, values)
    for body in (f'{{"raw_prompt": "{marker}', f'["{marker}"]', f'{{"raw_prompt": "x", "{marker}": 1}}'):
        for endpoint in ("infer", "generate"):
            wire.post(server, f"/v2/models/{protocol.UNARY_MODEL}/{endpoint}", body.encode())
    wire.post(server, f"/v2/models/{protocol.FEEDBACK_MODEL}/generate", {"raw_prompt": marker, "comment": marker})
    assert marker not in server.log_text()


def test_deep_json_is_refused(server: TritonServer) -> None:
    for path in (f"/v2/models/{protocol.UNARY_MODEL}/generate", "/v2/models/encoder/infer", "/v2/logging"):
        assert wire.post(server, path, b"[" * 130_000)[0] in (400, 403)


@pytest.mark.parametrize("secret", ["1", "x" * 20_000])
def test_no_grpc_call_opens_what_is_closed(server: TritonServer, secret: str) -> None:
    headers = {f"triton-grpc-protocol-{name}": secret for name in ("closed", protocol.OWN_HEADER)}
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        for ask in (
            client.get_model_repository_index,
            partial(client.load_model, "encoder"),
            partial(client.register_system_shared_memory, "a", "/a", 8),
            client.get_trace_settings,
            client.get_log_settings,
        ):
            # Metadata that are too large end the call, or its connection.
            refusal = r"protocol is restricted|metadata size exceeds|Stream removed"
            with pytest.raises(InferenceServerException, match=refusal):
                ask(headers=headers)


def test_an_unknown_model_is_not_found(server: TritonServer) -> None:
    answer = wire.ask_grpc(server, GOOD, model="nobody")
    assert isinstance(answer, wire.Refusal)
    assert answer.status == "StatusCode.NOT_FOUND"
    for text in (answer.text, wire.ask_grpc_stream(server, GOOD, model="nobody").text):
        assert "unknown model: 'nobody'" in text
    for endpoint in ("infer", "generate", "generate_stream"):
        status, text = wire.post(server, f"/v2/models/nobody/{endpoint}", GOOD)
        assert (status, "unknown model: 'nobody'" in text) == (404, True)
