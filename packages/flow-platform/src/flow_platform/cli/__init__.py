"""The program `flow`: one file per group of commands."""

from __future__ import annotations

import sys
from typing import Any, cast


def main() -> None:
    """Runs the program and exits."""
    # httpx loads its own command line with itself, and that rich and pygments: 0.2 s of nothing for us.
    sys.modules.setdefault("httpx._main", cast("Any", None))
    from flow_platform.cli.ending import shown_errors

    arguments = sys.argv[1:]
    with shown_errors():
        if arguments[:1] == ["up"]:
            # The usual start does without the command line's library, which takes as long to load as NATS to start.
            from flow_platform.cli.starting import plain_flags, start

            flags = plain_flags(arguments[1:])
            if flags is not None:
                start(flags)
                return
        from flow_platform.cli.program import build

        build(arguments)()
