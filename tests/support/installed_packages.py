"""A package index of what is installed here: wheels made from it again, always the same for the same files.

So tests that need real packages reach no index but this one, and the environments that they build are built once.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.package_index import PackageIndex

LEFT_OUT = (".pyc", "/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json")
EXTRA_OF_NOTHING = {"extra": ""}


class InstalledPackages(PackageIndex):
    """Serves the packages that these requirements need, at the versions that are installed."""

    def __init__(self, *requirements: str) -> None:
        super().__init__()
        self._installed = {_key(name): name for name in needed_by(requirements)}

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make a platform use it."""
        return {"UV_DEFAULT_INDEX": self.index.urls[0]}

    def page(self, path: str) -> tuple[bytes | None, str]:
        parts = path.strip("/").split("/")
        key = _key(parts[1]) if len(parts) > 1 else ""
        if key in self._installed and key not in self.files:
            self.files[key] = dict([packed(self._installed[key])])
        return super().page(path)


def needed_by(requirements: tuple[str, ...]) -> set[str]:
    """Names of all that is needed, extras included."""
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [Requirement(text) for text in requirements]
    while queue:
        requirement = queue.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        seen.add((name, extras))
        for text in distribution.requires or ():
            needed = Requirement(text)
            wanted = [{"extra": extra} for extra in extras] or [EXTRA_OF_NOTHING]
            if needed.marker is None or any(needed.marker.evaluate(where) for where in wanted):
                queue.append(needed)
    return {name for name, _ in seen}


def packed(name: str) -> tuple[str, bytes]:
    """The file name and the bytes of a wheel with an installed distribution's files."""
    distribution = metadata.distribution(name)
    tag = re.findall(r"^Tag: (\S+)", distribution.read_text("WHEEL") or "", re.MULTILINE)[0]
    content: dict[str, bytes] = {}
    record = ""
    for entry in distribution.files or ():
        path = str(entry)
        file = Path(str(distribution.locate_file(entry)))
        if path.startswith((".", "/")) or path.endswith(
            (".pyc", "/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json")
        ):
            record = path if path.endswith("/RECORD") else record
            continue
        if file.is_file():
            content[path] = file.read_bytes()
    content[record] = _record(content, record)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, data in sorted(content.items()):
            archive.writestr(zipfile.ZipInfo(path), data)
    return f"{_key(name)}-{distribution.version}-{tag}.whl", made.getvalue()


def _record(content: dict[str, bytes], record: str) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for path, data in sorted(content.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow((path, f"sha256={digest}", len(data)))
    rows.writerow((record, "", ""))
    return text.getvalue().encode()


def _key(name: str) -> str:
    return canonicalize_name(name).replace("-", "_")
