"""The variables of the probes: those of the chassis."""

from chassis.config import Config

__all__ = ["Config"]
