"""`flow demo --crash`: kills the demo's runner half-way, and proves from the records that nothing was done twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flow_platform.cli import output
from flow_platform.cli.bench_process import tree
from flow_platform.domain.errors import FlowError
from flow_sdk.wire.status import Status

if TYPE_CHECKING:
    from flow_sdk.wire.execution import StatusDocument

_RUNNER: Final = b"flow_platform.bootstrap\0runner"


@dataclass
class Crash:
    """Kills the runner once so many children have ended.

    Attributes:
        platform: The process of `flow up`.
        children: How many the workflow starts, if none is started twice.
        ended: Ids of those that had ended when the runner was killed; None: it was not killed yet.
    """

    platform: int
    children: int
    runner: int = 0
    ended: frozenset[str] | None = field(default=None)

    def look(self, below: Sequence[StatusDocument]) -> None:
        """Given the children as they are now."""
        ended = frozenset(child.execution_id for child in below if child.status.is_terminal)
        if self.ended is None and len(ended) * 2 >= self.children:
            self.runner = runner_of(self.platform)
            os.kill(self.runner, signal.SIGKILL)
            self.ended = ended
            output.say(f"  kill -9 {self.runner}: the runner, with its containers; {len(ended)} had ended")

    def proof(self, workflow: StatusDocument, below: Sequence[StatusDocument]) -> dict[str, Any]:
        """What the records say.

        Raises:
            FlowError: It ended before it could be killed, or something was done twice.
        """
        if self.ended is None or workflow.attempt == 1:
            raise FlowError("the workflow ended before its runner was killed", hint="give it more: --modules 60")
        done_before = [child for child in below if child.execution_id in self.ended]
        found = {
            "killed": self.runner,
            "ended_before": len(self.ended),
            "children": len(below),
            "expected": self.children,
            "completed": sum(child.status is Status.COMPLETED for child in below),
            "begun_again": sum(child.attempt > 1 for child in below),
            "ended_before_and_begun_again": sum(child.attempt > 1 for child in done_before),
            "workflow_attempts": workflow.attempt,
        }
        once = found["children"] == found["completed"] == self.children and not found["ended_before_and_begun_again"]
        if not once or len(done_before) < len(self.ended):
            raise FlowError(f"not every child ran to completion once: {found}")
        return found


def show_proof(proof: dict[str, Any]) -> None:
    output.emit(f"\nThe runner was killed with SIGKILL when {proof['ended_before']} containers had ended. On record:")
    rows = [
        ["executions that the workflow started", str(proof["children"]), f"{proof['expected']} calls in its code"],
        ["of these ran to completion, once", str(proof["completed"]), ""],
        ["ended before the kill, and begun again", str(proof["ended_before_and_begun_again"]), ""],
        ["under way at the kill, and begun again", str(proof["begun_again"]), "attempt 2"],
        ["attempts of the workflow", str(proof["workflow_attempts"]), "one lost; each other one went on"],
    ]
    output.show_table(("what", "number", ""), rows)


def runner_of(platform: int) -> int:
    """The runner below `flow up`.

    Raises:
        FlowError: There is none.
    """
    for process in tree(platform):
        try:
            is_runner = _RUNNER in Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue
        if is_runner:
            return process
    raise FlowError(f"no runner runs below process {platform}")
