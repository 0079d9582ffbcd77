"""The name in a ClientHello is found however its bytes come, and nothing that comes can confuse the gate."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow_platform.egress.client_hello import HelloGate, server_name
from flow_platform.egress.refusal import Refusal

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,10}(\.[a-z][a-z0-9]{0,10}){0,3}", fullmatch=True)

VERSIONS = st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


def hello(name: str | None, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = name is not None
    context.minimum_version = minimum
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def in_records(message: bytes, size: int) -> bytes:
    """The same handshake message in records of that size."""
    body = message[5:]
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(message[:3] + len(part).to_bytes(2) + part for part in parts)


def name_in(message: bytes) -> str:
    return server_name(message[9 : 9 + int.from_bytes(message[6:9])])


def passed(gate: HelloGate, data: bytes, step: int) -> bytes:
    return b"".join(gate.pass_on(data[start : start + step]) for start in range(0, len(data), step))


@given(NAMES, st.integers(1, 600), st.integers(1, 600), VERSIONS)
def test_the_name_is_found_in_any_pieces(name: str, size: int, step: int, version: ssl.TLSVersion) -> None:
    data = in_records(hello(name, version), size)
    assert passed(HelloGate(name), data + b"more", step) == data + b"more"
    with pytest.raises(Refusal, match="asks for host"):
        passed(HelloGate("another.example"), data, step)


@given(st.integers(1, 500))
def test_a_client_may_name_no_host(step: int) -> None:
    data = hello(None)
    assert passed(HelloGate("example.com"), data, step) == data


@given(NAMES, st.integers(5, 200))
def test_nothing_passes_before_the_name_is_known(name: str, cut: int) -> None:
    assert HelloGate(name).pass_on(hello(name)[:cut]) == b""


@given(st.binary(max_size=300))
def test_what_is_not_tls_passes_as_it_is(data: bytes) -> None:
    if not data.startswith(b"\x16"):
        gate = HelloGate("example.com")
        assert gate.pass_on(data) == data
        if data:
            assert gate.pass_on(b"\x16\x03\x01") == b"\x16\x03\x01"


@given(st.binary(max_size=300))
def test_what_only_looks_like_tls_is_refused_or_held(data: bytes) -> None:
    gate = HelloGate("example.com")
    with contextlib.suppress(Refusal):
        assert gate.pass_on(b"\x16" + data) in (b"", b"\x16" + data)


@given(NAMES, st.data())
def test_a_damaged_hello_never_passes_for_another_host(name: str, data: st.DataObject) -> None:
    whole = bytearray(hello(name))
    place = data.draw(st.integers(1, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    try:
        out = HelloGate(name).pass_on(bytes(whole))
    except Refusal:
        return
    assert out == b"" or name_in(bytes(whole)) in ("", name)


def test_an_endless_hello_is_refused() -> None:
    record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + b"x" * (0x4000 - 4)
    gate = HelloGate("example.com")
    assert gate.pass_on(record) == b""
    with pytest.raises(Refusal, match="32768"):
        gate.pass_on(2 * (record[:5] + b"x" * 0x4000))
