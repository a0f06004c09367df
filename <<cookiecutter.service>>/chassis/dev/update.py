"""Merge a version of the template into this service: `make update`, or `make update VERSION=2026.11.25`.

cruft makes a three-way merge of each file: as the template made it, as you have it, as the template makes it now. Git
must know the first of these, but the history of a service contains it only in the commit that began the service, and a
shallow clone does not contain it at all. Without it cruft falls back to patches, and leaves what does not apply in
`*.rej` files. So this module first stores each file as the template made it in Git's object database, then runs cruft.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

NEXT = """
Where you and the template changed the same lines, Git's conflict markers stand: decide. Then:

  make lock                      # if pyproject.toml or deploy/*.in changed
  make variables contract test

The files of `[tool.cruft]` in pyproject.toml are yours: the template's changelog says, under "In the example", what
changed in those from which they came.
"""


def store_base(state: dict[str, str], answers: dict[str, str]) -> None:
    """Store every file as the version of the template made it that this service has."""
    with tempfile.TemporaryDirectory() as folder:
        create = ["cruft", "create", state["template"], "--no-input", "--checkout", state["commit"]]
        create += ["--extra-context", json.dumps(answers), "--output-dir", folder]
        subprocess.run(create, stdout=subprocess.DEVNULL, check=True)
        paths = "\n".join(str(path) for path in Path(folder).rglob("*") if path.is_file())
        store = ["git", "hash-object", "-w", "--no-filters", "--stdin-paths"]
        subprocess.run(store, input=paths, stdout=subprocess.DEVNULL, text=True, check=True)


def main(version: str) -> int:
    """Merge `version` of the template, a tag or `HEAD`, and return the exit status of cruft."""
    state = json.loads(Path(".cruft.json").read_text(encoding="utf-8"))
    answers = {name: value for name, value in state["context"]["cookiecutter"].items() if not name.startswith("_")}
    store_base(state, answers)
    update = ["cruft", "update", "--skip-apply-ask", "--checkout", version]
    done = subprocess.run(update, stdout=subprocess.PIPE, text=True, check=False)
    print(*done.stdout.splitlines()[-1:], file=sys.stderr)  # above it stands how to begin with a new service
    if done.returncode == 0:
        print(NEXT)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
