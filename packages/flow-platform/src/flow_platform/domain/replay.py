"""Durable workflows from plain calls: which call of a new attempt is which call of an earlier one.

When an attempt of a workflow is lost, the next one runs the same code again, and its calls are given what the earlier
calls were given. A call is known by its parent, its content (`flow_sdk.wire.replay`) and its occurrence: how many equal
calls the attempt made before it. So parallel calls may come in any order, and calls in a loop are told apart.

The client needs to know nothing of it: parent and attempt are in the execution's token. Our own harness counts equal
calls itself, so that it is their order in the code that counts, and may be given ended calls before it makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flow_sdk.wire.durable import SUSPENDED
from flow_sdk.wire.status import Status

LOST: Final = frozenset({"runner_lost", "container_lost", "process_crashed", "sandbox_unavailable", "protocol_error"})
"""Errors of an attempt that say nothing about the code: its container or runner went away."""

RETURNED: Final = "runner_drained"
"""Of an attempt whose runner stopped in good order and handed it back."""

INTERRUPTED: Final = LOST | {SUSPENDED, RETURNED}
"""Ends of an attempt after which the code goes on from where it was: it shall see what it saw."""


@dataclass(frozen=True)
class Call:
    """One call that a workflow made, over all its attempts.

    Attributes:
        occurrence: How many equal calls the same attempt made before it, from 0.
        ordinal: Its place among all calls of the parent, from 1, in the order in which they were first made.
        first_attempt: The attempt that made it first.
        attempt: The last attempt that made it.
        execution_id: The child that stands for it; None for a checkpoint.
        component: Kind and slug, for messages; of a checkpoint its kind and name.
        is_numbered: Its occurrence was said by the harness. Only such calls are given ahead: of calls that the platform
            counts it could not know which of them are made meanwhile.
        lent: The last attempt that it was given to ahead. Until that attempt says which of these it made, or that it
            makes no more, nobody knows.
    """

    parent_id: str
    key: str
    occurrence: int
    ordinal: int
    first_attempt: int
    attempt: int
    execution_id: str | None
    component: str
    checkpoint_id: str | None = None
    is_numbered: bool = False
    lent: int = 0


def stands(child: Status, earlier_attempt_error: str) -> bool:
    """Whether the outcome of a call is given again, by how the attempt ended that made it last.

    Always if that was interrupted: the workflow shall see what it saw. If it failed, completed and unfinished children
    stand and the others are made anew: that is what a retry is for. One that is being cancelled has no future.
    """
    if earlier_attempt_error in INTERRUPTED or child is Status.COMPLETED:
        return True
    return not child.is_terminal and child is not Status.CANCELLING
