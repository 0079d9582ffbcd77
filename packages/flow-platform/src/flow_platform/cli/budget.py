"""`flow budget`: what the workspace may spend in a day and in a month."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import Connection, with_connection
from flow_platform.cli.costs import MICRO, credits_text
from flow_platform.domain.errors import FlowError, InvalidInput

NONE: Final = "none"
_FIELDS: Final = ("daily_micro_credits", "monthly_micro_credits", "warn_percent", "refuses")


class Action(StrEnum):
    LIST = "list"
    SET = "set"
    REMOVE = "remove"


@with_connection
def budget(
    connection: Connection,
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.LIST,
    daily: Annotated[
        str | None, typer.Option(help="set: credits for each day, or none.", metavar="CREDITS", show_default=False)
    ] = None,
    monthly: Annotated[
        str | None, typer.Option(help="set: credits for each month, or none.", metavar="CREDITS", show_default=False)
    ] = None,
    warn: Annotated[
        int | None, typer.Option(help="set: warn from this part of a limit on.", metavar="PERCENT", show_default=False)
    ] = None,
    refuse: Annotated[
        bool | None, typer.Option("--refuse/--warn-only", help="set: what happens over a limit.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Shows the budget of the workspace with what was spent, sets it and removes it."""
    from flow_platform.cli.remote import Remote

    wishes = {
        "daily_micro_credits": _limit("--daily", daily),
        "monthly_micro_credits": _limit("--monthly", monthly),
        "warn_percent": warn,
        "refuses": refuse,
    }
    given = {name: None if value == NONE else value for name, value in wishes.items() if value is not None}
    if bool(given) != (action is Action.SET):
        expected = "expected something to set" if action is Action.SET else "only `set` takes these options"
        raise FlowError(f"flow budget {action.value}: {expected}", hint="flow budget --help")
    with Remote(connection) as remote:
        document = remote.get("/budget")
        if action is not Action.LIST:
            kept = {name: document[name] for name in _FIELDS}
            document = remote.put("/budget", {} if action is Action.REMOVE else kept | given)
    if as_json:
        output.emit_json(document)
    else:
        _show(document)


def _limit(option: str, text: str | None) -> int | str | None:
    """Micro-credits, `NONE`, or None when nothing is said."""
    if text is None or text == NONE:
        return text
    try:
        micro_credits = Decimal(text) * MICRO
    except InvalidOperation:
        micro_credits = Decimal(-1)
    if not micro_credits.is_finite() or micro_credits < 0 or micro_credits != micro_credits.to_integral_value():
        raise InvalidInput(f"{option} {text!r}: expected credits such as 2.5, to a millionth, or none")
    return int(micro_credits)


def _show(budget: dict[str, Any]) -> None:
    if not budget["periods"]:
        output.say("no budget: the workspace spends what it likes")
        return
    rows = [
        (
            period["period"],
            period["key"],
            credits_text(period["spent_micro_credits"]),
            NONE if period["limit_micro_credits"] is None else credits_text(period["limit_micro_credits"]),
            _state(period, refuses=budget["refuses"]),
            period["resets_at"],
        )
        for period in budget["periods"]
    ]
    output.show_table(("period", "of", "spent", "limit", "state", "until"), rows)
    over = "refuses what is over a limit" if budget["refuses"] else "refuses nothing"
    output.say(f"warns from {budget['warn_percent']} % on, {over}")


def _state(period: dict[str, Any], *, refuses: bool) -> str:
    if period["exhausted"] and refuses:
        return "exhausted"
    return "warns" if period["warns"] else "ok"
