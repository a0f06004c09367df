"""The picture of a rehearsal: requests over time by release and status, with what happened; tasks and connections."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deploy.rehearse import settings
from deploy.rehearse.record import Record, traffic
from deploy.rehearse.stage import Stage

STEP_SECONDS, LONG_STEP_SECONDS = 0.5, 1
"""Width of a bar: of one deployment, and of many events."""

KINDS = {"blue": "#4c78a8", "green": "#54a24b", "failed": "#d62728"}
"""What a bar is made of, from below, and its colours."""

ZONE_COLOURS = ["#7f3c8d", "#11a579", "#3969ac", "#f2b701", "#e73f74", "#80ba5a"]


def draw(path: Path, title: str, record: Record, stage: Stage) -> None:
    """Write an SVG to `path`. With several zones it also shows the tasks in each, and the database connections."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "rehearsal", "font.family": "sans-serif"})
    first = min(answer.started for answer in record.load.answers)
    shift = first - record.began
    marks = [(max(second - shift, 0), name) for second, name in record.marks]
    many = len(stage.zones) > 1
    figure = Figure(figsize=(12, 9) if many else (10, 5), layout="constrained")
    every = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1, 1]) if many else [figure.add_subplot()]
    step_seconds = LONG_STEP_SECONDS if many else STEP_SECONDS
    draw_traffic(every[0], traffic(record.load.answers, first, step_seconds), step_seconds, marks)
    every[0].set_title(title, loc="left", fontsize=10, wrap=True, parse_math=False)
    if many:
        draw_tasks(every[1], [(second - shift, counts) for second, counts in record.tasks], stage.zones)
        points = [(second - shift, count) for second, count in record.connections]
        draw_connections(every[2], points, settings.budget(stage.most_tasks))
    every[-1].set(xlabel="seconds")
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def draw_traffic(
    axes: Axes, counted: dict[str, list[int]], step_seconds: float, marks: Sequence[tuple[float, str]]
) -> None:
    """Draw the responses per second, by release and status, and the marks above them."""
    length = max(len(counted["blue"]) - 1, 1)  # without the half of a bar at the end
    edges = [place * step_seconds for place in range(length + 1)]
    floor = [0.0] * length
    for kind, colour in KINDS.items():
        counts = [*counted[kind], *([0] * length)][:length]
        top = [below + count / step_seconds for below, count in zip(floor, counts, strict=True)]
        label = f"{kind}: {sum(counted[kind]):,}"
        axes.stairs(top, edges, baseline=floor, fill=True, color=colour, label=label)
        floor = top
    height = max(floor, default=1.0) or 1.0
    # A staircase down: no line crosses the name of another mark.
    for number, (second, name) in enumerate(reversed(marks)):
        level = height * (1.05 + 0.065 * number)
        colour = KINDS["failed"] if name == "Rollback" else "#333333"
        axes.vlines(second, 0, level + 0.03 * height, color=colour, linewidth=0.8, linestyle=":")
        is_late = second > edges[-1] * 0.8
        axes.text(second, level, f" {name} ", color=colour, fontsize=8, ha="right" if is_late else "left")
    axes.set(xlim=(0, edges[-1]), ylim=(0, height * (1.1 + 0.065 * len(marks))), ylabel="responses per second")
    axes.legend(loc="lower left", ncols=len(KINDS), framealpha=0.9)


def draw_tasks(axes: Axes, points: Sequence[tuple[float, dict[str, int]]], zones: Sequence[str]) -> None:
    """Draw the number of healthy tasks in each zone, one above the other."""
    seconds = [second for second, _ in points]
    counts = [[each[zone] for _, each in points] for zone in zones]
    labels = [f"zone {zone}" for zone in zones]
    axes.stackplot(seconds, counts, labels=labels, colors=ZONE_COLOURS, step="post")
    axes.set(ylabel="healthy tasks")
    # Above the right end, where it hides nothing.
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(zones), frameon=False, borderaxespad=0)


def draw_connections(axes: Axes, points: Sequence[tuple[float, int]], budget: int) -> None:
    """Draw the database connections, and the budget above them."""
    axes.step([second for second, _ in points], [count for _, count in points], where="post", color="#333333")
    axes.axhline(budget, color=KINDS["failed"], linestyle="--")
    axes.text(0, budget, f" budget: {budget}", va="bottom", fontsize=8)
    axes.set(ylabel="database connections", ylim=(0, budget * 1.2))
