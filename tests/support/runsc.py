"""Whether gVisor can be tested here: `scripts/test-services` installs its runsc."""

from __future__ import annotations

import shutil

import pytest

needs_runsc = pytest.mark.skipif(
    shutil.which("runsc") is None, reason="gVisor's runsc is not installed: see scripts/test-services"
)
