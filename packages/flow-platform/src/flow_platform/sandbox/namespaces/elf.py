"""Which shared libraries a binary needs: a reader of the ELF dynamic section, so that no untrusted file is ever run.

Source: System V ABI, chapter 5 (program header, dynamic section); ld.so(8) for the order of search.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PT_LOAD, _PT_DYNAMIC, _PT_INTERPRETER = 1, 2, 3
_DT_NEEDED, _DT_STRING_TABLE, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_DYNAMIC_ENTRY: Final = struct.Struct("<qQ")

_SYSTEM_FOLDERS: Final = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib64", "/usr/local/lib")


@dataclass(frozen=True)
class Binary:
    """What the dynamic loader would read of a file."""

    machine: int
    interpreter: str
    needed: tuple[str, ...]
    search: tuple[str, ...]


def read_binary(path: Path) -> Binary | None:
    """Reads a 64-bit little-endian ELF file; None for any other file."""
    content = path.read_bytes()
    if content[:6] != b"\x7fELF\x02\x01":
        return None
    try:
        return _parse(content)
    except (struct.error, ValueError, IndexError):
        return None


def _parse(content: bytes) -> Binary:
    machine = struct.unpack_from("<H", content, 18)[0]
    (table,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    headers = [_PROGRAM_HEADER.unpack_from(content, table + index * size) for index in range(count)]
    interpreter = ""
    entries: list[tuple[int, int]] = []
    for kind, _, offset, _, _, length, _, _ in headers:
        if kind == _PT_INTERPRETER:
            interpreter = content[offset : offset + length].rstrip(b"\0").decode()
        elif kind == _PT_DYNAMIC:
            whole = length - length % _DYNAMIC_ENTRY.size
            entries = list(_DYNAMIC_ENTRY.iter_unpack(content[offset : offset + whole]))
    strings = next((value for tag, value in entries if tag == _DT_STRING_TABLE), 0)
    for kind, _, offset, address, _, length, _, _ in headers:
        if kind == _PT_LOAD and address <= strings < address + length:
            strings = strings - address + offset
            break

    def text(position: int) -> str:
        start = strings + position
        return content[start : content.index(b"\0", start)].decode()

    search = [text(value) for tag, value in entries if tag in (_DT_RPATH, _DT_RUNPATH)]
    return Binary(
        machine=machine,
        interpreter=interpreter,
        needed=tuple(text(value) for tag, value in entries if tag == _DT_NEEDED),
        search=tuple(folder for paths in search for folder in paths.split(":") if folder),
    )


class Libraries:
    """Finds libraries as the dynamic loader of this machine would."""

    def __init__(self, machine: int) -> None:
        self._machine = machine
        self._folders = list(_system_folders())
        self._binaries: dict[Path, Binary | None] = {}

    def find(self, name: str, search: Iterable[str] = (), origin: Path | None = None) -> Path | None:
        """The file for a needed name, or None when there is none for this kind of machine."""
        folders = [Path(folder.replace("$ORIGIN", str(origin)).replace("${ORIGIN}", str(origin))) for folder in search]
        for folder in (*folders, *self._folders):
            candidate = folder / name
            if candidate.is_file():
                binary = self._read(candidate)
                if binary is not None and binary.machine == self._machine:
                    return candidate
        return None

    def closure(self, starts: Iterable[Path], extra: Iterable[str] = ()) -> dict[str, Path]:
        """Everything that the files need, directly or not, by name.

        Args:
            extra: Names that are loaded by `dlopen` and so stand in no header; missing ones are skipped.
        """
        found: dict[str, Path] = {}
        queue = list(starts)
        for name in extra:
            path = self.find(name)
            if path is not None:
                found[name] = path
                queue.append(path)
        while queue:
            path = queue.pop()
            binary = self._read(path)
            if binary is None:
                continue
            for name in binary.needed:
                if name in found:
                    continue
                library = self.find(name, binary.search, path.resolve().parent)
                if library is not None:
                    found[name] = library
                    queue.append(library)
        return found

    def _read(self, path: Path) -> Binary | None:
        if path not in self._binaries:
            self._binaries[path] = read_binary(path)
        return self._binaries[path]


def _system_folders() -> Iterable[Path]:
    multiarch = [Path(folder) for pattern in ("/lib", "/usr/lib") for folder in Path(pattern).glob("*-linux-gnu")]
    configured: list[Path] = []
    for configuration in Path("/etc").glob("ld.so.conf.d/*.conf"):
        lines = configuration.read_text(errors="replace").split("\n")
        configured += [Path(line.strip()) for line in lines if line.strip().startswith("/")]
    return [*multiarch, *(Path(folder) for folder in _SYSTEM_FOLDERS), *configured]
