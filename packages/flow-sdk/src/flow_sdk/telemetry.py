"""Logging through logfire, for programs that use logfire. For all others: silent and free.

A program that configured logfire has imported it, so a look at `sys.modules` decides; the import of `logfire_api`
(tens of milliseconds) happens only then.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any


def debug(message: str, **fields: Any) -> None:
    _log("debug", message, fields)


def info(message: str, **fields: Any) -> None:
    _log("info", message, fields)


def warn(message: str, **fields: Any) -> None:
    _log("warn", message, fields)


def error(message: str, exc: BaseException, **fields: Any) -> None:
    _log("error", message, {**fields, "_exc_info": exc})


def _log(level: str, message: str, fields: dict[str, Any]) -> None:
    if "logfire" not in sys.modules:
        return
    import logfire_api

    # Imported but not configured, logfire warns at every use; that is the program's choice, not worth a word of ours.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(logfire_api, level)(message, **fields)
