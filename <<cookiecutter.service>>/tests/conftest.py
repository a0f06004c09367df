"""The fixtures of this service's tests: those of the chassis, and your own."""

import pytest

from chassis.testing.fixtures import *  # noqa: F403 - pytest finds fixtures by their names


@pytest.fixture(scope="session")
def package() -> str:
    """Return the name of the package whose service is tested."""
    return "service"
