"""Paths of endpoints."""

from __future__ import annotations

import pytest

from flow_platform.domain.errors import InvalidInput
from flow_platform.domain.service_path import check_path, match, most_literal_first, shape_of


@pytest.mark.parametrize(
    ("path", "template", "found"),
    [
        ("/", "/", {}),
        ("", "/", {}),
        ("/a/b", "/a/{x}", {"x": "b"}),
        ("/a/b c", "/a/{x}", {"x": "b c"}),
        ("/a/", "/a/{x}", None),
        ("/a", "/a/{x}", None),
        ("/a/b/c", "/a/{x}", None),
        ("/b/b", "/a/{x}", None),
        ("/a/b/", "/a/{x}", None),
        ("/A/b", "/a/{x}", None),
        ("/1/2", "/{x}/{y}", {"x": "1", "y": "2"}),
    ],
)
def test_a_path_is_one_of_a_template_or_not(path: str, template: str, found: dict[str, str] | None) -> None:
    assert match(path, template) == found


@pytest.mark.parametrize("path", ["/", "/a", "/a.b/~c_d-e", "/{a}", "/a/{b}/c/{d}", "/a/async", "/version1"])
def test_paths_that_endpoints_may_have(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "//",
        "/a/",
        "/a//b",
        "/{a}/{a}",
        "/{a}b",
        "/{}",
        "/{1}",
        "/..",
        "/a b",
        "/%2e",
        "/v1",
        "/jobs",
        "/tools/x",
        "/" + "a/" * 20 + "a",
        "/" + "a" * 512,
    ],
)
def test_paths_that_they_may_not_have(path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_path(path)
    assert caught.value.details[0]["field"] == "path"


def test_more_literal_templates_are_tried_first() -> None:
    templates = ["/{a}/{b}", "/{a}/x", "/x/{b}", "/x/y"]

    assert [template for template, _ in most_literal_first((one, one) for one in templates)] == templates[::-1]
    assert shape_of("/x/{b}") == shape_of("/x/{other}") == ("x", None)
