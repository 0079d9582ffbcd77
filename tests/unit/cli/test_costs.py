"""`flow costs` without a platform."""

from __future__ import annotations

from typing import Any

import pytest

from flow_platform.cli.costs import credits_text, show_tree

BLOCK = {"kind": "code_block", "id": "c", "version": 1, "name": "measure", "slug": "measure"}
FLOW = {"kind": "workflow", "id": "w", "version": 1, "name": "census", "slug": "census"}


@pytest.mark.parametrize(
    ("micro_credits", "text"), [(0, "0"), (17, "0.000017"), (1_250_000, "1.25"), (3_000_000, "3"), (10**13, "10000000")]
)
def test_credits_are_exact(micro_credits: int, text: str) -> None:
    assert credits_text(micro_credits) == text


def node(number: int, **more: Any) -> dict[str, Any]:
    values = {
        "component": BLOCK,
        "status": "completed",
        "attempts": 1,
        "own_micro_credits": 5,
        "total_micro_credits": 5,
    }
    return {"transaction_id": f"t{number}", **values, **more}


def test_many_children_of_one_component_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    children = [node(n, attempts=2 if n == 1 else 1) for n in range(1, 9)]
    top = node(0, component=FLOW, total_micro_credits=45, children=children)

    show_tree(top)
    lines = capsys.readouterr().out.splitlines()
    show_tree(top, all_shown=True)

    assert [" ".join(line.split()) for line in lines] == [
        "CREDITS OWN WHAT STATUS ID",
        "0.000045 0.000005 workflows/census completed t0",
        "0.000005 0.000005 code-blocks/measure x2 completed t1",
        "0.000005 0.000005 code-blocks/measure completed t2",
        "0.000005 0.000005 code-blocks/measure completed t3",
        "0.000025 0.000025 code-blocks/measure and 5 more",
    ]
    assert len(capsys.readouterr().out.splitlines()) == 10
