"""How a command ends: 0 done, 1 not done, 2 not understood, 130 interrupted; and what an error looks like."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator

from flow_platform.cli import output
from flow_platform.domain.errors import FlowError
from flow_sdk.errors import PlatformClientError, PlatformConnectionError


@contextlib.contextmanager
def shown_errors() -> Generator[None]:
    """Shows errors that are ours to show as `error:` and `hint:`, and exits; never a traceback for them."""
    try:
        yield
    except FlowError as error:
        output.show_error(error.message, error.hint, error.details)
        sys.exit(1)
    except PlatformClientError as error:
        from flow_platform.cli.remote import HINTS, split_hint

        message, hint = split_hint(str(error))
        if isinstance(error, PlatformConnectionError):
            hint = "start the platform with: flow up"
        output.show_error(message, HINTS.get(error.code or "", hint), error.details)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader went away, as `head` does. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
