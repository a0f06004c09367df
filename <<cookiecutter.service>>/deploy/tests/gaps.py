"""Resources that moto's CloudFormation passes over, made by moto's own services."""

import json
from typing import Any

from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.cloudformation.parsing import NULL_MODELS
from moto.codedeploy.models import codedeploy_backends
from moto.core.common_models import CloudFormationModel
from moto.ec2.models import ec2_backends
from moto.ec2.models.route_tables import RouteTable
from moto.ecs.models import TaskDefinition, ecs_backends
from moto.elbv2.models import FakeTargetGroup
from moto.rds.models import DBInstance, DBParameterGroup, MasterUserSecret
from moto.secretsmanager.models import secretsmanager_backends


class Resource(CloudFormationModel):
    """A resource that is known by its `Ref`."""

    def __init__(self, reference: str) -> None:
        self.physical_resource_id = reference

    @classmethod
    def make(cls, properties: dict[str, Any], account: str, region: str) -> str:
        """Create the resource, and return its `Ref`."""
        raise NotImplementedError

    @classmethod
    def remove(cls, reference: str, account: str, region: str) -> None:
        """Delete the resource."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_: Any
    ) -> Any:
        """Create the resource, as moto asks for it."""
        del resource_name
        return cls(cls.make(cloudformation_json["Properties"], account_id, region_name))

    @classmethod
    def update_from_cloudformation_json(cls, original_resource: Any, *_arguments: Any, **_options: Any) -> Any:
        """Leave the resource as it is."""
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str
    ) -> None:
        """Delete the resource, as moto asks for it."""
        del cloudformation_json
        cls.remove(resource_name, account_id, region_name)

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Return that there are no attributes."""
        del attr
        return False

    def is_created(self) -> bool:
        """Return that it exists: moto's services answer at once."""
        return True


class Secret(Resource, CloudFormationModel):
    """A secret with a generated password."""

    @staticmethod
    def cloudformation_type() -> str:
        """Return its type."""
        return "AWS::SecretsManager::Secret"

    @staticmethod
    def cloudformation_name_type() -> str:
        """Return the property that names it."""
        return "Name"

    @classmethod
    def make(cls, properties: dict[str, Any], account: str, region: str) -> str:
        """Create the secret, and return its ARN."""
        generated = properties["GenerateSecretString"]
        value = json.loads(generated["SecretStringTemplate"]) | {generated["GenerateStringKey"]: "generated"}
        created = secretsmanager_backends[account][region].create_secret(
            name=properties["Name"],
            secret_string=json.dumps(value),
            secret_binary=None,
            description=None,
            tags=[],
            kms_key_id=None,
            client_request_token=None,
            replica_regions=[],
            force_overwrite=False,
        )
        return str(json.loads(created)["ARN"])

    @classmethod
    def remove(cls, reference: str, account: str, region: str) -> None:
        """Delete the secret."""
        secretsmanager_backends[account][region].delete_secret(reference, None, force_delete_without_recovery=True)


class Application(Resource, CloudFormationModel):
    """An application of CodeDeploy."""

    @staticmethod
    def cloudformation_type() -> str:
        """Return its type."""
        return "AWS::CodeDeploy::Application"

    @staticmethod
    def cloudformation_name_type() -> str:
        """Return the property that names it."""
        return "ApplicationName"

    @classmethod
    def make(cls, properties: dict[str, Any], account: str, region: str) -> str:
        """Create the application, and return its name."""
        name = str(properties["ApplicationName"])
        codedeploy_backends[account][region].create_application(name, "ECS", [])
        return name

    @classmethod
    def remove(cls, reference: str, account: str, region: str) -> None:
        """Delete the application."""
        codedeploy_backends[account][region].applications.pop(reference)


class DeploymentGroup(Resource, CloudFormationModel):
    """A deployment group of CodeDeploy."""

    @staticmethod
    def cloudformation_type() -> str:
        """Return its type."""
        return "AWS::CodeDeploy::DeploymentGroup"

    @staticmethod
    def cloudformation_name_type() -> str:
        """Return the property that names it."""
        return "DeploymentGroupName"

    @classmethod
    def make(cls, properties: dict[str, Any], account: str, region: str) -> str:
        """Create the deployment group, and return its name."""
        name = str(properties["DeploymentGroupName"])
        codedeploy_backends[account][region].create_deployment_group(
            application_name=properties["ApplicationName"],
            deployment_group_name=name,
            deployment_config_name=properties["DeploymentConfigName"],
            ec2_tag_filters=None,
            on_premises_instance_tag_filters=None,
            auto_scaling_groups=None,
            service_role_arn=properties["ServiceRoleArn"],
        )
        return name

    @classmethod
    def remove(cls, reference: str, account: str, region: str) -> None:
        """Delete the deployment group: its application has the same name, and no other group."""
        codedeploy_backends[account][region].deployment_groups.pop(reference)


