"""The work of a team on its service, in each place that the template leaves to it."""

import re
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
PLACE = re.compile(r"\s*# Your own [^:]*:\n")
"""A line below which a team adds its own in a file that is the template's. See `[tool.cruft]` in `pyproject.toml`."""

RESOURCES = ["invoice", "customer", "payment"]
SWEEPER = '''"""Count the invoices once a minute, until SIGTERM: `python -m service.sweeper`."""

import signal
import sys
import threading

from chassis import config, db, logs
from service.config import Config

SECONDS = 60


def main() -> int:
    """Count until a SIGTERM arrives, and return the exit status."""
    settings = config.load(Config)
    logs.configure(settings)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    while not stopping.is_set():
        with db.connect(settings) as conn:
            conn.execute("SELECT count(*) FROM invoices")
        stopping.wait(SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
'''
COUNT = '''def count(settings: Config) -> None:
    """Count the invoices."""
    with db.connect(settings) as conn:
        [(number,)] = conn.execute("SELECT count(*) FROM invoices")
    log.info("counted", extra={"invoices": number, "currency": settings.currency})


COMMANDS: dict[str, admin.Command[Config]] = {"count": count}
'''
TESTS = '''"""What this service adds to the machinery."""

import logging

import pytest

from service import admin
from service.config import Config


def test_count_logs_how_many_invoices_there_are(settings: Config, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        admin.count(settings)
    assert [record.__dict__["currency"] for record in caplog.records] == ["EUR"]
'''


def edit(path: Path, old: str, new: str) -> None:
    """Replace a piece of a file that must be in it once."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path}: {old}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def add(path: Path, place: str, lines: str) -> None:
    """Add lines of the team in the place of a file that is for them."""
    edit(path, f"# Your own {place}:\n", f"# Your own {place}:\n{lines}")


def work_of_a_team(service: Path) -> None:
    """Replace the notes by three resources; add a variable, a command, a process, packages, tests, a job, a target."""
    example = ["service/notes.py", "service/api.py", "tests/test_notes.py", "tests/test_api.py"]
    example += ["service/migrations/0001_notes.sql"]
    for number, word in enumerate(RESOURCES, 1):
        for name in example:
            new = re.sub(r"\bapi|(?<=_)api", f"{word}s_api", name).replace("0001", f"{number:04}")
            text = (service / name).read_text(encoding="utf-8").replace("note", word).replace("Note", word.title())
            (service / new.replace("notes", f"{word}s")).write_text(text, encoding="utf-8")
    for name in example:
        (service / name).unlink()
    for name in ("README.md", "docs/openapi.json", "docs/try-it.txt", "tests/test_image.py", "deploy/smoke.py"):
        text = (service / name).read_text(encoding="utf-8")
        text = text.replace("note", "invoice").replace("service/api.py", "service/invoices_api.py")
        (service / name).write_text(text, encoding="utf-8")
    (service / "docs" / "adopt.md").unlink()

    app = service / "service" / "app.py"
    edit(app, "from service import api\n", f"from service import {', '.join(f'{word}s_api' for word in RESOURCES)}\n")
    edit(app, "[api.notes]", f"[{', '.join(f'{word}s_api.{word}s' for word in RESOURCES)}]")
    config = service / "service" / "config.py"
    edit(
        config,
        '    """\n',
        '    """\n\n    currency: str = config.variable("currency of the prices", "EUR", unit="name")\n'
        '    payment_url: str = config.variable("where payments go", unit="URL")\n',
    )
    with (service / ".env.example").open("a", encoding="utf-8") as file:
        file.write("CURRENCY=EUR\nPAYMENT_URL='https://pay.example.com/?of=orders'\n")
    admin = service / "service" / "admin.py"
    edit(admin, "COMMANDS: dict[str, admin.Command[Config]] = {}\n", COUNT)
    edit(admin, "import sys\n", "import logging\nimport sys\n")
    edit(admin, "from chassis import admin\n", "from chassis import admin, db\n")
    edit(
        admin,
        'MIGRATIONS = Path(__file__).parent / "migrations"\n',
        'MIGRATIONS = Path(__file__).parent / "migrations"\n\nlog = logging.getLogger("admin")\n',
    )
    (service / "service" / "sweeper.py").write_text(SWEEPER)
    (service / "tests" / "test_admin.py").write_text(TESTS)
    with (service / "requirements.txt").open("a", encoding="utf-8") as file:
        file.write("# tenacity, as make lock would add it\n")
    edit(service / "deploy" / "staging.toml", '\naccount = "000000000000"', '\naccount = "123456789012"')

    project = service / "pyproject.toml"
    add(project, "dependencies", '    "tenacity>=9",\n')
    add(project, "tools", '    "time-machine",\n')
    add(project, "filters", '    "ignore:about the weather",\n')
    add(project, "overrides", '[[tool.mypy.overrides]]\nmodule = ["untyped.*"]\nignore_missing_imports = true\n')
    add(project, "rules that are off", '    "TD003", # we have no tracker\n')
    add(project, "files", '"service/sweeper.py" = [\n    "T201", # it prints\n]\n')
    add(service / "Procfile", "processes", "sweeper: python -m service.sweeper\n")
    compose = service / "compose.yaml"
    add(compose, "variables", "      CURRENCY: EUR\n      PAYMENT_URL: https://pay.example.com/\n")
    add(compose, "processes and backing services", "  cache:\n    image: valkey/valkey:9\n")
    add(compose, "volumes", "  cache:\n")
    add(service / ".gitignore", "files", "/reports/\n")
    add(service / ".dockerignore", "files", "!fonts\n")
    add(service / "Dockerfile", "system packages and files", "ENV LANG=C.UTF-8\n")
    add(
        service / "Makefile",
        "targets",
        "report: .venv/installed # the report of the month\n\t$(BIN)/python -m report\n",
    )
    add(service / ".github" / "workflows" / "ci.yml", "jobs", "  ours:\n    runs-on: ubuntu-24.04\n")
    (service / "service" / "reports").mkdir()
    (service / "service" / "reports" / "monthly.txt").write_text("Invoices of the month\n")
    for ruff in (["check", "--quiet", "--select", "I", "--fix"], ["format", "--quiet"]):  # as `make format` would
        subprocess.run([BIN / "ruff", *ruff, "--no-cache", "service", "tests"], cwd=service, check=True)
