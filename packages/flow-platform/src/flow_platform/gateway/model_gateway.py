"""The model gateway as a whole: from a request to a flight that tells what comes of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, new_id
from flow_platform.domain.execution import Execution
from flow_platform.domain.ledger import RateCard
from flow_platform.gateway.adapter import Adapter
from flow_platform.gateway.call import Call, Keep, Kind, Means
from flow_platform.gateway.configuration import Catalogues, PlatformModels, WorkspaceModelSettings
from flow_platform.gateway.elsewhere import CallsElsewhere
from flow_platform.gateway.flight import Flight
from flow_platform.gateway.limits import Limits
from flow_platform.gateway.listing import Listing
from flow_platform.gateway.metering import StoredBudget, StoredCalls
from flow_platform.gateway.offline import OfflineModels
from flow_platform.gateway.patience import PatientMeter
from flow_platform.gateway.ports import Budget, Caller, Keys, Meter
from flow_platform.gateway.retries import RetryRule
from flow_platform.store.base import Store, Transaction
from flow_platform.store.model_table import ModelAnswer

Json = dict[str, Any]

CALL_SECONDS: Final = 600.0
MAX_CALLS: Final = 2_000  # At once in one process; each may hold a connection to a provider and an answer.
MAX_RETRIED: Final = 32  # Executions that repeat one another, looked through for an answer.
ANSWER_RETENTION: Final = timedelta(days=30)  # The longest an execution may take.
CLEAN_EVERY: Final = 1_000  # Kept answers.
CLEAN_BATCH: Final = 2_000
_ABOUT_STREAMING: Final = ("stream", "stream_options")


@dataclass(frozen=True)
class Reply:
    """What a caller gets. `release` it when the reader is done or gone.

    Attributes:
        is_replayed: The answer is an earlier one: nothing was called, nothing costs.
    """

    call_id: str
    flight: Flight
    is_replayed: bool
    release: Callable[[], None]


@dataclass
class _Known:
    """What the store knows of a call before it is made."""

    settings: str | None
    execution: Execution | None
    answer: ModelAnswer | None


class ModelGateway:
    """Calls models. One per process.

    Args:
        keys: Of providers.
        meter, budget: Those of the store when None.
        rates: Of the store's meter.
        call_seconds: The longest a call takes, retries included.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        keys: Keys,
        platform: PlatformModels | None = None,
        *,
        meter: Meter | None = None,
        budget: Budget | None = None,
        rates: RateCard | None = None,
        retries: RetryRule | None = None,
        call_seconds: float = CALL_SECONDS,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        platform = platform or PlatformModels()
        self._store = store
        self._clock = clock
        self._budget = budget or StoredBudget(store, clock)
        self._catalogues = Catalogues(platform)
        self._adapters: dict[str, Adapter] = {"test": OfflineModels()}
        self._outbound: Any = None
        limits = Limits(clock)
        self._meter = PatientMeter(meter or StoredCalls(store, clock, rates or RateCard()))
        self._means = Means(
            clock,
            keys,
            self._meter,
            limits,
            CallsElsewhere(store, clock, limits),
            platform.price_table(),
            self._adapter,
            retries or RetryRule(),
            jitter or random.Random().random,  # noqa: S311 - of pauses.
            call_seconds,
        )
        self._listing = Listing(keys, self._adapter)
        self._running: dict[asyncio.Task[None], Call] = {}
        self._keyed: dict[tuple[str, str], tuple[str, Call]] = {}
        self._kept = 0

    async def close(self) -> None:
        """Ends all calls; their readers are told."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._meter.close()
        if self._outbound is not None:
            await self._outbound.close()

    async def chat(self, caller: Caller, models: list[str], body: Json) -> Reply:
        """A chat completion.

        Args:
            models: To try, in order; `provider/model` or `alias/name`.
            body: The request as it came; `stream` says whether chunks are wanted.

        Raises:
            NotFound: `model_not_found`.
            Conflict: `idempotency_key_reused`.
            BudgetExhausted, RateLimited: Nothing was called.
        """
        return await self._call("chat", caller, models, body)

    async def embed(self, caller: Caller, model: str, body: Json) -> Reply:
        """Embeddings. Vectors of two models are not comparable, so of an alias only the first model is asked."""
        return await self._call("embedding", caller, [model], body)

    async def models(self, caller: Caller) -> list[str]:
        """All names that can be called: of providers that have a key, and aliases."""
        known = await self._store.read(lambda tx: self._known(tx, caller))
        ring_id = known.execution.ring_id if known.execution else None
        return await self._listing.names(caller, ring_id, self._catalogues.of(known.settings))

    async def settings(self, org_id: str, workspace_id: str) -> WorkspaceModelSettings:
        document = await self._store.read(lambda tx: tx.models.find_settings(org_id, workspace_id))
        return WorkspaceModelSettings() if document is None else WorkspaceModelSettings.model_validate_json(document)

    async def configure(self, org_id: str, workspace_id: str, settings: WorkspaceModelSettings, by: str) -> None:
        """Replaces what the workspace configured; holds from the next call on."""
        text, now = settings.model_dump_json(exclude_unset=True), self._clock.now()
        await self._store.write(lambda tx: tx.models.save_settings(org_id, workspace_id, text, by, now))

    async def _call(self, kind: Kind, caller: Caller, models: list[str], body: Json) -> Reply:
        fingerprint = _fingerprint(kind, models, body)
        # Looked for before the store: a call that ends in between has its answer in there.
        joined = self._joined(caller, fingerprint)
        known = await self._store.read(lambda tx: self._known(tx, caller))
        if known.answer is not None:
            return _replayed(known.answer, fingerprint)
        if joined is not None:
            return joined
        catalogue = self._catalogues.of(known.settings)
        chain = catalogue.chain(models)
        await self._budget.check(caller.org_id, caller.workspace_id, caller.execution_id)
        if (joined := self._joined(caller, fingerprint)) is not None:
            return joined
        if len(self._running) >= MAX_CALLS:
            raise errors.RateLimited(f"{len(self._running)} models are called: at most {MAX_CALLS}", retry_after=1.0)
        call_id = new_id(self._clock.now())
        call = Call(
            self._means,
            call_id,
            kind,
            caller,
            catalogue,
            chain if kind == "chat" else chain[:1],
            body,
            is_streamed=kind == "chat" and body.get("stream") is True,
            ring_id=known.execution.ring_id if known.execution else None,
            billing_transaction_id=_transaction(caller, known.execution),
            keep=self._keeper(caller, fingerprint, call_id),
        )
        return self._start(call, fingerprint)

    def _start(self, call: Call, fingerprint: str) -> Reply:
        task = asyncio.create_task(call.run(), name=f"model call {call.id}")
        self._running[task] = call
        key = _key(call.caller)
        if key is not None:
            self._keyed[key] = (fingerprint, call)

        def ended(task: asyncio.Task[None]) -> None:
            del self._running[task]
            if key is not None:
                del self._keyed[key]

        def release() -> None:
            # A call with a key goes on without its reader: its next attempt asks for the answer again.
            if key is None:
                task.cancel()

        task.add_done_callback(ended)
        return Reply(call.id, call.flight, False, release)

    def _joined(self, caller: Caller, fingerprint: str) -> Reply | None:
        """The call of an earlier attempt that is still on its way."""
        key = _key(caller)
        if key is None or key not in self._keyed:
            return None
        earlier, call = self._keyed[key]
        _require_same(earlier, fingerprint, key[1])
        return Reply(call.id, call.flight, True, lambda: None)

    def _known(self, tx: Transaction, caller: Caller) -> _Known:
        caller.admit(tx)
        settings = tx.models.find_settings(caller.org_id, caller.workspace_id)
        execution = tx.executions.find(caller.execution_id) if caller.execution_id else None
        return _Known(settings, execution, _kept_answer(tx, execution, caller.idempotency_key))

    def _keeper(self, caller: Caller, fingerprint: str, call_id: str) -> Keep | None:
        key = _key(caller)
        if key is None:
            return None

        async def keep(answer: Json) -> None:
            kept = ModelAnswer(key[0], key[1], fingerprint, call_id, json.dumps(answer, separators=(",", ":")))
            now = self._clock.now()
            self._kept += 1
            cleans = self._kept % CLEAN_EVERY == 0

            def operation(tx: Transaction) -> None:
                tx.models.save_answer(kept, now)
                if cleans:
                    tx.models.delete_answers_before(now - ANSWER_RETENTION, CLEAN_BATCH)

            await self._store.write(operation)

        return keep

    def _adapter(self, kind: str) -> Adapter:
        if kind not in self._adapters:
            # Imported here: httpx takes longer to load than the rest of the server, and many call no provider.
            from flow_platform.gateway.anthropic_upstream import AnthropicUpstream
            from flow_platform.gateway.openai_upstream import OpenAiUpstream
            from flow_platform.gateway.outbound import Outbound

            self._outbound = Outbound(self._clock)
            self._adapters["openai"] = OpenAiUpstream(self._outbound)
            self._adapters["anthropic"] = AnthropicUpstream(self._outbound, self._clock)
        return self._adapters[kind]


def _key(caller: Caller) -> tuple[str, str] | None:
    """Keys are an execution's own: people's have nothing that they could be kept with."""
    if caller.execution_id is None or caller.idempotency_key is None:
        return None
    return caller.execution_id, caller.idempotency_key


def _kept_answer(tx: Transaction, execution: Execution | None, key: str | None) -> ModelAnswer | None:
    """Of the execution, or of one that it repeats: a retry by hand takes over what was paid for."""
    for _ in range(MAX_RETRIED):
        if execution is None or key is None:
            return None
        found = tx.models.find_answer(execution.id, key)
        if found is not None:
            return found
        execution = tx.executions.find(execution.retry_of_id) if execution.retry_of_id else None
    return None


def _replayed(kept: ModelAnswer, fingerprint: str) -> Reply:
    _require_same(kept.fingerprint, fingerprint, kept.key)
    flight = Flight()
    flight.finish(json.loads(kept.answer))
    return Reply(kept.call_id, flight, True, lambda: None)


def _require_same(earlier: str, fingerprint: str, key: str) -> None:
    if earlier != fingerprint:
        raise errors.Conflict(
            f"Idempotency-Key {key!r} was used by this execution for another request: expected the same one",
            code="idempotency_key_reused",
        )


def _transaction(caller: Caller, execution: Execution | None) -> str | None:
    return execution.billing_transaction_id if execution else caller.billing_transaction_id


def _fingerprint(kind: str, models: list[str], body: Json) -> str:
    """Whether it is streamed does not make it another request."""
    asked = {name: value for name, value in body.items() if name not in _ABOUT_STREAMING}
    text = json.dumps([kind, models, asked], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
