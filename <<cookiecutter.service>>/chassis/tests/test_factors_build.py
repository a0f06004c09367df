"""The factors that hold before a service runs are proven: codebase, dependencies, configuration, builds and parity."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from chassis.testing import containers
from chassis.testing.containers import docker
from chassis.tests.factors import URL, refused
from chassis.tests.probe import PACKAGE
from chassis.tests.probe.code import Code
from chassis.tests.probe.process import Gunicorn

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
    command = ["docker", "run", "--rm", *containers.environment(), released, "python", "-m", "service.admin", "config"]
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
