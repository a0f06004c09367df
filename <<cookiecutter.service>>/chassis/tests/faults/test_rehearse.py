"""Deployments that succeed, and others that are rolled back: `make rehearse`, by what it says, shows and leaves."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chassis.testing import containers
from chassis.testing.process import free_port

pytestmark = containers.needed

SECONDS = 600
"""Bound of a rehearsal, with the making of its environment and of its images."""

PORTS = ("PORT", "TEST_PORT", "PAGE_PORT")

EVENTS = [
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "AllowTestTraffic",
    "AfterAllowTestTraffic",
    "BeforeAllowTraffic",
    "AllowTraffic",
    "AfterAllowTraffic",
    "Wait",
    "Terminate",
]


class Rehearsal:
    """A running `make rehearse`, in a session of its own, as a terminal has one."""

    def __init__(self, picture: Path, *variables: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            ["make", f"PYTHON={sys.executable}", "rehearse", *variables],  # noqa: S607 - wherever the machine has it
            env={**inherited, **{name: str(free_port()) for name in PORTS}, "PICTURE": str(picture)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            with self._changed:
                self.lines.append(line.rstrip())
                self._changed.notify_all()

    def wait_for(self, event: str) -> None:
        """Wait until a line of that event is there."""
        with self._changed:
            assert self._changed.wait_for(lambda: event in self.events(), SECONDS), self.lines

    def interrupt(self) -> None:
        """Interrupt it, as Ctrl-C in a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> int:
        """Wait for the end; says the exit status."""
        status = self.process.wait(SECONDS)
        self._reader.join(60)
        print(*self.lines, sep="\n")
        return status

    def events(self) -> list[str]:
        """Return what was done so far, in its order."""
        return re.findall(r"^ *[\d.]+ s  (\w+)", "\n".join(self.lines), re.MULTILINE)

    @property
    def name(self) -> str:
        """Under which its containers, networks, volumes and images are."""
        found = re.search(r"[\w-]+-rehearsal-[0-9a-f]+", "\n".join(self.lines))
        assert found, self.lines
        return found[0]

    def answered(self, event: str) -> tuple[int, int]:
        """How many requests blue and green had answered when the event was over."""
        [found] = re.findall(rf"^ *[\d.]+ s  {event} +blue +(\d+)  green +(\d+)", "\n".join(self.lines), re.MULTILINE)
        return int(found[0]), int(found[1])

    def figures(self, pattern: str) -> list[int]:
        """Return the numbers in the line that says how it ended."""
        [last] = [line for line in self.lines if "as it should be" in line]
        found = re.fullmatch(f"as it should be: {pattern}; see .*", last)
        assert found, last
        return [int(number) for number in found.groups()]

    def left(self) -> str:
        """Return what Docker still has of it."""
        found = ""
        for kind in ("container ls --all", "network ls", "volume ls", "image ls"):
            what = f"reference={self.name}" if kind == "image ls" else f"name={self.name}"
            command = ["docker", *kind.split(), "--quiet", f"--filter={what}"]
            found += subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        return found


@contextmanager
def rehearse(picture: Path, *variables: str) -> Iterator[Rehearsal]:
    """Return a rehearsal that has ended, whatever happens in the block."""
    rehearsal = Rehearsal(picture, *variables)
    try:
        yield rehearsal
    finally:
        if rehearsal.process.poll() is None:
            rehearsal.interrupt()
        rehearsal.wait()
        if rehearsal.process.stdout:
            rehearsal.process.stdout.close()


@pytest.mark.parametrize("shift", ["all", "canary"])
def test_a_good_green_gets_all_traffic_and_no_request_fails(tmp_path: Path, shift: str) -> None:
    with rehearse(tmp_path / "picture.svg", f"SHIFT={shift}") as rehearsal:
        assert rehearsal.wait() == 0
        assert [event for event in rehearsal.events() if event in EVENTS] == EVENTS
        blue, green = rehearsal.answered("AllowTraffic")
        if shift == "canary":
            blue_before, green_before = rehearsal.answered("canary")
            assert 0.05 < (green - green_before) / (blue + green - blue_before - green_before) < 0.15
        else:
            assert green < 50  # those that came until the line was written
        failed, total, green = rehearsal.figures(
            r"(\d+) of (\d+) requests failed, (\d+) saw green, and all traffic is on it"
        )
        assert failed == 0
        assert 100 < green < total
        assert rehearsal.left() == ""
    picture = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert len(picture) < 150_000
    for text in [*EVENTS, f"blue: {total - green:,}", f"green: {green:,}", "failed: 0"]:
        assert text in picture
    assert str(tmp_path) not in picture


@pytest.mark.parametrize(
    ("variables", "at"),
    [
        (["GREEN=unready"], "Install"),
        (["GREEN=slow"], "AfterAllowTestTraffic"),
        (["GREEN=broken"], "AfterAllowTraffic|Wait"),
        # So long that the alarm goes off meanwhile on a busy machine, too. The canary ends when it does.
        (["GREEN=broken", "SHIFT=canary", "WATCH_SECONDS=60"], "AllowTraffic"),
    ],
    ids=["unready", "slow", "broken", "broken-canary"],
)
def test_another_green_is_rolled_back_and_blue_never_stops(tmp_path: Path, variables: list[str], at: str) -> None:
    with rehearse(tmp_path / "picture.svg", *variables) as rehearsal:
        assert rehearsal.wait() == 0
        green, total, failed = rehearsal.figures(
            rf"rolled back at (?:{at}); (\d+) of (\d+) requests saw green, (\d+) failed, and blue was never stopped"
        )
        assert "Rollback" in rehearsal.events()
        assert "Terminate" not in rehearsal.events()
        if "GREEN=broken" not in variables:
            assert (green, failed) == (0, 0)
        elif "SHIFT=canary" in variables:
            assert 0 < failed < green < total * 0.1
        else:
            assert 0 < failed < green < total
        assert rehearsal.left() == ""
    assert "Rollback" in (tmp_path / "picture.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("event", ["build", "Install", "AllowTraffic"])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, event: str) -> None:
    with rehearse(tmp_path / "picture.svg") as rehearsal:
        rehearsal.wait_for(event)
        assert rehearsal.left() != ""
        rehearsal.interrupt()
        assert rehearsal.wait() != 0
        assert "interrupted" in rehearsal.lines
        assert rehearsal.left() == ""
        assert "Traceback" not in "\n".join(rehearsal.lines)


def test_a_rehearsal_that_cannot_go_on_shows_how_far_it_came(tmp_path: Path) -> None:
    picture = tmp_path / "picture.svg"
    with rehearse(picture) as rehearsal:
        rehearsal.wait_for("BeforeInstall")
        command = ["docker", "rm", "--force", f"{rehearsal.name}-balancer"]
        subprocess.run(command, capture_output=True, check=True, timeout=60)
        assert rehearsal.wait() != 0
        [last] = [line for line in rehearsal.lines if "as it should be" in line]
        assert last.startswith("NOT as it should be: ")
        assert last.endswith(f"; see {picture}")
        assert "Traceback" not in "\n".join(rehearsal.lines)
        assert rehearsal.left() == ""
    assert "NOT as it should be: " in picture.read_text(encoding="utf-8")
