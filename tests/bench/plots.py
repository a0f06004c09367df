"""The figures as plots: `figures.svg` compares the stacks, `growth.svg` shows the service's own curves."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.figures import Figures, Turn
from tests.bench.stacks import LIMIT

COLOURS = ["#0b6e4f", "#9e9e9e", "#c8553d", "#e9a23b", "#5b7db1"]
KINDS = {"read": "read one by key", "create": "create one", "list": "list twenty"}


def write(figures: Figures, folder: Path) -> None:
    """Draw both plots into `folder`."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.family": "sans-serif", "font.size": 9})
    for name, figure in (("figures.svg", _comparison(figures)), ("growth.svg", _growth(figures))):
        figure.savefig(folder / name, metadata={"Date": None})


def _comparison(figures: Figures) -> Figure:
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    cpu, database, connections, processes = figure.subplots(2, 2).flat
    names = list(figures.worker_mb)

    def over_the_limit(kind: str, name: str) -> float:
        found = figures.by_kind[kind]
        return median(one.cpu_us / limit.cpu_us for one, limit in zip(found[name], found[LIMIT.name], strict=True))

    _bars(cpu, names, over_the_limit)
    cpu.axhline(1, color="#555555", linewidth=0.8)
    cpu.set_title("CPU of the server per request, over the limit's")
    _bars(database, names, lambda kind, name: _of(figures.by_kind[kind][name], "database_us"))
    database.set_title("CPU of PostgreSQL per request, µs")
    for axes, by, key, title in [
        (connections, figures.by_connections, "p99_ms", "p99 of a read, ms, by connections"),
        (processes, figures.by_processes, "rate", "Reads per second, by processes"),
    ]:
        for name, colour in zip(names, COLOURS, strict=False):
            values = [_of(found[name], key) if _of(found[name], "rate") else math.nan for found in by.values()]
            axes.plot([int(count) for count in by], values, marker="o", markersize=4, color=colour, label=name)
        _numbers(axes, list(by))
        axes.set_title(title)
        axes.set_ylim(bottom=0)
    figure.legend(*cpu.get_legend_handles_labels(), loc="outside lower center", ncols=len(names), frameon=False)
    _plain(figure)
    return figure


def _growth(figures: Figures) -> Figure:
    figure = Figure(figsize=(9, 9), layout="constrained")
    connections, fairness, notes, bodies, idle, options = figure.subplots(3, 2).flat
    service = {count: found["the service"] for count, found in figures.by_connections.items()}
    _lines(
        connections, {key: {int(c): _of(turns, key) for c, turns in service.items()} for key in ("mean_ms", "p99_ms")}
    )
    _numbers(connections, list(service))
    connections.set_title("A read, ms, by connections; 2 workers")
    _lines(
        fairness,
        {
            f"{workers} workers": {
                count: median(turn.p99_ms / turn.mean_ms for turn in turns) for count, turns in found.items()
            }
            for workers, found in figures.by_workers.items()
        },
    )
    fairness.axhline(2, color="#555555", linewidth=0.8)
    fairness.set_title("p99 over mean of a read, by connections")
    kinds = next(iter(figures.by_notes.values()), {})
    _lines(
        notes,
        {
            kind: {
                f"$10^{len(size) - 1}$": _of(found[kind], "cpu_us") + _of(found[kind], "database_us")
                for size, found in figures.by_notes.items()
            }
            for kind in kinds
        },
    )
    notes.set_title("CPU of service and PostgreSQL, µs, by notes")
    _lines(
        bodies,
        {
            label: {f"{int(size):,}": _of(turns, key) for size, turns in figures.by_body.items()}
            for key, label in (("cpu_us", "service"), ("database_us", "PostgreSQL"))
        },
    )
    bodies.set_title("CPU of a create, µs, by bytes of the body")
    _lines(idle, {"both workers": {f"{int(count):,}": mb for count, mb in figures.idle_mb.items()}})
    idle.set_title("Memory, MB, by idle connections")
    costs = [_of(turns, "cpu_us") for turns in figures.by_option.values()]
    options.bar(list(figures.by_option), costs, color=COLOURS[0])
    options.tick_params("x", labelrotation=20)
    options.set_title("CPU of a read, µs, with traces and tokens")
    _plain(figure)
    return figure


def _numbers(axes: Axes, counts: Sequence[str]) -> None:
    """Place the counts by their logarithms, since they grow by factors."""
    axes.set_xscale("log")
    axes.set_xticks([int(count) for count in counts], counts)
    axes.minorticks_off()


def _lines(axes: Axes, series: Mapping[str, Mapping[Any, float]]) -> None:
    for (label, points), colour in zip(series.items(), COLOURS, strict=False):
        axes.plot(list(points), list(points.values()), marker="o", markersize=4, color=colour, label=label)
    axes.set_ylim(bottom=0)
    if len(series) > 1:
        axes.legend(frameon=False)


def _bars(axes: Axes, names: Sequence[str], value: Callable[[str, str], float]) -> None:
    width = 0.8 / len(names)
    for number, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        places = [place + (number - (len(names) - 1) / 2) * width for place in range(len(KINDS))]
        axes.bar(places, [value(kind, name) for kind in KINDS], width, color=colour, label=name)
    axes.set_xticks(range(len(KINDS)), list(KINDS.values()))


def _of(turns: Sequence[Turn], key: str) -> float:
    values: list[float] = [getattr(turn, key) for turn in turns]
    return median(values)


def _plain(figure: Figure) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
