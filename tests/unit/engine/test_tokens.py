"""Tokens: the instants of their life, what is remembered, and keys that come and go."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from flow_platform.domain import errors
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Principal, Role
from flow_platform.engine import tokens as module
from flow_platform.engine.tokens import CLOCK_SKEW, EXECUTION_TOKEN_LIFE, REFRESH_WINDOW, Tokens, new_signing_key
from flow_sdk.wire.status import Kind, Status

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def tokens() -> Tokens:
    return Tokens([new_signing_key(NOW)])


def _execution(**changes: Any) -> Execution:
    execution = Execution(
        id=str(uuid.uuid4()),
        org_id="org",
        workspace_id="ws",
        kind=Kind.WORKFLOW,
        component_id="c",
        component_slug="slug",
        component_name="Slug",
        version_id="v",
        version=1,
        deployment_id="d",
        ring_id="ring",
        root_id="r",
        created_at=NOW,
        deadline_at=NOW + 10 * HOUR,
        timeout_seconds=36_000,
        status=Status.RUNNING,
        attempt=2,
        lease_epoch=7,
    )
    return dataclasses.replace(execution, **changes)


def _code(tokens: Tokens, token: str, now: datetime) -> str:
    try:
        tokens.verify(token, now)
    except errors.Unauthenticated as error:
        return error.error_code
    return "ok"


def test_an_executions_token_names_its_attempt(tokens: Tokens) -> None:
    execution = _execution()
    principal = tokens.verify(tokens.for_execution(execution, NOW), NOW)
    assert principal == Principal(
        f"execution:{execution.id}", "org", Role.EXECUTION, "ws", execution.id, attempt=2, lease_epoch=7, ring_id="ring"
    )


def test_a_users_token(tokens: Tokens) -> None:
    wide = tokens.verify(tokens.for_user("ada", "org", None, Role.ADMIN, HOUR, NOW), NOW)
    assert wide == Principal("ada", "org", Role.ADMIN)
    narrow = tokens.verify(tokens.for_user("ada", "org", "ws", Role.VIEWER, HOUR, NOW), NOW)
    assert narrow.workspace_id == "ws"
    for role, ttl in ((Role.EXECUTION, HOUR), (Role.ADMIN, timedelta(0)), (Role.ADMIN, -HOUR)):
        with pytest.raises(errors.InvalidInput):
            tokens.for_user("ada", "org", None, role, ttl, NOW)


def test_the_instants_of_a_life(tokens: Tokens) -> None:
    token = tokens.for_user("ada", "org", None, Role.ADMIN, HOUR, NOW)
    for _ in range(2):  # The second time it is remembered.
        assert _code(tokens, token, NOW - CLOCK_SKEW - SECOND) == "token_invalid"
        assert _code(tokens, token, NOW - CLOCK_SKEW) == "ok"
        assert _code(tokens, token, NOW + HOUR - SECOND) == "ok"
        assert _code(tokens, token, NOW + HOUR) == "token_expired"
        assert _code(tokens, token, NOW + 10 * HOUR) == "token_expired"


def test_an_executions_token_never_outlives_its_deadline(tokens: Tokens) -> None:
    soon = tokens.for_execution(_execution(deadline_at=NOW + MINUTE), NOW)
    assert _code(tokens, soon, NOW + MINUTE) == "ok"
    assert _code(tokens, soon, NOW + MINUTE + module.DEADLINE_MARGIN) == "token_expired"
    assert tokens.renewed(soon, NOW + MINUTE) is None  # There is no life left to add.
    late = tokens.for_execution(_execution(), NOW)
    assert _code(tokens, late, NOW + EXECUTION_TOKEN_LIFE) == "token_expired"


def test_renewal_comes_at_half_of_the_life(tokens: Tokens) -> None:
    execution = _execution()
    token = tokens.for_execution(execution, NOW)
    half = EXECUTION_TOKEN_LIFE / 2
    assert tokens.renewed(token, NOW + half - SECOND) is None
    newer = tokens.renewed(token, NOW + half)
    assert newer is not None
    assert tokens.verify(newer, NOW + half) == tokens.verify(token, NOW + half)
    assert _code(tokens, newer, NOW + EXECUTION_TOKEN_LIFE) == "ok"
    with pytest.raises(errors.Unauthenticated, match="expired"):
        tokens.renewed(token, NOW + EXECUTION_TOKEN_LIFE)
    user = tokens.for_user("ada", "org", None, Role.ADMIN, HOUR, NOW)
    again = tokens.renewed(user, NOW + HOUR / 2)
    assert again is not None
    assert _code(tokens, again, NOW + HOUR / 2 + HOUR - SECOND) == "ok"


def test_renewals_end_with_the_execution(tokens: Tokens) -> None:
    token: str | None = tokens.for_execution(_execution(deadline_at=NOW + HOUR), NOW)
    now, count = NOW, 0
    while token is not None:
        last = token
        now = tokens.inspect(token, now).half_life
        token = tokens.renewed(token, now)
        count += 1
    assert 4 < count < 20
    assert _code(tokens, last, NOW + HOUR + module.DEADLINE_MARGIN) == "token_expired"


async def test_a_refresh_asks_whether_the_attempt_runs(tokens: Tokens) -> None:
    asked: list[Principal] = []

    async def live(principal: Principal) -> None:
        asked.append(principal)

    async def ended(principal: Principal) -> None:
        raise errors.Unauthenticated("ended", code="token_revoked")

    token = tokens.for_execution(_execution(), NOW)
    expires_at = NOW + EXECUTION_TOKEN_LIFE
    for now in (NOW, expires_at, expires_at + REFRESH_WINDOW - SECOND):
        newer, credential = await tokens.refreshed(token, now, live)
        assert tokens.verify(newer, now) == asked[-1] == credential.principal
    for now, check, code in (
        (expires_at + REFRESH_WINDOW, live, "token_expired"),
        (NOW - MINUTE, live, "token_invalid"),
        (NOW, ended, "token_revoked"),
    ):
        with pytest.raises(errors.Unauthenticated) as refused:
            await tokens.refreshed(token, now, check)
        assert refused.value.error_code == code


def test_the_newest_key_signs_and_all_that_are_in_use_verify() -> None:
    old, new = new_signing_key(NOW), new_signing_key(NOW + HOUR)
    before = Tokens([old]).for_user("ada", "org", None, Role.ADMIN, HOUR, NOW)
    both = Tokens([old, new])
    assert _code(both, before, NOW) == "ok"
    after = both.for_user("ada", "org", None, Role.ADMIN, HOUR, NOW)
    assert jwt.get_unverified_header(after)["kid"] == new.kid
    assert {key["kid"] for key in both.jwks()["keys"]} == {old.kid, new.kid}
    retired = Tokens([dataclasses.replace(old, retired_at=NOW), new])
    assert _code(retired, before, NOW) == "token_invalid"
    assert _code(retired, after, NOW) == "ok"
    with pytest.raises(errors.SettingsError):
        Tokens([dataclasses.replace(old, retired_at=NOW)])


def test_issuers_do_not_mix() -> None:
    key = new_signing_key(NOW)
    token = Tokens([key], issuer="elsewhere").for_user("ada", "org", None, Role.ADMIN, HOUR, NOW)
    assert _code(Tokens([key]), token, NOW) == "token_invalid"


def test_what_is_remembered_is_bounded_and_is_never_what_was_refused(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    issued = [tokens.for_user(f"user-{n}", "org", None, Role.ADMIN, HOUR, NOW) for n in range(5)]
    for token in issued:
        assert _code(tokens, token, NOW) == "ok"
    assert len(tokens._verified) == 3
    for token in ("nonsense", issued[0] + "x", issued[0][:-2]):
        assert _code(tokens, token, NOW) == "token_invalid"
    assert len(tokens._verified) == 3
    assert _code(tokens, issued[0], NOW) == "ok"
