"""The runner: asks for work when it has room, keeps its leases alive, and hands everything back when it stops.

Two loops run for the whole life of the process. The claim loop keeps one claim outstanding at the engine. The
heartbeat loop extends the leases, and hears what to cancel, what is lost and what is recorded. If either ends, the
process ends: a runner that looks alive and takes no work is worse than a dead one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, Final

import pydantic

from flow_platform.bus.connection import Bus, Message
from flow_platform.domain import errors
from flow_platform.runner import ending
from flow_platform.runner.attempt import Attempt, Workplace
from flow_platform.runner.config import RunnerConfig
from flow_platform.runner.engine_link import EngineLink
from flow_platform.runner.outbox import Outbox
from flow_platform.sandbox.base import Container
from flow_sdk.wire import subjects
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.runner import Assignment, CancelNotice, Claim, Heartbeat, HeldLease, Register, Registered

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)  # The last one is repeated for ever.
DEAF_SECONDS: Final = 15.0  # How long claims may fail before the log says so, and how often it says it again.
MAX_EARLY_NOTICES: Final = 1_000  # Most are late instead, of attempts that have just ended.
SETTLE_SECONDS: Final = 5.0  # At the end: for reports that are not recorded yet.
LAST_CLAIM_SECONDS: Final = 0.25  # At the end: for work that was already on its way to us.


class Runner:
    """One process start of one runner.

    Args:
        instance: New for each process start.
    """

    def __init__(self, config: RunnerConfig, instance: str, bus: Bus, workplace: Workplace) -> None:
        self._config = config
        self._instance = instance
        self._bus = bus
        self._place = workplace
        self._engine = EngineLink(bus)
        self._outbox = Outbox(bus)
        self._attempts: dict[str, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._completed = 0
        self._room_made = asyncio.Event()
        self._is_draining = False
        self._times = Registered(lease_seconds=10, heartbeat_seconds=3, hold_seconds=10)  # Until the engine says.
        self._beat = asyncio.Event()
        self._claiming: asyncio.Task[None] | None = None
        self._ask_again: asyncio.Future[None] | None = None
        self._late_claims: set[asyncio.Task[None]] = set()
        self._early_notices: dict[tuple[str, int], str] = {}  # Of cancels that overtook their assignment.

    async def start(self) -> None:
        """Registers, however long NATS or the engine are away, and listens for cancels.

        Raises:
            Conflict: `runner_id_taken`: another process works under this runner's id, and goes on doing so.
        """
        alive = subjects.runner_alive(self._config.runner_id, self._instance)
        await self._bus.serve(alive, subjects.RUNNER_QUEUE, self._on_alive)
        await self._bus.subscribe(subjects.runner_cancel(self._config.runner_id), self._on_cancel)
        await self._bus.subscribe(subjects.ENGINE_STARTED, self._on_engine_started)
        self._bus.on_reconnected(self._claim_anew)
        await self._register(self._config.patience_seconds)

    async def run(self) -> None:
        """Works until `drain` or cancellation.

        Raises:
            Exception: Whatever ended one of the two loops. Nobody is deaf in silence.
        """
        claiming = self._claiming = asyncio.create_task(self._claim_loop(), name="claims")
        beating = asyncio.create_task(self._heartbeat_loop(), name="heartbeats")
        try:
            await asyncio.wait([claiming, beating], return_when=asyncio.FIRST_COMPLETED)
            if claiming.done() and not self._is_draining:
                claiming.result()
            # While draining the leases must be kept alive until the caller cancels us.
            await beating
        finally:
            for task in (claiming, beating):
                task.cancel()
            await asyncio.gather(claiming, beating, return_exceptions=True)

    async def drain(self, seconds: float) -> None:
        """Takes no more work, waits for what runs, then hands back what still does; reports are waited for."""
        logger.info("draining", extra={"attempts": len(self._attempts), "seconds": seconds})
        self._is_draining = True
        self._room_made.set()
        await self._withdraw_claim()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=seconds)
        for attempt in list(self._attempts.values()):
            attempt.stop(ending.drained(self._config.runner_id))
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=SETTLE_SECONDS)
        await self._settle_outbox()

    async def close(self) -> None:
        """Ends whatever still runs, at once."""
        for attempt in list(self._attempts.values()):
            attempt.abandon()
        for task in [*self._tasks, *self._late_claims]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._endings:  # Begun by the attempts that were just cancelled, too. Never cancelled: they free things.
            await asyncio.wait(list(self._endings), timeout=SETTLE_SECONDS)
        await self._outbox.close()

    def _end_later(self, container: Container) -> None:
        """It takes room until it is gone."""
        self._spawn(self._end(container), "end-container", self._endings)

    # Work.

    async def _claim_loop(self) -> None:
        loop = asyncio.get_running_loop()
        failures, answered_at, warned_at = 0, loop.time(), loop.time()
        while not self._is_draining:
            room = self._room()
            if room <= 0:
                self._room_made.clear()
                await self._room_made.wait()
                continue
            try:
                await self._claim(room)
                failures, answered_at = 0, loop.time()
            except errors.BusUnavailable as error:
                now = loop.time()
                if now - answered_at > DEAF_SECONDS and now - warned_at > DEAF_SECONDS:
                    warned_at = now
                    logger.warning("no claim was answered for %.0f s: %s", now - answered_at, error)
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1

    async def _claim(self, room: int) -> None:
        """Asks for work, and returns when the answer was taken or when it may never come.

        In the second case the question stays open beside the next one: should its answer come after all, it counts.
        """
        again = self._ask_again = asyncio.get_running_loop().create_future()
        asking = asyncio.create_task(self._take_work(room), name="claim")
        try:
            await asyncio.wait([asking, again], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            asking.cancel()
            raise
        if asking.done():
            asking.result()
        else:
            self._late_claims.add(asking)
            asking.add_done_callback(self._late_claim_ended)

    def _late_claim_ended(self, task: asyncio.Task[None]) -> None:
        self._late_claims.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("an old claim was never answered: %s", error)

    async def _take_work(self, room: int) -> None:
        claimed = await self._engine.claim(self._claim_of(room, self._times.hold_seconds))
        if claimed.error:
            logger.warning("a claim was refused: %s", claimed.error)
            await self._register()
        for assignment in claimed.assignments:
            self._accept(assignment)
        await asyncio.sleep(0)  # They start before the next claim is written.

    async def _on_engine_started(self, _: Message) -> None:
        self._claim_anew()

    def _claim_anew(self) -> None:
        """The engine that holds our claim may be gone, or the claim lost with a connection: ask without waiting."""
        if self._ask_again is not None and not self._ask_again.done():
            self._ask_again.set_result(None)

    def _claim_of(self, room: int, hold_seconds: float) -> Claim:
        return Claim(
            runner_id=self._config.runner_id,
            instance=self._instance,
            slots=self._config.slots,
            room=room,
            hold_seconds=hold_seconds,
        )

    def _accept(self, assignment: Assignment) -> None:
        earlier = self._attempts.get(assignment.execution_id)
        if earlier is not None:
            if earlier.assignment.lease_epoch >= assignment.lease_epoch:
                return  # Said twice.
            earlier.abandon()
        self._outbox.supersede(assignment.execution_id)
        attempt = Attempt(assignment, self._place, self._end_later, self._secrets)
        self._attempts[assignment.execution_id] = attempt
        self._spawn(self._attempt(attempt), f"attempt-{assignment.execution_id}", self._tasks)
        reason = self._early_notices.pop((assignment.execution_id, assignment.lease_epoch), None)
        if reason is not None:
            attempt.cancel(reason)
        if self._is_draining:
            attempt.stop(ending.drained(self._config.runner_id))

    async def _attempt(self, attempt: Attempt) -> None:
        execution_id = attempt.assignment.execution_id
        try:
            report = await attempt.run()
            self._completed += 1
            if report is not None and self._attempts.get(execution_id) is attempt:
                # From here the lease is held by the outbox. No await in between: a heartbeat sees one or the other.
                del self._attempts[execution_id]
                self._room_made.set()
                await self._outbox.send(report)
        finally:
            if self._attempts.get(execution_id) is attempt:
                del self._attempts[execution_id]
            self._room_made.set()

    async def _secrets(self, assignment: Assignment) -> dict[str, str] | ErrorDocument:
        return await self._engine.secrets(assignment, self._config.runner_id, self._instance)

    def _room(self) -> int:
        return self._config.max_containers - len(self._attempts) - len(self._endings)

    # Leases.

    async def _heartbeat_loop(self) -> None:
        failures = 0
        while True:
            # After a failure soon again: the leases last for two or three heartbeats only.
            pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1] if failures else self._times.heartbeat_seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._beat.wait()
            self._beat.clear()
            try:
                await self._heartbeat()
                failures = 0
            except errors.BusUnavailable as error:
                failures += 1
                logger.warning("a heartbeat was not answered: %s", error, extra={"attempts": len(self._attempts)})

    async def _heartbeat(self) -> None:
        leases = [
            HeldLease(execution_id=attempt.assignment.execution_id, lease_epoch=attempt.assignment.lease_epoch)
            for attempt in self._attempts.values()
        ]
        leases += self._outbox.held()
        refusals = self._place.refusals.due(at_end=self._is_draining)
        reply = await self._engine.heartbeat(
            Heartbeat(
                runner_id=self._config.runner_id,
                instance=self._instance,
                leases=leases,
                containers=len(self._attempts) + len(self._endings),
                completed=self._completed,
                keys=self._place.tokens.digest if self._place.tokens else "",
                refusals=list(refusals.values()),
            )
        )
        if reply.error:
            logger.warning("a heartbeat was refused: %s", reply.error)
            await self._register()
            return
        self._place.refusals.told(refusals)
        if reply.keys is not None and self._place.tokens is not None:
            self._place.tokens.learn(reply.keys)
        asked = {lease.execution_id: lease for lease in leases}
        for execution_id in reply.lost:
            self._lose(asked.get(execution_id))
        for execution_id in reply.cancel:
            self._cancel(execution_id, ending.CANCELLED)
        self._outbox.settle(
            asked[execution_id] for execution_id in reply.recorded + reply.lost if execution_id in asked
        )
        self._outbox.after_heartbeat(leases)

    def _lose(self, lease: HeldLease | None) -> None:
        """Only the attempt that was asked about: a newer one may have come while the answer was on its way."""
        attempt = self._attempts.get(lease.execution_id) if lease is not None else None
        if lease is not None and attempt is not None and attempt.assignment.lease_epoch == lease.lease_epoch:
            logger.warning("a lease was lost", extra={"execution_id": lease.execution_id})
            attempt.abandon()

    async def _on_cancel(self, message: Message) -> None:
        try:
            notice = CancelNotice.model_validate_json(message.body)
        except pydantic.ValidationError as error:
            logger.warning("a cancel notice was not understood: %s", error)
            return
        attempt = self._attempts.get(notice.execution_id)
        if attempt is None or attempt.assignment.lease_epoch < notice.lease_epoch:
            self._early_notices[notice.execution_id, notice.lease_epoch] = notice.reason
            if len(self._early_notices) > MAX_EARLY_NOTICES:
                del self._early_notices[next(iter(self._early_notices))]
        elif attempt.assignment.lease_epoch == notice.lease_epoch:
            attempt.cancel(notice.reason)

    def _cancel(self, execution_id: str, reason: str) -> None:
        attempt = self._attempts.get(execution_id)
        if attempt is not None:
            attempt.cancel(reason)

    async def _on_alive(self, _: bytes) -> bytes:
        return b""

    async def _register(self, patience_seconds: float = 0.0) -> None:
        """Args:
        patience_seconds: For another process of this id that may be about to end.
        """
        request = Register(
            runner_id=self._config.runner_id,
            instance=self._instance,
            slots=self._config.slots,
            capabilities=list(self._place.sandboxes.offered),
        )
        failures = 0
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience_seconds
        while True:
            try:
                registered = await self._engine.register(request)
                if registered.error:
                    _refuse_at(give_up, request.runner_id, registered.error)
                    await asyncio.sleep(RETRY_SECONDS[2])
                    continue
                self._times = registered
                if self._place.tokens is not None:
                    self._place.tokens.learn(registered.keys)
            except errors.BusUnavailable as error:
                logger.log(logging.WARNING if failures % 10 == 9 else logging.INFO, "not registered yet: %s", error)
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
            else:
                logger.info("registered", extra={"runner_id": request.runner_id, "slots": request.slots})
                return

    # The end.

    async def _withdraw_claim(self) -> None:
        """Says that the held claim is void; work already on its way has a moment to come and be handed back.

        A claim without room means exactly that: an engine answers the earlier one at once, and grants it nothing.
        """
        with contextlib.suppress(errors.BusUnavailable, TimeoutError):
            async with asyncio.timeout(LAST_CLAIM_SECONDS):
                for assignment in (await self._engine.claim(self._claim_of(0, 0.0))).assignments:
                    self._accept(assignment)  # Granted before; it is handed back at once.
        claiming = self._claiming
        if claiming is not None and not claiming.done():
            await asyncio.wait([claiming], timeout=LAST_CLAIM_SECONDS)
            claiming.cancel()

    async def _settle_outbox(self) -> None:
        """Heartbeats at a quicker pace until every report is recorded and every refusal told, within bounds."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while len(self._outbox) or len(self._place.refusals):
                    self._beat.set()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            logger.warning("stopped with unrecorded reports", extra={"reports": len(self._outbox)})

    async def _end(self, container: Container) -> None:
        await container.end()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str, tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work, name=name)
        tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._endings.discard(task)
        self._room_made.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", task.get_name(), exc_info=error)


def _refuse_at(give_up: float, runner_id: str, reason: str) -> None:
    """Raises Conflict when there is no time left to be patient."""
    if asyncio.get_running_loop().time() < give_up:
        logger.info("not registered yet: %s", reason)
        return
    raise errors.Conflict(
        f"runner {runner_id!r} is at work already: another process of that name answers",
        code="runner_id_taken",
        hint="stop that one, or give this one a name of its own: --runner-id NAME, or FLOW_RUNNER_ID",
    )
