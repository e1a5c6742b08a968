"""What hasty typing does to a prompt, and what people put around it."""

import random
import re

NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
SHORT = {"you": "u", "your": "ur", "please": "pls", "because": "cause", "are": "r", "to": "2", "for": "4", "and": "&",
         "with": "w/", "without": "w/o", "people": "ppl", "thanks": "thx", "want to": "wanna"}  # fmt: skip
BEFORE = (
    "hi,", "hey", "hello!", "quick question:", "ok so", "new here.", "help.", "i'm a beginner.", "im in a hurry.",
    "I am a teacher.", "i work in a small team.", "i'm 16 and", "as a student", "for my job:", "my boss asked me for this.",
    "it's for a friend.", "im not good at this.", "English is not my first language.", "I run a small shop.",
    "i have about an hour.", "I know the basics already.", "this is for school.", "we are a family of four.",
    "I've tried a few things already.", "i need this by tomorrow.", "I am a nurse.", "just curious,", "for a presentation:",
    "no idea where to start.", "dear assistant,", "could you help me?", "I'm writing on my phone, sorry for typos.",
)  # fmt: skip
AFTER = (
    "thanks", "thank you!", "thx in advance", "i need it today", "its for work", "It is for my class.", "asap",
    "I'm a beginner.", "keep it short", "I have no budget.", "not too long please", "i have tried everything", "help",
    "Any help is welcome.", "thats all i know", "it's urgent", "I want to do it myself.", "we are on a tight budget.",
    "what do you think?", "it is my first time", "cheers", "nothing fancy", "I'm in Canada.", "it's for my mom",
)  # fmt: skip


def typo(word: str, rng: random.Random) -> str:
    """A word with one slip: a letter swapped, dropped, doubled or replaced by its neighbour on the keyboard."""
    if len(word) < 4 or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 1)
    slip = rng.random()
    if slip < 0.35:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if slip < 0.65:
        return word[:at] + word[at + 1 :]
    if slip < 0.8:
        return word[:at] + word[at] + word[at:]
    return word[:at] + rng.choice(NEIGHBOURS.get(word[at].lower(), word[at])) + word[at + 1 :]


def hasty(text: str, rng: random.Random) -> str:
    """The text as somebody in a hurry would have typed it; often unchanged."""
    chance = rng.random()
    if chance < 0.45:
        return text
    if chance < 0.7:
        text = text.lower()
    if rng.random() < 0.3:
        text = text.replace("'", "")
    if rng.random() < 0.2:
        text = re.sub(r"[,.;:!?]+(?=\s|$)", "", text)
    words = text.split(" ")
    rate = rng.choice((0.0, 0.0, 0.05, 0.12))
    words = [typo(word, rng) if rng.random() < rate else word for word in words]
    if rng.random() < 0.1:
        words = [SHORT.get(word.lower(), word) for word in words]
    return " ".join(words)


def around(text: str, rng: random.Random) -> str:
    """The request with a sentence before or behind it, in about one case of eight."""
    chance = rng.random()
    if chance < 0.06:
        return f"{rng.choice(BEFORE)} {text}"
    if chance < 0.12:
        return f"{text}{'' if text[-1] in '.?!' else rng.choice(('.', ',', ''))} {rng.choice(AFTER)}"
    return text
