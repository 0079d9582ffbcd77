"""Tokens: issued, verified, renewed and revoked, for people and programs, and for one attempt of one execution.

What makes a token valid is in `domain.credential`. Whether the attempt of an execution's token still runs is not in the
token; who reads or writes for it asks the store (`executions.check_token_is_live`), and so does who renews it.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flow_platform.domain import errors
from flow_platform.domain.credential import (
    ALGORITHM,
    AUDIENCE,
    CLOCK_SKEW,
    ISSUER,
    Credential,
    key_set,
    parse_token,
    refuse,
)
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Principal, Role
from flow_platform.store.base import SigningKey

EXECUTION_TOKEN_LIFE: Final = timedelta(minutes=15)  # An execution lives longer by renewal, a stolen token does not.
DEADLINE_MARGIN: Final = timedelta(seconds=30)  # A token outlives its execution's deadline by the time to report it.
REFRESH_WINDOW: Final = timedelta(minutes=15)  # How long ago an execution's token may have expired to be refreshed.
MAX_REMEMBERED: Final = 4096  # Verified tokens, about 1 KiB each.


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


@dataclass(frozen=True)
class Revoked:
    """What is not believed any more, before its time.

    Attributes:
        tokens: (organization, id of the token).
        subjects: By (organization, subject): the time until which its tokens were revoked, whatever their ids.
    """

    tokens: frozenset[tuple[str, str]] = frozenset()
    subjects: Mapping[tuple[str, str], datetime] = field(default_factory=dict[tuple[str, str], datetime])

    def has(self, credential: Credential) -> bool:
        org_id = credential.principal.org_id
        if self.tokens and (org_id, credential.token_id) in self.tokens:
            return True
        before = self.subjects.get((org_id, credential.principal.subject)) if self.subjects else None
        return before is not None and credential.issued_at <= before


class Tokens:
    """Issues and verifies tokens. Thread-compatible, not thread-safe: used on the event loop.

    Args:
        keys: The newest that has no end signs; all verify until they are retired.
    """

    def __init__(self, keys: Sequence[SigningKey], *, issuer: str = ISSUER) -> None:
        self._issuer = issuer
        self._verified: OrderedDict[bytes, Credential] = OrderedDict()
        self._revoked = Revoked()
        self._public_keys: dict[str, Ed25519PublicKey] = {}
        self.use(keys)

    def use(self, keys: Sequence[SigningKey], revoked: Revoked | None = None) -> None:
        """Takes these keys from now on, and refuses what was revoked."""
        lasting = [key for key in keys if key.retired_at is None]
        if not lasting:
            raise errors.SettingsError(f"{len(keys)} signing keys, none in use: expected at least one")
        newest = max(lasting, key=lambda key: (key.created_at, key.kid))
        self._signing_kid = newest.kid
        self._signing_key = _private_key(newest)
        known = self._public_keys
        self._public_keys = {key.kid: known.get(key.kid) or _public_key(key) for key in keys}
        self._retired_at = {key.kid: key.retired_at for key in keys if key.retired_at is not None}
        if revoked is not None:
            self._revoked = revoked

    def revoke(self, revoked: Revoked) -> None:
        """Refuses these too, at once."""
        self._revoked = Revoked(self._revoked.tokens | revoked.tokens, {**self._revoked.subjects, **revoked.subjects})

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

    def secret_for(self, purpose: str) -> bytes:
        """32 bytes that all servers of the platform have for a purpose, and nobody else; new when keys are rotated."""
        private = self._signing_key.private_bytes_raw()
        return hashlib.blake2b(private, digest_size=32, person=b"flow-secret-for", key=purpose.encode()[:64]).digest()

    def for_user(
        self,
        subject: str,
        org_id: str,
        workspace_id: str | None,
        role: Role,
        ttl: timedelta,
        now: datetime,
        custom_role: str | None = None,
    ) -> str:
        """A token for a person or a program. It ends when it says: over HTTP only executions get newer ones.

        Raises:
            InvalidInput: Lifetime not positive, or the role is that of executions.
        """
        if ttl <= timedelta(0):
            raise errors.InvalidInput(f"lifetime {ttl.total_seconds():g} s is not valid: expected more than 0 s")
        if role is Role.EXECUTION:
            raise errors.InvalidInput(f"role {role.value!r} is not valid for a user: only a running execution has it")
        claims: dict[str, Any] = {"sub": subject, "org": org_id, "ws": workspace_id, "role": role.value}
        if role is Role.CUSTOM:
            claims["named"] = custom_role
        return self._signed(claims, ttl, now)

    def verify(self, token: str, now: datetime) -> Principal:
        """Whose token it is.

        Raises:
            Unauthenticated: `token_expired`, or `token_invalid` for everything else that is wrong.
        """
        return self.inspect(token, now).principal

    def inspect(self, token: str, now: datetime) -> Credential:
        """The same as `verify`, with the token's times. The signature of a known token is not checked again."""
        credential = self._credential(token)
        credential.check_times(now)
        self.check(credential, now)
        return credential

    def check(self, credential: Credential, now: datetime) -> None:
        """Whether a credential that was verified is still believed, its times apart.

        Raises:
            Unauthenticated: `token_revoked`; `token_invalid`: its key was retired.
        """
        retired_at = self._retired_at.get(credential.key_id)
        if retired_at is not None and now >= retired_at:
            refuse("its key was retired")
        if self._revoked.has(credential):
            raise errors.Unauthenticated("the token was revoked", code="token_revoked")

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
            refuse("not valid yet")
        retired_at = self._retired_at.get(credential.key_id)
        if retired_at is not None and now >= retired_at:
            refuse("its key was retired")
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

    def jwks(self, now: datetime | None = None) -> dict[str, Any]:
        """The public keys, at a time without those retired until then."""
        retired = {kid for kid, at in self._retired_at.items() if now is not None and now >= at}
        return key_set({kid: key for kid, key in self._public_keys.items() if kid not in retired})

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
        credential = parse_token(token, self._public_keys, self._issuer)
        self._verified[digest] = credential
        if len(self._verified) > MAX_REMEMBERED:
            self._verified.popitem(last=False)
        return credential


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
