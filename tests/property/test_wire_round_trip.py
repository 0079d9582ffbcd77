"""Every document survives the wire: what is read is what was written, by this version and by its neighbours."""

from __future__ import annotations

import enum
import functools
import importlib
import pkgutil
import types
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flow_sdk.wire
from flow_platform.store.documents import document_from, document_to_json
from flow_sdk.wire.execution import Document

# Documents hold what UTF-8 can carry; text of user code comes through JSON first.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
floats = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])
SCALARS: dict[object, st.SearchStrategy[Any]] = {
    str: texts,
    int: st.integers(-(2**63), 2**63 - 1),
    float: floats,
    bool: st.booleans(),
    type(None): st.none(),
    Any: json_values,
    datetime: st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1), timezones=zones),  # noqa: DTZ001 - zoned.
}


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values that a field of that annotation may hold."""
    if annotation in SCALARS:
        return SCALARS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return st.one_of(*(values_of(argument) for argument in arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is list:
        return st.lists(values_of(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return st.sampled_from(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Document):
        return documents_of(annotation)
    raise AssertionError(f"no strategy for {annotation!r}: add one")


@functools.cache
def documents_of(kind: type[Document]) -> st.SearchStrategy[Document]:
    """Documents with any subset of their optional fields; made when asked for, as some hold documents of their kind."""
    return st.deferred(lambda: _documents_of(kind))


def _documents_of(kind: type[Document]) -> st.SearchStrategy[Document]:
    required = {n: values_of(f.annotation) for n, f in kind.model_fields.items() if f.is_required()}
    optional = {n: values_of(f.annotation) for n, f in kind.model_fields.items() if not f.is_required()}
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: kind(**fields))


def all_documents() -> list[type[Document]]:
    for module in pkgutil.iter_modules(flow_sdk.wire.__path__):
        importlib.import_module(f"flow_sdk.wire.{module.name}")
    found: list[type[Document]] = []
    waiting: list[type[Document]] = [Document]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__module__.startswith("flow_sdk.wire."):
                found.append(kind)
    return sorted(found, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", all_documents(), ids=lambda kind: kind.__name__)
def test_a_document_is_read_as_it_was_written(kind: type[Document]) -> None:
    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(documents_of(kind))
    def survives(document: Document) -> None:
        assert kind.model_validate_json(document.model_dump_json()) == document
        assert kind.model_validate(document.model_dump(mode="json")) == document
        assert document_from(kind, document_to_json(document)) == document, "as the store keeps it"
        newer = document.model_dump(mode="json") | {"a_field_of_tomorrow": {"x": 1}}
        assert kind.model_validate(newer) == document, "a newer neighbour's field is ignored"

    survives()


@pytest.mark.parametrize("kind", all_documents(), ids=lambda kind: kind.__name__)
def test_a_document_is_frozen_and_ignores_what_it_does_not_know(kind: type[Document]) -> None:
    assert kind.model_config.get("frozen")
    assert kind.model_config.get("extra") == "ignore"


def test_the_documents_are_found() -> None:
    names = {kind.__name__ for kind in all_documents()}

    assert {"StatusDocument", "Assignment", "ErrorBody", "HeartbeatReply", "BuildReply", "AttemptMetrics"} <= names
