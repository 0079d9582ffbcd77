"""Loads the component's source as the module `component` and finds its entry point."""

from __future__ import annotations

import linecache
import sys
import types
from collections.abc import Callable
from typing import Any

from flow_sdk.harness.failure import COMPONENT_FILE, Refused


def load_module(code: str) -> types.ModuleType:
    """Executes the source.

    Raises:
        Refused: `syntax_error` with the line.
        BaseException: Whatever the module's own code raises.
    """
    module = types.ModuleType("component")
    module.__file__ = COMPONENT_FILE
    # Known to linecache, so that tracebacks show the lines; in sys.modules, so that annotations, dataclasses and
    # pickling find it.
    linecache.cache[COMPONENT_FILE] = (len(code), None, code.splitlines(keepends=True), COMPONENT_FILE)
    sys.modules["component"] = module
    try:
        compiled = compile(code, COMPONENT_FILE, "exec", dont_inherit=True)
    except SyntaxError as exc:
        details = [{"field": "code", "message": exc.msg, "line": exc.lineno, "column": exc.offset}]
        raise Refused("syntax_error", f"line {exc.lineno}: {exc.msg}: {(exc.text or '').strip()!r}", details) from exc
    except ValueError as exc:  # For example a NUL in the source.
        raise Refused("syntax_error", f"the code is not valid Python source: {exc}") from exc
    exec(compiled, module.__dict__)  # noqa: S102 - running the component's code is what a container is for.
    return module


def load_entry_point(code: str, entry_point: str) -> Callable[..., Any]:
    """Executes the source and returns the function of that name.

    Raises:
        Refused: `syntax_error` with the line, or `entry_point_missing` with the names that exist.
        BaseException: Whatever the module's own code raises.
    """
    module = load_module(code)
    found = module.__dict__.get(entry_point)
    if not callable(found):
        names = sorted(
            name
            for name, value in module.__dict__.items()
            if callable(value)
            and not isinstance(value, type)
            and getattr(value, "__module__", None) == "component"
            and not name.startswith("_")
        )
        existing = ", ".join(repr(name) for name in names) or "none"
        raise Refused(
            "entry_point_missing",
            f"entry_point {entry_point!r} is not a function of the code; its functions are: {existing}",
            [{"field": "entry_point", "message": f"expected one of: {existing}"}],
        )
    return found
