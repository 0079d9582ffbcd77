from __future__ import annotations

import inspect

import pytest

from flow_platform.domain import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.FlowError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_and_a_status_and_stands_in_the_tree_of_the_header(
    kind: type[errors.FlowError],
) -> None:
    assert kind.code == kind.code.lower()
    assert 400 <= kind.http_status < 600
    assert kind.__name__ in (errors.__doc__ or "")
    if kind is not errors.FlowError:
        assert kind.code in (errors.__doc__ or "")


def test_codes_are_stable_words_of_one_error_each() -> None:
    codes = [kind.code for kind in KINDS if kind is not errors.OtherTenant]  # Which must look like NotFound.

    assert len(set(codes)) == len(codes)


def test_an_error_carries_what_the_answer_shows() -> None:
    error = errors.Conflict("taken", code="not_deployed", details=[{"field": "a", "message": "b"}], hint="publish it")

    assert (str(error), error.message, error.error_code, error.hint) == ("taken", "taken", "not_deployed", "publish it")
    assert error.details == [{"field": "a", "message": "b"}]
    assert errors.Conflict("taken").error_code == "conflict"
    assert errors.RateLimited("slow down", retry_after=1.5).retry_after == 1.5


def test_a_full_disk_is_a_store_that_is_unavailable() -> None:
    assert issubclass(errors.StorageFull, errors.StoreUnavailable)
    assert (errors.StorageFull.http_status, errors.StoreUnavailable.http_status) == (507, 503)
