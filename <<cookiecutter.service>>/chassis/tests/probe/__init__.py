"""A tiny service that proves the chassis: it has one resource, which stays as it is whatever a team builds."""

from pathlib import Path

PACKAGE = __name__
FOLDER = Path(__file__).parent
MIGRATIONS = FOLDER / "migrations"
