"""The program `flow`: one file per group of commands."""

from __future__ import annotations


def main() -> None:
    """Runs the program and exits."""
    from flow_platform.cli.program import run

    run()
