"""What became of one attempt."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

SUCCESS: Final = "OK"
"""How the answer of an attempt begins that reached what it tried to reach."""


class Verdict(enum.StrEnum):
    REFUSED = "refused"
    WEAK = "weak"  # Reached, as `flow doctor` says of this machine beforehand: without cgroups, without own user ids.
    LEAKED = "leaked"


@dataclass(frozen=True)
class Answer:
    """One attempt, tried.

    Attributes:
        group: Of `groups.GROUPS`.
        attempt: What was tried.
        how: By what it was refused, or what it reached.
    """

    group: int
    attempt: str
    verdict: Verdict
    how: str


def answer(group: int, attempt: str, how: str) -> Answer:
    return Answer(group, attempt, Verdict.LEAKED if how.startswith(SUCCESS) else Verdict.REFUSED, how)


def expect(group: int, attempt: str, how: str, *, refused: bool, weak: bool = False) -> Answer:
    """One whose end was looked at from outside.

    Args:
        refused: Whether it went as it shall.
        weak: Whether this machine is known not to hold it.
    """
    if refused:
        return Answer(group, attempt, Verdict.REFUSED, how)
    return Answer(group, attempt, Verdict.WEAK if weak else Verdict.LEAKED, how)


def answers(said: Mapping[str, Mapping[str, str]]) -> list[Answer]:
    """From what a component of `inside/` returned: group -> attempt -> answer."""
    return [answer(int(group), attempt, how) for group, tried in said.items() for attempt, how in tried.items()]


def leaks(tried: Iterable[Answer]) -> list[Answer]:
    return [one for one in tried if one.verdict is Verdict.LEAKED]
