"""A component's requirements, checked before uv sees them. Pure.

Only names with versions are taken: a file, a folder or a URL would be read where the build runs, not where the
component was written, and could not be locked by hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from flow_platform.domain import errors

EXPECTED = "a name with optional extras, versions and marker, like 'python-slugify>=8'"


@dataclass(frozen=True)
class Checked:
    """Requirements that uv shall resolve; empty when the base has all of them."""

    lines: tuple[str, ...]


def check(dependencies: Sequence[str], ours: Mapping[str, str]) -> Checked:
    """Parses the requirements and takes out our own distributions, which every container has.

    Args:
        ours: Name -> version of distributions that exist in no index, e.g. the SDK.

    Raises:
        BuildFailed: A requirement is malformed, a direct reference, or asks for another version of one of ours.
    """
    lines: list[str] = []
    for text in dependencies:
        requirement = _parse(text)
        if requirement.url is not None:
            raise _refused(text, f"is a direct reference to {requirement.url!r}: expected {EXPECTED}")
        version = ours.get(canonicalize_name(requirement.name))
        if version is None:
            lines.append(str(requirement))
        elif not requirement.specifier.contains(version, prereleases=True):
            raise _refused(text, f"asks for another version than the platform's own {version!r}")
    return Checked(tuple(sorted(set(lines))))


def _parse(text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise _refused(text, f"is not a requirement ({reason}): expected {EXPECTED}") from error


def _refused(text: str, reason: str) -> errors.BuildFailed:
    message = f"requirement {text!r} {reason}"
    return errors.BuildFailed(
        message,
        code="invalid_requirement",
        details=[{"field": "dependencies", "requirement": text, "message": message}],
    )
