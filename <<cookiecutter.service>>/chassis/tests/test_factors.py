"""The twelve factors, proven from outside: `make factors`.

A function `prove_…` runs services and raises `AssertionError` where its law is broken; what it returns is the figure.
One test shows that the law holds, and its companion breaks the law on purpose and shows that the proof notices: a proof
that cannot fail is none.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chassis import migrations
from chassis.dev import embedded
from chassis.testing import containers
from chassis.testing.containers import HARDENED, docker
from chassis.testing.process import BIN, environment, wait_until
from chassis.testing.relay import Relay
from chassis.tests.faults.load import Load
from chassis.tests.probe import MIGRATIONS, PACKAGE
from chassis.tests.probe.code import Code
from chassis.tests.probe.process import Gunicorn, running

URL = "postgresql://nobody@127.0.0.1:1/nothing"


@pytest.fixture
def holds(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Add a row of the table: what was done, and what was measured."""
    numeral = request.node.name.split("_")[1].upper()

    def row(done: str, measured: str) -> None:
        record_property("factor", (numeral, done, measured))

    return row


def refused(proof: Callable[[], object]) -> str:
    """Check that `proof` notices that its factor is broken, and return how."""
    with pytest.raises((AssertionError, TimeoutError)) as noticed:
        proof()
    return str(noticed.value)


# I


def prove_codebase(one: Code, two: Code) -> str:
    """One codebase, two deploys that differ by their environment alone."""
    assert one.digest() == two.digest(), "two codebases"
    with (
        one.run(DATABASE_URL=URL, RELEASE="staging-1") as staging,
        two.run(DATABASE_URL=URL, URL_PREFIX="/api") as production,
    ):
        assert staging.get("/version").json()["release"] == "staging-1"
        assert production.get("/api/version").json()["release"] == "unreleased"
    assert one.digest() == two.digest(), "a deploy changed its code"
    return f"both are {one.digest()[:12]}"


def test_i_codebase(code: Code, holds: Callable[[str, str], None]) -> None:
    holds("ran two deploys of one commit", prove_codebase(code, code))


def test_i_is_noticed_when_a_deploy_has_code_of_its_own(code: Code, tmp_path: Path) -> None:
    patched = Code(shutil.copytree(code.folder, tmp_path / "patched")).broken("chassis/health.py", '"alive"', '"fine"')
    assert "two codebases" in refused(lambda: prove_codebase(code, patched))


# II


def prove_dependencies(code: Code) -> str:
    """Check that it runs with what is declared and locked, and with nothing else of the machine."""
    venv = code.folder / "isolated"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "pip"), "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--require-hashes", "--requirement", str(code.folder / "requirements.txt")]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"not installed: {done.stderr}"
    assert "include-system-site-packages = false" in (venv / "pyvenv.cfg").read_text()
    with Gunicorn(cwd=code.folder, command=[venv / "bin" / "python", "-m", PACKAGE], DATABASE_URL=URL) as server:
        assert server.get("/readyz").status_code == 200
    listed = subprocess.run([*pip, "list", "--format=json"], capture_output=True, check=True)
    names = {package["name"] for package in json.loads(listed.stdout)} - {"pip", "setuptools"}
    return f"{len(names)} packages, each with its hash"


def test_ii_dependencies(code: Code, holds: Callable[[str, str], None]) -> None:
    holds("installed the lock file into an empty environment, and served", prove_dependencies(code))


def test_ii_is_noticed_when_a_package_is_not_the_one_that_was_locked(code: Code) -> None:
    lock = (code.folder / "requirements.txt").read_text(encoding="utf-8")
    forged = re.sub(
        r"(?<=blinker==1.9.0 )(.*\n)((?:\s+--hash=sha256:)[0-9a-f]{64}.*\n)+",
        rf"\\\n    --hash=sha256:{'0' * 64}\n",
        lock,
    )
    assert forged != lock
    (code.folder / "requirements.txt").write_text(forged, encoding="utf-8")
    assert "not installed" in refused(lambda: prove_dependencies(code))


# III


