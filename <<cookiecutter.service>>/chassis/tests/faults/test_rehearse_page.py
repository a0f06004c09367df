"""The page of `make rehearse` shows what happens, obeys the keyboard, and is readable by day and by night."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from chassis.testing.process import free_port
from chassis.tests.faults.conftest import place
from chassis.tests.faults.load import Answer
from deploy.rehearse import page
from deploy.rehearse.fleet import State
from deploy.rehearse.record import Row
from deploy.rehearse.rehearsal import Rehearsal

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and "CI" not in os.environ,  # there it must not be missed
    reason="there is no Chromium here, or no chromedriver",
)


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Return a headless Chromium that notes what its pages complain of."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Without its sandbox, which root and many containers cannot have: it opens our own page only.
    for argument in ("--headless", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1600"):
        options.add_argument(argument)
    with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as driver:
        yield driver


@contextmanager
def shown(show: Rehearsal, browser: webdriver.Chrome) -> Iterator[None]:
    """Show a rehearsal in the browser."""
    with page.serving(show, free_port()) as url:
        browser.get(url)
        wait_for(browser, "clock", " s")
        yield


def text(browser: webdriver.Chrome, name: str) -> str:
    return browser.find_element(By.ID, name).text


def wait_for(browser: webdriver.Chrome, name: str, expected: str) -> None:
    WebDriverWait(browser, 30).until(lambda _: expected in text(browser, name), f"{name} does not show {expected}")


def play(show: Rehearsal) -> None:
    """Put the middle of a rehearsal into `show`."""
    place(show, "a", "a", "b")
    place(show, "b", state=State.STARTING)
    place(show, "c", state=State.CUT_OFF)
    show.stage.cut.add("c")
    show.record.title, show.record.look = "A zone is cut off", "the other zones"
    show.record.mark("A zone is cut off")
    show.record.say("network", "zone c is cut off")
    now = time.monotonic()
    show.load.answers += [Answer(now, 0.01, "GET", 200, None, "", "blue", "blue-a-1")] * 1_234
    show.load.answers += [Answer(now, 0.01, "GET", 503, None, "", "", "")] * 7
    show.record.rows.append(
        Row("A task is killed", 2_345, 5, "a few", {"503 from the load balancer": 5}, 1.234, 0, 17.25, 60, 181)
    )


@needs_chromium
def test_the_page_shows_what_happens_as_it_happens(show: Rehearsal, browser: webdriver.Chrome) -> None:
    with shown(show, browser):
        assert "Zone a" in text(browser, "zones")
        play(show)
        wait_for(browser, "zones", "blue-a-1: healthy")
        zones = text(browser, "zones")
        for expected in ("blue-b-4: starting", "Zone c: cut off", "blue-c-5: cut off"):
            assert expected in zones
        assert text(browser, "title") == "A zone is cut off"
        assert text(browser, "look") == "What to look at: the other zones"
        assert text(browser, "totals") == "blue: 1,234, green: 0, failed: 7"
        assert len(browser.find_elements(By.CSS_SELECTOR, "#traffic rect")) == 2
        assert "network zone c is cut off" in text(browser, "log")
        assert text(browser, "rows") == (
            "A task is killed 2,345 5 a few 5 503 from the load balancer 1.23 0 17.3 60 of the budget of 181"
        )
        show.record.verdict = "as it should be: 7 of 1241 requests failed"
    # The rehearsal is over, and so is its server: what it said last stays.
    wait_for(browser, "clock", "over after")
    assert text(browser, "verdict").startswith("It is over, as it should be: 7 of 1241")
    assert browser.get_log("browser") == []


@needs_chromium
def test_the_page_obeys_the_keyboard(show: Rehearsal, browser: webdriver.Chrome) -> None:
    play(show)

    def focused() -> str:
        name: str = browser.execute_script("return document.activeElement.id || document.activeElement.tagName")
        return name

    def press(key: str) -> None:
        browser.switch_to.active_element.send_keys(key)

    with shown(show, browser):
        press(Keys.TAB)
        assert focused() == "pause"
        outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        press(Keys.ENTER)
        assert text(browser, "pause") == "Continue"
        paused = text(browser, "clock")
        show.record.title = "A task hangs"
        # The next state arrives, and is not shown.
        browser.execute_script("window.came = 0; stream.addEventListener('message', () => { window.came += 1; })")
        WebDriverWait(browser, 30).until(lambda _: browser.execute_script("return window.came") > 1)
        assert (text(browser, "clock"), text(browser, "title")) == (paused, "A zone is cut off")
        press(Keys.ENTER)
        wait_for(browser, "title", "A task hangs")
        press(Keys.TAB)
        assert focused() == "SUMMARY"
        press(Keys.ENTER)
        WebDriverWait(browser, 30).until(lambda _: browser.find_element(By.TAG_NAME, "details").get_attribute("open"))
        press(Keys.TAB)
        assert focused() == "log"


CONTRASTS = r"""
const channel = (value) => {
  const part = value / 255;
  return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
};
const light = (colour) => {
  const [red, green, blue] = colour.match(/[\d.]+/g).map(Number).map(channel);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const behind = (element) => {
  const colour = getComputedStyle(element).backgroundColor;
  return colour.endsWith(", 0)") ? behind(element.parentElement) : colour;
};
const found = {};
for (const element of document.body.querySelectorAll("*")) {
  const hasText = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  if (!hasText || !element.checkVisibility()) continue;
  const style = getComputedStyle(element);
  const colours = [element instanceof SVGElement ? style.fill : style.color, behind(element)];
  const [low, high] = colours.map(light).sort((a, b) => a - b);
  found[element.textContent.slice(0, 40)] = (high + 0.05) / (low + 0.05);
}
return found;
"""
"""Returns the ratio of contrast of each text. https://www.w3.org/TR/WCAG22/#contrast-minimum asks for 4.5."""


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable_by_day_and_by_night(show: Rehearsal, browser: webdriver.Chrome, scheme: str) -> None:
    play(show)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    with shown(show, browser):
        background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
        contrasts = browser.execute_script(CONTRASTS)
        assert len(contrasts) > 20
        assert {each: ratio for each, ratio in contrasts.items() if ratio < 4.5} == {}, json.dumps(contrasts)
        if folder := os.environ.get("SCREENSHOTS"):
            browser.save_screenshot(f"{folder}/{scheme}.png")
