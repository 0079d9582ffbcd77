"""Parts and sessions of agents, in both databases."""

from __future__ import annotations

import dataclasses

from flow_platform.domain.part import Part, PartKind, PartVersion, digest_of
from flow_platform.domain.session import Session, SessionKey
from flow_platform.store.base import Store, Transaction
from tests.support.store_records import NOW, execution, insert

ORG, WORKSPACE = "org", "workspace"


async def test_parts_are_found_by_id_and_slug_within_their_kind(store: Store) -> None:
    content = {"prompt": "Be kind."}
    part = Part("p1", ORG, WORKSPACE, PartKind.PROMPT, "kind", "Kind", "", NOW, 1)
    version = PartVersion(part.id, 1, digest_of(part.kind, content), content, NOW)

    def write(tx: Transaction) -> None:
        tx.parts.insert(part)
        tx.parts.insert_version(version)
        tx.parts.update(dataclasses.replace(part, latest_version=2, description="said"))
        tx.parts.insert_version(dataclasses.replace(version, number=2, digest="other", content={}))

    await store.write(write)

    def check(tx: Transaction) -> None:
        for name in ("p1", "kind"):
            found = tx.parts.find(ORG, WORKSPACE, PartKind.PROMPT, name)
            assert found == dataclasses.replace(part, latest_version=2, description="said")
        assert tx.parts.find(ORG, WORKSPACE, PartKind.MODEL, "kind") is None
        assert tx.parts.find(ORG, "elsewhere", PartKind.PROMPT, "kind") is None
        assert tx.parts.find_version("p1", 1) == tx.parts.find_version_by_digest("p1", version.digest) == version
        assert [one.number for one in tx.parts.versions("p1", 10)] == [2, 1]
        assert (tx.parts.find_version("p1") or version).number == 2
        assert tx.parts.find_version("p1", 3) is None
        page = tx.parts.list(ORG, WORKSPACE, PartKind.PROMPT, None, 1)
        assert ([one.id for one in page.items], page.next_cursor) == (["p1"], None)

    await store.read(check)


async def test_a_page_of_parts_goes_on_where_the_last_one_ended(store: Store) -> None:
    parts = [Part(f"p{n}", ORG, WORKSPACE, PartKind.TOOL, f"t{n}", "", "", NOW) for n in range(3)]
    await store.write(lambda tx: [tx.parts.insert(part) for part in parts])

    def check(tx: Transaction) -> None:
        first = tx.parts.list(ORG, WORKSPACE, PartKind.TOOL, None, 2)
        rest = tx.parts.list(ORG, WORKSPACE, PartKind.TOOL, first.next_cursor, 2)
        assert [one.id for one in (*first.items, *rest.items)] == ["p2", "p1", "p0"]
        assert rest.next_cursor is None

    await store.read(check)


async def test_a_session_is_made_once_and_keeps_what_was_said(store: Store) -> None:
    key = SessionKey("c1", "r1", "", "s1")
    empty = Session(key, ORG, WORKSPACE, NOW, NOW)
    said = dataclasses.replace(empty, messages=[{"a": 1}], state={"b": 2}, turns=3, holder_id="e1", queued=("e2", "e3"))

    def write(tx: Transaction) -> None:
        assert tx.sessions.ensure(empty) == empty
        tx.sessions.update(said)
        assert tx.sessions.ensure(empty) == said

    await store.write(write)

    def check(tx: Transaction) -> None:
        assert tx.sessions.find(key) == said
        assert tx.sessions.find(SessionKey("c1", "r1", "ada", "s1")) is None
        [listed] = tx.sessions.list(ORG, WORKSPACE, "c1", 10)
        assert listed == dataclasses.replace(said, messages=[], state={})
        assert not tx.sessions.list(ORG, "elsewhere", "c1", 10)

    await store.read(check)
    assert await store.write(lambda tx: tx.sessions.delete(key))
    assert not await store.write(lambda tx: tx.sessions.delete(key))


async def test_an_execution_is_known_as_a_turn(store: Store) -> None:
    turn = execution(id="e1")
    await insert(store, turn)
    key = SessionKey("c1", "r1", "ada", "s1")
    await store.write(lambda tx: tx.sessions.keep_turn("e1", key))

    assert await store.read(lambda tx: (tx.sessions.key_of("e1"), tx.sessions.key_of("e2"))) == (key, None)
    assert (key.line, SessionKey("c", "r", "", "s").line.session_id) == (SessionKey("c1", "r1", "ada", ""), "s")
