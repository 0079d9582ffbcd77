"""The contract of `SecretTable`."""

from __future__ import annotations

import dataclasses

import pytest

from flow_platform.domain import errors
from flow_platform.domain.secrets import WORKSPACE_WIDE, DataKey, SealedSecret, SecretInfo
from flow_platform.store.base import Store
from tests.support.store_records import NOW, SECOND

INFO = SecretInfo("org", "workspace", "TOKEN", WORKSPACE_WIDE, 1, NOW, "ada")
KEY = DataKey("org", "workspace", "local-1", b"\0\xff wrapped", NOW)


async def save(store: Store, *infos: SecretInfo) -> None:
    for info in infos:
        await store.write(lambda tx, info=info: tx.secrets.save(SealedSecret(info, b"\0\xff" + info.name.encode())))


async def test_a_secret_is_found_by_name_in_all_of_its_rings(store: Store) -> None:
    of_ring = dataclasses.replace(INFO, ring_id="ring", version=3)
    other = dataclasses.replace(INFO, name="OTHER")
    elsewhere = dataclasses.replace(INFO, workspace_id="elsewhere")
    await save(store, of_ring, INFO, other, elsewhere)

    found = await store.read(lambda tx: tx.secrets.find("org", "workspace", ["TOKEN", "NONE"]))
    assert sorted((secret.info for secret in found), key=lambda info: info.ring_id) == [INFO, of_ring]
    assert {secret.sealed for secret in found} == {b"\0\xffTOKEN"}
    assert await store.read(lambda tx: tx.secrets.of_workspace("org", "workspace")) == [other, INFO, of_ring]
    assert await store.read(lambda tx: tx.secrets.count("org", "workspace")) == 3
    assert await store.read(lambda tx: tx.secrets.find("stranger", "workspace", ["TOKEN"])) == []
    assert await store.read(lambda tx: tx.secrets.of_workspace("stranger", "workspace")) == []


async def test_a_newer_version_replaces_the_value(store: Store) -> None:
    newer = dataclasses.replace(INFO, version=2, created_at=NOW + SECOND, created_by="grace")
    await save(store, INFO)

    await store.write(lambda tx: tx.secrets.save(SealedSecret(newer, b"new")))

    assert await store.read(lambda tx: tx.secrets.find("org", "workspace", ["TOKEN"])) == [SealedSecret(newer, b"new")]


async def test_deleting_takes_one_value(store: Store) -> None:
    of_ring = dataclasses.replace(INFO, ring_id="ring")
    await save(store, INFO, of_ring)

    assert not await store.write(lambda tx: tx.secrets.delete("stranger", "workspace", "TOKEN", "ring"))
    assert await store.write(lambda tx: tx.secrets.delete("org", "workspace", "TOKEN", "ring"))
    assert not await store.write(lambda tx: tx.secrets.delete("org", "workspace", "TOKEN", "ring"))
    assert await store.read(lambda tx: tx.secrets.of_workspace("org", "workspace")) == [INFO]


async def test_a_workspace_has_one_key(store: Store) -> None:
    assert await store.read(lambda tx: tx.secrets.find_key("org", "workspace")) is None
    await store.write(lambda tx: tx.secrets.insert_key(KEY))

    with pytest.raises(errors.Conflict):
        await store.write(lambda tx: tx.secrets.insert_key(dataclasses.replace(KEY, wrapped=b"second")))

    assert await store.read(lambda tx: tx.secrets.find_key("org", "workspace")) == KEY
    assert await store.read(lambda tx: tx.secrets.find_key("stranger", "workspace")) is None
    assert await store.read(lambda tx: tx.secrets.keys()) == [KEY]


async def test_a_key_is_wrapped_anew_only_by_who_knows_how_it_is_wrapped(store: Store) -> None:
    newer = dataclasses.replace(KEY, master_key_id="local-2", wrapped=b"newer")
    await store.write(lambda tx: tx.secrets.insert_key(KEY))

    assert not await store.write(lambda tx: tx.secrets.rewrap(newer, "local-0"))
    assert await store.write(lambda tx: tx.secrets.rewrap(newer, "local-1"))
    assert not await store.write(lambda tx: tx.secrets.rewrap(newer, "local-1"))
    assert await store.read(lambda tx: tx.secrets.keys()) == [newer]


async def test_forgetting_a_workspace_leaves_the_others(store: Store) -> None:
    other = dataclasses.replace(KEY, workspace_id="other")
    kept = dataclasses.replace(INFO, workspace_id="other")
    await save(store, INFO, kept)
    for key in (KEY, other):
        await store.write(lambda tx, key=key: tx.secrets.insert_key(key))

    await store.write(lambda tx: tx.secrets.forget("org", "workspace"))

    assert await store.read(lambda tx: tx.secrets.keys()) == [other]
    assert await store.read(lambda tx: tx.secrets.of_workspace("org", "workspace")) == []
    assert await store.read(lambda tx: tx.secrets.of_workspace("org", "other")) == [kept]
