"""The secrets that a component names when it is published: handed to it, or added to its requests outside of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, ValidatorFunctionWrapHandler, WithJsonSchema, WrapValidator

from flow_platform.domain import errors
from flow_platform.domain.destination import parse_destination
from flow_platform.domain.variable_names import check_variable
from flow_platform.engine.closed import Closed
from flow_sdk.wire.injected import PLACE, InjectedSecret

MAX_SECRETS: Final = 100
MAX_HEADER: Final = 100  # Characters, of its name.
MAX_FORMAT: Final = 500
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # Source: RFC 9110, section 5.6.2.
_OURS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect"}
)


def _header(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("expected the name of a header, such as 'Authorization'")
    if value.lower() in _OURS or value.lower().startswith("proxy-"):
        raise ValueError("expected another header: this one says how the request itself is sent")
    return value


def _format(value: str) -> str:
    if value.count(PLACE) != 1 or not value.isascii() or not value.isprintable():
        raise ValueError(f"expected one line of ASCII with {PLACE!r} once, as in 'Bearer {PLACE}'")
    return value


def _one_host(value: str) -> str:
    destination = parse_destination(value)
    if destination.is_wildcard:
        raise ValueError("expected one host: a credential for every name of a domain is for whoever gets one of them")
    return str(destination)


class InjectRequest(Closed):
    """Where the value goes instead of into the container."""

    host: Annotated[str, AfterValidator(_one_host)]
    header: Annotated[str, Field(max_length=MAX_HEADER), AfterValidator(_header)]
    format: Annotated[str, Field(max_length=MAX_FORMAT), AfterValidator(_format)] = PLACE
    tls: bool = True


class SecretRequest(Closed):
    """A secret that the component needs. With `inject` it never enters the container."""

    name: Annotated[str, AfterValidator(check_variable)]
    inject: InjectRequest | None = None


def _from_name(value: Any, handler: ValidatorFunctionWrapHandler) -> SecretRequest:
    return SecretRequest(name=check_variable(value)) if isinstance(value, str) else handler(value)


_TEXT: Final = {"type": "string"}
_INJECT: Final = {
    "type": "object",
    "required": ["host", "header"],
    "properties": {"host": _TEXT, "header": _TEXT, "format": _TEXT, "tls": {"type": "boolean"}},
    "additionalProperties": False,
}
_OBJECT: Final = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": _TEXT, "inject": _INJECT},
    "additionalProperties": False,
}
Secret = Annotated[SecretRequest, WrapValidator(_from_name), WithJsonSchema({"anyOf": [_TEXT, _OBJECT]})]
"""A name alone, or an object."""


def handed_over(secrets: Sequence[SecretRequest]) -> tuple[str, ...]:
    """The names of those that are handed to the component."""
    return tuple(one.name for one in secrets if one.inject is None)


def injected(secrets: Sequence[SecretRequest], network: Sequence[str]) -> tuple[InjectedSecret, ...]:
    """Those that are added to its requests.

    Raises:
        InvalidInput: One is also handed over, its host is not in `network`, or two do not go together.
    """
    handed = handed_over(secrets)
    found: list[InjectedSecret] = []
    for index, one in enumerate(secrets):
        if one.inject is None:
            continue
        new = InjectedSecret(name=one.name, **one.inject.model_dump())
        problem = _problem(new, handed, network, found)
        if problem:
            raise errors.InvalidInput(
                f"secrets.{index}: {problem}", details=[{"field": f"secrets.{index}", "message": problem}]
            )
        found.append(new)
    return tuple(found)


def _problem(
    new: InjectedSecret, handed: Sequence[str], network: Sequence[str], others: Sequence[InjectedSecret]
) -> str:
    host = parse_destination(new.host)
    if new.name in handed:
        return f"{new.name!r} is handed to the component as well: expected one of both"
    port = host.port or (443 if new.tls else 80)
    if not any(parse_destination(text).allows(host.host, port) for text in network):
        return f"{new.host!r} is injected for and not reachable: expected it in network, on port {port}"
    for other in others:
        if parse_destination(other.host).host != host.host:
            continue
        if (other.host, other.tls) != (new.host, new.tls):
            return f"{other.name!r} is injected for {other.host!r} otherwise: expected the same port and tls for a host"
        if other.header.lower() == new.header.lower():
            return f"{other.name!r} is injected as {other.header!r} for {other.host!r} already"
    return ""
