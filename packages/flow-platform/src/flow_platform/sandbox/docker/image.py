"""The platform's own image: this machine's Python and SDK, without a registry and without a builder.

It is the runtime root that our own containers have, in the one format that both Docker and Podman load: a tar of one
layer, a configuration and a manifest. The same root gives the same bytes: names are sorted, times are zero, files are
root's, and compiled modules are marked as always valid, since their sources' times are not kept.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import platform
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any, Final

from flow_platform.sandbox.docker.creation import COMMAND_LABEL
from flow_platform.sandbox.namespaces.runtime_root import PYTHON

NAME: Final = "flow-harness"
LAYOUT: Final = "1"
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_MOUNT_POINTS: Final = ("sys", "run", "run/flow", "var", "var/tmp", "dev/shm", "dev/pts", "dev/mqueue")
_LEFT_OUT: Final = ("build",)
_COMMAND: Final = (
    *(PYTHON, "-I", "-S", "-B", "-X", "utf8", "-c"),
    "import sys; sys.path += ['/flow/sdk', '/flow/packages']; from flow_sdk.harness import container; container.main()",
)
_COMPILED_HEADER: Final = 16
_TIMES_CHECKED: Final = b"\0\0\0\0"
_NEVER_CHECKED: Final = b"\1\0\0\0"
_CHUNK_BYTES: Final = 1 << 20


def name_of(key: str) -> str:
    """Of the image of a runtime root: its content decides its name."""
    return f"{NAME}:{key}-{LAYOUT}"


def write(root: Path, key: str, target: IO[bytes]) -> str:
    """Writes the image of a runtime root as `docker load` and `podman load` take it; returns its name."""
    name = name_of(key)
    with tempfile.TemporaryFile() as layer:
        _write_layer(root, layer)
        length = layer.tell()
        layer.seek(0)
        digest = hashlib.file_digest(layer, "sha256").hexdigest()
        config = json.dumps(_config(digest), sort_keys=True).encode()
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}]
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, _entry(config_name, 0o644), config)
            archive.addfile(_directory(digest))
            entry = _entry(f"{digest}/layer.tar", 0o644)
            entry.size = length
            layer.seek(0)
            archive.addfile(entry, layer)
            _add(archive, _entry("manifest.json", 0o644), json.dumps(manifest).encode())
    return name


async def read_archive(root: Path, key: str) -> AsyncIterator[bytes]:
    """The same, in pieces."""
    import asyncio

    loop = asyncio.get_running_loop()
    with tempfile.TemporaryFile() as archive:
        await loop.run_in_executor(None, write, root, key, archive)
        archive.seek(0)
        while chunk := archive.read(_CHUNK_BYTES):
            yield chunk


def _config(digest: str) -> dict[str, Any]:
    return {
        "architecture": _MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": "1000:1000",
            "Env": ["PATH=/python/bin"],
            "Cmd": list(_COMMAND),
            "WorkingDir": "/",
            "Labels": {COMMAND_LABEL: json.dumps(_COMMAND)},
        },
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "flow image build"}],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }


def _write_layer(root: Path, target: IO[bytes]) -> None:
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as layer:
        paths = sorted(_paths(root))
        known = {relative for relative, _ in paths}
        for relative, path in sorted([*paths, *((point, None) for point in _MOUNT_POINTS if point not in known)]):
            if path is None or (path.is_dir() and not path.is_symlink()):
                layer.addfile(_directory(relative, 0o1777 if relative in ("tmp", "var/tmp") else 0o755))
            elif path.is_symlink():
                entry = _entry(relative, 0o777)
                entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
                layer.addfile(entry)
            else:
                content = _content(path)
                if content is not None:
                    _add(layer, _entry(relative, 0o755 if path.stat().st_mode & 0o100 else 0o644), content)
    target.seek(0, os.SEEK_END)


def _paths(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, files in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if name not in _LEFT_OUT]
        for name in (*folders, *files):
            path = Path(folder, name)
            yield str(path.relative_to(root)), path


def _content(path: Path) -> bytes | None:
    """What goes into the image; None for a compiled module that is not its source's."""
    content = path.read_bytes()
    if path.suffix != ".pyc" or content[4:8] != _TIMES_CHECKED:
        return content
    source = path.parent.parent / f"{path.name.partition('.')[0]}.py"
    try:
        at, text = source.stat(), source.read_bytes()
    except OSError:
        return None
    size_and_time = int.from_bytes(content[8:12], "little"), int.from_bytes(content[12:16], "little")
    if size_and_time != (int(at.st_mtime) & 0xFFFFFFFF, at.st_size & 0xFFFFFFFF):
        return None
    return content[:4] + _NEVER_CHECKED + importlib.util.source_hash(text) + content[_COMPILED_HEADER:]


def _entry(name: str, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    return entry  # Root's, of 1970.


def _directory(name: str, mode: int = 0o755) -> tarfile.TarInfo:
    entry = _entry(name, mode)
    entry.type = tarfile.DIRTYPE
    return entry


def _add(archive: tarfile.TarFile, entry: tarfile.TarInfo, content: bytes) -> None:
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
