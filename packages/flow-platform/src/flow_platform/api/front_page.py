"""The page at `/`, for people who open the platform's address: what this is and where to go on. It names no tenant.

Static, without scripts, and nothing on it comes from elsewhere.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.routing import Route

_STYLE: Final = "body{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}"
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
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
<p>Durable executions of code in fresh isolated containers. Version {version}.</p>
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


class FrontPage:
    """The endpoint."""

    def routes(self) -> list[Route]:
        return [
            Route(method, "/", self.page, "The page for people.", tag=None, answers={200: "HTML"})
            for method in ("GET", "HEAD")
        ]

    async def page(self, _: Request) -> Response:
        return Response(_page(), 200, {"Content-Security-Policy": _POLICY}, "text/html")


@functools.cache
def _page() -> str:
    from importlib.metadata import version  # Slower to load than all else here; few ever ask.

    return _PAGE.format(style=_STYLE, version=version("flow-platform"))
