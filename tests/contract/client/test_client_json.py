"""What goes in as JSON comes out as the same JSON, through real requests."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flow_sdk import PlatformClient, errors
from flow_sdk.encoding import encode_body, encode_message
from tests.contract.client.recording_server import Recorded, RecordingServer, Reply

_text = st.text(st.characters(exclude_categories=["Cs"]))
_plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _text
_foreign = st.dates() | st.datetimes() | st.times() | st.uuids() | st.decimals(allow_nan=False)
_json = st.recursive(_plain, lambda inner: st.lists(inner) | st.dictionaries(_text, inner), max_leaves=20)
_mixed = st.recursive(_plain | _foreign, lambda inner: st.lists(inner) | st.dictionaries(_text, inner), max_leaves=20)


def as_json(value: Any) -> Any:
    """What a reader sees: foreign values as their `str`."""
    match value:
        case dict():
            return {key: as_json(item) for key, item in value.items()}
        case list():
            return [as_json(item) for item in value]
        case date() | datetime() | time() | UUID() | Decimal() | PurePosixPath():
            return str(value)
        case _:
            return value


@given(_mixed)
def test_both_encodings_say_the_same(value: Any) -> None:
    assert json.loads(encode_body(value)) == as_json(value)
    assert json.loads(encode_message(value)) == as_json(value)
    assert encode_message(value) == json.dumps(value, default=str).encode()


@given(st.sampled_from([math.nan, math.inf, -math.inf]), st.lists(_plain, max_size=3))
def test_numbers_that_json_has_not_are_refused_at_any_depth(number: float, beside: list[Any]) -> None:
    for encode in (encode_body, encode_message):
        with pytest.raises(errors.PlatformValidationError):
            encode({"a": [*beside, {"b": number}]})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=_json)
def test_input_and_output_through_a_server(value: Any) -> None:
    async def there_and_back() -> Any:
        server = RecordingServer()

        async def handler(request: Recorded) -> Reply:
            return Reply(200, {"output": json.loads(request.body)["input_data"]})

        server.handler = handler
        await server.start()
        async with PlatformClient(base_url=server.url, auth_token="t", org_id="o", workspace_id="w") as client:
            answer = await client.execute_transform("t", value, {})
        await server.stop()
        return answer["output"]

    assert asyncio.run(there_and_back()) == value


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(identifier=st.text(min_size=1, max_size=30).filter(lambda text: text not in {".", ".."}))
async def test_any_id_is_one_segment_of_the_path(
    identifier: str, server: RecordingServer, make_client: Callable[..., PlatformClient]
) -> None:
    server.answer(Reply(200, {}))
    async with make_client() as client:
        await client.get_execution_status(identifier)
    assert server.requests[-1].path.startswith("/api/v1/orgs/o1/workspaces/w1/executions/")
    assert server.requests[-1].path.count("/") == 8
