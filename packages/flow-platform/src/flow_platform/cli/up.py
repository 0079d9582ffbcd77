"""`flow up`: the embedded platform on this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def up(
    data: Annotated[str | None, typer.Option("--data", help="Data folder; default: ./.flow.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: 127.0.0.1.")] = None,
    port: Annotated[str | None, typer.Option(help="Port; 0 takes any free one; default: 8420.")] = None,
    allow_public: Annotated[bool, typer.Option("--allow-public", help="Permits a host beyond loopback.")] = False,
    ready_file: Annotated[str | None, typer.Option(help="Written when the platform takes requests.")] = None,
    database: Annotated[str | None, typer.Option(help="Database URL; default: SQLite in the data folder.")] = None,
    nats: Annotated[str | None, typer.Option(help="NATS URL; default: an embedded server.")] = None,
    runners: Annotated[str | None, typer.Option(help="Runner processes; 0: none; default: 1.")] = None,
    slots: Annotated[str | None, typer.Option(help="Executions at once per runner; default: 2 per core.")] = None,
    channel: Annotated[str | None, typer.Option(help="socket or nats: how containers exchange data.")] = None,
    cache: Annotated[str | None, typer.Option(help="Folder of runtimes and environments.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
) -> None:
    """Starts the embedded platform: NATS, server and runner, supervised. Ctrl-C drains and stops.

    Every setting is also a FLOW_* variable and a key of flow.toml: `flow doctor --settings` lists them.
    """
    from flow_platform.cli.starting import FLAGS, start

    given = {
        "--data": data,
        "--host": host,
        "--port": port,
        "--ready-file": ready_file,
        "--database": database,
        "--nats": nats,
        "--runners": runners,
        "--slots": slots,
        "--channel": channel,
        "--cache": cache,
        "--log-level": log_level,
        "--log-format": log_format,
    }
    start({FLAGS[option]: value for option, value in given.items()} | {"allow_public": allow_public or None})
