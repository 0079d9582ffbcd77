"""What every container has without any environment: the SDK and what it needs."""

from __future__ import annotations

import functools
import platform
import sys
from importlib import metadata
from typing import Final

from packaging.utils import canonicalize_name

from flow_platform.sandbox.namespaces import distributions

SDK: Final = "flow-sdk"


@functools.cache
def base_versions() -> dict[str, str]:
    """Name -> exact version of the distributions in the base, without the SDK itself."""
    return {canonicalize_name(found.name): found.version for found in distributions.needed_by(SDK)}


@functools.cache
def own_versions() -> dict[str, str]:
    """Name -> version of our distributions, which no index serves."""
    return {SDK: metadata.version(SDK)}


def target() -> str:
    """What decides the content of an environment besides its lock, as one line."""
    return f"python={sys.version_info.major}.{sys.version_info.minor} platform={sys.platform}-{platform.machine()}"
