"""What happens in a rehearsal: said on the terminal as it comes, kept for the page, the picture and the table."""

import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from chassis.tests.faults.load import Answer, Load

TERMINAL = sys.stdout
"""The real one: while a hook runs, `sys.stdout` is the hook's log."""

SUCCESSES = {200, 201}


@dataclass(frozen=True)
class Entry:
    """Something that happened."""

    second: float
    """Since the rehearsal began."""
    kind: str
    text: str


@dataclass(frozen=True)
class Row:
    """The figures of one act."""

    title: str
    requests: int
    failed: int
    promise: str
    """How many may fail, and why."""
    reasons: dict[str, int]
    """Why those failed that did, and how many."""
    slowest_seconds: float
    lost: int
    """Acknowledged writes that are not stored."""
    well_seconds: float
    """From the beginning of the act until all was well."""
    connections: int
    """The service's connections to the database at the peak."""
    budget: int


@dataclass
class Record:
    """Everything that is known of a rehearsal while it runs. Times are of `time.monotonic`."""

    load: Load
    began: float = field(default_factory=time.monotonic)
    entries: list[Entry] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    """The seconds and the names of what the picture shows."""
    tasks: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    """The number of healthy tasks in each zone, from that second on."""
    connections: list[tuple[float, int]] = field(default_factory=list)
    """Database connections of the service, from that second on."""
    title: str = "The rehearsal is prepared"
    look: str = "Two images are built and the database is started. This takes about a minute."
    verdict: str = ""
    memory_mib: float = 0
    """Memory of all containers at the peak."""

    def second(self) -> float:
        """Return the seconds since the rehearsal began."""
        return time.monotonic() - self.began

    def say(self, kind: str, text: str) -> None:
        """Keep an entry, and print it with the figures of the load."""
        self.entries.append(Entry(self.second(), kind, text))
        blue, green = count(self.load.answers, "blue"), count(self.load.answers, "green")
        failed = sum(is_failed(answer) for answer in list(self.load.answers))
        figures = f"blue {blue:5}  green {green:5}  failed {failed:4}" if self.load.answers else f"{'':36}"
        print(f"{self.second():6.1f} s  {kind:21}  {figures}  {text}", file=TERMINAL, flush=True)

    def mark(self, name: str) -> None:
        """Keep the moment of an event for the picture."""
        self.marks.append((self.second(), name))


def is_failed(answer: Answer) -> bool:
    """Return whether a user would complain."""
    return bool(answer.fault) or answer.status not in SUCCESSES


def count(answers: list[Answer], release: str) -> int:
    """Return how many requests a release answered."""
    return sum(answer.release == release for answer in list(answers))


def reason(answer: Answer) -> str:
    """Return in words why a request failed."""
    if not answer.status:
        return "no response in time" if "timed out" in answer.fault else "the connection was closed"
    if answer.fault:
        return f"a wrong response ({answer.fault})"
    who = "the service" if answer.task else "the load balancer"
    return f"{answer.status} from {who}"


def reasons(answers: list[Answer]) -> dict[str, int]:
    """Return why requests failed and how many, most frequent first."""
    return dict(Counter(reason(answer) for answer in answers if is_failed(answer)).most_common())


def traffic(answers: list[Answer], began: float, step_seconds: float) -> dict[str, list[int]]:
    """Return the number of responses in each step of time since `began`, by release, and of those that failed."""
    counted = Counter(
        (
            int((answer.started + answer.seconds - began) / step_seconds),
            "failed" if is_failed(answer) else answer.release,
        )
        for answer in list(answers)
    )
    steps = range(max((step for step, _ in counted), default=-1) + 1)
    return {kind: [counted[step, kind] for step in steps] for kind in ("blue", "green", "failed")}


def table(rows: list[Row]) -> str:
    """Return the figures as a table in Markdown."""
    head = ["what happens", "requests", "failed", "how many may fail", "why they failed", "slowest, s"]
    head += ["writes lost", "all is well after, s", "database connections: peak of budget"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        why = ", ".join(f"{number} {text}" for text, number in row.reasons.items()) or "-"
        cells = [row.title, f"{row.requests:,}", f"{row.failed:,}", row.promise, why, f"{row.slowest_seconds:.2f}"]
        cells += [str(row.lost), f"{row.well_seconds:.1f}", f"{row.connections} of {row.budget}"]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
