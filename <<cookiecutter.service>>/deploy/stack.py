"""The service in one environment: image by digest, configuration, tasks behind the balancer, and the way green gets in.

What it does not hold is which release runs: `release.py` makes releases and moves them, and CloudFormation, which
could not undo that, leaves both alone.
"""

from typing import Any

from aws_cdk import (
    Acknowledgment,
    ArnFormat,
    CfnOutput,
    Duration,
    Environment,
    Fn,
    IgnoreMode,
    RemovalPolicy,
    Size,
    Stack,
    Validations,
)
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from deploy import config
from deploy.foundation import shared

USER = "10001:10001"
"""As in the Dockerfile."""

HOOK_SECONDS = 300
"""Time for one hook; CodeDeploy waits an hour for its word, ECS asks again after that."""

CPU_PERCENT = 60
"""Load at which tasks are added. Well below the whole, since a new one takes a minute to come."""

ONE_MINUTE = Duration.minutes(1)

ROUTE = {"Method": "$.['http.request.method']", "Route": "$.['http.route']"}
"""Dimensions: which operation. Few values, since a line has the route and not the path."""

METRICS: dict[str, tuple[str, str, dict[str, str] | None]] = {
    "LoggedErrors": ('{ $.severity_text = "ERROR" || $.severity_text = "CRITICAL" }', "1", None),
    "LoggedServerErrors": ("{ $.logger = \"access\" && $.['http.response.status_code'] >= 500 }", "1", None),
    "LoggedDuration": ('{ $.logger = "access" && $.duration_ms >= 0 }', "$.duration_ms", None),
    # No route has matched: anybody could make up methods, and each value of a dimension is a metric that costs money.
    "RouteDuration": ('{ $.logger = "access" && $.[\'http.route\'] != "(none)" }', "$.duration_ms", ROUTE),
    "PoolWait": ('{ $.logger = "access" && $.db_pool_wait_ms >= 0 }', "$.db_pool_wait_ms", None),
}
"""Metrics that the log is made into: for which lines, of which value, by which dimensions. Keys with dots stand in
brackets, since a dot steps into an object, and the lines are flat.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""


class Images(Stack):
    """The repository of the service's images, one for all environments, so that they run the same ones."""

    def __init__(self, scope: Construct, environment: config.Environment) -> None:
        super().__init__(
            scope,
            f"{environment.service_name}-images",
            env=Environment(account=environment.images_account, region=environment.region),
            description=f"The images of {environment.service_name}",
        )
        repository = ecr.Repository(
            self,
            "Repository",
            repository_name=environment.service_name,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            image_scan_on_push=True,
            removal_policy=RemovalPolicy.RETAIN,
            lifecycle_rules=[
                ecr.LifecycleRule(
                    description="Leftovers of pushes",
                    tag_status=ecr.TagStatus.UNTAGGED,
                    max_image_age=Duration.days(30),
                )
            ],
        )
        for account in config.accounts():
            if account != environment.images_account:
                repository.grant_pull(iam.AccountPrincipal(account))
                repository.grant(iam.AccountPrincipal(account), "ecr:DescribeImages")


