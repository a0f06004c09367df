"""The web process: `python -m chassis.tests.probe`."""

from chassis import web
from chassis.tests.probe.config import Config

if __name__ == "__main__":
    web.serve("chassis.tests.probe.app:create_app", Config)
