"""What decides about tokens besides themselves: signing keys and their rotation, revocations, custom roles.

Every server has keys and revocations in memory, as each request needs them. Another server's change is told over NATS,
and looked for every few seconds besides; a token with a key that is not known here is a reason to look at once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.domain.credential import MAX_KEYS, Credential, UnknownKey
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.domain.roles import MAX_REVOCATIONS, MAX_ROLES, MAX_TOKEN_LIFE, CustomRole, Revocation, is_role_name
from flow_platform.engine.releases import check_workspace, require_not_execution
from flow_platform.engine.tokens import Revoked, Tokens, new_signing_key
from flow_platform.engine.validation import invalid
from flow_platform.engine.wakeups import Wakeups
from flow_platform.store.base import SigningKey, Store, Transaction

logger = logging.getLogger(__name__)

CREDENTIALS: Final = "credentials"
"""Key of the wake-ups: keys or revocations have changed."""

LOOK_AGAIN_SECONDS: Final = 5.0
UNKNOWN_KEY_SECONDS: Final = 1.0  # Between two looks for a key that nobody here knows: anybody can name one.


class Credentials:
    """Keys, revocations and roles of the platform.

    Args:
        operator_org_id: Of the first organization: its administrators are those of the platform.
    """

    tokens: Tokens

    def __init__(self, store: Store, clock: Clock, wakeups: Wakeups, operator_org_id: str) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._operator_org_id = operator_org_id
        self._looked_for_key = float("-inf")

    async def start(self) -> None:
        self.tokens = Tokens(await self._store.read(lambda tx: tx.tenancy.signing_keys()))
        await self.refresh()

    async def run(self) -> None:
        """Follows what other servers change, until it is cancelled."""
        with self._wakeups.subscribe(CREDENTIALS) as waiter:
            while True:
                await waiter.wait(LOOK_AGAIN_SECONDS)
                try:
                    await self.refresh()
                except errors.StoreUnavailable as error:
                    logger.warning("keys and revocations were not read: %s", error)

    async def wait_changed(self, timeout_seconds: float) -> None:
        """Returns when something may have changed, or the time is over."""
        with self._wakeups.subscribe(CREDENTIALS) as waiter:
            await waiter.wait(timeout_seconds)

    async def refresh(self) -> None:
        """Takes keys and revocations as they are in the database now."""
        now = self._clock.now()

        def operation(tx: Transaction) -> tuple[list[SigningKey], list[Revocation]]:
            return tx.tenancy.signing_keys(), tx.credentials.revocations(now)

        keys, revocations = await self._store.read(operation)
        self.tokens.use(keys, _revoked(revocations))

    async def inspect(self, token: str) -> Credential:
        """The verified credential of one of our tokens; a key that is not known here is looked for, once a second.

        Raises:
            Unauthenticated: With a code per cause.
        """
        try:
            credential = self.tokens.inspect(token, self._clock.now())
        except UnknownKey:
            at = asyncio.get_running_loop().time()
            if at - self._looked_for_key < UNKNOWN_KEY_SECONDS:
                raise
            self._looked_for_key = at
            await self.refresh()
            credential = self.tokens.inspect(token, self._clock.now())
        return await self.with_actions(credential) if credential.principal.role is Role.CUSTOM else credential

    async def believe(self, credential: Credential) -> Credential:
        """One that somebody else has verified: unless it was revoked here, and with what its role may now.

        Raises:
            Unauthenticated: `token_revoked`.
        """
        self.tokens.check(credential, self._clock.now())
        return await self.with_actions(credential) if credential.principal.role is Role.CUSTOM else credential

    async def with_actions(self, credential: Credential) -> Credential:
        """The same, with what its custom role may now: nothing, when there is no such role any more."""
        principal = credential.principal
        role = await self._store.read(lambda tx: role_of(tx, principal))
        actions = role.actions if role else frozenset[Action]()
        return dataclasses.replace(credential, principal=dataclasses.replace(principal, actions=actions))

    async def rotate(self, principal: Principal, retire_after: timedelta) -> list[SigningKey]:
        """Makes a key that signs from now on; those before it verify so long, and not after.

        Raises:
            Forbidden: Not an administrator of the platform.
            Conflict: `too_many_keys`.
        """
        self._require_operator(principal)
        now = self._clock.now()
        made = new_signing_key(now)

        def operation(tx: Transaction) -> list[SigningKey]:
            tx.credentials.delete_keys(now - MAX_TOKEN_LIFE)
            before = tx.tenancy.signing_keys()
            if len(before) >= MAX_KEYS:
                raise errors.Conflict(
                    f"{len(before)} signing keys are still needed: expected at most {MAX_KEYS - 1}",
                    code="too_many_keys",
                    hint="retire them sooner",
                )
            for key in before:
                tx.credentials.retire_key(key.kid, now + retire_after)
            tx.tenancy.insert_signing_key(made)
            return tx.tenancy.signing_keys()

        keys = await self._store.write(operation)
        logger.warning("tokens are signed with a new key", extra={"kid": made.kid})
        await self._changed()
        return keys

    async def keys(self, principal: Principal) -> list[SigningKey]:
        """All that are kept, newest first."""
        self._require_operator(principal)
        return await self._store.read(lambda tx: tx.tenancy.signing_keys())

    async def revoke(
        self, principal: Principal, kind: Literal["token", "subject"], name: str, expires_at: datetime | None = None
    ) -> Revocation:
        """Revokes a token by its id, or all that a subject has until now, in the organization of who asks.

        Args:
            principal: Who has been found to be allowed to.
            expires_at: Of the token, when it is known.

        Raises:
            Conflict: `too_many_revocations`: rotate the keys instead.
        """
        now = self._clock.now()
        # Who revokes its own tokens again and again leaves room for administrators.
        most = MAX_REVOCATIONS if principal.may(Action.ADMINISTER) else MAX_REVOCATIONS * 9 // 10
        revocation = Revocation(
            principal.org_id, kind, name, now, principal.subject, expires_at or now + MAX_TOKEN_LIFE
        )

        def operation(tx: Transaction) -> Revocation:
            tx.credentials.forget_revocations(now)
            if tx.credentials.count_revocations(principal.org_id, now) >= most:
                raise errors.Conflict(
                    f"{most} tokens and subjects are revoked, which is the most", code="too_many_revocations"
                )
            tx.credentials.revoke(revocation)
            return revocation

        await self._store.write(operation)
        self.tokens.revoke(_revoked([revocation]))
        logger.info("a %s was revoked", kind, extra={"org_id": principal.org_id, "by": principal.subject})
        await self._changed()
        return revocation

    async def roles(self, principal: Principal, org_id: str, workspace_id: str) -> list[CustomRole]:
        """All custom roles of the workspace, by name."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> list[CustomRole]:
            check_workspace(tx, org_id, workspace_id)
            return tx.credentials.roles(org_id, workspace_id)

        return await self._store.read(operation)

    async def save_role(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        name: str,
        actions: frozenset[Action],
        description: str,
    ) -> CustomRole:
        """Makes a role, or changes it for all who have it.

        Raises:
            InvalidInput: The name is not one; `too_many_roles`.
        """
        require_not_execution(principal, Action.ADMINISTER, org_id, workspace_id)
        if not is_role_name(name):
            raise invalid("name", name, "1 to 63 of a-z, 0-9, '-' and '_', and no built-in role")
        role = CustomRole(org_id, workspace_id, name, actions, description, self._clock.now(), principal.subject)

        def operation(tx: Transaction) -> CustomRole:
            check_workspace(tx, org_id, workspace_id)
            others = [each for each in tx.credentials.roles(org_id, workspace_id) if each.name != name]
            if len(others) >= MAX_ROLES:
                raise errors.InvalidInput(
                    f"the workspace has {len(others)} custom roles, which is the most", code="too_many_roles"
                )
            tx.credentials.save_role(role)
            return role

        return await self._store.write(operation)

    async def delete_role(self, principal: Principal, org_id: str, workspace_id: str, name: str) -> None:
        """Who has the role may nothing from now on.

        Raises:
            NotFound: There is no such role.
        """
        require_not_execution(principal, Action.ADMINISTER, org_id, workspace_id)
        if not await self._store.write(lambda tx: tx.credentials.delete_role(org_id, workspace_id, name)):
            raise errors.NotFound(f"role {name!r} not found")

    async def parse_role(self, org_id: str, workspace_id: str | None, name: str) -> tuple[Role, str | None]:
        """The role of that name: a built-in one, or a custom one of the workspace with its name.

        Raises:
            InvalidInput: There is none.
        """
        built_in = next((role for role in USERS if role.value == name), None)
        if built_in is not None:
            return built_in, None
        if workspace_id is not None:
            found = await self._store.read(lambda tx: tx.credentials.find_role(org_id, workspace_id, name))
            if found is not None:
                return Role.CUSTOM, name
        expected = ", ".join(repr(role.value) for role in USERS)
        raise invalid("role", name, f"one of {expected}, or a custom role of the workspace")

    def tell(self) -> None:
        """Has everybody look again: something was revoked."""
        self._wakeups.notify([CREDENTIALS])

    async def _changed(self) -> None:
        await self.refresh()
        self.tell()

    def _require_operator(self, principal: Principal) -> None:
        principal.require(Action.ADMINISTER, principal.org_id)
        if principal.org_id != self._operator_org_id or principal.workspace_id is not None:
            raise errors.Forbidden("the keys are the platform's: expected a token of its first organization's admin")


USERS: Final = (Role.ADMIN, Role.BUILDER, Role.RUNNER, Role.VIEWER)


def role_of(tx: Transaction, principal: Principal) -> CustomRole | None:
    """The custom role of a principal, as it is now."""
    if principal.workspace_id is None or principal.custom_role is None:
        return None
    return tx.credentials.find_role(principal.org_id, principal.workspace_id, principal.custom_role)


def _revoked(revocations: Sequence[Revocation]) -> Revoked:
    return Revoked(
        frozenset((one.org_id, one.name) for one in revocations if one.kind == "token"),
        {(one.org_id, one.name): one.revoked_at for one in revocations if one.kind == "subject"},
    )
