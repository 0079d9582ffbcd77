from __future__ import annotations

import pytest

from flow_platform.domain import errors
from flow_platform.domain.principal import ALLOWED, Action, Principal, Role


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("action", list(Action))
def test_a_role_may_exactly_what_the_table_says(role: Role, action: Action) -> None:
    who = Principal("someone", "org", role, "workspace")

    if action in ALLOWED[role]:
        who.require(action, "org", "workspace")
    else:
        with pytest.raises(errors.Forbidden, match=f"'{role.value}' may not '{action.value}'"):
            who.require(action, "org", "workspace")


def test_every_role_is_in_the_table_and_only_admins_administer() -> None:
    assert set(ALLOWED) == set(Role)
    assert [role for role in Role if Action.ADMINISTER in ALLOWED[role]] == [Role.ADMIN]
    assert [role for role in Role if Action.READ not in ALLOWED[role]] == [Role.CUSTOM], "looked up, never assumed"


@pytest.mark.parametrize(("org", "workspace"), [("other", "workspace"), ("org", "other"), ("other", None)])
def test_another_tenant_is_not_found_whatever_the_role(org: str, workspace: str | None) -> None:
    for role in Role:
        with pytest.raises(errors.NotFound) as refused:
            Principal("someone", "org", role, "workspace").require(Action.ADMINISTER, org, workspace)
        assert refused.value.message == "not found"


def test_without_a_workspace_of_its_own_a_principal_reaches_all_of_its_organization() -> None:
    who = Principal("someone", "org", Role.VIEWER)

    who.require(Action.READ, "org", "any")
    who.require(Action.READ, "org")
    with pytest.raises(errors.NotFound):
        who.require(Action.READ, "other", "any")
