"""Tokens of services: credentials of programs that may call one service and nothing else. See `api_keys` for the rest.

Like an API key, a token is looked up for each request, so that it is of no use from the moment it is deleted.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.api_key import digest_of
from flow_platform.domain.clock import Clock, new_id
from flow_platform.domain.principal import Action, Principal
from flow_platform.domain.service import (
    MAX_TOKENS,
    TOKEN_PREFIX,
    TOKEN_SHOWN_CHARACTERS,
    ServiceToken,
    is_service_token,
)
from flow_platform.engine.releases import require_not_execution
from flow_platform.engine.services import find_service
from flow_platform.store.base import Store, Transaction

logger = logging.getLogger(__name__)

USE_NOTED_EVERY: Final = timedelta(minutes=1)
MAX_NOTED: Final = 10_000  # Tokens whose last noted use is remembered.


class ServiceTokens:
    """The tokens of all services."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._noted: dict[str, datetime] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def create(
        self, principal: Principal, org_id: str, workspace_id: str, service: str, name: str, life: timedelta
    ) -> tuple[ServiceToken, str]:
        """Makes a token; the token itself is told this once.

        Raises:
            Conflict: `too_many_service_tokens`.
        """
        require_not_execution(principal, Action.ADMINISTER, org_id, workspace_id)
        token, now = TOKEN_PREFIX + secrets.token_urlsafe(32), self._clock.now()

        def operation(tx: Transaction) -> ServiceToken:
            found = find_service(tx, org_id, workspace_id, service, for_update=True)
            if len(tx.services.tokens(found.id)) >= MAX_TOKENS:
                raise errors.Conflict(
                    f"service {found.slug!r} has {MAX_TOKENS} tokens, which is the most",
                    code="too_many_service_tokens",
                )
            record = ServiceToken(
                id=new_id(now),
                service_id=found.id,
                name=name,
                shown=token[:TOKEN_SHOWN_CHARACTERS],
                digest=digest_of(token),
                created_at=now,
                created_by=principal.subject,
                expires_at=now + life,
            )
            tx.services.insert_token(record)
            return record

        record = await self._store.write(operation)
        logger.info("a token of a service was made", extra=_fields(record))
        return record, token

    async def of_service(
        self, principal: Principal, org_id: str, workspace_id: str, service: str
    ) -> list[ServiceToken]:
        """All of them, also those that have expired, newest first."""
        require_not_execution(principal, Action.ADMINISTER, org_id, workspace_id)

        def operation(tx: Transaction) -> list[ServiceToken]:
            return list(tx.services.tokens(find_service(tx, org_id, workspace_id, service).id))

        return await self._store.read(operation)

    async def delete(self, principal: Principal, org_id: str, workspace_id: str, service: str, token_id: str) -> None:
        """Revokes a token, at once.

        Raises:
            NotFound: The service has no such token.
        """
        require_not_execution(principal, Action.ADMINISTER, org_id, workspace_id)

        def operation(tx: Transaction) -> None:
            found = find_service(tx, org_id, workspace_id, service)
            if not tx.services.delete_token(found.id, token_id):
                raise errors.NotFound(f"token {token_id!r} not found")

        await self._store.write(operation)
        logger.info("a token of a service was revoked", extra={"service_token_id": token_id})

    async def authenticate(self, token: str) -> ServiceToken:
        """Raises Unauthenticated (`service_token_invalid`): unknown, revoked or expired; which is not told."""
        found = None
        if is_service_token(token):
            found = await self._store.read(lambda tx: tx.services.find_token(digest_of(token)))
        now = self._clock.now()
        if found is None or now >= found.expires_at:
            raise refused()
        self._note_use(found, now)
        return found

    async def close(self) -> None:
        """Gives up noting uses."""
        for task in self._noting:
            task.cancel()
        await asyncio.gather(*self._noting, return_exceptions=True)

    def _note_use(self, token: ServiceToken, now: datetime) -> None:
        """Behind the request, and once in a while: a call must not cost a further commit."""
        last = max(filter(None, (token.last_used_at, self._noted.get(token.id))), default=None)
        if last is not None and now - last < USE_NOTED_EVERY:
            return
        self._noted[token.id] = now
        if len(self._noted) > MAX_NOTED:
            del self._noted[next(iter(self._noted))]
        noting = asyncio.create_task(
            self._store.write(lambda tx: tx.services.note_token_use(token.id, now)), name="note-use"
        )
        self._noting.add(noting)
        noting.add_done_callback(self._noted_use)

    def _noted_use(self, task: asyncio.Task[None]) -> None:
        self._noting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("the use of a service's token was not noted: %s", error)


def refused() -> errors.Unauthenticated:
    """The token is not for this service, or for none."""
    return errors.Unauthenticated("the token of the service is not valid", code="service_token_invalid")


def _fields(token: ServiceToken) -> dict[str, object]:
    return {"service_id": token.service_id, "service_token_id": token.id}
