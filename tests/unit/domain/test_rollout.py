"""Versions on their way through rings: deploying, promoting, sharing traffic, going back."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.domain.deployment import (
    TRANSITIONS,
    Activated,
    Approved,
    BuildStarted,
    Event,
    PlacementStarted,
    Restored,
    RollbackCompleted,
    RollbackStarted,
    ShareChanged,
    StepFailed,
    Superseded,
    ValidationStarted,
    apply,
)
from flow_platform.domain.promotion import Promotion, activate_together, promote, promote_together
from flow_platform.domain.release import Deployment, DeploymentState, Ring, RollbackRule
from flow_platform.domain.rollout import Track, begin, changed, choose, roll_back, step
from flow_platform.domain.rollout_health import Sample, check_rule, is_healthy, react, window_start

_T0 = datetime(2026, 1, 1, tzinfo=UTC)
_EVENTS: dict[type[Event], Event] = {
    Approved: Approved(_T0, "ada"),
    BuildStarted: BuildStarted(_T0),
    PlacementStarted: PlacementStarted(_T0),
    ValidationStarted: ValidationStarted(_T0),
    ShareChanged: ShareChanged(_T0, 10),
    StepFailed: StepFailed(_T0, "no"),
    Activated: Activated(_T0),
    Superseded: Superseded(_T0),
    RollbackStarted: RollbackStarted(_T0, "no"),
    RollbackCompleted: RollbackCompleted(_T0),
    Restored: Restored(_T0),
}


def _ring(name: str = "dev", order: int = 10, **fields: Any) -> Ring:
    return Ring(name, "org", "ws", name, order, auto_deploy=False, created_at=_T0, **fields)


def _deployment(version: int, **fields: Any) -> Deployment:
    return Deployment(
        **{
            "id": f"d{version}",
            "org_id": "org",
            "workspace_id": "ws",
            "component_id": "c",
            "version_id": f"v{version}",
            "version": version,
            "ring_id": "dev",
            "state": DeploymentState.QUEUED,
            "created_at": _T0,
            "digest": f"sha256:{version}",
            **fields,
        }
    )


def _live(track: Track, version: int, at: datetime = _T0) -> Track:
    """Takes a version all the way."""
    track = begin(track, _deployment(version))
    for event in (PlacementStarted(at), ValidationStarted(at), Activated(at)):
        track = step(track, f"d{version}", event)
    return track


def _states(track: Track) -> dict[str, str]:
    return {deployment.id: deployment.state.value for deployment in track.deployments}


@pytest.mark.parametrize("state", list(DeploymentState))
@pytest.mark.parametrize("event", list(_EVENTS.values()), ids=lambda event: type(event).__name__)
def test_the_table_is_total(state: DeploymentState, event: Event):
    before = _deployment(1, state=state)
    target = TRANSITIONS[state].get(type(event))
    if target is not None:
        assert apply(before, event).state is target
        return
    with pytest.raises(errors.IllegalTransition) as caught:
        apply(before, event)
    assert type(event).__name__ in caught.value.message
    assert repr(state.value) in caught.value.message


def test_a_version_goes_live_and_the_earlier_one_is_superseded():
    track = _live(_live(Track("c", _ring()), 1), 2, _T0 + timedelta(hours=1))
    assert _states(track) == {"d1": "superseded", "d2": "active"}
    assert track.active is not None
    assert track.active.previous_id == "d1"
    assert track.active.activated_at == _T0 + timedelta(hours=1)


def test_what_turns_active_is_written_last():
    before = _live(Track("c", _ring()), 1)
    busy = begin(before, _deployment(2))
    for event in (PlacementStarted(_T0), ValidationStarted(_T0)):
        busy = step(busy, "d2", event)
    after = step(busy, "d2", Activated(_T0))
    assert [(found.id, found.state.value) for found in changed([busy], [after])] == [
        ("d1", "superseded"),
        ("d2", "active"),
    ]
    back = roll_back(after, _T0, "no")
    assert [found.id for found in changed([after], [back])] == ["d2", "d1"]
    assert changed([after], [after]) == []


def test_a_failed_validation_leaves_the_active_one_alone():
    before = _live(Track("c", _ring()), 1)
    track = begin(before, _deployment(2))
    for event in (BuildStarted(_T0), PlacementStarted(_T0), ValidationStarted(_T0), StepFailed(_T0, "smoke test")):
        track = step(track, "d2", event)
    assert _states(track) == {"d1": "active", "d2": "failed"}
    assert track.get("d2").reason == "smoke test"
    assert begin(track, _deployment(3)).on_its_way is not None


def test_one_at_a_time():
    track = begin(Track("c", _ring()), _deployment(1))
    with pytest.raises(errors.Conflict, match="'d1' of version 1 is 'queued'") as caught:
        begin(track, _deployment(2))
    assert caught.value.error_code == "deployment_in_progress"


def test_what_is_active_is_not_deployed_again():
    with pytest.raises(errors.Conflict) as caught:
        begin(_live(Track("c", _ring()), 1), _deployment(9, digest="sha256:1"))
    assert caught.value.error_code == "already_active"


def test_a_new_deployment_brings_no_past():
    given = _deployment(1, state=DeploymentState.ACTIVE, share=50, previous_id="x", approved_by="y", is_restored=True)
    begun = begin(Track("c", _ring()), given).get("d1")
    assert (begun.state, begun.share, begun.previous_id, begun.approved_by) == (DeploymentState.QUEUED, 0, None, None)
    assert not begun.is_restored


def test_a_ring_that_requires_approval_waits_for_it():
    track = begin(Track("c", _ring(requires_approval=True)), _deployment(1))
    for event in (BuildStarted(_T0), PlacementStarted(_T0)):
        with pytest.raises(errors.IllegalTransition, match="requires an approval"):
            step(track, "d1", event)
    track = step(track, "d1", Approved(_T0, "ada"))
    assert track.get("d1").approved_by == "ada"
    assert step(track, "d1", PlacementStarted(_T0)).get("d1").state is DeploymentState.DEPLOYING
    assert step(track, "d1", StepFailed(_T0, "refused by bob")).get("d1").state is DeploymentState.FAILED


@pytest.mark.parametrize("event", [Superseded(_T0), RollbackStarted(_T0, "x"), Restored(_T0)])
def test_paired_steps_are_not_taken_alone(event: Event):
    track = _live(_live(Track("c", _ring()), 1), 2)
    for deployment in track.deployments:
        with pytest.raises(errors.IllegalTransition):
            step(track, deployment.id, event)


def test_going_back_restores_one_after_the_other():
    track = _live(_live(_live(Track("c", _ring()), 1), 2), 3)
    second = roll_back(track, _T0, "bad")
    assert _states(second) == {"d1": "superseded", "d2": "active", "d3": "rolling_back"}
    assert second.get("d3").reason == "bad"
    first = roll_back(second, _T0, "bad as well")
    assert _states(first) == {"d1": "active", "d2": "rolling_back", "d3": "rolling_back"}
    done = step(first, "d3", RollbackCompleted(_T0))
    assert done.get("d3").state is DeploymentState.ROLLED_BACK
    with pytest.raises(errors.Conflict, match="version 1 is the first one") as caught:
        roll_back(done, _T0, "no")
    assert caught.value.error_code == "nothing_to_roll_back"
    with pytest.raises(errors.Conflict, match="none is active"):
        roll_back(Track("c", _ring()), _T0, "no")


def test_unknown_deployments():
    with pytest.raises(errors.NotFound, match="'nope'"):
        step(Track("c", _ring()), "nope", Activated(_T0))


def _canary(share: int) -> Track:
    track = begin(_live(Track("c", _ring()), 1), _deployment(2))
    return step(step(track, "d2", PlacementStarted(_T0)), "d2", ValidationStarted(_T0, share))


def test_a_share_of_the_executions_is_chosen_and_stays():
    ids = [f"execution-{number}" for number in range(2000)]
    tracks = {share: _canary(share) for share in (0, 10, 50, 99)}
    chosen = {share: {one for one in ids if choose(track, one).id == "d2"} for share, track in tracks.items()}
    assert chosen[0] == set()
    assert chosen[10] < chosen[50] < chosen[99]
    assert 120 < len(chosen[10]) < 280
    assert 900 < len(chosen[50]) < 1100


def test_shares_change_while_validating_only():
    track = step(_canary(10), "d2", ShareChanged(_T0, 60))
    assert track.get("d2").share == 60
    track = step(track, "d2", Activated(_T0))
    assert track.get("d2").share == 0
    assert choose(track, "any") == track.get("d2")
    with pytest.raises(errors.IllegalTransition):
        step(track, "d2", ShareChanged(_T0, 10))


@pytest.mark.parametrize("share", [-1, 100])
def test_a_share_is_a_part(share: int):
    with pytest.raises(errors.InvalidInput, match="0 to 99"):
        step(_canary(10), "d2", ShareChanged(_T0, share))


def test_the_first_deployment_has_nobody_to_share_with():
    track = step(begin(Track("c", _ring()), _deployment(1)), "d1", PlacementStarted(_T0))
    with pytest.raises(errors.IllegalTransition, match="no deployment is active"):
        step(track, "d1", ValidationStarted(_T0, 10))
    assert choose(step(track, "d1", ValidationStarted(_T0)), "any") is None


def _wish(**fields: Any) -> Promotion:
    return Promotion(
        **{
            "source": _live(Track("c", _ring("dev", 10)), 1),
            "target": Track("c", _ring("staging", 20)),
            "sample": Sample(100, 1),
            "deployment_id": "p1",
            **fields,
        }
    )


def test_a_promotion_carries_the_same_content():
    begun = promote(_wish(), _T0).get("p1")
    assert (begun.digest, begun.version_id, begun.version) == ("sha256:1", "v1", 1)
    assert (begun.ring_id, begun.promoted_from_id, begun.state) == ("staging", "d1", DeploymentState.QUEUED)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target": Track("c", _ring("dev2", 10))}, "ring 'dev' (order 10) is not before ring 'dev2' (order 10)"),
        ({"target": Track("other", _ring("staging", 20))}, "expected one component"),
        ({"source": Track("c", _ring())}, "nothing is active in ring 'dev'"),
        ({"source": begin(Track("c", _ring()), _deployment(1))}, "nothing is active in ring 'dev'"),
        ({"sample": Sample(20, 10)}, "not healthy in ring 'dev': 10 of 20 executions failed"),
        ({"expected_id": "d0"}, "'d0' is not the active one in ring 'dev' any more"),
    ],
)
def test_what_is_not_promoted(fields: dict[str, Any], words: str):
    with pytest.raises(errors.Conflict) as caught:
        promote(_wish(**fields), _T0)
    assert caught.value.error_code == "not_promotable"
    assert words in caught.value.message


def test_one_promotion_at_a_time():
    target = promote(_wish(), _T0)
    with pytest.raises(errors.Conflict) as caught:
        promote(_wish(target=target, deployment_id="p2"), _T0)
    assert caught.value.error_code == "deployment_in_progress"


def test_a_set_is_promoted_all_or_none():
    good = _wish()
    bad = _wish(sample=Sample(50, 50), target=Track("c", _ring("production", 30)))
    with pytest.raises(errors.Conflict, match="1 of 2 components cannot be promoted") as caught:
        promote_together([good, bad], _T0)
    assert [detail["code"] for detail in caught.value.details] == ["not_promotable"]
    (track,) = promote_together([good], _T0)
    for event in (PlacementStarted(_T0), ValidationStarted(_T0)):
        track = step(track, "p1", event)
    with pytest.raises(errors.IllegalTransition):
        activate_together([track, promote(good, _T0)], ["p1", "p1"], _T0)
    assert activate_together([track], ["p1"], _T0)[0].active is not None


_RULE = RollbackRule(0.2, 10, timedelta(minutes=5), timedelta(hours=1))


@pytest.mark.parametrize(
    ("sample", "is_well"),
    [
        (Sample(0, 0), True),
        (Sample(9, 9), True),
        (Sample(10, 1), True),
        (Sample(10, 2), False),
        (Sample(10, 10), False),
    ],
)
def test_health_needs_enough_executions(sample: Sample, is_well: bool):
    assert is_healthy(_RULE, sample) is is_well


def test_a_new_deployment_that_fails_is_taken_back():
    track = _live(_live(Track("c", _ring(rollback=_RULE)), 1), 2)
    assert react(track, {"d2": Sample(10, 1)}, _T0) is track
    back = react(track, {"d2": Sample(10, 2)}, _T0 + timedelta(minutes=1))
    assert _states(back) == {"d1": "active", "d2": "rolling_back"}
    assert back.get("d2").reason == "2 of 10 executions failed; the limit is 20%"


def test_a_restored_deployment_is_not_taken_back_in_turn():
    track = _live(_live(_live(Track("c", _ring(rollback=_RULE)), 1), 2), 3)
    back = react(track, {"d3": Sample(10, 10)}, _T0)
    assert react(back, {"d2": Sample(10, 10)}, _T0) is back


def test_failures_of_an_old_deployment_have_other_causes():
    track = _live(_live(Track("c", _ring(rollback=_RULE)), 1), 2)
    assert react(track, {"d2": Sample(10, 10)}, _T0 + timedelta(hours=1)) is track


def test_the_first_deployment_stays_and_rings_without_a_rule_do_nothing():
    first = _live(Track("c", _ring(rollback=_RULE)), 1)
    assert react(first, {"d1": Sample(10, 10)}, _T0) is first
    plain = _live(_live(Track("c", _ring()), 1), 2)
    assert react(plain, {"d2": Sample(10, 10)}, _T0) is plain


def test_a_deployment_that_fails_with_a_share_never_turns_active():
    track = _canary(10)
    track = dataclasses.replace(track, ring=_ring(rollback=_RULE))
    after = react(track, {"d2": Sample(10, 5)}, _T0)
    assert _states(after) == {"d1": "active", "d2": "failed"}
    assert choose(after, "any") == after.get("d1")


def test_a_sample_starts_with_the_activation():
    deployment = _deployment(1, activated_at=_T0)
    assert window_start(_RULE, deployment, _T0 + timedelta(minutes=2)) == _T0
    assert window_start(_RULE, deployment, _T0 + timedelta(minutes=9)) == _T0 + timedelta(minutes=4)


@pytest.mark.parametrize(
    "fields", [{"failure_rate": 0}, {"minimum_count": 0}, {"window": timedelta()}, {"watch": timedelta(days=31)}]
)
def test_rules_have_bounds(fields: dict[str, Any]):
    with pytest.raises(errors.InvalidInput, match=f"rollback.{next(iter(fields))}"):
        check_rule(dataclasses.replace(_RULE, **fields))
    assert check_rule(_RULE) is _RULE
