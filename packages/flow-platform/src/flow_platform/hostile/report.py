"""The table that people see: one row per group, also of those that are held elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from flow_platform.hostile.answer import Answer, Verdict
from flow_platform.hostile.groups import ELSEWHERE, GROUPS, section_of
from flow_platform.hostile.rungs import NOT_PROMISED
from flow_sdk.wire.isolation import DEFAULT, Isolation

_MOST_COMMON: Final = 3
_HOW_LENGTH: Final = 24


@dataclass(frozen=True)
class Row:
    """One group.

    Attributes:
        how: By what most attempts were refused; of a group without attempts here, where it is held.
        is_promised: By the rung that it was tried on.
    """

    group: int
    section: str
    title: str
    how: str
    tried: list[Answer] = field(default_factory=list[Answer])
    is_promised: bool = True

    def count(self, verdict: Verdict) -> int:
        return sum(1 for answer in self.tried if answer.verdict is verdict)

    @property
    def verdict(self) -> str:
        """`leaked`, `weak`, `refused`, `elsewhere`, or `not promised`."""
        if not self.is_promised:
            return "not promised"
        found = {answer.verdict for answer in self.tried}
        return next(
            (word.value for word in (Verdict.LEAKED, Verdict.WEAK, Verdict.REFUSED) if word in found), "elsewhere"
        )


def rows(tried: Iterable[Answer], isolation: Isolation = DEFAULT) -> list[Row]:
    """All 48, in order, as tried on a rung."""
    excused = NOT_PROMISED[isolation]
    found: dict[int, list[Answer]] = {group: [] for group in GROUPS}
    for answer in tried:
        found[answer.group].append(answer)
    return [
        Row(
            group, section_of(group), GROUPS[group], excused.get(group) or _how(group, mine), mine, group not in excused
        )
        for group, mine in found.items()
    ]


def _how(group: int, tried: list[Answer]) -> str:
    if not tried:
        return ELSEWHERE.get(group, "not tried")
    common = Counter(answer.how[:_HOW_LENGTH] for answer in tried).most_common(_MOST_COMMON)
    return ", ".join(f"{how} ({count})" if count > 1 else how for how, count in common)
