"""`flow api`: the server alone, any number of them against one PostgreSQL and one NATS cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flow_platform.cli import output


def api(
    database: Annotated[str | None, typer.Option(help="Database URL; the same for all servers.")] = None,
    nats: Annotated[str | None, typer.Option(help="NATS URL with its credential.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes any free one; default: 8420.")] = None,
    allow_public: Annotated[bool, typer.Option("--allow-public", help="Permits a host beyond loopback.")] = False,
    data: Annotated[Path | None, typer.Option("--data", help="Folder for the admin token; default: ./.flow.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
) -> None:
    """Runs the server alone (API and engine); runners are started with `flow runner`."""
    from flow_platform.bootstrap import run_server
    from flow_platform.cli.data_folder import TOKEN_FILE, DataFolder
    from flow_platform.cli.supervisor import address_of, bind
    from flow_platform.domain.errors import SettingsError
    from flow_platform.settings import load_settings

    settings = load_settings(
        {
            "database_url": database,
            "nats_url": nats,
            "host": host,
            "port": port,
            "allow_public": allow_public or None,
            "data_dir": data,
            "log_level": log_level,
            "log_format": log_format,
        }
    )
    if not settings.nats_url:
        raise SettingsError("--nats='': expected the URL of NATS", hint="flow up runs everything on one machine")
    DataFolder(settings.data_dir).create()
    listener = bind(settings)

    def report(document: dict[str, Any]) -> None:
        output.say(f"serving at {address_of(settings, listener)}/")
        output.say(f"  organization  {document['org_id']}")
        output.say(f"  workspace     {document['workspace_id']}")
        output.say(f"  admin token   {settings.data_dir / TOKEN_FILE}")

    run_server(settings, listener, report)
