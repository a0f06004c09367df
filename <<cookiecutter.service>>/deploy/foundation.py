"""What all services of an environment share: network, cluster, load balancer, zone, PostgreSQL. Made once.

Services know it by its exports alone, so it does not matter whether a thing was made here or named in the environment's
file, nor which service's repository made it.
"""

from typing import Any

from aws_cdk import Acknowledgment, Duration, Environment, Fn, RemovalPolicy, Stack, Validations
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_s3 as s3
from constructs import Construct

from deploy import config

CNAME_SECONDS = 5
"""Time to live of `postgres.<domain>`: so long another server stays unseen. Connections follow within
`DATABASE_MAX_LIFETIME_SECONDS`."""

LOG_DAYS = 90
"""Days that the balancer's access logs are kept."""


def shared(environment: config.Environment, name: str) -> str:
    """What the platform exports as `name`; a token of CloudFormation's."""
    return Fn.import_value(f"{environment.platform_name}-{name}")


class Platform(Stack):
    """The platform of one environment."""

    def __init__(self, scope: Construct, environment: config.Environment) -> None:
        super().__init__(
            scope,
            environment.platform_name,
            env=Environment(account=environment.account, region=environment.region),
            description=f"What the services of {environment.name} share",
            termination_protection=True,
        )
        self.environment_ = environment
        vpc = self._vpc()
        tasks = ec2.SecurityGroup(self, "Tasks", vpc=vpc, description="Tasks of services, or the machines they run on")
        hooks = ec2.SecurityGroup(self, "Hooks", vpc=vpc, description="Functions that test green")
        self._cluster(vpc, tasks)
        self._balancer(vpc, tasks, hooks)
        zone = self._zone(vpc)
        self._database(vpc, tasks, zone)
        self._export("TasksSecurityGroup", tasks.security_group_id)
        self._export("HooksSecurityGroup", hooks.security_group_id)

    def _export(self, name: str, value: str) -> None:
        self.export_value(value, name=f"{self.environment_.platform_name}-{name}")

    def _vpc(self) -> ec2.IVpc:
        platform, existing = self.environment_.platform, self.environment_.existing.vpc
        vpc: ec2.IVpc
        if existing:
            vpc = ec2.Vpc.from_vpc_attributes(
                self,
                "Vpc",
                vpc_id=existing["id"],
                vpc_cidr_block=existing["cidr"],
                availability_zones=platform.availability_zones,
                private_subnet_ids=existing["private_subnets"],
            )
        else:
            vpc = ec2.Vpc(
                self,
                "Vpc",
                ip_addresses=ec2.IpAddresses.cidr(platform.cidr),
                availability_zones=platform.availability_zones,
                flow_logs={
                    "Rejected": ec2.FlowLogOptions(
                        destination=ec2.FlowLogDestination.to_cloud_watch_logs(
                            logs.LogGroup(self, "Flows", retention=logs.RetentionDays.ONE_MONTH)
                        ),
                        traffic_type=ec2.FlowLogTrafficType.REJECT,
                    )
                },
            )
        private = vpc.select_subnets(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS)
        self._export("VpcId", vpc.vpc_id)
        self._export("PrivateSubnets", Fn.join(",", private.subnet_ids))
        return vpc

    def _cluster(self, vpc: ec2.IVpc, tasks: ec2.SecurityGroup) -> None:
        if self.environment_.existing.cluster:
            self._export("Cluster", self.environment_.existing.cluster)
            return
        cluster = ecs.Cluster(
            self,
            "Cluster",
            vpc=vpc,
            cluster_name=self.environment_.platform_name,
            container_insights_v2=ecs.ContainerInsights.ENABLED,
        )
        if self.environment_.service.capacity == "EC2":
            self._machines(vpc, cluster, tasks)
        self._export("Cluster", cluster.cluster_name)

    def _machines(self, vpc: ec2.IVpc, cluster: ecs.Cluster, tasks: ec2.SecurityGroup) -> None:
        """Machines for tasks in bridge mode.

        A fixed number, enough for blue and green: machines are scaled by ECS for capacity providers alone, which
        CodeDeploy's deployments do not use.
        """
        platform = self.environment_.platform
        role = iam.Role(self, "MachineRole", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
        template = ec2.LaunchTemplate(
            self,
            "Machine",
            instance_type=ec2.InstanceType(platform.instance_type),
            machine_image=ecs.EcsOptimizedImage.amazon_linux2023(),
            user_data=ec2.UserData.for_linux(),
            role=role,
            security_group=tasks,
            require_imdsv2=True,
            http_put_response_hop_limit=1,  # tasks in bridge mode do not get at the machine's role
            block_devices=[
                ec2.BlockDevice(device_name="/dev/xvda", volume=ec2.BlockDeviceVolume.ebs(30, encrypted=True))
            ],
        )
        group = autoscaling.AutoScalingGroup(
            self,
            "Machines",
            vpc=vpc,
            launch_template=template,
            min_capacity=platform.instances,
            max_capacity=platform.instances,
            group_metrics=[autoscaling.GroupMetrics.all()],
        )
        cluster.add_asg_capacity_provider(
            ecs.AsgCapacityProvider(
                self,
                "Capacity",
                auto_scaling_group=group,
                enable_managed_scaling=False,
                enable_managed_termination_protection=False,
                enable_managed_draining=True,
            )
        )
        _acknowledge(
            role,
            ("AwsSolutions-IAM5[Resource::*]", "ECS's agent asks for an endpoint and tokens, which belong to nobody."),
            (
                "AwsSolutions-IAM5[Action::ecs:Submit*]",
                "The agent tells its own cluster about tasks, containers and attachments: the three kinds there are.",
            ),
        )
        _acknowledge(group, ("AwsSolutions-AS3", "The number of machines is fixed; there is nothing to notify of."))

    def _balancer(self, vpc: ec2.IVpc, tasks: ec2.SecurityGroup, hooks: ec2.SecurityGroup) -> None:
        environment, existing = self.environment_, self.environment_.existing.balancer
        # Bridge mode: ports are the kernel's choice. https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_PortMapping.html
        ports = (
            ec2.Port.tcp(config.PORT)
            if environment.service.capacity == "FARGATE"
            else ec2.Port.tcp_range(32_768, 65_535)
        )
        if existing:
            named = ec2.SecurityGroup.from_security_group_id(self, "BalancerGroup", existing["security_group"])
            tasks.connections.allow_from(named, ports, "Requests")
            named.connections.allow_from(hooks, ec2.Port.tcp(config.TEST_PORT), "Tests of green")
            self._export("BalancerDnsName", existing["dns_name"])
            self._export("BalancerFullName", existing["arn"].partition("loadbalancer/")[2])
            self._export("ProductionListener", existing["production_listener"])
            self._export("TestListener", existing["test_listener"])
            return
        group = ec2.SecurityGroup(
            self, "BalancerGroup", vpc=vpc, description="The load balancer", allow_all_outbound=False
        )
        inside = ec2.Peer.ipv4(environment.cidr)
        group.add_ingress_rule(inside, ec2.Port.tcp(443), "Requests")
        group.add_ingress_rule(inside, ec2.Port.tcp(80), "Requests that are told to come back with TLS")
        group.connections.allow_from(hooks, ec2.Port.tcp(config.TEST_PORT), "Tests of green")
        tasks.connections.allow_from(group, ports, "Requests")

        balancer = elb.ApplicationLoadBalancer(
            self,
            "Balancer",
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            internet_facing=False,
            security_group=group,
            idle_timeout=Duration.seconds(environment.platform.idle_timeout_seconds),
            deletion_protection=True,
            drop_invalid_header_fields=True,
        )
        bucket = s3.Bucket(
            self,
            "AccessLogs",
            encryption=s3.BucketEncryption.S3_MANAGED,  # the only kind that balancers can write to
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(LOG_DAYS))],
            removal_policy=RemovalPolicy.RETAIN,
        )
        balancer.log_access_logs(bucket)
        _acknowledge(bucket, ("AwsSolutions-S1", "It holds access logs itself."))
        balancer.add_redirect(open=False)
        nothing = elb.ListenerAction.fixed_response(404, content_type="application/json", message_body="{}")
        for name, port in (("ProductionListener", 443), ("TestListener", config.TEST_PORT)):
            listener = balancer.add_listener(
                name,
                port=port,
                protocol=elb.ApplicationProtocol.HTTPS,
                certificates=[elb.ListenerCertificate(environment.platform.certificate_arn)],
                ssl_policy=elb.SslPolicy.RECOMMENDED_TLS,
                open=False,
                default_action=nothing,
            )
            self._export(name, listener.listener_arn)
        self._export("BalancerDnsName", balancer.load_balancer_dns_name)
        self._export("BalancerFullName", balancer.load_balancer_full_name)

    def _zone(self, vpc: ec2.IVpc) -> route53.IHostedZone:
        name, existing = self.environment_.domain, self.environment_.existing.zone
        zone: route53.IHostedZone
        if existing:
            zone = route53.HostedZone.from_hosted_zone_attributes(self, "Zone", hosted_zone_id=existing, zone_name=name)
        else:
            zone = route53.PrivateHostedZone(self, "Zone", vpc=vpc, zone_name=name)
        self._export("ZoneId", zone.hosted_zone_id)
        return zone

    def _database(self, vpc: ec2.IVpc, tasks: ec2.SecurityGroup, zone: route53.IHostedZone) -> None:
        existing = self.environment_.existing.database
        if existing:
            named = ec2.SecurityGroup.from_security_group_id(self, "DatabaseGroup", existing["security_group"])
            named.connections.allow_from(tasks, ec2.Port.tcp(5432), "Services")
            host = existing["host"]
        else:
            host = self._server(vpc, tasks)
        # Factor IV: services know this name, and follow it wherever it points.
        route53.CnameRecord(
            self,
            "Postgres",
            zone=zone,
            record_name="postgres",
            domain_name=host,
            ttl=Duration.seconds(CNAME_SECONDS),
        )

    def _server(self, vpc: ec2.IVpc, tasks: ec2.SecurityGroup) -> str:
        platform = self.environment_.platform
        engine = rds.DatabaseInstanceEngine.postgres(version=rds.PostgresEngineVersion.of("18", "18"))
        parameters = rds.ParameterGroup(
            self,
            "DatabaseParameters",
            engine=engine,
            description="TLS and SCRAM forced",
            parameters={
                "rds.force_ssl": "1",
                "rds.accepted_password_auth_method": "scram",
                "max_connections": str(platform.database_max_connections),
            },
        )
        server = rds.DatabaseInstance(
            self,
            "Database",
            engine=engine,
            instance_type=ec2.InstanceType(platform.database_instance),
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            multi_az=True,
            storage_encrypted=True,
            storage_type=rds.StorageType.GP3,
            allocated_storage=platform.database_storage_gib,
            max_allocated_storage=platform.database_storage_gib * 4,
            manage_master_user_password=True,
            credentials=rds.Credentials.from_username("postgres"),
            parameter_group=parameters,
            backup_retention=Duration.days(platform.database_backup_days),
            copy_tags_to_snapshot=True,
            deletion_protection=True,
            removal_policy=RemovalPolicy.SNAPSHOT,
            iam_authentication=True,
            enable_performance_insights=True,
            cloudwatch_logs_exports=["postgresql"],
            cloudwatch_logs_retention=None,
            auto_minor_version_upgrade=True,
            ca_certificate=rds.CaCertificate.RDS_CA_RSA2048_G1,
        )
        server.connections.allow_from(tasks, ec2.Port.tcp(5432), "Services")
        _acknowledge(
            server,
            ("AwsSolutions-RDS11", "Another port than 5432 hides nothing; the security group lets in tasks only."),
        )
        return server.db_instance_endpoint_address


def _acknowledge(construct: Any, *findings: tuple[str, str]) -> None:
    """Say why findings of cdk-nag stay."""
    Validations.of(construct).acknowledge(*(Acknowledgment(id=rule, reason=reason) for rule, reason in findings))
