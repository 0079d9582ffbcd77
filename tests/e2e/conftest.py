from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.flow_program import Platform, running

COMPONENTS = Path(__file__).with_name("components.py")


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform for all tests that do not harm it, with the components of `components.py`."""
    with running(tmp_path_factory.mktemp("platform")) as started:
        published = started.flow("publish", COMPONENTS)
        assert published.returncode == 0, published.stderr
        yield started
