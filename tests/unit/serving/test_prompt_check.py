"""What may be a raw prompt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro_latent_core.errors import InvalidInput
from neuro_latent_core.guard import is_blank
from neuro_latent_core.limits import MAX_PROMPT_CHARACTERS
from neuro_latent_serving.checks import check_prompt


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "raw_prompt is empty"),
        ("", "raw_prompt is empty"),
        (b" \t\r\n", "only white space"),
        ("\u3000\u2003", "only white space"),
        (b"ab\xffcd", "not valid UTF-8: byte 0xff at position 2"),
        (b"\xed\xa0\x80", "not valid UTF-8: byte 0xed at position 0"),
        (b"caf\xc3", "not valid UTF-8: byte 0xc3 at position 3"),
        ("a\ud800b", "not valid Unicode: a lone surrogate at position 1"),
        (b"abc\x00def", "NUL character at position 3"),
        (b"a" * 1_000_000, "has 1000000 characters; the limit is 32768"),
        ("é" * (MAX_PROMPT_CHARACTERS + 1), "has 32769 characters; the limit is 32768"),
    ],
)
def test_a_prompt_that_cannot_be_read_says_why_and_where(raw: bytes | str, words: str) -> None:
    with pytest.raises(InvalidInput, match="raw_prompt") as caught:
        check_prompt(raw)
    assert words in str(caught.value)


def test_the_longest_prompt_is_allowed_whatever_its_bytes() -> None:
    text = "漢" * MAX_PROMPT_CHARACTERS
    assert check_prompt(text.encode()) == text


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(lambda text: not is_blank(text))
)
def test_any_other_text_comes_back_as_it_is(text: str) -> None:
    assert check_prompt(text) == text
    assert check_prompt(text.encode()) == text


@given(st.binary() | st.text(st.characters()))
def test_anything_at_all_gives_text_or_invalid_input(raw: bytes | str) -> None:
    try:
        text = check_prompt(raw)
    except InvalidInput as error:
        str(error).encode()  # can be sent to a client
    else:
        assert text.strip()
        text.encode()
