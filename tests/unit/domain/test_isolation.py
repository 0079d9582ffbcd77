"""The rungs of the trust ladder are ordered by strength, not by the alphabet."""

from __future__ import annotations

import itertools

import pytest

from flow_sdk.wire.isolation import DEFAULT, Isolation

LADDER = ["process", "namespaces", "docker", "gvisor"]


def test_the_rungs_are_ordered_by_strength() -> None:
    assert [member.value for member in sorted(Isolation)] == LADDER
    backwards = list(reversed(Isolation))
    assert [member.value for member in sorted(backwards)] == LADDER
    assert DEFAULT is Isolation.NAMESPACES


@pytest.mark.parametrize(("one", "other"), list(itertools.product(LADDER, repeat=2)))
def test_each_comparison_says_the_same_of_members_and_of_their_words(one: str, other: str) -> None:
    first, second = Isolation(one), Isolation(other)
    ranks = LADDER.index(one), LADDER.index(other)
    assert (first < second, first <= second) == (ranks[0] < ranks[1], ranks[0] <= ranks[1])
    assert (first > other, first >= other) == (ranks[0] > ranks[1], ranks[0] >= ranks[1])
    assert max(first, second).value == LADDER[max(ranks)]
    assert (first == second) is (one == other)


def test_an_unknown_rung_has_no_place() -> None:
    with pytest.raises(ValueError, match="'vm'"):
        assert Isolation.DOCKER < "vm"
