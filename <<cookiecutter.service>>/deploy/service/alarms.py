"""The alarms that end a release and bring blue back: errors and latency, as the balancer and the service see them."""

from aws_cdk import Stack
from aws_cdk import aws_cloudwatch as cloudwatch

from deploy.config import Environment
from deploy.platform.exports import shared
from deploy.service.metrics import ONE_MINUTE
from deploy.service.routing import Routing


def alarms(
    stack: Stack, environment: Environment, routes: Routing, logged: dict[str, cloudwatch.Metric]
) -> list[cloudwatch.Alarm]:
    """Create the alarms of the service."""

    def both(name: str, statistic: str, expression: str, label: str) -> cloudwatch.MathExpression:
        metrics = {
            colour: cloudwatch.Metric(
                namespace="AWS/ApplicationELB",
                metric_name=name,
                statistic=statistic,
                period=ONE_MINUTE,
                dimensions_map={
                    "LoadBalancer": shared(environment, "BalancerFullName"),
                    "TargetGroup": group.target_group_full_name,
                },
            )
            for colour, group in (("blue", routes.blue), ("green", routes.green))
        }
        return cloudwatch.MathExpression(expression=expression, using_metrics=metrics, period=ONE_MINUTE, label=label)

    errors = "FILL(blue, 0) + FILL(green, 0)"
    slowest = "MAX([FILL(blue, 0), FILL(green, 0)])"
    bound_ms = environment.service.latency_bound_ms
    wanted: list[tuple[str, cloudwatch.IMetric, float, str]] = [
        (
            "Errors5xx",
            both("HTTPCode_Target_5XX_Count", "Sum", errors, "5xx responses"),
            10,
            "10 responses of 5xx in a minute, seen by the balancer",
        ),
        (
            "Latency",
            both("TargetResponseTime", "p99", slowest, "p99"),
            bound_ms / 1_000,
            f"p99 of a minute above {bound_ms} ms, seen by the balancer",
        ),
        (
            "LoggedErrors",
            logged["LoggedErrors"].with_(statistic="Sum"),
            10,
            "10 errors logged in a minute",
        ),
        (
            "LoggedLatency",
            logged["LoggedDuration"].with_(statistic="p99"),
            bound_ms,
            f"p99 of a minute above {bound_ms} ms, as the service logs it",
        ),
    ]
    return [
        cloudwatch.Alarm(
            stack,
            name,
            alarm_description=f"{environment.stack_name}: {text}",
            metric=metric,
            threshold=threshold,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            evaluation_periods=2,
            datapoints_to_alarm=2,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        for name, metric, threshold, text in wanted
    ]
