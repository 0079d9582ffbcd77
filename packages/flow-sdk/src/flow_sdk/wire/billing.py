"""What things cost, as a client sees it. All money is whole micro-credits: a million of them are one credit."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from flow_sdk.wire.execution import ComponentRef, Document
from flow_sdk.wire.status import Status


class TransactionNode(Document):
    """One transaction with those below it.

    Attributes:
        kind: `execution`; `model_call`: one from outside of executions; `external`: only known by a header.
        transaction_id: The execution's id, or the model call's.
        total_micro_credits: Its own, and all below, also of what is not shown.
        retry_of_transaction_id: Of the execution that this one repeats.
        named: It is no execution that its parent started, but came from outside and named it by a header.
    """

    transaction_id: str
    kind: Literal["execution", "model_call", "external"] = "execution"
    execution_id: str | None = None
    component: ComponentRef | None = None
    status: Status | None = None
    attempts: int = 0
    model: str | None = None
    lifecycle_event: str | None = None
    retry_of_transaction_id: str | None = None
    created_at: datetime | None = None
    named: bool = False
    own_micro_credits: int = 0
    children_micro_credits: int = 0
    total_micro_credits: int = 0
    children: list[TransactionNode] = Field(default_factory=list["TransactionNode"])


class LedgerEntryDocument(Document):
    """One line of the ledger: an attempt, or a model call.

    Attributes:
        source: `attempt:3`, or `model_call:ID`.
        rate_version: Of the rate card; for a model call with the version of the price table behind it.
    """

    source: str
    at: datetime
    model: str | None = None
    cpu_ms: float = 0.0
    memory_gib_seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    rate_version: str = ""
    discount_percent: int = 0
    micro_credits: int = 0


class TransactionDocument(TransactionNode):
    """Attributes:
    parent_transaction_id: Its parent execution's, or what a header named.
    entries: Its own lines, oldest first.
    truncated: There is more below than `children` shows, or more than `entries` shows; the sums have all.
    """

    parent_transaction_id: str | None = None
    entries: list[LedgerEntryDocument] = Field(default_factory=list[LedgerEntryDocument])
    truncated: bool = False


class UsageRowDocument(Document):
    """Attributes:
    key: Id of a component or workspace, a day of UTC, or `provider/model`; empty for what has none.
    name: Slug of the component, or name of the workspace.
    entries: Attempts and model calls.
    """

    key: str
    name: str = ""
    entries: int = 0
    cpu_seconds: float = 0.0
    memory_gib_seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    micro_credits: int = 0


class UsageDocument(Document):
    """Attributes:
    since, until: What was recorded from the one on and before the other.
    truncated: There are more rows; `total_micro_credits` is of those that are shown.
    """

    by: Literal["component", "workspace", "day", "model"]
    since: datetime
    until: datetime
    items: list[UsageRowDocument] = Field(default_factory=list[UsageRowDocument])
    total_micro_credits: int = 0
    truncated: bool = False


class BudgetPeriodDocument(Document):
    period: Literal["day", "month"]
    key: str
    spent_micro_credits: int
    limit_micro_credits: int | None = None
    warns: bool = False
    exhausted: bool = False
    resets_at: datetime


class BudgetDocument(Document):
    """Attributes:
    daily_micro_credits, monthly_micro_credits: None: no limit. Days and months are those of UTC.
    warn_percent: Of a limit, from where on answers warn.
    refuses: What is over a limit is refused; else only warned of.
    periods: What was spent; empty where there is no budget.
    """

    daily_micro_credits: int | None = None
    monthly_micro_credits: int | None = None
    warn_percent: int = 80
    refuses: bool = True
    periods: list[BudgetPeriodDocument] = Field(default_factory=list[BudgetPeriodDocument])
