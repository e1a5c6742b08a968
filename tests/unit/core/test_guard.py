"""The guard: what it rejects, for which reason, and what it lets pass."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro_latent_core.form import Form
from neuro_latent_core.guard import is_blank, is_degenerate, literals, missing, rejects
from neuro_latent_core.guard.literals import Found
from tests.cases import case

# Literals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write a poem about the sea, e.g. a haiku and/or a limerick.", []),
        ("Don't use the boys' names, it's o'clock.", []),
        ("Name 3 rivers.", ["3"]),
        ("From 1628-29 to 2026-11-22, at 10:30, 5%.", ["1628-29", "2026-11-22", "10:30", "5%"]),
        ("It costs $150,000.00 or €3.", ["$150,000.00", "€3"]),
        ("GPT-4 and p5.js on WW2, 7th grade", ["GPT-4", "p5.js", "WW2", "7th"]),
        ("two weeks in June", ["two weeks", "June"]),
        ("1. apples\n2. pears", []),
        ("Rhyme with \"point\", not 'pint'.", ['"point"', "'pint'"]),
        ("“It’s here”, «là-bas», 'it's'", ["“It’s here”", "«là-bas»", "'it's'"]),
        ('Translate "Good morning,\nhow are you?" to German', ['"Good morning,\nhow are you?"']),
        ('a 6" by 4" frame', ["6", "4"]),
        ("Explain the menu item 麻婆豆腐", ["麻婆豆腐"]),
        ("See https://a.org/x?y=1, www.b.com. Ask me@c.io!", ["https://a.org/x?y=1", "www.b.com", "me@c.io"]),
        ("(see https://example.com/docs/).", ["https://example.com/docs/"]),
        ("https://en.wikipedia.org/wiki/Ruby_(language)", ["https://en.wikipedia.org/wiki/Ruby_(language)"]),
        ("is example.com/a up", ["example.com/a"]),
        ("Dear {name}, {{title}} of ${CITY}", ["{name}", "{{title}}", "${CITY}"]),
        ("{{{a}}} {} {0} {% if b %}", ["{{{a}}}", "{}", "{0}", "{% if b %}"]),
        ("%s and %(x)s of $HOME in <q>, 50% sure, [city]", ["%s", "%(x)s", "$HOME", "<q>", "50%", "[city]"]),
        ("Run `ls -l 2>&1` and\n```py\nx = 1\n```", ["`ls -l 2>&1`", "```py\nx = 1\n```"]),
        ("Fix\n```js\nreturn a.map(x => x.name)\n", ["```js\nreturn a.map(x => x.name)\n"]),
        ("Explain $E = mc^2$ and \\frac{a}{b}", ["$E = mc^2$", "\\frac", "{a}", "{b}"]),
        ("run: SELECT a FROM b WHERE c = 'Rome'", ["SELECT a FROM b WHERE c = 'Rome'"]),
        ("my_var, getName, main() in C++ with --dry-run", ["my_var", "getName", "main()", "C++", "--dry-run"]),
        ("read /etc/hosts for @bob", ["/etc/hosts", "@bob"]),
        ("2 and 2 and 3", ["2", "3"]),
        ('as JSON: {"id": 7, "tags": ["x"]}', ['{"id": 7, "tags": ["x"]}']),
    ],
)
def test_literals(text: str, found: list[str]) -> None:
    assert [literal.text for literal in literals(text)] == found


@pytest.mark.parametrize(
    ("raw", "enhanced", "lost"),
    [
        ("3 rivers", "Name exactly 3 rivers.", []),
        ("3 rivers", "Name three rivers.", []),
        ("3 rivers", "Name 13 rivers.", ["3"]),
        ("3 rivers", "Name 3.5 rivers.", ["3"]),
        ("version 3", "Use version 3. Then stop.", []),
        ("a 3-day trip", "a trip of 3 days", []),
        ("a 3 day trip", "a trip of 3 weeks", ["3 day"]),
        ("10km run", "a run of 10 km", []),
        ("at 3 pm", "at 3 am", ["3 pm"]),
        ('rhyme with "point"', "Find rhymes for the word 'point'.", []),
        ('rhyme with "point"', "Find rhymes for the word 'points'.", ['"point"']),
        ('say "two\n words"', "Say two words.", []),
        ("run `ls`", "Explain the command ls", []),
        ("run `ls`", "Explain the command lsof", ["`ls`"]),
        ("dear {name}", "Dear {Name}", ["{name}"]),
        ("{} and {}", "Use {} once.", ["{}"]),
        ("see https://a.org/x", "Read https://a.org/xylophone", ["https://a.org/x"]),
        ("see https://a.org/x/", "Read https://a.org/x.", ["https://a.org/x/"]),
        ("```py\nif a:\n  b\n```", "```py\nif a: \n  b\n```", []),
        ("```py\nif a:\n  b\n```", "```py if a: b ```", ["```py\nif a:\n  b\n```"]),
    ],
)
def test_missing_literals(raw: str, enhanced: str, lost: list[str]) -> None:
    assert [literal.text for literal in missing(raw, enhanced)] == lost


def test_a_quoted_text_has_its_quotes_around_it_only() -> None:
    assert Found("quoted text", "\"a 'b' c\"").core == "a 'b' c"


SIGNS = "ab1 2.,:/`\"'{}$-%“”«»@w<>[]\\^=|~#\n()é的"


@given(st.one_of(st.text(), st.text(st.sampled_from(SIGNS))))
def test_a_text_has_its_own_literals(text: str) -> None:
    assert missing(text, text) == []


# Texts that nobody could use ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "blank"),
        (" \n \u200b\u2060\ufeff", "blank"),
        ("...", "blank"),
        ("the the the the the the", "loop"),
        ("Write a list. " * 6, "loop"),
        ("A story of a cat and a dog and a dog and a dog and a dog", "loop"),
        ("a" * 300, "loop"),
        ("Write pa" + "c" * 50 + " now", "loop"),
        ("1" + "0" * 80 + " times", "loop"),
        ("的" * 60, "loop"),
        ("ha" * 120, "loop"),
        ("写一首关于大海的诗" * 6, "loop"),
        ("выучит" + "ат" * 30, "loop"),
        ("@#$%^&*a@#$%^&*@#$%", "loop"),
        ("a strange \ufffd character", "control token"),
        ("fill <extra_id_0> in", "control token"),
        ("Write a poem.</s>", "control token"),
        ("Write <unk> poem", "control token"),
        ("Write a poem <|endoftext|>", "control token"),
        ("Write a poem \x02", "control token"),
    ],
)
def test_texts_that_nobody_could_use(text: str, reason: str) -> None:
    assert is_degenerate(text)
    assert rejects("Write a poem", text, "complement") == rejects("Write a poem", text, "rewrite") == reason


@pytest.mark.parametrize(
    "text",
    [
        "Write a short poem about the sea, with four lines.",
        "Write.",
        "Convert 1 1 1 1 1 1 1 to decimal.",
        "Convert 1010101010101010 and 1000000000 to hex.",
        "for (let i = 0; i < n; i++) { a[i] += b[i]; }",
        "Écris un poème sur la mer ; 写一首关于大海的诗",
        "First list the facts. Then list the open questions. Then list what would settle each of them, and how.",
        "A very, very, very long story, ha ha ha.",
        "| a | b |\n|---|---|\n| 1 | 2 |\n------",
    ],
)
def test_texts_that_are_fine(text: str) -> None:
    assert not is_degenerate(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "\u200b", "\u200b\u200d\u2060\ufeff", "\u0001\u0002\u0007", "\u3164\u2800", "\ufe0f", "\u202e\xad"],
)
def test_what_cannot_be_seen_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["-", "🎉", "?", "a", "\u200bx", "👨‍👩‍👧‍👦 🏳️‍🌈", "\ufffd"])
def test_what_can_be_seen_is_not_blank(text: str) -> None:
    assert not is_blank(text)


@pytest.mark.parametrize("form", ["complement", "rewrite"])
@pytest.mark.parametrize("raw", ["???", "...", "🎉🎉🎉", "👨‍👩‍👧‍👦 🏳️‍🌈", "-", "**", "\u0001\u0002", "\ufffd\ufffd"])
def test_nothing_is_said_about_a_prompt_without_a_letter_or_digit(raw: str, form: Form) -> None:
    assert rejects(raw, "Write a short poem about the sea.", form) == "off the subject"


# Rewrites -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "enhanced"),
    [
        (
            "plan a 3 day trip to Rome",
            "Act as a travel guide: plan a trip of 3 days to Rome, and give two tips for each day.",
        ),
        ("fix my SQL", "Find what is wrong in my SQL, and explain the fix step by step."),
        ("css bug", "Help me find a CSS bug: say which details you need from me."),
        ("Fill the template Hello {}, you are {} years old", "Fill the template: Hello {}, you are {} years old."),
        ("Explain the <unk> token to a beginner", "Explain to a beginner what the <unk> token is."),
        ("Write CSS for <s>old price</s> in a web shop", "Write CSS for <s>old price</s> as a web shop would show it."),
        (
            "Explain $E = mc^2$ and \\frac{a}{b} to a child",
            "Explain to a child, with examples: $E = mc^2$ and \\frac{a}{b}.",
        ),
        ("recipes without nuts", "Give me recipes that don't have any nuts in them."),
        ("why won't my car start", "Explain why my car does not start, from the most likely cause to the least."),
        ("바다에 대한 시를 써 줘", "바다를 주제로 짧은 시를 써 줘."),
        ("写一首关于大海的诗", "请写一首关于大海的短诗，要押韵。"),
        ("Как выучить гитару", "Объясни, как взрослому выучить гитару дома."),
        ("Schreibe ein Gedicht über das Meer", "Schreibe ein kurzes Gedicht über das Meer, das sich reimt."),
        ("Translate 你好世界 to English", "Translate 你好世界 to English, and explain each character."),
        ("is it worth learning R", "Say for whom it is worth learning R, and for whom not."),
    ],
)
def test_rewrites_that_are_served(raw: str, enhanced: str) -> None:
    assert rejects(raw, enhanced, "rewrite") == ""


@pytest.mark.parametrize(
    ("raw", "enhanced", "reason"),
    [
        # URLs
        (
            "Check https://example.com/docs/ today",
            "Check the docs at https://example.com/docs today",
            "lost or changed: url",
        ),
        ("Is https://example.com/a?b=1 up", "Say whether the example is up", "lost or changed: url"),
        (
            "See https://a.org/x and sum up",
            "Sum up https://a.org/xylophone-prices in short lines, see a.org",
            "lost or changed: url",
        ),
        (
            "Summarise https://en.wikipedia.org/wiki/Mercury_(planet) for kids",
            "Summarise https://en.wikipedia.org/wiki/Mercury_(planet for kids",
            "lost or changed: url",
        ),
        ("sum up the news", "Sum up the news of https://news.org today", "invented: url"),
        ("mail the news to me@c.io", "Mail the news to us@c.io", "lost or changed: url"),
        # Placeholders
        ("Write an email to {{{name}}} today", "Write an email to {{name}} today", "lost or changed: placeholder"),
        (
            "Write a function that formats {} and {} into one string",
            "Write a function that formats {} into one string",
            "lost or changed: placeholder",
        ),
        (
            "Write a log message that prints %s and %d",
            "Write a log message that prints %s",
            "lost or changed: placeholder",
        ),
        ("Write a greeting with %(name)s", "Write a greeting with %(names)s", "lost or changed: placeholder"),
        (
            "Write a shell script that copies $SRC_DIR to $DEST_DIR",
            "Write a shell script that copies $SRC_DIR to $DEST",
            "lost or changed: placeholder",
        ),
        (
            "Answer the question <query>{{query}}</query>",
            "Answer the question {{query}}",
            "lost or changed: placeholder",
        ),
        ("{% if a %}Greet{% endif %} the user", "Greet the user", "lost or changed: placeholder"),
        ("greet the user", "Greet the user {name}", "invented: placeholder"),
        ("Explain the <pad> token", "Explain the token pad", "lost or changed: placeholder"),
        # Quoted text and words of another language
        (
            'Translate "Good morning,\nhow are you?" to German',
            'Translate "Good morning" to German, and how are you?',
            "lost or changed: quoted text",
        ),
        ("rhymes for 'point'", "Find rhymes for 'paint' to the point", "invented: quoted text"),
        ("Explain the Arabic word مرحبا", "Explain the Arabic word", "lost or changed: quoted text"),
        (
            "Translate the sentence Где находится библиотека? into English",
            "Translate the sentence Где находится into English",
            "lost or changed: quoted text",
        ),
        # Code, formulas, data
        ("run `ls -l` for me", "Run `ls -a` for me", "lost or changed: code"),
        ("Solve \\int_{0}^{1} x^{2} dx", "Solve \\int_{0}^{1} x^{3} dx", "lost or changed: placeholder"),
        ("Explain the formula $E = mc^2$", "Explain the formula $E = mc^3$", "lost or changed: code"),
        (
            'Return JSON like {"name": "string", "tags": []} for each book',
            'Return JSON like {"name": "string"} for each book',
            "lost or changed: code",
        ),
        (
            "Speed up this query: SELECT name FROM users WHERE city = 'Rome' ORDER BY name",
            "Speed up this query: SELECT name FROM users WHERE city = 'Rome'",
            "lost or changed: code",
        ),
        (
            "Fix this function\n```js\nfunction f(a) {\n  return a.map(x => x.name)\n}",
            "Fix this function\n```js\nfunction f(a) {\n  return a.map(x => x.nam)\n}",
            "lost or changed: code",
        ),
        ("rename get_user in my code", "Rename get_users in my code", "lost or changed: code"),
        ("speed up my loop", "Speed up my loop with `numba.jit`", "invented: code"),
        # Numbers, dates, amounts
        ("Name 3 rivers in France.", "Name the rivers in France.", "lost or changed: number"),
        ("Name 3 rivers in France.", "Name 4 rivers in France.", "lost or changed: number"),
        ("meet at 10:30", "Plan to meet at 10:31", "lost or changed: number"),
        ("update to v2.1.3", "Update to v2.1.4", "lost or changed: number"),
        ("pay $1,200.50 rent", "Pay $1,200.5 rent", "lost or changed: number"),
        ("due 2026-11-22", "Due 2026-11-23", "lost or changed: number"),
        ("a three day trip to Rome", "Plan a five day trip to Rome", "lost or changed: number"),
        ("call me on Friday", "Call me on Monday", "lost or changed: number"),
        ("plan a trip to Rome", "Plan a trip to Rome for 2 people", "invented: number"),
        # Language
        ("Comment apprendre la guitare", "Explain how to learn the guitar, step by step.", "another language"),
        ("Erstelle einen Trainingsplan", "Write a plan for a Trainingsplan with the details.", "another language"),
        ("바다에 대한 시를 써 줘", "Write a poem about the sea.", "another language"),
        ("Как выучить гитару", "Write a program that counts lines.", "another language"),
        ("write a poem about the sea", "写一首关于大海的诗", "another language"),
        ("write a poem about the sea", "Schreibe ein Gedicht über das Meer", "another language"),
        # Subject, negation
        ("fix my SQL", "Fix my code, step by step.", "off the subject"),
        ("css bug", "Explain how to report a bug.", "off the subject"),
        ("tax tip", "Give one tip for a good night of sleep.", "off the subject"),
        ("an ad for a gym", "Write an ad for a shop.", "off the subject"),
        ("an API key for a bot", "Explain what a key is for a bot.", "off the subject"),
        ("a to-do app", "Write a list of things.", "off the subject"),
        ("AWS or GCP?", "Compare AWS with other clouds.", "off the subject"),
        ("SEO for my app", "Describe my app.", "off the subject"),
        ("learn R", "Explain how to learn Python.", "off the subject"),
        ("write it in Go", "Write it in Rust.", "off the subject"),
        ("AI for kids", "Explain the sea to kids.", "off the subject"),
        ("a hike near Nordlys", "Plan a hike near Nordord.", "off the subject"),
        ("Write a poem about the sea </s> and translate it to French", "Write a poem about a dog.", "control token"),
        ("写一首关于大海的诗", "请写一个关于机器人的程序", "off the subject"),
        ("Как выучить гитару", "Напиши короткий рецепт борща", "off the subject"),
        ("teach my dog not to bite", "Teach my dog to bite.", "lost or changed: negation"),
        ("recipes without nuts", "Give me recipes with nuts.", "lost or changed: negation"),
        (
            "Kuchen ohne Zucker backen",
            "Erkläre, wie man Kuchen mit Zucker bäckt, backen ist nicht schwer.",
            "lost or changed: negation",
        ),
        # Answers
        ("capital of france", "The capital of France is a city on the Seine.", "an answer, not a prompt"),
        ("write a poem", "Sure, here is a poem for you.", "an answer, not a prompt"),
        ("why do cats purr", "Cats purr because their throat muscles move.", "an answer, not a prompt"),
    ],
)
def test_rewrites_that_are_rejected(raw: str, enhanced: str, reason: str) -> None:
    found = rejects(raw, enhanced, "rewrite")
    if reason == "control token":  # the prompt has it: kept as often, or the placeholder is lost
        assert found == "lost or changed: placeholder"
    else:
        assert found == reason


def test_a_short_rewrite_of_a_long_prompt_has_left_out_what_was_pasted() -> None:
    body = "\n\n".join(
        "The river market opens early and the old teacher walks to the orange window. " * 4 for _ in range(20)
    )
    raw = f"{body}\n\nTranslate the text above into Spanish."
    assert rejects(raw, "Translate the text of the old teacher at the river market into Spanish.", "rewrite")


def test_one_letter_and_one_digit_are_noticed_in_every_kind() -> None:
    raw = 'Use `cat a.txt`, "blue sky", {user}, https://a.org/b1, 1250 and 09:45 for Oslo.'
    assert rejects(raw, raw, "rewrite") == ""
    for old, new in [("cat", "cut"), ("blue", "bluе"), ("user", "usr"), ("b1", "b2"), ("1250", "1350"), ("45", "46")]:
        assert rejects(raw, raw.replace(old, new), "rewrite")


words = st.sampled_from(
    ["7", "v2", '"a b"', "`x = 1`", "{name}", "https://a.org/b", "rivers", "and", "3.5", "10%", "."]
)


@given(st.lists(words, max_size=12).map(" ".join), st.lists(words, max_size=12).map(" ".join))
def test_what_is_served_has_every_literal_and_no_new_one(raw: str, enhanced: str) -> None:
    if not rejects(raw, enhanced, "rewrite"):
        assert missing(raw, enhanced) == missing(enhanced, raw) == []


# Complements ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "complement"),
    [
        ("sql joins", "Show each kind with a tiny pair of tables, and say when it loses rows."),
        ("leftover rice ideas", "Offer 5 dishes that differ in effort, with three extra ingredients each."),
        ("haiku about a broken printer", "Keep to 5-7-5, and give one concrete moment instead of a complaint."),
        (
            "mietvertrag prüfen lassen wo geht das",
            "Nenne mir Stellen, die das umsonst machen, und was ich mitbringen soll.",
        ),
        ("ad for my shop", "Use [name] where the shop's name goes, and keep it under 50 words."),
        ("explain `x = 1` and 1984", "Start with `x = 1`, then say what happened in 1984."),
        ("0.1+0.2", "Say why the sum is not exact, and show what to use for money."),
        ("can i tow a trailer", "The answer depends on the country, so ask me where I live."),
        ("Explain the <unk> token", "Say when a tokenizer writes <unk>, and how to avoid it."),
        ("greet", "Ask me for the tone (formal or not)."),
    ],
)
def test_complements_that_are_served(raw: str, complement: str) -> None:
    assert rejects(raw, complement, "complement") == ""


@pytest.mark.parametrize(
    ("raw", "complement", "reason"),
    [
        ("a toast for my brother", "Write it in my voice, please.  Write it in my voice, please.", "loop"),
        ("write a poem", "Nenne mir bitte drei Titel, die nicht zu lang sind.", "another language"),
        ("write a poem", "写一首关于大海的诗。", "another language"),
        ("write a poem", "Zibble wex plomp drindle frabbit snork wimble.", "another language"),
        ("Wie lerne ich Gitarre", "Start with the chords, and say how long to practise.", "another language"),
        (
            "haiku about the last bus home",
            "Write a haiku about the last bus home in short lines.",
            "repeats the prompt",
        ),
        (
            "wifi keeps dropping on my laptop only, phone is fine",
            "My wifi keeps dropping on my laptop only, while on my phone it is fine.",
            "repeats the prompt",
        ),
        ("sql joins", "SQL joins.", "repeats the prompt"),
        ("plan a trip", "Start with the trains, and end with", "unfinished"),
        ("plan a trip", "Start with the trains, and then the.", "unfinished"),
        ("plan a trip", "Start with the trains (fast ones.", "unfinished"),
        ("plan a trip", "Start with the trains:", "unfinished"),
        ("plan a trip", "Keep the budget below $500 for all of it.", "invented: number"),
        ("plan a trip", "Say what changed there since 1984.", "invented: number"),
        ("plan a trip", "See https://trips.org for examples.", "invented: url"),
        ("plan a trip", "Write to help@trips.org for more.", "invented: url"),
        ("plan a trip", "Address it to {name} in the first line.", "invented: placeholder"),
        ("plan a trip", "Name it after the song 'Yellow Submarine' by a band.", "invented: quoted text"),
        ("plan a trip", "Sure, here is a plan for the trip.", "an answer, not a prompt"),
        ("plan a trip", "Say when to leave.</s>", "control token"),
    ],
)
def test_complements_that_are_rejected(raw: str, complement: str, reason: str) -> None:
    assert rejects(raw, complement, "complement") == reason


@given(st.text(), st.text(), st.sampled_from(["complement", "rewrite"]))
def test_a_reason_quotes_nothing(raw: str, text: str, form: Form) -> None:
    kinds = ("code", "url", "quoted text", "placeholder", "number", "negation")
    fixed = {"", "blank", "control token", "loop", "another language", "off the subject", "an answer, not a prompt"}
    fixed |= {"repeats the prompt", "unfinished"} | {
        f"{what}: {kind}" for what in ("lost or changed", "invented") for kind in kinds
    }
    assert rejects(raw, text, form) in fixed


# Length ---------------------------------------------------------------------------------------------------------------

UNITS = [
    *(
        "a",
        "1",
        "1 ",
        "a.",
        "1.",
        "1,",
        "1:",
        "a-",
        "three-",
        "\n",
        "a\n\n",
        "\r",
        " ",
        ".",
        "(",
        ")",
        "a)",
        "🎉",
        "½",
        "é",
    ),
    *("'", "'a", "'a ", "“", "“a", "‘a", '"', '"a', "„", "«", "`", "```", "~~~"),
    *("{", "}", "{}", "{ ", "}{", "$", "$=", "$a=", "<", "<a", "<a ", "</", "<|", "[", "[a", "%", "%(", "%(a", "%1"),
    *("\\", "\\a", "^", "a^", "=", "|", "a_", "aB", "a.b", "--a", "/", "/a", "~/", "#", "@", "a@", "a.a@"),
    *("https://", "www.", "://", "a://", "x.com", "https://a)", "SELECT ", "SELECT FROM ", "SELECT ("),
    *(
        "no ",
        "not a ",
        "n't ",
        "A ",
        "AI ",
        "Ab ",
        "的",
        "的a",
        "不",
        "ไ",
        "가 ",
        "ا",
        "ab",
        "abc",
        "<s>",
        "\u200b",
        "\ufffd",
    ),
]


@pytest.mark.parametrize("unit", UNITS, ids=json.dumps)
def test_the_longest_prompts_of_any_kind_are_soon_looked_through(unit: str) -> None:
    longest = (unit * 32_768)[:32_768]
    rejects(longest, "Explain this, step by step, with 3 examples.", "complement")
    rejects("Explain 1, please.", f"Explain. {longest}", "rewrite")
    rejects(longest, longest, "rewrite")
    literals(longest * 2)


def test_many_different_literals_are_soon_compared() -> None:
    numbers = " ".join(map(str, range(6_000)))[:32_768]
    names = " ".join(f"a_{i}" for i in range(6_000))[:32_768]
    for raw in (numbers, names, f"{numbers} km", " ".join(f'"{"a" * i}"' for i in range(250))):
        for text in (raw, raw[: len(raw) // 2], "a" * 32_768, raw.replace(" ", " km ")):
            rejects(raw, text, "rewrite")
            rejects(raw, text, "complement")


# Inputs that failed once ----------------------------------------------------------------------------------------------


def case_rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in case(name).read_text(encoding="utf-8").splitlines()]


def test_the_cases_of_loops_without_spaces() -> None:
    rows = case_rows("14-loops-without-spaces/texts.jsonl")
    assert [is_degenerate(row["text"]) for row in rows] == [True] * len(rows)


@pytest.mark.parametrize(
    "text", ["b" * 300, "Plan your weeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeek", "好的" * 150, "lololo" * 60]
)
def test_a_loop_without_spaces_is_one(text: str) -> None:
    assert is_degenerate(text)


def test_the_cases_of_urls() -> None:
    for row in case_rows("15-urls/pairs.jsonl"):
        assert missing(row["raw"], row["enhanced"]), row
        assert not missing(row["raw"], row["raw"])


@pytest.mark.parametrize(
    ("raw", "enhanced"),
    [
        ("Sum up https://example.org/wiki/Venus_(planet)", "Sum up https://example.org/wiki/Venus_(planet"),
        ("Is https://example.org/a/ up", "Is https://example.org/a up"),
        ("See https://example.org/ab", "See https://example.org/abc today"),
        ("Read https://example.org/?q=1", "Read https://example.org/?q=12"),
    ],
)
def test_another_url_is_not_the_same(raw: str, enhanced: str) -> None:
    assert missing(raw, enhanced)
