"""The options of a request and their limits."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro_latent_core.errors import InvalidInput
from neuro_latent_core.limits import MAX_BEAMS, MAX_DEADLINE_MS, MAX_NEW_TOKENS, MAX_SEQUENCES
from neuro_latent_core.options import RequestOptions


def test_the_defaults_are_greedy_and_those_of_the_contract() -> None:
    options = RequestOptions.from_values({})
    assert options == RequestOptions()
    assert options.greedy
    assert (options.max_length, options.num_return_sequences, options.num_beams) == (200, 1, 1)
    assert (options.temperature, options.top_k, options.top_p, options.seed) == (0.0, 0, 1.0, None)


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("max_length", 0, "between 1 and 512"),
        ("max_length", -5, "between 1 and 512"),
        ("max_length", MAX_NEW_TOKENS + 1, "between 1 and 512"),
        ("num_return_sequences", 0, "between 1 and 8"),
        ("num_return_sequences", 100, "between 1 and 8"),
        ("temperature", -0.1, "between 0 and 100"),
        ("temperature", 100.5, "between 0 and 100"),
        ("temperature", float("nan"), "between 0 and 100"),
        ("temperature", float("inf"), "between 0 and 100"),
        ("top_k", -1, "between 0 and"),
        ("top_k", 2**31, "between 0 and"),
        ("top_p", 0.0, "above 0 and at most 1"),
        ("top_p", 1.01, "above 0 and at most 1"),
        ("top_p", float("nan"), "above 0 and at most 1"),
        ("num_beams", 0, "between 1 and 8"),
        ("num_beams", MAX_BEAMS + 1, "between 1 and 8"),
        ("length_penalty", -2.5, "between -2 and 10"),
        ("length_penalty", 10.5, "between -2 and 10"),
        ("length_penalty", float("nan"), "between -2 and 10"),
        ("seed", -1, "between 0 and"),
        ("seed", 2**63 - 1 + 1, "between 0 and"),
        ("min_confidence", -0.01, "between 0 and 1"),
        ("min_confidence", 1.01, "between 0 and 1"),
        ("min_confidence", float("nan"), "between 0 and 1"),
        ("min_confidence", True, "must be a number"),
        ("deadline_ms", -1, "between 0 and 600000"),
        ("deadline_ms", MAX_DEADLINE_MS + 1, "between 0 and 600000"),
    ],
)
def test_a_value_outside_its_limits_names_field_limit_and_value(name: str, value: Any, limit: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        RequestOptions.from_values({name: value})
    text = str(caught.value)
    assert text.startswith(name)
    assert limit in text
    assert text.endswith(f"not {value:g}" if isinstance(value, float) else f"not {value}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_length", "20"),
        ("max_length", 2.5),
        ("top_k", True),
        ("seed", "x"),
        ("temperature", "hot"),
        ("top_p", [1]),
        ("num_beams", 2.0),
        ("num_beams", True),
        ("length_penalty", "long"),
    ],
)
def test_a_value_of_another_type_is_invalid_input_too(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=name):
        RequestOptions.from_values({name: value})


def test_the_limits_themselves_are_allowed() -> None:
    RequestOptions(MAX_NEW_TOKENS, MAX_SEQUENCES, 100.0, 2**31 - 1, 1.0, 1, 10.0, 2**63 - 1, MAX_DEADLINE_MS)
    RequestOptions(1, 1, 0.0, 0, 1e-9, 1, -2.0, 0, 0)
    RequestOptions(num_beams=MAX_BEAMS, num_return_sequences=MAX_BEAMS)
    RequestOptions(max_length=np.int32(5), temperature=np.float32(0.5))


def test_several_greedy_answers_are_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidInput, match=r"num_return_sequences is 3, but temperature 0 .*set temperature above 0"):
        RequestOptions(num_return_sequences=3)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_beams": 4, "temperature": 0.5}, r"num_beams is 4 and temperature 0\.5: a beam search does not sample"),
        ({"num_beams": 2, "num_return_sequences": 3}, r"num_return_sequences must be at most num_beams \(2\), not 3"),
    ],
)
def test_beams_that_sample_or_are_too_few_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        RequestOptions(**values)


def test_an_unknown_option_is_refused_and_the_known_ones_are_told() -> None:
    with pytest.raises(InvalidInput, match=r"unknown option 'temprature'; known are .*temperature"):
        RequestOptions.from_values({"temprature": 0.5})


def test_none_is_the_default() -> None:
    assert RequestOptions.from_values({"max_length": None, "top_k": 3}) == RequestOptions(top_k=3)


@pytest.mark.parametrize(("values", "greedy"), [({}, True), ({"temperature": 0.5}, False), ({"top_k": 5}, True)])
def test_greedy_is_temperature_zero(values: dict[str, Any], greedy: bool) -> None:
    assert RequestOptions(**values).greedy is greedy


def test_one_candidate_is_greedy_at_any_temperature() -> None:
    assert RequestOptions(temperature=2.0, top_k=1).greedy


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "max_length": st.integers(),
            "num_return_sequences": st.integers(),
            "temperature": st.floats(),
            "top_k": st.integers(),
            "top_p": st.floats(),
            "num_beams": st.integers(),
            "length_penalty": st.floats(),
            "seed": st.integers(),
            "deadline_ms": st.integers(),
        },
    )
)
def test_any_numbers_give_options_or_invalid_input(values: dict[str, Any]) -> None:
    try:
        options = RequestOptions.from_values(values)
    except InvalidInput:
        return
    assert all(getattr(options, name) == value for name, value in values.items())
