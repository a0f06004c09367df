"""CloudFormation's operations on stacks and change sets, where moto answers otherwise than AWS."""

import functools
import json
import re
from collections.abc import Callable
from typing import Any

from moto.cloudformation import responses
from moto.cloudformation.exceptions import CloudFormationError, ValidationError
from moto.cloudformation.models import CloudFormationBackend, Stack
from moto.core.responses import EmptyResult

_stack_from_url = responses.get_stack_from_s3_url


def _by_path(template_url: str, **options: Any) -> str:
    """Fetch a template. The CDK CLI names it at its endpoint, and moto takes the host there for the bucket."""
    path = re.sub(r"^http://127\.0\.0\.1:\d+/", "https://s3.amazonaws.com/", template_url)
    return str(_stack_from_url(path, **options))


setattr(responses, "get_stack_from_s3_url", _by_path)  # noqa: B010 - it replaces a function


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
