"""Who asks, and what they may do."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from flow_platform.domain import errors


class Role(enum.StrEnum):
    ADMIN = "admin"
    BUILDER = "builder"
    RUNNER = "runner"  # Submits and reads executions; nothing to do with runner processes.
    VIEWER = "viewer"
    EXECUTION = "execution"  # A container: one execution only.
    CUSTOM = "custom"  # Of a workspace's own making; what it may is looked up for each request.


class Action(enum.StrEnum):
    SUBMIT = "submit"
    READ = "read"
    CANCEL = "cancel"
    CALL_MODEL = "call_model"
    PUBLISH = "publish"
    DEPLOY = "deploy"
    ADMINISTER = "administer"


ALLOWED: Final[dict[Role, frozenset[Action]]] = {
    Role.ADMIN: frozenset(Action),
    Role.BUILDER: frozenset(
        {Action.SUBMIT, Action.READ, Action.CANCEL, Action.CALL_MODEL, Action.PUBLISH, Action.DEPLOY}
    ),
    Role.RUNNER: frozenset({Action.SUBMIT, Action.READ, Action.CANCEL, Action.CALL_MODEL}),
    Role.VIEWER: frozenset({Action.READ}),
    # In its own ring, and of its own descendants only; the engine checks that per execution.
    Role.EXECUTION: frozenset({Action.SUBMIT, Action.READ, Action.CANCEL, Action.CALL_MODEL}),
    Role.CUSTOM: frozenset(),
}


@dataclass(frozen=True)
class Principal:
    """The holder of a verified credential.

    Attributes:
        workspace_id: None: all workspaces of the organization.
        execution_id, attempt, lease_epoch, ring_id: Set for execution tokens only.
        custom_role: Name of the custom role.
        actions: What that role may now.
    """

    subject: str
    org_id: str
    role: Role
    workspace_id: str | None = None
    execution_id: str | None = None
    attempt: int | None = None
    lease_epoch: int | None = None
    ring_id: str | None = None
    custom_role: str | None = None
    actions: frozenset[Action] = frozenset()

    @property
    def role_name(self) -> str:
        """As people call it."""
        return self.custom_role or self.role.value

    def may(self, action: Action) -> bool:
        """Whether the role includes it; of whom is another question."""
        return action in ALLOWED[self.role] or action in self.actions

    def require(self, action: Action, org_id: str, workspace_id: str | None = None) -> None:
        """Checks tenant first, then role.

        Raises:
            NotFound: Another tenant's; indistinguishable from what does not exist.
            Forbidden: The role does not include the action.
        """
        other_workspace = workspace_id is not None and self.workspace_id not in (None, workspace_id)
        if org_id != self.org_id or other_workspace:
            raise errors.OtherTenant("not found")
        if not self.may(action):
            raise errors.Forbidden(f"role {self.role_name!r} may not {action.value!r}")
