"""The page in a real headless Chromium (Debian's `chromium` and `chromium-driver`)."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from neuro_latent_client.testing import FakeServer
from neuro_latent_core.form import Form
from neuro_latent_core.protocol import FEEDBACK_MODEL, STREAM_MODEL, UNARY_MODEL
from neuro_latent_serving.feedback import FeedbackStore
from neuro_latent_serving.gateway.api_keys import add_key
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.server import GatewayServer, triton_client
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_serving.settings import FEEDBACK_VARIABLE

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE_S = 20
AXE_VERSION = "4.14.1"
PROMPT = "Create a function"
ADDED = "Use Python, e.g. Version 3.11. 1. Say what it returns. Add tests!"
SENTENCES = ["Use Python, e.g. Version 3.11.", "1. Say what it returns.", "Add tests!"]
ANSWER = f"{PROMPT}\n\n{ADDED}"
REWRITTEN = "Create a Python function that sorts."

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no browser: apt-get install chromium chromium-driver"),
]


class Browser:
    """The page as a person uses it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.find = lambda selector: driver.find_element(By.CSS_SELECTOR, selector)

    def until(self, condition: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, PATIENCE_S, poll_frequency=0.05).until(lambda _: condition())

    def improve(self, prompt: str) -> None:
        box = self.find("#prompt")
        box.clear()
        box.send_keys(prompt, Keys.CONTROL + Keys.ENTER)

    def done(self) -> str:
        """The text of the first answer as it is shown, once it is whole."""
        self.until(lambda: self.find("#facts").text)
        return self.shown()

    def shown(self) -> str:
        text: str = self.driver.execute_script("return run.cards[0].shown")
        return text

    def copied(self) -> str:
        """What Copy puts into the clipboard."""
        self.button("Copy").click()
        self.until(lambda: self.find(".sent").text == "Copied")
        self.find("#prompt").clear()
        self.find("#prompt").send_keys(Keys.CONTROL + "v")
        return str(self.find("#prompt").get_property("value"))

    def rated(self, name: str) -> None:
        """Rates the first answer, and sends it at once, as when the page is left."""
        self.button(name).click()
        self.driver.execute_script("dispatchEvent(new Event('pagehide'))")
        self.until(lambda: self.find(".sent").text == "Thank you")

    def sentences(self) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, ".sentence")

    def button(self, name: str, within: WebElement | None = None) -> WebElement:
        """By its accessible name; looked for again while the page draws its buttons anew."""

        def look(_: Any) -> WebElement | None:
            found = (within or self.driver).find_elements(By.CSS_SELECTOR, "button")
            return next((button for button in found if button.accessible_name == name), None)

        wait = WebDriverWait(self.driver, PATIENCE_S, 0.05, ignored_exceptions=[StaleElementReferenceException])
        button: WebElement = wait.until(look)
        return button

    def screen(self, width: int = 0, height: int = 0, *, dark: bool | None = None) -> None:
        """Of this size and colours; without them as it was at first."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": 0 < width < 500}
        scheme = [] if dark is None else [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def errors(self) -> list[Any]:
        """What the console has to say, a request's status aside."""
        return [line for line in self.driver.get_log("browser") if "Failed to load resource" not in line["message"]]


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield made
    made.quit()


@pytest.fixture(scope="session")
def axe(request: pytest.FixtureRequest) -> str:
    """The script of axe-core, which npm fetches once into pytest's cache."""
    folder = request.config.cache.mkdir("axe-core")
    archive = folder / f"axe-core-{AXE_VERSION}.tgz"
    command = ["npm", "pack", f"axe-core@{AXE_VERSION}", "--pack-destination", str(folder)]
    with suppress(OSError, subprocess.SubprocessError):
        if not archive.exists():
            subprocess.run(command, check=True, capture_output=True, timeout=60)
    if not archive.exists():
        pytest.skip(f"no axe-core: {' '.join(command)}")
    with tarfile.open(archive) as files:
        script = files.extractfile("package/axe.min.js")
        assert script
        return script.read().decode()


