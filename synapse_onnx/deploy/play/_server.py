"""A web server for one page, on this machine only."""

from __future__ import annotations

import http.server
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from synapse_onnx.errors import InputError

__all__ = ["Server"]

#: suffix -> media type; a browser runs no module and compiles no program of another type
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}


class Server:
    """Serves the files of a page on 127.0.0.1, and nothing else.

    Args:
        files: name -> bytes, or the path of a file.
        port: port to listen on; 0 for any free port.

    Attributes:
        url: address of the page.

    Raises:
        InputError: the port is in use, or not permitted.
    """

    def __init__(self, files: Mapping[str, bytes | Path], port: int = 0) -> None:
        handler = type("Handler", (_Handler,), {"page": files})
        try:
            self._server = _Quiet(("127.0.0.1", port), handler)
        except OSError as error:
            raise InputError(
                f"port {port} cannot be taken: {error.strerror or error}; give another by --port, "
                f"or leave it out for any that is free"
            ) from error
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def run(self) -> None:
        """Serve until :meth:`close`, or an interrupt from the keyboard, which is raised."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._server.server_close()

    def close(self) -> None:
        """End :meth:`run`, from another thread."""
        self._server.shutdown()


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # on Windows the option would let two servers share a port
    allow_reuse_address = not hasattr(__import__("socket"), "SO_EXCLUSIVEADDRUSE")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that closed the connection."""


class _Handler(http.server.BaseHTTPRequestHandler):
    page: Mapping[str, bytes | Path]
    server_version = "synapse-onnx"
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing to the terminal."""

    def do_GET(self) -> None:
        """Send a file, or its headers alone for HEAD."""
        name = unquote(urlsplit(self.path).path).removeprefix("/") or "index.html"
        content = self.page.get(name)
        if content is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        data = content if isinstance(content, bytes) else content.read_bytes()
        self.send_response(HTTPStatus.OK)
        kind = _TYPES.get(PurePosixPath(name).suffix, "application/octet-stream")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET  # noqa: N815
