"""Policies: what a workspace allows its components in its rings, and how their executions come to their limits.

A policy is for a component in a ring, for a component in every ring, for every component in a ring, or for the
workspace as a whole. What holds for one component in one ring is taken together field by field, the most specific
policy that says anything winning. All limits but the workspace's own are counted per component *and* ring: a policy
for a ring limits each of its components, not their sum.

What an execution is counted by is called a key (`domain.limits`). Keys are made from what its record says of it
anyway, so a policy that is edited holds at once for everything that is queued and running.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.execution import RetryPolicy
from flow_platform.domain.limits import MAX_PRIORITY, MAX_WEIGHT, Limits
from flow_platform.domain.rate_limit import RateLimit, check_rate_limit

MAX_CONCURRENCY: Final = 1_000_000
MAX_QUEUED: Final = 100_000
"""Of `max_queued`. A submit counts up to as many entries of an index: some milliseconds at this bound."""

MAX_CACHED: Final = 10_000


@dataclass(frozen=True)
class Policy:
    """What is said for one scope; None: nothing is said.

    Attributes:
        component_id, ring_id: The scope; both None: the workspace as a whole.
        concurrency: Executions that run at the same time. 0 stops them.
        concurrency_per_key: The same, per `concurrency_key` of the submit; those without one are not counted.
        rate: Executions that start in a time.
        priority: Added to that of each new execution.
        retry: Instead of the version's policy, for each new execution.
        max_queued: Executions that may wait; a submit beyond is refused.
        weight: The workspace's share of slots beside other workspaces.
    """

    component_id: str | None = None
    ring_id: str | None = None
    concurrency: int | None = None
    concurrency_per_key: int | None = None
    rate: RateLimit | None = None
    priority: int | None = None
    retry: RetryPolicy | None = None
    max_queued: int | None = None
    weight: int | None = None

    @property
    def is_of_workspace(self) -> bool:
        return self.component_id is None and self.ring_id is None

    @property
    def limits_starts(self) -> bool:
        """Whether it has a say in what starts next; the rest only matters to new executions."""
        said = (self.concurrency, self.concurrency_per_key, self.rate, self.weight)
        return any(value is not None for value in said)


FIELDS: Final = tuple(field.name for field in fields(Policy) if field.name not in ("component_id", "ring_id"))
OF_WORKSPACE: Final = ("concurrency", "weight")


class Policies:
    """Those of one workspace, as they are at one moment."""

    def __init__(self, policies: Sequence[Policy] = ()) -> None:
        self._by_scope = {(policy.component_id, policy.ring_id): policy for policy in policies}
        self.workspace = self._by_scope.get((None, None), Policy())
        self.limit_starts = any(policy.limits_starts for policy in policies)
        self.for_execution = functools.lru_cache(MAX_CACHED)(self._for_execution)

    def _for_execution(self, component_id: str, ring_id: str | None) -> Policy:
        """What holds for the executions of a component in a ring."""
        scopes = ((component_id, ring_id), (component_id, None), (None, ring_id))
        found = [self._by_scope[scope] for scope in scopes if scope != (None, None) and scope in self._by_scope]
        said: dict[str, object] = {}
        for policy in reversed(found):
            said.update((name, value) for name in FIELDS if (value := getattr(policy, name)) is not None)
        return Policy(component_id, ring_id, **said)  # type: ignore[arg-type]


def component_key(component_id: str, ring_id: str | None) -> str:
    return f"component:{component_id}@{ring_id or ''}"


def key_key(component_id: str, ring_id: str | None, concurrency_key: str) -> str:
    """What `concurrency_per_key` is counted by; kept with the execution, as nothing else says it."""
    return f"key:{component_id}@{ring_id or ''}:{concurrency_key}"


def workspace_key(workspace_id: str) -> str:
    return f"workspace:{workspace_id}"


class LimitSet:
    """Gathers the limits of the keys that are asked for."""

    def __init__(self) -> None:
        self._concurrency: dict[str, int] = {}
        self._rates: dict[str, RateLimit] = {}
        self._weights: dict[str, int] = {}
        self.limits = Limits(self._concurrency, self._rates, self._weights)

    def add_workspace(self, workspace_id: str, policies: Policies) -> None:
        if policies.workspace.weight is not None:
            self._weights[workspace_id] = policies.workspace.weight

    def keys(
        self, policies: Policies, workspace_id: str, component_id: str, ring_id: str | None, own: Iterable[str] = ()
    ) -> tuple[str, ...]:
        """The keys of an execution that have a limit now, the narrowest first.

        Args:
            own: Its `limit_keys`.
        """
        policy = policies.for_execution(component_id, ring_id)
        keys: list[str] = []
        if policy.concurrency_per_key is not None:
            keys.extend(own)
            self._concurrency.update(dict.fromkeys(keys, policy.concurrency_per_key))
        if policy.concurrency is not None or policy.rate is not None:
            key = component_key(component_id, ring_id)
            keys.append(key)
            if policy.concurrency is not None:
                self._concurrency[key] = policy.concurrency
            if policy.rate is not None:
                self._rates[key] = policy.rate
        if policies.workspace.concurrency is not None:
            key = workspace_key(workspace_id)
            keys.append(key)
            self._concurrency[key] = policies.workspace.concurrency
        return tuple(keys)


def check_policy(policy: Policy) -> Policy:
    """Returns the policy.

    Raises:
        InvalidInput: A value out of bounds, a field that is not for its scope, or nothing said.
    """
    said = [name for name in FIELDS if getattr(policy, name) is not None]
    if not said:
        raise errors.InvalidInput(f"a policy says nothing: expected at least one of {', '.join(FIELDS)}")
    for name in said:
        if (name not in OF_WORKSPACE) if policy.is_of_workspace else name == "weight":
            scope = "a component, a ring or both" if policy.is_of_workspace else "the workspace as a whole"
            raise _invalid(name, getattr(policy, name), f"it only in a policy of {scope}")
    bounds = {
        "concurrency": (0, MAX_CONCURRENCY),
        "concurrency_per_key": (0, MAX_CONCURRENCY),
        "priority": (-MAX_PRIORITY, MAX_PRIORITY),
        "max_queued": (0, MAX_QUEUED),
        "weight": (1, MAX_WEIGHT),
    }
    for name, (lowest, highest) in bounds.items():
        value = getattr(policy, name)
        if value is not None and not lowest <= value <= highest:
            raise _invalid(name, value, f"{lowest} to {highest}")
    if policy.rate is not None:
        check_rate_limit(policy.rate)
    return policy


def _invalid(field: str, value: object, expected: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"{field} {value!r} is not valid: expected {expected}",
        details=[{"field": field, "message": f"expected {expected}, got {value!r}"}],
    )
