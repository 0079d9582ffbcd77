"""Where an index has its files: on hosts of their own, often, which it names in its pages.

The runner asks the operator's index for the page of one project that a build is about and keeps the hosts that its
links name, so that a build may reach those and no others. Nothing of a build takes part in that. What cannot be learned
so is for the operator to name (`FLOW_BUILD_HOSTS`).

Source: PEP 503 and PEP 691, the simple repository API.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx
from packaging.utils import canonicalize_name

from flow_platform.build.index import DEFAULT_PORTS, Index
from flow_platform.domain.destination import normal_host

logger = logging.getLogger(__name__)

PAGE_SECONDS: Final = 15.0
MAX_PAGE_BYTES: Final = 1 << 20  # Of a longer page the beginning names the same hosts.
MAX_REDIRECTS: Final = 3
MAX_PROJECTS: Final = 3  # Asked for in turn, until one has files.
_ACCEPT: Final = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_LINK: Final = re.compile(rb"""(?:"url"\s*:\s*"|href\s*=\s*["'])([^"'#]+)""", re.IGNORECASE)

HostAndPort = tuple[str, int]


class FileHosts:
    """Remembers what was learned of each index."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._known: dict[str, frozenset[HostAndPort]] = {}

    async def find(self, projects: Iterable[str]) -> frozenset[HostAndPort]:
        """The hosts of the files of all indexes, as far as they are known or can be learned with these projects."""
        asked = [canonicalize_name(project) for project in projects][:MAX_PROJECTS]
        missing = [url for url in self._index.urls if url not in self._known]
        if missing and asked:
            context = ssl.create_default_context(cafile=self._index.certificates)
            async with httpx.AsyncClient(verify=context, trust_env=False, timeout=PAGE_SECONDS) as client:
                for url in missing:
                    await self._learn(client, url, asked)
        return frozenset[HostAndPort]().union(*self._known.values())

    async def _learn(self, client: httpx.AsyncClient, url: str, projects: Iterable[str]) -> None:
        for project in projects:
            try:
                found = await self._hosts_of(client, f"{url.rstrip('/')}/{project}/")
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                logger.info("an index did not say where its files are: %s", error or type(error).__name__)
                return
            if found:
                self._known[url] = found
                return

    async def _hosts_of(self, client: httpx.AsyncClient, url: str) -> frozenset[HostAndPort]:
        for _ in range(MAX_REDIRECTS + 1):
            async with client.stream("GET", url, headers={"Accept": _ACCEPT}) as answer:
                if answer.is_redirect:
                    url = urljoin(url, answer.headers.get("Location", ""))
                    if _place(urlsplit(url)) not in self._index.hosts:
                        raise ValueError("it redirects to another host")
                    continue
                if not answer.is_success:
                    return frozenset()
                page = b""
                async for chunk in answer.aiter_bytes():
                    page += chunk
                    if len(page) > MAX_PAGE_BYTES:
                        break
                return frozenset(_links(url, page))
        raise ValueError("it redirects without an end")


def _links(base: str, page: bytes) -> Iterable[HostAndPort]:
    for link in _LINK.findall(page):
        try:
            place = _place(urlsplit(urljoin(base, link.decode())))
        except ValueError:
            continue
        if place is not None:
            yield place


def _place(parts: SplitResult) -> HostAndPort | None:
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        return None
    return normal_host(parts.hostname), parts.port or DEFAULT_PORTS[parts.scheme]
