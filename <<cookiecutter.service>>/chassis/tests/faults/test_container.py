"""The image in the narrowest place that a platform offers: no root, no capabilities, no shell, little memory."""

import json
from contextlib import ExitStack

import pytest

from chassis.testing import containers
from chassis.testing.containers import docker
from chassis.tests.faults.load import Load
from chassis.tests.probe import PACKAGE
from chassis.tests.probe.process import running

pytestmark = containers.needed

MEMORY_MB = 128
NARROW = [
    *(f"--memory={MEMORY_MB}m", f"--memory-swap={MEMORY_MB}m", "--pids-limit=64"),
    *("--volume=/dev/null:/bin/sh:ro", "--volume=/dev/null:/bin/bash:ro"),  # what needs a shell fails
]

# What the first process may do, and what all have used: proc(5), and control groups of either version.
INSIDE = """
import json
from pathlib import Path
status = dict(line.split(":", 1) for line in Path("/proc/1/status").read_text().splitlines())
def number(*names):
    found = [Path("/sys/fs/cgroup", name) for name in names if Path("/sys/fs/cgroup", name).exists()]
    return int(found[0].read_text()) if found else 0
def may_write(path):
    try:
        Path(path, "probe").write_text("")
    except OSError:
        return False
    Path(path, "probe").unlink()
    return True
FOLDERS = ["/", "/srv", "/etc", "/var", "/var/tmp", "/run", "/home", "/tmp", "/dev/shm"]
print(json.dumps({
    "user": status["Uid"].split(),
    "capabilities": {name: int(status[name], 16) for name in status if name.startswith("Cap")},
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "memory_mb": number("memory.peak", "memory/memory.max_usage_in_bytes") // 2**20,
    "tasks": number("pids.peak", "pids.current", "pids/pids.current"),
    "writable": list(filter(may_write, FOLDERS)),
}))
"""


@pytest.fixture
def container(image: str, network: str, processes: ExitStack) -> str:
    """Return the service in a narrow container."""
    return processes.enter_context(running(image, network, "--publish=127.0.0.1::8000", *NARROW))


def test_the_image_serves_where_it_may_do_next_to_nothing(container: str) -> None:
    _, port = containers.address(container)
    with Load(port, clients=64) as load:
        load.wait_for(4_000)
    inside = json.loads(docker("exec", container, "python", "-c", INSIDE))
    state = json.loads(docker("inspect", "--format={{json .State}}", container))
    print(
        f"{MEMORY_MB} MB, 64 pids, no capability, no shell: {len(load.failed)} failed of {len(load.answers)} requests, "
        f"with {inside['memory_mb']} MB at most and {inside['tasks']} tasks; writable: {', '.join(inside['writable'])}"
    )
    assert not load.failed
    assert (state["Running"], state["OOMKilled"]) == (True, False)
    assert inside["user"] == ["10001"] * 4
    assert set(inside["capabilities"].values()) == {0}
    assert inside["no_new_privileges"] == "1"
    assert inside["writable"] == ["/tmp", "/dev/shm"]  # noqa: S108 - in memory, both
    assert docker("diff", container) == ""


def test_no_shell_is_needed(image: str, container: str) -> None:
    with pytest.raises(AssertionError, match="exec failed"):
        docker("exec", container, "sh", "-c", "true")
    config = json.loads(docker("inspect", "--format={{json .Config}}", image))
    docker("exec", container, *config["Healthcheck"]["Test"][1:])
    docker("stop", container)
    assert docker("inspect", "--format={{.State.ExitCode}}", container) == "0"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["Cmd"] == ["python", "-m", PACKAGE]
    assert not config.get("Entrypoint")
    print("no shell: starts, answers its health check and stops with status 0")
