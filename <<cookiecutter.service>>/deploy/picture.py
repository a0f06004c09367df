"""The picture of a rehearsal: requests over time by release and status, with the events of the deployment."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

STEP_SECONDS = 0.5
"""Width of a bar."""

KINDS = {"blue": "#4c78a8", "green": "#54a24b", "failed": "#d62728"}
"""What a bar is made of, from below, and its colours."""


def draw(path: Path, title: str, requests: Sequence[tuple[float, str]], events: Sequence[tuple[float, str]]) -> None:
    """Write an SVG to `path`: `requests` by second and kind, `events` by second and name."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "rehearsal", "font.family": "sans-serif"})
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot()
    last = max((second for second, _ in [*requests, *events]), default=0.0)
    places = range(max(int(last / STEP_SECONDS), 1))  # without the half of a bar at the end
    edges = [place * STEP_SECONDS for place in [*places, len(places)]]
    floor = [0.0] * len(places)
    for kind, colour in KINDS.items():
        counted = Counter(int(second / STEP_SECONDS) for second, its in requests if its == kind)
        top = [below + counted[place] / STEP_SECONDS for below, place in zip(floor, places, strict=True)]
        label = f"{kind}: {counted.total():,}"
        axes.stairs(top, edges, baseline=floor, fill=True, color=colour, label=label)
        floor = top
    height = max(floor, default=1.0) or 1.0
    # A staircase down: no line crosses the name of another event.
    for number, (second, name) in enumerate(reversed(events)):
        level = height * (1.05 + 0.065 * number)
        colour = KINDS["failed"] if name == "Rollback" else "#333333"
        axes.vlines(second, 0, level + 0.03 * height, color=colour, linewidth=0.8, linestyle=":")
        axes.text(second, level, f" {name}", color=colour, fontsize=8)
    axes.set(xlim=(0, edges[-1]), ylim=(0, height * (1.1 + 0.065 * len(events))))
    axes.set(xlabel="seconds", ylabel="requests per second")
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", ncols=len(KINDS), framealpha=0.9)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
