"""The program's commands, and what an error looks like."""

from __future__ import annotations

import os
import sys

import typer
from flow_sdk.errors import PlatformClientError, PlatformConnectionError

from flow_platform.cli import (
    api,
    bench,
    demo,
    doctor,
    executions,
    output,
    publish,
    runner,
    token,
    up,
)
from flow_platform.cli import (
    run as run_command,
)
from flow_platform.domain.errors import FlowError

app = typer.Typer(
    name="flow",
    help="Durable executions of code in fresh isolated containers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("up")(up.up)
app.command("publish")(publish.publish)
app.command("run")(run_command.run)
app.command("ps")(executions.ps)
app.command("show")(executions.show)
app.command("events")(executions.events)
app.command("cancel")(executions.cancel)
app.command("token")(token.token)
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)
app.command("api")(api.api)
app.command("runner")(runner.runner)


def run() -> None:
    """Runs the command that the arguments name, and exits: 0 done, 1 not done, 2 not understood, 130 interrupted."""
    try:
        app()
    except FlowError as error:
        output.show_error(error.message, error.hint, error.details)
        sys.exit(1)
    except PlatformClientError as error:
        from flow_platform.cli.remote import HINTS

        hint = "start the platform with: flow up" if isinstance(error, PlatformConnectionError) else ""
        output.show_error(str(error), HINTS.get(error.code or "", hint), error.details)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader went away, as `head` does. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
