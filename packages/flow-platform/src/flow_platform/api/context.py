"""What is known of a request before its route is called: its id, and who asks."""

from __future__ import annotations

import itertools
import re
import secrets
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.types import Scope

from flow_platform.domain import errors
from flow_platform.domain.credential import Credential
from flow_platform.domain.principal import Principal

SCOPE_KEY: Final = "flow.context"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_PROCESS: Final = secrets.token_hex(8)
_NUMBER: Final = itertools.count()
_REFERENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


@dataclass
class RequestContext:
    """One request.

    Attributes:
        credential: None on the few public paths.
        newer_token: Sent with the answer, for the client to use from then on.
        body_bytes: Bytes of the body that are held in memory for it.
        body_seen: The beginning of the body, when it is looked at besides by its endpoint; else None.
        route: The path of the route as it was declared, for the metrics.
    """

    request_id: str
    credential: Credential | None = None
    newer_token: str | None = None
    body_bytes: int = 0
    body_seen: bytes | None = None
    route: str = "unmatched"


def context_of(scope: Scope) -> RequestContext:
    context = scope[SCOPE_KEY]
    assert isinstance(context, RequestContext)  # noqa: S101 - the onion put it there.
    return context


def principal_of(request: Request) -> Principal:
    """Who asks.

    Raises:
        Unauthenticated: Nobody was verified: a route of the API that was declared public by mistake.
    """
    credential = context_of(request.scope).credential
    if credential is None:
        raise errors.Unauthenticated("no credential: expected 'Authorization: Bearer TOKEN'")
    return credential.principal


def request_id_from(given: str | None) -> str:
    """The client's own request id when it is harmless in logs and headers, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    # Unique, not secret. Asking the kernel each time would hand the interpreter to another thread and wait for it.
    return f"{_PROCESS}{next(_NUMBER):016x}"


def workspace_of(request: Request) -> tuple[str, str]:
    """Organization and workspace of the path."""
    return request.path_params["org_id"], request.path_params["workspace_id"]


def reference(request: Request, name: str, what: str) -> str:
    """An id or slug of the path. What cannot be one is not asked for: it is not found.

    Raises:
        NotFound: As for an id that nobody has.
    """
    value: str = request.path_params[name]
    if not _REFERENCE.fullmatch(value):
        raise errors.NotFound(f"{what} {value[:80]!r} not found")
    return value