def prove_config(code: Code) -> str:
    """Check that the environment decides, no file does, and all that is wrong with it is said at once."""
    (code.folder / ".env").write_text("RELEASE=from-a-file\n")
    with code.run(DATABASE_URL=URL, RELEASE="a") as one, code.run(DATABASE_URL=URL) as two:
        assert one.get("/version").json()["release"] == "a"
        assert two.get("/version").json()["release"] == "unreleased", "a file was read"
    wrong = Gunicorn(cwd=code.folder, DRAIN_SECONDS="soon", LOG_LEVEL="loud")
    assert wrong.wait() == 78, "not refused"
    assert set(wrong.events[-1]["faults"]) == {"DATABASE_URL", "DRAIN_SECONDS", "LOG_LEVEL"}
    return "3 faults named in one line, status 78"


def test_iii_config(code: Code, holds: Callable[[str, str], None]) -> None:
    holds("ran two environments, one with a .env beside it, and a wrong one", prove_config(code))


def test_iii_is_noticed_when_a_file_is_read(code: Code) -> None:
    code.broken("chassis/config.py", "env = Env(eager=False)", "env = Env(eager=False); env.read_env('.env')")
    assert "a file was read" in refused(lambda: prove_config(code))


# IV


def prove_backing_services(code: Code) -> str:
    """Check that what answers under the database's name is swapped while the service runs, and it follows."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        name = folder / "name"
        urls = [stack.enter_context(embedded.temporary()) for _ in range(2)]
        sockets = []
        for url in urls:
            with psycopg.connect(url, autocommit=True) as conn:
                sockets.append(conn.info.host)
            migrations.apply(partial(psycopg.connect, url, autocommit=True), MIGRATIONS)
        name.symlink_to(sockets[0])
        server = stack.enter_context(
            code.run(DATABASE_URL=f"postgresql://postgres@/postgres?host={name}", DATABASE_MAX_LIFETIME_SECONDS=1)
        )
        client = stack.enter_context(server.client())
        probe = client.post("/probes", json={"text": "on one"}).headers["location"]
        other = folder / "other"
        other.symlink_to(sockets[1])
        swapped = time.monotonic()
        other.replace(name)
        wait_until(lambda: client.get(probe).status_code == 404, seconds=10)
        assert client.post("/probes", json={"text": "on two"}).status_code == 201
        return f"followed after {time.monotonic() - swapped:.1f} s, without a restart"


def test_iv_backing_services(code: Code, holds: Callable[[str, str], None]) -> None:
    holds("swapped the database behind its name", prove_backing_services(code))


def test_iv_is_noticed_when_connections_live_for_ever(code: Code) -> None:
    code.broken("chassis/db.py", "lifetime_seconds=settings.database_max_lifetime_seconds", "lifetime_seconds=3600")
    refused(lambda: prove_backing_services(code))


# V


@pytest.fixture
def build() -> Iterator[Callable[[Code, str], str]]:
    """Build the image of a code as a release. Return its ID, a digest of its content. Remove it afterwards."""
    built = []

    def build(code: Code, release: str) -> str:
        built.append(docker("build", "--quiet", "--build-arg", f"RELEASE={release}", str(code.folder)))
        return built[-1]

    yield build
    docker("image", "rm", "--force", *built)


def prove_build_release_run(tested: str, released: str, release: str) -> str:
    """Check that what was tested is what runs, to the byte, and it says which release it is."""
    assert tested == released, "another image than the one that was tested"
    command = [
        "docker",
        "run",
        "--rm",
        "--env",
        f"DATABASE_URL={URL}",
        released,
        "python",
        "-m",
        "service.admin",
        "config",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["RELEASE"] == release
    return tested[:19]


@containers.needed
def test_v_build_release_run(code: Code, build: Callable[[Code, str], str], holds: Callable[[str, str], None]) -> None:
    tested = build(code, "build-1")
    holds("built an image once, and ran it by its digest", prove_build_release_run(tested, tested, "build-1"))


@containers.needed
def test_v_is_noticed_when_a_release_is_built_anew(code: Code, build: Callable[[Code, str], str]) -> None:
    tested = build(code, "build-1")
    rebuilt = build(code.broken("chassis/health.py", '"alive"', '"fine"'), "build-1")
    assert "another image" in refused(lambda: prove_build_release_run(tested, rebuilt, "build-1"))


# VI


def prove_processes(code: Code, database_url: str) -> str:
    """Two processes share no memory and no disk: what one stores, the other serves; and nothing is written."""
    path = f"/probes/{uuid.uuid4()}"
    before = code.digest()
    alone = {"DATABASE_URL": database_url, "WEB_CONCURRENCY": 1}
    with code.run(**alone) as one, code.run(**alone) as two:
        with one.client() as client:
            assert client.put(path, json={"text": "shared"}).status_code == 201
        assert two.get(path).status_code == 200, "kept in one process"
    assert code.digest() == before, "a file was written"
    return "stored by one, served by the other, 0 files written"


def test_vi_processes(code: Code, database_url: str, holds: Callable[[str, str], None]) -> None:
    holds("stored a probe by one process and asked another", prove_processes(code, database_url))


def test_vi_is_noticed_when_probes_are_kept_in_memory(code: Code, database_url: str) -> None:
    code.broken(
        "chassis/tests/probe/api.py",
        "    probe = Probe(*columns)\n",
        "    probe = KEPT[probe_id] = Probe(*columns)\n",
    )
    code.broken(
        "chassis/tests/probe/api.py",
        "    return db.read(select, probe_id) or",
        "    return KEPT.get(probe_id) or",
    )
    code.broken(
        "chassis/tests/probe/api.py",
        "MAX_TEXT_CHARS = 10_000\n",
        "MAX_TEXT_CHARS = 10_000\nKEPT: dict[UUID, Any] = {}\n",
    )
    assert "kept in one process" in refused(lambda: prove_processes(code, database_url))


# VII


def prove_port_binding(code: Code) -> str:
    """Check that it is an HTTP server by itself, on whatever port it is told."""
    with code.run(DATABASE_URL=URL) as one, code.run(DATABASE_URL=URL) as two:
        assert [server.get("/livez").status_code for server in (one, two)] == [200, 200]
        return f"answered on {one.port} and {two.port}"


def test_vii_port_binding(code: Code, holds: Callable[[str, str], None]) -> None:
    holds("started it on two free ports, with nothing in front", prove_port_binding(code))


def test_vii_is_noticed_when_the_port_is_fixed(code: Code) -> None:
    code.broken("chassis/server.py", 'f"0.0.0.0:{settings.port}"', '"127.0.0.1:0"')
    with pytest.raises(Exception, match="refused"):
        prove_port_binding(code)


# VIII


def prove_concurrency(code: Code, database_url: str) -> str:
    """Twice the processes carry more, without a change of code. Each has one connection, and the database is slow."""
    carried = []
    with psycopg.connect(database_url) as conn, Relay(conn.info.host, conn.info.port, delay_seconds=0.02) as slow:
        far = slow.stands_for(database_url)
        for processes in (1, 2):
            with code.run(DATABASE_URL=far, WEB_CONCURRENCY=processes, DATABASE_POOL_SIZE=1) as server:
                server.wait_for("ready", count=processes)
                with Load(server.port, clients=16) as load:
                    load.wait_for(50)
                    first, started = len(load.answers), time.monotonic()
                    time.sleep(2)  # the span of the measurement
                    carried.append((len(load.answers) - first) / (time.monotonic() - started))
                assert load.failed == []
    ratio = carried[1] / carried[0]
    assert ratio > 1.4, f"twice the processes carried {ratio:.2f} times as much"
    return f"{carried[0]:.0f} and {carried[1]:.0f} requests/s: {ratio:.2f} times as much"


def test_viii_concurrency(code: Code, database_url: str, holds: Callable[[str, str], None]) -> None:
    holds("put load on 1 process and on 2", prove_concurrency(code, database_url))


def test_viii_is_noticed_when_the_number_of_processes_is_fixed(code: Code, database_url: str) -> None:
    code.broken("chassis/server.py", '"workers": settings.web_concurrency', '"workers": 1')
    code.broken("chassis/server.py", "lifecycle.started()", "lifecycle.started(); lifecycle.started()")
    assert "times as much" in refused(lambda: prove_concurrency(code, database_url))


# IX


def prove_disposability(code: Code, database_url: str, **variables: Any) -> str:
    """Check that it is ready soon, and SIGTERM under load loses nothing while the balancer looks away."""
    begun = time.monotonic()
    with code.run(DATABASE_URL=database_url, **{"DRAIN_SECONDS": 5, **variables}) as server:
        ready_seconds = time.monotonic() - begun
        with Load(server.port, clients=8) as load:
            load.wait_for(100)
            server.signal(signal.SIGTERM)
            load.wait_for(len(load.answers) + 200, seconds=4.5)  # while it drains
        assert load.failed == [], "requests were lost"
        stopped = time.monotonic()
        assert server.wait() == 0
    gone_seconds = time.monotonic() - stopped
    return f"ready in {ready_seconds:.1f} s, 0 of {len(load.answers)} requests lost, gone {gone_seconds:.1f} s later"


def test_ix_disposability(code: Code, database_url: str, holds: Callable[[str, str], None]) -> None:
    holds("started it, and stopped it under load", prove_disposability(code, database_url))


def test_ix_is_noticed_when_it_does_not_drain(code: Code, database_url: str) -> None:
    refused(lambda: prove_disposability(code, database_url, DRAIN_SECONDS=0))


# X


def prove_parity(code: Code, server_url: str) -> str:
    """Check that the tests' PostgreSQL is production's, and what a developer composes is the production image."""
    compose = (code.folder / "compose.yaml").read_text(encoding="utf-8")
    [major] = re.findall(r"image: postgres:(\d+)", compose)
    with psycopg.connect(server_url) as conn:
        tested = str(conn.info.server_version // 10_000)
    assert tested == major, f"tested with {tested}, composed with {major}"
    assert re.findall(r"build: (.*)", compose) == ["."], "another image than the Dockerfile's"
    return f"PostgreSQL {major} in both"


def test_x_parity(code: Code, server_url: str, holds: Callable[[str, str], None]) -> None:
    holds("compared what tests and compose run with", prove_parity(code, server_url))


def test_x_is_noticed_when_compose_has_another_postgresql(code: Code, server_url: str) -> None:
    code.broken("compose.yaml", "image: postgres:18", "image: postgres:17")
    assert "composed with 17" in refused(lambda: prove_parity(code, server_url))


# XI


def prove_logs(code: Code, database_url: str) -> str:
    """Every byte on stdout is an event, stderr is silent, and no file appears."""
    before = code.digest()
    with code.run(DATABASE_URL=database_url, DRAIN_SECONDS=0) as server:
        with server.client() as client:
            client.post("/probes", json={"text": "line\nbreak"})
            client.get("/nowhere%0d%0a")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    events: list[Any] = [json.loads(line) for line in server.lines]
    assert server.stderr == b"", "something on stderr"
    assert code.digest() == before, "a file appeared"
    return f"{len(events)} lines, {len(events)} events"


def test_xi_logs(code: Code, database_url: str, holds: Callable[[str, str], None]) -> None:
    holds("started it, asked it, stopped it, and read all that it said", prove_logs(code, database_url))


def test_xi_is_noticed_when_something_is_logged_elsewhere(code: Code, database_url: str) -> None:
    code.broken("chassis/health.py", "import Config\n", "import Config\n\nopen('service.log', 'w').close()\n")
    assert "a file appeared" in refused(lambda: prove_logs(code, database_url))


# XII


def prove_admin(code: Code, empty_database_url: str) -> str:
    """Check that a one-off process has the same code and configuration, and its exit status says how it went."""

    def admin(command: str, url: str) -> int:
        env = environment(DATABASE_URL=url, DATABASE_TIMEOUT_SECONDS=1)
        return subprocess.run(
            [BIN / "python", "-m", f"{PACKAGE}.admin", command],
            cwd=code.folder,
            env=env,
            capture_output=True,
            check=False,
        ).returncode

    statuses = [
        admin("check", empty_database_url),
        admin("migrate", empty_database_url),
        admin("check", empty_database_url),
        admin("check", URL),
    ]
    assert statuses == [1, 0, 0, 1], f"statuses {statuses}"
    return "statuses 1, 0, 0, 1"


def test_xii_admin_processes(code: Code, empty_database_url: str, holds: Callable[[str, str], None]) -> None:
    holds("checked, migrated, checked again, and asked a database that is away", prove_admin(code, empty_database_url))


def test_xii_is_noticed_when_failures_are_hidden(code: Code, empty_database_url: str) -> None:
    code.broken("chassis/admin.py", "        return EX_FAILED\n", "        return 0\n")
    assert "statuses" in refused(lambda: prove_admin(code, empty_database_url))


# The same in containers, which are what a platform runs


def ask(container: str, path: str, method: str = "GET", body: str = "", port: int = 8000) -> Any:
    """Return the JSON that a service answers inside its container, where no port needs to be free."""
    program = (
        "import sys, urllib.request as r; method, url, body = sys.argv[1:];"
        "headers = {'Content-Type': 'application/json'};"
        "print(r.urlopen(r.Request(url, body.encode() or None, headers, method=method)).read().decode())"
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
