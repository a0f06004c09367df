"""Create a virtual environment and install what a lock file pins: `python3 -m chassis.dev.install FOLDER FILE`.

uv installs, in a fraction of the time that pip takes. pip installs uv once, into `.venv`, as `requirements-uv.txt` pins
it by its hashes. The variable `INSTALLER` names an uv that is there already.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever has an older Python is told so here
    sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.14 ...")

import configparser
import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from chassis.dev import steps

UV_LOCK = Path(__file__).parents[2] / "requirements-uv.txt"

PIP_FILES = [
    "/etc/xdg/pip/pip.conf",
    "/etc/pip.conf",
    "/Library/Application Support/pip/pip.conf",
    "~/.pip/pip.conf",
    "~/.config/pip/pip.conf",
    "~/Library/Application Support/pip/pip.conf",
]
"""Where pip looks, the last word last. https://pip.pypa.io/en/stable/topics/configuration/"""

OPTIONS = ["--quiet", "--require-hashes", "--requirement"]


def main(folder: str, lock: str) -> None:
    """Create the virtual environment `folder` if it is missing, and install `lock` into it."""
    if "cookiecutter" in Path.cwd().name:
        sys.exit("This is the template's own folder: what is made here would be copied. `make demo` in the one above.")
    python = Path(folder, "bin", "python")
    installer = Path(os.environ.get("INSTALLER") or ".venv/bin/uv")
    if not os.access(installer, os.X_OK):  # it is missing, or pip was interrupted, which makes it executable at last
        steps.step("install uv", lambda: _install_uv(installer.parent.parent))
    commands: list[list[str | Path]] = (
        [] if python.exists() else [[installer, "venv", "--quiet", "--allow-existing", folder]]
    )
    if commands:
        commands[0] += ["--python", sys.executable]
    commands.append([installer, "pip", "install", "--python", python, *OPTIONS, lock])
    environment = {**_cache(), **settings_of_pip(), **os.environ}
    environment.pop("VIRTUAL_ENV", None)
    steps.step(f"install {Path(lock).name}", lambda: steps.run_all(commands, environment))


def _install_uv(folder: Path) -> str:
    """Create an environment with nothing in it but uv."""
    python = folder / "bin" / "python"
    said = steps.run_all([[sys.executable, "-m", "venv", "--without-pip", folder]])
    # Whatever an interrupted installation has left behind is no installed uv.
    pip = ["--disable-pip-version-check", "install", "--no-compile", "--ignore-installed", *OPTIONS, UV_LOCK]
    if find_spec("pip"):  # of this Python: to create one in the environment takes seconds
        with suppress(steps.Failed):  # it is too old
            return said + steps.run_all([[sys.executable, "-m", "pip", "--python", python, *pip]])
    return said + steps.run_all([[python, "-m", "ensurepip"], [python, "-m", "pip", *pip]])


def _cache() -> dict[str, str]:
    """Return variables of uv, which ends if it cannot write its cache: a user without a home has none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 - `~` may be unknown
    place = next(each for each in (cache, *cache.absolute().parents) if each.exists())
    return {} if os.access(place, os.W_OK) else {"UV_NO_CACHE": "1"}


def settings_of_pip() -> dict[str, str]:
    """Return the index and the certificates that pip is configured with, as variables of uv, which ignores those."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    files = [*PIP_FILES, f"{sys.prefix}/pip.conf", os.environ.get("PIP_CONFIG_FILE", os.devnull)]
    parser.read([os.path.expanduser(file) for file in files], encoding="utf-8")  # noqa: PTH111 - `~` may be unknown
    found = {}
    for option, variable in {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}.items():
        in_files = parser.get("global", option, fallback="")
        value = os.environ.get(f"PIP_{option.upper().replace('-', '_')}", in_files)
        if value:
            found[variable] = value
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
