from __future__ import annotations

import dataclasses

import pytest

from flow_platform.domain import errors
from flow_platform.domain.component import Definition, check_slug
from flow_platform.domain.execution import RetryPolicy
from flow_sdk.wire.injected import InjectedSecret
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.runner import Limits
from flow_sdk.wire.status import Kind

DEFINITION = Definition(Kind.CODE_BLOCK, code="def main(): pass")


def test_equal_definitions_have_one_digest_whatever_the_order_of_their_sets() -> None:
    one = dataclasses.replace(DEFINITION, dependencies=("a", "b"), network=("x", "y"), secrets=("s", "t"))
    two = dataclasses.replace(DEFINITION, dependencies=("b", "a"), network=("y", "x"), secrets=("t", "s"))

    assert one.digest() == two.digest()
    assert one.digest().startswith("sha256:")
    assert len(one.digest()) == len("sha256:") + 64


@pytest.mark.parametrize(
    "change",
    [
        {"kind": Kind.TRANSFORM},
        {"code": "def main(): return 1"},
        {"entry_point": "other"},
        {"language": "sql"},
        {"dependencies": ("a",)},
        {"timeout_seconds": 1.0},
        {"retry": RetryPolicy(max_attempts=2)},
        {"limits": Limits(pids=65)},
        {"network": ("example.org",)},
        {"secrets": ("KEY",)},
        {"injected": (InjectedSecret(name="KEY", host="example.org", header="X-Key"),)},
        {"examples": ({"input": 1, "output": 2},)},
        {"requires_context": True},
        {"isolation": Isolation.GVISOR},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_that_decides_behaviour_decides_the_digest(change: dict[str, object]) -> None:
    assert dataclasses.replace(DEFINITION, **change).digest() != DEFINITION.digest()


def test_every_field_of_a_definition_is_covered_by_the_digest() -> None:
    tried = {"kind", "code", "entry_point", "language", "dependencies", "timeout_seconds", "retry", "limits", "network",
             "secrets", "examples", "requires_context", "graph", "agent", "injected", "isolation"}  # fmt: skip

    assert {field.name for field in dataclasses.fields(Definition)} == tried


def test_a_definition_without_a_graph_has_the_digest_that_it_had_before_there_were_graphs() -> None:
    definition = Definition(Kind.CODE_BLOCK, "def main(): ...")
    assert definition.digest() == "sha256:2d9fc389010e819c27fcdb06b81452cad557817ecc122dba05e9859e5a04e204"
    assert dataclasses.replace(definition, graph={"nodes": []}).digest() != definition.digest()
    assert dataclasses.replace(definition, agent={"model": "test/scripted"}).digest() != definition.digest()


def test_a_lone_surrogate_in_an_example_has_a_digest_too() -> None:
    assert dataclasses.replace(DEFINITION, examples=({"input": "\ud800"},)).digest()


@pytest.mark.parametrize("slug", ["a", "0", "a-b_c", "a" * 63, "0190a-1"])
def test_slugs(slug: str) -> None:
    assert check_slug(slug) == slug


@pytest.mark.parametrize("slug", ["", "-a", "a-", "_a", "A", "a b", "a" * 64, "ä", "a\n", "a/b", "a.b"])
def test_what_is_no_slug_is_refused_with_the_value_and_the_rule(slug: str) -> None:
    with pytest.raises(errors.InvalidInput, match="a-z") as refused:
        check_slug(slug)

    assert repr(slug) in refused.value.message
    assert refused.value.details[0]["field"] == "slug"
