"""The figures as a table and a plot."""

import math
import os
import platform
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.figures import Figures, Turn
from tests.bench.stacks import HERE, LIMIT, QUIET, SERVICE

TITLES = {"read": "read one by key", "create": "create one", "list": "list twenty", "404": "404", "livez": "`/livez`"}
COLOURS = ["#0b6e4f", "#9e9e9e", "#c8553d", "#e9a23b", "#5b7db1"]
MARKS = re.compile(r"(?<=<!-- make bench -->\n).*?(?=<!-- end -->)", re.DOTALL)


def write(figures: Figures, folder: Path) -> None:
    """Write `figures.md` and `figures.svg` into `folder`; if that is the bench's own, the README's table too."""
    (folder / "figures.md").write_text(
        f"# Figures\n\n`make bench`, {_machine()}.\n\n{requests(figures)}\n{_others(figures)}\n{_growth(figures)}",
        encoding="utf-8",
    )
    _plot(figures).savefig(folder / "figures.svg", metadata={"Date": None})
    if folder == HERE:
        readme = HERE.parent.parent / "README.md"
        text = readme.read_text(encoding="utf-8")
        table = f"{_headline(figures)}\n`make bench`, {_machine()}.\n"
        readme.write_text(MARKS.sub(lambda _: table, text), encoding="utf-8")


def requests(figures: Figures) -> str:
    """A table of what requests cost, by kind and stack."""
    rows = [
        [
            TITLES[kind],
            name,
            f"{_of(turns, 'cpu_us'):.0f} µs",
            f"{ratio(found, name):.2f}",
            f"{_of(turns, 'rate'):,.0f}",
            f"{_of(turns, 'p50_ms'):.1f} ms",
            f"{_of(turns, 'p99_ms'):.1f} ms",
        ]
        for kind, found in figures.by_kind.items()
        for name, turns in found.items()
    ]
    heads = ["request", "stack", "server CPU per request", "over the limit", "requests/s", "p50", "p99"]
    return "## Requests, over 16 connections, with 2 processes\n\n" + _table(heads, rows)


def ratio(found: dict[str, list[Turn]], name: str) -> float:
    """Server CPU time per request over that of the limit in the same round: the median."""
    return median(one.cpu_us / limit.cpu_us for one, limit in zip(found[name], found[LIMIT.name], strict=True))


def _headline(figures: Figures) -> str:
    read, create = figures.by_kind["read"], figures.by_kind["create"]
    rows = [
        [
            name,
            f"{ratio(read, name):.2f}",
            f"{ratio(create, name):.2f}",
            f"{_of(read[name], 'rate'):,.0f}",
            f"{_of(create[name], 'rate'):,.0f}",
            f"{_of(read[name], 'p99_ms'):.0f} ms",
            f"{figures.round_trips['read'][name]:.0f}, {figures.round_trips['create'][name]:.0f}",
            f"{figures.worker_mb[name]:.0f} MB",
            f"{median(figures.ready_seconds[name]):.2f} s",
        ]
        for name in read
    ]
    heads = ["", "CPU: read", "create", "reads/s", "creates/s", "p99", "round trips", "worker", "start"]
    return _table(heads, rows)


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
        f"## Beside requests\n\n{_table(['', *names], rows)}\n"
        f"A canonical line costs {line_us:.0f} µs of the service's CPU time. "
        f"Baking a service takes {median(figures.bake_seconds):.2f} s.\n"
    )


def _growth(figures: Figures) -> str:
    names = list(figures.worker_mb)
    connections = [
        [str(count), *(_under_load(found[name]) for name in names)] for count, found in figures.by_connections.items()
    ]
    processes = [
        [str(count), *(f"{_of(found[name], 'rate'):,.0f}/s" for name in names)]
        for count, found in figures.by_processes.items()
    ]
    return (
        f"## Reads by key and their p99, over more connections\n\n{_table(['connections', *names], connections)}\n"
        f"## Reads by key, with more processes\n\n{_table(['processes', *names], processes)}"
    )


def _under_load(turns: Sequence[Turn]) -> str:
    if not _of(turns, "rate"):
        return "stalls"
    failed = sum(turn.failed for turn in turns)
    said = f"{_of(turns, 'rate'):,.0f}/s, {_of(turns, 'p99_ms'):.0f} ms"
    return f"{said}, {failed} failed" if failed else said


def _plot(figures: Figures) -> Figure:
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.family": "sans-serif", "font.size": 9})
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    cpu, rate, connections, processes = figure.subplots(2, 2).flat
    names = list(figures.worker_mb)
    kinds = ["read", "create", "list"]
    _bars(cpu, kinds, names, lambda kind, name: ratio(figures.by_kind[kind], name))
    cpu.axhline(1, color="#555555", linewidth=0.8)
    cpu.set_title("Server CPU per request, over the limit's")
    _bars(rate, kinds, names, lambda kind, name: _of(figures.by_kind[kind][name], "rate"))
    rate.set_title("Requests per second")
    for axes, by, key, title in [
        (connections, figures.by_connections, "p99_ms", "p99 of a read, ms, by connections"),
        (processes, figures.by_processes, "rate", "Reads per second, by processes"),
    ]:
        for name, colour in zip(names, COLOURS, strict=False):
            values = [_of(found[name], key) if _of(found[name], "rate") else math.nan for found in by.values()]
            axes.plot([str(count) for count in by], values, marker="o", markersize=4, color=colour, label=name)
        axes.set_title(title)
        axes.set_ylim(bottom=0)
    figure.legend(*cpu.get_legend_handles_labels(), loc="outside lower center", ncols=len(names), frameon=False)
    for axes in (cpu, rate, connections, processes):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _bars(axes: Axes, kinds: Sequence[str], names: Sequence[str], value: Callable[[str, str], float]) -> None:
    width = 0.8 / len(names)
    for number, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        places = [place + (number - (len(names) - 1) / 2) * width for place in range(len(kinds))]
        axes.bar(places, [value(kind, name) for kind in kinds], width, color=colour, label=name)
    axes.set_xticks(range(len(kinds)), [TITLES[kind] for kind in kinds])


def _of(turns: Sequence[Turn], key: str) -> float:
    values: list[float] = [getattr(turn, key) for turn in turns]
    return median(values)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _machine() -> str:
    models = re.findall(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    model = models[0] if models else platform.machine()
    day = datetime.now(UTC).date().isoformat()
    return f"{day}, Python {platform.python_version()}, {os.cpu_count()} CPUs ({model}) for servers, wrk and PostgreSQL"
