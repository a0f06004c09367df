"""The web process: `python -m service` serves on `PORT`."""

from chassis import web  # first: it makes the standard library cooperative, which other modules then import
from service.config import Config

if __name__ == "__main__":
    web.serve("service.app:create_app", Config)
