"""What decides in the model gateway: prices, pauses, limits, names, keys, the operator's file."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.model_call import Price, PriceTable, TokenUsage
from flow_platform.gateway.adapter import shown
from flow_platform.gateway.configuration import Catalogues, PlatformModels, read_platform_models
from flow_platform.gateway.keys import SecretKeys
from flow_platform.gateway.limits import Limits
from flow_platform.gateway.outbound import retry_after
from flow_platform.gateway.providers import Limit, LimitRule
from flow_platform.gateway.retries import RetryRule
from flow_platform.gateway.sse import MAX_EVENT_BYTES, SseParser

PRICES = PriceTable(
    "v2",
    {
        "up/*": Price(Decimal(1), Decimal(1)),
        "up/big*": Price(Decimal(3), Decimal(15), Decimal("0.3")),
        "up/big-cheap": Price(Decimal("0.0001"), Decimal(0)),
    },
)


@pytest.mark.parametrize(
    ("model", "usage", "expected"),
    [
        ("up/small", TokenUsage(10, 5), (15, "v2")),
        ("up/big-1", TokenUsage(100, 10, 40), (60 * 3 + 12 + 150, "v2")),
        ("up/big-1", TokenUsage(1, 0, 1), (1, "v2")),
        ("up/big-1", TokenUsage(10, 0, 99), (3, "v2")),
        ("up/big-cheap", TokenUsage(1, 1), (1, "v2")),
        ("up/big-cheap", TokenUsage(), (0, "v2")),
        ("other/x", TokenUsage(10, 10), (0, None)),
    ],
)
def test_a_cost_is_by_the_closest_price_and_rounded_up(
    model: str, usage: TokenUsage, expected: tuple[int, str | None]
) -> None:
    assert PRICES.cost(model, usage) == expected


def test_pauses_grow_within_bounds_and_obey_the_provider() -> None:
    rule = RetryRule(max_tries=5, initial_seconds=1, maximum_seconds=3)

    def pause(trial: int, asked: float | None = None, *, has_other: bool = False, random: float = 1.0) -> float | None:
        return rule.pause(trial, asked, has_other=has_other, random=lambda: random)

    assert [pause(trial) for trial in range(1, 6)] == [1, 2, 3, 3, None]
    assert [pause(trial, random=0) for trial in range(1, 4)] == [0.5, 1, 1.5]
    assert (pause(1, 7), pause(1, 31), pause(1, 7, has_other=True), pause(1, 2, has_other=True)) == (7, None, None, 2)
    assert pause(5, 0) is None


def test_how_long_a_provider_asks_to_wait() -> None:
    now = ManualClock().now()
    for given, expected in (
        ({"retry-after": "3"}, 3),
        ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30),
        ({"retry-after": "Thu, 01 Jan 2025 00:00:30 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-1"}, None),
        ({}, None),
    ):
        assert retry_after(given, now) == expected, given


def _rule(**limit: int) -> list[LimitRule]:
    return [LimitRule("workspace", "up/*", Limit(**limit))]


def test_requests_per_minute() -> None:
    clock = ManualClock()
    limits, rules = Limits(clock), _rule(requests_per_minute=2)
    for _ in range(2):
        limits.leave(limits.enter("o", "w", "up/m", rules), 0)
    with pytest.raises(errors.RateLimited, match="'up/\\*' of 2 requests per minute") as refused:
        limits.enter("o", "w", "up/other", rules)
    assert (refused.value.retry_after, refused.value.error_code) == (30, "model_limit")
    limits.enter("o", "v", "up/m", rules)
    limits.enter("o", "w", "elsewhere/m", rules)
    clock.advance(timedelta(seconds=29.9))
    with pytest.raises(errors.RateLimited):
        limits.enter("o", "w", "up/m", rules)
    clock.advance(timedelta(seconds=0.1))
    limits.enter("o", "w", "up/m", rules)


def test_tokens_per_minute_leave_a_debt_that_time_pays() -> None:
    clock = ManualClock()
    limits, rules = Limits(clock), _rule(tokens_per_minute=60)
    ticket = limits.enter("o", "w", "up/m", rules)
    limits.leave(ticket, 90)
    with pytest.raises(errors.RateLimited, match="60 tokens per minute") as refused:
        limits.enter("o", "w", "up/m", rules)
    assert refused.value.retry_after == 31
    clock.advance(timedelta(seconds=31))
    limits.enter("o", "w", "up/m", rules)


def test_a_refused_call_takes_nothing_of_any_limit() -> None:
    clock = ManualClock()
    limits = Limits(clock)
    rules = [*_rule(requests_per_minute=2), LimitRule("platform", "*", Limit(concurrent=1))]
    ticket = limits.enter("o", "w", "up/m", rules)
    for _ in range(5):
        with pytest.raises(errors.RateLimited, match="1 calls at once"):
            limits.enter("o", "w", "up/m", rules)
    limits.leave(ticket, 0)
    limits.leave(limits.enter("o", "w", "up/m", rules), 0)
    with pytest.raises(errors.RateLimited, match="requests per minute"):
        limits.enter("o", "w", "up/m", rules)


class Vault:
    def __init__(self, secrets: dict[tuple[str, str | None, str], str]) -> None:
        self.secrets = secrets

    async def reveal(self, org_id: str, workspace_id: str, ring_id: str | None, name: str) -> str | None:
        return self.secrets.get((workspace_id, ring_id, name))


async def test_a_key_is_the_workspaces_own_else_the_operators_but_never_for_a_workspaces_address() -> None:
    keys = SecretKeys(Vault({("w", None, "OPENAI_API_KEY"): "own"}), {"OPENAI_API_KEY": "platform", "HOME": "/root"})
    catalogues = Catalogues(PlatformModels())
    platform = catalogues.of(None).providers
    evil = {"providers": {"openai": {"base_url": "https://evil.example/v1"}}}
    redirected = catalogues.of(json.dumps(evil)).providers
    curious_one = {"providers": {"x": {"base_url": "https://e.example/", "key": "HOME"}}}
    curious = catalogues.of(json.dumps(curious_one)).providers

    assert await keys.key("o", "w", None, platform["openai"]) == "own"
    assert await keys.key("o", "v", None, platform["openai"]) == "platform"
    assert await keys.key("o", "v", None, platform["mistral"]) is None
    assert await keys.key("o", "w", None, redirected["openai"]) == "own"
    assert await keys.key("o", "v", None, redirected["openai"]) is None
    assert await keys.key("o", "v", None, curious["x"]) is None


def test_the_operators_file_is_read_with_scripts_beside_it(tmp_path: Path) -> None:
    (tmp_path / "weather.json").write_text('{"turns": [{"text": "sunny"}]}')
    file = tmp_path / "models.toml"
    file.write_text(
        '[providers.ollama]\nmodels = ["llama"]\n[providers.lab]\nbase_url = "http://10.0.0.5/v1/"\n'
        '[aliases]\nfast = ["ollama/llama", "openai/x"]\n[limits]\n"*" = { concurrent = 5 }\n'
        '[scripts]\nweather = "weather.json"\n[prices]\nversion = "v1"\n[prices.models]\n"lab/*" = { prompt = 0.1 }\n'
    )

    models = read_platform_models(file)

    catalogue = Catalogues(models).of(None)
    assert catalogue.providers["ollama"].base_url == "http://127.0.0.1:11434/v1"
    lab = catalogue.providers["lab"]
    assert (lab.base_url, lab.key_name, lab.is_platform) == ("http://10.0.0.5/v1", "LAB_API_KEY", True)
    assert [target.name for target in catalogue.chain(["alias/fast", "test/weather"])] == [
        "ollama/llama",
        "openai/x",
        "test/weather",
    ]
    assert models.price_table().cost("lab/x", TokenUsage(10)) == (1, "v1")
    assert read_platform_models(None) == PlatformModels()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[providers.x]\n", "has no base_url"),
        ("nonsense", "expected the models' configuration"),
        ('[scripts]\na = "absent.json"\n', "absent.json"),
        ("colour = 1\n", "colour"),
        ('[aliases]\na = ["b"]\n', "expected 'provider/model'"),
    ],
)
def test_a_wrong_file_stops_the_start_and_says_why(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "models.toml"
    file.write_text(text)

    with pytest.raises(errors.SettingsError, match=problem):
        read_platform_models(file)


@pytest.mark.parametrize("text", ["key sk-abcdefgh123456 is bad", "AIzaSyA1234567890 here", "it was MY-OWN-KEY"])
def test_what_looks_like_a_key_is_not_shown(text: str) -> None:
    said = shown(text, "MY-OWN-KEY")

    assert "..." in said
    assert not any(part in said for part in ("abcdefgh", "SyA123", "MY-OWN"))


@pytest.mark.parametrize("data", [b"data: " + b"x" * MAX_EVENT_BYTES, b"data: xxxxxxx\n" * (MAX_EVENT_BYTES // 10)])
def test_an_event_without_end_is_refused(data: bytes) -> None:
    parser = SseParser()
    cut = [data[start : start + 65_536] for start in range(0, len(data), 65_536)]

    with pytest.raises(ValueError, match="more than"):
        [parser.feed(piece) for piece in cut]


def test_nobody_is_asked_for_what_a_schema_cannot_say() -> None:
    from flow_platform.gateway.sample import sample

    loop: dict[str, Any] = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert sample(loop, "x") is None
    assert sample({"anyOf": [{"type": "null"}, {"type": "string"}]}, "x") is None
    assert sample({"type": ["number", "null"], "exclusiveMinimum": 2}, "x") == 3
    assert sample({"const": 5}, "x") == 5
    assert sample(True, "x") is None
