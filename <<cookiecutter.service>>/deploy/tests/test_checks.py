"""The checks and their client find the faults of a release that is really there."""

import json
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError

import pytest

from deploy import checks, client, config, hooks, smoke
from deploy.tests.cloud import Cloud
from deploy.tests.conftest import BINARIES, PREFIX, Process


def test_the_checks_work_from_a_laptop_with_the_standard_library_alone(green: Process, tmp_path: Path) -> None:
    code = f"from deploy import checks; print(checks.everything({green.url!r}, {PREFIX!r}, '2+build-2', 1000))"
    done = subprocess.run(
        [BINARIES / "python", "-S", "-c", code],
        cwd=config.ROOT,
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "'release': '2+build-2'" in done.stdout


def test_a_green_that_is_too_slow_fails(green: Process) -> None:
    with pytest.raises(client.CheckError, match=r"p95 of 50 requests is .* ms, above 0 ms"):
        checks.latency(green.url, PREFIX, None, 0.001)


def test_a_green_without_a_database_fails() -> None:
    process = Process("postgresql://nobody@127.0.0.1:1/nothing", "9+build-9")
    try:
        assert checks.ready(process.url, PREFIX, "9+build-9") == {"release": "9+build-9"}
        with pytest.raises(client.CheckError, match=f" {PREFIX}{smoke.PATH}.*: 503 instead of 20"):
            smoke.check(process.url, PREFIX, "9+build-9")
    finally:
        process.stop()


def test_a_path_that_leads_nowhere_fails(green: Process) -> None:
    with pytest.raises(client.CheckError, match="GET /api/nowhere/readyz: 404 instead of 200"):
        checks.ready(green.url, "/api/nowhere", None, 0)


def test_a_listener_that_does_not_answer_fails(dumb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "REQUEST_SECONDS", 0.2)
    with pytest.raises(client.CheckError, match=r"not ready after 0 s: .* no answer from http://127.0.0.1"):
        checks.ready(dumb, PREFIX, None, 0)


def test_hooks_get_a_token_where_the_service_wants_one(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Issuer) as issuer:
        Thread(target=issuer.handle_request, daemon=True).start()
        secret = {
            "token_url": f"http://127.0.0.1:{issuer.server_port}/token",
            "client_id": "hooks",
            "client_secret": "s",
        }
        made = cloud.client("secretsmanager").create_secret(Name="hooks", SecretString=json.dumps(secret))
        monkeypatch.setenv("TOKEN_CREDENTIALS", made["ARN"])
        monkeypatch.setattr(client, "credentials", {})
        hooks._authorize()  # noqa: SLF001 - what each hook does first
    assert client.credentials == {
        "Authorization": "Bearer grant_type=client_credentials&client_id=hooks&client_secret=s"
    }


def test_the_response_of_an_issuer_that_refuses_is_closed(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Issuer) as issuer:
        Thread(target=issuer.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{issuer.server_port}/nothing"
        secret = json.dumps({"token_url": url, "client_id": "hooks", "client_secret": "s"})
        made = cloud.client("secretsmanager").create_secret(Name="hooks", SecretString=secret)
        monkeypatch.setenv("TOKEN_CREDENTIALS", made["ARN"])
        with pytest.raises(HTTPError, match="404") as refused:
            hooks._authorize()  # noqa: SLF001 - as above
    assert refused.value.fp.closed


class Issuer(BaseHTTPRequestHandler):
    """Issues tokens that repeat the request, at `/token`."""

    def do_POST(self) -> None:
        """Answer with a token."""
        token = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.send_response(200 if self.path == "/token" else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"access_token": token}).encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the class above
        """Print nothing."""


def test_the_certificates_of_authorities_are_read_once() -> None:
    assert client.tls() is client.tls()
