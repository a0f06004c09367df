"""The image: what production runs, run as production runs it."""

import json
import re
import subprocess
from pathlib import Path

import httpx

from chassis.testing import containers
from chassis.testing.containers import HARDENED, docker
from chassis.testing.process import wait_until

pytestmark = containers.needed

MIGRATE = ["python", "-m", "service.admin", "migrate"]


def test_the_image_migrates_serves_and_stops_on_a_read_only_root(image: str, network: str) -> None:
    said = docker("run", "--rm", f"--network={network}", *containers.environment(), *HARDENED, image, *MIGRATE)
    assert json.loads(said.splitlines()[-1])["body"] == "schema is up to date"
    with containers.running(image, network, "--publish=127.0.0.1::8000", "--env=DRAIN_SECONDS=1") as container:
        host, port = containers.address(container)
        with httpx.Client(base_url=f"http://{host}:{port}", trust_env=False) as client:
            assert client.get("/version").json()["release"] == "build-42"
            assert client.get("/openapi.json").status_code == 200
        wait_until(lambda: docker("inspect", "--format={{.State.Health.Status}}", container) == "healthy")
        assert docker("diff", container) == ""
        docker("stop", container)
        assert docker("inspect", "--format={{.State.ExitCode}}", container) == "0"
        assert [json.loads(line) for line in docker("logs", container).splitlines()]


def test_the_image_holds_the_service_and_says_what_it_is(image: str) -> None:
    config = json.loads(docker("inspect", "--format={{json .Config}}", image))
    assert (config["User"], config["Cmd"], config["StopSignal"]) == (
        "10001:10001",
        ["python", "-m", "service"],
        "SIGTERM",
    )
    assert config["Labels"]["org.opencontainers.image.version"] == "build-42"
    assert config["Labels"]["org.opencontainers.image.revision"] == "abc"
    files = docker("run", "--rm", image, "python", "-c", "import os; print(*sorted(os.listdir('.')))")
    assert files == ".venv chassis pyproject.toml service"
    inside = docker("run", "--rm", image, "python", "-c", "import os; print(*sorted(os.listdir('chassis')))").split()
    assert not {"dev", "testing", "tests"} & set(inside)


def test_the_image_holds_no_secret(image: str) -> None:
    said = docker("history", "--no-trunc", "--format={{.CreatedBy}} {{.Comment}}", image) + docker("inspect", image)
    assert not re.findall(r"(?i)database_url|passw|secret|token|credential|private.?key|api.?key|://[^/\s]+@", said)


def test_the_bytecode_is_in_the_image(image: str) -> None:
    program = "import service.app as app, os; print(os.path.exists(app.__cached__))"
    assert docker("run", "--rm", image, "python", "-c", program) == "True"


def test_the_user_may_not_write_anything_of_the_image(image: str) -> None:
    program = "import os; print([name for name in ('.', 'chassis', 'service', '.venv') if os.access(name, os.W_OK)])"
    assert docker("run", "--rm", image, "python", "-c", program) == "[]"


def test_what_is_optional_is_in_the_image_when_the_build_asks_for_it(image: str) -> None:
    asking = ["JWKS_URL=https://issuer.example.com/keys", "TOKEN_ISSUER=issuer", "TOKEN_AUDIENCE=service"]
    command = ["python", "-m", "service.admin", "config"]
    options = [*containers.environment(), *(f"--env={variable}" for variable in asking)]
    done = subprocess.run(["docker", "run", "--rm", *options, image, *command], capture_output=True, check=False)  # noqa: S607
    assert (done.returncode, "requirements-tokens.txt" in json.loads(done.stdout)["faults"]["JWKS_URL"]) == (78, True)
    program = "import importlib.util; print(importlib.util.find_spec('opentelemetry'))"
    assert docker("run", "--rm", image, "python", "-c", program) == "None"
    with containers.image("REQUIREMENTS=requirements-tokens.txt requirements-traces.txt") as extended:
        said = json.loads(docker("run", "--rm", *options, extended, *command))
        docker("run", "--rm", extended, "python", "-c", "import chassis.traces")
    assert said["JWKS_URL"] == "https://issuer.example.com/keys"


def test_the_image_is_60_mb_larger_than_its_base_at_most(image: str) -> None:
    [base] = re.findall(r"^ARG BASE=(\S+)$", Path("Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    larger = int(docker("inspect", "--format={{.Size}}", image)) - int(docker("inspect", "--format={{.Size}}", base))
    assert 0 < larger <= 60_000_000


def test_compose_names_postgresql_as_production_does() -> None:
    compose = json.loads(docker("compose", "--file", "compose.yaml", "config", "--format=json"))
    [alias] = compose["services"]["postgres"]["networks"]["default"]["aliases"]
    assert alias.startswith("postgres.")
    assert f"@{alias}/" in compose["services"]["web"]["environment"]["DATABASE_URL"]
    assert compose["services"]["web"]["image"] == compose["services"]["release"]["image"]
    assert Path("Dockerfile").exists()
