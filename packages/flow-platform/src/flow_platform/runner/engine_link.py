"""The runner's requests to the engine, typed. Any engine of the queue group may answer each of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, TypeVar

import pydantic

from flow_platform.bus.connection import Bus
from flow_platform.domain import errors
from flow_sdk.wire import subjects
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.runner import Assignment, Claim, Claimed, Heartbeat, HeartbeatReply, Register, Registered
from flow_sdk.wire.secrets import SecretsReply, SecretsRequest, decode_secrets, secrets_context

logger = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 5.0  # Beyond the time that the engine may hold a claim.
HEARTBEAT_SECONDS: Final = 2.0  # A heartbeat or its answer that got lost leaves time for others within the lease.

Answer = TypeVar("Answer", bound=pydantic.BaseModel)


class EngineLink:
    """Asks the engine.

    Every method raises `BusUnavailable` when nobody answers, or not understandably: the caller asks again.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._deleting: set[asyncio.Task[None]] = set()

    async def register(self, request: Register) -> Registered:
        answer = await self._ask(subjects.RUNNER_REGISTER, request, ANSWER_SECONDS)
        return _parsed(Registered, answer)

    async def claim(self, request: Claim) -> Claimed:
        """Asks for work; the answer takes up to `hold_seconds` when there is none."""
        answer = await self._ask(subjects.RUNNER_CLAIM, request, request.hold_seconds + ANSWER_SECONDS)
        claimed = _parsed(Claimed, answer)
        if not claimed.reply_object:
            return claimed
        try:
            body = await self._bus.get_object(claimed.reply_object)
        except errors.NotFound as error:
            raise errors.BusUnavailable(f"the answer to a claim is gone: {error.message}") from error
        deleting = asyncio.create_task(self._delete(claimed.reply_object), name="delete-claim")
        self._deleting.add(deleting)
        deleting.add_done_callback(self._deleting.discard)
        return _parsed(Claimed, body)

    async def heartbeat(self, request: Heartbeat) -> HeartbeatReply:
        return _parsed(HeartbeatReply, await self._ask(subjects.RUNNER_HEARTBEAT, request, HEARTBEAT_SECONDS))

    async def secrets(self, assignment: Assignment, runner_id: str, instance: str) -> dict[str, str] | ErrorDocument:
        """The secrets of a leased execution's component, or why it cannot have them."""
        from flow_platform.bus.sealing import Recipient  # Few need it, and a runner starts without waiting for it.

        recipient = Recipient()
        request = SecretsRequest(
            runner_id=runner_id,
            instance=instance,
            execution_id=assignment.execution_id,
            lease_epoch=assignment.lease_epoch,
            public_key=recipient.public_key,
        )
        reply = _parsed(SecretsReply, await self._ask(subjects.RUNNER_SECRETS, request, ANSWER_SECONDS))
        if reply.error is not None:
            return reply.error
        context = secrets_context(assignment.execution_id, assignment.lease_epoch)
        return decode_secrets(recipient.open(reply.sealed, context))

    async def _delete(self, name: str) -> None:
        """Nobody reads it a second time; what is left over goes by age."""
        try:
            await self._bus.delete_object(name)
        except errors.FlowError as error:
            logger.info("object %s was not deleted: %s", name, error)

    async def _ask(self, subject: str, request: pydantic.BaseModel, seconds: float) -> bytes:
        return await self._bus.request(subject, request.model_dump_json().encode(), timeout=seconds)


def _parsed(model: type[Answer], body: bytes) -> Answer:
    try:
        return model.model_validate_json(body)
    except pydantic.ValidationError as error:
        raise errors.BusUnavailable(f"the engine's answer {body[:200]!r} is not a {model.__name__}") from error
