"""Ways to ask the model gateway, and to read what it says."""

from __future__ import annotations

import json
from typing import Any

import httpx

from flow_platform.domain import errors
from flow_sdk.wire.runner import Assignment
from tests.contract.api.hands import Tenant

KEY = "sk-secret-of-the-platform-0123456789"
CHAT = "/api/v1/gateway/chat/completions"


class TestBudget:
    """A budget that a test can use up. `check` notes who asked."""

    __test__ = False

    def __init__(self) -> None:
        self.exhausted: set[str] = set()
        self.asked: list[tuple[str, str, str | None]] = []

    async def check(self, org_id: str, workspace_id: str, execution_id: str | None) -> None:
        self.asked.append((org_id, workspace_id, execution_id))
        if workspace_id in self.exhausted:
            raise errors.BudgetExhausted(f"the budget of workspace {workspace_id!r} is used up")


def body(text: str = "hello big world", model: str = "test/echo", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


async def chat(
    tenant: Tenant, text: str = "hello big world", *, headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    async with tenant.platform.client(tenant.token()) as client:
        return await client.post(CHAT, json=body(text, **more), headers=headers)


async def chat_inside(
    tenant: Tenant, assignment: Assignment, key: str | None, text: str = "hello big world", **more: Any
) -> httpx.Response:
    """As the code in a container would."""
    headers = {"Idempotency-Key": key} if key else {}
    async with tenant.platform.client(assignment.token) as client:
        return await client.post(CHAT, json=body(text, **more), headers=headers)


async def calls(tenant: Tenant, query: str = "") -> list[dict[str, Any]]:
    async with tenant.client() as client:
        answer = await client.get(f"/model-calls{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def message(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]


def streamed(answer: httpx.Response) -> list[Any]:
    """The data of all events; `[DONE]` as text."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line.startswith("data: ")]
    return [data if data == "[DONE]" else json.loads(data) for data in found]


def text_of(events: list[Any]) -> str:
    choices = [choice for event in events if event != "[DONE]" for choice in event.get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
