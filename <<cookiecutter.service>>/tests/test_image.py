"""The image: what production runs, run as production runs it."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import postgres
from tests.process import wait_until

pytestmark = pytest.mark.skipif(
    not postgres.docker_answers() and "CI" not in os.environ,  # there it must not be missed
    reason="no Docker engine answers here",
)

HARDENED = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]


def docker(*arguments: str) -> str:
    """The output of a Docker command that succeeds."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=600)  # noqa: S607
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The image of this folder, built as release `build-42`."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    docker("build", "--quiet", "--tag", name, "--build-arg", "RELEASE=build-42", "--build-arg", "REVISION=abc", ".")
    yield name
    docker("image", "rm", "--force", name)


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    """A network in which PostgreSQL is known as `postgres.internal`."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    docker("network", "create", name)
    server = docker(
        *("run", "--detach", "--rm", f"--network={name}", "--network-alias=postgres.internal"),
        *("--env=POSTGRES_PASSWORD=only-for-this-test", postgres.IMAGE),
    )
    wait_until(lambda: "ready for start up" in docker("logs", server), 60)
    wait_until(
        lambda: docker("exec", server, "sh", "-c", "pg_isready -h 127.0.0.1 || true").endswith("accepting connections")
    )
    yield name
    docker("rm", "--force", "--volumes", server)
    docker("network", "rm", name)


URL = "DATABASE_URL=postgresql://postgres:only-for-this-test@postgres.internal/postgres"


def test_the_image_migrates_serves_and_stops_on_a_read_only_root(image: str, network: str) -> None:
    where = [f"--network={network}", "--env", URL]
    said = docker("run", "--rm", *where, *HARDENED, image, "python", "-m", "service.admin", "migrate")
    assert json.loads(said.splitlines()[-1])["body"] == "schema is up to date"

    container = docker(
        "run", "--detach", "--publish=127.0.0.1::8000", *where, *HARDENED, "--env=DRAIN_SECONDS=1", image
    )
    try:
        address = docker("port", container, "8000/tcp").splitlines()[0]
        wait_until(lambda: '"ready"' in docker("logs", container))
        with httpx.Client(base_url=f"http://{address}", trust_env=False) as client:
            assert client.get("/version").json()["release"] == "build-42"
            created = client.post("/notes", json={"text": "from a container"})
            assert created.status_code == 201
            assert client.get(created.headers["location"]).json() == created.json()
        wait_until(lambda: docker("inspect", "--format={{.State.Health.Status}}", container) == "healthy")
        assert docker("diff", container) == ""
        docker("stop", container)
        assert docker("inspect", "--format={{.State.ExitCode}}", container) == "0"
        assert [json.loads(line) for line in docker("logs", container).splitlines()]
    finally:
        docker("rm", "--force", container)


def test_the_image_holds_the_service_and_says_what_it_is(image: str) -> None:
    config = json.loads(docker("inspect", "--format={{json .Config}}", image))
    assert (config["User"], config["Cmd"], config["StopSignal"]) == ("10001:10001", ["gunicorn"], "SIGTERM")
    assert config["Labels"]["org.opencontainers.image.version"] == "build-42"
    assert config["Labels"]["org.opencontainers.image.revision"] == "abc"
    files = docker("run", "--rm", image, "python", "-c", "import os; print(*sorted(os.listdir('.')))")
    assert files == ".venv gunicorn.conf.py pyproject.toml service"


def test_the_image_holds_no_secret(image: str) -> None:
    assert "DATABASE_URL" not in docker("history", "--no-trunc", image) + docker("inspect", image)


def test_the_bytecode_is_in_the_image(image: str) -> None:
    program = "import service.app as app, os; print(os.path.exists(app.__cached__))"
    assert docker("run", "--rm", image, "python", "-c", program) == "True"


def test_the_user_may_not_write_anything_of_the_image(image: str) -> None:
    program = "import os; print([name for name in ('.', 'service', '.venv') if os.access(name, os.W_OK)])"
    assert docker("run", "--rm", image, "python", "-c", program) == "[]"


def test_compose_names_postgresql_as_production_does() -> None:
    compose = json.loads(docker("compose", "--file", "compose.yaml", "config", "--format=json"))
    [alias] = compose["services"]["postgres"]["networks"]["default"]["aliases"]
    assert alias.startswith("postgres.")
    assert f"@{alias}/" in compose["services"]["web"]["environment"]["DATABASE_URL"]
    assert compose["services"]["web"]["image"] == compose["services"]["release"]["image"]
    assert Path("Dockerfile").exists()
