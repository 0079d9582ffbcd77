"""An attempt: a name, the groups that it belongs to, and how to try it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from flow_platform.hostile.answer import Answer, Verdict

Place = TypeVar("Place")
"""Where it is tried: a `Box` or a `World`."""


@runtime_checkable
class Judge(Protocol):
    """A place that knows what an answer means there."""

    def judge(self, found: list[Answer]) -> list[Answer]: ...


@dataclass(frozen=True)
class Attempt(Generic[Place]):
    """Attributes:
    groups: What its answers are about; one without an answer counts as a leak: not tried is not refused.
    run: Tries it.
    """

    name: str
    groups: tuple[int, ...]
    run: Callable[[Place], Awaitable[list[Answer]]]

    async def answers(self, place: Place) -> list[Answer]:
        """All of its answers; never raises, because an attempt that could not be made has shown nothing."""
        try:
            found = await self.run(place)
        except Exception as error:  # noqa: BLE001 - told as the answer.
            how = f"could not be tried: {type(error).__name__}: {error}"[:400]
            return [Answer(group, self.name, Verdict.LEAKED, how) for group in self.groups]
        if isinstance(place, Judge):
            found = place.judge(found)
        answered = {one.group for one in found}
        silent = [group for group in self.groups if group not in answered]
        return found + [Answer(group, self.name, Verdict.LEAKED, "it gave no answer") for group in silent]
