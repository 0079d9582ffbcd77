"""Log lines: their fields, and that text from outside stays inside its line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from flow_platform.metrics import Metrics
from flow_platform.telemetry import configure_logging, execution_fields


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def _logged(log_format: str) -> str:
    stream = io.StringIO()
    configure_logging(log_format, "info", stream)
    logger = logging.getLogger("flow_platform.test")
    logger.debug("not this")
    logger.info("an %s ended", "attempt", extra=execution_fields("e-1", 2, 3) | {"text": "a\nERROR forged\x1b[31m"})
    try:
        raise ValueError("the cause\nforged")
    except ValueError:
        logger.exception("it failed\nforged")
    return stream.getvalue()


def test_json_lines() -> None:
    ended, failed = (json.loads(line) for line in _logged("json").splitlines())
    assert (ended["message"], ended["level"], ended["logger"]) == ("an attempt ended", "info", "flow_platform.test")
    assert (ended["execution_id"], ended["attempt"], ended["lease_epoch"]) == ("e-1", 2, 3)
    assert ended["text"] == "a\nERROR forged\x1b[31m"
    assert "ValueError: the cause" in failed["exception"]


def test_plain_lines() -> None:
    lines = _logged("text").splitlines()
    assert "an attempt ended execution_id=e-1 attempt=2 lease_epoch=3 text=a\\nERROR forged\\x1b[31m" in lines[0]
    assert "it failed\\nforged" in lines[1]
    assert all(line.startswith("    ") for line in lines[2:])
    assert not any(line.startswith(("ERROR", "forged")) for line in lines)


def test_setting_up_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging("text", "info", first)
    configure_logging("text", "error", second)
    logging.getLogger("x").warning("quiet")
    logging.getLogger("x").error("loud")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_metrics_of_two_platforms_do_not_mix() -> None:
    one, other = Metrics(), Metrics()
    one.event_streams.set(4)
    assert b"flow_event_streams 4.0" in one.exposition()
    assert b"flow_event_streams 0.0" in other.exposition()
