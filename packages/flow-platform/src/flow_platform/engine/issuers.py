"""Tokens of outside issuers (OpenID Connect), believed as far as the operator's file says.

Nothing in a token decides how it is verified: its `iss` only says which of the trusted issuers' keys and rules are
tried, and addresses of keys in its header are never followed. Keys are fetched when they are first needed, kept for a
while, and fetched again for a key id that is not known, but not more often than every half minute.

Source: OpenID Connect Core 1.0 and Discovery 1.0; RFC 8725 (best current practices of JWT).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from flow_platform.domain import errors
from flow_platform.domain.credential import MAX_KEYS, Credential, refuse
from flow_platform.domain.principal import Principal, Role
from flow_platform.domain.roles import MAX_TOKEN_LIFE
from flow_platform.engine.issuer_settings import IssuerSettings, Rule, is_safe_url

logger = logging.getLogger(__name__)

MAX_TOKEN_LENGTH: Final = 16_384  # Groups of people make them long.
MAX_DOCUMENT_BYTES: Final = 256 << 10  # Of a key set, or of what discovery finds.
FETCH_SECONDS: Final = 5.0
KEYS_LIVE_SECONDS: Final = 600.0
KEYS_STALE_SECONDS: Final = 24 * 3600.0  # So long old keys are used when newer ones cannot be fetched.
FETCH_AGAIN_SECONDS: Final = 30.0
MAX_REMEMBERED: Final = 4096
MIN_RSA_BITS: Final = 2048
DISCOVERY: Final = "/.well-known/openid-configuration"

_KEY_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class Issuers:
    """All that are trusted."""

    def __init__(self, settings: Sequence[IssuerSettings] = ()) -> None:
        self._issuers = {each.issuer: Issuer(each) for each in settings}

    def of(self, token: str) -> Issuer | None:
        """The issuer that the token names, if it is one of these: believed for nothing else than to ask that one."""
        if not self._issuers or len(token) > MAX_TOKEN_LENGTH:
            return None
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        name = claims.get("iss")
        return self._issuers.get(name) if isinstance(name, str) else None


class Issuer:
    """One of them, with its keys."""

    def __init__(self, settings: IssuerSettings) -> None:
        self._settings = settings
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._verified: OrderedDict[bytes, Credential] = OrderedDict()

    async def authenticate(self, token: str, now: datetime) -> Credential:
        """Whose token it is.

        Raises:
            Unauthenticated: `token_expired`; `token_invalid`; `issuer_unavailable`: its keys cannot be had.
            Forbidden: `no_role`: no rule gives its holder one.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._verified.get(digest)
        if known is None or known.key_id not in await self._known_keys():
            known = await self._verify(token)
            self._verified[digest] = known
            if len(self._verified) > MAX_REMEMBERED:
                self._verified.popitem(last=False)
        known.check_times(now)
        return known

    async def _verify(self, token: str) -> Credential:
        try:
            header = jwt.get_unverified_header(token)
            algorithm, key_id = header.get("alg"), header.get("kid", "")
            if algorithm not in self._settings.algorithms or "crit" in header or not isinstance(key_id, str):
                refuse(f"algorithm {algorithm!r:.40} or header is not allowed")
            key = await self._key(key_id, str(algorithm))
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[str(algorithm)],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                options={
                    "require": ["iss", "aud", "sub", "exp", "iat"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise errors.Unauthenticated(
                f"the token is not valid: expected one that {self._settings.issuer!r} signed for "
                f"{self._settings.audience!r}",
                code="token_invalid",
            ) from error
        return self._credential(claims, key_id)

    def _credential(self, claims: dict[str, Any], key_id: str) -> Credential:
        rule = next((rule for rule in self._settings.rules if rule.fits(claims)), None)
        subject = claims.get(self._settings.subject_claim)
        if not isinstance(subject, str) or not 0 < len(subject) <= 200 or not subject.isprintable():
            refuse(f"claim {self._settings.subject_claim!r} is no name")
        if rule is None:
            raise errors.Forbidden(f"{subject!r} of {self._settings.name!r} has no role here", code="no_role")
        issued_at, expires_at = _instant(claims, "iat"), _instant(claims, "exp")
        token_id = claims.get("jti")
        return Credential(
            _principal(rule, f"{self._settings.name}/{subject}"),
            not_before=_instant(claims, "nbf") if "nbf" in claims else issued_at,
            issued_at=issued_at,
            expires_at=min(expires_at, issued_at + MAX_TOKEN_LIFE),  # So long a revocation is remembered.
            ends_at=None,
            key_id=f"{self._settings.name}:{key_id}",
            token_id=f"{self._settings.name}:{token_id}" if isinstance(token_id, str) else "",
        )

    async def _known_keys(self) -> set[str]:
        await self._refresh(wanted=None)
        return {f"{self._settings.name}:{key_id}" for key_id in self._keys}

    async def _key(self, key_id: str, algorithm: str) -> jwt.PyJWK:
        await self._refresh(wanted=key_id)
        key = self._keys.get(key_id)
        if key is None or key.key_type != _KEY_TYPES[algorithm[:2]]:
            refuse("its key is not one of its issuer's")
        if isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA_BITS:
            refuse(f"its key has {key.key.key_size} bits: expected at least {MIN_RSA_BITS}")
        return key

    async def _refresh(self, wanted: str | None) -> None:
        """Fetches the keys when there are none that are fresh, or not the wanted one; seldom, whoever asks."""
        loop = asyncio.get_running_loop()
        is_missing = wanted is not None and wanted not in self._keys
        if not is_missing and loop.time() - self._fetched_at < KEYS_LIVE_SECONDS:
            return
        async with self._fetching:
            now = loop.time()
            if now - self._tried_at >= FETCH_AGAIN_SECONDS:
                self._tried_at = now
                try:
                    self._keys = _parse(await self._fetch())
                    self._fetched_at = loop.time()
                except (OSError, ValueError, TypeError, errors.FlowError) as error:
                    logger.warning("keys of %s were not fetched: %s", self._settings.name, error)
            if now - self._fetched_at > KEYS_STALE_SECONDS:
                self._keys = {}
                raise errors.Unauthenticated(
                    f"the keys of {self._settings.issuer!r} cannot be had", code="issuer_unavailable"
                )

    async def _fetch(self) -> dict[str, Any]:
        if self._settings.jwks_file is not None:
            return _object(await asyncio.to_thread(_read, self._settings.jwks_file))
        url = self._settings.jwks_url
        if url is None:
            found = _object(await _get(self._settings.issuer.rstrip("/") + DISCOVERY))
            url = found.get("jwks_uri")
            if found.get("issuer") != self._settings.issuer or not isinstance(url, str) or not is_safe_url(url):
                raise ValueError("what discovery found is not about this issuer, or has no safe jwks_uri")
        return _object(await _get(url))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_DOCUMENT_BYTES + 1)


async def fetch_object(
    url: str, *, form: Mapping[str, str] | None = None, auth: tuple[str, str] | None = None
) -> dict[str, Any]:
    """A JSON object, got, or posted for.

    Raises:
        OSError: It was not answered.
        ValueError, TypeError: With another status, or something else.
    """
    return _object(await _get(url, form, auth))


async def _get(url: str, form: Mapping[str, str] | None = None, auth: tuple[str, str] | None = None) -> bytes:
    """A small document. Redirects are not followed, proxies of the environment are not used."""
    import httpx  # Who trusts no outside issuer does not load it here.

    body = b""
    try:
        async with (
            asyncio.timeout(FETCH_SECONDS),
            httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=FETCH_SECONDS) as client,
            client.stream(
                "GET" if form is None else "POST",
                url,
                headers={"Accept": "application/json", "User-Agent": "flow"},
                data=form,
                auth=auth,
            ) as answer,
        ):
            if answer.status_code != 200:
                raise ValueError(f"{url} answered {answer.status_code}: expected 200")
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_DOCUMENT_BYTES:
                    break
    except (httpx.HTTPError, TimeoutError) as error:
        raise OSError(f"{url} did not answer: {error!r}") from error
    return body


