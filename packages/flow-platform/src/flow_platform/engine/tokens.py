"""Credentials: JSON Web Tokens signed with Ed25519, for people and programs, and for one attempt of one execution.

A token is believed only as far as this file says: the algorithm is fixed (the header may not choose another), the key
must be one of ours, issuer and audience must match, and every claim must be present and of its type. Whether the
attempt of an execution's token still runs is not in the token; who reads or writes for it asks the store
(`executions.check_token_is_live`), and so does who renews it.

Source: RFC 7519 (JWT), RFC 8037 (EdDSA), RFC 7517 (JWKS), RFC 8725 (best current practices).
"""

from __future__ import annotations

import base64
import hashlib
import math
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flow_platform.domain import errors
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Principal, Role
from flow_platform.store.base import SigningKey

ALGORITHM: Final = "EdDSA"
AUDIENCE: Final = "flow"
EXECUTION_TOKEN_LIFE: Final = timedelta(minutes=15)  # An execution lives longer by renewal, a stolen token does not.
DEADLINE_MARGIN: Final = timedelta(seconds=30)  # A token outlives its execution's deadline by the time to report it.
REFRESH_WINDOW: Final = timedelta(minutes=15)  # How long ago an execution's token may have expired to be refreshed.
CLOCK_SKEW: Final = timedelta(seconds=5)  # A token made by another machine may be from a moment ahead.
MAX_TOKEN_LENGTH: Final = 4096  # Ours have about 600 characters.
MAX_REMEMBERED: Final = 4096  # Verified tokens, about 1 KiB each.

_COMMON_CLAIMS: Final = ("iss", "aud", "sub", "org", "role", "iat", "nbf", "exp", "jti")
_EXECUTION_CLAIMS: Final = ("ws", "exe", "att", "epoch", "end")
_HEADER: Final = {"alg", "kid", "typ"}


@dataclass(frozen=True)
class Credential:
    """A verified token or API key: who holds it, and from when to when."""

    principal: Principal
    not_before: datetime
    issued_at: datetime
    expires_at: datetime
    ends_at: datetime | None  # Execution tokens: no renewal reaches beyond.
    api_key_id: str | None = None

    @property
    def half_life(self) -> datetime:
        return self.issued_at + (self.expires_at - self.issued_at) / 2


def new_signing_key(now: datetime) -> SigningKey:
    """Makes a key pair."""
    private = Ed25519PrivateKey.generate()
    return SigningKey(
        kid=secrets.token_urlsafe(12),
        private_pem=private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        public_pem=private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode(),
        created_at=now,
    )


