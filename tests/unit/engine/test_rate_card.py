"""The operator's rate card."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow_platform.domain.errors import SettingsError
from flow_platform.domain.ledger import RateCard
from flow_platform.engine.rate_card import read_rate_card


def test_a_card_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "rates.toml"
    path.write_text('version = "2026-12"\ncpu_second = 5\n[discounts]\nmcp_session = 10\n')

    assert read_rate_card(path) == RateCard("2026-12", 5, 1_000, {"mcp_session": 10})
    assert read_rate_card(None) == RateCard()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("cpu_second = 5", "version"),
        ('version = "x"\ncpu_second = -1', "cpu_second"),
        ('version = "x"\ncpu_second = 1.5', "cpu_second"),
        ('version = "x"\n[discounts]\ntest = 101', "discounts.test"),
        ('version = "x"\n[discounts]\nparty = 1', "discounts.party"),
        ('version = "standard-1"', "standard-1"),
        ("version =", "TOML"),
    ],
)
def test_a_card_that_is_none_is_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "rates.toml"
    path.write_text(text)

    with pytest.raises(SettingsError, match=what):
        read_rate_card(path)
