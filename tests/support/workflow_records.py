"""What the platform has on record about a workflow: its children, checkpoints and events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx

from flow_sdk.wire.durable import CheckpointStatus
from tests.support.clients import RingClient


@dataclass(frozen=True)
class Records:
    """Attributes:
    below: The documents of all executions below it, without payloads.
    """

    below: list[dict[str, Any]]
    checkpoints: list[dict[str, Any]]
    attempts: int

    @property
    def ends(self) -> Counter[tuple[str, str]]:
        """How often which component came to which end."""
        return Counter((document["component"]["slug"], document["status"]) for document in self.below)

    @property
    def asked(self) -> Counter[tuple[str, str, str]]:
        """Which checkpoints came to which end."""
        return Counter((one["kind"], one["name"], one["status"]) for one in self.checkpoints)

    def value(self, name: str) -> Any:
        [found] = [one["value"] for one in self.checkpoints if one["name"] == name]
        return found


async def records_of(ring: RingClient, execution_id: str) -> Records:
    tree = await _get(ring, execution_id, "/tree")
    checkpoints = await _get(ring, execution_id, "/checkpoints")
    below = list(_flat(tree))
    return Records(below[1:], checkpoints["items"], below[0]["attempt"])


async def open_checkpoints(ring: RingClient, execution_id: str) -> list[str]:
    found = await _get(ring, execution_id, "/checkpoints")
    return [one["name"] for one in found["items"] if one["status"] == CheckpointStatus.OPEN]


async def event_types(ring: RingClient, execution_id: str) -> list[str]:
    """Of all events of an execution that has ended."""
    answer = await ring.client.client.get(f"{_path(ring, execution_id)}/events")
    assert answer.status_code == httpx.codes.OK, answer.text
    return [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]


async def send(ring: RingClient, execution_id: str, name: str, payload: Any, key: str = "") -> httpx.Response:
    """Sends an event to an execution; the answer may be a refusal."""
    headers = {"Idempotency-Key": key} if key else {}
    return await ring.client.client.post(f"{_path(ring, execution_id)}/events/{name}", json=payload, headers=headers)


async def _get(ring: RingClient, execution_id: str, what: str) -> Any:
    answer = await ring.client.client.get(f"{_path(ring, execution_id)}{what}")
    assert answer.status_code == httpx.codes.OK, answer.text
    return answer.json()


def _path(ring: RingClient, execution_id: str) -> str:
    return f"/api/v1/orgs/{ring.client.org_id}/workspaces/{ring.client.workspace_id}/executions/{execution_id}"


def _flat(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node["execution"], *(one for child in node["children"] for one in _flat(child))]
