"""Schedules that stop the database at night and at weekends. The tasks of a service have a schedule of their own."""

import json

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_scheduler as scheduler

from deploy.config import Environment
from deploy.roles import role


def night(stack: Stack, environment: Environment) -> None:
    """Create the schedules, if the environment file wants any.

    The database starts a quarter of an hour before tasks do: that takes it some minutes.
    """
    hours = environment.night
    if not hours or environment.existing.database:
        return
    stop, start = hours
    name = environment.platform_name
    calling = role(stack, "NightRole", "scheduler")
    database = stack.format_arn(
        service="rds", resource="db", resource_name=name, arn_format=ArnFormat.COLON_RESOURCE_NAME
    )
    calling.add_to_policy(
        iam.PolicyStatement(actions=["rds:StopDBInstance", "rds:StartDBInstance"], resources=[database])
    )
    for operation, cron in (
        ("stop", f"15 {stop} ? * {environment.stop_days} *"),
        # For midnight, it is the evening before.
        ("start", f"45 {start - 1} ? * MON-FRI *" if start else "45 23 ? * SUN-THU *"),
    ):
        scheduler.CfnSchedule(
            stack,
            f"Database{operation.capitalize()}",
            name=f"{name}-{operation}",
            schedule_expression=f"cron({cron})",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=f"arn:aws:scheduler:::aws-sdk:rds:{operation}DBInstance",
                input=json.dumps({"DbInstanceIdentifier": name}),
                role_arn=calling.role_arn,
            ),
        )
