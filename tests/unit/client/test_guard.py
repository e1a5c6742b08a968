"""The guard: what counts as a literal, as lost, as degenerate, and what becomes of such texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro_latent_client.guard import MOST_ADDED, Found, guard, is_degenerate, is_off_subject, literals, missing


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write a poem about the sea.", []),
        ("Don't use the boys' names, it's o'clock.", []),
        ("Name 3 rivers.", ["3"]),
        ("From 1628-29 to 2026-11-22, at 10:30, 5%.", ["1628-29", "2026-11-22", "10:30", "5%"]),
        ("It costs $150,000.00 or €3.", ["$150,000.00", "€3"]),
        ("GPT-4 and p5.js on WW2, 7th grade", ["GPT-4", "p5.js", "WW2", "7th"]),
        ("Rhyme with \"point\", not 'pint'.", ['"point"', "'pint'"]),
        ("“It’s here”, «là-bas»", ["“It’s here”", "«là-bas»"]),
        ("See https://a.org/x?y=1, www.b.com. Ask me@c.io!", ["https://a.org/x?y=1", "www.b.com", "me@c.io"]),
        ("Dear {name}, {{title}} of ${CITY}", ["{name}", "{{title}}", "${CITY}"]),
        ("Run `ls -l 2>&1` and\n```py\nx = 1\n```", ["`ls -l 2>&1`", "```py\nx = 1\n```"]),
        ("2 and 2 and 3", ["2", "3"]),
        ('as JSON: {"id": 7, "tags": ["x"]}', ['"id"', "7", '"tags"', '"x"']),
    ],
)
def test_literals(text: str, found: list[str]) -> None:
    assert [literal.text for literal in literals(text)] == found


@pytest.mark.parametrize(
    ("raw", "enhanced", "lost"),
    [
        ("3 rivers", "Name exactly 3 rivers.", []),
        ("3 rivers", "Name 13 rivers.", ["3"]),
        ("3 rivers", "Name 3.5 rivers.", ["3"]),
        ("version 3", "Use version 3. Then stop.", []),
        ('rhyme with "point"', "Find rhymes for the word 'point'.", []),
        ('say "two\n words"', "Say two words.", []),
        ("run `ls`", "Explain the command ls", []),
        ("dear {name}", "Dear {Name}", ["{name}"]),
    ],
)
def test_missing_literals(raw: str, enhanced: str, lost: list[str]) -> None:
    assert [literal.text for literal in missing(raw, enhanced)] == lost


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n ",
        "the the the the the the",
        "Write a list. " * 6,
        "a strange \ufffd character",
        "fill <extra_id_0> in",
        "@#$%^&*@#$%^&*@#$%",
    ],
)
def test_texts_that_nobody_could_use(text: str) -> None:
    assert is_degenerate(text)
    assert guard("Write a poem", text).text == "Write a poem"
    assert guard("Write a poem", text).verdict == "replaced"


@pytest.mark.parametrize(
    "text",
    [
        "Write a short poem about the sea, with four lines.",
        "Write.",
        "Convert 1 1 1 1 1 1 1 to decimal.",
        "for (let i = 0; i < n; i++) { a[i] += b[i]; }",
        "Écris un poème sur la mer ; 写一首关于大海的诗",
        "First list the facts. Then list the open questions. Then list what would settle each of them, and how.",
    ],
)
def test_texts_that_are_fine(text: str) -> None:
    assert not is_degenerate(text)


def test_a_text_that_keeps_everything_is_not_touched() -> None:
    text = "List 3 rivers of France, longest first. "
    assert guard("3 rivers in France", text) == guard("rivers", text)
    assert (guard("3 rivers", text).text, guard("3 rivers", text).verdict) == (text, "kept")


def test_a_text_that_lost_too_much_gives_way_to_the_prompt() -> None:
    raw = "Add " + " ".join(f"x{i}" for i in range(MOST_ADDED + 1))
    assert guard(raw, "Add the numbers, and explain each step.").verdict == "replaced"
    raw = f"Translate: `{'word ' * 100}`"
    assert guard(raw, "Translate the text below into French.").text == raw


def test_a_degenerate_prompt_is_not_better_than_a_degenerate_text() -> None:
    assert guard("no no no no no no", "yes yes yes yes yes yes").verdict == "kept"


@pytest.mark.parametrize(
    ("raw", "enhanced", "off"),
    [
        ("plan a 3 day trip to Rome", "Develop a C++ program that reads a file.", True),
        ("plan a 3 day trip to Rome", "Act as a travel guide: planning 3 days in Rome.", False),
        ("explain photosynthesis to a child", "Write a method to calculate the area of a child.", True),
        ("Create a function", "Write a function that adds two numbers.", False),
        ("hello", "Greet the user.", True),
        ("please tell me", "Answer.", False),  # it has no subject
        ("写一首关于大海的诗", "Write a poem.", False),  # no words to compare
        ("напиши стихотворение", "Write a poem.", False),
        ("Écris un poème sur la mer", "Écris un sonnet, un poème en alexandrins.", False),
    ],
)
def test_a_text_without_the_words_of_the_prompt_is_off_its_subject(raw: str, enhanced: str, off: bool) -> None:
    assert is_off_subject(raw, enhanced) == off
    assert (guard(raw, enhanced).text == raw) == off


@given(st.text())
def test_a_text_is_on_its_own_subject(text: str) -> None:
    assert not is_off_subject(text, text)


@given(st.one_of(st.text(), st.text(st.sampled_from("ab1 2.,:/`\"'{}$-%“”«»@w"))))
def test_a_text_has_its_own_literals(text: str) -> None:
    assert missing(text, text) == []


@given(st.text(), st.text())
def test_nothing_is_lost_whatever_the_texts(raw: str, enhanced: str) -> None:
    after = guard(raw, enhanced)
    if after.verdict == "replaced":
        assert after.text == raw
    else:
        assert after.text.startswith(enhanced.rstrip())
        assert missing(raw, after.text) == []


words = st.sampled_from(
    ["7", "v2", '"a b"', "`x = 1`", "{name}", "https://a.org/b", "rivers", "and", "3.5", "10%", "."]
)


@given(st.lists(words, max_size=12).map(" ".join), st.lists(words, max_size=12).map(" ".join))
def test_literals_of_every_kind_survive(raw: str, enhanced: str) -> None:
    after = guard(raw, enhanced)
    assert after.text == raw or missing(raw, after.text) == []


@pytest.mark.parametrize(
    "unit", ["a", "1", "1 ", "'", "“", "`", "```", "{", "a.", "a@", "a.a@", "$", "https://", "www.", " ", '"a', "no "]
)
def test_the_longest_prompts_of_any_kind_are_soon_looked_through(unit: str) -> None:
    raw = (unit * 32_768)[:32_768]
    assert guard(raw, "Explain this, step by step.").text
    assert guard("Explain 1.", raw).text


def test_a_quoted_text_has_its_quotes_around_it_only() -> None:
    assert Found("quoted", "\"a 'b' c\"").core == "a 'b' c"
