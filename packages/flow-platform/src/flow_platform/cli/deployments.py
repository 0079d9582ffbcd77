"""Deployments as the commands see them: found by component and ring, waited for, told in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flow_platform.cli.run import KINDS, parse_component
from flow_platform.domain.errors import FlowError

if TYPE_CHECKING:
    from flow_platform.cli.remote import Remote

HOLD_SECONDS: Final = 20.0  # Shorter than the time-out of a request.
GOES_ON: Final = "smoke_run"
"""The reason that something under way changes a deployment; it waits for people, or for nothing, with any other."""


@dataclass(frozen=True)
class Named:
    """A component that a command names."""

    kind: str
    slug: str
    id: str

    @property
    def label(self) -> str:
        return f"{self.kind}/{self.slug}"


def find_component(remote: Remote, text: str) -> Named:
    """The component of a SLUG, or of a KIND/SLUG.

    Raises:
        FlowError: There is none, or there are several kinds of that slug.
    """
    from flow_platform.cli.remote import Refused

    kinds = KINDS
    slug = text
    if "/" in text:
        kind, slug = parse_component(text)
        kinds = (kind,)
    found: list[Named] = []
    for kind in kinds:
        try:
            document = remote.get(f"/{kind}/{slug}")
        except Refused as error:
            if error.status not in (404, 405):
                raise
        else:
            found.append(Named(kind, document["slug"], document["id"]))
    if not found:
        raise FlowError(f"no component {text!r}", hint="flow publish PATH publishes one")
    if len(found) > 1:
        raise FlowError(f"{text!r} is the slug of several: expected one of {', '.join(one.label for one in found)}")
    return found[0]


def newest(remote: Remote, component: Named, ring_id: str, *states: str) -> dict[str, Any] | None:
    """The newest deployment of a component in a ring that is in one of the states."""
    found = [
        one
        for state in states
        for one in remote.pages("/deployments", 1, component_id=component.id, ring_id=ring_id, state=state)
    ]
    return max(found, key=lambda one: one["created_at"], default=None)


def settled(remote: Remote, deployment: dict[str, Any]) -> dict[str, Any]:
    """Waits until it goes no further by itself."""
    while _waits_for(deployment) == GOES_ON:
        deployment = remote.get(f"/deployments/{deployment['deployment_id']}", hold_seconds=HOLD_SECONDS)
    return deployment


def _waits_for(deployment: dict[str, Any]) -> str:
    waiting: dict[str, Any] | None = deployment.get("waiting_on")
    return waiting["reason"] if waiting else ""


def require_not_failed(deployment: dict[str, Any], label: str = "") -> None:
    """Raises FlowError: `deployment_failed`."""
    if deployment["state"] == "failed":
        raise FlowError(
            f"{label}the deployment of v{deployment['version']} failed: {deployment['reason']}",
            code="deployment_failed",
        )


def outcome(label: str, deployment: dict[str, Any], ring: str) -> str:
    """What became of a deployment, in a line.

    Raises:
        FlowError: `deployment_failed`.
    """
    require_not_failed(deployment, f"{label}: ")
    version, state = f"v{deployment['version']}", deployment["state"]
    if state == "queued":
        return f"{label}: {version} waits for an approval in {ring}"
    if deployment["share"]:
        return f"{label}: {version} takes {deployment['share']} % of new executions in {ring}"
    return f"{label}: {version} {state} in {ring}"
