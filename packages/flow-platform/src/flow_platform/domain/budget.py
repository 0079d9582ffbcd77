"""Budgets: what a workspace may spend in a day and in a month, of UTC.

A budget looks at what is recorded. It refuses what would begin; what was accepted before runs to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from flow_platform.domain import errors


@dataclass(frozen=True)
class Budget:
    """Limits in micro-credits; None: no limit.

    Attributes:
        warn_percent: Of a limit, from where on answers warn.
        refuses: What is over it is refused; else only warned of.
    """

    daily: int | None = None
    monthly: int | None = None
    warn_percent: int = 80
    refuses: bool = True


@dataclass(frozen=True)
class Period:
    """One day or month, and what was spent in it.

    Attributes:
        name: `day` or `month`.
        key: As the store has it: `2026-11-22`, `2026-11`.
    """

    name: Literal["day", "month"]
    key: str
    limit: int | None
    spent: int
    resets_at: datetime

    @property
    def is_exhausted(self) -> bool:
        return self.limit is not None and self.spent >= self.limit

    def warns(self, percent: int) -> bool:
        return self.limit is not None and self.spent * 100 >= self.limit * percent

    def __str__(self) -> str:
        return f"{self.spent} of {self.limit} micro-credits of {self.name} {self.key}"


@dataclass(frozen=True)
class Standing:
    """How a workspace stands to its budget."""

    budget: Budget
    periods: Sequence[Period]

    @property
    def warnings(self) -> list[Period]:
        return [period for period in self.periods if period.warns(self.budget.warn_percent)]

    @property
    def is_exhausted(self) -> bool:
        return self.budget.refuses and any(period.is_exhausted for period in self.periods)

    def require(self, workspace_id: str) -> None:
        """Raises:
        BudgetExhausted: A period is used up, and the budget refuses.
        """
        exhausted = [period for period in self.periods if period.is_exhausted] if self.budget.refuses else []
        if not exhausted:
            return
        last = max(exhausted, key=lambda period: period.resets_at)
        raise errors.BudgetExhausted(
            f"workspace {workspace_id!r} has spent {' and '.join(map(str, exhausted))}: nothing new begins before "
            f"{last.resets_at:%Y-%m-%dT%H:%M:%SZ}",
            details=[
                {
                    "field": period.name,
                    "message": str(period),
                    "spent_micro_credits": period.spent,
                    "limit_micro_credits": period.limit,
                    "resets_at": period.resets_at.isoformat(),
                }
                for period in exhausted
            ],
            hint="wait for the next period, or have an admin raise the budget",
        )


def day_key(at: datetime) -> str:
    at = at.astimezone(UTC)  # For each submit and entry: `strftime` takes three times as long.
    return f"{at.year:04}-{at.month:02}-{at.day:02}"


def month_key(at: datetime) -> str:
    return day_key(at)[:7]


def day_start(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def month_start(at: datetime) -> datetime:
    return day_start(at).replace(day=1)


def standing(budget: Budget, spent_today: int, spent_this_month: int, now: datetime) -> Standing:
    next_month = (month_start(now) + timedelta(days=32)).replace(day=1)
    return Standing(
        budget,
        (
            Period("day", day_key(now), budget.daily, spent_today, day_start(now) + timedelta(days=1)),
            Period("month", month_key(now), budget.monthly, spent_this_month, next_month),
        ),
    )
