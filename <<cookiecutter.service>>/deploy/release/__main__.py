"""The command: `python -m deploy.release build`, `release`, `run`, `rollback`, `status` and `admin`.

One JSON line on stdout reports each step; an error is one line on stderr, and status 1. Every command may be repeated:
it finds what is already done, and continues from there.
"""

import argparse
import sys

from botocore.exceptions import BotoCoreError, ClientError

from deploy import config
from deploy.release import releases
from deploy.release.build import build
from deploy.release.target import ReleaseError, Target, line
from deploy.release.task import ADMIN, run_once


def main(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    given = _parser().parse_args(arguments)
    try:
        if given.command == "build":
            build()
            return 0
        target = Target(given.environment)
        if given.command == "release":
            releases.make(target, given.digest)
        elif given.command == "run":
            releases.run(target, target.release(given.number))
        elif given.command == "admin":
            return run_once(target, target.running(), [*ADMIN, *given.arguments], "admin")
        else:
            {"rollback": releases.rollback, "status": releases.status}[given.command](target)
    except (ReleaseError, config.ConfigError) as error:
        return _fail(str(error))
    except ClientError as error:
        return _fail(f"AWS refused {error.operation_name}: {line(error)}")
    except BotoCoreError as error:  # no credentials, region or connection: its text says which
        return _fail(f"AWS was not asked: {' '.join(str(error).split())}")
    return 0


def _fail(reason: str) -> int:
    print(f"deploy.release: {reason}", file=sys.stderr)  # noqa: T201 - the command's output
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.release", description="Build, release, run.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("build", help="build the image of this commit, and print its digest")
    made = commands.add_parser("release", help="make a release of an image")
    ran = commands.add_parser("run", help="migrate, and give a release the traffic")
    back = commands.add_parser("rollback", help="bring back the release that ran before")
    shown = commands.add_parser("status", help="print what runs, and which releases there are")
    once = commands.add_parser("admin", help="run `python -m service.admin …` of the running release, once")
    for each in (made, ran, back, shown, once):
        each.add_argument("--environment", required=True, metavar="NAME", help="as in deploy/NAME.toml")
    made.add_argument("digest", help="as `build` printed it: sha256:…")
    ran.add_argument("number", nargs="?", type=int, help="of the release; the newest if left out")
    once.add_argument("arguments", nargs="+", metavar="-- ARGUMENT", help="such as `-- check`")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