@pytest.fixture
def triton() -> FakeServer:
    return FakeServer({PROMPT: ADDED}, delay_s=0.05)


@pytest.fixture
def visit(driver: webdriver.Chrome, triton: FakeServer, tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    """Opens the page of a new gateway."""
    started: list[GatewayServer] = []

    def open_page(**settings: Any) -> Browser:
        config = GatewayConfig(port=0, log_file=tmp_path / "log", **settings)
        started.append(GatewayServer(config, lambda: triton.async_client(retries=0)))
        started[-1].start()
        driver.get(started[-1].url)
        return Browser(driver)

    yield open_page
    driver.get("about:blank")  # its requests end
    for server in started:
        server.stop(lambda: True)


def test_a_rewrite_streams_in_is_compared_rated_and_edited(visit: Callable[..., Browser], triton: FakeServer) -> None:
    triton.delay_s, triton.form, triton.answers = 0.2, "rewrite", {PROMPT: REWRITTEN}
    page = visit()
    page.until(lambda: page.find("#state").text == "ready")
    page.improve(PROMPT)
    partly = page.until(lambda: page.find(".text").text)
    assert REWRITTEN.startswith(partly)
    assert partly != REWRITTEN
    assert page.done() == REWRITTEN

    page.button("Changes").click()
    added = [element.get_attribute("textContent") for element in page.driver.find_elements(By.CSS_SELECTOR, "ins")]
    assert added == ["added: Python", "added: that sorts."]
    assert not page.driver.find_elements(By.CSS_SELECTOR, "del")

    page.rated("Good answer")
    assert page.button("Good answer").get_attribute("aria-pressed") == "true"
    page.find(".answer").send_keys("e")
    page.find(".edit textarea").send_keys(" Add tests.")
    page.button("Send").click()
    page.until(lambda: page.find(".sent").text == "Your version is stored")
    thumb, edit = triton.feedback.values()
    assert (thumb["rating"], thumb["raw_prompt"], thumb["enhanced_prompt"]) == (1, PROMPT, REWRITTEN)
    assert (edit["rating"], edit["edited_prompt"]) == (1, f"{REWRITTEN} Add tests.")
    assert page.errors() == []


def test_the_prompt_stays_and_each_added_sentence_can_be_switched(
    visit: Callable[..., Browser], triton: FakeServer
) -> None:
    triton.delay_s = 0.3
    page = visit()
    page.improve(PROMPT)
    page.until(lambda: page.find(".text").text == PROMPT)
    assert page.done() == ANSWER
    assert not page.find("#switch").is_displayed(), "no word of the prompt has changed"
    assert page.find(".prompt").text == PROMPT
    assert [sentence.text for sentence in page.sentences()] == SENTENCES
    assert [sentence.accessible_name for sentence in page.sentences()] == SENTENCES
    assert page.copied() == ANSWER

    page.sentences()[1].click()
    page.sentences()[2].send_keys(Keys.SPACE)
    assert [sentence.get_attribute("aria-pressed") for sentence in page.sentences()] == ["true", "false", "false"]
    kept = f"{PROMPT}\n\n{SENTENCES[0]}"
    assert page.copied() == page.shown() == kept
    page.rated("Good answer")
    page.sentences()[2].send_keys(Keys.ENTER)
    assert page.button("Good answer").get_attribute("aria-pressed") == "false", "another text was rated"
    assert page.shown() == f"{kept} {SENTENCES[2]}"
    page.find(".answer").send_keys("e")
    assert page.find(".edit textarea").get_property("value") == page.shown()
    page.sentences()[0].click()
    page.sentences()[2].click()
    assert page.find(".edit textarea").get_property("value") == page.shown() == PROMPT
    page.button("Send").click()
    page.until(lambda: page.find(".sent").text == "Your version is stored")
    thumb, edit = triton.feedback.values()
    assert (thumb["rating"], thumb["enhanced_prompt"]) == (1, kept)
    assert (edit["enhanced_prompt"], edit["edited_prompt"]) == (PROMPT, PROMPT)
    assert page.errors() == []


@pytest.mark.parametrize(
    "added",
    [
        "One.  Two.\n\nThree: a) b) c)\n",
        "Write in a table:\n1. a name\n2. a price. ```py\nx = 1. + .5\n``` ",
        "Wofür? Für wen! 用中文写。要短。 \U0001f600 e.g. Dr. No",
        " ",
    ],
)
def test_sentences_hold_all_of_the_addition(visit: Callable[..., Browser], triton: FakeServer, added: str) -> None:
    page = visit()
    sentences = page.driver.execute_script("return sentencesOf(arguments[0])", added)
    assert "".join(sentences) == added
    assert len(sentences) == 1 or all(any(map(str.isalpha, sentence)) for sentence in sentences)


def asked(triton: FakeServer) -> Any:
    """The first answer that the page has asked for, or None; its health check asks for others, of one token."""
    models = (UNARY_MODEL, STREAM_MODEL)
    return next((r for r in triton.requests if r.model in models and r.inputs.get("max_length") != 1), None)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"answers": {PROMPT: ""}}, "Nothing added: the model has nothing to add."),
        ({"confidence": 0.2}, "Nothing added: the model is not sure enough."),
        ({"withheld": {PROMPT: "loop"}}, "Nothing added: the model's text was not good enough (loop)."),
    ],
)
def test_an_unchanged_answer_says_why(
    visit: Callable[..., Browser], triton: FakeServer, setting: dict[str, Any], words: str
) -> None:
    for name, value in setting.items():
        setattr(triton, name, value)
    page = visit()
    page.find("summary").click()
    page.find("#min_confidence").send_keys("0.5")
    page.improve(PROMPT)
    assert page.done() == page.copied() == PROMPT
    assert page.find(".flag").text == words
    assert page.sentences() == []
    assert asked(triton).inputs["min_confidence"] == 0.5


