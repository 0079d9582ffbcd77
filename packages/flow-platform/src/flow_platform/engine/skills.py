"""The skills artifact of a published service: what an agent must know to call it. Documented in docs/skills.md.

Made once, when a version is published, and kept as the bytes that are served; so its checksums stay what they were.
"""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote, urlencode

from flow_platform.domain.service import IDEMPOTENT, AuthMode, Endpoint, Service, checksum
from flow_platform.engine.service_input import body_schema, example_of, parameter_schema, query_schema

SCHEMA_VERSION: Final = "1"
"""Of the artifact. Grows by new fields; changes only when a field goes or means something else."""

HEADERS: Final[dict[AuthMode, list[dict[str, str]]]] = {
    AuthMode.PLATFORM: [
        {"header": "Authorization", "value": "Bearer {token}", "credential": "token of the platform"},
        {"header": "X-API-Key", "value": "{api_key}", "credential": "API key of the workspace"},
    ],
    AuthMode.SERVICE_TOKEN: [
        {"header": "Authorization", "value": "Bearer {service_token}", "credential": "token of the service"},
        {"header": "Authorization", "value": "Bearer {token}", "credential": "token of the platform"},
        {"header": "X-API-Key", "value": "{api_key}", "credential": "API key of the workspace"},
    ],
    AuthMode.PUBLIC: [],
}


def base_path(service: Service, number: int | None = None) -> str:
    """The address of a service, or of one version, from the root of the platform."""
    path = f"/api/v1/orgs/{service.org_id}/services/{service.id}"
    return path if number is None else f"{path}/v{number}"


def bundle_of(
    service: Service, number: int, name: str, description: str, endpoints: tuple[Endpoint, ...], published_at: str
) -> dict[str, Any]:
    """The artifact: one skill per endpoint, each with its checksum, and one over the whole."""
    bundle: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "service": {
            "id": service.id,
            "slug": service.slug,
            "name": name,
            "description": description,
            "org_id": service.org_id,
            "version": number,
            "published_at": published_at,
            "base_path": base_path(service, number),
            "newest_path": base_path(service),
            "openapi_path": base_path(service, number) + "/openapi.json",
        },
        "skills": [_skill(service, number, endpoint) for endpoint in endpoints],
    }
    return bundle | {"checksum": checksum(bundle)}


def _skill(service: Service, number: int, endpoint: Endpoint) -> dict[str, Any]:
    base = base_path(service, number)
    skill: dict[str, Any] = {
        "skill_id": f"{service.slug}.{endpoint.name}",
        "version": number,
        "name": endpoint.name,
        "title": endpoint.shown_title,
        "description": endpoint.description,
        "tags": list(endpoint.tags),
        "http": {
            "method": endpoint.method,
            "path": endpoint.path,
            "url_path": base + endpoint.path,
            "async_url_path": f"{base}/async{endpoint.path}" if endpoint.async_eligible else None,
            "content_type": "application/json",
        },
        "request_schema": endpoint.schema,
        "path_parameters_schema": _path_parameters(endpoint),
        "query_schema": query_schema(endpoint),
        "body_schema": body_schema(endpoint),
        "response_schema": endpoint.response_schema or {},
        "auth": {"mode": endpoint.auth.value, "headers": HEADERS[endpoint.auth]},
        "execution": {
            "component": {"kind": endpoint.kind.value, "slug": endpoint.component},
            "timeout_seconds": endpoint.timeout_seconds,
            "async_eligible": endpoint.async_eligible,
            "idempotent_method": endpoint.method in IDEMPOTENT,
            "idempotency_header": "X-Idempotency-Key",
        },
        "tool": {"exposed": endpoint.expose_as_agent_tool, "description": tool_description(endpoint)},
        "when_to_use": list(endpoint.when_to_use) or _when_to_use(endpoint),
        "examples": examples_of(service, number, endpoint),
    }
    return skill | {"checksum": checksum(skill)}


def tool_description(endpoint: Endpoint) -> str:
    """What a model is told about the endpoint."""
    return endpoint.tool_description or endpoint.description or f"{endpoint.shown_title}."


def _when_to_use(endpoint: Endpoint) -> list[str]:
    """What can be said without the author: what it is for, what it needs, and when not to wait for it."""
    hints = [f"To: {tool_description(endpoint).splitlines()[0]}"]
    required: list[str] = endpoint.schema.get("required") or []
    if required:
        hints.append(f"When you know {', '.join(f'`{name}`' for name in required)}")
    if endpoint.async_eligible:
        hints.append("For long work call it asynchronously, and poll the job")
    return hints


def _path_parameters(endpoint: Endpoint) -> dict[str, Any]:
    names = list(endpoint.parameters)
    properties = {name: parameter_schema(endpoint, name) for name in names}
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def examples_of(service: Service, number: int, endpoint: Endpoint) -> dict[str, str]:
    """The same call by SDK, CLI and curl. The values are of the right types, no more."""
    values = example_of(endpoint)
    path = endpoint.path
    for name in endpoint.parameters:
        path = path.replace(f"{{{name}}}", quote(str(values.get(name, name)), safe=""))
    rest = {name: value for name, value in values.items() if name not in endpoint.parameters}
    url = base_path(service, number) + path
    send = body_schema(endpoint) is not None
    given = json.dumps(values)
    argument = f", {'json' if send else 'params'}={rest!r}" if rest else ""
    sdk = (
        "from flow_sdk import PlatformClient\n\n"
        "async with PlatformClient() as platform:\n"
        f'    response = await platform.client.request("{endpoint.method}", "{url}"{argument})\n'
        "    response.raise_for_status()\n"
        "    print(response.json())"
    )
    auth = "" if endpoint.auth is AuthMode.PUBLIC else ' -H "Authorization: Bearer $AUTH_TOKEN"'
    body = f" -H 'Content-Type: application/json' -d {_quoted(json.dumps(rest))}" if send else ""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in rest.items()}
    query = "" if send or not rest else f"?{urlencode(texts)}"
    return {
        "sdk": sdk,
        "cli": f"flow service call {service.slug} {endpoint.name} --version {number} --input {_quoted(given)}",
        "curl": f'curl -X {endpoint.method}{auth}{body} "$PLATFORM_API_URL{url}{query}"',
    }


def _quoted(text: str) -> str:
    """For a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"
