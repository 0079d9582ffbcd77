"""How far from the machine's other work an execution runs: the rungs of the trust ladder, the weakest first.

No imports beyond the standard library.
"""

from __future__ import annotations

import enum


class Isolation(enum.StrEnum):
    """What stands between an execution and the machine. They have an order: `PROCESS < ... < GVISOR`, by strength.

    Compare and take the `max` of members only; a string is read as the member of that name.
    """

    PROCESS = "process"  # A plain process of the runner's user: nothing. For development only.
    NAMESPACES = "namespaces"  # The platform's own containers; the default.
    DOCKER = "docker"  # A container of Docker or Podman.
    GVISOR = "gvisor"  # A kernel of its own, in user space.

    @property
    def rank(self) -> int:
        """0 for the weakest."""
        return RANKS[self.value]

    def __lt__(self, other: str) -> bool:
        return self.rank < Isolation(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Isolation(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Isolation(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Isolation(other).rank


RANKS = {member.value: rank for rank, member in enumerate(Isolation)}
DEFAULT = Isolation.NAMESPACES
