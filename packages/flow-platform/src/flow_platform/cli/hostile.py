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
from flow_platform.settings import variable_of
from flow_sdk.wire.isolation import DEFAULT, Isolation

if TYPE_CHECKING:
    from flow_platform.hostile.answer import Answer
    from flow_platform.hostile.canaries import Canaries
    from flow_platform.hostile.report import Row
    from flow_platform.settings import Settings

COLORS = {"leaked": "red", "weak": "yellow", "refused": "green"}


def try_everything(settings: Settings, isolation: Isolation, *, as_json: bool) -> bool:
    """Tries all attempts, at a sandbox and at a platform of its own in a temporary folder.

    Args:
        isolation: The rung that is tried. What it does not promise is said, and not tried.

    Returns:
        Whether nothing leaked.
    """
    from flow_platform.hostile.canaries import planted
    from flow_platform.hostile.report import rows

    began = time.monotonic()
    with planted() as canaries, tempfile.TemporaryDirectory(prefix="flow-hostile-", ignore_cleanup_errors=True) as name:
        output.say(f"trying a sandbox: {isolation.value} ...")
        tried = asyncio.run(_try_box(settings, canaries, isolation))
        output.say("trying a platform of two organizations ...")
        with running_platform(Path(name), settings=platform_settings(settings, isolation)) as document:
            tried += asyncio.run(_try_world(document, Path(name, "data"), canaries, isolation))
    table = rows(tried, isolation)
    if as_json:
        output.emit_json([_document(row) for row in table])
    else:
        _show(table, time.monotonic() - began)
    return not any(row.verdict == "leaked" for row in table)


def platform_settings(settings: Settings, isolation: Isolation) -> dict[str, str]:
    """Of a platform whose runner offers that rung; the default one as well, where everything else is built."""
    offered = sorted({DEFAULT, isolation})
    kept = {variable_of(name): str(getattr(settings, name)) for name in ("docker_host", "docker_image", "runsc")}
    return {
        **{name: value for name, value in kept.items() if value and value != "None"},
        variable_of("cache_dir"): str(settings.cache_dir),
        variable_of("isolations"): ",".join(offered),
        variable_of("unsafe_processes"): str(isolation is Isolation.PROCESS),
    }


async def _try_box(settings: Settings, canaries: Canaries, isolation: Isolation) -> list[Answer]:
    from flow_platform.bootstrap import make_sandbox
    from flow_platform.hostile.rungs import AT_ONCE, promised
    from flow_platform.hostile.suite import AT_ONCE as USUAL
    from flow_platform.hostile.suite import BOX_ATTEMPTS, box_around, try_all

    async with box_around(make_sandbox(isolation, settings), canaries) as box:
        return await try_all(promised(BOX_ATTEMPTS, isolation), box, AT_ONCE.get(isolation, USUAL))


async def _try_world(
    document: Mapping[str, Any], folder: Path, canaries: Canaries, isolation: Isolation
) -> list[Answer]:
    from flow_platform.hostile.rungs import promised
    from flow_platform.hostile.suite import WORLD_ATTEMPTS, try_all
    from flow_platform.hostile.world import world_of

    async with world_of(document, folder, canaries, isolation) as world:
        return await try_all(promised(WORLD_ATTEMPTS, isolation), world)


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
    left_out = sum(1 for row in table if not row.is_promised)
    unpromised = f", {left_out} of {len(table)} groups not promised and not tried" if left_out else ""
    output.say(f"{tried} attempts in {seconds:.0f} s, {leaked or 'none'} leaked{unpromised}")
