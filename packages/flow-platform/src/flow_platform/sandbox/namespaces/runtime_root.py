"""Assembles the read-only root of all containers: Python, the SDK with what it needs, the libraries, nothing else.

It is a folder, made by copying once per combination of interpreter, SDK and packages, and renamed into place when it is
complete. Copies, not links: what happens to the host's files later must not reach a container.

    /python             interpreter and standard library      /lib, /lib64   the C library and what else is linked
    /flow/sdk           flow_sdk, and the program of the jail  /etc          five small files, certificate authorities
    /flow/packages      what flow_sdk needs                    /env          the component's own packages (a mount)
"""

from __future__ import annotations

import compileall
import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import ssl
import sys
import sysconfig
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import certifi

import flow_platform
import flow_sdk
from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import CERTIFICATES
from flow_platform.sandbox.namespaces import distributions, elf

LAYOUT: Final = "1"  # Part of the key: a change of this file's outcome makes new roots.

INSIDE: Final = (
    "__init__.py",
    "syscalls.py",
    "syscall_numbers.py",
    "seccomp.py",
    "seal.py",
    "shared_memory.py",
    "forks.py",
    "preload.py",
    "template.py",
)
"""The files of this package that run inside the jail."""

INSIDE_GVISOR: Final = ("__init__.py", "launcher.py", "keeper.py", "component.py", "ferry.py", "calls.py")
"""Those of the package `gvisor` beside it."""

PYTHON: Final = f"/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"

_LEFT_OUT_NAMES: Final = """
test tests idlelib idle_test tkinter turtledemo lib2to3 ensurepip site-packages dist-packages pydoc_data
"""
_STANDARD_LIBRARY_LEFT_OUT: Final = frozenset(_LEFT_OUT_NAMES.split())
_MODULES_LEFT_OUT: Final = ("_tkinter.", "nis.", "_test", "_xxsub", "_xxtest", "xxlimited", "_ctypes_test.")

# Loaded at run time by wheels that follow the manylinux rules, or by the C library itself.
_EXTRA_LIBRARIES: Final = """
libgcc_s.so.1 libstdc++.so.6 libm.so.6 libdl.so.2 librt.so.1 libpthread.so.0 libutil.so.1 libresolv.so.2 libz.so.1
libexpat.so.1 libcrypt.so.1 libnss_files.so.2
"""
_FOLDERS: Final = ("proc", "dev", "tmp", "env", "etc/ssl", "usr/lib", "usr/lib64", "flow/sdk", "flow/packages", "build")
_ETC: Final = {
    "passwd": "app:x:1000:1000::/tmp:/bin/false\n",
    "group": "app:x:1000:\n",
    "hosts": "127.0.0.1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "host.conf": "multi on\n",
}
_UNUSED_SECONDS: Final = 3600.0  # A root nobody holds for so long is removed.


@dataclass(frozen=True)
class RuntimeRoot:
    """A root that is in use: its lock keeps others from removing it.

    Attributes:
        path: Where it is on the host.
        key: Digest of everything it was made of.
    """

    path: Path
    key: str
    lock: int

    def release(self) -> None:
        os.close(self.lock)


def ensure_runtime_root(cache_dir: Path) -> RuntimeRoot:
    """Returns the root for this interpreter and SDK; makes it when it is missing. Safe against other processes.

    Raises:
        SandboxUnavailable: The cache cannot be written, or a part of Python could not be found.
    """
    try:
        folder = cache_dir / "runtime"
        folder.mkdir(parents=True, exist_ok=True)
        for parent in (cache_dir, folder):
            parent.chmod(0o755)  # Containers look their files up as other users; a umask of 077 must not hinder them.
        key = _key()
        lock = os.open(folder / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_SH)  # In use: held until `release`, so nothing may ever wait for more than this.
        root = folder / key
        if not root.is_dir():
            with _making(folder):
                if not root.is_dir():
                    _assemble(folder, root)
        os.utime(folder / f"{key}.lock")
        _remove_unused(folder, key)
        _remove_abandoned(folder)
    except OSError as exc:
        raise SandboxUnavailable(
            f"the runtime root under {str(cache_dir)!r} cannot be made: {exc}",
            hint="choose a cache_dir that this user can write, with about 100 MB of space",
        ) from exc
    return RuntimeRoot(path=root, key=key, lock=lock)


