"""Which installed distributions the SDK needs, and which files they have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def needed_by(root: str) -> list[metadata.Distribution]:
    """Everything installed that `root` requires, directly or not, without `root` itself.

    Requirements of extras are left out. A requirement that is not installed is one whose marker does not hold here:
    the installer has already judged that.
    """
    seen: dict[str, metadata.Distribution] = {}
    queue = list(_requirements(metadata.distribution(root)))
    while queue:
        name = queue.pop()
        if name in seen or name == _normal(root):
            continue
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        seen[name] = found
        queue.extend(_requirements(found))
    return [seen[name] for name in sorted(seen)]


def files_of(distribution: metadata.Distribution) -> Iterator[tuple[Path, str]]:
    """The files of a distribution: where each is, and its path relative to the packages folder.

    Scripts outside of that folder are left out.
    """
    for entry in distribution.files or ():
        relative = str(entry)
        if relative.startswith((".", "/")) or ".." in entry.parts:
            continue
        path = Path(str(distribution.locate_file(entry)))
        if path.is_file():
            yield path, relative


def _requirements(distribution: metadata.Distribution) -> Iterator[str]:
    for requirement in distribution.requires or ():
        specifier, _, marker = requirement.partition(";")
        name = _NAME.match(specifier.strip())
        if name is not None and "extra" not in marker:
            yield _normal(name.group())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
