"""The alarm of a deployment: it ends the deployment when too many responses are 5xx."""

import threading
from typing import Self

from deploy.rehearse import balancer
from deploy.rehearse.balancer import Balancer
from deploy.rehearse.docker import StageError

PERIOD_SECONDS = 2
"""Two periods in a row above the bound set the alarm off, as in `deploy/`."""

BOUND = 0.005
"""The share of the load balancer's responses that may be 5xx."""


class DeploymentError(Exception):
    """The deployment failed, and blue has to get the traffic back."""


class Alarm:
    """Goes off when the share of 5xx that the load balancer gives is above the bound in two periods in a row."""

    def __init__(self, balancer: Balancer) -> None:
        self.highest = 0.0
        self._fault = ""
        self._rang, self._over = threading.Event(), threading.Event()
        self._balancer = balancer
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def watch(self, seconds: float) -> str:
        """Wait for `seconds` and return what was seen.

        Raises:
            DeploymentError: The alarm went off.
            StageError: The load balancer could not be asked.
        """
        rang = self._rang.wait(seconds)
        if self._fault:
            raise StageError(f"the alarm saw nothing: {self._fault}")
        if rang:
            raise DeploymentError(f"the alarm went off: {self.highest:.1%} of the responses were 5xx")
        return f"at most {self.highest:.1%} of the responses were 5xx"

    def _run(self) -> None:
        try:
            self._watch()
        except StageError as error:
            self._fault = str(error)
            self._rang.set()

    def _watch(self) -> None:
        above = 0
        every, errors = balancer.responses(self._balancer)
        while not self._over.wait(PERIOD_SECONDS):
            before, errors_before = every, errors
            every, errors = balancer.responses(self._balancer)
            share = (errors - errors_before) / max(every - before, 1)
            self.highest = max(self.highest, share)
            above = above + 1 if share > BOUND else 0
            if above > 1:
                self._rang.set()
