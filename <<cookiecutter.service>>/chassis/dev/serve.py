"""Serve on this machine, with a database of its own: `make run`. With `--reload` anew after each change: `make dev`.

The process is the one that production runs, `python -m service`.
"""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import watchfiles

from chassis.dev import postgres, steps

TRY_IT = Path("docs/try-it.txt")
WATCHED = ["service", "chassis", "pyproject.toml"]
SUFFIXES = (".py", ".sql", ".toml")

FOR_A_PERSON = {
    "WEB_CONCURRENCY": "1",  # a debugger has the terminal to itself
    "DRAIN_SECONDS": "0",  # nobody has to be told to leave
    "PYTHONBREAKPOINT": "chassis.dev.debugger.stop",
}
"""What `make dev` sets where the environment does not."""

TIMES: dict[str, Any] = {"step": 20, "debounce": 200, "rust_timeout": 100}
"""Milliseconds: a silence that ends a series of changes, the longest series, and the time between two looks at the
service."""

STOP_SECONDS = 5


class Stopped(Exception):  # noqa: N818 - not an error
    """Ctrl-C or SIGTERM came, or the terminal was closed."""


def main(arguments: list[str]) -> int:
    """Migrate and serve. Return the exit status of the service."""
    reload = "--reload" in arguments
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, _stop)  # the terminal was closed: the service itself would only reload
    try:
        with ExitStack() as stack:
            url = steps.step("start PostgreSQL", lambda: stack.enter_context(postgres.development()))
            environment = {**(FOR_A_PERSON if reload else {}), **os.environ, "DATABASE_URL": url}
            return _serve_again_and_again(environment) if reload else _serve(environment)
    except (Stopped, KeyboardInterrupt):  # watchfiles turns the one into the other
        return 0


def _stop(signum: int, _frame: FrameType | None) -> None:
    for once in (signal.SIGINT, signal.SIGHUP):  # what follows must not be interrupted
        signal.signal(once, signal.SIG_IGN)
    raise Stopped(signum)


def _migrate(environment: dict[str, str]) -> str:
    return steps.run_all([[sys.executable, "-m", "service.admin", "migrate"]], environment)


def _tell_what_to_try(environment: dict[str, str]) -> None:
    if TRY_IT.exists():  # it is the team's, which may do without
        print(TRY_IT.read_text(encoding="utf-8").replace(":8000", f":{environment.get('PORT', '8000')}"), flush=True)


def _start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the service. It shares the terminal, and so Ctrl-C, with this process."""
    return subprocess.Popen([sys.executable, "-m", "service"], env=environment)


def _serve(environment: dict[str, str]) -> int:
    """Serve until a signal, as a platform would: after SIGTERM the service has the time to drain, until another one."""
    steps.step("migrate its schema", lambda: _migrate(environment))
    _tell_what_to_try(environment)
    process = _start(environment)
    try:
        return process.wait()
    except Stopped as stopped:
        # Ctrl-C reaches the service by itself, but a SIGINT for this process alone does not.
        process.send_signal(signal.SIGINT if stopped.args == (signal.SIGINT,) else signal.SIGTERM)
        return process.wait()
    finally:
        _end(process)


def _serve_again_and_again(environment: dict[str, str]) -> int:
    """Serve until a signal, and start anew after each change of a file."""
    _tell_what_to_try(environment)
    process: subprocess.Popen[bytes] | None = None
    is_awaiting = False
    try:
        for changes in watchfiles.watch(*WATCHED, watch_filter=_is_source, **TIMES, yield_on_timeout=True):
            if changes:
                print(f"changed: {', '.join(sorted({os.path.relpath(path) for _, path in changes}))}", flush=True)
                _end(process)
            if changes or not (process or is_awaiting):
                # What it costs to look for migrations is half of a restart.
                if not process or any(path.endswith(".sql") for _, path in changes):
                    process = _migrate_and_start(environment)
                else:
                    process = _start(environment)
                is_awaiting = False
            if not (process and process.poll() is None) and not is_awaiting:
                is_awaiting = True
                print("The service does not run. It starts again after the next change of a file.", flush=True)
    finally:
        _end(process)
    return 0


def _migrate_and_start(environment: dict[str, str]) -> subprocess.Popen[bytes] | None:
    try:
        _migrate(environment)
    except steps.Failed as failure:
        print(failure, flush=True)
        return None
    return _start(environment)


def _is_source(_change: watchfiles.Change, path: str) -> bool:
    return path.endswith(SUFFIXES)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    """Stop the service at once, whatever it is doing."""
    if process and process.poll() is None:
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