class Tokens:
    """Issues and verifies tokens. Thread-compatible, not thread-safe: used on the event loop.

    Args:
        keys: The newest that is not retired signs; all that are not retired verify.
    """

    def __init__(self, keys: Sequence[SigningKey], *, issuer: str = "flow") -> None:
        active = sorted((key for key in keys if key.retired_at is None), key=lambda key: key.created_at, reverse=True)
        if not active:
            raise errors.SettingsError(f"{len(keys)} signing keys, none in use: expected at least one")
        self._issuer = issuer
        self._signing_kid = active[0].kid
        self._signing_key = _private_key(active[0])
        self._public_keys = {key.kid: _public_key(key) for key in active}
        self._verified: OrderedDict[bytes, Credential] = OrderedDict()

    def for_execution(self, execution: Execution, now: datetime) -> str:
        """A token for the current attempt of an execution; never valid beyond the execution's deadline and a margin."""
        claims: dict[str, Any] = {
            "sub": f"execution:{execution.id}",
            "org": execution.org_id,
            "ws": execution.workspace_id,
            "role": Role.EXECUTION.value,
            "exe": execution.id,
            "att": execution.attempt,
            "epoch": execution.lease_epoch,
            "ring": execution.ring_id,
            "end": math.ceil((execution.deadline_at + DEADLINE_MARGIN).timestamp()),
        }
        return self._signed(claims, EXECUTION_TOKEN_LIFE, now)

    def for_user(
        self, subject: str, org_id: str, workspace_id: str | None, role: Role, ttl: timedelta, now: datetime
    ) -> str:
        """A token for a person or a program. It ends when it says: over HTTP only executions get newer ones.

        Raises:
            InvalidInput: Lifetime not positive, or the role is that of executions.
        """
        if ttl <= timedelta(0):
            raise errors.InvalidInput(f"lifetime {ttl.total_seconds():g} s is not valid: expected more than 0 s")
        if role is Role.EXECUTION:
            raise errors.InvalidInput(f"role {role.value!r} is not valid for a user: only a running execution has it")
        return self._signed({"sub": subject, "org": org_id, "ws": workspace_id, "role": role.value}, ttl, now)

    def verify(self, token: str, now: datetime) -> Principal:
        """Whose token it is.

        Raises:
            Unauthenticated: `token_expired`, or `token_invalid` for everything else that is wrong.
        """
        return self.inspect(token, now).principal

    def inspect(self, token: str, now: datetime) -> Credential:
        """The same as `verify`, with the token's times. The signature of a known token is not checked again."""
        credential = self._credential(token)
        if now + CLOCK_SKEW < credential.not_before:
            _refuse("not valid yet")
        if now >= credential.expires_at:
            raise errors.Unauthenticated(
                f"the token expired at {credential.expires_at.isoformat()}", code="token_expired"
            )
        return credential

    def renewed(self, token: str, now: datetime) -> str | None:
        """A newer token with the same claims and life when this one is past half of its life, else None.

        The caller decides whether its holder still may have one. An execution's token never outlives its execution.
        """
        credential = self.inspect(token, now)
        if now < credential.half_life or (credential.ends_at and credential.expires_at >= credential.ends_at):
            return None
        return self._again(credential, now)

    async def refreshed(
        self, token: str, now: datetime, check_is_live: Callable[[Principal], Awaitable[None]]
    ) -> tuple[str, Credential]:
        """A newer token for an execution's token that is valid or expired a short while ago.

        Args:
            check_is_live: Raises when the token's attempt has ended.

        Raises:
            Unauthenticated: Not a token of ours, expired too long ago, or what `check_is_live` says.
            Forbidden: A user's token: it ends when it says.
        """
        credential = self._credential(token)
        if now + CLOCK_SKEW < credential.not_before:
            _refuse("not valid yet")
        ends_at = credential.ends_at
        window = timedelta(0) if ends_at is None else REFRESH_WINDOW
        if now >= credential.expires_at + window or (ends_at and now >= ends_at):
            raise errors.Unauthenticated(
                f"the token expired at {credential.expires_at.isoformat()}, too long ago to be refreshed",
                code="token_expired",
            )
        if ends_at is None:
            raise errors.Forbidden(
                f"a token of role {credential.principal.role.value!r} is not refreshed: expected one of an execution"
            )
        await check_is_live(credential.principal)
        newer = self._again(credential, now)
        return newer, self.inspect(newer, now)

    def jwks(self) -> dict[str, Any]:
        """The public keys. Source: RFC 8037, section 2."""
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
                for kid, key in self._public_keys.items()
            ]
        }

    def _again(self, credential: Credential, now: datetime) -> str:
        principal = credential.principal
        claims: dict[str, Any] = {
            "sub": principal.subject,
            "org": principal.org_id,
            "ws": principal.workspace_id,
            "role": principal.role.value,
        }
        if credential.ends_at is None:
            return self._signed(claims, credential.expires_at - credential.issued_at, now)
        claims |= {
            "exe": principal.execution_id,
            "att": principal.attempt,
            "epoch": principal.lease_epoch,
            "ring": principal.ring_id,
            "end": int(credential.ends_at.timestamp()),
        }
        return self._signed(claims, EXECUTION_TOKEN_LIFE, now)

    def _signed(self, claims: dict[str, Any], life: timedelta, now: datetime) -> str:
        issued_at = math.floor(now.timestamp())
        expires_at = math.ceil((now + life).timestamp())
        payload = {
            **claims,
            "iss": self._issuer,
            "aud": AUDIENCE,
            "iat": issued_at,
            "nbf": issued_at,
            "exp": min(expires_at, claims.get("end", expires_at)),
            "jti": secrets.token_urlsafe(12),
        }
        return jwt.encode(payload, self._signing_key, algorithm=ALGORITHM, headers={"kid": self._signing_kid})

    def _credential(self, token: str) -> Credential:
        # Remembered by digest, so that no usable token lies in memory longer than its request.
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._verified.get(digest)
        if known is not None:
            self._verified.move_to_end(digest)
            return known
        credential = self._parsed(token)
        self._verified[digest] = credential
        if len(self._verified) > MAX_REMEMBERED:
            self._verified.popitem(last=False)
        return credential

    def _parsed(self, token: str) -> Credential:
        if len(token) > MAX_TOKEN_LENGTH:
            _refuse(f"{len(token)} characters, expected at most {MAX_TOKEN_LENGTH}")
        try:
            header = jwt.get_unverified_header(token)
            key = self._public_keys.get(header.get("kid", ""))
            if header.get("alg") != ALGORITHM or not header.keys() <= _HEADER or key is None:
                _refuse("expected a token that this platform signed")
            # Times are compared with the clock that is passed in, by the callers.
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=self._issuer,
                options={
                    "require": list(_COMMON_CLAIMS),
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise errors.Unauthenticated(
                "the token is not valid: expected a token that this platform signed", code="token_invalid"
            ) from error
        return _credential_of(claims)


def _credential_of(claims: dict[str, Any]) -> Credential:
    role = next((role for role in Role if role.value == claims["role"]), None)
    if role is None:
        _refuse(f"no role {claims['role']!r:.80}")
    is_execution = role is Role.EXECUTION
    if is_execution and not all(claims.get(name) is not None for name in _EXECUTION_CLAIMS):
        _refuse("a claim is missing")
    principal = Principal(
        subject=_text(claims, "sub"),
        org_id=_text(claims, "org"),
        role=role,
        workspace_id=_text(claims, "ws") if claims.get("ws") is not None else None,
        execution_id=_text(claims, "exe") if is_execution else None,
        attempt=_whole(claims, "att") if is_execution else None,
        lease_epoch=_whole(claims, "epoch") if is_execution else None,
        ring_id=_text(claims, "ring") if is_execution and claims.get("ring") is not None else None,
    )
    return Credential(
        principal,
        not_before=_instant(claims, "nbf"),
        issued_at=_instant(claims, "iat"),
        expires_at=_instant(claims, "exp"),
        ends_at=_instant(claims, "end") if is_execution else None,
    )


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims[name]
    if not isinstance(value, str) or not value:
        _refuse(f"claim {name!r} is not text")
    return value


def _whole(claims: dict[str, Any], name: str) -> int:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        _refuse(f"claim {name!r} is not a whole number")
    return value


def _instant(claims: dict[str, Any], name: str) -> datetime:
    try:
        return datetime.fromtimestamp(_whole(claims, name), UTC)
    except (OverflowError, ValueError, OSError):
        _refuse(f"claim {name!r} is no time")


def _refuse(reason: str) -> NoReturn:
    raise errors.Unauthenticated(f"the token is not valid: {reason}", code="token_invalid")


def _private_key(key: SigningKey) -> Ed25519PrivateKey:
    private = serialization.load_pem_private_key(key.private_pem.encode(), password=None)
    if not isinstance(private, Ed25519PrivateKey):
        raise errors.SettingsError(f"signing key {key.kid!r} is {type(private).__name__}: expected Ed25519")
    return private


def _public_key(key: SigningKey) -> Ed25519PublicKey:
    public = serialization.load_pem_public_key(key.public_pem.encode())
    if not isinstance(public, Ed25519PublicKey):
        raise errors.SettingsError(f"signing key {key.kid!r} is {type(public).__name__}: expected Ed25519")
    return public
