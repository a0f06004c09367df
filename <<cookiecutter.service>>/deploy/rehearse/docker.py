"""Docker commands, and waiting for what they cause."""

import signal
import subprocess
import time
from collections.abc import Callable

COMMAND_SECONDS = 600
"""Timeout of a Docker command: a first build downloads images and packages."""

POLL_SECONDS = 0.1


class StageError(Exception):
    """The rehearsal itself cannot go on. This says nothing about the release that is rehearsed."""


def docker(*arguments: str, given: str = "") -> str:
    """Run a Docker command with `given` as its input and return its output.

    Raises:
        StageError: The command failed, or there is no such program.
    """
    # In a session of its own: Ctrl-C reaches this program only, which then ends the command in order.
    try:
        process = subprocess.Popen(  # noqa: S603 - the commands are our own
            ["docker", *arguments],  # noqa: S607 - wherever the machine has it
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        raise StageError(f"a rehearsal needs Docker, whose command cannot be run: {error}") from None
    try:
        output, errors = process.communicate(given, timeout=COMMAND_SECONDS)
    except BaseException:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        raise
    if process.returncode:
        raise StageError(f"docker {' '.join(arguments)} ended with {process.returncode}: {errors[-1000:]}")
    return output.strip()


def logs(container: str) -> str:
    """Return the last lines that a container wrote to stdout and stderr."""
    command = ["docker", "logs", "--tail=5", container]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=30)  # noqa: S603 - our own command
    return done.stdout


def until(condition: Callable[[], object], seconds: float) -> bool:
    """Poll `condition` until it holds. Return whether it did within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
