from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flow_platform.runner.logs import MAX_EVENT_CHARACTERS, MAX_LINE_CHARACTERS, MAX_SWITCHES, LogLines
from flow_platform.sandbox.base import LogChunk


def _out(data: bytes) -> LogChunk:
    return LogChunk("stdout", data)


def test_lines_are_whole_and_neighbours_share_an_event() -> None:
    lines = LogLines(1000)
    lines.feed(_out(b"one\ntw"))
    assert lines.take() == [("stdout", "one")]
    lines.feed(_out(b"o\nthree\n"))
    lines.feed(LogChunk("stderr", b"oops\n"))
    lines.feed(_out(b"four\n"))
    assert lines.take() == [("stdout", "two\nthree"), ("stderr", "oops"), ("stdout", "four")]
    assert lines.take() == []


def test_a_cut_character_is_whole_again_and_bytes_are_replaced() -> None:
    lines = LogLines(1000)
    snowman = "☃".encode()
    lines.feed(_out(snowman[:1]))
    lines.feed(_out(snowman[1:] + b" \xff\n"))
    assert lines.take() == [("stdout", "☃ \ufffd")]
    lines.feed(_out(snowman[:2]))
    lines.finish()
    assert lines.take() == [("stdout", "\ufffd")]


def test_an_endless_line_is_split() -> None:
    lines = LogLines(1 << 20)
    lines.feed(_out(b"x" * (MAX_LINE_CHARACTERS * 2 + 10)))
    text = lines.take()[0][1]
    assert [len(line) for line in text.split("\n")] == [MAX_LINE_CHARACTERS, MAX_LINE_CHARACTERS]
    lines.finish()
    assert lines.take() == [("stdout", "x" * 10)]


def test_streams_in_turns_share_events_when_there_are_many() -> None:
    lines = LogLines(1 << 20)
    for number in range(MAX_SWITCHES):
        lines.feed(LogChunk(("stdout", "stderr")[number % 2], b"%d\n" % number))
    assert [text for _, text in lines.take()] == [str(number) for number in range(MAX_SWITCHES)]
    for number in range(MAX_SWITCHES + 2):
        lines.feed(LogChunk(("stdout", "stderr")[number % 2], b"%d\n" % number))
    assert lines.pending_characters > 0
    even, odd = (range(start, MAX_SWITCHES + 2, 2) for start in (0, 1))
    assert lines.take() == [("stderr", "\n".join(map(str, odd))), ("stdout", "\n".join(map(str, even)))]
    assert lines.pending_characters == 0


def test_too_much_ends_with_a_marker() -> None:
    lines = LogLines(10)
    lines.feed(_out(b"12345\n6789012345\n"))
    lines.feed(_out(b"never\n"))
    lines.finish()
    assert lines.take() == [("stdout", "12345\n6789\n[log truncated: more than 10 bytes (limits.log_bytes)]")]


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=300)), max_size=40))
def test_nothing_is_lost_and_everything_is_bounded(chunks: list[tuple[str, bytes]]) -> None:
    lines = LogLines(1 << 20)
    taken: list[tuple[str, str]] = []
    for stream, data in chunks:
        lines.feed(LogChunk(stream, data))
        taken += lines.take()
    lines.finish()
    taken += lines.take()
    assert all(len(text) <= MAX_EVENT_CHARACTERS + MAX_LINE_CHARACTERS for _, text in taken)
    for stream in ("stdout", "stderr"):
        written = b"".join(data for name, data in chunks if name == stream).decode("utf-8", "replace")
        kept = "\n".join(text for name, text in taken if name == stream)
        assert kept == written.removesuffix("\n")
