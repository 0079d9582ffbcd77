"""Puts the parts together: the only module that names adapters.

    python -m flow_platform.bootstrap server|runner [--listen-fd N] [--ready-fd N] [--life-fd N] ...

Each process reads its settings from `FLOW_*` variables. Under a supervisor it dies with it: the kernel sends SIGTERM
when the supervisor's thread ends, and the life pipe, whose other end only the supervisor holds, closes. Both, because
the first is asked for after the start, when the supervisor may already be gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import dataclasses
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from flow_platform.domain.errors import FlowError
from flow_platform.settings import Settings, load_settings
from flow_platform.telemetry import configure_logging
from flow_sdk.wire.isolation import Isolation

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine
    from flow_platform.sandbox.base import Sandbox

DESCRIPTORS: Final = ("--listen-fd", "--ready-fd", "--life-fd", "--lock-fd", "--nats-fd")
HEAVY: Final = {
    "server": (
        "uvloop",
        "uvicorn",
        "flow_platform.api.http_protocol",
        "flow_platform.api.app",
        "flow_platform.engine.service",
        "flow_platform.store.sql_store",
    ),
    "runner": ("uvloop", "flow_platform.runner"),
}
"""What each part needs in any case: loaded while NATS starts."""

REFUSED: Final = 78  # Exit code: this machine cannot do it, and the report says why. Source: sysexits.h, EX_CONFIG.
ADMIN_TOKEN_LIFE: Final = timedelta(days=30)
ADMIN_TOKEN_CHECK_SECONDS: Final = 6 * 3600.0
TOKEN_FILE: Final = "admin-token"  # noqa: S105 - a file's name.
KEEP_ALIVE_SECONDS: Final = 75  # Longer than any client's pool keeps a connection: the client closes, not we under it.
CLOSE_SECONDS: Final = 2  # For requests in flight at the stop; held reads are cut, and clients repeat them.
ORPHAN_SECONDS: Final = 1.0  # From the supervisor's death to "at once", and again to SIGKILL.
READY_POLL_SECONDS: Final = 0.005
_PR_SET_PDEATHSIG: Final = 1

Report = Callable[[dict[str, Any]], None]


def main(arguments: list[str] | None = None) -> None:
    """Runs one part until it is told to stop; exits with 78 when this machine cannot run it."""
    _die_with_parent()
    parser = argparse.ArgumentParser(prog="flow_platform.bootstrap", allow_abbrev=False)
    parser.add_argument("part", choices=("server", "runner"))
    for name in DESCRIPTORS:
        parser.add_argument(name, type=int)
    options = parser.parse_args(arguments)
    for name in DESCRIPTORS:
        descriptor = getattr(options, name[2:].replace("-", "_"))
        if descriptor is not None:
            os.set_inheritable(descriptor, False)  # Ours alone: containers and builds get none of them.
    if options.life_fd is not None:
        threading.Thread(target=_watch_supervisor, args=(options.life_fd,), name="life", daemon=True).start()
    report = _reporter(options.ready_fd)
    try:
        settings = load_settings()
        configure_logging(settings.log_format, settings.log_level)
        if options.nats_fd is not None:
            _load(options.part)
            settings = dataclasses.replace(settings, nats_url=_read_all(options.nats_fd))
        if options.part == "runner":
            sys.exit(run_runner_process(settings, report))
        listener = socket.socket(fileno=options.listen_fd) if options.listen_fd is not None else None
        run_server(settings, listener, report)
    except FlowError as error:
        report({"error": error.message, "hint": error.hint})
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        sys.exit(REFUSED)


def run_server(settings: Settings, listener: socket.socket | None, report: Report) -> None:
    """Engine and API in one process, until SIGTERM or SIGINT.

    Args:
        listener: Bound and listening already; made from the settings when None.
        report: Told once, when requests are taken, who the first tenant is and its admin token.

    Raises:
        FlowError: It could not be started.
    """
    import uvloop

    gc.disable()  # Until requests are taken: nothing that a start makes is garbage.
    # The migrations' templates would load pygments to colour their mistakes: 0.2 s of the first start.
    sys.modules.setdefault("mako.ext.pygmentplugin", cast("Any", None))
    configure_logging(settings.log_format, settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, listener, report))


def run_runner_process(settings: Settings, report: Report) -> int:
    """One runner with its sandbox, until SIGTERM or SIGINT; returns the exit code.

    Raises:
        FlowError: Its sandbox does not work on this machine.
    """
    import uvloop

    from flow_platform.domain import operator_rules
    from flow_platform.egress.policy import OperatorRules
    from flow_platform.runner import RunnerConfig, run_runner
    from flow_platform.runner.sandboxes import Sandboxes

    configure_logging(settings.log_format, settings.log_level)
    host, port = _api_address(settings)
    config = RunnerConfig(
        nats_url=settings.nats_url,
        api_host=host,
        api_port=port,
        runner_id=settings.runner_id,
        slots=settings.slots,
        cache_dir=settings.cache_dir,
        max_containers=settings.max_containers,
        channel="nats" if settings.channel == "nats" else "socket",
        pool_size=settings.pool_size,
        drain_seconds=settings.drain_seconds,
        suspend_after_seconds=settings.suspend_after,
        build_hosts=operator_rules.parse_hosts(settings.build_hosts),
        egress_rules=OperatorRules(
            operator_rules.parse_allow(settings.egress_allow), *operator_rules.parse_deny(settings.egress_deny)
        ),
        egress_bytes=settings.egress_bytes,
        ready=lambda: report({"runner_id": settings.runner_id}),
    )
    sandboxes = Sandboxes(make_sandbox(isolation, settings) for isolation in settings.offered)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run_runner(config, sandboxes))


def make_sandbox(isolation: Isolation, settings: Settings, *, pool_size: int | None = None) -> Sandbox:
    """The sandbox of an isolation, not opened yet. Only what is asked for is imported.

    Args:
        pool_size: In the place of the setting.
    """
    size = settings.pool_size if pool_size is None else pool_size
    match isolation:
        case Isolation.NAMESPACES:
            from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox

            return NamespacesSandbox(settings.cache_dir, pool_size=size)
        case Isolation.DOCKER:
            from flow_platform.sandbox.docker.sandbox import DockerSandbox

            return DockerSandbox(
                settings.cache_dir,
                host=settings.docker_host,
                image=settings.docker_image,
                runner_id=settings.runner_id,
                pool_size=size,
            )
        case Isolation.GVISOR:
            from flow_platform.sandbox.gvisor.sandbox import GvisorSandbox

            waiting = settings.gvisor_pool_size if pool_size is None else pool_size
            return GvisorSandbox(settings.cache_dir, runsc=settings.runsc or None, pool_size=waiting)
        case Isolation.PROCESS:
            from flow_platform.sandbox.process.sandbox import ProcessSandbox

            return ProcessSandbox(settings.cache_dir, allowed=settings.unsafe_processes)


def _engine(settings: Settings) -> Engine:
    """The engine over the configured database, not started yet."""
    from flow_platform.engine.grants import Leasing
    from flow_platform.engine.issuer_settings import read_issuers
    from flow_platform.engine.issuers import Issuers
    from flow_platform.engine.login import Logins
    from flow_platform.engine.master_keys import load_master_keys
    from flow_platform.engine.rate_card import read_rate_card
    from flow_platform.engine.service import Engine
    from flow_platform.store import open_store

    leasing = Leasing(timedelta(seconds=settings.lease_seconds), timedelta(seconds=settings.heartbeat_seconds))
    keys = load_master_keys(
        key=settings.master_key,
        previous_key=settings.previous_master_key,
        file=settings.master_key_file,
        command=settings.master_key_command,
        lost_id=settings.lost_master_key,
    )
    engine = Engine(
        open_store(settings.database_url),
        settings.nats_url,
        leasing=leasing,
        master_keys=keys,
        rates=read_rate_card(settings.rates_file),
    )
    issuers = read_issuers(settings.issuers_file)
    engine.audit_kept = timedelta(days=settings.audit_days) if settings.audit_days else None
    engine.issuers = Issuers(issuers)
    engine.logins = Logins(issuers, engine.clock, lambda: engine.tokens)
    return engine


async def _serve(settings: Settings, listener: socket.socket | None, report: Report) -> None:
    import uvicorn

    from flow_platform.api.app import create_app
    from flow_platform.api.http_protocol import BoundedHttpProtocol
    from flow_platform.domain.client_address import parse_proxies
    from flow_platform.gateway.configuration import read_platform_models
    from flow_platform.gateway.keys import SecretKeys
    from flow_platform.gateway.model_gateway import ModelGateway

    class Server(uvicorn.Server):
        """Leaves signals to us."""

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

    platform_models = read_platform_models(settings.models_file)
    engine = _engine(settings)
    await engine.start()
    provider_keys = SecretKeys(engine.secrets, os.environ)
    models = ModelGateway(engine.store, engine.clock, provider_keys, platform_models, rates=engine.rates)
    try:
        config = uvicorn.Config(
            create_app(
                engine,
                max_body_bytes=settings.max_body_bytes,
                models=models,
                proxies=parse_proxies(settings.trusted_proxies),
            ),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # Only the audit log asks for the client's address, and reads them itself.
            interface="asgi3",
            http=BoundedHttpProtocol,
            lifespan="off",
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
        server = Server(config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, server)
        serving = asyncio.create_task(server.serve(sockets=[listener] if listener else None))
        telling = asyncio.create_task(_tell_when_ready(server, engine, settings.data_dir, report))
        await asyncio.wait({serving, engine.failed}, return_when=asyncio.FIRST_COMPLETED)
        telling.cancel()
        server.should_exit = True
        await serving
        if engine.failed.done():
            engine.failed.result()
    finally:
        await models.close()
        await engine.stop()


def _stop(server: Any) -> None:
    server.force_exit = server.should_exit  # The second time: do not wait for anybody.
    server.should_exit = True


async def _tell_when_ready(server: Any, engine: Engine, data_dir: Path, report: Report) -> None:
    """Ready means: the socket is served and work is taken. Afterwards keeps the admin token fresh."""
    while not (server.started and engine.is_ready):  # noqa: ASYNC110 - once, at the start; uvicorn has no event for it.
        await asyncio.sleep(READY_POLL_SECONDS)
    workspace = engine.workspace
    rings = await engine.store.read(
        lambda tx: {ring.name: ring.id for ring in tx.catalog.list_rings(workspace.org_id, workspace.workspace_id)}
    )
    token = keep_admin_token(engine, data_dir)
    report({"org_id": workspace.org_id, "workspace_id": workspace.workspace_id, "rings": rings, "token": token})
    gc.collect()
    gc.freeze()  # What is loaded now stays for ever; the collector need not look at it again and again.
    gc.enable()
    while True:
        await engine.credentials.wait_changed(ADMIN_TOKEN_CHECK_SECONDS)
        keep_admin_token(engine, data_dir)


def keep_admin_token(engine: Engine, data_dir: Path) -> str:
    """Returns the admin token of the first tenant, from its file when it is valid and not past half of its life."""
    now = engine.clock.now()
    path = data_dir / TOKEN_FILE
    token = ""
    with contextlib.suppress(OSError, FlowError):
        kept = path.read_text().strip()
        principal = engine.tokens.verify(kept, now)
        if principal.org_id == engine.workspace.org_id and engine.tokens.renewed(kept, now) is None:
            token = kept
    if not token:
        from flow_platform.domain.principal import Role

        token = engine.tokens.for_user("admin", engine.workspace.org_id, None, Role.ADMIN, ADMIN_TOKEN_LIFE, now)
        _write_private(path, token + "\n")
    return token


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def _load(part: str) -> None:
    """Imports what the part needs. Nothing of it is garbage, so the collector rests."""
    gc.disable()
    for module in HEAVY[part]:
        importlib.import_module(module)
    gc.enable()


def _read_all(descriptor: int) -> str:
    """What the supervisor says through a pipe, up to its end."""
    with os.fdopen(descriptor) as pipe:
        text = pipe.read()
    if not text:
        raise FlowError("the supervisor ended before NATS was started")
    return text


def _api_address(settings: Settings) -> tuple[str, int]:
    """Where the relay of the containers reaches the API."""
    if not settings.api_url:
        return settings.loopback_host, settings.port
    from urllib.parse import urlsplit

    parts = urlsplit(settings.api_url)
    return parts.hostname or settings.loopback_host, parts.port or 80


def _reporter(descriptor: int | None) -> Report:
    """Says one thing to the supervisor, once; without one, nothing."""
    remaining = [] if descriptor is None else [descriptor]

    def report(document: dict[str, Any]) -> None:
        while remaining:
            with os.fdopen(remaining.pop(), "w") as pipe, contextlib.suppress(BrokenPipeError):
                json.dump(document, pipe)

    return report


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _watch_supervisor(life: int) -> None:
    """Nobody is left to drain for when the supervisor is gone: ends this process soon, and for certain."""
    os.read(life, 1)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        os.kill(os.getpid(), number)
        time.sleep(ORPHAN_SECONDS)


if __name__ == "__main__":
    main()
