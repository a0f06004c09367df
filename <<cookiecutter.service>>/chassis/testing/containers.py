"""The image of the service, and a network with its PostgreSQL, for the tests that run it as production does."""

import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chassis.dev import postgres
from chassis.dev.variables import examples
from chassis.testing.process import wait_until

needed = pytest.mark.skipif(
    not postgres.docker_answers() and "CI" not in os.environ,  # there it must not be missed
    reason="Docker cannot be used here: no client, no engine that answers this user, or no `docker compose`",
)
"""The mark of a test that needs Docker."""

HARDENED = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]

PASSWORD = "only-for-this-test"  # noqa: S105 - of a database that lives as long as the test
URL = f"DATABASE_URL=postgresql://postgres:{PASSWORD}@postgres.internal/postgres"


def docker(*arguments: str) -> str:
    """Return the output of a Docker command that succeeds."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=600)  # noqa: S607
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.strip()


def environment() -> list[str]:
    """Return the options of `docker run` that set `URL`, and examples of the variables that the service requires."""
    return [f"--env={URL}", *(f"--env={name}={value}" for name, value in examples().items())]


@contextmanager
def image(*arguments: str) -> Iterator[str]:
    """Return the image of this folder, built as release `build-42`, and with further build arguments."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    built = [f"--build-arg={argument}" for argument in ("RELEASE=build-42", "REVISION=abc", *arguments)]
    docker("build", "--quiet", "--tag", name, *built, ".")
    try:
        yield name
    finally:
        docker("image", "rm", "--force", name)


@contextmanager
def extended(image: str, folder: Path, package: str) -> Iterator[str]:
    """Build an image that has the `package` in `folder` besides what `image` has, and serves that. Return its name."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    command = ", ".join(f'"{word}"' for word in ("python", "-m", package))
    recipe = f"FROM {image}\nCOPY . /srv/{package.replace('.', '/')}\nCMD [{command}]\n"
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "Dockerfile")
        path.write_text(recipe, encoding="utf-8")
        docker("build", "--quiet", "--tag", name, "--file", str(path), str(folder))
    try:
        yield name
    finally:
        docker("image", "rm", "--force", name)


@contextmanager
def network() -> Iterator[str]:
    """Return a network in which PostgreSQL is known as `postgres.internal`."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    docker("network", "create", name)
    try:
        server = docker(
            *("run", "--detach", "--rm", f"--network={name}", "--network-alias=postgres.internal"),
            *(f"--env=POSTGRES_PASSWORD={PASSWORD}", postgres.IMAGE),
        )
        try:
            wait_until(lambda: "ready for start up" in docker("logs", server), 60)
            ask = "pg_isready -h 127.0.0.1 || true"
            wait_until(lambda: docker("exec", server, "sh", "-c", ask).endswith("accepting connections"))
            yield name
        finally:
            docker("rm", "--force", "--volumes", server)
    finally:
        docker("network", "rm", name)


@contextmanager
def running(image: str, network: str, *options: str, package: str = "service") -> Iterator[str]:
    """Return the id of a container that serves, hardened as in production, with `options` of `docker run` besides."""
    where = [f"--network={network}", *environment()]
    docker("run", "--rm", *where, *HARDENED, image, "python", "-m", f"{package}.admin", "migrate")
    container = docker("run", "--detach", *where, *HARDENED, *options, image)
    try:
        wait_until(lambda: '"ready"' in docker("logs", container))
        yield container
    finally:
        docker("rm", "--force", "--volumes", container)


def address(container: str) -> tuple[str, int]:
    """Return the host and the port where a container with a published port is reached."""
    host, _, port = docker("port", container, "8000/tcp").splitlines()[0].rpartition(":")
    return host, int(port)
