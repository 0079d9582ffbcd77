"""Which user ids containers run as, and who may write the maps.

root        a range of host ids that belongs to nobody; the jail's own root is one of them, not the host's
newuidmap   the range that /etc/subuid gives this user
self        this user alone: works everywhere, but all containers share one id, so RLIMIT_NPROC counts them together
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from flow_platform.domain.errors import SandboxUnavailable

FIRST_ROOT_ID: Final = 1_900_000_000
"""Above what useradd, subordinate ids and systemd hand out."""

RANGE: Final = 65_536
_SLICES: Final = 64  # Runners of one machine that can share it, each with ids of its own.
_SUBORDINATE_SLICES: Final = 16
_CAPABILITIES: Final = (6, 7, 21)  # SETGID, SETUID, SYS_ADMIN


@dataclass(frozen=True)
class Identity:
    """Attributes:
    mapper: `root`, `newuidmap` or `self`.
    maps: `uid` and `gid`: lines of (inside, outside, count).
    users: How many ids, from 1, containers can have of their own; 0: none.
    claim: Keeps the range ours on this machine, until it is closed.
    taken: Those that living containers have.
    """

    mapper: str
    maps: dict[str, list[list[int]]]
    users: int
    claim: socket.socket | None
    taken: set[int] = field(default_factory=set[int])

    @property
    def privileged(self) -> bool:
        return self.mapper == "root"

    def take_user(self) -> int | None:
        """An id that no other container has now; None where there are none.

        Drawn, not counted: a container can read its id, and how many others there were in between is not its to know.

        Raises:
            SandboxUnavailable: All are taken.
        """
        if not self.users:
            return None
        if len(self.taken) >= self.users:
            raise SandboxUnavailable(f"all {self.users} user ids of this runner are in use by its containers")
        while True:
            user = 1 + secrets.randbelow(self.users)
            if user not in self.taken:
                self.taken.add(user)
                return user

    def give_back(self, user: int | None) -> None:
        if user is not None:
            self.taken.discard(user)

    def release(self) -> None:
        if self.claim is not None:
            self.claim.close()


def is_privileged() -> bool:
    """Root with the capabilities that mapping and mounting take; root in a plain Docker container has them not."""
    if os.geteuid() != 0:
        return False
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            return all(effective >> capability & 1 for capability in _CAPABILITIES)
    return False


def claim_identity() -> Identity:
    """Takes the best identity that this user can have.

    Raises:
        SandboxUnavailable: All ranges of the machine are taken.
    """
    if is_privileged():
        claim, index = _claim("root", _SLICES)
        first = FIRST_ROOT_ID + index * RANGE
        lines = [[0, first, RANGE]]
        return Identity(mapper="root", maps={"uid": lines, "gid": lines}, users=RANGE - 2, claim=claim)
    uid, gid = os.geteuid(), os.getegid()
    subordinate_uids = _subordinate(Path("/etc/subuid"), uid)
    subordinate_gids = _subordinate(Path("/etc/subgid"), uid)
    if shutil.which("newuidmap") and shutil.which("newgidmap") and subordinate_uids and subordinate_gids:
        (first_uid, uids), (first_gid, gids) = subordinate_uids, subordinate_gids
        count = min(uids, gids) // _SUBORDINATE_SLICES
        claim, index = _claim(f"user-{uid}", _SUBORDINATE_SLICES)
        return Identity(
            mapper="newuidmap",
            maps={
                "uid": [[0, uid, 1], [1, first_uid + index * count, count]],
                "gid": [[0, gid, 1], [1, first_gid + index * count, count]],
            },
            users=count,
            claim=claim,
        )
    return Identity(mapper="self", maps={"uid": [[0, uid, 1]], "gid": [[0, gid, 1]]}, users=0, claim=None)


def command_identity(identity: Identity) -> tuple[dict[str, list[list[int]]], int | None]:
    """The maps for one command, which runs as one user: as root a host id of its own, else ourselves.

    Returns:
        The maps, and the host id that must own what the command may write (None: no change needed).
    """
    if identity.mapper == "root":
        outside = identity.maps["uid"][0][1] + RANGE - 1  # Never a container's: those end before it.
        lines = [[1000, outside, 1]]
        return {"uid": lines, "gid": lines}, outside
    return {"uid": [[1000, os.geteuid(), 1]], "gid": [[1000, os.getegid(), 1]]}, None


def _subordinate(path: Path, uid: int) -> tuple[int, int] | None:
    try:
        names = {str(uid), pwd.getpwuid(uid).pw_name}
        lines = path.read_text().splitlines()
    except (OSError, KeyError):
        return None
    for line in lines:
        owner, _, numbers = line.partition(":")
        first, _, count = numbers.partition(":")
        if owner in names and first.isdigit() and count.isdigit() and int(count) >= _SUBORDINATE_SLICES * 256:
            return int(first), int(count)
    return None


def _claim(name: str, slices: int) -> tuple[socket.socket, int]:
    """An abstract socket is a lock for the whole machine that the kernel frees when its process dies."""
    for index in range(slices):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0flow-ids-{name}-{index}")
        except OSError:
            claim.close()
            continue
        return claim, index
    raise SandboxUnavailable(
        f"all {slices} ranges of user ids are in use by other runners on this machine", hint="stop one of them"
    )
