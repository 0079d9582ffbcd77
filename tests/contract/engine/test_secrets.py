"""Secrets in the engine: encrypted at rest on both databases, rotated, and handed to who holds the lease."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from flow_platform.bus.sealing import Recipient
from flow_platform.domain import errors
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.principal import Principal, Role
from flow_platform.domain.secrets import MAX_VALUE_BYTES, DataKey, MasterKeyUnavailable, SealedSecret, SecretUnreadable
from flow_platform.engine.first_start import ensure_first_tenant
from flow_platform.engine.master_keys import LocalMasterKey, MasterKeys, new_key, parse_key
from flow_platform.engine.secrets import Secrets
from flow_platform.store.base import Store, Workspace
from flow_sdk.wire import subjects
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.secrets import SecretsReply, SecretsRequest, decode_secrets, secrets_context
from tests.support.stage import Stage

CANARY = "canary-6f1c2d-value"
CLOCK = ManualClock()


def master_key() -> LocalMasterKey:
    return parse_key(new_key(), "a test")


@dataclasses.dataclass
class Vault:
    """Secrets over a store, and its first workspace."""

    store: Store
    workspace: Workspace

    @property
    def admin(self) -> Principal:
        return Principal("ada", self.workspace.org_id, Role.ADMIN)

    @property
    def place(self) -> tuple[str, str]:
        return self.workspace.org_id, self.workspace.workspace_id

    def secrets(self, *keys: LocalMasterKey, lost: str = "") -> Secrets:
        return Secrets(self.store, CLOCK, MasterKeys(keys[0] if keys else None, keys[1:], lost))

    async def rows(self) -> tuple[list[DataKey], list[SealedSecret]]:
        return await self.store.read(lambda tx: (tx.secrets.keys(), tx.secrets.find(*self.place, ["TOKEN"])))


@pytest.fixture
async def vault(store: Store) -> Vault:
    return Vault(store, await ensure_first_tenant(store, CLOCK))


async def test_a_value_is_revealed_only_as_it_was_set(vault: Vault) -> None:
    secrets = vault.secrets(master_key())
    first = await secrets.put(vault.admin, *vault.place, "TOKEN", CANARY, None)
    second = await secrets.put(vault.admin, *vault.place, "TOKEN", "another value", None)

    assert (first.version, second.version, second.created_by) == (1, 2, "ada")
    assert await secrets.reveal(*vault.place, None, "TOKEN") == "another value"
    assert await secrets.reveal(*vault.place, "any ring", "TOKEN") == "another value"
    assert await secrets.reveal(*vault.place, None, "OTHER") is None
    assert await secrets.reveal("stranger", vault.place[1], None, "TOKEN") is None


async def test_the_value_of_a_ring_wins_in_that_ring(vault: Vault) -> None:
    secrets = vault.secrets(master_key())
    ring = await vault.store.read(lambda tx: tx.catalog.find_ring(*vault.place, "production"))
    assert ring is not None
    await secrets.put(vault.admin, *vault.place, "TOKEN", "for everybody", None)
    await secrets.put(vault.admin, *vault.place, "TOKEN", "for production", "production")

    assert await secrets.reveal(*vault.place, ring.id, "TOKEN") == "for production"
    assert await secrets.reveal(*vault.place, "other", "TOKEN") == "for everybody"
    with pytest.raises(errors.NotFound, match="ring 'none'"):
        await secrets.put(vault.admin, *vault.place, "TOKEN", "for nobody", "none")

    await secrets.delete(vault.admin, *vault.place, "TOKEN", None)
    assert await secrets.reveal(*vault.place, "other", "TOKEN") is None
    with pytest.raises(errors.NotFound) as refused:
        await secrets.delete(vault.admin, *vault.place, "TOKEN", None)
    assert ring.id in refused.value.hint


async def test_what_is_stored_is_encrypted_and_bound_to_its_place(vault: Vault) -> None:
    secrets = vault.secrets(master_key())
    await secrets.put(vault.admin, *vault.place, "TOKEN", CANARY, None)
    [key], [sealed] = await vault.rows()
    assert CANARY.encode() not in sealed.sealed
    assert CANARY not in repr(sealed) + repr(key) + repr(secrets) + repr(master_key())
    assert repr(sealed.sealed) not in repr(sealed)

    for changed in (
        dataclasses.replace(sealed, info=dataclasses.replace(sealed.info, name="OTHER")),
        dataclasses.replace(sealed, info=dataclasses.replace(sealed.info, ring_id="ring", version=2)),
        dataclasses.replace(sealed, info=dataclasses.replace(sealed.info, version=9)),
        dataclasses.replace(sealed, sealed=sealed.sealed[:-1] + bytes([sealed.sealed[-1] ^ 1])),
        dataclasses.replace(sealed, sealed=b""),
    ):
        await vault.store.write(lambda tx, changed=changed: tx.secrets.save(changed))
        ring = changed.info.ring_id or None
        with pytest.raises(SecretUnreadable, match=repr(changed.info.name)):
            await secrets.reveal(*vault.place, ring, changed.info.name)


async def test_two_secrets_of_one_value_look_different(vault: Vault) -> None:
    secrets = vault.secrets(master_key())
    await secrets.put(vault.admin, *vault.place, "TOKEN", CANARY, None)
    await secrets.put(vault.admin, *vault.place, "TOKEN", CANARY, "dev")

    one, other = (await vault.rows())[1]
    assert one.sealed != other.sealed


async def test_a_new_master_key_wraps_data_keys_anew_and_touches_no_value(vault: Vault) -> None:
    old, new = master_key(), master_key()
    await vault.secrets(old).put(vault.admin, *vault.place, "TOKEN", CANARY, None)
    [key_before], values_before = await vault.rows()

    await vault.secrets(new, old).start()

    [key_after], values_after = await vault.rows()
    assert (key_before.master_key_id, key_after.master_key_id) == (old.id, new.id)
    assert key_before.wrapped != key_after.wrapped
    assert values_before == values_after
    alone = vault.secrets(new)
    await alone.start()
    assert await alone.reveal(*vault.place, None, "TOKEN") == CANARY


async def test_a_start_without_the_right_master_key_is_refused(vault: Vault) -> None:
    old = master_key()
    await vault.secrets(old).put(vault.admin, *vault.place, "TOKEN", CANARY, None)

    for given in (vault.secrets(), vault.secrets(master_key())):
        with pytest.raises(errors.SettingsError, match=old.id) as refused:
            await given.start()
        assert "FLOW_LOST_MASTER_KEY" in refused.value.hint


async def test_what_a_lost_key_encrypted_is_deleted_when_that_is_said(vault: Vault) -> None:
    lost, new = master_key(), master_key()
    await vault.secrets(lost).put(vault.admin, *vault.place, "TOKEN", CANARY, None)

    secrets = vault.secrets(new, lost=lost.id)
    await secrets.start()

    assert await secrets.of_workspace(vault.admin, *vault.place) == []
    assert (await secrets.put(vault.admin, *vault.place, "TOKEN", CANARY, None)).version == 1
    assert await secrets.reveal(*vault.place, None, "TOKEN") == CANARY


async def test_two_servers_that_make_the_key_at_once_agree(vault: Vault) -> None:
    key = master_key()
    servers = [vault.secrets(key) for _ in range(4)]
    await asyncio.gather(
        *(
            server.put(vault.admin, *vault.place, f"TOKEN_{number}", CANARY, None)
            for number, server in enumerate(servers)
        )
    )

    for server in servers:
        for number in range(4):
            assert await server.reveal(*vault.place, None, f"TOKEN_{number}") == CANARY


async def test_without_a_master_key_nothing_is_kept(vault: Vault) -> None:
    secrets = vault.secrets()
    await secrets.start()

    with pytest.raises(MasterKeyUnavailable) as refused:
        await secrets.put(vault.admin, *vault.place, "TOKEN", CANARY, None)

    assert "FLOW_MASTER_KEY" in refused.value.hint
    assert await vault.rows() == ([], [])


@pytest.mark.parametrize(
    "value",
    [
        "tiny!",
        "  a b c \n",
        12345678,
        ["wrong"],
        "with \0 inside it",
        "lone \ud800 surrogate",
        "x" * (MAX_VALUE_BYTES + 1),
    ],
)
async def test_a_value_that_cannot_be_kept_or_redacted_is_refused_and_not_shown(vault: Vault, value: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="the value of the secret is not valid") as refused:
        await vault.secrets(master_key()).put(vault.admin, *vault.place, "TOKEN", value, None)
    assert str(value) not in refused.value.message


# Handing out.


@asynccontextmanager
async def with_secrets(stage: Stage, *keys: LocalMasterKey) -> AsyncIterator[Secrets]:
    """Gives the engine of the stage a master key, as its start would have."""
    secrets = stage.engine.secrets
    before = secrets._master_keys
    secrets._master_keys = MasterKeys(keys[0] if keys else None, keys[1:])
    yield secrets
    secrets._master_keys = before


async def ask(stage: Stage, assignment: Assignment, **changes: Any) -> dict[str, str] | str:
    """The values, or the code of the error."""
    recipient = Recipient()
    request = SecretsRequest(
        **{
            "runner_id": stage.runner.runner_id,
            "instance": stage.runner.instance,
            "execution_id": assignment.execution_id,
            "lease_epoch": assignment.lease_epoch,
            "public_key": recipient.public_key,
            **changes,
        }
    )
    body = await stage.runner.bus.request(subjects.RUNNER_SECRETS, request.model_dump_json().encode(), timeout=10)
    assert CANARY.encode() not in body
    reply = SecretsReply.model_validate_json(body)
    if reply.error is not None:
        return reply.error.code
    return decode_secrets(recipient.open(reply.sealed, secrets_context(request.execution_id, request.lease_epoch)))


async def test_an_attempt_gets_what_its_version_names_and_nothing_else(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with with_secrets(stage, master_key()) as secrets:
        place = stage.org_id, stage.workspace_id
        await secrets.put(stage.admin, *place, "TOKEN", CANARY, None)
        await secrets.put(stage.admin, *place, "UNNAMED", "not for this one", None)
        await stage.publish("needy", code="def main(): return 1", secrets=["TOKEN"])
        await stage.submit("needy")
        [assignment] = await stage.runner.claim()

        assert assignment.secrets == ["TOKEN"]
        assert CANARY not in assignment.model_dump_json()
        assert await ask(stage, assignment) == {"TOKEN": CANARY}
        assert CANARY not in caplog.text


async def test_nobody_but_the_holder_of_the_lease_gets_them(stage: Stage) -> None:
    async with with_secrets(stage, master_key()) as secrets:
        await secrets.put(stage.admin, stage.org_id, stage.workspace_id, "TOKEN", CANARY, None)
        await stage.publish("needy", code="def main(): return 1", secrets=["TOKEN"])
        await stage.submit("needy")
        [assignment] = await stage.runner.claim()

        assert await ask(stage, assignment, runner_id="another") == "lease_lost"
        assert await ask(stage, assignment, instance="another") == "lease_lost"
        assert await ask(stage, assignment, lease_epoch=assignment.lease_epoch + 1) == "lease_lost"
        assert await ask(stage, assignment, execution_id="unknown") == "lease_lost"
        await stage.runner.report(assignment, output=1)
        await stage.wait(assignment.execution_id)
        assert await ask(stage, assignment) == "lease_lost", "it has ended"


async def test_what_is_missing_is_named_and_what_cannot_be_read_is_told(stage: Stage) -> None:
    async with with_secrets(stage, master_key()) as secrets:
        await stage.publish("needy", code="def main(): return 1", secrets=["TOKEN", "SECOND"])
        await stage.submit("needy")
        [assignment] = await stage.runner.claim()
        place = stage.org_id, stage.workspace_id
        await secrets.put(stage.admin, *place, "TOKEN", CANARY, None)

        assert await ask(stage, assignment) == "secret_missing"
        await secrets.put(stage.admin, *place, "SECOND", "another value", "dev")
        assert await ask(stage, assignment) == {"TOKEN": CANARY, "SECOND": "another value"}
        async with with_secrets(stage):
            secrets._data_keys.clear()
            assert await ask(stage, assignment) == "master_key_unavailable"
        for name in ("TOKEN", "SECOND"):
            await secrets.put(stage.admin, *place, name, "é" * (MAX_VALUE_BYTES // 2), "dev")
        found = await ask(stage, assignment)
        assert isinstance(found, dict)
        assert found["TOKEN"] == "é" * (MAX_VALUE_BYTES // 2)


async def test_an_answer_is_for_the_one_that_asked(stage: Stage) -> None:
    async with with_secrets(stage, master_key()) as secrets:
        await secrets.put(stage.admin, stage.org_id, stage.workspace_id, "TOKEN", CANARY, None)
        await stage.publish("needy", code="def main(): return 1", secrets=["TOKEN"])
        await stage.submit("needy")
        [assignment] = await stage.runner.claim()

        with pytest.raises(errors.BusUnavailable, match="cannot be opened"):
            await ask(stage, assignment, public_key=Recipient().public_key)
