"""`flow doctor --hostile`: tries on this machine what strangers' code would try, and prints what became of it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow_platform.cli import output
from flow_platform.cli.embedded import running_platform

if TYPE_CHECKING:
    from flow_platform.hostile.answer import Answer
    from flow_platform.hostile.canaries import Canaries
    from flow_platform.hostile.report import Row
    from flow_platform.settings import Settings

COLORS = {"leaked": "red", "weak": "yellow", "refused": "green"}


def try_everything(settings: Settings, *, as_json: bool) -> bool:
    """Tries all attempts, at a sandbox and at a platform of its own in a temporary folder.

    Returns:
        Whether nothing leaked.
    """
    from flow_platform.hostile.canaries import planted
    from flow_platform.hostile.report import rows

    began = time.monotonic()
    with planted() as canaries, tempfile.TemporaryDirectory(prefix="flow-hostile-", ignore_cleanup_errors=True) as name:
        output.say("trying a sandbox ...")
        tried = asyncio.run(_try_box(settings, canaries))
        output.say("trying a platform of two organizations ...")
        with running_platform(Path(name)) as document:
            tried += asyncio.run(_try_world(document, Path(name, "data"), canaries))
    table = rows(tried)
    if as_json:
        output.emit_json([_document(row) for row in table])
    else:
        _show(table, time.monotonic() - began)
    return not any(row.verdict == "leaked" for row in table)


async def _try_box(settings: Settings, canaries: Canaries) -> list[Answer]:
    from flow_platform.hostile.suite import BOX_ATTEMPTS, box_around, try_all
    from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox

    async with box_around(NamespacesSandbox(settings.cache_dir, pool_size=settings.pool_size), canaries) as box:
        return await try_all(BOX_ATTEMPTS, box)


async def _try_world(document: Mapping[str, Any], folder: Path, canaries: Canaries) -> list[Answer]:
    from flow_platform.hostile.suite import WORLD_ATTEMPTS, try_all
    from flow_platform.hostile.world import world_of

    async with world_of(document, folder, canaries) as world:
        return await try_all(WORLD_ATTEMPTS, world)


def _document(row: Row) -> dict[str, Any]:
    attempts = [{"attempt": one.attempt, "verdict": one.verdict.value, "how": one.how} for one in row.tried]
    return {
        "group": row.group,
        "section": row.section,
        "title": row.title,
        "verdict": row.verdict,
        "how": row.how,
        "attempts": attempts,
    }


def _show(table: list[Row], seconds: float) -> None:
    columns = ("group", "what is tried", "attempts", "verdict", "how")
    output.show_table(columns, [(row.group, row.title, len(row.tried) or "", row.verdict, row.how) for row in table])
    for row in table:
        for one in row.tried:
            if one.verdict.value != "refused":
                word = output.paint(one.verdict.value, COLORS[one.verdict.value], sys.stderr)
                output.say(f"{word} {row.group}: {one.attempt}: {one.how}")
    tried = sum(len(row.tried) for row in table)
    leaked = sum(1 for row in table for one in row.tried if one.verdict.value == "leaked")
    output.say(f"{tried} attempts in {seconds:.0f} s, {leaked or 'none'} leaked")
