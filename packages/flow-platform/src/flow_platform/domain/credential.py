"""What a token of the platform says, and when it is believed. For servers, which issue them, and for runners, which
only have the public keys.

A token is believed only as far as this file says: the algorithm is fixed (the header may not choose another), the key
must be one of ours, issuer and audience must match, and every claim must be present and of its type. Whether it was
revoked, and whether the attempt of an execution's token still runs, is not in the token.

Source: RFC 7519 (JWT), RFC 8037 (EdDSA), RFC 7517 (JWKS), RFC 8725 (best current practices).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, cast

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from flow_platform.domain import errors
from flow_platform.domain.principal import Principal, Role

ALGORITHM: Final = "EdDSA"
AUDIENCE: Final = "flow"
ISSUER: Final = "flow"
CLOCK_SKEW: Final = timedelta(seconds=5)  # A token made by another machine may be from a moment ahead.
MAX_TOKEN_LENGTH: Final = 4096  # Ours have about 600 characters.
MAX_KEYS: Final = 100  # Of one key set; ours has one, and for a month after each rotation one more.

_COMMON_CLAIMS: Final = ("iss", "aud", "sub", "org", "role", "iat", "nbf", "exp", "jti")
_EXECUTION_CLAIMS: Final = ("ws", "exe", "att", "epoch", "end")
_HEADER: Final = {"alg", "kid", "typ"}


@dataclass(frozen=True)
class Credential:
    """A verified token or API key: who holds it, and from when to when.

    Attributes:
        ends_at: Execution tokens: no renewal reaches beyond.
        key_id: Of the key that signed it; empty for API keys.
        token_id: Its own, by which it can be revoked; empty when it has none.
    """

    principal: Principal
    not_before: datetime
    issued_at: datetime
    expires_at: datetime
    ends_at: datetime | None
    api_key_id: str | None = None
    key_id: str = ""
    token_id: str = ""

    @property
    def half_life(self) -> datetime:
        return self.issued_at + (self.expires_at - self.issued_at) / 2

    def check_times(self, now: datetime) -> None:
        """Raises Unauthenticated: `token_expired`, or `token_invalid` before its time."""
        if now + CLOCK_SKEW < self.not_before:
            refuse("not valid yet")
        if now >= self.expires_at:
            raise errors.Unauthenticated(f"the token expired at {self.expires_at.isoformat()}", code="token_expired")


def parse_token(token: str, keys: Mapping[str, Ed25519PublicKey], issuer: str = ISSUER) -> Credential:
    """What a token says whose signature is one of ours. Its times are not compared with any clock here.

    Raises:
        UnknownKey: It names a key that is not among these.
        Unauthenticated: `token_invalid`.
    """
    if len(token) > MAX_TOKEN_LENGTH:
        refuse(f"{len(token)} characters, expected at most {MAX_TOKEN_LENGTH}")
    try:
        header = jwt.get_unverified_header(token)
        key_id = header.get("kid", "")
        if header.get("alg") != ALGORITHM or not header.keys() <= _HEADER or not isinstance(key_id, str):
            refuse("expected a token that this platform signed")
        key = keys.get(key_id)
        if key is None:
            raise UnknownKey
        claims = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=issuer,
            options={"require": list(_COMMON_CLAIMS), "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise errors.Unauthenticated(
            "the token is not valid: expected a token that this platform signed", code="token_invalid"
        ) from error
    return _credential_of(claims, key_id)


class UnknownKey(errors.Unauthenticated):
    """The key may be newer than what is known here: worth a look, once in a while."""

    def __init__(self) -> None:
        super().__init__("the token is not valid: expected a token that this platform signed", code="token_invalid")


def key_set(keys: Mapping[str, Ed25519PublicKey]) -> dict[str, Any]:
    """Public keys as a document. Source: RFC 8037, section 2."""
    return {
        "keys": [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "use": "sig",
                "alg": ALGORITHM,
                "kid": kid,
                "x": base64.urlsafe_b64encode(key.public_bytes_raw()).rstrip(b"=").decode(),
            }
            for kid, key in keys.items()
        ]
    }


def parse_key_set(document: Mapping[str, Any]) -> dict[str, Ed25519PublicKey]:
    """The keys of such a document of ours; whatever else it has is left out."""
    listed: Any = document.get("keys")
    found: dict[str, Ed25519PublicKey] = {}
    for each in cast("list[Any]", listed)[:MAX_KEYS] if isinstance(listed, list) else []:
        if not isinstance(each, dict):
            continue
        entry = cast("dict[str, Any]", each)
        kid, x = entry.get("kid"), entry.get("x")
        if entry.get("crv") != "Ed25519" or not isinstance(kid, str) or not isinstance(x, str):
            continue
        try:
            found[kid] = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "=" * (-len(x) % 4)))
        except (ValueError, binascii.Error):
            continue
    return found


def digest_of_keys(document: Mapping[str, Any]) -> str:
    """The same for equal key sets, wherever it is computed."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def refuse(reason: str) -> NoReturn:
    raise errors.Unauthenticated(f"the token is not valid: {reason}", code="token_invalid")


def _credential_of(claims: dict[str, Any], key_id: str) -> Credential:
    role = next((role for role in Role if role.value == claims["role"]), None)
    if role is None:
        refuse(f"no role {claims['role']!r:.80}")
    is_execution = role is Role.EXECUTION
    if is_execution and not all(claims.get(name) is not None for name in _EXECUTION_CLAIMS):
        refuse("a claim is missing")
    if role is Role.CUSTOM and (claims.get("named") is None or claims.get("ws") is None):
        refuse("a claim is missing")
    principal = Principal(
        subject=_text(claims, "sub"),
        org_id=_text(claims, "org"),
        role=role,
        workspace_id=_text(claims, "ws") if claims.get("ws") is not None else None,
        execution_id=_text(claims, "exe") if is_execution else None,
        attempt=_whole(claims, "att") if is_execution else None,
        lease_epoch=_whole(claims, "epoch") if is_execution else None,
        ring_id=_text(claims, "ring") if is_execution and claims.get("ring") is not None else None,
        custom_role=_text(claims, "named") if role is Role.CUSTOM else None,
    )
    return Credential(
        principal,
        not_before=_instant(claims, "nbf"),
        issued_at=_instant(claims, "iat"),
        expires_at=_instant(claims, "exp"),
        ends_at=_instant(claims, "end") if is_execution else None,
        key_id=key_id,
        token_id=_text(claims, "jti"),
    )


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims[name]
    if not isinstance(value, str) or not value:
        refuse(f"claim {name!r} is not text")
    return value


def _whole(claims: dict[str, Any], name: str) -> int:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        refuse(f"claim {name!r} is not a whole number")
    return value


def _instant(claims: dict[str, Any], name: str) -> datetime:
    try:
        return datetime.fromtimestamp(_whole(claims, name), UTC)
    except (OverflowError, ValueError, OSError):
        refuse(f"claim {name!r} is no time")
