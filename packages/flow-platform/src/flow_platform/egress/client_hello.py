"""The host that a TLS client asks for in its first message. Pure.

Large providers serve many customers at one address and choose by this name, so a tunnel to one of them would else be a
tunnel to all. Source: RFC 8446, sections 4.1.2 and 5.1; RFC 6066, section 3.
"""

from __future__ import annotations

from typing import Final

from flow_platform.domain.destination import is_address, normal_host
from flow_platform.egress.refusal import malformed

MAX_HELLO_BYTES: Final = 32 << 10  # Those of common clients have 0.2 to 2 KiB.
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_FIXED_BYTES: Final = 2 + 32  # Version and random.
_MAJOR_VERSION: Final = 3
_RECORD_HEAD: Final = 5
_MESSAGE_HEAD: Final = 4


class HelloGate:
    """Holds back the first bytes of a tunnel until the name in them is known; then lets everything pass.

    Each byte is looked at once, in however small pieces they come.

    Args:
        host: Of the tunnel, in normal form.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._is_open = is_address(host)
        self._held = bytearray()
        self._read = 0  # Of what is held, whole records.
        self._message = bytearray()  # What they carried.

    def pass_on(self, data: bytes) -> bytes:
        """What may be sent now.

        Raises:
            Refusal: The client asks for another host, or what it says is TLS only at first sight.
        """
        if self._is_open:
            return data
        self._held += data
        if self._held and self._held[0] != _HANDSHAKE:
            return self._open()
        try:
            name = self._name()
        except (ValueError, IndexError) as error:
            raise malformed(f"the tunnel to {self._host!r} begins like TLS and is none: {error}") from error
        if name is None:
            if len(self._held) > MAX_HELLO_BYTES:
                raise malformed(f"the first message in the tunnel to {self._host!r} is over {MAX_HELLO_BYTES} bytes")
            return b""
        if name not in ("", self._host):
            raise malformed(f"TLS asks for host {name!r} in a tunnel to {self._host!r}")
        return self._open()

    def _name(self) -> str | None:
        """None when there is more to come."""
        while len(self._held) >= self._read + _RECORD_HEAD:
            kind, version, _, *length_bytes = self._held[self._read : self._read + _RECORD_HEAD]
            length = int.from_bytes(length_bytes)
            if kind != _HANDSHAKE or version != _MAJOR_VERSION or length == 0:
                raise ValueError("not a record of a TLS handshake")
            end = self._read + _RECORD_HEAD + length
            if len(self._held) < end:
                break
            self._message += self._held[self._read + _RECORD_HEAD : end]
            self._read = end
            if self._message[0] != _CLIENT_HELLO:
                raise ValueError("not a ClientHello")
            body_end = _MESSAGE_HEAD + int.from_bytes(self._message[1:_MESSAGE_HEAD])
            if len(self._message) >= max(_MESSAGE_HEAD, body_end):
                return server_name(bytes(self._message[_MESSAGE_HEAD:body_end]))
        return None

    def _open(self) -> bytes:
        self._is_open = True
        held = bytes(self._held)
        self._held.clear()
        self._message.clear()
        return held


def server_name(hello: bytes) -> str:
    """The name in the body of a ClientHello, in normal form; empty when the client asks for none.

    Raises:
        ValueError: It is no ClientHello.
        IndexError: A length in it leads beyond its end.
    """
    reader = _Reader(hello)
    reader.take(_FIXED_BYTES)
    for length_bytes in (1, 2, 1):  # Session, cipher suites, compression.
        reader.take_vector(length_bytes)
    names: set[str] = set()
    extensions = _Reader(reader.take_vector(2) if reader.left else b"")
    while extensions.left:
        kind = extensions.take_number(2)
        content = extensions.take_vector(2)
        if kind == _SERVER_NAME:
            names |= _names(_Reader(_Reader(content).take_vector(2)))
    if len(names) > 1:
        raise ValueError("several server names")
    return names.pop() if names else ""


def _names(entries: _Reader) -> set[str]:
    names: set[str] = set()
    while entries.left:
        if entries.take_number(1) != 0:
            raise ValueError("a server name of an unknown type")
        names.add(normal_host(entries.take_vector(2).decode("ascii")))
    return names


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise IndexError("it ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def take_number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def take_vector(self, length_bytes: int) -> bytes:
        return self.take(self.take_number(length_bytes))
