"""Retries and dead letters from the command line, over real containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.flow_program import Platform, eventually

pytestmark = pytest.mark.slow

SOURCE = """
from flow_sdk import code_block, workflow

@code_block
def sound(name: str) -> str:
    return "sound " + name

@code_block(retry={{"max_attempts": 2, "initial_interval_seconds": 0.05}})
def fragile(name: str) -> str:
    {fragile}

@workflow
async def both(name: str) -> list:
    return [await sound.call(name=name), await fragile.call(name=name)]
"""


@pytest.fixture(scope="module")
def broken(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Components of which one fails, published."""
    source = tmp_path_factory.mktemp("broken") / "fragile.py"
    publish(platform, source, "raise ValueError('broken ' + name)")
    return source


def publish(platform: Platform, source: Path, fragile: str) -> None:
    source.write_text(SOURCE.format(fragile=fragile))
    done = platform.flow("publish", source)
    assert done.returncode == 0, done.stderr


def ended(platform: Platform, component: str, **given: Any) -> str:
    name = given.get("name", "Ada")
    execution_id = platform.flow("run", component, "--detach", "-i", f'{{"name": "{name}"}}').stdout.strip()
    shown(platform, execution_id)
    return execution_id


def shown(platform: Platform, execution_id: str) -> dict[str, Any]:
    """Its document, when it has ended."""
    return eventually(lambda: _ended(platform.output_of("show", execution_id, "--json")))


def _ended(document: dict[str, Any]) -> dict[str, Any] | None:
    return document if document["finished_at"] else None


def test_dead_letters_are_listed_mended_and_retried(platform: Platform, broken: Path) -> None:
    publish(platform, broken, "raise ValueError('broken ' + name)")
    ids = [ended(platform, "code-blocks/fragile", name=name) for name in ("Ada", "Bob")]
    version = shown(platform, ids[0])["component"]["version"]
    table = platform.flow("dead-letter")
    assert table.returncode == 0, table.stderr
    assert table.stdout.splitlines()[0].split() == ["ID", "COMPONENT", "RING", "ATTEMPTS", "AGE", "LAST", "ERROR"]
    [line] = [line for line in table.stdout.splitlines() if line.startswith(ids[0])]
    assert line.split()[1:5] == ["code-blocks/fragile", f"v{version}", "dev", "2"]
    assert "ValueError: broken Ada" in line
    publish(platform, broken, "return 'mended ' + name")
    [one] = platform.output_of("dead-letter", "retry", ids[0], "--version", "active", "--json")
    mended = shown(platform, one["retried_as_execution_id"])
    assert mended["output"] == "mended Ada"
    newer = str(mended["component"]["version"])
    chosen = ("dead-letter", "retry", "--component", "code-blocks/fragile", "--version", newer)
    preview = platform.flow(*chosen)
    assert preview.returncode == 1
    assert "say --yes" in preview.stderr
    assert ids[1] in preview.stderr
    assert ids[0] not in preview.stderr
    [other] = platform.output_of(*chosen, "--yes", "--json")
    assert other["execution_id"] == ids[1]
    assert shown(platform, other["retried_as_execution_id"])["output"] == "mended Bob"
    left = platform.output_of("dead-letter", "list", "--component", "code-blocks/fragile", "--json")
    assert left == []
    assert "nothing to retry" in platform.flow(*chosen, "--yes").stderr
    again = platform.flow("retry", *ids)
    assert again.returncode == 1
    assert f"was retried as '{one['retried_as_execution_id']}'" in again.stderr


def test_a_workflow_is_retried_without_running_again_what_completed(platform: Platform, broken: Path) -> None:
    publish(platform, broken, "raise ValueError('broken again: ' + name)")
    old = ended(platform, "workflows/both")
    assert shown(platform, old)["status"] == "failed"
    publish(platform, broken, "return 'mended again: ' + name")
    [item] = platform.output_of("retry", old, "--json")
    new = shown(platform, item["retried_as_execution_id"])
    assert new["output"] == ["sound Ada", "mended again: Ada"]
    assert new["retry_of_execution_id"] == old
    tree = platform.output_of("show", new["execution_id"], "--tree", "--json")
    assert [child["execution"]["component"]["slug"] for child in tree["children"]] == ["fragile"]
    assert "retried as" in platform.flow("show", old).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("retry",), "expected either ids or a filter"),
        (("retry", "--status", "completed"), "expected one of dead_letter, failed"),
        (("retry", "unknown"), "unknown: execution 'unknown' not found"),
        (("retry", "x", "--version", "newest"), "expected a number from 1, or active"),
        (("retry", "x", "y", "--input", "{}"), "--input is for one id"),
        (("dead-letter", "retry"), "expected ids, or --all, or a filter"),
        (("dead-letter", "list", "--all"), "are for retry"),
    ],
)
def test_wrong_arguments_are_named(platform: Platform, arguments: tuple[str, ...], message: str) -> None:
    done = platform.flow(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
