"""The figures as tables."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from tests.bench import fleet, plots
from tests.bench.figures import Figures, Turn
from tests.bench.stacks import HERE, LIMIT, QUIET, SERVICE

TITLES = {"read": "read one by key", "create": "create one", "list": "list twenty", "404": "404", "livez": "`/livez`"}
GROWTH = "![How the service grows: connections, workers, notes, bodies, traces and tokens](tests/bench/growth.svg)"
MARKS = re.compile(r"(?<=<!-- make bench -->\n).*?(?=<!-- end -->)", re.DOTALL)


def write(figures: Figures, folder: Path) -> None:
    """Write the tables and the plots into `folder`; if that is the bench's own, the README's table too."""
    parts = [requests, _image, _others, _growth, _fairness, _curves, fleet.table]
    tables = "\n".join(part(figures) for part in parts)
    (folder / "figures.md").write_text(f"# Figures\n\n`make bench`, {figures.machine}.\n\n{tables}", encoding="utf-8")
    plots.write(figures, folder)
    if folder == HERE:
        readme = HERE.parent.parent / "README.md"
        text = readme.read_text(encoding="utf-8")
        table = f"{_headline(figures)}\n`make bench`, {figures.machine}.\n{_image_line(figures)}\n{GROWTH}\n"
        readme.write_text(MARKS.sub(lambda _: table, text), encoding="utf-8")


def requests(figures: Figures) -> str:
    """Return a table of what requests cost, by kind and stack."""
    return "## Requests, over 16 connections, with 2 processes\n\n" + _costs(figures.by_kind)


def ratio(found: dict[str, list[Turn]], name: str, key: str = "cpu_us") -> float:
    """Return what a stack needs, over what the limit needs in the same round: the median."""
    turns = zip(found[name], found[LIMIT.name], strict=True)
    ratios: list[float] = [getattr(one, key) / getattr(limit, key) for one, limit in turns]
    return median(ratios)


def of(turns: Sequence[Turn], key: str) -> float:
    """Return the median of one figure over several turns."""
    values: list[float] = [getattr(turn, key) for turn in turns]
    return median(values)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _costs(by_kind: dict[str, dict[str, list[Turn]]]) -> str:
    rows = [
        [
            TITLES[kind],
            name,
            f"{of(turns, 'cpu_us'):.0f} µs",
            f"{ratio(found, name):.2f}",
            f"{of(turns, 'database_us'):.0f} µs",
            f"{of(turns, 'cpu_us') + of(turns, 'database_us'):.0f} µs",
            f"{of(turns, 'rate'):,.0f}",
            f"{of(turns, 'p50_ms'):.1f} ms",
            f"{of(turns, 'p99_ms'):.1f} ms",
        ]
        for kind, found in by_kind.items()
        for name, turns in found.items()
    ]
    heads = ["request", "stack", "CPU of the server", "over the limit", "of PostgreSQL", "together", "requests/s"]
    return table([*heads, "p50", "p99"], rows)


def _headline(figures: Figures) -> str:
    read, create = figures.by_kind["read"], figures.by_kind["create"]
    rows = [
        [
            name,
            f"{ratio(read, name):.2f}",
            f"{ratio(create, name):.2f}",
            f"{of(read[name], 'database_us'):.0f}, {of(create[name], 'database_us'):.0f} µs",
            f"{of(read[name], 'rate'):,.0f}",
            f"{of(create[name], 'rate'):,.0f}",
            f"{of(read[name], 'p99_ms'):.0f} ms",
            f"{figures.round_trips['read'][name]:.0f}, {figures.round_trips['create'][name]:.0f}",
            f"{figures.worker_mb[name]:.0f} MB",
            f"{median(figures.ready_seconds[name]):.2f} s",
        ]
        for name in read
    ]
    heads = ["", "CPU: read", "create", "PostgreSQL's CPU", "reads/s", "creates/s", "p99", "round trips", "worker"]
    return table([*heads, "start"], rows)


def _image_line(figures: Figures) -> str:
    if not figures.in_image:
        return ""
    said = [f"{TITLES[kind]} {ratio(found, SERVICE.name):.2f}" for kind, found in figures.in_image.items()]
    return f"On {figures.image.partition(', ')[2]}, CPU over that of the limit there: {', '.join(said)}.\n"


def _image(figures: Figures) -> str:
    if not figures.in_image:
        return ""
    rows = [
        [name, f"{figures.image_mb[name]:.0f} MB", f"{median(figures.image_ready_seconds[name]):.2f} s"]
        for name in figures.image_mb
    ]
    return (
        f"## In the image\n\n{figures.image}.\n\n{_costs(figures.in_image)}\n"
        f"{table(['', 'memory of a worker', 'start to the first note read'], rows)}"
    )


def _others(figures: Figures) -> str:
    names = list(figures.worker_mb)

    def row(title: str, say: Callable[[str], str]) -> list[str]:
        return [title, *(say(name) for name in names)]

    rows = [
        *(
            row(f"round trips to PostgreSQL, {TITLES[kind]}", lambda name, trips=trips: f"{trips[name]:.2f}")  # type: ignore[misc]
            for kind, trips in figures.round_trips.items()
        ),
        row("memory of a worker", lambda name: f"{figures.worker_mb[name]:.0f} MB"),
        row("start to the first note read", lambda name: f"{median(figures.ready_seconds[name]):.2f} s"),
        row("SIGTERM to exit, without requests", lambda name: f"{median(figures.stop_seconds[name]):.2f} s"),
    ]
    turns = zip(figures.line[SERVICE.name], figures.line[QUIET.name], strict=True)
    line_us = median(loud.cpu_us - quiet.cpu_us for loud, quiet in turns)
    return (
        f"## Beside requests\n\n{table(['', *names], rows)}\n"
        f"A canonical line costs {line_us:.0f} µs of the service's CPU time.\n"
        f"Baking a service takes {median(figures.bake_seconds):.2f} s.\n"
    )


def _growth(figures: Figures) -> str:
    names = list(figures.worker_mb)
    connections = [
        [f"{int(count):,}", *(_under_load(found[name]) for name in names)]
        for count, found in figures.by_connections.items()
    ]
    processes = [
        [count, *(f"{of(found[name], 'rate'):,.0f}/s" for name in names)]
        for count, found in figures.by_processes.items()
    ]
    return (
        f"## Reads by key and their p99, over more connections\n\n{table(['connections', *names], connections)}\n"
        f"## Reads by key, with more processes\n\n{table(['processes', *names], processes)}"
    )


def _fairness(figures: Figures) -> str:
    rows = [
        [
            workers,
            connections,
            f"{of(turns, 'rate'):,.0f}/s",
            f"{of(turns, 'mean_ms'):.0f} ms",
            f"{of(turns, 'p99_ms'):.0f} ms",
            f"{median(turn.p99_ms / turn.mean_ms for turn in turns):.2f}",
            " ".join(str(count) for count in turns[-1].spread),
            str(sum(turn.failed for turn in turns)),
        ]
        for workers, found in figures.by_workers.items()
        for connections, turns in found.items()
    ]
    heads = ["workers", "connections", "reads", "mean", "p99", "p99 / mean", "connections of each worker", "failed"]
    return "## Fairness: reads by key of the service over many connections\n\n" + table(heads, rows)


def _curves(figures: Figures) -> str:
    kinds = next(iter(figures.by_notes.values()), {})
    notes = [
        [f"{int(size):,}", *(f"{of(turns, 'cpu_us') + of(turns, 'database_us'):.0f} µs" for turns in found.values())]
        for size, found in figures.by_notes.items()
    ]
    bodies = [
        [f"{int(size):,}", f"{of(turns, 'cpu_us'):.0f} µs", f"{of(turns, 'database_us'):.0f} µs"]
        for size, turns in figures.by_body.items()
    ]
    plain = figures.by_option.get("neither", [])
    options = [
        [
            name,
            f"{of(turns, 'cpu_us'):.0f} µs",
            f"{median(one.cpu_us / other.cpu_us for one, other in zip(turns, plain, strict=True)):.2f}",
        ]
        for name, turns in figures.by_option.items()
    ]
    idle = [[f"{int(count):,}", f"{mb:.0f} MB"] for count, mb in figures.idle_mb.items()]
    return (
        f"## More notes: CPU of the service and of PostgreSQL per request\n\n{table(['notes', *kinds], notes)}\n"
        "## Larger bodies: a create\n\n"
        f"{table(['bytes', 'CPU of the service', 'of PostgreSQL'], bodies)}\n"
        "## Traces and tokens: a read\n\n"
        f"{table(['with', 'CPU of the service', 'over neither'], options)}\n"
        "## Connections that are kept alive and idle: memory of both workers\n\n"
        f"{table(['connections', 'memory'], idle)}"
    )


def _under_load(turns: Sequence[Turn]) -> str:
    if not of(turns, "rate"):
        return "stalls"
    failed = sum(turn.failed for turn in turns)
    said = f"{of(turns, 'rate'):,.0f}/s, {of(turns, 'p99_ms'):.0f} ms"
    return f"{said}, {failed} failed" if failed else said