def test_alternatives_stand_side_by_side(visit: Callable[..., Browser], triton: FakeServer) -> None:
    triton.withheld = {PROMPT: "loop"}
    page = visit()
    page.find("summary").click()
    page.find("#num_return_sequences").send_keys("2", Keys.TAB)
    assert page.find("#temperature").get_attribute("value") == "0.8", "several answers need one"
    page.improve("Create a function")
    page.done()
    left, right = page.driver.find_elements(By.CSS_SELECTOR, ".answer")
    assert left.rect["y"] == right.rect["y"]
    reasons = [flag.text for flag in page.driver.find_elements(By.CSS_SELECTOR, ".flag")]
    assert reasons == ["Nothing added: the model's text was not good enough (loop)."] * 2
    page.button("Bad answer", right).click()
    page.driver.refresh()
    page.until(lambda: triton.feedback)
    (said,) = triton.feedback.values()
    assert said["rating"] == -1


def test_a_rating_can_be_taken_back(visit: Callable[..., Browser], triton: FakeServer) -> None:
    page = visit()
    page.improve(PROMPT)
    page.done()
    page.button("Good answer").click()
    page.button("Undo").send_keys(Keys.ENTER)
    page.until(lambda: page.find(".sent").text == "Taken back")
    assert page.driver.switch_to.active_element.accessible_name == "Good answer"
    page.find(".answer").send_keys("u")
    page.find(".answer").send_keys("u")
    assert page.button("Good answer").get_attribute("aria-pressed") == "false"
    page.rated("Bad answer")
    assert [said["rating"] for said in triton.feedback.values()] == [-1]
    triton.fail("denied", "no", model=FEEDBACK_MODEL)
    page.button("Good answer").click()
    page.driver.execute_script("dispatchEvent(new Event('pagehide'))")
    page.until(lambda: page.button("Good answer").get_attribute("aria-pressed") == "false")
    assert page.find(".sent.failed").text


