"""Factor XII: one-off processes of this service: `python -m service.admin migrate`."""

import sys
from pathlib import Path

from chassis import admin
from service.app import create_app
from service.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"

COMMANDS: dict[str, admin.Command[Config]] = {}
"""Your own commands, by name: functions of the configuration, whose docstrings `--help` shows."""

if __name__ == "__main__":
    sys.exit(admin.main(sys.argv[1:], Config, create_app, MIGRATIONS, COMMANDS))
