"""One call on its way through its chain of models: tried, tried again, metered, kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.domain.model_call import ModelCall, PriceTable, TokenUsage
from flow_platform.gateway import metering
from flow_platform.gateway.adapter import Adapter, UpstreamCall
from flow_platform.gateway.assembly import Assembly
from flow_platform.gateway.elsewhere import CallsElsewhere
from flow_platform.gateway.flight import Flight
from flow_platform.gateway.limits import Limits
from flow_platform.gateway.ports import Caller, Keys, Meter
from flow_platform.gateway.providers import Catalogue, Target
from flow_platform.gateway.retries import RetryRule
from flow_platform.telemetry import EXECUTION_ID

logger = logging.getLogger(__name__)

Json = dict[str, Any]
Kind = Literal["chat", "embedding"]
Keep = Callable[[Json], Awaitable[None]]

CANCELLED: Final = "cancelled"


@dataclass(frozen=True)
class Means:
    """What calls are made with; the same for all of a gateway.

    Attributes:
        adapters: By kind of provider.
        call_seconds: The longest a call takes, retries included.
    """

    clock: Clock
    keys: Keys
    meter: Meter
    limits: Limits
    elsewhere: CallsElsewhere
    prices: PriceTable
    adapters: Callable[[str], Adapter]
    retries: RetryRule
    random: Callable[[], float]
    call_seconds: float


@dataclass
class Call:
    """One call. `run` it once; `flight` tells what comes of it.

    Attributes:
        keep: Stores the answer, for callers that may ask for it again.
    """

    means: Means
    id: str
    kind: Kind
    caller: Caller
    catalogue: Catalogue
    chain: Sequence[Target]
    body: Json
    is_streamed: bool
    ring_id: str | None = None
    billing_transaction_id: str | None = None
    keep: Keep | None = None
    flight: Flight = field(default_factory=Flight)
    _target: Target | None = None
    _attempts: int = 0
    _began: float = 0.0
    _created_at: datetime | None = None
    _first_ms: float | None = None
    _assembly: Assembly | None = None

    async def run(self) -> None:
        """Never raises, but when it is cancelled; then too the call is recorded."""
        self._began, self._created_at = time.perf_counter(), self.means.clock.now()
        try:
            answer = await self._within_time()
        except errors.FlowError as error:
            await self._record(self._used(None), error.error_code)
            self.flight.fail(error)
        except asyncio.CancelledError:
            self.flight.fail(errors.UpstreamFailed("the call was cancelled", code=CANCELLED))
            # Providers count what they read, also when nobody waits for the answer.
            written = self._assembly.characters if self._assembly else 0
            await self._record(metering.estimated(self.body, written), CANCELLED)
            raise
        except Exception as error:
            logger.exception("a model call failed unexpectedly", extra={EXECUTION_ID: self.caller.execution_id})
            await self._record(self._used(None), errors.FlowError.code)
            self.flight.fail(error)
        else:
            await self._finish(answer)

    async def _finish(self, answer: Json) -> None:
        """The record and the kept answer first: whoever has read the end must not pay again after a crash of ours."""
        usage = metering.usage_of(answer) or self._used(answer)
        target = self._answered_by
        cost, _ = self.means.prices.cost(target.name, usage)
        told = {**answer, "model": target.name, "usage": metering.usage_document(usage, answer.get("usage"), cost)}
        recording = [self._record(usage, None)]
        if self.keep is not None:
            recording.append(self._kept(self.keep, told))
        await asyncio.gather(*recording)
        self.flight.finish(told)

    async def _within_time(self) -> Json:
        try:
            async with asyncio.timeout(self.means.call_seconds):
                return await self._first_that_answers()
        except TimeoutError:
            raise errors.UpstreamTimeout(
                f"the call took longer than {self.means.call_seconds:g} seconds", is_transient=False
            ) from None

    async def _first_that_answers(self) -> Json:
        """Raises the error of the last model that was tried."""
        for number, target in enumerate(self.chain):
            has_other = number + 1 < len(self.chain)
            try:
                return await self._answer_of(target, has_other)
            except errors.FlowError as error:
                if self.flight.has_chunks or not has_other or not _helps_elsewhere(error):
                    raise
                logger.info("a model did not answer, trying the next", extra=self._fields(target, error))
        raise errors.InvalidInput("models is empty: expected at least one")

    async def _answer_of(self, target: Target, has_other: bool) -> Json:
        caller, means = self.caller, self.means
        key = await means.keys.key(caller.org_id, caller.workspace_id, self.ring_id, target.provider)
        if key is None and target.provider.key_name:
            raise errors.UpstreamRefused(
                f"model {target.name!r} has no key: expected a secret {target.provider.key_name!r}",
                code="model_key_missing",
                hint=f"flow secret set {target.provider.key_name}",
                helps_elsewhere=True,
            )
        await means.elsewhere.look(caller.org_id, caller.workspace_id, self.id, self.catalogue.limits)
        ticket = means.limits.enter(caller.org_id, caller.workspace_id, target.name, self.catalogue.limits)
        self._target, tokens = target, 0
        try:
            answer = await self._tried(target, key, has_other)
            tokens = (metering.usage_of(answer) or self._used(answer)).total
        except BaseException:
            tokens = self._used(None).total
            raise
        else:
            return answer
        finally:
            means.limits.leave(ticket, tokens)

    async def _tried(self, target: Target, key: str | None, has_other: bool) -> Json:
        trial = 0
        while True:
            trial += 1
            self._attempts += 1
            self._assembly = None
            try:
                return await self._try(UpstreamCall(target, self.body, key, trial, self.catalogue.scripts))
            except errors.UpstreamFailed as error:
                pause = None
                if error.is_transient and not self.flight.has_chunks:
                    pause = self.means.retries.pause(
                        trial, error.retry_after, has_other=has_other, random=self.means.random
                    )
                if pause is None:
                    raise
                logger.info("a provider failed, trying again", extra=self._fields(target, error))
            await asyncio.sleep(pause)

    async def _try(self, call: UpstreamCall) -> Json:
        adapter = self.means.adapters(call.target.provider.kind)
        if self.kind == "embedding":
            return await adapter.embed(call)
        if not self.is_streamed:
            return await adapter.complete(call)
        assembly = self._assembly = Assembly()
        async with aclosing(adapter.stream(call)) as chunks:
            async for chunk in chunks:
                if self._first_ms is None:
                    self._first_ms = self._elapsed_ms()
                assembly.add(chunk)
                # Usage is told once, at the end, with the cost; some tell it in the last chunk, some in one of its own.
                if chunk.get("choices") or "usage" not in chunk:
                    self.flight.push({**{k: v for k, v in chunk.items() if k != "usage"}, "model": call.target.name})
        return assembly.completion()

    def _used(self, answer: Json | None) -> TokenUsage:
        """For a call whose provider told nothing: nothing when nothing came, else an estimate."""
        if answer is not None:
            return metering.estimated(self.body, metering.characters_of(answer))
        assembly = self._assembly
        if assembly is None:
            return TokenUsage()
        told = metering.usage_of({"usage": assembly.usage})
        if told is not None:
            return told
        return metering.estimated(self.body, assembly.characters) if assembly.characters else TokenUsage()

    async def _record(self, usage: TokenUsage, error_code: str | None) -> None:
        """A call that reached no provider is none."""
        if not self._attempts:
            return
        target = self._answered_by
        cost, version = self.means.prices.cost(target.name, usage)
        record = ModelCall(
            id=self.id,
            org_id=self.caller.org_id,
            workspace_id=self.caller.workspace_id,
            kind=self.kind,
            provider=target.provider.name,
            model=target.model,
            created_at=self._created_at or self.means.clock.now(),
            execution_id=self.caller.execution_id,
            billing_transaction_id=self.billing_transaction_id,
            usage=usage,
            cost_micro_credits=cost,
            price_version=version,
            latency_ms=self._elapsed_ms(),
            first_token_ms=self._first_ms,
            attempts=self._attempts,
            is_streamed=self.is_streamed,
            error_code=error_code,
        )
        # In a task of its own: a call that is cancelled has cost what it cost.
        await asyncio.shield(asyncio.ensure_future(self._metered(record)))

    async def _metered(self, record: ModelCall) -> None:
        try:
            await self.means.meter.record(record)
        except Exception:
            # Whatever it is, a mistake of ours included: the answer has been paid for, and its readers wait for it. A
            # store that is away is none of it (`PatientMeter`); of all else the whole record is in the log.
            logger.exception("a model call could not be recorded", extra={**vars(record)})

    async def _kept(self, keep: Keep, answer: Json) -> None:
        try:
            await keep(answer)
        except errors.FlowError:
            logger.exception("an answer could not be kept", extra={EXECUTION_ID: self.caller.execution_id})

    @property
    def _answered_by(self) -> Target:
        return self._target or self.chain[-1]

    def _elapsed_ms(self) -> float:
        return round((time.perf_counter() - self._began) * 1000, 3)

    def _fields(self, target: Target, error: errors.FlowError) -> dict[str, Any]:
        return {
            EXECUTION_ID: self.caller.execution_id,
            "model_call_id": self.id,
            "model": target.name,
            "error_code": error.error_code,
            "model_attempt": self._attempts,
        }


def _helps_elsewhere(error: errors.FlowError) -> bool:
    match error:
        case errors.UpstreamRefused():
            return error.helps_elsewhere
        case errors.UpstreamFailed() | errors.RateLimited():
            return True
        case _:
            return False
