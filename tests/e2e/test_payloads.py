"""Inputs and outputs up to their limit of 32 MiB, and what is beyond it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow_sdk.errors import PlatformValidationError
from tests.support.clients import RingClient
from tests.support.flow_program import Platform

pytestmark = pytest.mark.slow

LIMIT = 32 << 20
INPUT_AROUND = len('{"value":""}')
OUTPUT_AROUND = len('""')


@pytest.fixture(scope="module", autouse=True)
def published(platform: Platform) -> None:
    done = platform.flow("publish", Path(__file__).with_name("payload_components.py"))
    assert done.returncode == 0, done.stderr


async def test_an_input_and_an_output_of_the_limit(platform: Platform) -> None:
    value = "x" * (LIMIT - INPUT_AROUND)
    async with RingClient(platform) as ring:
        document = await ring.run("echo", {"value": value})
        assert document["status"] == "completed", document["error"]
        assert document["output"] == value
        document = await ring.run("fill", {"size": LIMIT - OUTPUT_AROUND})
        assert document["status"] == "completed", document["error"]
        assert len(document["output"]) == LIMIT - OUTPUT_AROUND


async def test_one_byte_more_of_input_is_refused_with_both_sizes(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        with pytest.raises(PlatformValidationError) as refused:
            await ring.submit("echo", {"value": "x" * (LIMIT - INPUT_AROUND + 1)})
    assert (refused.value.status_code, refused.value.code) == (413, "payload_too_large")
    assert str(LIMIT + 1) in str(refused.value)
    assert str(LIMIT) in str(refused.value)


async def test_a_body_over_its_limit_is_refused_with_both_sizes(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        with pytest.raises(PlatformValidationError) as refused:
            await ring.submit("echo", {"value": "x" * (34 << 20)})
    assert refused.value.status_code == 413
    assert str(33 << 20) in str(refused.value)


async def test_one_byte_more_of_output_fails_with_both_sizes(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        document = await ring.run("fill", {"size": LIMIT - OUTPUT_AROUND + 1})
    assert (document["status"], document["attempt"]) == ("failed", 1)
    assert document["error"]["code"] == "output_too_large"
    assert str(LIMIT + 1) in document["error"]["message"]
    assert str(LIMIT) in document["error"]["message"]


async def test_many_small_values(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        document = await ring.run("count-items", {"items": [{"n": number} for number in range(200_000)]})
    assert (document["status"], document["output"]) == ("completed", 200_000)


async def test_a_limit_of_the_component_counts(platform: Platform, tmp_path: Path) -> None:
    """Its own is published over the API: the decorators have no word for it."""
    async with RingClient(platform) as ring:
        client = ring.client
        body = {
            "slug": "small-output",
            "code": "def main(size: int) -> str:\n    return 'x' * size\n",
            "limits": {"output_bytes": 1000},
        }
        path = f"/api/v1/orgs/{client.org_id}/workspaces/{client.workspace_id}/code-blocks"
        response = await client.client.post(client.base_url + path, json=body)
        assert response.status_code == 201, response.text
        fits = await ring.run("small-output", {"size": 1000 - OUTPUT_AROUND})
        over = await ring.run("small-output", {"size": 1000 - OUTPUT_AROUND + 1})
    assert fits["status"] == "completed", fits["error"]
    assert over["status"] == "failed"
    assert "1001 bytes" in over["error"]["message"]
    assert "1000" in over["error"]["message"]
