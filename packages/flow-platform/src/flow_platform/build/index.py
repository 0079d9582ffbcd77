"""Which package index the operator chose, from the environment of the process. No index is named here: without a
choice, uv takes its default.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from flow_platform.domain.destination import normal_host

_DEFAULT: Final = "UV_DEFAULT_INDEX"
_DEFAULT_ALIASES: Final = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
_EXTRA: Final = "UV_INDEX"
_EXTRA_ALIASES: Final = ("UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL")
_LINKS: Final = "UV_FIND_LINKS"
_PASSED: Final = (
    "UV_INDEX_STRATEGY",
    "UV_HTTP_TIMEOUT",
    "UV_HTTP_RETRIES",
    "UV_INSECURE_HOST",
    "UV_EXCLUDE_NEWER",
    "UV_PRERELEASE",
)
_CREDENTIALS: Final = ("_USERNAME", "_PASSWORD")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Index:
    """The operator's choice.

    Attributes:
        env: Variables for uv.
        hosts: `(host, port)` of every configured index, lower case.
        certificates: A bundle of certificate authorities on the host, when there is one.
    """

    env: Mapping[str, str] = field(default_factory=dict[str, str])
    hosts: frozenset[tuple[str, int]] = frozenset()
    certificates: Path | None = None


def configured_index(environ: Mapping[str, str]) -> Index:
    """Reads uv's variables, and pip's where uv's are not set. Indexes that are local folders are left out."""
    env: dict[str, str] = {name: environ[name] for name in _PASSED if environ.get(name)}
    for name, aliases in ((_DEFAULT, _DEFAULT_ALIASES), (_EXTRA, _EXTRA_ALIASES), (_LINKS, (_LINKS,))):
        value = next((environ[alias] for alias in aliases if environ.get(alias)), "")
        urls = [url for url in value.replace(",", " ").split() if _is_remote(url)]
        if urls:
            env[name] = " ".join(urls)
    named = {name for name in environ if name.startswith("UV_INDEX_") and name.endswith(_CREDENTIALS)}
    env.update({name: environ[name] for name in named})
    hosts = frozenset(_hosts(env))
    return Index(env, hosts, _certificates(environ))


def _is_remote(url: str) -> bool:
    return urlsplit(_address(url)).scheme in _DEFAULT_PORTS


def _address(url: str) -> str:
    """Uv allows `name=https://...`."""
    name, separator, address = url.partition("=")
    return address if separator and "/" not in name else url


def _hosts(env: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    for name in (_DEFAULT, _EXTRA, _LINKS):
        for url in env.get(name, "").split():
            parts = urlsplit(_address(url))
            if parts.hostname:
                yield normal_host(parts.hostname), parts.port or _DEFAULT_PORTS[parts.scheme]


def _certificates(environ: Mapping[str, str]) -> Path | None:
    for candidate in (environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None
