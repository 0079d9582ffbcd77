"""What is imported before there is any tenant's code, and in which order it is looked for. Runs inside the jail."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

_PACKAGES: Final = "/flow/packages"
_ENVIRONMENT: Final = "/env"


def import_modules(config: dict[str, Any]) -> None:
    """Args:
    config: `modules`, `optional_modules`, `environment_modules`.
    """
    for name in config["modules"]:
        importlib.import_module(name)
    for name in config["optional_modules"]:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    if config["environment_modules"]:
        _enter_environment()
        for name in config["environment_modules"]:
            importlib.import_module(name)


def rehearse() -> None:
    """Runs the harness once, so that whatever it imports and makes at its first use is there."""
    sys.modules["flow_sdk.harness.rehearsal"].rehearse()


def enter_unused_environment(config: dict[str, Any]) -> None:
    """Only in a container, and without rights: for an environment of which nothing was imported before.

    Args:
        config: `environment`, `environment_modules`.
    """
    if config["environment"] and not config["environment_modules"]:
        _enter_environment()


def _enter_environment() -> None:
    """After the standard library and the SDK, which it cannot shadow; before the SDK's own needs, of which it may have
    brought others.
    """
    sys.path.insert(sys.path.index(_PACKAGES), _ENVIRONMENT)
