"""An HTTP server of one directory, read-only and with byte ranges. Standard library only, run as a script.

`python -I http_server.py DIRECTORY PORT [--certificate FILE --key FILE]`; it listens on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import re
import ssl
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class RangeHandler(SimpleHTTPRequestHandler):
    """GET and HEAD of a file or of one range of it (RFC 9110, section 14). QEMU's curl driver needs both."""

    protocol_version = "HTTP/1.1"

    def send_head(self) -> BytesIO | None:
        """The headers; what is returned is sent as the body of a GET."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        size = path.stat().st_size
        wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
        first = int(wanted[1]) if wanted else 0
        last = min(int(wanted[2] or size - 1), size - 1) if wanted else size - 1
        if wanted and first > last:
            self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return None
        self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        return _part(path, first, last - first + 1)

    def do_GET(self) -> None:
        """A client that has read enough goes away in the middle: no error."""
        try:
            super().do_GET()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def _part(path: Path, first: int, length: int) -> BytesIO:
    with path.open("rb") as file:
        file.seek(first)
        return BytesIO(file.read(length))


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("port", type=int)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    arguments = parser.parse_args()
    handler = partial(RangeHandler, directory=arguments.directory)
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), handler)
    if arguments.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.certificate, arguments.key)
        # The handshake in the connection's own thread, not in the one that accepts.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main()
