"""Skills as folders with a `SKILL.md`, the form in which coding agents read them.

Each endpoint is one folder, named as its skill. The front matter has `name` and `description`.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any, Final

from flow_platform.domain.service import PublishedService, skill_name

MAX_NAME: Final = 64  # Characters; so the convention says, as of the description.
MAX_DESCRIPTION: Final = 1024
FILE: Final = "SKILL.md"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # The earliest that a zip file knows: the same version is the same bytes.


def skill_files(version: PublishedService) -> dict[str, str]:
    """The text of each `SKILL.md` by the name of its folder."""
    bundle = json.loads(version.skills)
    return {folder_of(bundle["service"]["slug"], skill["name"]): _text(bundle, skill) for skill in bundle["skills"]}


def zipped(version: PublishedService) -> bytes:
    """All folders as a zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder, text in sorted(skill_files(version).items()):
            entry = zipfile.ZipInfo(f"{folder}/{FILE}", _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
    return buffer.getvalue()


def folder_of(service: str, endpoint: str) -> str:
    """The name of a skill's folder: both names where there is room for both, else the endpoint's, which is unique."""
    whole = skill_name(f"{service}-{endpoint}")
    return whole if len(whole) <= MAX_NAME else skill_name(endpoint)


def _text(bundle: dict[str, Any], skill: dict[str, Any]) -> str:
    service, http = bundle["service"], skill["http"]
    name = folder_of(service["slug"], skill["name"])
    about = " ".join(f"{skill['tool']['description']} {_use(skill)}".split())
    lines = [
        "---",
        f"name: {name}",
        f"description: {json.dumps(about[:MAX_DESCRIPTION], ensure_ascii=False)}",
        "metadata:",
        f"  service: {service['slug']}",
        f'  version: "{service["version"]}"',
        f"  checksum: {skill['checksum']}",
        "---",
        "",
        f"# {skill['title']}",
        "",
        skill["description"] or skill["tool"]["description"],
        "",
        "## When to use",
        "",
        *(f"- {hint}" for hint in skill["when_to_use"]),
        "",
        "## Call",
        "",
        f"`{http['method']} {http['url_path']}`, relative to the platform's URL (`PLATFORM_API_URL`).",
        "",
        *_auth(skill["auth"]),
        "",
        *_section("curl", "sh", skill["examples"]["curl"]),
        *_section("Python", "python", skill["examples"]["sdk"]),
        *_section("Command line", "sh", skill["examples"]["cli"]),
        *_schema("Path parameters", skill["path_parameters_schema"] if "{" in http["path"] else None),
        *_schema("Query", skill["query_schema"]),
        *_schema("Body", skill["body_schema"]),
        *_schema("Answer", skill["response_schema"]),
        *_asynchronous(skill),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _use(skill: dict[str, Any]) -> str:
    hints = [hint for hint in skill["when_to_use"] if not hint.startswith("To: ")]
    return f"Use it: {'; '.join(hints)}." if hints else ""


def _auth(auth: dict[str, Any]) -> list[str]:
    if not auth["headers"]:
        return ["No credential is needed."]
    return [
        "One of these headers:",
        "",
        *(f"- `{h['header']}: {h['value']}` ({h['credential']})" for h in auth["headers"]),
    ]


def _section(title: str, language: str, code: str) -> list[str]:
    return [f"### {title}", "", f"```{language}", code, "```", ""]


def _schema(title: str, schema: dict[str, Any] | None) -> list[str]:
    return [] if not schema else _section(title, "json", json.dumps(schema, indent=2, ensure_ascii=False))


def _asynchronous(skill: dict[str, Any]) -> list[str]:
    path = skill["http"]["async_url_path"]
    if path is None:
        return []
    return [
        "## Asynchronously",
        "",
        f"`POST {path}` with `X-HSL-Target-Method: {skill['http']['method']}` answers 202 with `job_id`, `status` and",
        "`poll_url`. Read that until `status` is `completed`, `failed`, `timeout`, `dead_letter` or `cancelled`.",
        "`X-Idempotency-Key` makes a repetition harmless.",
    ]