def _object(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"more than {MAX_DOCUMENT_BYTES} bytes")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise TypeError("expected a JSON object")
    return cast("dict[str, Any]", document)


def _parse(document: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    """The keys that verify signatures, by their ids. What is none of that kind is left out."""
    listed: Any = document.get("keys")
    if not isinstance(listed, list) or len(cast("list[Any]", listed)) > MAX_KEYS:
        raise ValueError(f"expected a list of at most {MAX_KEYS} keys")
    keys: dict[str, jwt.PyJWK] = {}
    for entry in cast("list[Any]", listed):
        if not isinstance(entry, dict) or cast("dict[str, Any]", entry).get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(cast("dict[str, Any]", entry))
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        if key.key_type in _KEY_TYPES.values():  # Never a symmetric one: it could sign, too.
            keys[key.key_id or ""] = key
    return keys


def _principal(rule: Rule, subject: str) -> Principal:
    built_in = next((role for role in Role if role.value == rule.role), None)
    if built_in is not None:
        return Principal(subject, rule.org_id, built_in, rule.workspace_id)
    return Principal(subject, rule.org_id, Role.CUSTOM, rule.workspace_id, custom_role=rule.role)


def _instant(claims: dict[str, Any], name: str) -> datetime:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(f"claim {name!r} is no time")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError):
        refuse(f"claim {name!r} is no time")
