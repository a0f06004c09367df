"""Create the service's role and database, and replace the user that it logs in with."""

import json

from deploy import config, files
from deploy.release.target import ReleaseError, Target, client, say
from deploy.release.task import run_once


def database(target: Target, *, rotate: bool) -> None:
    """Run `deploy/release/provision.py` in a task. With `rotate`, a new user with a new password is created.

    The old user goes on working, and so do the tasks that know it. A release that is made again then uses the new one.

    Raises:
        ReleaseError: There is no such task, since the environment file names the credentials; or it failed. With
            `rotate`: a proxy would refuse the old user at once.
    """
    if rotate and files.read(target.environment)["service"].get("database_proxy"):
        raise ReleaseError(
            "--rotate would cut tasks off, since the proxy knows one user only: set database_proxy = false, deploy the"
            " stack, release and run first"
        )
    family = f"{target.name}-database"
    try:
        arn = target.ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]["taskDefinitionArn"]
    except target.ecs.exceptions.ClientException:
        raise ReleaseError(f"there is no task definition {family}: [secrets] names the credentials") from None
    if rotate:
        _rotate(target)
    if exit_status := run_once(target, arn, "database"):
        raise ReleaseError(f"the task that creates the database ended with status {exit_status}: see above")
    if rotate:
        say("database", status="rotated", next="release --again, and run")


def _rotate(target: Target) -> None:
    """Put another user with another password into the secret."""
    secrets = client("secretsmanager", target.region)
    secret_id = f"{target.environment}/{config.service_name()}/database"
    current = json.loads(secrets.get_secret_value(SecretId=secret_id)["SecretString"])
    stem, _, number = current["username"].rpartition("_")
    password = secrets.get_random_password(PasswordLength=40, ExcludePunctuation=True)["RandomPassword"]
    fresh = {"username": f"{stem}_{int(number) + 1}", "password": password}
    secrets.put_secret_value(SecretId=secret_id, SecretString=json.dumps(fresh))
    say("database", user=fresh["username"], status="new user")
