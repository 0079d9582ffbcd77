"""One organization against another, and an execution against all that is not its own: over HTTP."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import Any, Final

from flow_platform.hostile.answer import Answer, answers, expect
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.world import Tenant, World

REFUSALS: Final = frozenset({401, 403, 404})
_UNKNOWN: Final = str(uuid.UUID(int=1))
_ECHO: Final = "def main(number: int = 1) -> int:\n    return number\n"
_PUBLIC: Final = re.compile(
    r"/api/v1/(openapi\.json|auth/refresh|auth/whoami)$|^/(health|ready|metrics|login|logout$|\.well-known|$)"
)
_LOOP: Final = """
import os
from flow_sdk import PlatformClient, PlatformClientError
async def main(names: list[str], depth: int = 0) -> dict:
    async with PlatformClient() as client:
        given = {"names": names, "depth": depth + 1}
        try:
            ended = await client.execute_code_block(
                names[depth % len(names)], given, None, ring_id=os.environ["RING_ID"], timeout_seconds=1800
            )
        except PlatformClientError as error:
            return {"depth": depth, "refused": error.code or str(error)}
    return ended.get("output") or ended
"""
_SLOW: Final = "import time\ndef main(seconds: float = 0.2) -> int:\n    time.sleep(seconds)\n    return 1\n"
_HOLDS: Final = "import os\ndef main() -> int:\n    return len(os.environ['HOSTILE_SECRET'])\n"
_DEPTHS: Final = 40
_FLOOD: Final = 60


async def _one_of_each(tenant: Tenant) -> dict[str, str]:
    """Ids of what the tenant has, by the names of the paths' placeholders."""
    component = await tenant.publish("echo", _ECHO)
    execution = await tenant.submit("echo")
    found = await tenant.ended(execution)
    return {"component_id": component, "execution_id": execution, "deployment_id": found["deployment_id"]}


async def _routes(world: World) -> list[tuple[str, str]]:
    document = (await world.first.http.get("/api/v1/openapi.json")).json()
    return [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]


def _filled(path: str, tenant: Tenant, ids: dict[str, str]) -> str:
    values = {
        **ids,
        "org_id": tenant.org_id,
        "workspace_id": tenant.workspace_id,
        "ring_id": tenant.ring_id,
        "number": "1",
    }
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], _UNKNOWN), path)


def _body(method: str, path: str) -> Any:
    """One that is right but for whose it is."""
    if method not in ("POST", "PUT", "PATCH"):
        return None
    match path.rpartition("/")[2]:
        case "checkpoints":
            return {"kind": "event", "name": "go"}
        case "result":
            return {"value": 1}
        case "executions" | "execute":
            return {"input_parameters": {}, "input_data": 1}
        case "rings":
            return {"name": "extra", "order": 9}
        case "token":
            return {"role": "admin"}
        case "cancel" | "retry" if "{execution_id}" not in path:
            return {"filter": {}, "dry_run": True}
        case _:
            return {"slug": "stolen", "code": _ECHO, "value": "123456", "name": "stolen", "role": "admin"}


async def _other_organization(world: World) -> list[Answer]:
    """Every route with the other's whole address, and with the other's ids in one's own workspace: as ids of nobody."""
    theirs = await _one_of_each(world.second)
    nobodys = dict.fromkeys(theirs, _UNKNOWN)
    routes = [(method, path) for method, path in await _routes(world) if "{org_id}" in path]

    async def ask(method: str, path: str, owner: Tenant) -> Answer | None:
        if owner is world.first and not re.search(r"\{(component|execution|deployment)_id\}", path):
            return None
        body = _body(method, path)
        answer = await world.first.http.request(method, _filled(path, owner, theirs), json=body)
        unknown = await world.first.http.request(method, _filled(path, owner, nobodys), json=body)
        same = (answer.status_code, answer.json().get("code")) == (unknown.status_code, unknown.json().get("code"))
        where = "their ids in mine" if owner is world.first else "theirs"
        refused = answer.is_client_error and same
        return expect(30, f"{method} {path} ({where})", f"{answer.status_code} as for an unknown id", refused=refused)

    asked = [ask(method, path, owner) for method, path in routes for owner in (world.second, world.first)]
    return [answer for answer in await asyncio.gather(*asked) if answer is not None]


