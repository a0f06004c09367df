"""The contract: that it is complete and true, that clients can be made from it, and its page."""

import dataclasses
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from openapi_spec_validator import validate
from psycopg import Connection
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.wait import WebDriverWait

from chassis import config, worker
from chassis.dev import contract
from chassis.dev.contract import Node
from chassis.testing.process import BIN, environment
from chassis.tests.probe import PACKAGE, api
from chassis.tests.probe.app import create_app
from chassis.tests.probe.process import Gunicorn


def test_it_is_valid_openapi_3_1_and_has_every_route_with_its_statuses(app: Flask, client: FlaskClient) -> None:
    served = client.get("/openapi.json").get_json()
    validate(served)
    assert served["openapi"].startswith("3.1")
    statuses = {
        operation["operationId"]: set(operation["responses"])
        for methods in served["paths"].values()
        for operation in methods.values()
    }
    of_any_request = {"400", "405", "408", "414", "417", "431", "500", "501", "503"}
    assert all(of_any_request <= answers for answers in statuses.values())
    assert {name: answers - of_any_request for name, answers in statuses.items()} == {
        "createProbe": {"201", "413", "415"},
        "listProbes": {"200"},
        "putProbe": {"200", "201", "413", "415"},
        "getProbe": {"200", "404"},
        "deleteProbe": {"204"},
        "getLiveness": {"200"},
        "getReadiness": {"200"},
        "getVersion": {"200"},
        "getContract": {"200"},
    }
    described = {(path, method.upper()) for path, item in served["paths"].items() for method in item}
    rules = {(rule.rule, method) for rule in app.url_map.iter_rules() for method in rule.methods or ()}
    assert {(re.sub(r"<(\w+)>", r"{\1}", path), method) for path, method in rules if method in METHODS} == described


METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
"""HEAD and OPTIONS are Flask's, on every path."""


def test_it_has_what_the_server_answers_by_itself(client: FlaskClient) -> None:
    described = client.get("/openapi.json").get_json()["paths"]["/livez"]["get"]["responses"]
    never = 403  # of a protocol that is off: a proxy's own
    assert {str(status) for status in worker.STATUSES.values() if status != never} <= set(described)


def test_it_says_the_limits_that_are_enforced(client: FlaskClient) -> None:
    served = client.get("/openapi.json").get_json()
    body = served["components"]["schemas"]["NewProbe"]
    text = body["properties"]["text"]
    assert (text["minLength"], text["maxLength"], body["additionalProperties"]) == (1, 10_000, False)
    [limit, _after] = (parameter["schema"] for parameter in served["paths"]["/probes"]["get"]["parameters"])
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 100, 20)
    probe = served["components"]["schemas"]["Probe"]
    assert set(probe["properties"]) == {field.name for field in dataclasses.fields(api.Probe)}


def test_it_says_what_refusals_tell_in_their_headers(client: FlaskClient) -> None:
    answers = client.get("/openapi.json").get_json()["components"]["responses"]
    told = {name: set(answer["headers"]) for name, answer in answers.items() if "headers" in answer}
    assert told == {
        "Unauthorized": {"WWW-Authenticate"},
        "MethodNotAllowed": {"Allow"},
        "ServiceUnavailable": {"Retry-After"},
    }


def bodies(node: Any) -> Iterator[Node]:
    """Each description of a body, and each parameter, that is somewhere in `node`."""
    if isinstance(node, dict) and "schema" in node:
        yield node
    elif isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from bodies(inner)


def test_every_body_has_an_example_and_every_example_is_valid(client: FlaskClient) -> None:
    served = client.get("/openapi.json").get_json()
    contents = [content for node in described_contents(served) for content in node.values()]
    assert len(contents) > 20
    assert all("example" in content for content in contents)
    for described in bodies(served):
        schema = described["schema"] | {"components": served["components"]}
        for example in [node["example"] for node in (described, described["schema"]) if "example" in node]:
            OAS31Validator(schema, format_checker=oas31_format_checker).validate(example)


def described_contents(node: Any) -> Iterator[Node]:
    """Each `content` that is somewhere in `node`."""
    for name, inner in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if name == "content":
            yield inner
        else:
            yield from described_contents(inner)


def test_what_the_example_asks_for_is_answered_like_the_example(client: FlaskClient, conn: Connection) -> None:
    operation = client.get("/openapi.json").get_json()["paths"]["/probes"]["post"]
    asked = operation["requestBody"]["content"]["application/json"]["example"]
    answered = operation["responses"]["201"]["content"]["application/json"]["example"]
    created = client.post("/probes", json=asked).get_json()
    assert created.keys() == answered.keys()
    assert conn.execute("SELECT text FROM probes").fetchall() == [(answered["text"],)]


def test_under_a_prefix_it_has_the_paths_that_the_balancer_routes(settings: config.Config) -> None:
    prefixed = create_app(dataclasses.replace(settings, url_prefix="/api/orders")).test_client()
    served = prefixed.get("/api/orders/openapi.json").get_json()
    assert set(served["paths"]) == {f"/api/orders{path}" for path in contract.now(PACKAGE)["paths"]}


