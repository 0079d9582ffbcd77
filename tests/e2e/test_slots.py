"""One runner with one slot: a parent that waits lends it to its children, so everything ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import RingClient
from tests.support.flow_program import Platform, running

pytestmark = pytest.mark.slow

COMPONENTS = Path(__file__).with_name("nested_components.py")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("one-slot"), "--runners", "1", "--slots", "1") as started:
        published = started.flow("publish", COMPONENTS)
        assert published.returncode == 0, published.stderr
        yield started


async def test_five_children_one_by_one(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        document = await ring.run_workflow("one-by-one", {"numbers": [1, 2, 3, 4, 5]})
    assert (document["status"], document["output"]) == ("completed", [1, 4, 9, 16, 25])


async def test_ten_children_at_once(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        document = await ring.run_workflow("all-at-once", {"numbers": list(range(10))})
    assert (document["status"], document["output"]) == ("completed", [number * number for number in range(10)])


async def test_workflows_in_workflows(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        document = await ring.run_workflow("nested", {"depth": 3, "number": 6})
    assert (document["status"], document["output"]) == ("completed", 39)
    tree = platform.output_of("show", document["execution_id"], "--tree", "--json")
    depth = 0
    while tree["children"]:
        (tree,) = tree["children"]
        depth += 1
    assert depth == 4


async def test_several_parents_share_the_slot(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        ids = [await ring.submit_workflow("all-at-once", {"numbers": [number, 1]}) for number in range(4)]
        documents = [await ring.ended(execution_id) for execution_id in ids]
    assert [document["status"] for document in documents] == ["completed"] * 4
    assert [document["output"] for document in documents] == [[number * number, 1] for number in range(4)]


async def test_a_child_that_fails_is_an_answer(platform: Platform) -> None:
    async with RingClient(platform) as ring:
        document = await ring.run_workflow("catches", {"number": 5})
    assert document["output"] == {"status": "failed", "message": "not 5"}
