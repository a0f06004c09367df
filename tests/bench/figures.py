"""What a run of the bench has found, and the file that keeps it."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Turn:
    """What one stack did in one turn."""

    cpu_us: float
    """CPU time of the server per request, of all its processes."""
    database_us: float
    """CPU time of PostgreSQL per request, of all its processes."""
    rate: float
    """Requests per second."""
    failed: int
    """Requests that were refused, cut off or not answered in time."""
    mean_ms: float
    p50_ms: float
    p99_ms: float
    spread: list[int] = field(default_factory=list)
    """How many connections each worker holds, where that was asked."""


@dataclass
class Figures:
    """Turn by turn, by the name of a stack, and before that by what the field's name says. All keys are texts."""

    machine: str = ""
    image: str = ""
    """The Python in the image, with the day."""
    by_kind: dict[str, dict[str, list[Turn]]] = field(default_factory=dict)
    in_image: dict[str, dict[str, list[Turn]]] = field(default_factory=dict)
    image_mb: dict[str, float] = field(default_factory=dict)
    image_ready_seconds: dict[str, list[float]] = field(default_factory=dict)
    by_connections: dict[str, dict[str, list[Turn]]] = field(default_factory=dict)
    by_workers: dict[str, dict[str, list[Turn]]] = field(default_factory=dict)
    """Of the service alone, by its number of workers and then by the number of connections."""
    by_processes: dict[str, dict[str, list[Turn]]] = field(default_factory=dict)
    by_notes: dict[str, dict[str, list[Turn]]] = field(default_factory=dict)
    """Of the service alone, by the number of rows and then by the kind of request."""
    by_body: dict[str, list[Turn]] = field(default_factory=dict)
    by_option: dict[str, list[Turn]] = field(default_factory=dict)
    idle_mb: dict[str, float] = field(default_factory=dict)
    """Memory of all workers of the service, by the number of idle connections."""
    line: dict[str, list[Turn]] = field(default_factory=dict)
    round_trips: dict[str, dict[str, float]] = field(default_factory=dict)
    ready_seconds: dict[str, list[float]] = field(default_factory=dict)
    stop_seconds: dict[str, list[float]] = field(default_factory=dict)
    worker_mb: dict[str, float] = field(default_factory=dict)
    bake_seconds: list[float] = field(default_factory=list)
    simulation: dict[str, list[float]] = field(default_factory=dict)
    """By the number of clients of a pooler: statements per second as expected and as measured, and their mean ms so."""

    def save(self, path: Path) -> None:
        """Write all figures to a file."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Figures:
    """Return the figures in a file."""
    return Figures(**_decode(json.loads(path.read_text(encoding="utf-8"))))


def _decode(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if isinstance(value, dict):
        return Turn(**value) if "cpu_us" in value else {name: _decode(item) for name, item in value.items()}
    return value
