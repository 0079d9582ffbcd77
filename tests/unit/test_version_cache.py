from __future__ import annotations

from flow_platform.domain.clock import ManualClock
from flow_platform.domain.component import Definition, Version
from flow_platform.store.version_cache import MAX_VERSIONS, VersionCache
from flow_sdk.wire.status import Kind


def version(number: int) -> Version:
    definition = Definition(kind=Kind.CODE_BLOCK, code="def main(): ...", entry_point="main")
    now = ManualClock().now()
    return Version(f"v{number}", "c1", number, f"digest {number}", definition, now)


def test_so_many_versions_are_kept_the_newest() -> None:
    cache = VersionCache()
    for number in range(MAX_VERSIONS + 2):
        cache.keep(version(number))
    assert [cache.find(f"v{number}") for number in (0, 1)] == [None, None]
    assert all(cache.find(f"v{number}") == version(number) for number in range(2, MAX_VERSIONS + 2))


def test_one_that_is_kept_twice_takes_one_place() -> None:
    cache = VersionCache()
    for number in range(MAX_VERSIONS):
        cache.keep(version(number))
    for _ in range(2):
        cache.keep(version(MAX_VERSIONS - 1))
    assert cache.find("v0") == version(0)
