"""Copies of the service in three zones that fail: `make rehearse COPIES=6 ZONES=3`, by its figures, and its page."""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from chassis.testing import containers
from chassis.testing.process import free_port
from chassis.tests.faults.load import Answer
from chassis.tests.faults.test_rehearse import rehearse
from deploy.rehearse import fleet, names, page, rehearsal, settings
from deploy.rehearse.fleet import State
from deploy.rehearse.record import Row
from deploy.rehearse.rehearsal import Rehearsal

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and "CI" not in os.environ,  # there it must not be missed
    reason="there is no Chromium here, or no chromedriver",
)


def figures(lines: list[str]) -> dict[str, dict[str, str]]:
    """Return the rows of the table at the end, by what happened; each is a dictionary by the heads of the columns."""
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


@containers.needed
def test_six_copies_survive_the_loss_of_a_zone(tmp_path: Path) -> None:
    with rehearse(tmp_path / "picture.svg", "COPIES=6", "ZONES=3", "EVENTS=cut") as run:
        assert run.wait() == 0
        found = figures(run.lines)
        assert list(found) == ["A zone is cut off", "The zone comes back"]
        cut, back = found.values()
        print(cut, back)
        assert cut["writes lost"] == back["writes lost"] == "0"
        assert back["failed"] == "0"
        # Two of six copies are in the zone: requests to them fail until the load balancer has noticed, and no longer.
        assert 0 < int(cut["failed"]) < int(cut["requests"].replace(",", "")) / 2
        assert "service" not in cut["why they failed"]
        for row in (cut, back):
            peak, budget = map(int, row["database connections: peak of budget"].split(" of "))
            # All copies have their connections, and a rehearsal never has more than a release would need.
            assert 6 * settings.CONNECTIONS_OF_A_TASK <= peak <= budget == settings.budget(9)
        assert run.left() == ""
    picture = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    for text in ("A zone is cut off", "The zone comes back", "zone c", "healthy tasks", f"budget: {budget}"):
        assert text in picture


@containers.needed
def test_six_copies_survive_the_loss_of_the_primary(tmp_path: Path) -> None:
    with rehearse(tmp_path / "picture.svg", "COPIES=6", "ZONES=3", "EVENTS=cut-primary move") as run:
        assert run.wait() == 0
        found = figures(run.lines)
        assert list(found) == [
            "The zone of the primary is cut off",
            "The zone comes back",
            "The name of the database moves",
        ]
        print(*found.values(), sep="\n")
        assert {row["writes lost"] for row in found.values()} == {"0"}
        assert found["The zone comes back"]["failed"] == "0"
        assert run.left() == ""


@containers.needed
def test_what_one_task_suffers_and_what_is_planned_fails_as_few_requests_as_promised(tmp_path: Path) -> None:
    with rehearse(tmp_path / "picture.svg", "COPIES=3", "ZONES=3", "EVENTS=kill hang double release") as run:
        assert run.wait() == 0, run.lines  # it is not if more requests fail than the table promises
        found = figures(run.lines)
        print(*found.values(), sep="\n")
        failed = {title: int(row["failed"]) for title, row in found.items()}
        assert list(failed) == [
            "A task is killed",
            "A task hangs",
            "The load doubles",
            "The load is as before",
            "Green is released",
        ]
        assert {row["writes lost"] for row in found.values()} == {"0"}
        assert {failed[title] for title in list(failed)[2:]} == {0}
        assert failed["A task hangs"] > 0
        assert run.left() == ""


@containers.needed
def test_an_interrupt_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    with rehearse(tmp_path / "picture.svg", "COPIES=3", "ZONES=3", "EVENTS=cut-primary") as run:
        run.wait_for("network")  # a zone is cut off just now
        run.interrupt()
        assert run.wait() != 0
        assert run.left() == ""
        assert "Traceback" not in "\n".join(run.lines)


@pytest.mark.parametrize("variables", [["ZONES=2"], ["COPIES=2"], ["EVENTS=flood"]])
def test_what_cannot_be_rehearsed_is_refused(tmp_path: Path, variables: list[str]) -> None:
    with rehearse(tmp_path / "picture.svg", "COPIES=6", *variables) as run:
        assert run.wait() != 0
        assert "ZONES is 3 to 6, COPIES no fewer, EVENTS some of" in "\n".join(run.lines)


@pytest.fixture
def show() -> Rehearsal:
    """Return a rehearsal of six copies that has not begun."""
    return rehearsal.new(6, 3, rehearsal.load(1, 1, 1), 1)


def place(show: Rehearsal, *zones: str, state: State = State.HEALTHY) -> None:
    for zone in zones:
        fleet.add(show.fleet, "blue", zone).state = state


@pytest.mark.parametrize("count", range(12))
def test_tasks_are_spread_evenly(show: Rehearsal, count: int) -> None:
    quotas = fleet.quotas(show.fleet, "blue", count)
    assert sum(quotas.values()) == count
    assert max(quotas.values()) - min(quotas.values()) <= 1


def test_no_task_moves_without_need(show: Rehearsal) -> None:
    place(show, "c", "c", "c", "b", "b", "a", "a")
    assert fleet.quotas(show.fleet, "blue", 7) == Counter("cccbbaa")


def test_a_zone_that_is_gone_gets_nothing(show: Rehearsal) -> None:
    place(show, "a", "a", "b", "b")
    place(show, "c", "c", state=State.CUT_OFF)
    show.fleet.avoided.add("c")
    assert fleet.quotas(show.fleet, "blue", 6) == {"a": 3, "b": 3}


def test_all_is_well_only_with_every_task_healthy_and_in_its_zone(show: Rehearsal) -> None:
    show.fleet.wanted["blue"] = 3
    place(show, "a", "b")
    assert not show.fleet.is_well()
    place(show, "c", state=State.STARTING)
    assert not show.fleet.is_well()
    for task in show.fleet.having("blue", State.STARTING):
        task.state = State.HEALTHY
    assert show.fleet.is_well()
    place(show, "c")
    assert not show.fleet.is_well()


def test_the_name_leads_to_the_primary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ANSWER", tmp_path / "answer")
    names.ANSWER.write_text("first.internal 192.0.2.7\n", encoding="ascii")

    def ask(name: str, kind: int) -> bytes:
        head = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
        return names.response(head + names.encoded(name) + bytes([0, kind, 0, 1]), "postgres.example.com")

    found = ask("Postgres.example.com", names.A)  # names have no case
    assert found[:4] == b"\x12\x34\x85\x80"
    assert found[6:8] == b"\x00\x02"
    assert names.encoded("first.internal") in found
    assert found.endswith(b"\xc0\x00\x02\x07")
    assert ask("postgres.example.com", 28)[6:8] == b"\x00\x01"  # no IPv6 address, but the name exists
    assert ask("else.example.com", names.A)[2:4] == b"\x81\x85"


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
