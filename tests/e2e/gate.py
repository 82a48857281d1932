"""A way to the API server that holds back the making of one object until it is let through."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from lab.control.plane import ControlPlane

_SECONDS = 60.0
"""What is held back goes on after so long, and so does who waits for it."""


class Gate:
    """Plain HTTP on loopback, as the administrator of the control plane. `before`: the object's name."""

    def __init__(self, plane: ControlPlane, *, before: str) -> None:
        self._held, self._open = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(plane, before, self._held, self._open))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Gate:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_held(self) -> None:
        """Return when the object was sent and is held back."""
        assert self._held.wait(_SECONDS), "the object was never sent"

    def open(self) -> None:
        """Let it through."""
        self._open.set()


def _handler(
    plane: ControlPlane, before: str, held: threading.Event, let_through: threading.Event
) -> type[BaseHTTPRequestHandler]:
    context = ssl.create_default_context(cafile=str(plane.ca))
    to = urlsplit(plane.server).netloc

    class Handler(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == "POST" and json.loads(body)["metadata"]["name"] == before:
                held.set()
                let_through.wait(_SECONDS)
            kept = ("Accept", "Content-Type")
            headers = {name: self.headers[name] for name in kept if name in self.headers}
            connection = http.client.HTTPSConnection(to, context=context, timeout=_SECONDS)
            try:
                sent = {**headers, "Authorization": f"Bearer {plane.token}"}
                connection.request(self.command, self.path, body, sent)
                answer = connection.getresponse()
                content = answer.read()
            finally:
                connection.close()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = _forward  # noqa: N815 - names of the base class

        def log_message(self, *arguments: Any) -> None:
            """Nothing of it is of interest."""

    return Handler
