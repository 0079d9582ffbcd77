"""Which package index the operator chose: by uv's variables, pip's, or pip's files. None is named here: without a
choice it is uv's default, which uv itself tells.
"""

from __future__ import annotations

import configparser
import logging
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from flow_platform.domain.destination import normal_host

logger = logging.getLogger(__name__)

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
_UV_DEFAULT: Final = re.compile(r"default package index \(by default: <(https?://[^\s>]+)>\)")
_HELP_SECONDS: Final = 10.0
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Index:
    """The operator's choice.

    Attributes:
        env: Variables for uv.
        hosts: `(host, port)` of every index.
        urls: Of those with pages of projects.
        certificates: A bundle of certificate authorities on the host, when there is one.
    """

    env: Mapping[str, str] = field(default_factory=dict[str, str])
    hosts: frozenset[tuple[str, int]] = frozenset()
    urls: tuple[str, ...] = ()
    certificates: Path | None = None


def configured_index(environ: Mapping[str, str], uv: Path | None = None) -> Index:
    """Reads the operator's choice. Indexes that are local folders are left out.

    Args:
        uv: The binary whose default is taken where no index is configured.
    """
    env: dict[str, str] = {name: environ[name] for name in _PASSED if environ.get(name)}
    filed = _pip_files(environ)
    for name, aliases in ((_DEFAULT, _DEFAULT_ALIASES), (_EXTRA, _EXTRA_ALIASES), (_LINKS, (_LINKS,))):
        value = next((environ[alias] for alias in aliases if environ.get(alias)), "") or filed.get(name, "")
        urls = [url for url in value.replace(",", " ").split() if _is_remote(url)]
        if urls:
            env[name] = " ".join(urls)
    if _DEFAULT not in env and uv is not None and (default := _default_of(uv)):
        env[_DEFAULT] = default
    named = {name for name in environ if name.startswith("UV_INDEX_") and name.endswith(_CREDENTIALS)}
    env.update({name: environ[name] for name in named})
    pages = tuple(_address(url) for name in (_DEFAULT, _EXTRA) for url in env.get(name, "").split())
    return Index(env, frozenset(_hosts(env)), pages, _certificates(environ))


def _pip_files(environ: Mapping[str, str]) -> dict[str, str]:
    """What pip's configuration files say, by uv's names; the later file wins, as with pip."""
    home = Path(environ.get("HOME", "/"))
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    named = environ.get("PIP_CONFIG_FILE")
    paths = [Path("/etc/pip.conf"), home / ".pip/pip.conf", config / "pip/pip.conf", Path(sys.prefix) / "pip.conf"]
    if named == os.devnull:
        return {}
    read = configparser.RawConfigParser(strict=False)
    try:
        read.read([*paths, *([Path(named)] if named else [])])
    except (configparser.Error, UnicodeDecodeError) as error:
        logger.warning("a configuration file of pip was not understood: %s", error)
        return {}
    values = {_DEFAULT: "index-url", _EXTRA: "extra-index-url"}
    return {name: read.get("global", option, fallback="") for name, option in values.items()}


def _default_of(uv: Path) -> str:
    """The index that uv takes by itself, from its help."""
    try:
        told = subprocess.run(
            [uv, "help", "pip", "compile"],
            capture_output=True,
            text=True,
            timeout=_HELP_SECONDS,
            check=True,
            env={"NO_COLOR": "1", "UV_NO_CONFIG": "1"},
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("uv did not tell its default index: %s", error)
        return ""
    found = _UV_DEFAULT.search(told)
    return found[1] if found else ""


def _is_remote(url: str) -> bool:
    return urlsplit(_address(url)).scheme in DEFAULT_PORTS


def _address(url: str) -> str:
    """Uv allows `name=https://...`."""
    name, separator, address = url.partition("=")
    return address if separator and "/" not in name else url


def _hosts(env: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    for name in (_DEFAULT, _EXTRA, _LINKS):
        for url in env.get(name, "").split():
            parts = urlsplit(_address(url))
            if parts.hostname:
                yield normal_host(parts.hostname), parts.port or DEFAULT_PORTS[parts.scheme]


def _certificates(environ: Mapping[str, str]) -> Path | None:
    for candidate in (environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None