@contextlib.contextmanager
def _making(folder: Path) -> Generator[None]:
    """One process or thread at a time."""
    lock = os.open(folder / ".making", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _sdk_folder() -> Path:
    return Path(str(flow_sdk.__file__)).resolve().parent


def _jail_folder() -> Path:
    return Path(__file__).resolve().parent


def _key() -> str:
    """Content, not times, for our own files: an editable install is edited."""
    digest = hashlib.sha256(f"{LAYOUT} {sys.version} {platform.machine()} {sys.base_prefix}".encode())
    interpreter = Path(sys.executable).resolve().stat()
    digest.update(f"{interpreter.st_size} {interpreter.st_mtime_ns}".encode())
    for source in sorted(_sdk_folder().rglob("*.py")):
        digest.update(str(source.relative_to(_sdk_folder())).encode() + b"\0" + source.read_bytes())
    for name in (*INSIDE, "runtime_root.py"):
        digest.update((_jail_folder() / name).read_bytes())
    for name in INSIDE_GVISOR:
        digest.update((_jail_folder().parent / "gvisor" / name).read_bytes())
    digest.update(_certificates().read_bytes())
    for distribution in distributions.needed_by("flow-sdk"):
        digest.update(f"{distribution.name} {distribution.version}".encode())
    return digest.hexdigest()[:20]


def _certificates() -> Path:
    """The operator's choice, what this machine trusts, or else what came with the SDK's HTTP client."""
    for candidate in (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return Path(certifi.where())


def _assemble(folder: Path, root: Path) -> None:
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
    try:
        for name in _FOLDERS:
            (building / name).mkdir(parents=True)
        (building / "lib").symlink_to("usr/lib")
        (building / "lib64").symlink_to("usr/lib64")
        (building / "tmp").chmod(0o1777)
        for name, content in _ETC.items():
            (building / "etc" / name).write_text(content)
        binaries = [_copy_python(building)]
        binaries += _copy_packages(building)
        _copy_ours(building)
        shutil.copyfile(_certificates(), building / CERTIFICATES.lstrip("/"))
        _copy_libraries(building, [*binaries, *building.rglob("*.so")], binaries[0])
        _let_everyone_read(building)
        building.chmod(0o755)
        building.rename(root)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _copy_python(building: Path) -> Path:
    source = Path(sys.executable).resolve()
    target = building / PYTHON.lstrip("/")
    target.parent.mkdir(parents=True)
    shutil.copy2(source, target)
    (target.parent / "python3").symlink_to(target.name)
    (target.parent / "python").symlink_to(target.name)
    (building / "usr/bin").symlink_to("../python/bin")
    (building / "bin").symlink_to("python/bin")
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(
        library, building / "python/lib" / target.name, symlinks=False, ignore=_left_out, ignore_dangling_symlinks=True
    )
    return source


def _left_out(folder: str, names: list[str]) -> list[str]:
    in_modules = folder.endswith("lib-dynload")
    return [
        name
        for name in names
        if name in _STANDARD_LIBRARY_LEFT_OUT
        or name.startswith("config-")
        or name.endswith((".a", ".opt-1.pyc", ".opt-2.pyc"))
        or (in_modules and name.startswith(_MODULES_LEFT_OUT))
    ]


def _copy_packages(building: Path) -> list[Path]:
    """Returns the binaries among them, where they came from: their search paths are relative to that."""
    binaries: list[Path] = []
    packages = building / "flow/packages"
    for distribution in distributions.needed_by("flow-sdk"):
        for source, relative in distributions.files_of(distribution):
            target = packages / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
            if ".so" in source.name:
                binaries.append(source)
    _compile(building, packages)
    return binaries


def _copy_ours(building: Path) -> None:
    sdk = building / "flow/sdk"
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(_sdk_folder(), sdk / "flow_sdk", ignore=skip)
    inside = sdk / "flow_platform/sandbox/namespaces"
    inside.mkdir(parents=True)
    platform_folder = Path(str(flow_platform.__file__)).resolve().parent
    for package in ("", "sandbox"):
        shutil.copy2(platform_folder / package / "__init__.py", sdk / "flow_platform" / package / "__init__.py")
    for name in INSIDE:
        shutil.copy2(_jail_folder() / name, inside / name)
    gvisor = inside.parent / "gvisor"
    gvisor.mkdir()
    for name in INSIDE_GVISOR:
        shutil.copy2(_jail_folder().parent / "gvisor" / name, gvisor / name)
    _compile(building, sdk)


def _compile(building: Path, folder: Path) -> None:
    compileall.compile_dir(folder, quiet=2, stripdir=str(building), prependdir="/")


def _copy_libraries(building: Path, binaries: list[Path], interpreter: Path) -> None:
    """Puts all libraries beside the C library: the dynamic loader searches there without any configuration."""
    python = elf.read_binary(interpreter)
    if python is None or not python.interpreter:
        raise SandboxUnavailable(f"{str(interpreter)!r} is not a dynamically linked 64-bit ELF program")
    libraries = elf.Libraries(python.machine)
    found = libraries.closure(binaries, _EXTRA_LIBRARIES.split())
    c_library = next((path for name, path in found.items() if name.startswith(("libc.so", "libc.musl"))), None)
    if c_library is None:
        raise SandboxUnavailable(f"the C library of {str(interpreter)!r} was not found")
    folder = building / c_library.resolve().parent.relative_to("/")
    if not str(folder).startswith(str(building / "usr")):
        folder = building / "usr" / c_library.resolve().parent.relative_to("/")
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in found.items():
        if not path.is_relative_to(building):
            shutil.copy2(path.resolve(), folder / name)
    loader = building / python.interpreter.lstrip("/")
    loader.parent.mkdir(parents=True, exist_ok=True)
    if not loader.exists():
        shutil.copy2(Path(python.interpreter).resolve(), loader)


def _let_everyone_read(building: Path) -> None:
    for folder, _, names in os.walk(building):
        Path(folder).chmod(0o1777 if Path(folder) == building / "tmp" else 0o755)
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _remove_unused(folder: Path, key: str) -> None:
    for lock_path in _stale_locks(folder, key):
        try:
            lock = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The lock file stays: removing it would let two processes hold "the" lock.
            shutil.rmtree(folder / lock_path.stem, ignore_errors=True)
        except BlockingIOError:
            pass  # In use.
        finally:
            os.close(lock)


def _remove_abandoned(folder: Path) -> None:
    """Removes what a process that died while assembling left."""
    oldest = time.time() - _UNUSED_SECONDS  # noqa: TID251 - compared with the file system's clock.
    for path in folder.glob(".building-*"):
        try:
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path, ignore_errors=True)
        except FileNotFoundError:
            continue


def _stale_locks(folder: Path, key: str) -> Iterator[Path]:
    oldest = time.time() - _UNUSED_SECONDS  # noqa: TID251 - compared with the file system's clock.
    for path in folder.glob("*.lock"):
        try:
            if path.stem != key and (folder / path.stem).is_dir() and path.stat().st_mtime < oldest:
                yield path
        except FileNotFoundError:
            continue
