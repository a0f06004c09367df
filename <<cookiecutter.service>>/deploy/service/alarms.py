"""The alarms that end a release and bring blue back, and that people are told of.

A deployment cannot choose alarms by colour, since the colours take turns, so each alarm exists for both. Missing data
is no breach, and no metric is filled up: `FILL` on a metric that comes late can hold an alarm in its state.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

from aws_cdk import Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_sns as sns

from deploy.config import Environment
from deploy.platform.exports import shared
from deploy.service.metrics import ONE_MINUTE
from deploy.service.routing import Routing

LEAST_ERRORS = 3
"""Errors in a minute below which their ratio says nothing: a client's odd request is no outage."""

ERROR_PERCENT = 5
"""Ratio of errors that is an outage. A canary that fails every request is seen from 3 requests a minute on."""

LEAST_REQUESTS = 50
"""Requests in a minute below which the 99th percentile is just the slowest request."""

DATAPOINTS, PERIODS = 2, 3
"""Minutes that have to be bad, of how many. With the minute or two that metrics take to arrive, an alarm is raised
within five minutes: a canary lasts longer."""


def alarms(stack: Stack, environment: Environment, routes: Routing) -> list[cloudwatch.Alarm]:
    """Create the alarms of the service: errors, latency and unhealthy tasks, for each colour."""
    topic = sns.Topic.from_topic_arn(stack, "Topic", shared(environment, "Topic"))
    bound_ms = environment.service.latency_bound_ms
    found: list[cloudwatch.Alarm] = []
    for colour, group in (("Blue", routes.blue), ("Green", routes.green)):
        errors = _metric(environment, group, "HTTPCode_Target_5XX_Count", "Sum")
        requests = _metric(environment, group, "RequestCount", "Sum")
        latency = _metric(environment, group, "TargetResponseTime", "p99")
        unhealthy = _metric(environment, group, "UnHealthyHostCount", "Maximum")
        wanted: list[tuple[str, cloudwatch.IMetric, float, str]] = [
            (
                "Errors",
                _math(
                    f"IF(errors >= {LEAST_ERRORS}, 100 * errors / requests, 0)",
                    {"errors": errors, "requests": requests},
                    "errors in %",
                ),
                ERROR_PERCENT,
                f"{ERROR_PERCENT} % of the responses in a minute are 5xx, and at least {LEAST_ERRORS}",
            ),
            (
                "Latency",
                _math(
                    f"IF(requests >= {LEAST_REQUESTS}, latency, 0)",
                    {"latency": latency, "requests": requests},
                    "p99 in s",
                ),
                bound_ms / 1_000,
                f"p99 of a minute above {bound_ms} ms, of at least {LEAST_REQUESTS} requests",
            ),
            ("Unhealthy", unhealthy, 1, "tasks that the balancer finds unhealthy"),
        ]
        found += [
            _alarm(stack, f"{name}{colour}", metric, threshold, f"{environment.stack_name}, {colour}: {text}")
            for name, metric, threshold, text in wanted
        ]
    for alarm in found:
        alarm.add_alarm_action(actions.SnsAction(topic))  # type: ignore[arg-type] # the protocol names parameters differently
        alarm.add_ok_action(actions.SnsAction(topic))  # type: ignore[arg-type] # so
    return found


def _metric(
    environment: Environment, group: elb.ApplicationTargetGroup, name: str, statistic: str
) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace="AWS/ApplicationELB",
        metric_name=name,
        statistic=statistic,
        period=ONE_MINUTE,
        dimensions_map={
            "LoadBalancer": shared(environment, "BalancerFullName"),
            "TargetGroup": group.target_group_full_name,
        },
    )


def _math(expression: str, metrics: dict[str, cloudwatch.Metric], label: str) -> cloudwatch.MathExpression:
    return cloudwatch.MathExpression(expression=expression, using_metrics={**metrics}, period=ONE_MINUTE, label=label)


def _alarm(stack: Stack, name: str, metric: cloudwatch.IMetric, threshold: float, text: str) -> cloudwatch.Alarm:
    return cloudwatch.Alarm(
        stack,
        name,
        alarm_description=text,
        metric=metric,
        threshold=threshold,
        comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
        evaluation_periods=PERIODS,
        datapoints_to_alarm=DATAPOINTS,
        treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
    )
