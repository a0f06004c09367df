"""The tools of a person at work: `make dev`, readable logs, a debugger and shells."""

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx
import pytest

from chassis import terminal
from chassis.testing.process import BIN, environment, free_port, wait_until
from chassis.tests.probe import PACKAGE

FAILS = "raise ValueError('a failure \\x1b[2J of its own')"
LOGGING = f"from chassis import logs; logs.capture('INFO', style=style)\nimport logging; logging.info('hello')\n{FAILS}"

READY = r"ready.*\[chassis\.lifecycle\]"

STOPPING = '''

_create = create_app


def create_app(settings=None):
    """Add a view with a breakpoint."""
    app = _create(settings)

    @app.get("/stop")
    def stop():
        value = "untouched"
        breakpoint()
        return value

    return app
'''


class Terminal:
    """A command whose stdin, stdout and stderr are a terminal, as a person sees it."""

    def __init__(self, command: list[str], cwd: Path | None = None, **variables: object) -> None:
        self.text = ""
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command, cwd=cwd, env=environment(**variables), stdin=slave, stdout=slave, stderr=slave, process_group=0
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(10)
        os.close(self._master)

    def _read(self) -> None:
        while True:
            try:
                self.text += os.read(self._master, 65_536).decode(errors="replace")
            except OSError:  # everybody has closed the other end
                return

    def write(self, text: str) -> None:
        """Type something."""
        os.write(self._master, text.encode())

    def wait_for(self, pattern: str, after: int = 0, seconds: float = 60) -> None:
        """Wait until a text is shown, after so many characters."""
        try:
            wait_until(lambda: re.search(pattern, self.text[after:]), seconds)
        except TimeoutError:
            pytest.fail(f"no {pattern!r} in {self.text[after:]}")

    def interrupt(self) -> float:
        """Press Ctrl-C. Return after how many seconds the command has ended."""
        started = time.monotonic()
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(30)
        return time.monotonic() - started


def on_a_terminal(style: str) -> str:
    """Return what a person sees of a process that logs."""
    with Terminal([sys.executable, "-c", f"style = {style!r}\n{LOGGING}"]) as shown:
        shown.process.wait(30)
        shown.wait_for("failure")
        return shown.text


def through_a_pipe(style: str) -> str:
    command = [sys.executable, "-c", f"style = {style!r}\n{LOGGING}"]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False).stdout


def test_a_terminal_gets_a_readable_line_an_event_and_tracebacks_as_such() -> None:
    shown = on_a_terminal("auto")
    assert terminal.COLOURS["INFO"] in shown
    assert re.search(r"\d\d:\d\d:\d\d\.\d{3}.*INFO.*hello.*\[root\]", shown)
    assert re.search(r'^Traceback .*\r\n  File "<string>", line \d+, in <module>', shown, re.MULTILINE)
    assert "ValueError: a failure" in shown
    assert "\x1b[2J" not in shown  # what comes from outside does not command the terminal


def test_whatever_is_no_terminal_gets_json() -> None:
    assert [json.loads(line)["body"] for line in through_a_pipe("auto").splitlines()] == ["hello", "uncaught exception"]


