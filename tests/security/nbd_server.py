"""An NBD server as a tenant would write one: what it serves depends on who has asked before."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

_MAGIC, _OPTION, _REPLY = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
_REQUEST, _SIMPLE = 0x25609513, 0x67446698
_INFO, _GO = 6, 7
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_HAS_FLAGS_AND_FLUSH = 1 | 4
_UNSUPPORTED, _ACK, _INFORMATION = 0x80000001, 1, 3


class TwoFaces:
    """Serves the first image to the first connection that reads, the next one to the next, and the last one
    to all who come later. A context manager; loopback only."""

    def __init__(self, images: Sequence[Path]) -> None:
        self._images = list(images)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            client.sendall(struct.pack(">QQH", _MAGIC, _OPTION, 3))
            no_zeroes = struct.unpack(">I", _exactly(client, 4))[0] & 2
            if self._negotiated(client, no_zeroes=bool(no_zeroes)):
                self._transmit(client)

    def _negotiated(self, client: socket.socket, *, no_zeroes: bool) -> bool:
        size = self._images[-1].stat().st_size
        while True:
            _, option, length = struct.unpack(">QII", _exactly(client, 16))
            _exactly(client, length)
            if option == 1:  # the oldest way in
                client.sendall(
                    struct.pack(">QH", size, _HAS_FLAGS_AND_FLUSH) + b"\0" * (0 if no_zeroes else 124)
                )
                return True
            if option not in {_INFO, _GO}:
                client.sendall(struct.pack(">QIII", _REPLY, option, _UNSUPPORTED, 0))
                continue
            told = struct.pack(">HQH", 0, size, _HAS_FLAGS_AND_FLUSH)
            client.sendall(struct.pack(">QIII", _REPLY, option, _INFORMATION, len(told)) + told)
            client.sendall(struct.pack(">QIII", _REPLY, option, _ACK, 0))
            if option == _GO:
                return True

    def _transmit(self, client: socket.socket) -> None:
        image: int | None = None
        for kind, cookie, offset, length in _requests(client):
            if image is None:
                image = self._next()
            answer = struct.pack(">IIQ", _SIMPLE, 0, cookie)
            if kind == _READ:
                answer += os.pread(image, length, offset).ljust(length, b"\0")
            elif kind == _WRITE:
                os.pwrite(image, _exactly(client, length), offset)
            client.sendall(answer)

    def _next(self) -> int:
        with self._lock:
            path = self._images.pop(0) if len(self._images) > 1 else self._images[0]
        return os.open(path, os.O_RDWR)


def _requests(client: socket.socket) -> Iterator[tuple[int, int, int, int]]:
    while True:
        _, _, kind, cookie, offset, length = struct.unpack(">IHHQQI", _exactly(client, 28))
        if kind == _DISCONNECT:
            return
        yield kind, cookie, offset, length


def _exactly(client: socket.socket, count: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < count:
        piece = client.recv(count - len(pieces))
        if not piece:
            raise EOFError
        pieces += piece
    return bytes(pieces)
