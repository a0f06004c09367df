"""A baked service passes its gates on every Python that is promised, not only on the one that runs this.

What does not depend on it is left to the other tests: style, the image, and the way to production.
"""

import shutil
import subprocess
import sys

import pytest

from tests.conftest import baked, install, needs_docker
from tests.test_platforms import PYTHONS
from tests.test_service import environment

THIS = "{}.{}".format(*sys.version_info)
IN_A_CONTAINER = "3.14"
CONTAINER = f"""
FROM python:{IN_A_CONTAINER}-slim
RUN apt-get --option Acquire::Check-Valid-Until=false update
RUN apt-get install --yes --no-install-recommends curl git make
"""
GATES = ["types", "check"]


def interpreter(version: str) -> str | None:
    """Return the path of that Python, if this machine has one; pyenv's answer only to a variable that asks for them."""
    name = f"python{version}"
    if shutil.which(name) is None:
        return None
    ask = [name, "-c", "import sys; print(sys.executable)"]
    done = subprocess.run(ask, env=environment(PYENV_VERSION=version), capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


@pytest.mark.parametrize("version", [each for each in PYTHONS if each not in {THIS, IN_A_CONTAINER}])
def test_the_gates_pass_on_another_python(version: str, capfd: pytest.CaptureFixture[str]) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    without_docker = environment(DOCKER_HOST="unix:///dev/null")
    without_docker.pop("CI", None)  # so what needs Docker is skipped
    with baked() as service, capfd.disabled():
        install(service, python)
        done = subprocess.run(["make", *GATES], cwd=service, env=without_docker, check=False)
    assert done.returncode == 0


@needs_docker
@pytest.mark.skipif(THIS == IN_A_CONTAINER, reason="this Python is that one")
def test_the_gates_pass_in_a_container_of_the_newest_python(capfd: pytest.CaptureFixture[str]) -> None:
    build = ["docker", "build", "--quiet", "-"]
    image = subprocess.run(build, input=CONTAINER, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    gates = f"cp -R /baked /service && cd /service && make {' '.join(GATES)}"
    try:
        with baked() as service, capfd.disabled():
            run = ["docker", "run", "--rm", f"--volume={service}:/baked:ro", image, "sh", "-c", gates]
            done = subprocess.run(run, check=False)
        assert done.returncode == 0
    finally:
        subprocess.run(["docker", "image", "rm", "--force", image], stdout=subprocess.DEVNULL, check=True)
