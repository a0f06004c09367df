"""Migration, administration, shell and new database users run as one-off tasks, against moto's server."""

import json
import time
from typing import Any

import pytest
from moto.moto_api import state_manager

from deploy import files
from deploy.tests.cloud import Cloud
from deploy.tests.commands import NAME, STACK, command, running
from deploy.tests.conftest import changed, once

# moto's CloudFormation passes over CodeDeploy, scaling, capacity providers and rules of security groups.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")


@once
def test_a_failed_migration_leaves_the_traffic_alone(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moto.ecs.models.Container.exitCode", 1, raising=False)
    monkeypatch.setattr("moto.ecs.models.Container.__init__", failing(exit_code=1))
    command(capsys, "release", digest)
    ran = command(capsys, "run")
    assert ran.status == 1
    assert ran.err == "deploy.release: the migration of release 2+build-1 ended with status 1: see above\n"
    assert running(aws) != f"{STACK}:2"


@once
def test_a_task_that_never_starts_says_why(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del aws
    monkeypatch.setattr("moto.ecs.models.Container.__init__", failing(exit_code=None))
    monkeypatch.setattr("moto.ecs.models.Task.stopped_reason", "CannotPullContainerError: no such image", raising=False)
    command(capsys, "release", digest)
    ran = command(capsys, "run")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "migrate: the task never started: " in ran.err


def failing(exit_code: int | None) -> Any:
    """Return a constructor of moto's container that ends with `exit_code`; `None` if it never ran."""
    from moto.ecs.models import Container  # noqa: PLC0415 - its constructor is about to be replaced

    original = Container.__init__

    def made(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self.exitCode = exit_code

    return made


@once
def test_a_new_user_of_the_database_is_created_by_a_task(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    del digest
    ran = command(capsys, "database", "--rotate")
    assert (ran.status, ran.err) == (0, "")
    secret = aws.client("secretsmanager").get_secret_value(SecretId=f"staging/{NAME}/database")["SecretString"]
    assert json.loads(secret)["username"] == f"{NAME}_2"
    [task] = aws.client("ecs").describe_tasks(cluster="platform-staging", tasks=[ran.steps[1]["task"]])["tasks"]
    assert task["taskDefinitionArn"].rpartition("/")[2] == f"{STACK}-database:1"


@once
def test_a_new_user_is_refused_where_tasks_use_a_proxy_that_knows_the_old_one_only(
    aws: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxied = changed(service__database_proxy=True, service__database_proxy_connections=40)
    monkeypatch.setattr(files, "read", lambda _name: proxied)  # pyrefly: ignore
    secrets, name = aws.client("secretsmanager"), f"staging/{NAME}/database"
    before = secrets.get_secret_value(SecretId=name)["SecretString"]
    ran = command(capsys, "database", "--rotate")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "set database_proxy = false, deploy the stack, release and run first" in ran.err
    assert secrets.get_secret_value(SecretId=name)["SecretString"] == before


@once
def test_a_shell_has_a_root_that_can_be_written_to_and_ends_by_itself(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command(capsys, "release", digest)
    command(capsys, "run")
    state_manager.set_transition("ecs::task", {"progression": "manual", "times": 2})
    try:
        ran = command(capsys, "shell")
    finally:
        state_manager.unset_transition("ecs::task")
    assert (ran.status, ran.err) == (0, "")
    assert ran.steps[-1]["command"].startswith("aws ecs execute-command --region eu-central-1")
    task = aws.client("ecs").describe_task_definition(taskDefinition=f"{STACK}-shell")["taskDefinition"]
    [container] = task["containerDefinitions"]
    assert container["command"] == ["sleep", "3600"]
    assert not container["readonlyRootFilesystem"]


@once
@pytest.mark.parametrize("arguments", [("admin", "--", "check"), ("shell",)])
def test_a_task_that_aws_does_not_know_yet_is_waited_for(
    aws: Cloud,
    digest: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    command(capsys, "release", digest)
    command(capsys, "run")
    # Right after RunTask, DescribeTasks may find nothing.
    answers: list[Any] = [{"tasks": [], "failures": [{"reason": "MISSING"}]}]
    if arguments == ("shell",):
        answers.insert(0, {"tasks": [{"lastStatus": "RUNNING"}]})

    def answer(_request: dict[str, Any]) -> Any:
        return answers.pop() if answers else None

    monkeypatch.setattr(aws, "on_DescribeTasks", answer, raising=False)
    name, *rest = arguments
    ran = command(capsys, name, *rest)
    assert (ran.status, ran.err, answers) == (0, "", [])


@once
def test_a_shell_that_does_not_start_is_not_waited_for_without_end(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(capsys, "release", digest)
    command(capsys, "run")

    def answer(_request: dict[str, Any]) -> Any:
        return {"tasks": [{"lastStatus": "PROVISIONING"}]}

    monkeypatch.setattr(aws, "on_DescribeTasks", answer, raising=False)
    monkeypatch.setattr("deploy.release.task.TASK_SECONDS", 0)
    ran = command(capsys, "shell")
    assert (ran.status, ran.err) == (
        1,
        f"deploy.release: shell: stopped after 0 s; its log is in /ecs/staging/{NAME}\n",
    )


@once
def test_admin_brings_back_the_log_and_the_exit_status(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(capsys, "release", digest)
    command(capsys, "run")
    logs = aws.client("logs")
    ecs = aws.client("ecs")

    def write(*_arguments: Any, **_options: Any) -> None:
        [task] = ecs.list_tasks(cluster="platform-staging", startedBy="deploy.release")["taskArns"][-1:]
        stream = f"ecs/web/{task.rpartition('/')[2]}"
        group = f"/ecs/staging/{NAME}"
        if stream not in [
            each["logStreamName"] for each in logs.describe_log_streams(logGroupName=group)["logStreams"]
        ]:
            logs.create_log_stream(logGroupName=group, logStreamName=stream)
            event = {"timestamp": int(time.time() * 1_000), "message": '{"body": "the schema lacks 0002.sql"}'}
            logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])

    monkeypatch.setattr("deploy.release.target.time.sleep", write)
    monkeypatch.setattr("moto.ecs.models.Container.__init__", failing(exit_code=78))
    ran = command(capsys, "admin", "--", "check")
    assert ran.status == 78
    assert '{"body": "the schema lacks 0002.sql"}' in ran.err.splitlines()
    assert ran.steps[-1]["exit_status"] == 78
