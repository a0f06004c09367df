"""Run targets of the Makefile, several at once, with a line for each: `python3 -m chassis.dev.steps lint types`.

The output of a target is shown only if it fails. What tests have skipped is one table at the end.
"""

import argparse
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SKIPPED = re.compile(r"^(?:SKIPPED \[(\d+)\] \S+?: | *(\d+) skipped: )(.*)$", re.MULTILINE)
"""As pytest says it, and as this module does when a target runs it in its turn."""

TOTAL = re.compile(r"^\d+ passed, \d+ failed, \d+ skipped$", re.MULTILINE)
COUNTS = re.compile(r"\b(\d+) (passed|failed|skipped|error)")
SUMMARY = re.compile(r"^(?:=+ )?\d+ (?:passed|failed|skipped|error|deselected).* in [\d.]+s.*$", re.MULTILINE)

_printing = threading.Lock()


class Failed(Exception):  # noqa: N818 - not an error of the program
    """A command failed. The text is its output."""


def step(title: str, action: Callable[[], T]) -> T:
    """Run `action`, print its title with its time, and return what it returns. End the program if it fails."""
    started = time.monotonic()
    print(f"{title:<52}", end="", flush=True)
    try:
        found = action()
    except Failed as failure:
        print("failed")
        sys.exit(f"{failure}")
    print(f"{time.monotonic() - started:7.1f} s", flush=True)
    return found


def run_all(commands: Sequence[Sequence[object]], environment: Mapping[str, str] | None = None) -> str:
    """Run commands one after the other. Return their output.

    Raises:
        Failed: One of them fails. The others do not run.
    """
    said = ""
    for command in commands:
        try:
            done = subprocess.run(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                env=environment,
            )
        except OSError as error:
            raise Failed(f"{said}{error}") from error
        said += done.stdout
        if done.returncode:
            raise Failed(f"{said}\n{' '.join(map(str, command))}: status {done.returncode}")
    return said


def main(targets: Sequence[str], jobs: int) -> int:
    """Run the targets. Return 0 if all of them succeed."""
    meanings = dict(
        re.findall(r"^([a-z-]+):[^#\n]*# (.*)$", Path("Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    said: dict[str, str] = {}
    failed: list[str] = []
    started = time.monotonic()

    def run(target: str) -> None:
        began = time.monotonic()
        try:
            said[target] = run_all([["make", "--no-print-directory", target]])
        except Failed as failure:
            said[target] = str(failure)
            failed.append(target)
        summary = " ".join(SUMMARY.findall(said[target])[-1:]).strip("= ")
        with _printing:
            verdict = "FAILED" if target in failed else "ok"
            seconds = time.monotonic() - began
            print(f"{verdict:<6} {target:<14} {seconds:6.1f} s  {summary or meanings.get(target, '')}", flush=True)
            if target in failed:
                tests = re.findall(r"^(?:FAILED|ERROR) .*$", said[target], re.MULTILINE)
                print("\n".join([*tests, said[target], "-" * 72]), flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, targets))
    _print_skipped(said.values())
    counts: Counter[str] = Counter()
    for text in said.values():
        for line in [*SUMMARY.findall(text), *TOTAL.findall(text)]:
            for number, word in COUNTS.findall(line):
                counts["failed" if word == "error" else word] += int(number)
    print(f"{', '.join(failed) or 'nothing'} failed, {time.monotonic() - started:.0f} s")
    if counts:
        print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if failed else 0


def _print_skipped(texts: Iterable[str]) -> None:
    reasons: Counter[str] = Counter()
    for text in texts:
        for number, nested, reason in SKIPPED.findall(text):
            reasons[reason] += int(number or nested)
    for reason, number in reasons.most_common():
        print(f"{number:>5} skipped: {reason}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python3 -m chassis.dev.steps")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--step", metavar="TITLE", help="run one command instead, as a step of this title")
    parser.add_argument("targets", nargs="+", help="or the command and its arguments")
    chosen = parser.parse_args()
    if chosen.step:
        step(chosen.step, lambda: run_all([chosen.targets]))
        sys.exit()
    sys.exit(main(chosen.targets, chosen.jobs))
