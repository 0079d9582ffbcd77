"""The main job: from nothing to the result of a real workflow."""

from __future__ import annotations

import json

import pytest

from tests.support.flow_program import flow_process

pytestmark = pytest.mark.slow


def test_the_demo_ranks_modules_of_the_standard_library() -> None:
    done = flow_process("demo", "--modules", "8", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    ranking = report["output"]["ranking"]
    assert [row["rank"] for row in ranking] == list(range(1, 9))
    assert all(row["complexity"] > 10 and row["lines"] > 100 and row["function"] for row in ranking)
    assert ranking == sorted(ranking, key=lambda row: -row["complexity"])
    assert report["containers"] == 10
    assert set(report["stages"]) >= {"queue_ms", "start_ms", "run_ms"}
    answers = [turn["answer"] for turn in report["agent"]["turns"]]
    assert answers[0] == "Your kettle comes from Bern. It takes 1 day."
    assert answers[1].startswith("As you asked before: A-17")


def test_the_demo_survives_the_death_of_its_runner_and_proves_it() -> None:
    done = flow_process("demo", "--modules", "12", "--crash", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["output"]["ranking"]) == 12
    proof = report["crash"]
    assert proof["children"] == proof["expected"] == proof["completed"] == 13
    assert (proof["ended_before_and_begun_again"], proof["workflow_attempts"]) == (0, 2)
    assert proof["ended_before"] >= 7
    assert f"kill -9 {proof['killed']}" in done.stderr
