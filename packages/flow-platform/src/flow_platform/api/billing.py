"""What things cost: transactions with their trees, roll-ups as JSON and CSV, budgets of workspaces."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final, cast, get_args

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, query_text
from flow_platform.api.audit_csv import harmless
from flow_platform.api.body import read_model
from flow_platform.api.context import principal_of, workspace_of
from flow_platform.api.instants import parse_instant
from flow_platform.api.routing import WORKSPACE, Parameter, Route
from flow_platform.api.submission import TRANSACTION
from flow_platform.domain import errors
from flow_platform.domain.budget import Budget, Standing, day_start, month_start
from flow_platform.domain.principal import Action
from flow_platform.engine.billing import MAX_USAGE_SPAN
from flow_platform.engine.validation import invalid
from flow_platform.store.ledger_table import By
from flow_sdk.wire.billing import (
    BudgetDocument,
    BudgetPeriodDocument,
    TransactionDocument,
    UsageDocument,
    UsageRowDocument,
)

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

MAX_BUDGET: Final = 10**18  # Micro-credits; sums of that size still fit into 64 bits.
_TAG: Final = "Costs"
_BILLING: Final = "/api/v1/orgs/{org_id}/billing"
_WAYS: Final = get_args(By)
_DAY: Final = timedelta(days=1)
_PARAMETERS: Final = (
    Parameter("by", "`component` (default), `workspace`, `day` or `model`.", {"type": "string"}),
    Parameter("from", "A day or an instant; default: the first of this month.", {"type": "string"}),
    Parameter("to", "A day, which is included, or an instant, which is not; default: now.", {"type": "string"}),
    Parameter("workspace_id", "Only that; default: all that the token is for.", {"type": "string"}),
)

Limit = Annotated[int, Field(ge=0, le=MAX_BUDGET)]


class BudgetBody(BaseModel):
    """A budget; without any limit it is taken away."""

    model_config = ConfigDict(extra="forbid", strict=True)

    daily_micro_credits: Limit | None = None
    monthly_micro_credits: Limit | None = None
    warn_percent: Annotated[int, Field(ge=1, le=100)] = 80
    refuses: bool = True


class BillingRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                f"{_BILLING}/transactions/{{transaction_id}}",
                self.transaction,
                "A transaction with its tree and totals.",
                tag=_TAG,
                answers={200: TransactionDocument},
            ),
            Route(
                "GET",
                f"{_BILLING}/usage",
                self.usage,
                "What was spent, grouped.",
                tag=_TAG,
                answers={200: UsageDocument},
                parameters=_PARAMETERS,
            ),
            Route(
                "GET",
                f"{_BILLING}/usage.csv",
                self.usage_csv,
                "The same as CSV.",
                tag=_TAG,
                answers={200: "CSV with a header row"},
                parameters=_PARAMETERS,
                media_type="text/csv",
            ),
            Route(
                "GET",
                f"{WORKSPACE}/budget",
                self.budget,
                "The budget, and what was spent.",
                tag=_TAG,
                answers={200: BudgetDocument},
            ),
            Route(
                "PUT",
                f"{WORKSPACE}/budget",
                self.set_budget,
                "Replaces the budget.",
                tag=_TAG,
                answers={200: BudgetDocument},
                body=BudgetBody,
            ),
        ]

    async def transaction(self, request: Request) -> Response:
        transaction_id: str = request.path_params["transaction_id"]
        if not TRANSACTION.fullmatch(transaction_id):
            raise errors.NotFound(f"transaction {transaction_id[:80]!r} not found")
        org_id = request.path_params["org_id"]
        return json_answer(await self._engine.billing.transaction(principal_of(request), org_id, transaction_id))

    async def usage(self, request: Request) -> Response:
        return json_answer(await self._usage(request))

    async def usage_csv(self, request: Request) -> Response:
        document = await self._usage(request)
        headers = {"Content-Disposition": f'attachment; filename="usage-by-{document.by}.csv"'}
        if document.truncated:
            headers["X-Truncated"] = "true"
        return Response(usage_as_csv(document), 200, headers, "text/csv; charset=utf-8")

    async def _usage(self, request: Request) -> UsageDocument:
        now = self._engine.clock.now()
        by = query_text(request, "by") or "component"
        if by not in _WAYS:
            raise invalid("by", by, "one of " + ", ".join(repr(way) for way in _WAYS))
        given = query_text(request, "from")
        since = _instant("from", given) if given else month_start(now)
        given = query_text(request, "to")
        until = _until(given) if given else now
        if not timedelta() <= until - since <= MAX_USAGE_SPAN:
            raise invalid("to", given, f"not before 'from', and at most {MAX_USAGE_SPAN.days} days after it")
        return await self._engine.billing.usage(
            principal_of(request),
            request.path_params["org_id"],
            query_text(request, "workspace_id"),
            cast("By", by),
            since,
            until,
        )

    async def budget(self, request: Request) -> Response:
        org_id, workspace_id = workspace_of(request)
        return _budget_answer(await self._engine.budgets.get(principal_of(request), org_id, workspace_id))

    async def set_budget(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        principal.require(Action.ADMINISTER, org_id, workspace_id)  # Before the body is read.
        body = await read_model(request, BudgetBody)
        budget = Budget(body.daily_micro_credits, body.monthly_micro_credits, body.warn_percent, body.refuses)
        wanted = None if budget.daily is None and budget.monthly is None else budget
        return _budget_answer(await self._engine.budgets.set(principal, org_id, workspace_id, wanted))


def usage_as_csv(document: UsageDocument) -> str:
    """One line per row, below the names of the columns. No cell is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # Source: RFC 4180.
    columns = [document.by if name == "key" else name for name in UsageRowDocument.model_fields]
    writer.writerow(columns)
    for item in document.items:
        writer.writerow([harmless(value) for _, value in item])
    return text.getvalue()


def _instant(field: str, text: str) -> datetime:
    """A day's begin in UTC, or an instant."""
    return _day(text) or parse_instant(field, text)


def _until(text: str) -> datetime:
    day = _day(text)
    return day + _DAY if day else parse_instant("to", text)


def _day(text: str) -> datetime | None:
    try:
        return day_start(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC))
    except ValueError:
        return None


def _budget_answer(standing: Standing | None) -> Response:
    if standing is None:
        return json_answer(BudgetDocument())
    budget = standing.budget
    periods = [
        BudgetPeriodDocument(
            period=period.name,
            key=period.key,
            spent_micro_credits=period.spent,
            limit_micro_credits=period.limit,
            warns=period.warns(budget.warn_percent),
            exhausted=period.is_exhausted,
            resets_at=period.resets_at,
        )
        for period in standing.periods
    ]
    return json_answer(
        BudgetDocument(
            daily_micro_credits=budget.daily,
            monthly_micro_credits=budget.monthly,
            warn_percent=budget.warn_percent,
            refuses=budget.refuses,
            periods=periods,
        )
    )
