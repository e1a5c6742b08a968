"""The page in a real headless Chromium (Debian's `chromium` and `chromium-driver`)."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from neuro_latent_client.testing import FakeServer
from neuro_latent_serving.feedback import FeedbackStore
from neuro_latent_serving.gateway.access import add_key
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.server import GatewayServer, triton_client
from neuro_latent_serving.server import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_serving.settings import FEEDBACK_VARIABLE

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE_S = 20
ANSWER = "Create a Python function that sorts."

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser: apt-get install chromium chromium-driver"
)


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
        """The text of the first answer, once it is whole."""
        self.until(lambda: self.find("#facts").text)
        return self.find(".text").text

    def button(self, name: str, within: WebElement | None = None) -> WebElement:
        """By its accessible name."""
        found = (within or self.driver).find_elements(By.CSS_SELECTOR, "button")
        return next(button for button in found if button.accessible_name == name)

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


@pytest.fixture
def triton() -> FakeServer:
    return FakeServer({"Create a function": ANSWER}, delay_s=0.05)


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


def test_a_prompt_streams_in_is_compared_rated_and_edited(visit: Callable[..., Browser], triton: FakeServer) -> None:
    triton.delay_s = 0.2
    page = visit()
    page.until(lambda: page.find("#state").text == "ready")
    page.improve("Create a function")
    partly = page.until(lambda: page.find(".text").text)
    assert ANSWER.startswith(partly)
    assert partly != ANSWER
    assert page.done() == ANSWER

    page.button("Changes").click()
    added = [element.get_attribute("textContent") for element in page.driver.find_elements(By.CSS_SELECTOR, "ins")]
    assert added == ["added: Python", "added: that sorts."]
    assert not page.driver.find_elements(By.CSS_SELECTOR, "del")

    page.button("Good answer").click()
    page.until(lambda: page.find(".sent").text == "Thank you")
    assert page.button("Good answer").get_attribute("aria-pressed") == "true"
    page.find(".answer").send_keys("e")
    page.find(".edit textarea").send_keys(" Add tests.")
    page.button("Send").click()
    page.until(lambda: page.find(".sent").text == "Your version is stored")
    thumb, edit = triton.feedback.values()
    assert (thumb["rating"], thumb["raw_prompt"], thumb["enhanced_prompt"]) == (1, "Create a function", ANSWER)
    assert (edit["rating"], edit["edited_prompt"]) == (1, f"{ANSWER} Add tests.")
    assert page.errors() == []


def test_alternatives_stand_side_by_side(visit: Callable[..., Browser], triton: FakeServer) -> None:
    page = visit()
    page.find("summary").click()
    page.find("#num_return_sequences").send_keys("2", Keys.TAB)
    assert page.find("#temperature").get_attribute("value") == "0.8", "several answers need one"
    page.improve("Create a function")
    page.done()
    left, right = page.driver.find_elements(By.CSS_SELECTOR, ".answer")
    assert left.rect["y"] == right.rect["y"]
    page.button("Bad answer", right).click()
    page.until(lambda: triton.feedback)
    (said,) = triton.feedback.values()
    assert said["rating"] == -1


def test_stop_cancels_on_the_server(visit: Callable[..., Browser], triton: FakeServer) -> None:
    triton.delay_s = 1
    page = visit()
    page.improve("Create a function")
    page.until(lambda: triton.requests)
    page.find("#prompt").send_keys(Keys.ESCAPE)
    page.until(lambda: page.find(".flag").text == "Stopped.")
    page.until(lambda: triton.cancelled == {triton.requests[0].request_id})
    assert page.find("#go").is_enabled()


def test_errors_are_plain(visit: Callable[..., Browser], triton: FakeServer) -> None:
    page = visit()
    page.improve("")
    page.until(lambda: "There is no prompt" in page.find("#problem").text)
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
    page.driver.switch_to.active_element.send_keys(key, Keys.TAB)
    page.improve("Create a function")
    assert page.done() == ANSWER
    page.driver.execute_script("sessionStorage.clear()")


def test_history_and_colours_outlive_the_page(visit: Callable[..., Browser]) -> None:
    page = visit()
    page.improve("Create a function")
    page.done()
    page.button("Colours: auto").click()
    page.driver.refresh()
    assert page.button("Colours: light")
    page.find("#history button").click()
    assert page.done() == ANSWER
    assert page.find("#prompt").get_attribute("value") == "Create a function"
    page.button("Remove from history: Create a function").click()
    assert json.loads(page.driver.execute_script("return localStorage['neuro-latent.history']")) == []


def test_a_prompt_is_never_markup(visit: Callable[..., Browser]) -> None:
    page = visit()
    page.improve("<img src=x onerror=document.title='broken'> <b>bold</b>")
    page.done()
    page.button("Changes").click()
    assert "<b>bold</b>" in page.find(".text").text
    assert page.driver.title == "Neuro-Latent Optimizer"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_names_contrast_and_width(visit: Callable[..., Browser], width: int, dark: bool) -> None:
    page = visit()
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    page.improve("Create a function")
    page.done()
    page.find("summary").click()
    page.button("Changes").click()
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
    controls = page.driver.find_elements(By.CSS_SELECTOR, "button, input, textarea, summary, a")
    controls = [control for control in controls if control.is_displayed()]
    assert [control.get_attribute("outerHTML") for control in controls if not control.accessible_name] == []
    for selector in ("h1", ".hint", ".text", ".text ins", "small", "#state", ".count", ".button.main"):
        assert contrast(page, selector) >= 4.5, selector
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


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


@pytest.mark.triton
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
        page.button("Good answer").click()
        page.until(lambda: page.find(".sent").text == "Thank you")
        driver.get("about:blank")
    store = FeedbackStore(url)
    (row,) = store.records()
    store.close()
    assert (row.feedback.raw_prompt, row.feedback.enhanced_prompt, row.feedback.rating) == (
        "Create a function",
        text,
        1,
    )
