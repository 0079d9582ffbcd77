"""The page at `/`, for people who open the platform's address: what this is and where to go on. It names no tenant.

Without scripts, and nothing on it comes from elsewhere but the name of who is signed in.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.login import session_of
from flow_platform.api.routing import Route
from flow_platform.domain import errors

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_STYLE: Final = "body{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}"
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'; form-action "
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Flow</title>
<style>{style}</style>
</head>
<body>
<h1>Flow</h1>
{person}<p>Durable executions of code in fresh isolated containers. Version {version}.</p>
<ul>
<li><a href="/api/v1/openapi.json">The API as an OpenAPI document</a>, <a href="/.well-known/jwks.json">the keys of its
tokens</a></li>
<li><a href="/healthz">Health</a>, <a href="/readyz">readiness</a>, <a href="/metrics">metrics</a></li>
<li>Documentation: <code>README.md</code> and <code>docs/</code> of the repository</li>
<li>A token: <code>flow token</code> on the machine of <code>flow up</code>; an administrator makes one for others with
<code>flow token --role viewer</code></li>
</ul>
</body>
</html>
"""


_NOBODY: Final = '<p><a href="/login">Sign in</a></p>\n'
_SOMEBODY: Final = """<form method="post" action="/logout">
<p>Signed in as {subject}. <button>Sign out</button></p>
</form>
"""


class FrontPage:
    """The endpoint of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            Route(method, "/", self.page, "The page for people.", tag=None, answers={200: "HTML"})
            for method in ("GET", "HEAD")
        ]

    async def page(self, request: Request) -> Response:
        text = _page().replace("{person}", await self._person(request))
        policy = _POLICY + ("'self'" if self._engine.logins.names else "'none'")  # To sign out.
        return Response(text, 200, {"Content-Security-Policy": policy}, "text/html")

    async def _person(self, request: Request) -> str:
        if not self._engine.logins.names:
            return ""
        try:
            headers = {name.encode(): value for name, value in request.headers.items()}
            credential = await session_of(self._engine, request.method, headers)
        except (errors.Unauthenticated, errors.Forbidden):
            credential = None
        return _SOMEBODY.format(subject=html.escape(credential.principal.subject)) if credential else _NOBODY


@functools.cache
def _page() -> str:
    from importlib.metadata import version  # Slower to load than all else here; few ever ask.

    return _PAGE.format(person="{person}", style=_STYLE, version=version("flow-platform"))
