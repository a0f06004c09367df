"""What types of machines have: processors, and room for tasks."""

import re

from deploy.config import Service

GIB_PER_CPU = {"c": 2, "m": 4, "r": 8}
"""Memory per processor of the families of machines. https://aws.amazon.com/ec2/instance-types/"""

SIZES = {"large": 2, "xlarge": 4}
"""Processors of a size; the larger ones are multiples of `xlarge`."""

KNOWN = re.compile(r"(?P<family>[cmr])\d+[a-z]*\.(\d*x)?large")
"""Types of machines that are known here."""

FREE = 0.9
"""Share of the memory that is left to tasks by the operating system and ECS's agent."""


class MachineError(ValueError):
    """A type of machine is not known, or not of the tasks' architecture."""


def cpus(instance_type: str) -> int:
    """Return the processors of a machine: two up to `large`, then multiples of those of `xlarge`."""
    multiple = re.search(r"\.(\d*)xlarge$", instance_type)
    return SIZES["xlarge"] * int(multiple[1] or 1) if multiple else SIZES["large"]


def memory_mib(instance_type: str) -> float:
    """Return the memory that a machine has for tasks.

    Raises:
        MachineError: Its type is not known.
    """
    known = KNOWN.fullmatch(instance_type)
    if not known:
        raise MachineError(f"instance_type {instance_type!r} is not known here: c, m or r, from large")
    return cpus(instance_type) * GIB_PER_CPU[known["family"]] * 1_024 * FREE


def fits(instance_type: str, service: Service) -> int:
    """Return how many tasks a machine has room for.

    Raises:
        MachineError: Its type is not known, or has another architecture than the tasks.
    """
    memory = memory_mib(instance_type)
    if ("g" in instance_type.partition(".")[0]) != (service.architecture == "ARM64"):
        raise MachineError(f"instance_type {instance_type!r} does not run {service.architecture}")
    return int(min(cpus(instance_type) * 1_024 // service.cpu_units, memory // service.memory_mib))
