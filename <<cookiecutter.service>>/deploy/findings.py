"""Findings of cdk-nag that stay, each with its reason."""

from typing import Any

from aws_cdk import Acknowledgment, Validations


def acknowledge(construct: Any, *findings: tuple[str, str]) -> None:
    """Accept findings of cdk-nag about a construct. Each is a rule's id and the reason."""
    Validations.of(construct).acknowledge(*(Acknowledgment(id=rule, reason=reason) for rule, reason in findings))
