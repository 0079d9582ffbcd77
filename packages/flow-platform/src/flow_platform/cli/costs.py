"""`flow costs`: what an execution cost, with everything that it started, and what was spent altogether."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flow_platform.cli import output
from flow_platform.cli.connection import Connection, with_connection
from flow_platform.domain.errors import InvalidInput

if TYPE_CHECKING:
    from flow_platform.cli.remote import Remote
    from flow_sdk.wire.billing import TransactionNode

WAYS: Final = ("component", "workspace", "day", "model")
SAME_SHOWN: Final = 3  # Children of one component; more of them are one line.
MICRO: Final = 1_000_000


@with_connection
def costs(
    connection: Connection,
    execution_id: Annotated[str | None, typer.Argument(metavar="[ID]", show_default=False)] = None,
    by: Annotated[str, typer.Option("--by", help="component, workspace, day or model.")] = "component",
    since: Annotated[str | None, typer.Option("--from", help="From this day on, of UTC.", show_default=False)] = None,
    until: Annotated[str | None, typer.Option("--to", help="Up to this day.", show_default=False)] = None,
    all_shown: Annotated[bool, typer.Option("--all", help="Each execution on a line of its own.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Shows the costs of an execution as a tree; without an ID, what was spent this month."""
    from flow_platform.cli.remote import Remote

    with Remote(connection) as remote:
        if execution_id is None:
            _show_usage(remote, by, since, until, as_json=as_json)
            return
        transaction = remote.get(f"/api/v1/orgs/{connection.org_id}/billing/transactions/{execution_id}")
    if as_json:
        output.emit_json(transaction)
    else:
        show_tree(transaction, all_shown=all_shown)


def credits_text(micro_credits: int) -> str:
    """Credits with what is behind the point as far as it is something: `1.25`, `0.000017`."""
    whole, rest = divmod(micro_credits, MICRO)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".")


def show_tree(transaction: dict[str, Any], *, all_shown: bool = False) -> None:
    """A transaction with what is below it, as the API answers it."""
    from flow_sdk.wire.billing import TransactionDocument

    document = TransactionDocument.model_validate(transaction)
    rows = list(_rows(document, "", all_shown=all_shown))
    output.show_table(("credits", "own", "what", "status", "id"), rows)
    if document.truncated:
        output.say("not all of it is shown; the sums have everything")


def _rows(node: TransactionNode, indent: str, *, all_shown: bool) -> list[list[str]]:
    name = f"{indent}{_what(node)}" + (f" x{node.attempts}" if node.attempts > 1 else "")
    status = node.status.value if node.status else ""
    own = credits_text(node.own_micro_credits)
    rows = [[credits_text(node.total_micro_credits), own, name, status, node.transaction_id]]
    alike: dict[str, list[TransactionNode]] = {}
    for child in node.children:
        alike.setdefault(_what(child), []).append(child)
    for what, children in alike.items():
        shown = children if all_shown or len(children) <= SAME_SHOWN + 1 else children[:SAME_SHOWN]
        for child in shown:
            rows += _rows(child, f"{indent}  ", all_shown=all_shown)
        if rest := children[len(shown) :]:
            total = credits_text(sum(child.total_micro_credits for child in rest))
            own = credits_text(sum(child.own_micro_credits for child in rest))
            rows.append([total, own, f"{indent}  {what} and {len(rest)} more", "", ""])
    return rows


def _what(node: TransactionNode) -> str:
    if node.component:
        return f"{node.component.kind.path}/{node.component.slug}"
    return node.model or "from outside"


def _show_usage(remote: Remote, by: str, since: str | None, until: str | None, *, as_json: bool) -> None:
    if by not in WAYS:
        raise InvalidInput(f"--by {by!r}: expected one of {', '.join(WAYS)}")
    connection = remote.connection
    usage = remote.get(
        f"/api/v1/orgs/{connection.org_id}/billing/usage",
        **{  # pyright: ignore[reportArgumentType] - `from` is a keyword, so these are given by their names.
            "by": by,
            "from": since,
            "to": until,
            "workspace_id": None if by == "workspace" else connection.workspace_id,
        },
    )
    if as_json:
        output.emit_json(usage)
        return
    rows = [
        [
            credits_text(item["micro_credits"]),
            item["name"] or item["key"] or "none",
            item["entries"],
            f"{item['cpu_seconds']:.3f}",
            f"{item['memory_gib_seconds']:.3f}",
            item["prompt_tokens"] + item["completion_tokens"],
        ]
        for item in usage["items"]
    ]
    output.show_table(("credits", by, "entries", "cpu s", "gib s", "tokens"), rows)
    output.say(f"{credits_text(usage['total_micro_credits'])} credits from {usage['since']} to {usage['until']}")
