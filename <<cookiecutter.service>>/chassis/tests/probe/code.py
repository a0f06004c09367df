"""A copy of the service's code: a deploy of its own, which a test may break on purpose."""

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chassis.tests.probe.process import Gunicorn

CODE = [
    "chassis",
    "service",
    "pyproject.toml",
    "requirements.txt",
    "Dockerfile",
    ".dockerignore",
    "compose.yaml",
]


@dataclasses.dataclass(frozen=True)
class Code:
    """A copy of the service's code, to run and to break."""

    folder: Path

    def run(self, **variables: Any) -> Gunicorn:
        """Return a deploy of it."""
        return Gunicorn(cwd=self.folder, PYTHONDONTWRITEBYTECODE=1, **variables)

    def broken(self, file: str, old: str, new: str) -> "Code":
        """Replace `old` by `new` in one file, and return this code."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{file} has changed: nothing to break"
        path.write_text(text.replace(old, new), encoding="utf-8")
        return self

    def digest(self) -> str:
        """One figure for all of its files."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return hashlib.sha256(
            b"".join(str(path.relative_to(self.folder)).encode() + path.read_bytes() for path in files)
        ).hexdigest()


@contextmanager
def copied() -> Iterator[Code]:
    """Return a fresh copy, which ends with the block."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for item in CODE:
            if Path(item).is_dir():
                shutil.copytree(item, folder / item, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(item, folder / item)
        yield Code(folder)
