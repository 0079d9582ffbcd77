"""The table of docs/hostile.md has the groups that `flow doctor --hostile` prints, in its words."""

from __future__ import annotations

import re
from pathlib import Path

from flow_platform.hostile.groups import ELSEWHERE, GROUPS, SECTIONS, section_of
from flow_platform.hostile.report import rows
from flow_platform.hostile.suite import BOX_ATTEMPTS, WORLD_ATTEMPTS
from tests.docs.documents import ROOT, read, section


def table() -> list[tuple[str, str, str]]:
    return re.findall(r"^\| (\d*) *\| (.+?) \| *(.*?) *\|$", section("hostile.md", "The groups"), re.MULTILINE)


def test_every_group_is_documented_in_the_words_of_the_command() -> None:
    documented = {int(number): title for number, title, _ in table() if number}
    assert documented == GROUPS == {row.group: row.title for row in rows([])}
    sections = [title.strip("*") for number, title, _ in table() if not number and title.startswith("**")]
    assert sections == list(SECTIONS.values()) == list(dict.fromkeys(section_of(group) for group in GROUPS))


def test_a_group_is_tried_or_says_where_it_is_held() -> None:
    tried = {group for attempt in (*BOX_ATTEMPTS, *WORLD_ATTEMPTS) for group in attempt.groups}
    assert tried & ELSEWHERE.keys() == set()
    assert tried | ELSEWHERE.keys() == GROUPS.keys()
    assert {int(number) for number, _, how in table() if how == "elsewhere"} == ELSEWHERE.keys()


def test_what_is_held_elsewhere_is_there() -> None:
    named = [re.findall(r"tests/[\w/.]+", where) for where in ELSEWHERE.values()]
    paths = [Path(ROOT, path.rstrip(".:")) for found in named for path in found]
    assert [path for path in paths if not path.exists()] == []


def test_the_verdicts_are_documented() -> None:
    text = read("hostile.md")
    assert all(f"| `{word}` |" in text for word in ("refused", "weak", "leaked", "elsewhere"))
