"""What a run of the bench has found."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Turn:
    """What one stack did in one turn."""

    cpu_us: float
    """Server CPU time per request, of all its processes."""
    rate: float
    """Requests per second."""
    failed: int
    """Requests that were refused, cut off or not answered in time."""
    p50_ms: float
    p99_ms: float


@dataclass
class Figures:
    """Turn by turn, by the name of a stack, and before that by what the field's name says."""

    by_kind: dict[str, dict[str, list[Turn]]] = field(default_factory=dict)
    by_connections: dict[int, dict[str, list[Turn]]] = field(default_factory=dict)
    by_processes: dict[int, dict[str, list[Turn]]] = field(default_factory=dict)
    line: dict[str, list[Turn]] = field(default_factory=dict)
    round_trips: dict[str, dict[str, float]] = field(default_factory=dict)
    ready_seconds: dict[str, list[float]] = field(default_factory=dict)
    stop_seconds: dict[str, list[float]] = field(default_factory=dict)
    worker_mb: dict[str, float] = field(default_factory=dict)
    bake_seconds: list[float] = field(default_factory=list)
