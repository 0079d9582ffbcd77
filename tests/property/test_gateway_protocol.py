"""Any bytes, in any pieces: the parser never raises, never keeps more than it must, and ends at the first violation."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from flow_platform.bus.gateway_protocol import (
    MAX_CONTROL_LINE_BYTES,
    Connect,
    Operation,
    Parser,
    Ping,
    Pong,
    Publish,
    Subscribe,
    Unsubscribe,
    Violation,
)

MAX_PAYLOAD = 300

unhurried = settings(deadline=None)  # A busy machine is no failure.

token = st.text("abcXYZ019-_$*>", min_size=1, max_size=6)
subject = st.lists(token, min_size=1, max_size=4).map(".".join)
body = st.binary(max_size=MAX_PAYLOAD)
message_id = st.text("abc-:.", max_size=8)
subscription_id = st.integers(0, 10**6).map(str)

# Bytes that look like the protocol reach deeper than random ones.
fragment = st.sampled_from(
    [b"PUB ", b"HPUB ", b"SUB ", b"CONNECT ", b"PING", b"\r\n", b"\r", b"\n", b" ", b"\t", b"NATS/1.0", b"{}", b"5"]
)
noise = st.lists(st.one_of(fragment, st.binary(max_size=20), subject.map(str.encode)), max_size=60).map(b"".join)


@st.composite
def operation(draw: st.DrawFn) -> tuple[bytes, Operation]:
    """An operation and the bytes a client would send for it."""
    match draw(st.sampled_from(["pub", "hpub", "sub", "unsub", "ping", "pong", "connect"])):
        case "pub":
            to, reply, content = draw(subject), draw(st.one_of(st.just(""), subject)), draw(body)
            line = f"PUB {to} {reply} {len(content)}\r\n".encode()
            return line + content + b"\r\n", Publish(to.encode(), reply.encode(), content)
        case "hpub":
            to, content, name = draw(subject), draw(st.binary(max_size=200)), draw(message_id)
            headers = f"NATS/1.0\r\nA: b\r\nNats-Msg-Id: {name}\r\n\r\n".encode()
            line = f"HPUB {to} {len(headers)} {len(headers) + len(content)}\r\n".encode()
            return line + headers + content + b"\r\n", Publish(to.encode(), b"", content, name.encode())
        case "sub":
            to, identifier = draw(subject), draw(subscription_id)
            return f"SUB {to}  {identifier}\r\n".encode(), Subscribe(to.encode(), identifier.encode())
        case "unsub":
            identifier, after = draw(subscription_id), draw(st.integers(1, 1000))
            return f"UNSUB {identifier} {after}\r\n".encode(), Unsubscribe(identifier.encode(), after)
        case "ping":
            return draw(st.sampled_from([b"PING\r\n", b"ping\r\n", b"PING \r\n"])), Ping()
        case "pong":
            return b"PONG\r\n", Pong()
        case _:
            return b'CONNECT {"pass":"t"}\r\n', Connect({"pass": "t"})


def parsed(parser: Parser, data: bytes, cuts: list[int]) -> list[Operation]:
    found: list[Operation] = []
    start = 0
    for end in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        parser.feed(data[start:end])
        start = end
        while (operation := parser.next_operation()) is not None:
            found.append(operation)
        piece = max(len(data), 1)
        assert parser.buffered_bytes <= MAX_CONTROL_LINE_BYTES + MAX_PAYLOAD + 2 + piece
    return found


@unhurried
@given(st.lists(operation(), max_size=20), st.lists(st.integers(0, 10_000), max_size=20))
def test_operations_are_found_however_the_bytes_are_cut(operations, cuts):
    data = b"".join(wire for wire, _ in operations)
    parser = Parser(2 * MAX_PAYLOAD)
    assert parsed(parser, data, cuts) == [expected for _, expected in operations]
    assert parser.buffered_bytes == 0


@unhurried
@given(st.one_of(st.binary(max_size=2000), noise), st.lists(st.integers(0, 10_000), max_size=20))
def test_any_bytes_are_operations_or_one_last_violation(data, cuts):
    found = parsed(Parser(MAX_PAYLOAD), data, cuts)
    assert not any(isinstance(operation, Violation) for operation in found[:-1])
    assert found == parsed(Parser(MAX_PAYLOAD), data, [])


@unhurried
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_after_a_violation_everything_is_ignored(before, after):
    parser = Parser(MAX_PAYLOAD)
    parsed(parser, before + b"\r\nNONSENSE\r\n\r\n\r\n" + bytes(MAX_PAYLOAD + 2) + b"\r\n\r\n", [])
    parser.feed(after + b"PING\r\n")
    assert parser.next_operation() is None
    assert parser.buffered_bytes == 0


@unhurried
@given(st.integers(1, 40))
def test_a_line_without_an_end_is_not_collected(pieces):
    parser = Parser(MAX_PAYLOAD)
    found: list[Operation] = []
    for _ in range(pieces):
        parser.feed(b"A" * 500)
        found += [operation for operation in [parser.next_operation()] if operation]
        assert parser.buffered_bytes <= MAX_CONTROL_LINE_BYTES + 500
    assert found == ([Violation("Maximum Control Line Exceeded")] if pieces * 500 > MAX_CONTROL_LINE_BYTES else [])
