"""A shell in a task of its own, beside those that serve: ECS Exec needs a writable root, which those do not have.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-exec.html
"""

from deploy import config
from deploy.release.target import ReleaseError, Target, say
from deploy.release.task import start, wait

SHELL_SECONDS = 3_600
"""Time after which the task ends by itself."""


def shell(target: Target) -> None:
    """Start the task, and print the command that opens the shell.

    It has the image, configuration and secrets of the release that runs.

    Raises:
        ReleaseError: The task does not start, or not in time.
    """
    task = target.ecs.describe_task_definition(taskDefinition=target.running())["taskDefinition"]
    accepted = target.ecs.meta.service_model.operation_model("RegisterTaskDefinition").input_shape.members
    body = {key: value for key, value in task.items() if key in accepted}
    [container] = [each for each in body["containerDefinitions"] if each["name"] == config.CONTAINER]
    container |= {"readonlyRootFilesystem": False, "command": ["sleep", str(SHELL_SECONDS)]}
    made = target.ecs.register_task_definition(
        **{**body, "family": f"{target.name}-shell", "taskRoleArn": target.shell_role}
    )["taskDefinition"]["taskDefinitionArn"]
    arn = start(target, made, "shell", enableExecuteCommand=True)
    if wait(target, arn, "shell", "RUNNING", "STOPPED")["lastStatus"] == "STOPPED":
        raise ReleaseError("shell: the task ended before it could be used")
    command = (
        f"aws ecs execute-command --region {target.region} --cluster {target.cluster} --task {arn}"
        f" --container {config.CONTAINER} --interactive --command bash"
    )
    say("shell", task=arn, status="ready", ends_after_seconds=SHELL_SECONDS, command=command)
