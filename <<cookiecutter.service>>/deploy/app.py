"""The infrastructure: `npx aws-cdk deploy -c environment=staging -c digest=sha256:… orders-staging`.

Three stacks: the images of the service, the platform of an environment, and the service in that environment.
"""

import re
import sys
from typing import Any

from aws_cdk import App

from deploy import config
from deploy.foundation import Platform
from deploy.stack import Images, Service


def build(environment: config.Environment, digest: str | None, **options: Any) -> App:
    """The app with the stacks of `environment`; the service's own is among them once there is an image to run."""
    app = App(**options)
    Images(app, environment)
    Platform(app, environment)
    if digest:
        Service(app, environment, digest)
    return app


def main() -> None:
    """Synthesise, or end with one line that says what is wrong."""
    context = App().node
    name, digest = context.try_get_context("environment"), context.try_get_context("digest")
    if not name:
        sys.exit("deploy: say which environment: -c environment=staging")
    if digest and not re.fullmatch("sha256:[0-9a-f]{64}", digest):
        sys.exit(f"deploy: {digest!r} is no digest: sha256: and 64 hexadecimal digits are one")
    try:
        environment = config.load(name)
    except config.ConfigError as error:
        sys.exit(f"deploy: {error}")
    build(environment, digest).synth()


if __name__ == "__main__":
    main()
