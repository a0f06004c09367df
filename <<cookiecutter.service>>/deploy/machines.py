"""How many tasks a machine has room for."""

import re

from deploy.config import Service

GIB_PER_CPU = {"c": 2, "m": 4, "r": 8}
"""Memory per processor of the families of machines. https://aws.amazon.com/ec2/instance-types/"""

SIZES = {"large": 2, "xlarge": 4}
"""Processors of a size; the larger ones are multiples of `xlarge`."""

FREE = 0.9
"""Share of the memory that is left to tasks by the operating system and ECS's agent."""


class MachineError(ValueError):
    """A type of machine is not known, or not of the tasks' architecture."""


def fits(instance_type: str, service: Service) -> int:
    """Return how many tasks a machine has room for.

    Raises:
        MachineError: Its type is not known, or has another architecture than the tasks.
    """
    known = re.fullmatch(r"([cmr])\d+([a-z]*)\.(?:(\d*)xlarge|large)", instance_type)
    if not known:
        raise MachineError(f"instance_type {instance_type!r} is not known here: c, m or r, from large")
    family, variants, multiple = known.groups()
    if ("g" in variants) != (service.architecture == "ARM64"):
        raise MachineError(f"instance_type {instance_type!r} does not run {service.architecture}")
    cpus = SIZES["large"] if multiple is None else SIZES["xlarge"] * int(multiple or 1)
    memory_mib = cpus * GIB_PER_CPU[family] * 1_024 * FREE
    return int(min(cpus * 1_024 // service.cpu_units, memory_mib // service.memory_mib))
