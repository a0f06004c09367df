"""What the proofs of the twelve factors share."""

from collections.abc import Callable

import pytest

URL = "postgresql://nobody@127.0.0.1:1/nothing"


def refused(proof: Callable[[], object]) -> str:
    """Check that `proof` notices that its factor is broken, and return how."""
    with pytest.raises((AssertionError, TimeoutError)) as noticed:
        proof()
    return str(noticed.value)
