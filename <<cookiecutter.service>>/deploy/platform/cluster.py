"""The ECS cluster, and for EC2 capacity the machines of it."""

from aws_cdk import Stack
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs

from deploy.config import Environment
from deploy.findings import acknowledge
from deploy.platform.exports import export
from deploy.roles import role


def cluster(stack: Stack, environment: Environment, network: ec2.IVpc, tasks: ec2.SecurityGroup) -> None:
    """Create the cluster, or take the one that the environment file names, and export it."""
    if environment.existing.cluster:
        export(stack, environment, "Cluster", environment.existing.cluster)
        return
    made = ecs.Cluster(
        stack,
        "Cluster",
        vpc=network,
        cluster_name=environment.platform_name,
        container_insights_v2=ecs.ContainerInsights.ENABLED,
        enable_fargate_capacity_providers=True,
    )
    if environment.platform.instances:
        _machines(stack, environment, network, made, tasks)
    export(stack, environment, "Cluster", made.cluster_name)


def _machines(
    stack: Stack, environment: Environment, network: ec2.IVpc, made: ecs.Cluster, tasks: ec2.SecurityGroup
) -> None:
    """Create the machines for tasks in bridge mode.

    Their number is fixed and has room for blue and green: ECS scales machines for capacity providers only, which
    deployments by CodeDeploy do not use.
    """
    platform = environment.platform
    is_arm = ec2.InstanceType(platform.instance_type).architecture == ec2.InstanceArchitecture.ARM_64
    hardware = ecs.AmiHardwareType.ARM if is_arm else ecs.AmiHardwareType.STANDARD
    machines = role(stack, "MachineRole", "ec2")
    template = ec2.LaunchTemplate(
        stack,
        "Machine",
        instance_type=ec2.InstanceType(platform.instance_type),
        machine_image=ecs.EcsOptimizedImage.amazon_linux2023(hardware),
        user_data=ec2.UserData.for_linux(),
        role=machines,  # type: ignore[arg-type] # the protocol names parameters differently
        security_group=tasks,
        require_imdsv2=True,
        http_put_response_hop_limit=1,  # tasks in bridge mode cannot use the role of the machine
        block_devices=[ec2.BlockDevice(device_name="/dev/xvda", volume=ec2.BlockDeviceVolume.ebs(30, encrypted=True))],
    )
    group = autoscaling.AutoScalingGroup(
        stack,
        "Machines",
        vpc=network,
        launch_template=template,
        min_capacity=platform.instances,
        max_capacity=platform.instances,
        group_metrics=[autoscaling.GroupMetrics.all()],
    )
    made.add_asg_capacity_provider(
        ecs.AsgCapacityProvider(
            stack,
            "Capacity",
            auto_scaling_group=group,
            enable_managed_scaling=False,
            enable_managed_termination_protection=False,
            enable_managed_draining=True,
        )
    )
    acknowledge(
        machines,
        (
            "AwsSolutions-IAM5[Resource::*]",
            "The ECS agent requests an endpoint and registry tokens, which have no ARN.",
        ),
        (
            "AwsSolutions-IAM5[Action::ecs:Submit*]",
            "The agent reports state changes of tasks, containers and attachments to its own cluster.",
        ),
    )
    acknowledge(group, ("AwsSolutions-AS3", "The number of machines is fixed, so there are no scaling events."))