def test_stop_cancels_on_the_server(visit: Callable[..., Browser], triton: FakeServer) -> None:
    triton.delay_s = 1
    page = visit()
    page.improve("Create a function")
    page.until(lambda: asked(triton))
    page.find("#prompt").send_keys(Keys.ESCAPE)
    page.until(lambda: page.find(".flag").text == "Stopped.")
    page.until(lambda: triton.cancelled == {asked(triton).request_id})
    assert page.find("#go").is_enabled()


def test_errors_are_plain(visit: Callable[..., Browser], triton: FakeServer) -> None:
    page = visit()
    page.improve("")
    page.until(lambda: "There is no prompt" in page.find("#problem").text)
    page.until(lambda: page.find("#state").text == "ready")  # the failure is not for the health's own requests
    triton.fail("busy", "the queue is full")
    page.improve("Create a function")
    page.until(lambda: "The server is busy" in page.find("#problem").text)
    assert "Request " in page.find("#problem").text
    page.improve("Create a function")
    page.done()
    assert not page.find("#problem").is_displayed()


def test_a_key_is_asked_for_and_sent(visit: Callable[..., Browser], tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys", "ann")
    page = visit(api_keys=tmp_path / "keys")
    page.improve("Create a function")
    page.until(lambda: "An API key is needed" in page.find("#problem").text)
    page.driver.switch_to.active_element.send_keys("wrong", Keys.ENTER)
    page.until(lambda: "is not known here" in page.find("#problem").text)
    field = page.driver.switch_to.active_element
    assert field.accessible_name == "API key"
    field.clear()
    field.send_keys(key, Keys.ENTER)
    assert page.done() == ANSWER
    assert key not in page.driver.current_url
    assert key not in (tmp_path / "log").read_text()
    page.driver.refresh()
    page.until(lambda: page.find("#state").text == "ready")
    assert page.find("#key").is_displayed()
    page.improve("Create a function")
    assert page.done() == ANSWER
    page.driver.execute_script("sessionStorage.clear()")


@pytest.mark.parametrize("names", [["default"], ["default", "team"]])
def test_an_adapter_is_chosen_where_there_are_several(
    visit: Callable[..., Browser], triton: FakeServer, names: list[str]
) -> None:
    triton.adapters = {name: f"{name}-1" for name in names}
    page = visit()
    page.until(lambda: len(page.driver.find_elements(By.CSS_SELECTOR, "#adapter option")) == len(names))
    assert page.find("#adapter").is_displayed() == (len(names) > 1)
    if len(names) > 1:
        assert page.find("#adapter").get_property("value") == "default"
        page.find("#adapter").send_keys("team")
    page.improve(PROMPT)
    page.done()
    assert f"model {names[-1]}-1" in page.find("#facts").text
    page.driver.refresh()
    page.until(lambda: len(page.driver.find_elements(By.CSS_SELECTOR, "#adapter option")) == len(names))
    page.find("#history button").click()
    assert page.find("#adapter").get_property("value") == names[-1]
    assert page.errors() == []


def test_history_and_colours_outlive_the_page(visit: Callable[..., Browser]) -> None:
    page = visit()
    page.improve("Create a function")
    page.done()
    page.button("Colours: auto").click()
    page.find("#prompt").send_keys(", not yet sent")
    page.driver.refresh()
    assert page.button("Colours: light")
    assert page.find("#prompt").get_attribute("value") == "Create a function, not yet sent"
    page.find("#history button").click()
    assert page.done() == ANSWER
    assert page.find("#prompt").get_attribute("value") == "Create a function"
    page.button("Remove from history: Create a function").click()
    assert json.loads(page.driver.execute_script("return localStorage['neuro-latent.history']")) == []


def test_a_prompt_is_never_markup(visit: Callable[..., Browser], triton: FakeServer) -> None:
    page = visit()
    page.improve("<img src=x onerror=document.title='broken'> <b>bold</b>")
    page.done()
    assert "<b>bold</b>" in page.find(".prompt").text
    triton.form = "rewrite"
    page.improve("<b>bold</b>")
    assert page.done() == "Improved: <b>bold</b>"
    page.button("Changes").click()
    assert "<b>bold</b>" in page.find(".text").text
    assert page.driver.title == "Neuro-Latent Optimizer"


@pytest.mark.parametrize("form", ["complement", "rewrite"])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_names_contrast_and_width(
    visit: Callable[..., Browser], triton: FakeServer, width: int, dark: bool, form: Form
) -> None:
    triton.form = form
    page = visit()
    page.screen(width, 900, dark=dark)
    page.improve("overflow " * 50)
    page.done()
    page.improve("Create a function")
    page.done()
    page.find("summary").click()
    if form == "rewrite":
        page.button("Changes").click()
    else:
        page.sentences()[1].click()
    for panel in ("html", "aside", "#history"):
        element = page.find(panel)
        assert element.get_property("scrollWidth") <= element.get_property("clientWidth") <= width, panel
    controls = page.driver.find_elements(By.CSS_SELECTOR, "button, input, textarea, summary, a")
    controls = [control for control in controls if control.is_displayed()]
    assert [control.get_attribute("outerHTML") for control in controls if not control.accessible_name] == []
    own = ".text ins" if form == "rewrite" else ".sentence, .sentence[aria-pressed=false]"
    for selector in ("h1", ".hint", ".text", *own.split(", "), "small", "#state", ".count", ".button.main"):
        assert contrast(page, selector) >= 4.5, selector
    page.screen()


def test_axe_finds_nothing(visit: Callable[..., Browser], axe: str) -> None:
    page = visit()
    page.find("summary").click()
    page.improve(PROMPT)
    page.done()
    page.sentences()[1].click()
    page.find(".answer").send_keys("e")
    page.button("Good answer").click()
    page.driver.execute_script(
        "complain({ title: 'Too many requests', what: 'Wait.', id: 'r1' }); access.hidden = false"
    )
    page.driver.execute_script(axe)
    for width, height in ((1280, 800), (390, 844)):
        for dark in (False, True):
            page.screen(width, height, dark=dark)
            found = page.driver.execute_async_script("axe.run().then(arguments[0])")
            wrong = [(rule["id"], node["html"]) for rule in found["violations"] for node in rule["nodes"]]
            assert found["passes"], "nothing was looked at"
            assert wrong == [], (width, dark)
    page.screen()


def contrast(page: Browser, selector: str) -> float:
    """Of an element's text to what is behind it, as WCAG 2 has it."""
    front, back = page.driver.execute_script(
        """let at = document.querySelector(arguments[0]), front = getComputedStyle(at).color, back;
        while ((back = getComputedStyle(at).backgroundColor) === 'rgba(0, 0, 0, 0)') at = at.parentElement;
        return [front, back].map((colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number));""",
        selector,
    )
    lighter, darker = sorted(map(luminance, (front, back)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(rgb: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.server
def test_a_rating_on_the_page_is_in_the_database(driver: webdriver.Chrome, repository: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/feedback.sqlite3"
    config = GatewayConfig(port=0, log_file=tmp_path / "log")
    with (
        TritonServer(
            repository, ServerConfig(ports=FREE_PORTS, drain_timeout=3, environment={FEEDBACK_VARIABLE: url})
        ) as triton,
        GatewayServer(config, lambda: triton_client(config, triton.grpc_url)) as gateway,
    ):
        gateway.start()
        driver.get(gateway.url)
        page = Browser(driver)
        page.improve("Create a function")
        text = page.done()
        store = FeedbackStore(url)
        for number, name in enumerate(("Good answer", "Bad answer", "Good answer"), 1):
            page.rated(name)
            assert len([*store.records()]) == number
        driver.get("about:blank")
    rows = [record.feedback for record in store.records()]
    store.close()
    assert {(row.raw_prompt, row.enhanced_prompt) for row in rows} == {("Create a function", text)}
    assert [row.rating for row in rows] == [1, -1, 1], "who changes a rating twice means the last one"
