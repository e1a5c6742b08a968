"""Prompts that users of such systems have reported, on the embedded pair behind a real server.

Its answers keep the prompt byte for byte, so no word, URL, placeholder or quotation of it can get lost; what is put
behind it is English about the same subject, or nothing.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro_latent_client import Client, InvalidRequestError, Optimization
from neuro_latent_core.guard import is_blank, is_degenerate
from neuro_latent_export.repository import export_repository
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from tests.cases import case
from tests.triton.conftest import through_gateway

pytestmark = pytest.mark.server

ADAPTER = Path(__file__).parents[2] / "models" / "neuro-latent-mini" / "adapter"

OTHER_LANGUAGES = [
    "주말에 갈 만한 곳을 추천해 줘",
    "اشرح لي كيف تعمل البطارية",
    "Напиши письмо другу о поездке",
    "Gib mir ein Rezept für Apfelkuchen",
    "Explique-moi comment marche un moteur",
    "Dame ideas para una fiesta de cumpleaños",
]
NOTHING_TO_READ = ["!!!", "---", "🙂🙂", "##", "\ufffd"]
NOTHING_TO_SEE = ["\u200c", "\u2060\u200b ", "\ufeff\u200d", "\x02\x1f"]
KEPT = [
    # text like a control token
    "Explain the <cls> token and </s> to a student",
    "Why does <extra_id_5> appear in my output",
    "Write HTML with <s>old</s> and <mark>new</mark> text",
    # URLs
    "Compare https://example.org/wiki/Moon_(moon) and https://example.org/wiki/Mars_(planet)",
    "Summarise https://example.com/a/b/?q=1#top for me",
    "Is http://example.com/. still online",
    # placeholders
    "Write a letter to {{customer}} about {{{order}}}",
    "Write a query with %(id)s and %s in it",
    "Copy $HOME/a to ${TARGET} with <file>{{path}}</file> and {}",
    # formulas, JSON, queries, code
    "Explain $a^2 + b^2 = c^2$ and \\sqrt{x} to a child",
    'Describe JSON like {"id": 1, "tags": ["a"]}',
    "Explain SELECT id FROM t WHERE name = 'Ann'\n```sql\nSELECT 1",
    # short words
    "fix my CSS",
    "a DNS tip",
    "an ad for a pub",
    # foreign text in an English prompt
    "Translate 谢谢你 to English",
    "Explain the Greek word φιλία to a beginner",
    "What does Добрый день mean in English?",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("embedded") / "repository"
    export_repository(ADAPTER, repository)
    with TritonServer(repository, ServerConfig(ports=FREE_PORTS, drain_timeout=3)) as running:
        yield running


@pytest.fixture(scope="module", params=["grpc", "http", "rest"])
def client(server: TritonServer, request: pytest.FixtureRequest) -> Iterator[Client]:
    if request.param == "rest":
        made = through_gateway(server)
    else:
        made = Client(server.grpc_url if request.param == "grpc" else server.http_url, timeout=120)
    with made as client:
        yield client


def checked(client: Client, prompt: str) -> Optimization:
    """The answer, with what holds for every prompt."""
    answer = client.optimize(prompt)
    assert answer.text == (f"{prompt}\n\n{answer.added}" if answer.added else prompt)
    assert not answer.added or not is_degenerate(answer.added)
    assert answer.added.isascii()  # English; copies nothing that it cannot read
    return answer


@pytest.mark.parametrize("prompt", OTHER_LANGUAGES + NOTHING_TO_READ)
def test_what_cannot_be_made_better_comes_back(client: Client, prompt: str) -> None:
    assert checked(client, prompt).unchanged


@pytest.mark.parametrize("prompt", NOTHING_TO_SEE)
def test_what_cannot_be_seen_is_refused(client: Client, prompt: str) -> None:
    with pytest.raises(InvalidRequestError, match="holds only white space and invisible characters"):
        client.optimize(prompt)


@pytest.mark.parametrize("prompt", KEPT)
def test_everything_of_a_prompt_is_kept(client: Client, prompt: str) -> None:
    checked(client, prompt)


@pytest.mark.parametrize("end", ["Translate this to French.", "List all animals.", "Is it true?"])
def test_a_prompt_that_was_cut_keeps_all_of_itself(client: Client, end: str) -> None:
    words = ["market", "orange", "history", "engine", "winter", "paper", "kitchen", "letter", "bridge", "summer"]
    body = "\n\n".join(" ".join(words[(i * j) % 10] for j in range(60)) for i in range(1, 36))
    assert checked(client, f"{body}\n\n{end}").truncated


def lines(name: str, column: str = "raw_prompt") -> list[str]:
    return [json.loads(line)[column] for line in case(name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["02-other-scripts", "03-latin-languages", "05-odd-prompts"])
def test_the_cases_that_come_back(client: Client, name: str) -> None:
    for prompt in lines(f"{name}/prompts.jsonl"):
        if is_blank(prompt):
            with pytest.raises(InvalidRequestError):
                client.optimize(prompt)
        else:
            assert checked(client, prompt).unchanged, prompt


@pytest.mark.parametrize(
    "name",
    [
        "04-special-token-text/prompts.jsonl",
        "15-urls/live.jsonl",
        "16-placeholders/prompts.jsonl",
        "17-latex-json-sql/prompts.jsonl",
        "18-short-words/prompts.jsonl",
        "19-foreign-text-in-english-prompt/prompts.jsonl",
    ],
)
def test_the_cases_that_are_kept(client: Client, name: str) -> None:
    for prompt in lines(name):
        checked(client, prompt)


def test_the_case_of_a_cut_prompt(client: Client) -> None:
    made = case("06-cut-prompt/make.py").read_text(encoding="utf-8")
    printed: list[str] = []
    exec(made, {"print": printed.append})
    prompt = json.loads(printed[0])["raw_prompt"]
    answer = checked(client, prompt)
    assert answer.truncated
    assert re.search("Translate the text above", answer.text)
