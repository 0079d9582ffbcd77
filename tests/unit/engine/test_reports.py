"""What runners report is read, never trusted."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from flow_platform.domain.clock import ManualClock
from flow_platform.engine import reports
from flow_sdk.wire import subjects

NOW = ManualClock().now()
ORIGIN = {subjects.HEADER_LEASE_EPOCH: "2", subjects.HEADER_ATTEMPT: "2", subjects.HEADER_RUNNER: "r1"}


@dataclass
class Message:
    body: bytes
    subject: str = "exec.output.e1"
    headers: dict[str, str] = field(default_factory=lambda: dict(ORIGIN))


def test_the_subject_names_the_execution_whatever_the_body_says() -> None:
    report = reports.parse_output(Message(b""), b'{"execution_id": "other", "output": 1}')
    assert (report.origin.execution_id, report.origin.lease_epoch, report.output) == ("e1", 2, 1)


@pytest.mark.parametrize(
    "body", [b"", b"not json", b'{"output": NaN}', b"[]", b'{"output": "\\ud800"}', b"[" * 100_000]
)
def test_a_body_that_cannot_be_kept_ends_the_attempt_with_the_reason(body: bytes) -> None:
    report = reports.parse_output(Message(b""), body)
    assert report.error is not None
    assert (report.error.code, report.error.retryable) == ("invalid_output", False)
    assert "exec.output.e1" in report.error.message


@pytest.mark.parametrize("header", [subjects.HEADER_LEASE_EPOCH, subjects.HEADER_ATTEMPT])
@pytest.mark.parametrize("value", [None, "", "two"])
def test_a_message_of_no_known_attempt_is_malformed(header: str, value: str | None) -> None:
    headers = {name: text for name, text in {**ORIGIN, header: value}.items() if text is not None}
    with pytest.raises(reports.Malformed):
        reports.parse_output(Message(b"", headers=headers), b'{"output": 1}')


def test_a_contract_client_may_say_its_error_as_it_likes() -> None:
    for error, message in (
        ('"boom"', "boom"),
        ('{"message": "boom"}', "boom"),
        ("[1]", "[1]"),
        ('{"code": 7}', '{"code": 7}'),
    ):
        report = reports.parse_output(Message(b""), b'{"error": %s}' % error.encode())
        assert report.error is not None
        assert (report.error.code, report.error.message) == ("component_error", message)


def test_unusable_metrics_are_no_metrics() -> None:
    message = Message(b"", headers={**ORIGIN, subjects.HEADER_METRICS: "[]"})
    assert reports.parse_output(message, b"{}").metrics.cpu_ms is None


def test_an_event_keeps_its_own_time_or_gets_ours() -> None:
    event = Message(
        b'{"sequence": 1, "event_type": "chunk", "event_data": "x", "timestamp": "2026-01-02T03:04:05+00:00"}'
    )
    assert reports.parse_event(event, NOW)[1].timestamp.hour == 3
    late = Message(b'{"sequence": 1, "event_type": "chunk", "timestamp": "yesterday"}')
    assert reports.parse_event(late, NOW)[1].timestamp == NOW


@pytest.mark.parametrize("timestamp", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "soon", 7, None])
def test_a_time_that_no_calendar_has_becomes_ours(timestamp: object) -> None:
    body = json.dumps({"sequence": 1, "timestamp": timestamp}).encode()
    _, event = reports.parse_event(Message(body, "exec.events.e1"), NOW)
    assert event.timestamp == NOW


def test_an_event_without_a_number_is_malformed() -> None:
    with pytest.raises(reports.Malformed, match="'one'"):
        reports.parse_event(Message(b'{"sequence": "one"}'), NOW)
