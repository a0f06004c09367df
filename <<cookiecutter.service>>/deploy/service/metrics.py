"""Metrics that CloudWatch makes of the service's log, and the dashboard that shows them."""

from typing import Any

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs

from deploy.config import Environment

ONE_MINUTE = Duration.minutes(1)

ROUTE = {"Method": "$.['http.request.method']", "Route": "$.['http.route']"}
"""Dimensions of an operation. Few values, since a log line has the route and not the path."""

METRICS: dict[str, tuple[str, str, dict[str, str] | None]] = {
    "LoggedErrors": ('{ $.severity_text = "ERROR" || $.severity_text = "CRITICAL" }', "1", None),
    "LoggedServerErrors": ("{ $.logger = \"access\" && $.['http.response.status_code'] >= 500 }", "1", None),
    "LoggedDuration": ('{ $.logger = "access" && $.duration_ms >= 0 }', "$.duration_ms", None),
    # No route matched: anybody could invent methods, and each value of a dimension is a metric that costs money.
    "RouteDuration": ('{ $.logger = "access" && $.[\'http.route\'] != "(none)" }', "$.duration_ms", ROUTE),
    "PoolWait": ('{ $.logger = "access" && $.db_pool_wait_ms >= 0 }', "$.db_pool_wait_ms", None),
}
"""Metrics made of the log: the pattern of the lines, the value, and the dimensions.

Keys that contain dots stand in brackets, since a dot would step into an object, and the lines are flat.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""


def metrics(stack: Stack, environment: Environment, log_group: logs.LogGroup) -> dict[str, cloudwatch.Metric]:
    """Create a filter of the log for each of `METRICS`, and return the metrics by name."""
    found = {}
    for name, (pattern, value, dimensions) in METRICS.items():
        made = logs.MetricFilter(
            stack,
            f"{name}Filter",
            log_group=log_group,
            filter_pattern=logs.FilterPattern.literal(pattern),
            metric_namespace=environment.stack_name,
            metric_name=name,
            metric_value=value,
            dimensions=dimensions,
        )
        found[name] = made.metric(period=ONE_MINUTE)
    return found


def dashboard(stack: Stack, environment: Environment, made: dict[str, cloudwatch.Metric]) -> None:
    """Create the dashboard: traffic, errors, latency, and the wait for a database connection."""
    graphs: list[tuple[str, list[Any]]] = [
        ("Requests per minute", [_by_route(environment, "SampleCount")]),
        (
            "Failures per minute",
            [
                made["LoggedServerErrors"].with_(statistic="Sum", label="5xx responses"),
                made["LoggedErrors"].with_(statistic="Sum", label="errors logged"),
            ],
        ),
        ("Duration of a request, ms", [_by_route(environment, "p50"), _by_route(environment, "p99")]),
        (
            "Wait for a database connection, ms",
            [made["PoolWait"].with_(statistic=each, label=each) for each in ("p50", "p99", "Maximum")],
        ),
    ]
    cloudwatch.Dashboard(
        stack,
        "Dashboard",
        dashboard_name=environment.stack_name,
        widgets=[[cloudwatch.GraphWidget(title=title, left=left, width=12) for title, left in graphs]],
    )


def _by_route(environment: Environment, statistic: str) -> cloudwatch.MathExpression:
    """Return a search that finds the routes when the dashboard is opened: only the service knows its routes."""
    found = f'{{"{environment.stack_name}",{",".join(ROUTE)}}} MetricName="RouteDuration"'
    return cloudwatch.MathExpression(
        expression=f"SEARCH('{found}', '{statistic}', {ONE_MINUTE.to_seconds()})",
        label=f"{statistic} ${{PROP('Dim.Method')}} ${{PROP('Dim.Route')}}",
        period=ONE_MINUTE,
    )