class Service(Stack):
    """The service in one environment."""

    def __init__(self, scope: Construct, environment: config.Environment, digest: str) -> None:
        super().__init__(
            scope,
            environment.stack_name,
            env=Environment(account=environment.account, region=environment.region),
            description=f"{environment.service_name} in {environment.name}",
        )
        self.environment_ = environment
        self.own = environment.service
        self.vpc = ec2.Vpc.from_vpc_attributes(
            self,
            "Vpc",
            vpc_id=shared(environment, "VpcId"),
            availability_zones=environment.platform.availability_zones,
            private_subnet_ids=Fn.split(",", shared(environment, "PrivateSubnets"), 3),
        )
        cluster = ecs.Cluster.from_cluster_attributes(
            self, "Cluster", cluster_name=shared(environment, "Cluster"), vpc=self.vpc, security_groups=[]
        )
        self.tasks_group = self._security_group("TasksSecurityGroup")
        self.log_group = logs.LogGroup(
            self,
            "Logs",
            log_group_name=environment.log_group,
            retention=logs.RetentionDays[config.RETENTION[self.own.log_retention_days]],
            removal_policy=RemovalPolicy.DESTROY,
        )
        self.task = self._task_definition(digest)
        self.blue, self.green = self._target_group("Blue"), self._target_group("Green")
        self.listeners = [self._listener("ProductionListener"), self._listener("TestListener")]
        self.rules = [
            self._rule("ProductionRule", self.listeners[0], self.blue, self.green),
            self._rule("TestRule", self.listeners[1], self.green, self.blue),
        ]
        self.metrics = {name: self._metric(name, *parts) for name, parts in METRICS.items()}
        self.alarms = self._alarms()
        self._dashboard()
        self.functions = self._hooks()
        self.service = self._service(cluster)
        self.service.node.add_dependency(*self.rules)
        if self.own.controller == "CODE_DEPLOY":
            self._code_deploy()
        else:
            self._native()
        self._scaling()
        self._name()

        subnets = Fn.join(",", self.vpc.select_subnets(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS).subnet_ids)
        image = f"{environment.images_account}.dkr.ecr.{environment.region}.amazonaws.com/{environment.service_name}"
        for name, value in {
            "ClusterName": cluster.cluster_name,
            "Configuration": self.task.task_definition_arn,
            "Controller": self.own.controller,
            "Image": image,
            "SecurityGroupId": shared(environment, "TasksSecurityGroup"),
            "SubnetIds": subnets,
            "TasksMin": str(self.own.tasks_min),
        }.items():
            CfnOutput(self, f"{name}Output", value=value).override_logical_id(name)

    @property
    def is_fargate(self) -> bool:
        """Whether tasks have network interfaces of their own, and no machines of ours."""
        return self.own.capacity == "FARGATE"

    def _task_definition(self, digest: str) -> ecs.TaskDefinition:
        environment, own = self.environment_, self.own
        tasks = iam.ServicePrincipal("ecs-tasks.amazonaws.com")
        execution = iam.Role(self, "ExecutionRole", assumed_by=tasks, description="Starts tasks: image, secrets, logs")
        role = iam.Role(self, "TaskRole", assumed_by=tasks, description="What the service itself may do: nothing")
        family, cpu, memory = environment.stack_name, own.cpu_units, own.memory_mib
        task: ecs.TaskDefinition
        if self.is_fargate:
            task = ecs.FargateTaskDefinition(
                self,
                "Task",
                family=family,
                cpu=cpu,
                memory_limit_mib=memory,
                runtime_platform=ecs.RuntimePlatform(
                    cpu_architecture=ecs.CpuArchitecture.X86_64,  # what builders are
                    operating_system_family=ecs.OperatingSystemFamily.LINUX,
                ),
                execution_role=execution,
                task_role=role,
            )
        else:
            task = ecs.Ec2TaskDefinition(
                self,
                "Task",
                family=family,
                network_mode=ecs.NetworkMode.BRIDGE,
                execution_role=execution,
                task_role=role,
            )
        # Releases before this one stay: a rollback needs them.
        task.apply_removal_policy(RemovalPolicy.RETAIN)
        repository = ecr.Repository.from_repository_attributes(
            self,
            "Repository",
            repository_name=environment.service_name,
            repository_arn=self.format_arn(
                service="ecr",
                account=environment.images_account,
                resource="repository",
                resource_name=environment.service_name,
            ),
        )
        secret = secretsmanager.Secret.from_secret_complete_arn(self, "Secret", own.secret_arn)
        process = ecs.LinuxParameters(self, "Process", init_process_enabled=True)
        process.drop_capabilities(ecs.Capability.ALL)
        task.add_container(
            config.CONTAINER,
            image=ecs.ContainerImage.from_ecr_repository(repository, digest),
            cpu=cpu,
            memory_limit_mib=memory,
            environment={
                **environment.variables,
                "PORT": str(config.PORT),
                # Its addresses change, within its subnets; and nobody else reaches the tasks, by their security group.
                "FORWARDED_ALLOW_IPS": environment.cidr,
                "URL_PREFIX": environment.url_prefix,
            },
            secrets={key: ecs.Secret.from_secrets_manager(secret, key) for key in own.secret_keys},
            port_mappings=[
                ecs.PortMapping(container_port=config.PORT)
                if self.is_fargate
                else ecs.PortMapping(
                    container_port=config.PORT, host_port=0
                )  # a free one, so that tasks share machines
            ],
            # Not blocking: a service goes on when its log cannot be delivered, and lines are lost instead.
            # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html
            logging=ecs.LogDrivers.aws_logs(
                stream_prefix="ecs",
                log_group=self.log_group,
                mode=ecs.AwsLogDriverMode.NON_BLOCKING,
                max_buffer_size=Size.mebibytes(8),
            ),
            linux_parameters=process,
            readonly_root_filesystem=True,
            user=USER,
            stop_timeout=Duration.seconds(own.stop_timeout_seconds),
            essential=True,
        )
        _acknowledge(
            task,
            ("AwsSolutions-ECS2", "Configuration that is no secret is read here; what is, comes by ARN and key."),
        )
        _acknowledge(execution, ("AwsSolutions-IAM5[Resource::*]", "ecr:GetAuthorizationToken knows no resources."))
        return task

    def _target_group(self, colour: str) -> elb.ApplicationTargetGroup:
        own = self.own
        return elb.ApplicationTargetGroup(
            self,
            colour,
            vpc=self.vpc,
            port=config.PORT,
            protocol=elb.ApplicationProtocol.HTTP,
            target_type=elb.TargetType.IP if self.is_fargate else elb.TargetType.INSTANCE,
            deregistration_delay=Duration.seconds(own.deregistration_seconds),
            health_check=elb.HealthCheck(
                path="/readyz",
                healthy_http_codes="200",
                interval=Duration.seconds(5),
                timeout=Duration.seconds(2),
                healthy_threshold_count=2,
                unhealthy_threshold_count=2,
            ),
        )

    def _security_group(self, name: str) -> ec2.ISecurityGroup:
        """A security group of the platform's, which is not changed here."""
        return ec2.SecurityGroup.from_security_group_id(
            self, name, shared(self.environment_, name), mutable=False, allow_all_outbound=True
        )

    def _listener(self, name: str) -> elb.IApplicationListener:
        return elb.ApplicationListener.from_application_listener_attributes(
            self, name, listener_arn=shared(self.environment_, name), security_group=self.tasks_group
        )

    def _rule(
        self,
        name: str,
        listener: elb.IApplicationListener,
        first: elb.ApplicationTargetGroup,
        other: elb.ApplicationTargetGroup,
    ) -> elb.ApplicationListenerRule:
        """Where the listener sends requests for this service before the first release; later that is moved.

        Two patterns, since `/api/orders*` would take the requests of a service `orders-archive` too.
        """
        prefix = self.environment_.url_prefix
        action = elb.ListenerAction.forward([first])
        if self.own.controller == "ECS":
            weights = {first: 100, other: 0}
            action = elb.ListenerAction.weighted_forward(
                [elb.WeightedTargetGroup(target_group=group, weight=weight) for group, weight in weights.items()]
            )
        return elb.ApplicationListenerRule(
            self,
            name,
            listener=listener,
            priority=self.own.listener_priority,
            conditions=[elb.ListenerCondition.path_patterns([prefix, f"{prefix}/*"])],
            action=action,
        )

    def _service(self, cluster: ecs.ICluster) -> ecs.FargateService | ecs.Ec2Service:
        own = self.own
        common: dict[str, Any] = {
            "cluster": cluster,
            "service_name": self.environment_.service_name,
            "task_definition": self.task,
            "health_check_grace_period": Duration.seconds(60),
            "min_healthy_percent": 100,
            "max_healthy_percent": 200,
            "propagate_tags": ecs.PropagatedTagSource.SERVICE,
            "enable_ecs_managed_tags": True,
        }
        if own.controller == "CODE_DEPLOY":
            common["deployment_controller"] = ecs.DeploymentController(type=ecs.DeploymentControllerType.CODE_DEPLOY)
            # It spreads tasks by itself, and knows nothing of rebalancing.
            common["availability_zone_rebalancing"] = ecs.AvailabilityZoneRebalancing.DISABLED
        else:
            common |= {
                "deployment_strategy": ecs.DeploymentStrategy.CANARY
                if own.canary
                else ecs.DeploymentStrategy.BLUE_GREEN,
                "bake_time": Duration.minutes(own.blue_minutes),
                "circuit_breaker": ecs.DeploymentCircuitBreaker(rollback=True),
                # The family alone, so that CloudFormation does not move the service: releases do.
                "task_definition_revision": ecs.TaskDefinitionRevision.LATEST,
            }
            if own.canary:
                common["canary_configuration"] = ecs.TrafficShiftConfig(
                    step_percent=10, step_bake_time=Duration.minutes(5)
                )
        if not self.is_fargate:
            return ecs.Ec2Service(
                self,
                "Service",
                **common,
                placement_strategies=[
                    ecs.PlacementStrategy.spread_across(ecs.BuiltInAttributes.AVAILABILITY_ZONE),
                    ecs.PlacementStrategy.spread_across_instances(),
                ],
            )
        return ecs.FargateService(
            self,
            "Service",
            **common,
            security_groups=[self.tasks_group],
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),  # one per zone
            platform_version=ecs.FargatePlatformVersion.LATEST,
        )

    def _scaling(self) -> None:
        count: scaling.BaseScalableAttribute = self.service.auto_scale_task_count(
            min_capacity=self.own.tasks_min, max_capacity=self.own.tasks_max
        )
        count.scale_on_cpu_utilization("Load", target_utilization_percent=CPU_PERCENT)  # type: ignore[attr-defined] # jsii names the base

    def _name(self) -> None:
        environment = self.environment_
        zone = route53.HostedZone.from_hosted_zone_attributes(
            self, "Zone", hosted_zone_id=shared(environment, "ZoneId"), zone_name=environment.domain
        )
        route53.CnameRecord(
            self,
            "Name",
            zone=zone,
            record_name=environment.service_name,
            domain_name=shared(environment, "BalancerDnsName"),
            ttl=Duration.seconds(60),
        )

    def _alarms(self) -> list[cloudwatch.Alarm]:
        """What ends a release and brings blue back: errors and slowness, as balancer and service see them."""
        environment = self.environment_

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
                for colour, group in (("blue", self.blue), ("green", self.green))
            }
            return cloudwatch.MathExpression(
                expression=expression, using_metrics=metrics, period=ONE_MINUTE, label=label
            )

        errors = "FILL(blue, 0) + FILL(green, 0)"
        slowest = "MAX([FILL(blue, 0), FILL(green, 0)])"
        bound_ms = self.own.latency_bound_ms
        alarms: list[tuple[str, cloudwatch.IMetric, float, str]] = [
            (
                "Errors5xx",
                both("HTTPCode_Target_5XX_Count", "Sum", errors, "5xx answers"),
                10,
                "10 answers of 5xx in a minute, seen by the balancer",
            ),
            (
                "Latency",
                both("TargetResponseTime", "p99", slowest, "p99"),
                bound_ms / 1_000,
                f"p99 of a minute above {bound_ms} ms, seen by the balancer",
            ),
            (
                "LoggedErrors",
                self.metrics["LoggedErrors"].with_(statistic="Sum"),
                10,
                "10 errors logged in a minute",
            ),
            (
                "LoggedLatency",
                self.metrics["LoggedDuration"].with_(statistic="p99"),
                bound_ms,
                f"p99 of a minute above {bound_ms} ms, as the service logs it",
            ),
        ]
        return [
            cloudwatch.Alarm(
                self,
                name,
                alarm_description=f"{environment.stack_name}: {text}",
                metric=metric,
                threshold=threshold,
                comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
                evaluation_periods=2,
                datapoints_to_alarm=2,
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            )
            for name, metric, threshold, text in alarms
        ]

    def _metric(self, name: str, pattern: str, value: str, dimensions: dict[str, str] | None) -> cloudwatch.Metric:
        """A metric of the service's log; with dimensions there is one for each of their values."""
        found = logs.MetricFilter(
            self,
            f"{name}Filter",
            log_group=self.log_group,
            filter_pattern=logs.FilterPattern.literal(pattern),
            metric_namespace=self.environment_.stack_name,
            metric_name=name,
            metric_value=value,
            dimensions=dimensions,
        )
        return found.metric(period=ONE_MINUTE)

    def _dashboard(self) -> None:
        """What the service does, as its log tells it: how much, how well, how fast, and how long it waits."""
        metrics = self.metrics

        def by_route(statistic: str) -> cloudwatch.MathExpression:
            # Found when the dashboard is looked at: which routes there are is the service's business.
            found = f'{{"{self.environment_.stack_name}",{",".join(ROUTE)}}} MetricName="RouteDuration"'
            return cloudwatch.MathExpression(
                expression=f"SEARCH('{found}', '{statistic}', {ONE_MINUTE.to_seconds()})",
                label=f"{statistic} ${{PROP('Dim.Method')}} ${{PROP('Dim.Route')}}",
                period=ONE_MINUTE,
            )

        graphs: list[tuple[str, list[cloudwatch.IMetric]]] = [
            ("Requests a minute", [by_route("SampleCount")]),
            (
                "Failures a minute",
                [
                    metrics["LoggedServerErrors"].with_(statistic="Sum", label="answers of 5xx"),
                    metrics["LoggedErrors"].with_(statistic="Sum", label="errors logged"),
                ],
            ),
            ("Milliseconds of a request", [by_route("p50"), by_route("p99")]),
            (
                "Milliseconds that a request waits for a database connection",
                [metrics["PoolWait"].with_(statistic=each, label=each) for each in ("p50", "p99", "Maximum")],
            ),
        ]
        cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=self.environment_.stack_name,
            widgets=[[cloudwatch.GraphWidget(title=title, left=left, width=12) for title, left in graphs]],
        )

    def _hooks(self) -> dict[str, lambda_.Function]:
        """A function for each lifecycle event, all from `hooks.py`."""
        environment = self.environment_
        role = iam.Role(self, "HookRole", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        cluster, family = shared(environment, "Cluster"), environment.stack_name
        for actions, resources in (
            (
                ["codedeploy:GetDeployment", "codedeploy:PutLifecycleEventHookExecutionStatus"],
                [self._codedeploy_arn("deploymentgroup", f"{family}/{family}")],
            ),
            (
                ["ecs:DescribeServiceRevisions"],
                [self._ecs_arn("service-revision", cluster, environment.service_name, "*")],
            ),
            (["ecs:DescribeTasks"], [self._ecs_arn("task", cluster, "*")]),
            # Neither knows resources; the network interfaces are those that put the functions into the VPC.
            # https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
            (
                [
                    "ecs:DescribeTaskDefinition",
                    "ecs:ListTasks",
                    "ec2:CreateNetworkInterface",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:DescribeSubnets",
                    "ec2:DeleteNetworkInterface",
                    "ec2:AssignPrivateIpAddresses",
                    "ec2:UnassignPrivateIpAddresses",
                ],
                ["*"],
            ),
        ):
            role.add_to_policy(iam.PolicyStatement(actions=actions, resources=resources))
        code = lambda_.Code.from_asset(
            str(config.ROOT),
            ignore_mode=IgnoreMode.GIT,  # by default a star leaves dotfiles in
            exclude=["*", "!deploy", "deploy/*", "!deploy/__init__.py", "!deploy/checks.py", "!deploy/hooks.py"],
        )
        group = self._security_group("HooksSecurityGroup")
        functions = {}
        for event in config.EVENTS:
            log_group = logs.LogGroup(
                self,
                f"{event}Logs",
                log_group_name=f"/aws/lambda/{environment.function_name(event)}",
                retention=logs.RetentionDays.ONE_MONTH,
                removal_policy=RemovalPolicy.DESTROY,
            )
            log_group.grant_write(role)
            functions[event] = lambda_.Function(
                self,
                event,
                function_name=environment.function_name(event),
                description=f"{event}: see deploy/hooks.py",
                runtime=lambda_.Runtime.PYTHON_3_14,
                architecture=lambda_.Architecture.ARM_64,
                handler=f"deploy.hooks.{_snake(event)}",
                code=code,
                role=role,
                timeout=Duration.seconds(HOOK_SECONDS),
                memory_size=256,
                vpc=self.vpc,
                vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
                security_groups=[group],
                log_group=log_group,
                environment={
                    "BASE_URL": f"https://{environment.service_name}.{environment.domain}",
                    "TEST_PORT": str(config.TEST_PORT),
                    "URL_PREFIX": environment.url_prefix,
                    "LATENCY_BOUND_MS": str(self.own.latency_bound_ms),
                    "CLUSTER": cluster,
                    "FAMILY": family,
                },
            )
        _acknowledge(
            role,
            (
                "AwsSolutions-IAM5[Resource::*]",
                "Task definitions, lists of tasks and network interfaces have no ARNs here.",
            ),
            self._wildcard("task/{}/*", "Which tasks there are is known at a release only."),
            self._wildcard(
                f"service-revision/{{}}/{environment.service_name}/*", "Revisions have a name once they are there."
            ),
        )
        return functions

    def _code_deploy(self) -> None:
        self.service.attach_to_application_target_group(self.blue)
        environment, own = self.environment_, self.own
        role = iam.Role(self, "DeployRole", assumed_by=iam.ServicePrincipal("codedeploy.amazonaws.com"))
        cluster, name = shared(environment, "Cluster"), environment.service_name
        roles = [each.role_arn for each in (self.task.task_role, self.task.execution_role) if each]
        # As AWSCodeDeployRoleForECS, for this service alone.
        # https://docs.aws.amazon.com/codedeploy/latest/userguide/security-iam-awsmanpol.html
        statements: list[tuple[list[str], list[str], dict[str, Any]]] = [
            (
                ["ecs:DescribeServices", "ecs:CreateTaskSet", "ecs:DeleteTaskSet", "ecs:UpdateServicePrimaryTaskSet"],
                [self._ecs_arn("service", cluster, name), self._ecs_arn("task-set", cluster, name, "*")],
                {},
            ),
            (
                ["elasticloadbalancing:ModifyListener", "elasticloadbalancing:ModifyRule"],
                [*(each.listener_arn for each in self.listeners), *(each.listener_rule_arn for each in self.rules)],
                {},
            ),
            (["lambda:InvokeFunction"], [function.function_arn for function in self.functions.values()], {}),
            (
                ["iam:PassRole"],
                roles,
                {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
            ),
            (
                [
                    "cloudwatch:DescribeAlarms",
                    "elasticloadbalancing:DescribeListeners",
                    "elasticloadbalancing:DescribeRules",
                    "elasticloadbalancing:DescribeTargetGroups",
                ],
                ["*"],
                {},
            ),
        ]
        for actions, resources, conditions in statements:
            role.add_to_policy(iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions))
        application = codedeploy.EcsApplication(self, "Application", application_name=environment.stack_name)
        group = codedeploy.EcsDeploymentGroup(
            self,
            "Deployments",
            application=application,
            deployment_group_name=environment.stack_name,
            role=role.without_policy_updates(),
            service=self.service,
            deployment_config=codedeploy.EcsDeploymentConfig.CANARY_10_PERCENT_5_MINUTES
            if own.canary
            else codedeploy.EcsDeploymentConfig.ALL_AT_ONCE,
            blue_green_deployment_config=codedeploy.EcsBlueGreenDeploymentConfig(
                blue_target_group=self.blue,
                green_target_group=self.green,
                listener=self.listeners[0],
                test_listener=self.listeners[1],
                termination_wait_time=Duration.minutes(own.blue_minutes),
            ),
            alarms=self.alarms,
            auto_rollback=codedeploy.AutoRollbackConfig(
                failed_deployment=True, stopped_deployment=True, deployment_in_alarm=True
            ),
        )
        group.node.add_dependency(role)
        _acknowledge(
            role,
            ("AwsSolutions-IAM5[Resource::*]", "Descriptions know no resources."),
            self._wildcard(f"task-set/{{}}/{name}/*", "Task sets have a name once they are there."),
        )

    def _native(self) -> None:
        self.service.enable_deployment_alarms(
            [alarm.alarm_name for alarm in self.alarms], behavior=ecs.AlarmBehavior.ROLLBACK_ON_ALARM
        )
        invoke = iam.Role(self, "InvokeRole", assumed_by=iam.ServicePrincipal("ecs.amazonaws.com"))
        arns = [function.function_arn for function in self.functions.values()]
        invoke.add_to_policy(iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=arns))
        for event, function in self.functions.items():
            self.service.add_lifecycle_hook(
                ecs.DeploymentLifecycleLambdaTarget(
                    function,
                    f"{event}Hook",
                    lifecycle_stages=[ecs.DeploymentLifecycleStage.POST_TEST_TRAFFIC_SHIFT],
                    role=invoke.without_policy_updates(),
                )
            )
        resource: Any = self.service.node.find_child("Service")
        for index, event in enumerate(self.functions):  # one of the stages has no name in CDK yet
            resource.add_property_override(
                f"DeploymentConfiguration.LifecycleHooks.{index}.LifecycleStages", [config.STAGES[event]]
            )
        move = iam.Role(self, "MoveRole", assumed_by=iam.ServicePrincipal("ecs.amazonaws.com"))
        target = self.service.load_balancer_target(
            container_name=config.CONTAINER,
            container_port=config.PORT,
            alternate_target=ecs.AlternateTarget(
                "Alternate",
                alternate_target_group=self.green,
                production_listener=ecs.ListenerRuleConfiguration.application_listener_rule(self.rules[0]),
                test_listener=ecs.ListenerRuleConfiguration.application_listener_rule(self.rules[1]),
                role=move,
            ),
        )
        target.attach_to_application_target_group(self.blue)

    def _wildcard(self, resource: str, reason: str) -> tuple[str, str]:
        """The finding about an ARN of ECS that ends with a star, as cdk-nag writes it; `{}` is the cluster."""
        environment = self.environment_
        name = resource.format(f"{environment.platform_name}-Cluster")
        where = f"arn:<AWS::Partition>:ecs:{environment.region}:{environment.account}:{name}"
        return f"AwsSolutions-IAM5[Resource::{where}]", reason

    def _ecs_arn(self, resource: str, *names: str) -> str:
        return self.format_arn(service="ecs", resource=resource, resource_name="/".join(names))

    def _codedeploy_arn(self, resource: str, name: str) -> str:
        return self.format_arn(
            service="codedeploy", resource=resource, resource_name=name, arn_format=ArnFormat.COLON_RESOURCE_NAME
        )


def _snake(event: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in event).lstrip("_")


def _acknowledge(construct: Any, *findings: tuple[str, str]) -> None:
    """Say why findings of cdk-nag stay."""
    Validations.of(construct).acknowledge(*(Acknowledgment(id=rule, reason=reason) for rule, reason in findings))
