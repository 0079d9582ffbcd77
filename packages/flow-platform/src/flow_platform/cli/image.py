"""`flow image`: the image of containers that a container engine runs, made of this machine's Python and SDK."""

from __future__ import annotations

import asyncio
import hashlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flow_platform.cli import output
from flow_platform.domain.errors import FlowError

if TYPE_CHECKING:
    from flow_platform.sandbox.namespaces.runtime_root import RuntimeRoot


class Action(StrEnum):
    BUILD = "build"


def image(
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.BUILD,
    *,
    target: Annotated[
        Path | None, typer.Option("--output", help="Write it there, instead of loading it.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Builds the image and loads it into the container engine, or writes it as a file. Needs no registry."""
    from flow_platform.sandbox.docker.image import name_of
    from flow_platform.sandbox.namespaces.runtime_root import ensure_runtime_root
    from flow_platform.settings import load_settings

    settings = load_settings()
    root = ensure_runtime_root(settings.cache_dir)
    try:
        name = name_of(root.key)
        about = {"action": action.value, "image": name}
        if target is not None:
            about |= {"file": str(target), "sha256": _write(root, target)}
            told = f"wrote {name} to {target}, sha256:{about['sha256']}"
        else:
            asyncio.run(_load(root, settings.docker_host))
            told = f"loaded {name}"
    finally:
        root.release()
    if as_json:
        output.emit_json(about)
    else:
        output.say(told)


def _write(root: RuntimeRoot, target: Path) -> str:
    from flow_platform.sandbox.docker.image import write

    draft = target.with_name(f".{target.name}.draft")
    try:
        with draft.open("wb") as file:
            write(root.path, root.key, file)
        with draft.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise FlowError(f"--output {str(target)!r}: {error.strerror}", hint="name a file that you may write") from error
    return digest


async def _load(root: RuntimeRoot, host: str) -> None:
    from flow_platform.sandbox.docker.engine_api import DEFAULT_HOST, EngineApi
    from flow_platform.sandbox.docker.image import read_archive

    engine = EngineApi(host or DEFAULT_HOST)
    try:
        await engine.load_image(read_archive(root.path, root.key))
    finally:
        await engine.close()
