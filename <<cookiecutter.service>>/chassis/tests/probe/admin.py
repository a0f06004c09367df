"""The one-off processes: `python -m chassis.tests.probe.admin migrate`."""

import sys

from chassis import admin
from chassis.tests.probe import MIGRATIONS
from chassis.tests.probe.app import create_app
from chassis.tests.probe.config import Config

if __name__ == "__main__":
    sys.exit(admin.main(sys.argv[1:], Config, create_app, MIGRATIONS, {}))
