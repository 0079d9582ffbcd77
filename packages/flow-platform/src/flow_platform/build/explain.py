"""uv's explanations, without its noise, as an error that names the requirement. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flow_platform.domain import errors

MAX_REASON_CHARACTERS: Final = 2_000
_UNRESOLVABLE: Final = "No solution found"
_UNREACHABLE: Final = ("Request failed", "Failed to fetch", "error sending request", "Could not connect")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EMPTY_PHRASES: Final = (", we can conclude that your requirements are unsatisfiable",)


def failure(output: str, lines: Sequence[str], denied: Sequence[str] = ()) -> errors.BuildFailed:
    """Makes one error of what uv said.

    Args:
        output: Its stdout and stderr.
        lines: The requirements that were to be resolved or installed.
        denied: What the proxy refused meanwhile.
    """
    reason = _reason(output)
    if _UNRESOLVABLE in output:
        code, title = "unresolvable_dependency", "the dependencies cannot be resolved"
    elif is_unreachable(output):
        code, title = "index_unavailable", "the package index could not be reached"
    else:
        code, title = "dependency_build_failed", "the dependencies could not be installed"
    if denied:
        reason = f"{reason} (the build was refused: {'; '.join(dict.fromkeys(denied))})"
    named = [line for line in lines if _is_named(line, reason)]
    details = [{"field": "dependencies", "requirement": line, "message": reason} for line in named or lines]
    subject = f" ({', '.join(repr(line) for line in named)})" if named else ""
    return errors.BuildFailed(f"{title}{subject}: {reason}", code=code, details=details)


def is_unreachable(output: str) -> bool:
    """Whether uv failed for want of an answer from the index."""
    return any(sign in output for sign in _UNREACHABLE)


def _reason(output: str) -> str:
    """The causes, joined into sentences; the whole text when uv failed in a way it does not explain."""
    causes: list[str] = []
    for line in output.splitlines():
        text = line.strip()
        if text.startswith("cause:"):
            causes.append(text.removeprefix("cause:").strip())
        elif text.startswith("error:"):
            causes.append(text.removeprefix("error:").strip())
        elif text and causes:
            causes[-1] = f"{causes[-1]} {text}"
    told = [cause for cause in causes if not cause.startswith(_UNRESOLVABLE)] or [" ".join(output.split())]
    reason = ": ".join(told)
    for phrase in _EMPTY_PHRASES:
        reason = reason.replace(phrase, "")
    return reason if len(reason) <= MAX_REASON_CHARACTERS else f"{reason[:MAX_REASON_CHARACTERS]}..."


def _is_named(line: str, reason: str) -> bool:
    wanted = canonicalize_name(Requirement(line).name)
    return any(canonicalize_name(word.rstrip(".")) == wanted for word in _NAME.findall(reason))