def test_a_variable_decides_otherwise() -> None:
    assert [json.loads(line)["severity_text"] for line in on_a_terminal("json").splitlines()] == ["INFO", "CRITICAL"]
    text = through_a_pipe("text")
    assert "INFO     hello" in text
    assert "\x1b" not in text


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with this service, to change it."""
    for name in ("service", "chassis", "docs"):
        shutil.copytree(name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy("pyproject.toml", tmp_path)
    return tmp_path


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    ("arguments", "signals", "is_for_all"),
    [
        ([], [signal.SIGHUP], True),  # the terminal was closed
        (["--reload"], [signal.SIGHUP], True),
        ([], [signal.SIGINT], False),  # an editor's stop button
        ([], [signal.SIGTERM, signal.SIGTERM], False),  # somebody has no time for the drain
    ],
)
def test_no_service_outlives_the_command_that_runs_it(
    copy: Path, empty_database_url: str, arguments: list[str], signals: list[signal.Signals], *, is_for_all: bool
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "chassis.dev.serve", *arguments]
    drain_seconds = 60 if signal.SIGTERM in signals else 0
    variables = {"DATABASE_URL": empty_database_url, "PORT": port, "DRAIN_SECONDS": drain_seconds}
    with Terminal(command, copy, **variables) as shown:
        shown.wait_for(READY)
        for signum in signals:
            (os.killpg if is_for_all else os.kill)(shown.process.pid, signum)
            if signum == signal.SIGTERM:
                shown.wait_for("draining")
        shown.process.wait(30)
        wait_until(lambda: is_free(port))


@contextmanager
def dev(folder: Path, database_url: str) -> Iterator[tuple[Terminal, httpx.Client]]:
    """Run what `make dev` runs."""
    port = free_port()
    command = [sys.executable, "-m", "chassis.dev.serve", "--reload"]
    with (
        Terminal(command, folder, DATABASE_URL=database_url, PORT=port) as shown,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client,
    ):
        shown.wait_for(READY)
        yield shown, client


def test_a_saved_file_starts_the_service_anew_and_a_syntax_error_is_told_and_survived(
    copy: Path, empty_database_url: str
) -> None:
    module = copy / "service" / "app.py"
    good = module.read_text(encoding="utf-8")
    with dev(copy, empty_database_url) as (shown, client):
        first = len(shown.text)
        module.write_text(f"{good}\n# A change.\n", encoding="utf-8")
        shown.wait_for(r"changed: service/app\.py", first)
        shown.wait_for(READY, first)
        assert client.get("/readyz").status_code == 200

        second = len(shown.text)
        module.write_text(f"{good}\ndef broken(:\n", encoding="utf-8")
        shown.wait_for("starts again after the next change", second)
        line = len(good.splitlines()) + 2
        assert re.search(rf'service/app\.py", line {line}', shown.text[second:])
        assert "SyntaxError" in shown.text[second:]

        third = len(shown.text)
        module.write_text(good, encoding="utf-8")
        shown.wait_for(READY, third)
        assert client.get("/readyz").status_code == 200
        assert shown.interrupt() < 5
        assert shown.process.returncode == 0
        assert "Traceback" not in shown.text[third:]


def test_a_breakpoint_in_a_view_stops_there(copy: Path, empty_database_url: str) -> None:
    module = copy / "service" / "app.py"
    module.write_text(module.read_text(encoding="utf-8") + STOPPING, encoding="utf-8")
    (copy / "docs" / "try-it.txt").unlink()  # a team's file, which nothing needs
    with dev(copy, empty_database_url) as (shown, client), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.get, "/stop")
        shown.wait_for(r"\(Pdb\)")
        assert "-> return value" in shown.text or "breakpoint()" in shown.text
        shown.write("value = 'changed'\nc\n")
        assert answer.result(30).text == "changed"


def test_the_application_answers_in_a_python_shell_without_a_server(database_url: str) -> None:
    program = (
        f"from {PACKAGE}.app import create_app\n"
        "client = create_app().test_client()\n"
        "print(client.get('/probes').status_code, client.get('/readyz').status_code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(DATABASE_URL=database_url),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[0] == "200"


def test_the_application_answers_in_flask_run(database_url: str) -> None:
    port = free_port()
    command: list[str | Path] = [BIN / "flask", "--app", f"{PACKAGE}.app", "run", "--port", str(port)]
    variables = environment(DATABASE_URL=database_url, FLASK_SKIP_DOTENV=1)
    with (
        subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):

        def answers() -> bool:
            try:
                return client.get("/probes").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers)
        process.terminate()


def test_psql_and_a_shell_use_the_development_database(database_url: str) -> None:
    makefile = Path("Makefile").read_text(encoding="utf-8")
    assert re.search(r'^psql: .*\n\t.*psql "\$\$DATABASE_URL"', makefile, re.MULTILINE)
    wrapper = [sys.executable, "-m", "chassis.dev.postgres"]
    commands = {
        "psql": [*wrapper, "sh", "-c", 'exec psql --no-psqlrc -Atc "SELECT 6 * 7" "$DATABASE_URL"'],
        "shell": [*wrapper, str(BIN / "flask"), "--app", f"{PACKAGE}.app", "shell"],
    }
    for name, command in commands.items():
        done = subprocess.run(
            command,
            env=environment(DATABASE_URL=database_url, FLASK_SKIP_DOTENV=1),
            input="print(6 * 7, app.test_client().get('/probes').status_code)\n" if name == "shell" else "",
            capture_output=True,
            text=True,
            check=True,
        )
        assert "42" in done.stdout + done.stderr, name
