"""Signing in and out with a browser, and what a session's cookie may ask.

A cookie is sent by the browser whoever's page caused the request. So it counts only for requests from pages of our own:
browsers say where a request comes from (`Sec-Fetch-Site`, `Origin`), and a page cannot change what they say. Programs
use headers, for which none of this is needed.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from flow_platform.api.audit_scope import on_behalf_of
from flow_platform.api.routing import Route
from flow_platform.domain import errors
from flow_platform.domain.credential import Credential
from flow_platform.engine.login import TICKET_LIFE

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

TICKET: Final = "flow_login"
_TAG: Final = "Login"
_SENT: Final = "Sends the browser on."
_POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_SAFE: Final = frozenset({"GET", "HEAD"})
_CHOICE: Final = '<li><a href="/login/{name}">{name}</a></li>'
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in to Flow</title></head>
<body><h1>Sign in to Flow</h1><ul>{choices}</ul></body></html>
"""


class LoginRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/login", self.choose, "Where people sign in.", tag=_TAG, answers={200: "HTML", 303: _SENT}),
            Route(
                "GET", "/login/{name}", self.begin, "Sends the browser to an issuer.", tag=_TAG, answers={303: _SENT}
            ),
            Route(
                "GET",
                "/login/{name}/callback",
                self.finish,
                "Where the issuer sends it back to: sets the session's cookie.",
                tag=_TAG,
                answers={303: _SENT},
            ),
            Route("POST", "/logout", self.leave, "Ends the session of the cookie.", tag=_TAG, answers={303: _SENT}),
        ]

    async def choose(self, _: Request) -> Response:
        names = self._engine.logins.names
        if not names:
            raise errors.NotFound("nobody can sign in here with a browser: no issuer has 'login'")
        if len(names) == 1:
            return RedirectResponse(f"/login/{names[0]}", 303)
        choices = "".join(_CHOICE.format(name=html.escape(name)) for name in names)
        return Response(_PAGE.format(choices=choices), 200, {"Content-Security-Policy": _POLICY}, "text/html")

    async def begin(self, request: Request) -> Response:
        address, ticket = await self._engine.logins.begin(request.path_params["name"])
        answer = RedirectResponse(address, 303)
        # Lax: it must come along when the issuer sends the browser back.
        self._set(answer, TICKET, ticket, int(TICKET_LIFE.total_seconds()), "/login")
        return answer

    async def finish(self, request: Request) -> Response:
        session = await self._engine.logins.finish(
            request.path_params["name"], request.query_params, request.cookies.get(TICKET, "")
        )
        own = self._engine.tokens.inspect(session.token, self._engine.clock.now())
        with on_behalf_of(self._engine, request, own) as change:
            await self._engine.audit.enter(change, None)
        answer = RedirectResponse("/", 303)
        self._set(answer, self._engine.logins.cookie, session.token, int(session.lives_for.total_seconds()), "/")
        self._set(answer, TICKET, "", 0, "/login")
        return answer

    async def leave(self, request: Request) -> Response:
        answer = RedirectResponse("/", 303)
        headers = {name.encode(): value for name, value in request.headers.items()}
        try:
            credential = await session_of(self._engine, request.method, headers)
        except errors.Unauthenticated:
            credential = None  # It has ended already.
        if credential is not None:
            with on_behalf_of(self._engine, request, credential):
                await self._engine.credentials.revoke(
                    credential.principal, "token", credential.token_id, credential.expires_at
                )
        self._set(answer, self._engine.logins.cookie, "", 0, "/")
        return answer

    def _set(self, answer: Response, name: str, value: str, seconds: int, path: str) -> None:
        answer.set_cookie(
            name, value, max_age=seconds, path=path, secure=self._engine.logins.is_secure, httponly=True, samesite="lax"
        )


async def session_of(engine: Engine, method: str, headers: Mapping[bytes, str]) -> Credential | None:
    """Whose session the request's cookie is; None: it has none.

    Raises:
        Unauthenticated: It has ended, or was revoked.
        Forbidden: `cross_site`: a page that is not ours caused the request.
    """
    if not engine.logins.names or b"cookie" not in headers:
        return None
    try:
        found = SimpleCookie(headers[b"cookie"]).get(engine.logins.cookie)
    except CookieError:
        return None
    if found is None or not found.value:
        return None
    _require_own_page(method, headers, engine.logins.origin)
    return await engine.credentials.inspect(found.value)


def _require_own_page(method: str, headers: Mapping[bytes, str], own: str) -> None:
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if method in _SAFE:
        is_ours = site in (None, "same-origin", "none") and origin in (None, own)
    else:
        is_ours = site in (None, "same-origin") and (origin == own or (origin is None and site is not None))
    if not is_ours:
        raise errors.Forbidden(
            f"a page of {(origin or site or 'nobody knows where')[:100]!r} caused this: expected one of {own!r}",
            code="cross_site",
        )
