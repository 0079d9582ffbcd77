"""What users send is kept as it was, by the fast encoder and decoder as by the strict ones."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from flow_platform.store.documents import LARGE, payload_or_null, value_or

ODD: dict[str, Any] = {
    "a lone surrogate": "lone \ud800",
    "NUL": "nul\0",
    "a deep nesting": json.loads("[" * 400 + "]" * 400),
    "large numbers": [2**63, -(2**64) - 1, 10**400, 1e300, 5e-324, -0.0, 0.1, 1.0, 1],
    "line separators": "\u2028\u2029\x7f\x1b",
    "beyond the plane": "😀 ä €",
    "empty ones": [[], {}, "", None, False, 0],
    "keys": {"": 1, "a\0b": 2, "ä": 3, "1": 4},
}


def kept(value: Any) -> Any:
    text = payload_or_null(value)
    return value_or(text)


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("is_large", [False, True])
def test_a_value_comes_back_as_it_was(what: str, is_large: bool) -> None:
    value = {"value": ODD[what], "filled": "x" * LARGE if is_large else ""}
    back = kept(value)
    assert back == value
    assert repr(back) == repr(value), "types and signs, too"


def test_random_values_come_back_and_read_alike_by_both_decoders() -> None:
    chance = random.Random(7)  # noqa: S311

    def made(depth: int) -> Any:
        kinds = 6 if depth else 4
        match chance.randrange(kinds):
            case 0:
                return chance.choice([None, True, False])
            case 1:
                return chance.choice(
                    [chance.randrange(-(2**70), 2**70), chance.uniform(-1e9, 1e9), chance.random() ** 90]
                )
            case 2:
                return "".join(chr(chance.choice([0, 34, 92, 65, 228, 0x20AC, 0x1F600])) for _ in range(3))
            case 3:
                return chance.randrange(100)
            case 4:
                return [made(depth - 1) for _ in range(chance.randrange(5))]
            case _:
                return {str(made(0)): made(depth - 1) for _ in range(chance.randrange(5))}

    for _ in range(300):
        value = {"value": made(4), "x": "y"}
        text = payload_or_null(value)
        assert text is not None
        assert json.loads(text) == value
        large = payload_or_null({**value, "filled": "z" * LARGE})
        assert value_or(large) == {**value, "filled": "z" * LARGE}


def test_what_is_empty_is_null_and_what_is_no_number_stays_none() -> None:
    assert (payload_or_null({}, {}), payload_or_null(None), payload_or_null([], [])) == (None, None, None)
    assert (payload_or_null({}), payload_or_null(0)) == ("{}", "0")
    assert math.isnan(kept([math.nan])[0])
