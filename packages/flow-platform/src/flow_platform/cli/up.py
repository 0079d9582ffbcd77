"""`flow up`: the embedded platform on this machine."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flow_platform.cli import output
from flow_platform.domain.errors import FlowError


def up(
    data: Annotated[Path | None, typer.Option("--data", help="Data folder.  [default: ./.flow]")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes any free one.  [default: 8420]")] = None,
    allow_public: Annotated[bool, typer.Option("--allow-public", help="Permits a host beyond loopback.")] = False,
    ready_file: Annotated[Path | None, typer.Option(help="Written when the platform takes requests.")] = None,
    database: Annotated[str | None, typer.Option(help="Database URL.  [default: SQLite in the data folder]")] = None,
    nats: Annotated[str | None, typer.Option(help="NATS URL.  [default: an embedded server]")] = None,
    runners: Annotated[int | None, typer.Option(help="Runner processes; 0: none.  [default: 1]")] = None,
    slots: Annotated[
        int | None, typer.Option(help="Executions at once per runner.  [default: twice the cores]")
    ] = None,
    channel: Annotated[str | None, typer.Option(help="socket or nats: how containers exchange data.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
) -> None:
    """Starts the embedded platform: NATS, server and runner, supervised. Ctrl-C drains and stops.

    Every setting is also a FLOW_* variable and a key of flow.toml; see `flow doctor --settings`.
    """
    from flow_platform.cli.child import ChildFailed
    from flow_platform.cli.supervisor import Supervisor
    from flow_platform.settings import load_settings

    flags = {
        "data_dir": data,
        "host": host,
        "port": port,
        "allow_public": allow_public or None,
        "ready_file": ready_file,
        "database_url": database,
        "nats_url": nats,
        "runners": runners,
        "slots": slots,
        "channel": channel,
        "log_level": log_level,
        "log_format": log_format,
    }
    settings = load_settings(flags)

    async def supervise() -> None:
        await Supervisor(settings, lambda document: greet(document, settings.data_dir), output.say).run()

    try:
        asyncio.run(supervise())
    except ChildFailed as error:
        if error.tail:
            output.say(error.tail)
        raise FlowError(error.message, hint=error.hint) from error
    output.say("stopped")


def greet(document: dict[str, Any], data_dir: Path) -> None:
    """Says where the platform is and what to do next."""
    output.say(f"Flow is ready at {output.paint(document['console_url'], 'bold', sys.stderr)}")
    output.say(f"  data    {data_dir}")
    output.say("  token   flow token")
    output.say("  next    flow publish FILE, then flow run code-blocks/SLUG --input JSON")
    output.say("  stop    Ctrl-C")
