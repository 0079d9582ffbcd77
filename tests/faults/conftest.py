from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.flow_program import Platform, running

COMPONENTS = Path(__file__).with_name("components.py")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A platform of the test's own: it will be harmed."""
    with running(tmp_path, "--port", "0") as started:
        published = started.flow("publish", COMPONENTS)
        assert published.returncode == 0, published.stderr
        yield started
