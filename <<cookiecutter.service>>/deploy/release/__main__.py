"""The command: `python -m deploy.release --help`.

One JSON line on stdout reports each step; an error is one line on stderr, and status 1. Every command may be repeated:
it finds what is already done, and continues from there.
"""

import argparse
import signal
import sys
from collections.abc import Callable

from botocore.exceptions import BotoCoreError, ClientError

from deploy import config
from deploy.release import releases
from deploy.release.build import build
from deploy.release.cost import cost
from deploy.release.database import database
from deploy.release.shell import shell
from deploy.release.target import ReleaseError, Target, line
from deploy.release.task import ADMIN, run_once


def main(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    given = _parser().parse_args(arguments)
    try:
        return given.run(given) or 0
    except (ReleaseError, config.ConfigError) as error:
        return _fail(str(error))
    except ClientError as error:
        return _fail(f"AWS refused {error.operation_name}: {line(error)}")
    except BotoCoreError as error:  # no credentials, region or connection: its text says which
        return _fail(f"AWS was not asked: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        _fail("interrupted")
        return 128 + signal.SIGINT


def _release(given: argparse.Namespace) -> None:
    releases.make(Target(given.environment), given.digest, again=given.again)


def _run(given: argparse.Namespace) -> None:
    target = Target(given.environment)
    releases.run(target, target.release(given.number), despite_alarms=given.despite_alarms)


def _admin(given: argparse.Namespace) -> int:
    target = Target(given.environment)
    return run_once(target, target.running(), "admin", [*ADMIN, *given.arguments])


def _fail(reason: str) -> int:
    print(f"deploy.release: {reason}", file=sys.stderr)  # noqa: T201 - the command's output
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.release", description="Build, release, run.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, run: Callable[[argparse.Namespace], int | None]) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text)
        added.set_defaults(run=run)
        if name != "build":
            added.add_argument("--environment", required=True, metavar="NAME", help="as in deploy/NAME.toml")
        return added

    command("build", "build the image of this commit, and print its digest", lambda _: build())
    made = command("release", "make a release of an image", _release)
    made.add_argument("digest", nargs="?", help="as `build` printed it: sha256:…; the one that runs if left out")
    made.add_argument("--again", action="store_true", help="also if nothing changed: its tasks read secrets anew")
    ran = command("run", "migrate, and give a release the traffic", _run)
    ran.add_argument("number", nargs="?", type=int, help="of the release; the newest if left out")
    ran.add_argument("--despite-alarms", action="store_true", help="also while an alarm is raised, which this repairs")
    command("rollback", "bring back the release that ran before", lambda it: releases.rollback(Target(it.environment)))
    command(
        "status", "print what runs, and which releases there are", lambda it: releases.status(Target(it.environment))
    )
    once = command("admin", "run `python -m service.admin …` of the running release, once", _admin)
    once.add_argument("arguments", nargs="+", metavar="-- ARGUMENT", help="such as `-- check`")
    base = command(
        "database",
        "create the service's role and database, or bring them up to date",
        lambda it: database(Target(it.environment), rotate=it.rotate),
    )
    base.add_argument("--rotate", action="store_true", help="create a new user with a new password")
    command(
        "shell",
        "start a task for a shell, and print the command that opens it",
        lambda it: shell(Target(it.environment)),
    )
    command("cost", "estimate the cost of a month, by list prices", lambda it: cost(it.environment))
    return parser


if __name__ == "__main__":
    # Scaling is resumed also when the workflow is cancelled.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main(sys.argv[1:]))
