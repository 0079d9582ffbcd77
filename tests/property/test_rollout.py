"""Rings under any sequence of steps: never two active, never other content after a promotion, exact rollback."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flow_platform.domain import errors
from flow_platform.domain.deployment import (
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
)
from flow_platform.domain.promotion import Promotion, promote
from flow_platform.domain.release import Deployment, DeploymentState, Ring, RollbackRule
from flow_platform.domain.rollout import ON_ITS_WAY, Track, begin, changed, choose, roll_back, step
from flow_platform.domain.rollout_health import Sample, react

_T0 = datetime(2026, 1, 1, tzinfo=UTC)
_RINGS = ("dev", "staging", "production")
_FORWARD: tuple[type[Event], ...] = (BuildStarted, PlacementStarted, ValidationStarted, Activated, RollbackCompleted)


class Rings(RuleBasedStateMachine):
    """Three rings of one component. The model is what was active, as a stack per ring."""

    def __init__(self) -> None:
        super().__init__()
        rule_ = RollbackRule(minimum_count=5)
        self.now = _T0
        self.count = 0
        self.tracks = {
            name: Track("c", Ring(name, "o", "w", name, order, False, _T0, {}, order == 2, rule_ if order else None))
            for order, name in enumerate(_RINGS)
        }
        self.stacks: dict[str, list[str]] = {name: [] for name in _RINGS}

    def _attempt(self, name: str, change: Callable[[Track], Track]) -> bool:
        """Applies a change to a ring; a refused one must change nothing, which frozen tracks show by themselves."""
        before = self.tracks[name]
        try:
            after = change(before)
        except errors.FlowError:
            assert self.tracks[name] is before
            return False
        written = changed([before], [after])
        assert all(deployment.state is not DeploymentState.ACTIVE for deployment in written[:-1])
        self.tracks[name] = after
        return True

    @rule(seconds=st.integers(0, 4000))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(name=st.sampled_from(_RINGS), content=st.integers(1, 4))
    def deploy(self, name: str, content: int) -> None:
        self.count += 1
        made = Deployment(
            f"d{self.count}", "o", "w", "c", f"v{content}", content, name, DeploymentState.QUEUED, self.now,
            digest=f"sha256:{content}",
        )  # fmt: skip
        self._attempt(name, lambda track: begin(track, made))

    @rule(source=st.sampled_from(_RINGS), into=st.sampled_from(_RINGS), failed=st.integers(0, 10))
    def promote(self, source: str, into: str, failed: int) -> None:
        self.count += 1
        deployment_id = f"d{self.count}"
        before = self.tracks[source]
        wish = Promotion(before, self.tracks[into], Sample(20, 2 * failed), deployment_id)
        if self._attempt(into, lambda _: promote(wish, self.now)):
            made = self.tracks[into].get(deployment_id)
            assert before.active is not None
            assert made.digest == before.active.digest
            assert _RINGS.index(source) < _RINGS.index(into)
            assert failed < 5

    @rule(name=st.sampled_from(_RINGS), back=st.integers(0, 5), data=st.data())
    def any_step(self, name: str, back: int, data: st.DataObject) -> None:
        track = self.tracks[name]
        if not track.deployments:
            return
        deployment = track.deployments[-1 - back % len(track.deployments)]
        event = data.draw(
            st.sampled_from(
                [
                    *[kind(self.now) for kind in _FORWARD],
                    Approved(self.now, "ada"),
                    ValidationStarted(self.now, 30),
                    ShareChanged(self.now, 60),
                    StepFailed(self.now, "no"),
                    Superseded(self.now),
                    RollbackStarted(self.now, "no"),
                    Restored(self.now),
                ]
            )
        )
        if self._attempt(name, lambda track: step(track, deployment.id, event)) and isinstance(event, Activated):
            self.stacks[name].append(deployment.id)

    @rule(name=st.sampled_from(_RINGS), steps=st.integers(1, 4), approve=st.booleans())
    def go_on(self, name: str, steps: int, approve: bool) -> None:
        """The next steps that lead on."""
        for _ in range(steps):
            self._lead_on(name, approve)

    @rule(name=st.sampled_from(_RINGS), content=st.integers(1, 4))
    def deploy_to_the_end(self, name: str, content: int) -> None:
        self.deploy(name, content)
        for _ in range(4):
            self._lead_on(name, approve=True)

    def _lead_on(self, name: str, approve: bool) -> None:
        busy = self.tracks[name].on_its_way
        if busy is None:
            return
        approval = [Approved(self.now, "ada")] if approve else []
        for event in (*approval, *[kind(self.now) for kind in _FORWARD]):
            if self._attempt(name, lambda track, event=event: step(track, busy.id, event)):
                if isinstance(event, Activated):
                    self.stacks[name].append(busy.id)
                if busy.state is not self.tracks[name].get(busy.id).state:
                    return

    @rule(name=st.sampled_from(_RINGS))
    def go_back(self, name: str) -> None:
        before = self.tracks[name]
        if self._attempt(name, lambda track: roll_back(track, self.now, "no")):
            self._expect_restored(name, before)
        else:
            assert len(self.stacks[name]) < 2

    @precondition(lambda self: any(track.active for track in self.tracks.values()))
    @rule(name=st.sampled_from(_RINGS), failed=st.integers(0, 10))
    def executions_end(self, name: str, failed: int) -> None:
        before = self.tracks[name]
        samples = {deployment.id: Sample(10, failed) for deployment in before.deployments}
        after = react(before, samples, self.now)
        self.tracks[name] = after
        if after is not before:
            assert failed >= 5
            assert before.ring.rollback is not None
            if after.active != before.active:
                assert before.active is not None
                assert not before.active.is_restored
                self._expect_restored(name, before)

    def _expect_restored(self, name: str, before: Track) -> None:
        self.stacks[name].pop()
        active = self.tracks[name].active
        assert active is not None
        was = before.get(active.id)
        assert (active.digest, active.version_id, active.previous_id) == (was.digest, was.version_id, was.previous_id)
        assert active.is_restored

    @invariant()
    def what_is_active_is_what_was_activated_last(self) -> None:
        for name, track in self.tracks.items():
            active = [found.id for found in track.deployments if found.state is DeploymentState.ACTIVE]
            assert active == self.stacks[name][-1:]

    @invariant()
    def one_is_on_its_way_at_most_and_shares_never_reach_all(self) -> None:
        for track in self.tracks.values():
            busy = [found for found in track.deployments if found.state in ON_ITS_WAY]
            assert len(busy) <= 1
            assert all(0 <= found.share < 100 for found in track.deployments)
            assert all(not found.share for found in track.deployments if found.state is not DeploymentState.VALIDATING)
            chosen = choose(track, "some execution")
            assert (chosen is None) == (track.active is None)

    @invariant()
    def content_never_changes(self) -> None:
        everywhere = {found.id: found for track in self.tracks.values() for found in track.deployments}
        for found in everywhere.values():
            assert found.digest == f"sha256:{found.version}"
            if found.promoted_from_id is not None:
                assert everywhere[found.promoted_from_id].digest == found.digest

    @invariant()
    def nothing_passes_an_approval(self) -> None:
        for found in self.tracks["production"].deployments:
            assert found.approved_by or found.state in (DeploymentState.QUEUED, DeploymentState.FAILED)


Rings.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestRings = Rings.TestCase
