"""Records of calls of models, kept answers and settings, in both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flow_platform.domain import errors
from flow_platform.domain.model_call import ModelCall, TokenUsage
from flow_platform.store.base import Store
from flow_platform.store.model_table import ModelAnswer, ModelCallFilter
from tests.support.store_records import execution, insert

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def call(number: int, execution_id: str | None = None, workspace_id: str = "w", **more: object) -> ModelCall:
    fields = {"kind": "chat", "provider": "up", "model": "m", "created_at": NOW + timedelta(seconds=number // 2)}
    return ModelCall(f"call-{number}", "o", workspace_id, execution_id=execution_id, **{**fields, **more})  # type: ignore[arg-type]


async def test_calls_are_listed_newest_first_page_by_page_per_workspace_and_execution(store: Store) -> None:
    full = call(
        9,
        "e1",
        usage=TokenUsage(5, 6, 2, is_estimated=True),
        billing_transaction_id="t",
        cost_micro_credits=2**40,
        price_version="v1",
        latency_ms=1.5,
        first_token_ms=0.5,
        attempts=3,
        is_streamed=True,
        error_code="cancelled",
    )
    kept = [call(number, "e1" if number % 2 else "e2") for number in range(9)]
    for one in [*kept, full, call(10, workspace_id="other")]:
        await store.write(lambda tx, one=one: tx.models.insert_call(one))

    for where, expected in (
        (ModelCallFilter(), [full, *reversed(kept)]),
        (ModelCallFilter(execution_id="e1"), [full, *reversed(kept[1::2])]),
        (ModelCallFilter(execution_id="none"), []),
    ):
        found: list[ModelCall] = []
        cursor = None
        while True:
            page = await store.read(lambda tx, c=cursor, w=where: tx.models.list_calls("o", "w", w, c, 4))
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == expected
    assert (await store.read(lambda tx: tx.models.list_calls("x", "w", ModelCallFilter(), None, 4))).items == []
    with pytest.raises(errors.InvalidInput, match="cursor"):
        await store.read(lambda tx: tx.models.list_calls("o", "w", ModelCallFilter(), "nonsense", 4))


async def test_the_first_answer_of_a_key_stays_until_it_is_old(store: Store) -> None:
    one = execution()
    await insert(store, one)
    first = ModelAnswer(one.id, "k", "print", "call", '{"a": "\\u0000é"}')
    late = ModelAnswer(one.id, "l", "print", "call", "{}")
    await store.write(lambda tx: tx.models.save_answer(first, NOW))
    await store.write(lambda tx: tx.models.save_answer(ModelAnswer(one.id, "k", "other", "c", "{}"), NOW))
    await store.write(lambda tx: tx.models.save_answer(late, NOW + timedelta(hours=1)))

    assert await store.read(lambda tx: tx.models.find_answer(one.id, "k")) == first
    assert await store.read(lambda tx: tx.models.find_answer(one.id, "none")) is None
    assert await store.write(lambda tx: tx.models.delete_answers_before(NOW, 9)) == 0
    assert await store.write(lambda tx: tx.models.delete_answers_before(NOW + timedelta(minutes=1), 9)) == 1
    assert await store.read(lambda tx: tx.models.find_answer(one.id, "k")) is None
    assert await store.read(lambda tx: tx.models.find_answer(one.id, "l")) == late


async def test_settings_are_replaced_per_workspace(store: Store) -> None:
    for workspace_id, document in (("w", "{}"), ("w", '{"a": 1}'), ("v", "[]")):
        await store.write(lambda tx, w=workspace_id, d=document: tx.models.save_settings("o", w, d, "ada", NOW))

    found = [
        await store.read(lambda tx, o=org_id, w=workspace_id: tx.models.find_settings(o, w))
        for org_id, workspace_id in (("o", "w"), ("o", "v"), ("o", "none"), ("x", "w"))
    ]
    assert found == ['{"a": 1}', "[]", None, None]
