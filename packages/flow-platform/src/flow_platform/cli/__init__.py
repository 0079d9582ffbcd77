"""The program `flow`: one file per group of commands."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the program and exits."""
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
