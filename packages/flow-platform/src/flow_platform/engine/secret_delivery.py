"""Handing an attempt the secrets that its component names: asked for by its runner, once it holds the lease.

Values travel neither with the assignment nor in any other stored message: they are read when the attempt is about to
start, and answered sealed for the one that asked (`bus.sealing`). What is handed out is decided here from the version
that runs and the ring that it runs in; a runner cannot name a secret.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from flow_platform.bus.sealing import seal
from flow_platform.domain.secrets import (
    MAX_ATTEMPT_BYTES,
    DataKey,
    MasterKeyUnavailable,
    SealedSecret,
    SecretUnreadable,
    in_force,
)
from flow_platform.engine.secrets import Secrets
from flow_platform.store.base import Store, Transaction
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.secrets import SecretsReply, SecretsRequest, encode_secrets, secrets_context

logger = logging.getLogger(__name__)

LEASE_LOST: Final = "lease_lost"
SECRET_MISSING: Final = "secret_missing"  # noqa: S105 - an error code.
SECRETS_TOO_LARGE: Final = "secrets_too_large"


@dataclass(frozen=True)
class _Found:
    """What the store knows of a request."""

    org_id: str
    workspace_id: str
    ring_name: str
    names: Sequence[str]
    sealed: Mapping[str, SealedSecret]
    key: DataKey | None = dataclasses.field(repr=False)


class SecretDelivery:
    """Answers runners."""

    def __init__(self, store: Store, secrets: Secrets) -> None:
        self._store = store
        self._secrets = secrets

    async def deliver(self, request: SecretsRequest) -> SecretsReply:
        """The values for one attempt, or the error that it ends with."""
        found = await self._store.read(lambda tx: _find(tx, request))
        if found is None:
            return refused(LEASE_LOST, "the attempt is no longer this runner's", retryable=True)
        missing = [name for name in found.names if name not in found.sealed]
        if missing:
            return refused(SECRET_MISSING, _missing(missing, found.ring_name))
        try:
            values = await self._secrets.decrypted(found.key, found.sealed)
        except (MasterKeyUnavailable, SecretUnreadable) as error:
            logger.warning("secrets could not be decrypted: %s", error.message, extra=_fields(request))
            hint = f" (hint: {error.hint})" if error.hint else ""
            # A key management service that is away comes back; a value that was changed does not.
            away = isinstance(error, MasterKeyUnavailable)
            return refused(error.error_code, error.message + hint, retryable=away)
        message = encode_secrets(values)
        if len(message) > MAX_ATTEMPT_BYTES:
            return refused(
                SECRETS_TOO_LARGE,
                f"The secrets of the component have {len(message)} bytes together and the limit is {MAX_ATTEMPT_BYTES}",
            )
        versions = {name: secret.info.version for name, secret in found.sealed.items()}
        logger.info("secrets were handed out", extra=_fields(request) | {"secrets": versions})
        context = secrets_context(request.execution_id, request.lease_epoch)
        return SecretsReply(sealed=seal(request.public_key, message, context))


def _find(tx: Transaction, request: SecretsRequest) -> _Found | None:
    execution = tx.executions.find(request.execution_id)
    if execution is None or execution.status.is_terminal:
        return None
    holder = (execution.lease_holder, execution.lease_instance, execution.lease_epoch)
    if holder != (request.runner_id, request.instance, request.lease_epoch):
        return None
    org_id, workspace_id, ring_id = execution.org_id, execution.workspace_id, execution.ring_id
    definition = tx.catalog.get_version(execution.version_id).definition
    names = list(dict.fromkeys([*definition.secrets, *(one.name for one in definition.injected)]))
    ring = tx.catalog.find_ring(org_id, workspace_id, ring_id) if ring_id else None
    return _Found(
        org_id,
        workspace_id,
        ring.name if ring else "",
        names,
        in_force(tx.secrets.find(org_id, workspace_id, names), ring_id),
        tx.secrets.find_key(org_id, workspace_id),
    )


def _missing(names: Sequence[str], ring: str) -> str:
    named = ", ".join(map(repr, names))
    where = f" in ring {ring!r}" if ring else ""
    for_ring = f", or for this ring alone with --ring {ring}" if ring else ""
    return (
        f"The component needs the secret {named}, which has no value{where}"
        f" (hint: set it with: flow secret set {names[0]}{for_ring})"
    )


def refused(code: str, message: str, *, retryable: bool = False) -> SecretsReply:
    return SecretsReply(error=ErrorDocument(code=code, message=message, retryable=retryable))


def _fields(request: SecretsRequest) -> dict[str, object]:
    return {"execution_id": request.execution_id, "lease_epoch": request.lease_epoch, "runner_id": request.runner_id}
