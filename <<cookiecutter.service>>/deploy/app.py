"""The CDK application: `npx aws-cdk deploy -c environment=staging -c digest=sha256:… orders-staging`.

It has three stacks: the images of the service, the platform of an environment, and the service in that environment.
"""

import re
import sys
from typing import Any

from aws_cdk import App

from deploy import config, environments
from deploy.platform.stack import platform_stack
from deploy.service.images import images_stack
from deploy.service.stack import service_stack


def build(environment: config.Environment, digest: str | None, **options: Any) -> App:
    """Return the application with the stacks of `environment`. The service's own needs the digest of an image."""
    app = App(**options)
    images_stack(app, environment)
    platform_stack(app, environment)
    if digest:
        service_stack(app, environment, digest)
    return app


def main() -> None:
    """Synthesise the stacks, or end with one line that says what is wrong."""
    context = App().node
    name, digest = context.try_get_context("environment"), context.try_get_context("digest")
    if not name:
        sys.exit("deploy: say which environment: -c environment=staging")
    if digest is not None and not re.fullmatch("sha256:[0-9a-f]{64}", digest):
        sys.exit(f"deploy: {digest!r} is no digest: a digest is sha256: and 64 hexadecimal digits")
    try:
        environment = environments.load(name)
    except config.ConfigError as error:
        sys.exit(f"deploy: {error}")
    build(environment, digest).synth()


if __name__ == "__main__":
    main()
