"""What happens on somebody's behalf is entered into the audit log in the transaction that does it.

Who asks is known where a request comes in, and what is changed in the functions that run inside of transactions; the
store between them is where both meet. So the store is wrapped: the first write of a request adds the entry, whatever
the write is; where it is known what the request is about, the first that changes that. Nothing that changes a tenant's
things can be forgotten, as nothing needs to be told. A request that does much in several transactions says of each what
it did (`Batch`), and each of them is an entry.
"""

from __future__ import annotations

import contextvars
import dataclasses
import enum
import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar, cast

import pydantic

from flow_platform.domain.audit import MAX_DEPTH, MAX_ITEMS, changed_fields, shown
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Principal
from flow_platform.store.base import Store, Transaction

_PLAIN: Final = re.compile(r"[A-Za-z0-9._:-]*")

T = TypeVar("T")
Look = Callable[[Transaction], Any]


@dataclass(slots=True)  # Not frozen: one is made for each request, and that would cost three times as much.
class Origin:
    """Where a request comes from.

    Attributes:
        address: Of the client, as the server sees it, or proxies that are trusted say.
    """

    request_id: str
    address: str
    user_agent: str


@dataclass
class Change:
    """A request that changes something, until its entry is written.

    Attributes:
        who: Subject, role and kind of credential.
        org_id: Whose log it is entered in.
        action: Method and path of the route.
        target: The parameters of the path.
        request: The body, as far as it may be shown; called when the entry is made.
        look: Reads what is to be changed, as it is before.
    """

    origin: Origin
    who: Mapping[str, Any]
    org_id: str
    workspace_id: str | None
    action: str
    target: Mapping[str, str]
    request: Callable[[], Any]
    now: Callable[[], datetime]
    look: Look | None = None
    is_written: bool = field(default=False, init=False)

    @property
    def is_preview(self) -> bool:
        asked = self.request()
        return isinstance(asked, dict) and cast("dict[str, Any]", asked).get("dry_run") is True

    def content(self, **more: Any) -> dict[str, Any]:
        """The entry, without what the log adds."""
        return {
            "kind": "change",
            "action": self.action,
            "subject": str(self.who["subject"]),
            "who": dict(self.who),
            "from": dataclasses.asdict(self.origin),
            "workspace_id": self.workspace_id,
            "target": dict(self.target),
            "request": shown(self.request()),
            **more,
        }

    def entry(self, before: Any, after: Any) -> dict[str, Any]:
        if isinstance(before, list) and isinstance(after, list):
            before, after = differing(cast("list[Any]", before), cast("list[Any]", after))
        return self.content(before=shown(before), after=shown(after), changed=changed_fields(before, after))


@dataclass(frozen=True)
class Batch(Generic[T]):
    """What one of the transactions of a request did, which are an entry each.

    Attributes:
        did: What the entry says came of it; empty: nothing was changed, and nothing is entered.
    """

    result: T
    did: Mapping[str, Any]


CHANGE: Final[contextvars.ContextVar[Change | None]] = contextvars.ContextVar("flow-change", default=None)
"""Of the request that is being answered."""

ORIGIN: Final[contextvars.ContextVar[Origin | None]] = contextvars.ContextVar("flow-origin", default=None)


def submitter_of(principal: Principal) -> str:
    """Who asks for an execution, with which request and from where: kept with the execution, instead of an entry."""
    origin = ORIGIN.get()
    said = submitter_named(principal.subject, principal.role_name)
    if origin is None:
        return said
    # Put together by hand: it is done for each submit.
    return f'{said[:-1]},"request_id":{_quoted(origin.request_id)},"address":{_quoted(origin.address)}}}'


@functools.lru_cache(maxsize=1024)
def submitter_named(subject: str, role: str) -> str:
    """The same of something that no request asked for."""
    return json.dumps({"subject": subject, "role": role}, ensure_ascii=True, separators=(",", ":"))


def _quoted(text: str) -> str:
    return f'"{text}"' if _PLAIN.fullmatch(text) else json.dumps(text)


class AuditedStore(Store):
    """A store whose writes are entered, when they are done for somebody."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def is_shared(self) -> bool:
        return self._store.is_shared

    async def open(self) -> None:
        await self._store.open()

    async def close(self) -> None:
        await self._store.close()

    async def read(self, operation: Callable[[Transaction], T]) -> T:
        return await self._store.read(operation)

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        change = CHANGE.get()
        if change is None:
            return await self._store.write(operation)
        is_first = not change.is_written

        def entered(tx: Transaction) -> tuple[T, bool]:
            before = seen(change, tx) if is_first else None
            result = operation(tx)
            did = _did(result)
            if did is not None:
                if did:
                    tx.audit.append(change.org_id, change.entry(None, did), change.now())
                return result, bool(did)
            if not is_first:
                return result, False
            after = seen(change, tx) if change.look else _plain(result)
            if change.look and before == after:
                return result, False  # Something beside it: what the request is about comes with a later write.
            tx.audit.append(change.org_id, change.entry(before, after), change.now())
            return result, True

        result, is_entered = await self._store.write(entered)
        change.is_written = change.is_written or is_entered
        return result


def _did(result: object) -> Mapping[str, Any] | None:
    return cast("Batch[Any]", result).did if isinstance(result, Batch) else None


def seen(change: Change, tx: Transaction) -> Any:
    """What the request is about, as it is in this transaction."""
    found = change.look(tx) if change.look else None
    return [_plain(each) for each in cast("list[Any]", found)] if isinstance(found, list) else _plain(found)


def differing(before: list[Any], after: list[Any]) -> tuple[Any, Any]:
    """What one list has and the other has not; a single thing as itself, and None for nothing."""
    gone = [each for each in before if each not in after]
    come = [each for each in after if each not in before]
    if len(gone) > 1 or len(come) > 1:
        return gone, come
    return next(iter(gone), None), next(iter(come), None)


def _plain(value: Any, depth: int = 0) -> Any:
    """What an operation returned, as JSON values; of a dataclass what its `repr` shows."""
    match value:
        case None | bool() | int() | float():
            return value
        case enum.Enum():
            return value.value
        case str():
            return value
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case pydantic.BaseModel():
            return {name: _plain(getattr(value, name), depth + 1) for name in type(value).model_fields}
        case Execution():  # Cancelling a tree is about many.
            return {"id": value.id, "component": value.component_slug, "status": value.status.value}
        case dict() if depth < MAX_DEPTH:
            items = list(cast("dict[Any, Any]", value).items())[:MAX_ITEMS]
            return {str(name): _plain(each, depth + 1) for name, each in items}
        case list() | tuple() | set() | frozenset() if depth < MAX_DEPTH:
            return [_plain(each, depth + 1) for each in list(cast("list[Any]", value))[:MAX_ITEMS]]
        case _ if dataclasses.is_dataclass(value) and depth < MAX_DEPTH:
            named = [each.name for each in dataclasses.fields(value) if each.repr]
            return {name: _plain(getattr(value, name), depth + 1) for name in named}
        case _:
            return f"({type(value).__name__})"
