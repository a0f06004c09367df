"""Resources that moto's CloudFormation passes over, made by moto's own services."""

import functools
import json
import re
from collections.abc import Callable
from typing import Any

from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.cloudformation import responses
from moto.cloudformation.exceptions import CloudFormationError, ValidationError
from moto.cloudformation.models import CloudFormationBackend, Stack
from moto.cloudformation.parsing import NULL_MODELS
from moto.codedeploy.models import codedeploy_backends
from moto.core.common_models import CloudFormationModel
from moto.core.responses import EmptyResult
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


_stack_from_url = responses.get_stack_from_s3_url


def _by_path(template_url: str, **options: Any) -> str:
    """Fetch a template. The CDK CLI names it at its endpoint, and moto takes the host there for the bucket."""
    path = re.sub(r"^http://127\.0\.0\.1:\d+/", "https://s3.amazonaws.com/", template_url)
    return str(_stack_from_url(path, **options))


setattr(responses, "get_stack_from_s3_url", _by_path)  # noqa: B010 - as above


def _execute(backend: Any, change_set_name: str, stack_name: str | None = None) -> None:
    """Create or update a stack by a change set, as the CDK CLI does.

    moto's own knows stacks that are made so by neither outputs nor exports, and lets them import nothing. Of an update
    that keeps a parameter of SSM, it takes the value for the parameter's name.
    """
    del stack_name
    change_set = backend.describe_change_set(change_set_name)
    stack = backend.stacks[change_set.stack_id]
    if change_set.change_set_type == "CREATE":
        stack._add_stack_event("CREATE_IN_PROGRESS", resource_status_reason="User Initiated")  # noqa: SLF001 - no other
        # As if the stack were made now, but under the id that the change set told.
        made: Any = Stack(
            stack_id=stack.stack_id,
            name=stack.name,
            template=change_set.template,
            parameters=change_set.parameters,
            account_id=stack.account_id,
            region_name=stack.region_name,
            tags=stack.tags,
            role_arn=stack.role_arn,
            cross_stack_resources=backend.exports,
        )
        made.events, change_set.stack = stack.events, made
        backend.stacks[stack.stack_id] = made
        made.create_resources()
    else:
        made = stack
        for export in stack.exports:
            backend.exports.pop(export.name)
        kinds = {name: each["Type"] for name, each in change_set.template_dict.get("Parameters", {}).items()}
        kept = {
            name: value
            for name, value in change_set.parameters.items()
            if not kinds[name].startswith("AWS::SSM::Parameter::")
        }
        stack.update(change_set.template, change_set.role_arn, parameters=kept)
    backend.exports.update({export.name: export for export in made.exports})
    change_set.execution_status = "EXECUTE_COMPLETE"


setattr(CloudFormationBackend, "execute_change_set", _execute)  # noqa: B010 - as above


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


class ChangeSetNotFoundError(CloudFormationError):
    """No change set has this name in this stack."""

    code = "ChangeSetNotFound"


def _of_its_stack(operation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Find a change set by its name in its stack. moto takes the name alone, and the CDK CLI has one for all stacks."""

    @functools.wraps(operation)
    def answer(response: Any) -> Any:
        name, stack = (response._get_param(key) for key in ("ChangeSetName", "StackName"))  # noqa: SLF001 - no other
        found = [
            identity
            for identity, each in response.cloudformation_backend.change_sets.items()
            if identity == name or (each.change_set_name == name and stack in {each.stack_name, each.stack_id})
        ]
        if found:
            response.params["ChangeSetName"] = found[-1]
        elif operation.__name__ == "delete_change_set":
            return EmptyResult()
        else:
            raise ChangeSetNotFoundError(f"ChangeSet [{name}] does not exist")
        return operation(response)

    return answer


for each in ("describe_change_set", "delete_change_set", "execute_change_set"):
    setattr(responses.CloudFormationResponse, each, _of_its_stack(getattr(responses.CloudFormationResponse, each)))


_delete_stack = CloudFormationBackend.delete_stack


def _unless_imported(backend: Any, name_or_stack_id: str) -> None:
    """Delete a stack, unless another imports what it exports: CloudFormation refuses that, and moto does not.

    Nothing is left in it: moto makes a resource when somebody looks at it, even to describe a stack that is deleted.
    """
    stack = backend.get_stack(name_or_stack_id)
    for other in backend.stacks.values():
        imported = set(re.findall(r'"Fn::ImportValue": "([^"]+)"', json.dumps(other.template_dict)))
        for export in stack.exports:
            if other is not stack and export.name in imported:
                raise ValidationError(message=f"Export {export.name} cannot be deleted as it is in use by {other.name}")
    _delete_stack(backend, name_or_stack_id)
    stack.template_dict = {"Resources": dict[str, Any]()}
    stack.resource_map = stack._create_resource_map()  # noqa: SLF001 - no other
    stack.output_map = stack._create_output_map()  # noqa: SLF001 - no other


setattr(CloudFormationBackend, "delete_stack", _unless_imported)  # noqa: B010 - as above
