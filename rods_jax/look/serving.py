"""Serves the page on this machine alone: GET, from 127.0.0.1, under a name of its own.

The Host header is checked, so that no page of another site can read a run through a name that it points here.
"""

import sys
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from rods_jax import strict_json
from rods_jax.look.page import page
from rods_jax.types import Json

HOST = "127.0.0.1"


def server(answer: Callable[[str], Json], port: int = 0) -> ThreadingHTTPServer:
    """A server of the page, not yet running; port 0: any free one. answer: (address of a piece) -> JSON, or KeyError.

    ValueError: there is no such port. OSError: another program has it.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"port must be between 0 and 65535: got {port}")
    try:
        return _Server((HOST, port), partial(_Handler, *page(), answer))
    except OSError as error:
        raise OSError(f"port {port} cannot be served: {error.strerror}") from error


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone away is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    timeout = 30  # seconds for a request

    def __init__(self, html: str, policy: str, answer: Callable[[str], Json], *connection: Any):
        self._html, self._policy, self._answer = html, policy, answer
        super().__init__(*connection)

    def do_GET(self) -> None:
        port = cast(ThreadingHTTPServer, self.server).server_port
        if self.headers.get_all("Host") not in ([f"{HOST}:{port}"], [f"localhost:{port}"]):
            self._send(HTTPStatus.FORBIDDEN, "text/plain", f"this page is served as http://{HOST}:{port} alone")
        elif self.path == "/":
            self._send(HTTPStatus.OK, "text/html", self._html)
        elif self.path.startswith("/data/"):
            status, value = HTTPStatus.OK, None
            try:
                value = self._answer(self.path.removeprefix("/data/"))
            except KeyError:
                status, value = HTTPStatus.NOT_FOUND, {"problem": "there is nothing at this address"}
            self._send(status, "application/json", strict_json.dumps(value))
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "there is nothing at this address")

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": f"{self._policy}; frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Requests are not printed."""
