"""The table of `tests/security/authorisation.toml`: who may do what."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PATH: Final = Path(__file__).parents[1] / "security" / "authorisation.toml"
WORKSPACE: Final = "/api/v1/orgs/{org_id}/workspaces/{workspace_id}"
EVERYBODY: Final = "everybody"
ENDED: Final = "ended"
REFUSED: Final = (401, 403, 409)  # Of no use any more: by itself, for the role, as its attempt has ended.
_PLACEHOLDER: Final = re.compile(r"{(\w+)}")
IDS: Final = (
    *("component", "ring", "deployment", "execution", "schedule", "key", "checkpoint", "part", "agent", "session"),
    *("transaction", "service", "endpoint", "token", "job", "server"),
)
"""Of what requests name by id; the placeholders of the table."""

_OF_PATH: Final = {f"{name}_id": name for name in IDS if name != "component"}


@dataclass(frozen=True)
class Row:
    method: str
    path: str
    may: tuple[str, ...]
    answer: int
    but: Mapping[str, int]
    body: Any
    query: Mapping[str, str]
    kind: str | None
    note: str

    @property
    def is_public(self) -> bool:
        return self.may == (EVERYBODY,)

    @property
    def names_a_workspace(self) -> bool:
        return "{workspace_id}" in self.path

    @property
    def has_ids(self) -> bool:
        """Whether a request names things by their ids, besides organization and workspace."""
        inside = f"{self.path.removeprefix(WORKSPACE)} {self.body} {self.query}"
        return bool(set(_PLACEHOLDER.findall(inside)) - {"org_id", "name", "number", "version", "path"})

    def expected(self, credential: str) -> int:
        """The status for a credential in its own workspace."""
        if credential in self.but:
            return self.but[credential]
        if self.is_public:
            return self.answer
        if credential == "none":
            return 401
        if credential == ENDED:
            return 401
        role = credential.removeprefix("key ").removeprefix("wide ")
        return self.answer if role in self.may else 403

    def allows(self, credential: str, status: int) -> bool:
        """Whether that is the answer for a credential in its own workspace."""
        if credential == ENDED and not self.is_public:
            return status in REFUSED
        return status == self.expected(credential)

    def request(self, org_id: str, workspace_id: str, ids: Mapping[str, str], component: str) -> dict[str, Any]:
        """What to send: arguments of a client's `request`."""
        of_path = {"org_id": org_id, "workspace_id": workspace_id, "component_id": component, "name": "GREETING"}
        of_path |= {"number": "1", "version": "1", "path": "greet"} | {
            name: ids[what] for name, what in _OF_PATH.items()
        }
        sent = {"component": component} | dict(ids)
        request: dict[str, Any] = {"method": self.method, "url": _filled(self.path, of_path)}
        if self.body is not None:
            request["json"] = _filled(self.body, sent)
        if self.query:
            request["params"] = _filled(dict(self.query), sent)
        return request


def read_table() -> dict[str, Row]:
    """All rows, by method and path."""
    document = tomllib.loads(PATH.read_text())
    rows: dict[str, Row] = {}
    for given in document["route"]:
        method, _, path = given["route"].partition(" ")
        path = re.sub(r"^W(?=/)", WORKSPACE, path)
        may = tuple(document.get(given["may"], [given["may"]]))
        assert f"{method} {path}" not in rows, f"two rows for {method} {path}"
        rows[f"{method} {path}"] = Row(
            method,
            path,
            may,
            given["answer"],
            given.get("but", {}),
            given.get("body"),
            given.get("query", {}),
            given.get("kind"),
            given.get("note", ""),
        )
    return rows


def _filled(value: Any, ids: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _PLACEHOLDER.sub(lambda found: ids[found[1]], value)
        case dict():
            return {name: _filled(each, ids) for name, each in value.items()}
        case list():
            return [_filled(each, ids) for each in value]
        case _:
            return value


INTRODUCTION: Final = """# Who may do what

Held by a test that asks every route as everybody, over HTTP, in one's own workspace and in those of others. Made from
the same table: `python -m tests.support.authorisation` after a change of `tests/security/authorisation.toml`.

- **admin, builder, runner, viewer**: roles of tokens and API keys. A custom role may what its actions say.
- **execution**: the token of a running attempt. It ends with the attempt, whatever time it still had.
- `W` is `/api/v1/orgs/{org_id}/workspaces/{workspace_id}`.
- Without a credential everything but the public routes answers 401. What the role may not do: 403. A path into another
  workspace or organization: 404, whatever the role, and exactly as for one that does not exist. So is every id of
  somebody else's, wherever it stands in the request.
- The role is looked at before the body: who may not do it does not learn what the body should have been.

| route | admin | builder | runner | viewer | execution | |
|---|:-:|:-:|:-:|:-:|:-:|---|
"""
COLUMNS: Final = ("admin", "builder", "runner", "viewer", "execution")


def document() -> str:
    """The page of the documentation."""
    lines: list[str] = []
    for row in read_table().values():
        path = re.sub(f"^{re.escape(WORKSPACE)}", "W", row.path)
        marks = " | ".join("yes" if role in row.may or row.is_public else "" for role in COLUMNS)
        note = "Public. " * row.is_public + row.note
        lines.append(f"| `{row.method} {path}` | {marks} | {note.strip()} |\n")
    return INTRODUCTION + "".join(lines)


if __name__ == "__main__":
    (PATH.parents[2] / "docs" / "authorisation.md").write_text(document())
