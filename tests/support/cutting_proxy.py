"""A TCP proxy that breaks a connection at a chosen word of the client: before or after the server heard it."""

from __future__ import annotations

import enum
import socket
import threading
from contextlib import suppress


class Cut(enum.Enum):
    NEVER = "never"
    BEFORE = "before"  # The server never hears the word.
    AFTER = "after"  # The server answers, but nobody hears the answer.


class CuttingProxy:
    """Serves while entered. `cut_once` arms it; `is_refusing` turns new connections away."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._word = b""
        self._cut = Cut.NEVER
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self.is_refusing = False
        self.refuse_after_cut = False
        self.cuts = 0

    def __enter__(self) -> CuttingProxy:
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        _shut(self._listener)
        for one in list(self._sockets):
            _shut(one)
        for thread in list(self._threads):
            thread.join(timeout=10)
        for one in (self._listener, *self._sockets):
            one.close()

    def cut_once(self, word: bytes, when: Cut) -> None:
        self._word, self._cut = word, when

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                if self.is_refusing:
                    _shut(client)
                    continue
                server = socket.create_connection(("127.0.0.1", self._target_port))
                self._sockets.append(server)
                is_cut = threading.Event()
                self._start(self._forward, client, server, is_cut)
                self._start(self._answer, server, client, is_cut)

    def _forward(self, client: socket.socket, server: socket.socket, is_cut: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if self._cut is not Cut.NEVER and self._word in data:
                    when, self._cut = self._cut, Cut.NEVER
                    self.is_refusing = self.refuse_after_cut
                    self.cuts += 1
                    is_cut.set()
                    if when is Cut.AFTER:
                        server.sendall(data)
                        return  # `_answer` hangs up when the server has answered.
                    break
                server.sendall(data)
        _shut(client)
        _shut(server)

    def _answer(self, server: socket.socket, client: socket.socket, is_cut: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if is_cut.is_set():
                    break
                client.sendall(data)
        _shut(client)
        _shut(server)


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