async def _from_inside(world: World) -> list[Answer]:
    """An execution with its own token: everything that is not its own, in its workspace and in the other's."""
    theirs, mine = await asyncio.gather(_one_of_each(world.second), _one_of_each(world.first))
    requests: dict[str, list[Any]] = {}
    for method, path in await _routes(world):
        for tenant, ids, whose in ((world.second, theirs, "another organization"), (world.first, mine, "a neighbour")):
            if _PUBLIC.search(path) or _is_its_own(method, path, whose):
                continue
            requests[f"{method} {path} of {whose}"] = [method, _filled(path, tenant, ids), _body(method, path)]
    said = await world.first.run_inside("calls", {"requests": requests})
    return [
        expect(33 if "execution_id" in name else 25, name, str(status), refused=status in REFUSALS)
        for name, (status, _) in said.items()
    ]


def _is_its_own(method: str, path: str, whose: str) -> bool:
    """What an execution may do in its workspace: start others below it, call registered tools, and call models."""
    starts = method == "POST" and path.endswith(("/{component_id}/executions", "/{server_id}/calls"))
    return "/gateway/" in path or (whose == "a neighbour" and (starts or "/execute" in path.rpartition("/")[2]))


async def _public_pages(world: World) -> list[Answer]:
    """What everybody may read names no tenant."""
    await _one_of_each(world.second)
    ids = (world.second.org_id, world.second.workspace_id, world.second.components["echo"])
    requests = {path: ["GET", path] for path in ("/", "/metrics", "/healthz", "/readyz", "/api/v1/openapi.json")}
    said = await world.first.run_inside("calls", {"requests": requests})
    return [
        expect(33, f"other tenants in {path}", f"{status}, none named", refused=not any(one in text for one in ids))
        for path, (status, text) in said.items()
    ]


async def _recursion(world: World) -> list[Answer]:
    """Components that submit themselves, or each other, without end."""
    for slug in ("loop", "ping", "pong"):
        await world.first.publish(slug, _LOOP)
    roots = {20: ["loop"], 22: ["ping", "pong"]}
    return list(await asyncio.gather(*(_chain(world, group, names) for group, names in roots.items())))


async def _chain(world: World, group: int, names: list[str]) -> Answer:
    """Each calls the next and waits for it; the one that was refused says so to all above."""
    ended = await world.first.run(names[-1], {"names": names})
    how = f"{ended.get('refused')} at depth {ended.get('depth')}"
    refused = ended.get("refused") == "depth_limit" and ended["depth"] < _DEPTHS
    return expect(group, f"{' and '.join(names)}, without end", how, refused=refused)


async def _flood(world: World) -> list[Answer]:
    """Many executions of one tenant, and then one of the other's, which must have its turn among them."""
    await world.first.publish("slow", _SLOW)
    await world.second.publish("slow", _SLOW)
    flood = await asyncio.gather(*(world.first.submit("slow") for _ in range(_FLOOD)))
    await world.second.run("slow", {"seconds": 0})
    page = await world.first.http.get(f"{world.first.path}/executions", params={"status": "queued", "limit": 100})
    left = len(page.json()["items"])
    await asyncio.gather(*(world.first.http.post(f"{world.first.path}/executions/{one}/cancel") for one in flood))
    return [
        expect(21, "delay another tenant by a flood", f"served with {left} of {_FLOOD} still queued", refused=left > 0)
    ]


async def _memory(world: World) -> list[Answer]:
    """After an execution of a neighbour had a secret: all that an execution of the platform can read."""
    first = world.first
    await first.publish("holds", _HOLDS, secrets=["HOSTILE_SECRET"])
    await first.run("holds")
    return answers(await first.run_inside("memory", {"needles": dict(world.needles)}))


ATTEMPTS: Final = (
    Attempt("secrets of server and neighbours", (1,), _memory),
    Attempt("another organization on every route", (30,), _other_organization),
    Attempt("an execution on every route", (25, 33), _from_inside),
    Attempt("other tenants on public pages", (33,), _public_pages),
    Attempt("recursion", (20, 22), _recursion),
    Attempt("a flood of executions", (21,), _flood),
)
