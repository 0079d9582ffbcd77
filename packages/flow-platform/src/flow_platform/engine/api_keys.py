"""API keys: made, listed, revoked, and believed.

A key is looked up for each request, so that it is of no use from the moment it is deleted. It is found by its digest:
what the time of a look-up could tell is about digests of guesses, from which no key follows.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.api_key import MAX_KEYS, PREFIX, SHOWN_CHARACTERS, ApiKey, digest_of, is_key
from flow_platform.domain.clock import Clock, new_id
from flow_platform.domain.credential import Credential
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.engine.releases import check_workspace, require_not_execution
from flow_platform.store.base import Store, Transaction

logger = logging.getLogger(__name__)

USE_NOTED_EVERY: Final = timedelta(minutes=1)
MAX_NOTED: Final = 10_000  # Keys whose last noted use is remembered.


class ApiKeys:
    """The API keys of all organizations. A workspace of None: those for a whole organization."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._noted: dict[str, datetime] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def create(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str | None,
        name: str,
        role: Role,
        life: timedelta,
        custom_role: str | None = None,
    ) -> tuple[ApiKey, str]:
        """Makes a key for a workspace, or all of the organization; the key itself is told this once.

        Raises:
            Forbidden, NotFound: As for everything that only admins may.
            InvalidInput: `too_many_api_keys`.
        """
        _require(principal, org_id, workspace_id)
        key, now = PREFIX + secrets.token_urlsafe(32), self._clock.now()
        record = ApiKey(
            id=new_id(now),
            org_id=org_id,
            workspace_id=workspace_id,
            name=name,
            role=role,
            shown=key[:SHOWN_CHARACTERS],
            digest=digest_of(key),
            created_at=now,
            created_by=principal.subject,
            expires_at=now + life,
            custom_role=custom_role,
        )

        def operation(tx: Transaction) -> ApiKey:
            _check_place(tx, org_id, workspace_id)
            if tx.api_keys.count(org_id, workspace_id) >= MAX_KEYS:
                raise errors.InvalidInput(f"there are {MAX_KEYS} API keys, which is the most", code="too_many_api_keys")
            tx.api_keys.insert(record)
            return record

        await self._store.write(operation)
        logger.info("an API key was made", extra=_fields(record))
        return record, key

    async def of_workspace(self, principal: Principal, org_id: str, workspace_id: str | None) -> list[ApiKey]:
        """All of them, also those that have expired, newest first."""
        _require(principal, org_id, workspace_id)

        def operation(tx: Transaction) -> list[ApiKey]:
            _check_place(tx, org_id, workspace_id)
            return tx.api_keys.of_workspace(org_id, workspace_id)

        return await self._store.read(operation)

    async def delete(self, principal: Principal, org_id: str, workspace_id: str | None, key_id: str) -> None:
        """Revokes a key, at once.

        Raises:
            NotFound: There is no such key.
        """
        _require(principal, org_id, workspace_id)
        if not await self._store.write(lambda tx: tx.api_keys.delete(org_id, workspace_id, key_id)):
            raise errors.NotFound(f"API key {key_id!r} not found")
        logger.info("an API key was revoked", extra={"workspace_id": workspace_id, "api_key_id": key_id})

    async def authenticate(self, key: str) -> Credential:
        """Who asks with this key.

        Raises:
            Unauthenticated: `api_key_invalid`: unknown, revoked or expired; which of them is not told.
        """
        found, actions = (
            await self._store.read(lambda tx: _find(tx, key)) if is_key(key) else (None, frozenset[Action]())
        )
        now = self._clock.now()
        if found is None or now >= found.expires_at:
            raise errors.Unauthenticated("the API key is not valid", code="api_key_invalid")
        self._note_use(found, now)
        principal = Principal(
            f"API key {found.name}",
            found.org_id,
            found.role,
            found.workspace_id,
            custom_role=found.custom_role,
            actions=actions,
        )
        return Credential(principal, found.created_at, found.created_at, found.expires_at, None, found.id)

    async def check_exists(self, credential: Credential) -> None:
        """Raises Unauthenticated (`api_key_invalid`) when the key was revoked since it was verified."""
        principal, key_id = credential.principal, credential.api_key_id or ""
        org_id, workspace_id = principal.org_id, principal.workspace_id
        if not await self._store.read(lambda tx: tx.api_keys.exists(org_id, workspace_id, key_id)):
            raise errors.Unauthenticated("the API key is not valid", code="api_key_invalid")

    async def close(self) -> None:
        """Gives up noting uses."""
        for task in self._noting:
            task.cancel()
        await asyncio.gather(*self._noting, return_exceptions=True)

    def _note_use(self, key: ApiKey, now: datetime) -> None:
        """Behind the request, and once in a while: a read must not cost a commit."""
        last = max(filter(None, (key.last_used_at, self._noted.get(key.id))), default=None)
        if last is not None and now - last < USE_NOTED_EVERY:
            return
        self._noted[key.id] = now
        if len(self._noted) > MAX_NOTED:
            del self._noted[next(iter(self._noted))]
        task = asyncio.create_task(self._store.write(lambda tx: tx.api_keys.note_use(key.id, now)), name="note-use")
        self._noting.add(task)
        task.add_done_callback(self._noted_use)

    def _noted_use(self, task: asyncio.Task[None]) -> None:
        self._noting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("the use of an API key was not noted: %s", error)


def _require(principal: Principal, org_id: str, workspace_id: str | None) -> None:
    require_not_execution(principal, Action.ADMINISTER, org_id, workspace_id)
    if workspace_id is None and principal.workspace_id is not None:
        raise errors.Forbidden("the token is for one workspace: expected one for the whole organization")


def _check_place(tx: Transaction, org_id: str, workspace_id: str | None) -> None:
    if workspace_id is not None:
        check_workspace(tx, org_id, workspace_id)


def _find(tx: Transaction, key: str) -> tuple[ApiKey | None, frozenset[Action]]:
    """The key, and what its role may now when it is a custom one."""
    found = tx.api_keys.find_by_digest(digest_of(key))
    if found is None or found.custom_role is None or found.workspace_id is None:
        return found, frozenset()
    role = tx.credentials.find_role(found.org_id, found.workspace_id, found.custom_role)
    return found, role.actions if role else frozenset()


def _fields(key: ApiKey) -> dict[str, object]:
    return {"workspace_id": key.workspace_id, "api_key_id": key.id, "role": key.role_name}
