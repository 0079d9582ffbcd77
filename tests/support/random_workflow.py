"""Random workflow programs, run as plain asyncio code over a stage, and interrupted at random points.

The program is a tree of nodes. What is played is only the container: calls, checkpoints, suspension and retries are
those of the real engine. All that is random comes from one seed.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

from flow_platform.domain import errors
from flow_sdk.wire.durable import SUSPENDED, CheckpointDocument, CheckpointStatus
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Kind, Status
from tests.support.eventually import eventually
from tests.support.harness_calls import HarnessCalls
from tests.support.played_workflow import LOST, Workflow
from tests.support.retries import ERROR, retry
from tests.support.scripted_runner import held
from tests.support.stage import Stage

T = TypeVar("T")
LEAVES: Final = ("call", "call", "fails", "step", "bad step", "sleep", "event")
SLEEP: Final = 0.02
DRAINED: Final = {"code": "runner_drained", "message": "its runner stops"}


@dataclass(frozen=True)
class Node:
    kind: str
    name: str
    children: tuple[Node, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if not self.children else f"{self.kind}({', '.join(map(str, self.children))})"


def program_of(draw: random.Random) -> Node:
    """A sequence of leaves, groups side by side and loops; equal calls are likely, as in real loops."""

    def node(depth: int) -> Node:
        if depth == 2 or draw.random() < 0.55:
            kind = draw.choice(LEAVES)
            names = "ab" if kind in ("call", "fails") else "abcdefgh"
            return Node(kind, draw.choice(names))
        kind = draw.choice(("in sequence", "side by side"))
        return Node(kind, "", tuple(node(depth + 1) for _ in range(draw.randint(1, 3))))

    return Node("in sequence", "", tuple(node(0) for _ in range(draw.randint(2, 4))))


class Interrupted(BaseException):
    """The container is gone."""


@dataclass
class Run:
    """One execution of a program, over all its attempts.

    Attributes:
        ran: How often each child was handed to a runner and ended.
        done: How often each step's function was kept, by checkpoint.
        ids: Of the workflow, and of the one that repeats it.
        is_harness: Its calls go through the SDK, and so are numbered there and given ahead.
        harness: Of the attempt.
        left: Operations until the next interruption; None: there is none.
    """

    stage: Stage
    program: Node
    draw: random.Random
    workflow: Workflow
    ran: Counter[str] = field(default_factory=Counter[str])
    done: Counter[str] = field(default_factory=Counter[str])
    left: int | None = None
    own: asyncio.Queue[Assignment] = field(default_factory=asyncio.Queue[Assignment])
    waits: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    asked: Counter[str] = field(default_factory=Counter[str])
    losses: int = 0
    is_over: bool = False
    ids: list[str] = field(default_factory=list[str])
    is_harness: bool = False
    harness: HarnessCalls | None = None

    async def attempt(self) -> list[Any] | None:
        """The result; None when it was interrupted."""
        self.harness = HarnessCalls(self.workflow) if self.is_harness else None
        self.waits.clear()
        self.asked.clear()
        work = asyncio.create_task(self._perform(self.program))
        try:
            return await work
        except Interrupted:
            return None

    async def interrupt(self) -> None:
        """Ends the attempt in one way or the other, says a stale word after it, and waits for the next."""
        stale = self.workflow.assignment
        if self.waits and self.draw.random() < 0.5:
            await self.settle()
            details = [{"field": f"{kind}_id", "message": one} for kind, one in sorted(self.waits)]
            error: dict[str, Any] = {"code": SUSPENDED, "details": details}
        else:
            # The third loss at one place would end it.
            error = self.draw.choice([LOST, DRAINED]) if self.losses < 2 else DRAINED
            self.losses += error is LOST
        await self.stage.runner.report(stale, error=error)
        get = self.stage.get
        await eventually(
            lambda: get(self.workflow.id), lambda now: now.status is not Status.RUNNING or now.attempt > stale.attempt
        )
        self.stage.clock.advance(timedelta(seconds=3))  # Past the back-off, within the leases.
        await self.send_all()
        await self.begin()
        await self.speak_late(stale)

    async def settle(self) -> None:
        """What the harness says before it ends an attempt itself; one that is lost says nothing."""
        if self.harness is not None:
            await self.harness.end()

    async def begin(self) -> None:
        async def handed_out() -> bool:
            self.stage.clock.advance(timedelta(seconds=SLEEP))
            await self.stage.engine.sweeper.sweep(leases=False)
            return not self.own.empty()

        try:
            await eventually(handed_out, bool)
        except AssertionError as error:
            error.add_note(f"{await self.stage.get(self.workflow.id)} of {self.program}")
            raise
        self.workflow.assignment = self.own.get_nowait()

    async def speak_late(self, stale: Assignment) -> None:
        """What an attempt says that is over changes nothing: neither a report nor a call."""
        await self.stage.runner.report(stale, "stale")
        try:
            await self.stage.submit("block", principal=self.stage.inside(stale), input_data={"stale": True})
        except errors.FlowError as error:
            refused = error.error_code
        else:
            refused = "nothing"
        assert refused in ("parent_ended", "token_revoked")

    async def send_all(self) -> None:
        """Every event that the program may wait for, once, however often it is asked to."""
        for name, count in Counter(_names(self.program, "event")).items():
            for number in range(count):
                await self.workflow.send(name, number, key=f"{name}-{number}")

    async def fail_and_retry(self) -> None:
        """Ends it as failed, and goes on as the execution that repeats it."""
        await self.settle()
        await self.stage.runner.report(self.workflow.assignment, error=ERROR)
        ended = await self.stage.wait(self.workflow.id)
        assert ended.status is Status.FAILED, ended
        self.workflow.id = (await retry(self.stage, self.workflow.id)).id
        self.ids.append(self.workflow.id)
        await self.begin()

    async def _perform(self, node: Node) -> Any:
        match node.kind:
            case "in sequence":
                return [await self._perform(child) for child in node.children]
            case "side by side":
                return await self._together(node)
            case "call" | "fails":
                return await self._call(node)
            case "step" | "bad step":
                return await self._step(node)
            case "sleep":
                return await self._wait("timer", node.name, seconds=SLEEP)
            case _:
                return await self._wait("event", node.name)

    async def _together(self, node: Node) -> list[Any]:
        tasks = [asyncio.create_task(self._perform(child)) for child in node.children]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _call(self, node: Node) -> str:
        made = await self._do(lambda: self._made({"kind": node.kind, "name": node.name}))
        ended = await self._until("execution", made, lambda: self.stage.wait(made, 0.2))
        expected = Status.FAILED if node.kind == "fails" else Status.COMPLETED
        assert ended.status is expected, ended
        return f"caught {node.name}" if node.kind == "fails" else str(ended.output)

    async def _made(self, given: Any) -> str:
        if self.harness is None:
            return (await self.workflow.call(given)).id
        return (await self.harness.call(given))["execution_id"]

    async def _step(self, node: Node) -> Any:
        asked = await self._do(lambda: self._ask("step", node.name))
        if asked.status is CheckpointStatus.OPEN:
            given = {"error": ERROR} if node.kind == "bad step" else {"value": self.draw.random()}
            asked = await self._do(lambda: self.workflow.finish(asked.checkpoint_id, **given))
            self.done[asked.checkpoint_id] += 1
        return asked.error.message if asked.error else asked.value

    async def _wait(self, kind: str, name: str, **fields: Any) -> Any:
        asked = await self._do(lambda: self._ask(kind, name, **fields))

        async def look() -> Any:
            if kind == "event":
                await self.send_all()
            else:
                self.stage.clock.advance(timedelta(seconds=SLEEP))
            checkpoints = self.stage.engine.checkpoints
            here = self.stage.org_id, self.stage.workspace_id, self.workflow.id
            return await checkpoints.wait(self.workflow.inside, *here, asked.checkpoint_id, 0.2)

        if asked.status is CheckpointStatus.OPEN:
            asked = await self._until("checkpoint", asked.checkpoint_id, look)
        return asked.value

    async def _ask(self, kind: str, name: str, **fields: Any) -> Any:
        if self.harness is not None:
            return CheckpointDocument.model_validate(await self.harness.ask(kind, name, **fields))
        number = self.asked[f"{kind} {name}"]
        self.asked[f"{kind} {name}"] += 1
        return await self.workflow.ask(kind, name, occurrence=number, **fields)

    async def _until(self, kind: str, waited_for: str, look: Callable[[], Awaitable[T]]) -> T:
        self.waits.add((kind, waited_for))
        while True:
            found = await self._do(look)
            status: Any = found.status  # type: ignore[attr-defined]
            if status in (CheckpointStatus.DONE, Status.COMPLETED, Status.FAILED):
                self.waits.discard((kind, waited_for))
                return found

    async def _do(self, operation: Callable[[], Awaitable[T]]) -> T:
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                raise Interrupted
        # An answer that is on its way when the container dies is lost; what was asked for is done.
        return await asyncio.shield(asyncio.ensure_future(operation()))


async def run(stage: Stage, seed: int) -> tuple[Run, list[Any]]:
    """Runs the program of the seed to its end, interrupted up to four times, and retried by hand if it says so."""
    draw = random.Random(seed)  # noqa: S311 - the seed is the test's id.
    program = program_of(draw)
    stage.runner.slots = 500
    await stage.publish("flow", Kind.WORKFLOW)
    execution = await stage.submit("flow", kind=Kind.WORKFLOW, timeout_seconds=20_000)
    played = Workflow.__new__(Workflow)
    played.stage, played.id, played.assignment = stage, execution.id, None  # type: ignore[assignment]
    running = Run(stage, program, draw, played, is_harness=draw.random() < 0.7)
    world = asyncio.create_task(_serve(running))
    running.ids.append(played.id)
    try:
        await running.begin()
        for _ in range(draw.randint(1, 4)):
            running.left = draw.randint(1, 12)
            result = await running.attempt()
            if result is not None:
                break
            await running.interrupt()
        running.left = None
        if result is None:
            result = await running.attempt()
        if draw.random() < 0.4:
            await running.fail_and_retry()
            result = await running.attempt()
        assert result is not None
        await running.settle()
        await stage.runner.report(played.assignment, result)
        ended = await stage.wait(played.id)
        assert (ended.status, ended.output) == (Status.COMPLETED, result), ended
    finally:
        running.is_over = True
        await asyncio.wait([world])
    return running, result


async def _serve(running: Run) -> None:
    """The runner's other containers: each child ends as its input says."""
    stage = running.stage
    while not running.is_over:
        if (assignment := running.workflow.assignment) is not None:
            await stage.runner.heartbeat([held(assignment)])
        for assignment in await stage.runner.claim(0.05):
            if assignment.execution_id == running.workflow.id or assignment.kind is Kind.WORKFLOW:
                running.own.put_nowait(assignment)
                continue
            running.ran[assignment.execution_id] += 1
            given = (assignment.input or {})["input_data"]
            error = ERROR if given.get("kind") == "fails" else None
            await stage.runner.report(assignment, f"{given.get('name')} {assignment.execution_id}", error)


def _names(node: Node, kind: str) -> list[str]:
    own = [node.name] if node.kind == kind else []
    return own + [name for child in node.children for name in _names(child, kind)]


def count(node: Node, kind: str) -> int:
    return len(_names(node, kind))
