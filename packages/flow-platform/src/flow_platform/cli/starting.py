"""What `flow up` does, and its flags read without the command line's library."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from flow_platform.cli import output
from flow_platform.cli.child import ChildFailed
from flow_platform.cli.supervisor import Supervisor
from flow_platform.domain.errors import FlowError
from flow_platform.settings import load_settings

FLAGS: Final = {
    "--data": "data_dir",
    "--host": "host",
    "--port": "port",
    "--ready-file": "ready_file",
    "--database": "database_url",
    "--nats": "nats_url",
    "--runners": "runners",
    "--slots": "slots",
    "--channel": "channel",
    "--cache": "cache_dir",
    "--log-level": "log_level",
    "--log-format": "log_format",
}
"""Option of `flow up` -> setting. Their values are checked by the settings, however they come in."""

ALLOW_PUBLIC: Final = "--allow-public"


def plain_flags(arguments: Sequence[str]) -> dict[str, Any] | None:
    """The settings named by `--option value` and `--option=value`; None for whatever else: help, or a mistake."""
    flags: dict[str, Any] = {}
    left = list(arguments)
    while left:
        option, equals, value = left.pop(0).partition("=")
        if option == ALLOW_PUBLIC and not equals:
            flags["allow_public"] = True
        elif option in FLAGS and (equals or left):
            flags[FLAGS[option]] = value if equals else left.pop(0)
        else:
            return None
    return flags


def start(flags: dict[str, Any]) -> None:
    """Runs the embedded platform until it is stopped.

    Raises:
        FlowError: It could not be started or kept running; the end of the log is shown before.
    """
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
