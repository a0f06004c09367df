"""`make bench`: everything is measured side by side in one run, in turns, so that the noise of a machine cancels."""

import argparse
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import report
from tests.bench.bench import Bench
from tests.bench.database import ROWS, database
from tests.bench.figures import Figures, load
from tests.bench.sections import SECTIONS
from tests.bench.stacks import HERE, STACKS

TEMPLATE = HERE.parent.parent
KINDS = ["read", "create", "list", "404", "livez"]


def main() -> None:
    """Measure, and write what was found."""

    def words(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="turns of each stack; figures are medians over them")
    parser.add_argument("--only", type=words, help=f"kinds of requests to print, and nothing else: {','.join(KINDS)}")
    parser.add_argument("--stacks", type=int, default=len(STACKS), help="how many stacks, of the first")
    parser.add_argument("--sections", type=words, default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for figures.json, figures.md and the plots")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        parser.error("wrk is needed; Debian's package has the same name")
    if unknown := {*options.sections} - {*SECTIONS} or {*(options.only or [])} - {*KINDS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    options.output.mkdir(parents=True, exist_ok=True)
    kept = options.output / "figures.json"
    if not (kept.exists() or options.only or "requests" in options.sections):
        parser.error(f"{kept} does not exist: a part alone can only renew it")
    figures = load(kept) if kept.exists() and not options.only else Figures()
    figures.machine = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        service = bake(folder, figures)
        with database(service) as server:
            server.fill(ROWS)
            bench = Bench(
                service=service,
                database=server,
                folder=folder,
                rounds=options.rounds,
                stacks=STACKS[: options.stacks],
                kinds=options.only or KINDS,
            )
            for section in ["requests"] if options.only else options.sections:
                begun = time.monotonic()
                SECTIONS[section](bench, figures)
                if not options.only:
                    print(f"{section}: {time.monotonic() - begun:.0f} s", flush=True)
                    figures.save(kept)
    if options.only:
        print(report.requests(figures))
    else:
        report.write(figures, options.output)


def bake(folder: Path, figures: Figures) -> Path:
    """Bake a service in `folder`. Return where it is."""
    program = str(TEMPLATE / ".venv/bin/cookiecutter")
    figures.bake_seconds = []
    for number in range(3):
        command = [program, str(TEMPLATE), "--no-input", "--output-dir", str(folder / str(number))]
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        figures.bake_seconds.append(time.perf_counter() - begun)
    return folder / "0" / "orders"


def machine() -> str:
    """Return where and when this runs, in words."""
    models = re.findall(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    model = models[0] if models else platform.machine()
    day = datetime.now(UTC).date().isoformat()
    return f"{day}, Python {platform.python_version()}, {os.cpu_count()} CPUs ({model}) for servers, wrk and PostgreSQL"


if __name__ == "__main__":
    main()