def test_a_generated_client_creates_reads_lists_and_deletes(
    gunicorn: Gunicorn, conn: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute("SELECT 1")  # on an empty table
    (tmp_path / "openapi.json").write_text(gunicorn.get("/openapi.json").text)
    done = subprocess.run(
        [
            *(BIN / "openapi-python-client", "generate", "--path", tmp_path / "openapi.json"),
            *("--meta", "none", "--output-path", tmp_path / "generated", "--fail-on-warning"),
        ],
        # It formats its work with ruff, whose cache would lie in a folder that all users of the machine share.
        env=environment(PATH=f"{BIN}:{os.environ['PATH']}", RUFF_NO_CACHE="true"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    made, models = importlib.import_module("generated"), importlib.import_module("generated.models")

    def call(operation: str) -> Any:
        return importlib.import_module(f"generated.api.probes.{operation}").sync_detailed

    with made.Client(gunicorn.url, raise_on_unexpected_status=True, httpx_args={"trust_env": False}) as client:
        probe = call("create_probe")(client=client, body=models.NewProbe(text="hello")).parsed
        assert isinstance(probe, models.Probe)
        assert call("get_probe")(probe.id, client=client).parsed == probe
        page = call("list_probes")(client=client, limit=1).parsed
        assert isinstance(page, models.ProbePage)
        assert (page.items, page.next_) == ([probe], None)
        assert call("delete_probe")(probe.id, client=client).status_code == 204
        problem = call("get_probe")(probe.id, client=client).parsed
        assert isinstance(problem, models.Problem)
        assert problem.status == 404


@pytest.mark.parametrize("path", ["/docs", "/docs/start.js", "/docs/assets/js/swagger-ui-bundle.js"])
def test_there_is_no_page_unless_it_is_asked_for(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(("docs", "imported"), [("false", "False"), ("true", "True")])
def test_nothing_of_the_page_is_imported_unless_it_is_asked_for(docs: str, imported: str) -> None:
    program = (
        "import sys, chassis.tests.probe.app as it; it.create_app(); print('flask_openapi3_swagger' in sys.modules)"
    )
    env = environment(DATABASE_URL="postgresql://nobody@nowhere/nothing", DOCS=docs)
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == imported


@pytest.mark.parametrize("prefix", ["", "/api/orders"])
def test_the_page_finds_all_that_it_needs_under_its_own_path(settings: config.Config, prefix: str) -> None:
    client = create_app(dataclasses.replace(settings, docs=True, url_prefix=prefix)).test_client()
    page = client.get(f"{prefix}/docs")
    assert (page.status_code, page.content_type) == (200, "text/html; charset=utf-8")
    wanted = [*re.findall(r'(?:href|src)="([^"]+)"', page.text), "openapi.json"]
    assert len(wanted) == 5
    for name in wanted:
        with client.get(urljoin(f"{prefix}/docs", name)) as answer:
            assert answer.status_code == 200, name


def test_the_page_may_load_only_from_here_and_run_nothing_inline(settings: config.Config) -> None:
    answer = create_app(dataclasses.replace(settings, docs=True)).test_client().get("/docs")
    policy = dict(directive.split(" ", 1) for directive in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {source for sources in policy.values() for source in sources.split()} == {"'none'", "'self'", "data:"}
    assert policy["script-src"] == "'self'"


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Return a headless Chromium that notes what its pages ask for and complain of."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Without its sandbox, which root and many containers cannot have: it opens our own page only.
    for argument in ("--headless", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=960,1500"):
        options.add_argument(argument)
    with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as driver:
        yield driver


@pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and "CI" not in os.environ,  # there it must not be missed
    reason="there is no Chromium here, or no chromedriver",
)
def test_a_request_is_tried_out_on_the_page(
    browser: webdriver.Chrome, processes: Any, database_url: str, tmp_path: Path
) -> None:
    server = processes.enter_context(Gunicorn(DATABASE_URL=database_url, DOCS="true"))
    wait = WebDriverWait(browser, 30)

    def click(selector: str) -> None:
        found = wait.until(expected_conditions.element_to_be_clickable((By.CSS_SELECTOR, selector)))
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()

    browser.get(f"{server.url}/docs")
    create = "#operations-probes-createProbe"
    click(f"{create} .opblock-summary-control")
    click(f"{create} .try-out__btn")
    click(f"{create} .execute")
    answer = (By.CSS_SELECTOR, f"{create} .live-responses-table .response")
    shown = wait.until(expected_conditions.visibility_of_element_located(answer))
    assert shown.text.startswith("201")
    assert '"text": "hello"' in shown.text
    assert server.wait_for("POST /probes 201")["http.response.status_code"] == 201
    browser.execute_script("arguments[0].scrollIntoView()", browser.find_element(By.CSS_SELECTOR, create))
    browser.save_screenshot(os.environ.get("SCREENSHOT", str(tmp_path / "docs.png")))
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    assert f"{server.url}/probes" in asked
    assert [url for url in asked if not url.startswith((f"{server.url}/", "data:"))] == []
    assert browser.get_log("browser") == []

    inline = "const it = document.createElement('script'); it.text = 'window.ran = true'; document.body.append(it);"
    assert browser.execute_script(f"{inline} return window.ran") is None
    [complaint] = browser.get_log("browser")
    assert "Content Security Policy" in complaint["message"]
