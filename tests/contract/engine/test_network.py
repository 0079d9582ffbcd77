"""What a component declares reaches the runner of its attempt, in one form."""

from __future__ import annotations

import pydantic
import pytest

from tests.support.stage import Stage


async def test_declared_destinations_travel_with_the_assignment(stage: Stage) -> None:
    await stage.publish("reaching", network=["API.Example.com.", "*.example.com:8443", "b\u00fccher.example"])
    await stage.submit("reaching")
    [assignment] = await stage.runner.claim()
    assert assignment.network == ["api.example.com", "*.example.com:8443", "xn--bcher-kva.example"]


async def test_none_is_none(stage: Stage) -> None:
    await stage.submit()
    [assignment] = await stage.runner.claim()
    assert assignment.network == []


@pytest.mark.parametrize("text", ["*", "*.com", "http://example.com", "127.1", "0x7f000001", "[fe80::1%eth0]", "x:0"])
async def test_what_is_no_destination_is_refused_at_publish(stage: Stage, text: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="expected"):
        await stage.publish("reaching", network=[text])
