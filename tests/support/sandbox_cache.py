"""Where tests keep runtime roots: kept between runs, since making one takes a second."""

from __future__ import annotations

import os
from pathlib import Path


def sandbox_cache() -> Path:
    return Path(f"/var/tmp/flow-tests-{os.geteuid()}")
