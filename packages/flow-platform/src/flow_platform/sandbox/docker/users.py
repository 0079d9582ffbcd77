"""Which user each container runs as: one of its own, as far as the engine lets us choose."""

from __future__ import annotations

import secrets
from typing import Final

from flow_platform.sandbox.namespaces import identity

FIRST_MAPPED: Final = 1000
LAST_MAPPED: Final = 60_000
"""Of an engine with a user namespace: its containers have 65,536 ids, which are nobody's out here."""


class Users:
    """Draws ids, so that a container cannot count the others by its own.

    Args:
        mapped: The engine maps the ids of its containers to others.
    """

    def __init__(self, *, mapped: bool) -> None:
        self._claim: identity.Identity | None = None
        self._taken: set[int] = set()
        self._first, self._last = FIRST_MAPPED, LAST_MAPPED
        if mapped:
            return
        if identity.is_privileged():
            self._claim = identity.claim_identity()  # A range that is ours alone on this machine.
            first = self._claim.maps["uid"][0][1]
        else:
            first = identity.FIRST_ROOT_ID
        self._first, self._last = first + 1, first + identity.RANGE - 2

    def take(self) -> int:
        while True:
            user = self._first + secrets.randbelow(self._last - self._first + 1)
            if user not in self._taken:
                self._taken.add(user)
                return user

    def give_back(self, user: int) -> None:
        self._taken.discard(user)

    def release(self) -> None:
        if self._claim is not None:
            self._claim.release()
