"""Whether a prompt is English: right on short ones, sure of the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro_latent_core.guard.language import english_words, is_english, language, scripts

ENGLISH = [
    "sql joins",
    "haiku about rain",
    "vlookup error",
    "resume tips",
    "css bug",
    "AWS or GCP?",
    "an ad for a gym",
    "learn Go",
    "pho recipe",
    "crème brûlée recipe",
    "São Paulo itinerary",
    "Beyoncé discography",
    "Dr. Müller appointment email",
    "gödel's incompleteness theorem for non mathematicians",
    "de facto vs de jure",
    "die cut sticker pricing",
    "der die das rules",
    "los angeles to las vegas road trip",
    "soundproof a door cheap",
    "matlab fft wrong frequency axis",
    "glasses for a round face",
    "ludwig van beethoven symphony list",
    "what does carpe diem mean",
    "Translate 你好世界 to English and explain the grammar",
    "Translate the sentence Где находится библиотека? into English",
    'Explain this German sentence: "Ich habe den Zug nicht mehr erreicht, weil er zu früh war."',
    "I got this from my landlord, what do I have to do?\nSehr geehrte Mieter, am Montag wird das Wasser abgestellt. "
    "Bitte füllen Sie vorher einen Eimer.",
    "SELECT * FROM users WHERE city = 'Roma' ORDER BY name",
    "const el = document.getElementById('con')",
    "for i in range(10): print(i)",
    "Maria Schmidt Berlin",
    "x^2 + 2x = 3",
    "???",
    "",
]

# With "" where it takes a longer text to tell neighbours apart.
OTHERS = {
    "Wie bekomme ich Rotweinflecken aus dem Teppich?": "de",
    "katze frisst nicht mehr seit gestern": "de",
    "Schreibe ein Gedicht über das Meer": "de",
    "Comment apprendre la guitare": "fr",
    "écris une lettre au maire": "fr",
    "Cómo aprender guitarra": "es",
    "mi coche hace un ruido raro": "es",
    "preciso de um plano de treino": "pt",
    "o que fazer em Recife com chuva": "pt",
    "scrivi una poesia sul mare": "it",
    "come si fa il pane in casa": "it",
    "schrijf een gedicht over de zee": "nl",
    "mijn kat eet bijna niks meer": "nl",
    "napisz wiersz o morzu": "pl",
    "jak usunąć plamy z kawy": "",
    "skriv en dikt om havet": "",
    "vad ska jag laga till middag": "sv",
    "hvordan lærer jeg at spille guitar": "da",
    "deniz hakkında bir şiir yaz": "tr",
    "kedim mama yemiyor ne yapmalıyım": "",
    "tulis puisi tentang laut biru": "id",
    "cara membuat kue tanpa oven": "id",
    "làm sao để học đàn guitar": "vi",
    "mèo nhà tôi bỏ ăn hai ngày": "vi",
    "scrie o poezie despre mare": "ro",
    "cum scap de furnici din bucătărie": "ro",
    "jak se naučit na kytaru": "cs",
    "omluvenka do školy na dva dny": "",
    "miten poistan kahvitahran matosta": "fi",
    "koirani ei suostu syömään ruokaa": "",
    "írj egy verset a tengerről": "hu",
    "mujhe guitar sikhna hai kaise": "hi",
    "napishi pozdravlenie bratu na svadbu": "",
    "바다에 대한 시를 써 줘": "hangul",
    "اكتب قصيدة عن البحر": "arabic",
    "הכן תוכנית אימונים": "hebrew",
    "Как выучить гитару": "cyrillic",
    "व्यायाम योजना बनाओ": "devanagari",
    "如何学吉他": "han",
    "春についての俳句": "kana",
    "สูตรแกงเขียวหวาน": "thai",
    "Πώς μαθαίνω κιθάρα": "greek",
    "iphone 内存不足怎么清理": "han",
}


@pytest.mark.parametrize("prompt", ENGLISH)
def test_what_is_or_may_be_english_counts_as_english(prompt: str) -> None:
    assert is_english(prompt)


@pytest.mark.parametrize("prompt", OTHERS)
def test_other_languages_are_told(prompt: str) -> None:
    assert not is_english(prompt)
    assert language(prompt) == (OTHERS[prompt] or language(prompt))


def test_accents_may_be_missing() -> None:
    assert language("por que la fotosintesis es asi de dificil, explicame") == "es"
    assert language("was kostet ungefaehr eine waermepumpe fuer ein haus") == "de"


def test_letters_are_counted_by_script() -> None:
    assert scripts("Привет, world 你好") == {"cyrillic": 6, "latin": 5, "han": 2}
    assert not scripts("123 !?")


def test_the_share_of_common_english_words() -> None:
    assert english_words("the and of") == english_words("") == 1.0
    assert english_words("xyzzy plugh") == 0.0


@given(st.text())
def test_every_text_has_an_answer(text: str) -> None:
    assert isinstance(language(text), str)


@pytest.mark.parametrize("unit", ["a", "a ", "é", "的", '"', "<", "`", "a.", "://", "@", "und ", "\n", "(", "“a"])
def test_the_longest_prompts_are_soon_looked_through(unit: str) -> None:
    assert isinstance(language((unit * 262_144)[:262_144]), str)
