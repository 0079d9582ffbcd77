"""Secrets of a workspace: set, listed, deleted, and revealed to the parts of the platform that hand them on.

Envelope encryption: each workspace has a data key, which encrypts its values; a master key (`master_keys`) encrypts the
data key. So the master key can change without touching a value, and the database alone reveals nothing. What is bound
to what: `domain.secrets.value_context`. No route reads a value.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.domain.principal import Action, Principal
from flow_platform.domain.secrets import (
    MAX_SECRETS,
    WORKSPACE_WIDE,
    DataKey,
    SealedSecret,
    SecretInfo,
    SecretUnreadable,
    check_value,
    in_force,
    key_context,
    value_context,
)
from flow_platform.engine.master_keys import KEY_BYTES, MasterKeys, decrypt, encrypt
from flow_platform.engine.releases import check_workspace, require_not_execution
from flow_platform.store.base import Store, Transaction

logger = logging.getLogger(__name__)

MAX_REMEMBERED_KEYS: Final = 1_000  # Data keys held decrypted; a further one costs a decryption again.


class Secrets:
    """The secrets of all workspaces.

    Args:
        master_keys: Without a current one there are no secrets: setting and revealing raise MasterKeyUnavailable.
    """

    def __init__(self, store: Store, clock: Clock, master_keys: MasterKeys) -> None:
        self._store = store
        self._clock = clock
        self._master_keys = master_keys
        self._data_keys: OrderedDict[bytes, bytes] = OrderedDict()

    def __repr__(self) -> str:
        return "<Secrets>"

    async def start(self) -> None:
        """Encrypts the data keys by the current master key where an earlier one did.

        Raises:
            SettingsError: A data key was encrypted by a master key that this process was not given.
        """
        keys = await self._store.read(lambda tx: tx.secrets.keys())
        lost = [key for key in keys if key.master_key_id == self._master_keys.lost_id]
        for key in lost:
            await self._store.write(lambda tx, key=key: tx.secrets.forget(key.org_id, key.workspace_id))
            logger.warning("deleted the secrets of a lost master key", extra={"workspace_id": key.workspace_id})
        kept = [key for key in keys if key not in lost]
        unknown = sorted({key.master_key_id for key in kept if self._master_keys.find(key.master_key_id) is None})
        if unknown:
            raise _not_given(unknown, self._master_keys)
        for key in kept:
            await self._rewrap(key)

    async def put(
        self, principal: Principal, org_id: str, workspace_id: str, name: str, value: object, ring: str | None
    ) -> SecretInfo:
        """Sets the workspace's value, or that of a ring (id or name). The caller has checked the name.

        Raises:
            InvalidInput: The value is none that can be kept; or `too_many_secrets`.
            NotFound: No such workspace or ring.
            MasterKeyUnavailable: This server cannot encrypt.
        """
        require_not_execution(principal, Action.DEPLOY, org_id, workspace_id)
        text = check_value(value)
        ring_id, stored = await self._store.read(
            lambda tx: (_ring_id(tx, org_id, workspace_id, ring), tx.secrets.find_key(org_id, workspace_id))
        )
        key = await self._unwrapped(stored or await self._make_key(org_id, workspace_id))
        now = self._clock.now()

        def operation(tx: Transaction) -> SecretInfo:
            of_name = tx.secrets.find(org_id, workspace_id, [name])
            before = next((secret.info for secret in of_name if secret.info.ring_id == ring_id), None)
            if before is None and tx.secrets.count(org_id, workspace_id) >= MAX_SECRETS:
                raise errors.InvalidInput(
                    f"the workspace has {MAX_SECRETS} secrets, which is the most", code="too_many_secrets"
                )
            version = before.version + 1 if before else 1
            info = SecretInfo(org_id, workspace_id, name, ring_id, version, now, principal.subject)
            tx.secrets.save(SealedSecret(info, encrypt(key, text.encode(), value_context(info))))
            return info

        info = await self._store.write(operation)
        logger.info("a secret was set", extra=_fields(info))
        return info

    async def of_workspace(self, principal: Principal, org_id: str, workspace_id: str) -> list[SecretInfo]:
        """All of them, without values."""
        require_not_execution(principal, Action.DEPLOY, org_id, workspace_id)

        def operation(tx: Transaction) -> list[SecretInfo]:
            check_workspace(tx, org_id, workspace_id)
            return tx.secrets.of_workspace(org_id, workspace_id)

        return await self._store.read(operation)

    async def delete(self, principal: Principal, org_id: str, workspace_id: str, name: str, ring: str | None) -> None:
        """Deletes the workspace's value, or that of a ring; the others of the name stay.

        Raises:
            NotFound: There is none; names the rings that have one.
        """
        require_not_execution(principal, Action.DEPLOY, org_id, workspace_id)

        def operation(tx: Transaction) -> None:
            ring_id = _ring_id(tx, org_id, workspace_id, ring)
            if tx.secrets.delete(org_id, workspace_id, name, ring_id):
                return
            others = [secret.info.ring_id for secret in tx.secrets.find(org_id, workspace_id, [name])]
            where = f"in ring {ring!r}" if ring else "of the whole workspace"
            named = ", ".join(repr(other) if other else "the whole workspace" for other in others)
            raise errors.NotFound(
                f"secret {name!r} has no value {where}", hint=f"it has one of: {named}" if others else ""
            )

        await self._store.write(operation)
        logger.info("a secret was deleted", extra={"workspace_id": workspace_id, "secret": name, "ring": ring or ""})

    async def reveal(self, org_id: str, workspace_id: str, ring_id: str | None, name: str) -> str | None:
        """The value in force in a ring; None when there is none. For parts of the platform, never for an answer.

        Raises:
            MasterKeyUnavailable, SecretUnreadable: There is one, and it cannot be decrypted.
        """
        return (await self.reveal_all(org_id, workspace_id, ring_id, [name])).get(name)

    async def reveal_all(
        self, org_id: str, workspace_id: str, ring_id: str | None, names: Sequence[str]
    ) -> dict[str, str]:
        """The values in force of several names; those that have none are missing."""
        found, key = await self._store.read(
            lambda tx: (tx.secrets.find(org_id, workspace_id, names), tx.secrets.find_key(org_id, workspace_id))
        )
        return await self.decrypted(key, in_force(found, ring_id))

    async def decrypted(self, key: DataKey | None, sealed: Mapping[str, SealedSecret]) -> dict[str, str]:
        """The values of secrets of one workspace, given its data key as stored.

        Raises:
            MasterKeyUnavailable, SecretUnreadable: They cannot be decrypted.
        """
        if not sealed:
            return {}
        if key is None:
            raise SecretUnreadable("the data key of the workspace is gone", hint="restore the database's backup")
        plain = await self._unwrapped(key)
        return {name: _opened(plain, secret) for name, secret in sealed.items()}

    async def _make_key(self, org_id: str, workspace_id: str) -> DataKey:
        """Of two servers that make one at once, both get the one that was first."""
        master = self._master_keys.require_current()
        wrapped = await master.wrap(os.urandom(KEY_BYTES), key_context(org_id, workspace_id))
        new = DataKey(org_id, workspace_id, master.id, wrapped, self._clock.now())

        def operation(tx: Transaction) -> DataKey:
            found = tx.secrets.find_key(org_id, workspace_id)
            if found is None:
                tx.secrets.insert_key(new)
            return found or new

        return await self._store.write(operation)

    async def _unwrapped(self, key: DataKey) -> bytes:
        # Remembered by what is stored, so that a key that was replaced there is not used a moment longer.
        known = self._data_keys.get(key.wrapped)
        if known is not None:
            return known
        master = self._master_keys.find(key.master_key_id)
        if master is None:
            self._master_keys.require_current()
            raise SecretUnreadable(
                f"the workspace's data key is encrypted by the master key {key.master_key_id!r}, not known here"
            )
        plain = await master.unwrap(key.wrapped, key_context(key.org_id, key.workspace_id))
        if len(plain) != KEY_BYTES:
            raise SecretUnreadable(f"the workspace's data key has {len(plain)} bytes: expected {KEY_BYTES}")
        self._data_keys[key.wrapped] = plain
        if len(self._data_keys) > MAX_REMEMBERED_KEYS:
            self._data_keys.popitem(last=False)
        return plain

    async def _rewrap(self, key: DataKey) -> None:
        current = self._master_keys.require_current()
        if key.master_key_id == current.id:
            return
        wrapped = await current.wrap(await self._unwrapped(key), key_context(key.org_id, key.workspace_id))
        newer = dataclasses.replace(key, master_key_id=current.id, wrapped=wrapped)
        if await self._store.write(lambda tx: tx.secrets.rewrap(newer, key.master_key_id)):
            logger.info("a data key was encrypted anew", extra={"workspace_id": key.workspace_id, "by": current.id})


def _opened(key: bytes, secret: SealedSecret) -> str:
    try:
        return decrypt(key, secret.sealed, value_context(secret.info)).decode()
    except SecretUnreadable as error:
        raise SecretUnreadable(
            f"secret {secret.info.name!r} cannot be decrypted: it was changed in the database, or moved there",
            hint=f"set it again: flow secret set {secret.info.name}",
        ) from error


def _ring_id(tx: Transaction, org_id: str, workspace_id: str, ring: str | None) -> str:
    check_workspace(tx, org_id, workspace_id)
    if ring is None:
        return WORKSPACE_WIDE
    found = tx.catalog.find_ring(org_id, workspace_id, ring)
    if found is None:
        raise errors.NotFound(f"ring {ring[:80]!r} not found")
    return found.id


def _not_given(unknown: Iterable[str], given: MasterKeys) -> errors.SettingsError:
    have = ", ".join(repr(key.id) for key in [given.current, *given.earlier] if key is not None) or "none"
    named = ", ".join(map(repr, unknown))
    return errors.SettingsError(
        f"secrets in the database are encrypted by the master key {named}, and the keys given are {have}",
        hint="bring that key back (docs/secrets.md); if it is lost, FLOW_LOST_MASTER_KEY=ID deletes what it encrypted",
    )


def _fields(info: SecretInfo) -> dict[str, object]:
    return {"workspace_id": info.workspace_id, "secret": info.name, "ring": info.ring_id, "version": info.version}
