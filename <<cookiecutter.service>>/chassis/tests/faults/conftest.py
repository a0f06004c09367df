"""A rehearsal that has not begun, for tests that need no Docker."""

import pytest

from deploy.rehearse import fleet, rehearsal
from deploy.rehearse.fleet import State
from deploy.rehearse.rehearsal import Rehearsal


@pytest.fixture
def show() -> Rehearsal:
    """Return a rehearsal of six copies that has not begun."""
    return rehearsal.new(6, 3, rehearsal.load(1, 1, 1), 1)


def place(show: Rehearsal, *zones: str, state: State = State.HEALTHY) -> None:
    for zone in zones:
        fleet.add(show.fleet, "blue", zone).state = state
