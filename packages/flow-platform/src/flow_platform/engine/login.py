"""Signing in with a browser, at an outside issuer (OpenID Connect, code flow with PKCE): who comes back gets a session.

A session is one of our own tokens in a cookie that scripts cannot read, with the role that the issuer's rules give. So
it ends, is revoked and is rotated as every other token. What must be remembered between going and coming back travels
with the browser, as a ticket that only these servers can make: nothing is kept for those who never come back.

Source: OpenID Connect Core 1.0, section 3.1; RFC 7636 (PKCE); RFC 9700 (best current practices of OAuth).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

import jwt

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.domain.credential import Credential
from flow_platform.engine.issuer_settings import IssuerSettings, LoginSettings, is_safe_url
from flow_platform.engine.issuers import DISCOVERY, Issuer, fetch_object

if TYPE_CHECKING:
    from flow_platform.engine.tokens import Tokens

TICKET_LIFE: Final = timedelta(minutes=10)  # For the password, the second factor, and the telephone in between.
_TICKET_AUDIENCE: Final = "flow-login"
_TICKET_ALGORITHM: Final = "HS256"


@dataclass(frozen=True)
class Session:
    """What a browser gets when it comes back."""

    token: str = field(repr=False)
    lives_for: timedelta
    credential: Credential


class Logins:
    """All issuers at which people may sign in.

    Args:
        settings: Those without `login` only have their tokens believed.
        tokens: Gives the tokens when they are needed: they are there after the start.
    """

    def __init__(self, settings: Sequence[IssuerSettings], clock: Clock, tokens: Callable[[], Tokens]) -> None:
        self._clock = clock
        self._tokens = tokens
        self._providers = {one.name: _Provider(one, one.login) for one in settings if one.login is not None}
        first = next(iter(self._providers.values()), None)
        parts = urlsplit(first.login.redirect_url) if first else urlsplit("")
        self.origin = f"{parts.scheme}://{parts.netloc}" if first else ""
        self.is_secure = parts.scheme == "https"

    @property
    def names(self) -> list[str]:
        return sorted(self._providers)

    @property
    def cookie(self) -> str:
        """Its name. With the prefix no other host of the domain can set it. Source: RFC 6265bis, section 4.1.3."""
        return "__Host-flow_session" if self.is_secure else "flow_session"

    async def begin(self, name: str) -> tuple[str, str]:
        """The issuer's address to send the browser to, and the ticket to come back with.

        Raises:
            NotFound: Nobody can sign in there.
            LoginUnavailable: It does not say where.
        """
        provider = self._provider(name)
        verifier, state, nonce = (secrets.token_urlsafe(32) for _ in range(3))
        asked = {
            "response_type": "code",
            "client_id": provider.login.client_id,
            "redirect_uri": provider.login.redirect_url,
            "scope": " ".join(provider.login.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
        }
        endpoint = await provider.endpoint("authorization_endpoint")
        ticket = {"name": name, "state": state, "nonce": nonce, "verifier": verifier, "aud": _TICKET_AUDIENCE}
        ends = {"exp": int((self._clock.now() + TICKET_LIFE).timestamp())}
        signed = jwt.encode({**ticket, **ends}, self._tokens().secret_for(_TICKET_AUDIENCE), _TICKET_ALGORITHM)
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(asked)}", signed

    async def finish(self, name: str, answer: Mapping[str, str], ticket: str) -> Session:
        """The session of the browser that came back with that answer.

        Raises:
            NotFound: Nobody can sign in there.
            Unauthenticated: `login_failed`: the issuer refused, or the answer is not one to this browser's question.
            Forbidden: `no_role`: the issuer's rules give its holder none.
            LoginUnavailable: It does not answer.
        """
        provider = self._provider(name)
        begun = self._begun(name, ticket)
        if not hmac.compare_digest(begun["state"].encode(), answer.get("state", "").encode()):
            raise _failed("the answer is not one to this browser's question")
        code = answer.get("code")
        if not code:
            raise _failed(f"{name} refused: {_shown(answer.get('error', 'no code'))}")
        id_token = await provider.exchange(code, begun["verifier"])
        now = self._clock.now()
        credential = await provider.issuer.authenticate(id_token, now)
        claims: dict[str, Any] = jwt.decode(id_token, options={"verify_signature": False})  # Verified the line before.
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), begun["nonce"].encode()):
            raise _failed("the token was made for another sign-in")
        if claims.get("azp", provider.login.client_id) != provider.login.client_id:
            raise _failed("the token was made for another program")
        who, lives_for = credential.principal, timedelta(hours=provider.login.session_hours)
        token = self._tokens().for_user(
            who.subject, who.org_id, who.workspace_id, who.role, lives_for, now, custom_role=who.custom_role
        )
        return Session(token, lives_for, credential)

    def _begun(self, name: str, ticket: str) -> dict[str, str]:
        try:
            found: dict[str, Any] = jwt.decode(
                ticket,
                self._tokens().secret_for(_TICKET_AUDIENCE),
                algorithms=[_TICKET_ALGORITHM],
                audience=_TICKET_AUDIENCE,
                options={"require": ["exp"], "verify_exp": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise _failed("this browser did not begin to sign in here, or it took too long") from error
        if found["exp"] <= self._clock.now().timestamp() or found["name"] != name:
            raise _failed("this browser did not begin to sign in here, or it took too long")
        return found

    def _provider(self, name: str) -> _Provider:
        try:
            return self._providers[name]
        except KeyError:
            raise errors.NotFound(f"nobody can sign in at {name[:40]!r} here") from None


class _Provider:
    """One issuer as its client sees it."""

    def __init__(self, settings: IssuerSettings, login: LoginSettings) -> None:
        self.login = login
        # The audience of an id token is the client, whoever its access tokens are for.
        self.issuer = Issuer(settings.model_copy(update={"audience": login.client_id}))
        self._settings = settings
        self._secret = login.secret()
        self._discovered: dict[str, Any] = {}

    async def endpoint(self, name: str) -> str:
        if name not in self._discovered:
            self._discovered = await self._discover()
        url = self._discovered.get(name)
        if not isinstance(url, str) or not is_safe_url(url):
            raise _unavailable(self._settings.issuer, f"its discovery has no safe {name}")
        return url

    async def _discover(self) -> dict[str, Any]:
        try:
            found = await fetch_object(self._settings.issuer.rstrip("/") + DISCOVERY)
        except (OSError, ValueError, TypeError) as error:
            raise _unavailable(self._settings.issuer, str(error)) from error
        if found.get("issuer") != self._settings.issuer:
            raise _unavailable(self._settings.issuer, "its discovery is about another issuer")
        return found

    async def exchange(self, code: str, verifier: str) -> str:
        """The id token for a code, which is good once."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.login.redirect_url,
            "client_id": self.login.client_id,
            "code_verifier": verifier,
        }
        auth = (self.login.client_id, self._secret) if self._secret else None
        url = await self.endpoint("token_endpoint")
        try:
            found = await fetch_object(url, form=form, auth=auth)
        except ValueError as error:
            raise _failed(f"{self._settings.name} did not take the code: {error}") from error
        except (OSError, TypeError) as error:
            raise _unavailable(self._settings.issuer, str(error)) from error
        token = found.get("id_token")
        if not isinstance(token, str):
            raise _failed(f"{self._settings.name} gave no id token: is 'openid' among the scopes?")
        return token


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _shown(text: str) -> str:
    return json.dumps(text[:100])


def _failed(why: str) -> errors.Unauthenticated:
    return errors.Unauthenticated(f"signing in failed: {why}", code="login_failed", hint="begin again at /login")


def _unavailable(issuer: str, why: str) -> errors.LoginUnavailable:
    return errors.LoginUnavailable(f"{issuer!r} cannot be asked: {why}")
