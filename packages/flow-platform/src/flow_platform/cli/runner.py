"""`flow runner`: a runner alone, any number of them on any number of machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flow_platform.cli import output


def runner(
    nats: Annotated[str | None, typer.Option(help="NATS URL with the runners' credential.")] = None,
    api_url: Annotated[str | None, typer.Option(help="Where containers' calls of the API go.")] = None,
    slots: Annotated[int | None, typer.Option(help="Executions at once; default: twice the cores.")] = None,
    runner_id: Annotated[str | None, typer.Option(help="Its name, stable over restarts; default: host name.")] = None,
    channel: Annotated[str | None, typer.Option(help="socket or nats: how containers exchange data.")] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder of runtimes and environments.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
) -> None:
    """Runs a runner alone; it holds no credential of the database. SIGTERM drains, a second one stops at once."""
    from flow_platform.bootstrap import run_runner_process
    from flow_platform.domain.errors import SettingsError
    from flow_platform.settings import load_settings

    settings = load_settings(
        {
            "nats_url": nats,
            "api_url": api_url,
            "slots": slots,
            "runner_id": runner_id,
            "channel": channel,
            "cache_dir": cache,
            "log_level": log_level,
            "log_format": log_format,
        }
    )
    if not settings.nats_url:
        raise SettingsError("--nats='': expected the URL of NATS", hint="flow up runs everything on one machine")

    def report(document: dict[str, Any]) -> None:
        output.say(f"runner {document['runner_id']} asks for work")

    raise typer.Exit(run_runner_process(settings, report))
