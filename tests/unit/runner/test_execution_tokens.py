"""Tokens at the NATS gateway: those of this attempt, also renewed ones and of a newer key, and no others."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import jwt
import pytest

from flow_platform.domain.clock import ManualClock
from flow_platform.domain.credential import digest_of_keys
from flow_platform.domain.principal import Role
from flow_platform.engine.tokens import Tokens, new_signing_key
from flow_platform.runner.tokens import ExecutionTokens
from tests.support.store_records import NOW, execution

HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


def test_those_of_the_attempt_and_no_others(clock: ManualClock) -> None:
    tokens, known = Tokens([new_signing_key(NOW)]), ExecutionTokens(clock)
    one = dataclasses.replace(execution(), lease_epoch=3, attempt=2, deadline_at=NOW + HOUR)
    token = tokens.for_execution(one, NOW)

    def is_ours(presented: str, epoch: int = 3) -> bool:
        return known.is_of(presented, one.id, epoch)

    assert not is_ours(token), "no keys are known yet"
    known.learn(tokens.jwks())
    assert is_ours(token)
    assert not is_ours(token, 4), "an earlier attempt's"
    assert not known.is_of(token, "another", 3)
    assert not is_ours(tokens.for_user("ada", one.org_id, None, Role.ADMIN, HOUR, NOW))
    assert not is_ours(Tokens([new_signing_key(NOW)]).for_execution(one, NOW)), "of another platform"
    assert not is_ours(jwt.encode(jwt.decode(token, options={"verify_signature": False}), None, algorithm="none"))
    assert not is_ours("x" * 100_000)
    clock.advance(timedelta(minutes=10))
    renewed = tokens.renewed(token, clock.now())
    assert renewed
    clock.advance(timedelta(minutes=10))
    assert not is_ours(token), "expired"
    assert is_ours(renewed)


def test_a_newer_key_is_learned_and_a_retired_one_forgotten(clock: ManualClock) -> None:
    old, new = new_signing_key(NOW), new_signing_key(NOW + timedelta(seconds=1))
    before, after = Tokens([old]), Tokens([dataclasses.replace(old, retired_at=NOW + HOUR), new])
    known = ExecutionTokens(clock)
    known.learn(before.jwks(clock.now()))
    assert known.digest == digest_of_keys(before.jwks(clock.now())) != digest_of_keys(after.jwks(clock.now()))
    one = dataclasses.replace(execution(), deadline_at=NOW + timedelta(days=1))
    token = after.for_execution(one, NOW)
    assert not known.is_of(token, one.id, one.lease_epoch)
    known.learn(after.jwks(clock.now()))
    assert known.is_of(token, one.id, one.lease_epoch)
    assert known.is_of(before.for_execution(one, NOW), one.id, one.lease_epoch)
    known.learn(after.jwks(NOW + HOUR))
    assert not known.is_of(before.for_execution(one, NOW), one.id, one.lease_epoch)
