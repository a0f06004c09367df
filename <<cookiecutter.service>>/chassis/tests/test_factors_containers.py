"""The factors are proven in containers, which are what a platform runs."""

import json
import subprocess
import time
import uuid
from collections.abc import Callable
from typing import Any

from chassis.testing import containers
from chassis.testing.containers import HARDENED, docker
from chassis.tests.probe import PACKAGE
from chassis.tests.probe.process import running


def ask(container: str, path: str, method: str = "GET", body: str = "", port: int = 8000) -> Any:
    """Return the JSON that a service answers inside its container, where no port needs to be free."""
    program = (
        "import sys, urllib.request as r; method, url, body = sys.argv[1:];"
        "headers = {'Content-Type': 'application/json'};"
        "opener = r.build_opener(r.ProxyHandler({}));"  # Docker may pass its own proxies into containers
        "print(opener.open(r.Request(url, body.encode() or None, headers, method=method)).read().decode())"
    )
    url = f"http://127.0.0.1:{port}{path}"
    return json.loads(docker("exec", container, "python", "-c", program, method, url, body))


@containers.needed
def test_iii_config_in_containers(image: str, network: str, holds: Callable[[str, str], None]) -> None:
    with (
        running(image, network, "--env=RELEASE=a") as one,
        running(image, network, "--env=RELEASE=b", "--env=URL_PREFIX=/api") as two,
    ):
        assert (ask(one, "/version")["release"], ask(two, "/api/version")["release"]) == ("a", "b")
    wrong = ["docker", "run", "--rm", *HARDENED, "--env=LOG_LEVEL=loud", image]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert (done.returncode, set(json.loads(done.stdout)["faults"])) == (78, {"DATABASE_URL", "LOG_LEVEL"})
    holds("ran one image in two environments, and in a wrong one", "two deploys; 2 faults named, status 78")


@containers.needed
def test_vi_processes_in_containers(image: str, network: str, holds: Callable[[str, str], None]) -> None:
    path = f"/probes/{uuid.uuid4()}"
    with running(image, network) as one, running(image, network) as two:
        ask(one, path, "PUT", '{"text": "shared"}')
        assert ask(two, path)["text"] == "shared"
        assert docker("diff", one) == docker("diff", two) == ""
    holds("stored a probe by one container and asked another", "found; nothing written on two read-only roots")


@containers.needed
def test_vii_port_binding_in_a_container(image: str, network: str, holds: Callable[[str, str], None]) -> None:
    with running(image, network, "--env=PORT=9876") as container:
        assert ask(container, "/livez", port=9876) == {"status": "alive"}
    holds("told a container another port", "answered on 9876")


@containers.needed
def test_ix_disposability_in_a_container(image: str, network: str, holds: Callable[[str, str], None]) -> None:
    begun = time.monotonic()
    with running(image, network, "--env=DRAIN_SECONDS=1") as container:
        ready = time.monotonic()
        docker("stop", container)
        assert docker("inspect", "--format={{.State.ExitCode}}", container) == "0"
        gone = time.monotonic()
    holds("migrated, started and stopped it", f"ready in {ready - begun:.1f} s, gone in {gone - ready:.1f} s, status 0")


@containers.needed
def test_xi_logs_of_a_container(image: str, network: str, holds: Callable[[str, str], None]) -> None:
    with running(image, network, "--env=DRAIN_SECONDS=0") as container:
        ask(container, "/probes")
        docker("stop", container)
        said = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)  # noqa: S607
    events = [json.loads(line) for line in said.stdout.splitlines()]
    assert said.stderr == ""
    holds("read all that a container said", f"{len(events)} lines, {len(events)} events")


@containers.needed
def test_xii_admin_processes_in_containers(image: str, network: str, holds: Callable[[str, str], None]) -> None:
    run = ["docker", "run", "--rm", f"--network={network}", f"--env={containers.URL}", *HARDENED, image]
    statuses = [
        subprocess.run([*run, "python", "-m", f"{PACKAGE}.admin", command], capture_output=True, check=False).returncode
        for command in ("migrate", "check", "destroy")
    ]
    assert statuses == [0, 0, 64]
    holds("ran one-off commands from the same image", "statuses 0, 0, 64")
