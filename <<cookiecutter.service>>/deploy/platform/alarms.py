"""Alarms for people: a topic, and alarms about what services share. Those of a service are in `deploy/service/`."""

from typing import Any

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions

from deploy.config import Environment
from deploy.platform.exports import export

GIB = 1_024**3


def topic(stack: Stack, environment: Environment) -> sns.Topic:
    """Create the topic that alarms are sent to, and export it."""
    made = sns.Topic(stack, "Alarms", topic_name=f"{environment.platform_name}-alarms", enforce_ssl=True)
    if environment.platform.alarm_email:
        email: Any = subscriptions.EmailSubscription(environment.platform.alarm_email)
        made.add_subscription(email)
    export(stack, environment, "Topic", made.topic_arn)
    return made


def alarms(stack: Stack, environment: Environment, made: sns.Topic, balancer: str) -> None:
    """Create the alarms of the balancer and of the database. `balancer` is the balancer's full name."""
    _alarm(
        stack,
        made,
        "BalancerErrors",
        _metric("ApplicationELB", "HTTPCode_ELB_5XX_Count", "Sum", {"LoadBalancer": balancer}),
        above=10,
        text="10 responses of 5xx in a minute that the balancer made itself: no healthy task, or none that answered",
    )
    if environment.existing.database:
        return
    platform, server = environment.platform, {"DBInstanceIdentifier": environment.platform_name}
    connections = int(0.8 * platform.database_max_connections)
    for name, metric, statistic, bound, text in (
        ("DatabaseConnections", "DatabaseConnections", "Maximum", connections, f"{connections} connections in use"),
        ("DatabaseCpu", "CPUUtilization", "Average", 90, "CPU above 90 %"),
    ):
        _alarm(stack, made, name, _metric("RDS", metric, statistic, server), above=bound, text=f"Database: {text}")
    # Storage grows when less than a tenth is free, but not more often than every six hours, and only to its limit.
    # https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_PIOPS.Autoscaling.html
    least_gib = platform.database_storage_gib / 20
    _alarm(
        stack,
        made,
        "DatabaseStorage",
        _metric("RDS", "FreeStorageSpace", "Minimum", server),
        below=least_gib * GIB,
        text=f"Database: less than {least_gib:.1f} GiB of storage are free",
    )


def _metric(namespace: str, name: str, statistic: str, dimensions: dict[str, str]) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=f"AWS/{namespace}",
        metric_name=name,
        statistic=statistic,
        period=Duration.minutes(1),
        dimensions_map=dimensions,
    )


def _alarm(  # noqa: PLR0913 - by name
    stack: Stack,
    made: sns.Topic,
    name: str,
    metric: cloudwatch.Metric,
    *,
    text: str,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Create an alarm that is raised by three of five minutes."""
    comparisons = cloudwatch.ComparisonOperator
    alarm = cloudwatch.Alarm(
        stack,
        name,
        alarm_description=text,
        metric=metric,
        threshold=above if above is not None else below or 0,
        comparison_operator=comparisons.GREATER_THAN_OR_EQUAL_TO_THRESHOLD
        if above is not None
        else comparisons.LESS_THAN_THRESHOLD,
        evaluation_periods=5,
        datapoints_to_alarm=3,
        treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
    )
    alarm.add_alarm_action(actions.SnsAction(made))  # type: ignore[arg-type] # the protocol names parameters differently
    alarm.add_ok_action(actions.SnsAction(made))  # type: ignore[arg-type] # so
