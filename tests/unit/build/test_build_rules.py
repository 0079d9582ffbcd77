"""Requirements, the operator's index, and uv's explanations."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flow_platform.build import explain, requirements
from flow_platform.build.index import configured_index
from flow_platform.build.uv import uv_binary
from flow_platform.domain import errors

OURS = {"flow-sdk": "0.1.0"}


def test_requirements_are_normal_and_sorted() -> None:
    checked = requirements.check(["Zeta", "alpha >=1 , <2", "flow_sdk>=0.1", "alpha>=1,<2"], OURS)
    assert checked.lines == ("Zeta", "alpha<2,>=1")


@pytest.mark.parametrize("text", ["", "-r x", "a b", "x @ https://h.test/x.whl", "./folder", "flow-sdk==9", "x\n-i y"])
def test_refused_requirements(text: str) -> None:
    with pytest.raises(errors.BuildFailed) as caught:
        requirements.check([text], OURS)
    assert caught.value.error_code == "invalid_requirement"
    assert repr(text) in caught.value.message


def test_uvs_variables_win_over_pips() -> None:
    index = configured_index(
        {
            "PIP_INDEX_URL": "https://pip.test/simple",
            "UV_INDEX_URL": "https://user:secret@uv.test:8443/simple",
            "PIP_EXTRA_INDEX_URL": "http://extra.test/simple file:///opt/simple",
            "UV_INDEX_CORP_PASSWORD": "secret",
            "HOME": "/root",
            **NO_FILES,
            "AWS_SECRET_ACCESS_KEY": "no",
        }
    )
    assert index.env == {
        "UV_DEFAULT_INDEX": "https://user:secret@uv.test:8443/simple",
        "UV_INDEX": "http://extra.test/simple",
        "UV_INDEX_CORP_PASSWORD": "secret",
    }
    assert index.hosts == {("uv.test", 8443), ("extra.test", 80)}


NO_FILES = {"PIP_CONFIG_FILE": os.devnull}


def test_named_indexes_and_none() -> None:
    named = configured_index({"UV_INDEX": "corp=https://named.test/simple", **NO_FILES})
    assert named.hosts == {("named.test", 443)}
    assert named.urls == ("https://named.test/simple",)
    assert configured_index(NO_FILES).hosts == frozenset()
    assert dict(configured_index(NO_FILES).env) == {}


def test_pips_files_count_where_no_variable_does(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://filed.test/simple\nextra-index-url =\n    http://more.test:81/x\n    file:///y\n"
    )
    environ = {"PIP_CONFIG_FILE": str(file), "HOME": str(tmp_path)}
    assert configured_index(environ).hosts == {("filed.test", 443), ("more.test", 81)}
    assert configured_index({**environ, "PIP_INDEX_URL": "https://set.test/"}).urls[0] == "https://set.test/"
    file.write_text("not a configuration")
    assert configured_index(environ).hosts == frozenset()


def test_without_a_choice_it_is_uvs_own(tmp_path: Path) -> None:
    index = configured_index(NO_FILES, uv_binary())
    assert len(index.hosts) == len(index.urls) == 1
    assert index.urls[0].startswith("https://")
    chosen = configured_index({"UV_DEFAULT_INDEX": "https://mine.test/simple", **NO_FILES}, uv_binary())
    assert chosen.urls == ("https://mine.test/simple",)
    assert configured_index(NO_FILES, tmp_path / "missing").urls == ()


def test_an_explanation_names_the_requirement() -> None:
    output = (
        "error: No solution found when resolving dependencies\n"
        "  cause: Because python-slugify>=8.0.0 depends on text-unidecode>=1.3 and you require python-slugify>=8, "
        "we can conclude that you require text-unidecode>=1.3.\n"
        "         And because you require text-unidecode<1, we can conclude that your requirements are unsatisfiable.\n"
    )
    error = explain.failure(output, ["other", "Text_Unidecode<1"])
    assert error.error_code == "unresolvable_dependency"
    assert [detail["requirement"] for detail in error.details] == ["Text_Unidecode<1"]
    assert error.message.endswith("And because you require text-unidecode<1.")


def test_what_the_proxy_refused_is_said() -> None:
    error = explain.failure("error: Request failed after 3 retries", ["x"], ["port 22 of 'x'"])
    assert error.error_code == "index_unavailable"
    assert "port 22 of 'x'" in error.message


def test_an_unexplained_failure_is_shown_and_bounded() -> None:
    error = explain.failure("thread panicked\n" * 1000, ["x"])
    assert error.error_code == "dependency_build_failed"
    assert len(error.message) < 2200