class ScalableTarget(Resource, CloudFormationModel):
    """What is scaled: the number of a service's tasks."""

    @staticmethod
    def cloudformation_type() -> str:
        """Return its type."""
        return "AWS::ApplicationAutoScaling::ScalableTarget"

    @staticmethod
    def cloudformation_name_type() -> str:
        """Return that it has no name."""
        return ""

    @classmethod
    def make(cls, properties: dict[str, Any], account: str, region: str) -> str:
        """Register the target, and return its id."""
        states = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")
        suspended: Any = dict.fromkeys(states, False)  # moto's annotation says text
        applicationautoscaling_backends[account][region].register_scalable_target(
            properties["ServiceNamespace"],
            properties["ResourceId"],
            properties["ScalableDimension"],
            int(properties["MinCapacity"]),
            int(properties["MaxCapacity"]),
            role_arn="",
            suspended_state=suspended,
        )
        return str(properties["ResourceId"])


# The function that empties a bucket before it is deleted: moto would run it in Docker.
NULL_MODELS.append("Custom::S3AutoDeleteObjects")


def _name_of(group: Any) -> str:
    return str(group.name)


# What `Ref` of such a group is; moto 5.2.5 forgets it, and CloudFormation fails there.
setattr(DBParameterGroup, "physical_resource_id", property(_name_of))  # noqa: B010 - it has none

_attribute_of = DBInstance.get_cfn_attribute


def _with_secret(database: Any, name: str) -> Any:
    if name == "MasterUserSecret.SecretArn":
        if not hasattr(database, "master_user_secret"):
            database.master_user_secret = MasterUserSecret(database, None)
        return database.master_user_secret.secret.arn
    return _attribute_of(database, name)


def _has_attribute(_kind: Any, name: str) -> bool:
    return name.startswith(("Endpoint.", "MasterUserSecret."))


# moto knows the secret that RDS makes, but not as an attribute in CloudFormation.
setattr(DBInstance, "get_cfn_attribute", _with_secret)  # noqa: B010 - so
setattr(DBInstance, "has_cfn_attr", classmethod(_has_attribute))  # noqa: B010 - so


def _target_group_name(group: Any, name: str) -> str:
    return str({"TargetGroupName": group.name, "TargetGroupFullName": group.arn.rpartition(":")[2]}[name])


setattr(FakeTargetGroup, "get_cfn_attribute", _target_group_name)  # noqa: B010 - it has none


_created = TaskDefinition.create_from_cloudformation_json


def _with_roles(
    _kind: Any, resource_name: str, cloudformation_json: dict[str, Any], *arguments: Any, **options: Any
) -> Any:
    """Create a task definition with its roles, which moto's CloudFormation leaves out."""
    made = _created(resource_name, cloudformation_json, *arguments, **options)
    made.task_role_arn = cloudformation_json["Properties"]["TaskRoleArn"]
    made.execution_role_arn = cloudformation_json["Properties"]["ExecutionRoleArn"]
    return made


setattr(TaskDefinition, "create_from_cloudformation_json", classmethod(_with_roles))  # noqa: B010 - as above


def _replace(kind: Any, original_resource: Any, new_resource_name: str, **options: Any) -> Any:
    """Replace a task definition by its next revision, whose containers moto's own names as no client reads them."""
    made = kind.create_from_cloudformation_json(new_resource_name, **options)
    ecs_backends[options["account_id"]][options["region_name"]].deregister_task_definition(original_resource.arn)
    return made


setattr(TaskDefinition, "update_from_cloudformation_json", classmethod(_replace))  # noqa: B010 - as above


def _delete_route_table(_kind: Any, reference: str, _resource: Any, account: str, region: str) -> None:
    """Delete a route table, which moto's CloudFormation leaves, and then cannot delete the VPC."""
    ec2_backends[account][region].delete_route_table(reference)


setattr(RouteTable, "delete_from_cloudformation_json", classmethod(_delete_route_table))  # noqa: B010 - as above
