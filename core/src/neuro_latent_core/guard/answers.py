"""Whether a text answers where it should ask."""

import re
from typing import Final

_VERBS = """
act add adopt analyse analyze answer apply argue arrange ask assess brainstorm break build calculate check choose
clarify classify code combine come compare compile compose compute conduct consider construct continue convert
correct craft create debate debug define demonstrate derive describe design detail determine develop devise
differentiate discuss draft draw edit elaborate estimate evaluate examine expand explain explore extract fill find
fix focus format formulate generate give greet guide help highlight how identify illustrate implement improve
include instruct interpret introduce investigate keep let list locate make match modify name offer optimise optimize
organise organize outline paraphrase perform plan predict prepare present pretend print produce proofread propose
prove provide rank read recommend refine reformat rephrase report research respond return review revise rewrite
roleplay say search select set share show simplify simulate solve speak specify start state structure suggest
summarise summarize take teach tell think trace transform translate try turn update use using utilise utilize verify
walk what when where which who why write
"""
REQUESTS: Final = frozenset(_VERBS.split())
"""Words that a sentence of a request may begin with."""
_SENTENCE: Final = re.compile(r"[.!?:;,\n]+")
_BEFORE_A_SENTENCE: Final = " \t*#_>-•()[]\"'“0123456789"
_FIRST_WORD: Final = re.compile(r"[A-Za-z]+")

_OPENS: Final = re.compile(
    r"\W{0,3}(?:sure\b|certainly\b|of course\b|absolutely\b|great question|here(?:'s|’s| is| are)\b|as an ai\b"
    r"|i['’]m sorry|i am sorry|sorry,|yes[.!]|yes, (?!no)|no[.!]|no, (?!just)"
    r"|the answer (?:is|was)\b|once upon a time)",
    re.IGNORECASE,
)
_STATES: Final = re.compile(r"\b(?:is|are|was|were|has|have|had|can be|because|means|refers)\b", re.IGNORECASE)
_ASKS: Final = re.compile(
    r"\?|\b(?:please|i want|i need|i'd like|i would like|i am|i'm|i have|my|me"
    r"|you are|you're|your|imagine|assume|should|must)\b",
    re.IGNORECASE,
)


def opens_as_an_answer(text: str) -> bool:
    """Whether a text begins as answers do.

    >>> opens_as_an_answer("Sure, here is your poem:"), opens_as_an_answer("Write a poem.")
    (True, False)
    """
    return _OPENS.match(text) is not None


def only_states(text: str) -> bool:
    """Whether an English text has a statement, and nothing in it asks for anything.

    >>> only_states("The capital of France is Paris."), only_states("Name the city that is the capital of France.")
    (True, False)
    """
    return bool(_STATES.search(text)) and not _ASKS.search(text) and REQUESTS.isdisjoint(_first_words(text))


def _first_words(text: str) -> set[str]:
    found = (_FIRST_WORD.match(sentence.lstrip(_BEFORE_A_SENTENCE)) for sentence in _SENTENCE.split(text))
    return {match.group().lower() for match in found if match}
