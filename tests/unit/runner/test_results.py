"""What a container says, held against what it may say."""

from __future__ import annotations

import json

import pytest

from flow_platform.runner import ending
from flow_platform.runner.result import BadResult, output_payload, parse_result
from flow_platform.sandbox.base import Ended, Ending, Usage
from flow_sdk.wire.runner import Limits
from tests.contract.runner.fake_engine import assignment

WORK = assignment("")


def _payload(body: bytes) -> dict[str, object]:
    return json.loads(output_payload(WORK, "now", parse_result(body)))


def test_the_envelope_is_the_runners() -> None:
    content = _payload(b' {"output": {"a": [1, "\\u00e9"]}, "usage": null} ')
    assert content == {
        "output": {"a": [1, "é"]},
        "usage": None,
        "execution_id": WORK.execution_id,
        "deployment_id": "deployment",
        "timestamp": "now",
    }


@pytest.mark.parametrize(
    "body",
    [
        b'{"output": 1, "execution_id": "other", "timestamp": "then"}',
        b'{"output": 1, "execution_id": "other", "deployment_id": "x", "execution_id": "third"}',
        b'{"output": 1, "\\u0065xecution_id": "other"}',
    ],
)
def test_other_fields_are_dropped(body: bytes) -> None:
    content = _payload(body)
    assert content["execution_id"] == WORK.execution_id
    assert content["timestamp"] == "now"
    assert content["output"] == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b'{"output": NaN}', b'{"output": ', b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadResult):
        parse_result(body)


def test_an_empty_object_is_a_result() -> None:
    assert _payload(b"{}")["execution_id"] == WORK.execution_id


@pytest.mark.parametrize("code", sorted(ending.RESERVED_CODES))
def test_reserved_codes_are_not_a_containers_to_use(code: str) -> None:
    content = _payload(json.dumps({"error": {"code": code, "message": "m"}}).encode())
    assert content["error"] == {"code": "component_error", "message": "m"}


def test_an_error_document_makes_a_payload() -> None:
    content = json.loads(output_payload(WORK, "now", ending.timeout(2.5)))
    assert content["output"] is None
    assert content["error"]["code"] == "timeout"
    assert "2.5 s" in content["error"]["message"]


@pytest.mark.parametrize(
    ("ended", "code", "said"),
    [
        (Ended(Ending.EXITED, exit_code=3), "process_crashed", "exit code 3"),
        (Ended(Ending.EXITED, 1, usage=Usage(pids_limit_hits=4)), "process_crashed", "limits.pids 64"),
        (Ended(Ending.CRASHED, signal=11), "process_crashed", "SIGSEGV"),
        (Ended(Ending.CRASHED, signal=123), "process_crashed", "123"),
        (Ended(Ending.OUT_OF_MEMORY, signal=9, usage=Usage(0, 256 << 20, 2)), "out_of_memory", "256.0 MiB"),
        (Ended(Ending.FORBIDDEN_SYSCALL, signal=31), "forbidden_syscall", "SIGSYS"),
        (Ended(Ending.START_FAILED), "container_lost", "started"),
        (Ended(Ending.KILLED), "container_lost", "killed"),
    ],
)
def test_endings_are_explained(ended: Ended, code: str, said: str) -> None:
    document = ending.error_for(ended, Limits())
    assert document.code == code
    assert said in document.message
