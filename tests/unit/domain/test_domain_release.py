from __future__ import annotations

from flow_platform.domain.release import BUILT_IN_RINGS, DeploymentState


def test_the_built_in_rings_lead_from_dev_to_production_and_only_dev_deploys_by_itself() -> None:
    assert [name for name, _, _ in sorted(BUILT_IN_RINGS, key=lambda ring: ring[1])] == ["dev", "staging", "production"]
    assert [name for name, _, auto_deploy in BUILT_IN_RINGS if auto_deploy] == ["dev"]


def test_the_states_of_a_deployment_are_the_specifications_words() -> None:
    expected = "queued building deploying validating active failed rolling_back rolled_back superseded"

    assert [state.value for state in DeploymentState] == expected.split()
