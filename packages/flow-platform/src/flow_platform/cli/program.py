"""The program's commands. Only the one that is called is loaded: `flow --help` and `flow ps` stay quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Final

import typer

from flow_platform.cli import output

COMMANDS: Final = {
    "demo": ("demo", "Start a platform, run the example over real input, print the result."),
    "up": ("up", "Start the embedded platform on this machine."),
    "publish": ("publish", "Publish the components declared in Python files."),
    "run": ("run", "Run a component and print its output."),
    "ps": ("executions", "List executions."),
    "show": ("executions", "Show one execution."),
    "events": ("executions", "Print the events and logs of an execution."),
    "cancel": ("executions", "Cancel executions."),
    "send": ("send", "Send an event to a workflow, or answer its approval."),
    "retry": ("retry", "Repeat executions that ended without a result."),
    "dead-letter": ("dead_letter", "List and retry what used up all its attempts."),
    "costs": ("costs", "Show what executions cost."),
    "budget": ("budget", "What the workspace may spend: show, set, remove."),
    "rings": ("rings", "List rings, and change them."),
    "deployments": ("rings", "List deployments."),
    "promote": ("rings", "Bring components to the next ring."),
    "approve": ("rings", "Approve deployments."),
    "rollback": ("rings", "Take a deployment back."),
    "token": ("token", "Make a token."),
    "keys": ("keys", "API keys: list, make, revoke; rotate the keys that sign tokens."),
    "audit": ("audit", "Who changed what: list, export and verify the audit log."),
    "schedule": ("schedule", "Start components by the clock."),
    "service": ("service", "Publish endpoints of components, and call them."),
    "mcp": ("mcp", "Register MCP servers, whose tools agents call."),
    "workspace": ("workspace", "Workspaces of the organization: list, create."),
    "secret": ("secret", "Set, list and delete secrets."),
    "policy": ("policy", "Limits, rates, priorities and retries of components in rings."),
    "image": ("image", "Build the image of containers for a container engine."),
    "doctor": ("doctor", "Check this machine, and say how to mend what is missing."),
    "bench": ("bench", "Run the benchmark on this machine."),
    "api": ("api", "Run the server alone, for several machines."),
    "runner": ("runner", "Run a runner alone, for several machines."),
}
"""Command -> its module here (the function has the command's name), and its line in the overview."""

OTHER_WORDS: Final = {
    **dict.fromkeys(("log", "logs", "tail", "watch"), "events"),
    **dict.fromkeys(("list", "ls"), "ps"),
    **dict.fromkeys(("describe", "get", "inspect", "status"), "show"),
    **dict.fromkeys(("deploy", "push"), "publish"),
    **dict.fromkeys(("call", "exec", "invoke", "trigger"), "run"),
    **dict.fromkeys(("dev", "serve", "server", "start"), "up"),
    **dict.fromkeys(("kill", "stop", "terminate"), "cancel"),
    **dict.fromkeys(("login", "auth"), "token"),
    **dict.fromkeys(("secrets", "env"), "secret"),
    "schedules": "schedule",
    "services": "service",
    "ring": "rings",
    "worker": "runner",
}
"""What other platforms call a command of ours."""


def build(arguments: Sequence[str]) -> typer.Typer:
    """The program, with all commands in its overview, and the called one ready to run."""
    app = typer.Typer(
        name="flow",
        help="Durable executions of code in fresh isolated containers.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_program)
    called = arguments[0] if arguments else ""
    if called in OTHER_WORDS:
        output.show_error(f"there is no command {called!r}", f"it is called here: flow {OTHER_WORDS[called]}")
        sys.exit(2)
    for name, (module, line) in COMMANDS.items():
        if called not in COMMANDS:
            app.command(name, help=line)(_program)
        elif name == called:
            app.command(name)(_load(module, name))
    return app


def _load(module: str, function: str) -> Callable[..., None]:
    return getattr(importlib.import_module(f"flow_platform.cli.{module}"), function.replace("-", "_"))


def _program() -> None:
    """Durable executions of code in fresh isolated containers."""
