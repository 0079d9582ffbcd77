"""`flow audit` and `flow keys`, as a user types them: what was done is there, and who changes it is found out."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.flow_program import Platform, eventually, flow, running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of its own: its database is tampered with."""
    with running(tmp_path_factory.mktemp("audited"), "--runners", "0") as started:
        yield started


def listed(platform: Platform) -> list[dict[str, object]]:
    return json.loads(platform.flow("audit", "--json").stdout)


def test_keys_and_what_is_told_of_them(audited: Platform, tmp_path: Path) -> None:
    made = audited.flow("keys", "create", "ci", "--role", "runner")
    key = made.stdout.strip()
    assert key.startswith("fl_"), made.stderr
    wide = json.loads(audited.flow("keys", "create", "all", "--organization", "--json").stdout)
    assert wide["workspace_id"] is None
    refused = audited.flow("keys", "create", "more", "--token", key)
    assert (refused.returncode, refused.stdout) == (1, "")
    keys = json.loads(audited.flow("keys", "--json").stdout)
    assert [each["name"] for each in keys] == ["ci"]
    assert audited.flow("keys", "revoke", keys[0]["id"]).returncode == 0
    assert "not valid" in audited.flow("ps", "--token", key).stderr
    wrong = audited.flow("keys", "revoke")
    assert "expected ids of keys" in wrong.stderr

    eventually(lambda: len(listed(audited)) == 5)
    table = audited.flow("audit").stdout
    assert key not in table
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["5", "4", "3", "2", "1"]
    assert "API key ci" in table
    assert "401 api_key_invalid x1" in table

    verified = audited.flow("audit", "verify", "--json")
    head = json.loads(verified.stdout)["head"]
    assert head.startswith("5:")
    archive, csv = tmp_path / "audit.jsonl", audited.flow("audit", "export", "--format", "csv").stdout
    archive.write_text(audited.flow("audit", "export").stdout)
    assert len(csv.splitlines()) == 6
    assert flow("audit", "verify", "--file", archive, "--expect", head).returncode == 0  # With no platform at hand.
    archive.write_text(archive.read_text().replace("runner", "admin"))
    found = flow("audit", "verify", "--file", archive)
    assert (found.returncode, "entry 1 of the audit log was changed" in found.stderr) == (1, True)
    missing = flow("audit", "verify", "--file", tmp_path / "none")
    assert "cannot be read" in missing.stderr
    assert "Traceback" not in missing.stderr

    database = Path(audited.data) / "flow.db"
    with closing(sqlite3.connect(database)) as connection:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute("DELETE FROM audit_entries WHERE sequence = 5")
        connection.rollback()
        connection.execute("DROP TRIGGER audit_entries_no_delete")  # As only the owner of the database can.
        connection.execute("DELETE FROM audit_entries WHERE sequence = 5")
        connection.commit()
        assert "its end is missing" in audited.flow("audit", "verify").stderr
        row = connection.execute("SELECT sequence, hash FROM audit_entries ORDER BY sequence DESC").fetchone()
        connection.execute("UPDATE audit_heads SET sequence = ?, hash = ?", row)
        connection.commit()
    assert audited.flow("audit", "verify").returncode == 0  # Now only who noted the end elsewhere notices.
    found = audited.flow("audit", "verify", "--expect", head)
    assert (found.returncode, "what was noted is gone" in found.stderr) == (1, True)
