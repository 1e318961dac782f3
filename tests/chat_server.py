"""A real OpenAI-compatible HTTP server on loopback, whose every reply is a function of the request."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rods_jax.chat import Endpoint, Request, http_generate

Respond = Callable[[BaseHTTPRequestHandler, dict], None]  # (handler, body of the request)


@contextlib.contextmanager
def chat_server(respond: Respond) -> Iterator[tuple[str, list[dict]]]:
    """(url of the endpoint, the bodies of all requests so far, each with its headers and path)."""
    requests: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            requests.append({**body, "headers": dict(self.headers), "path": self.path})
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has left
                respond(self, body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion(text: str | None, calls: list[dict] = [], usage: Any = (10, 5)) -> dict:
    message = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [{"id": str(n), "type": "function", "function": c} for n, c in enumerate(calls)]
    counted = {"usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}} if usage else {}
    return {"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": message}], **counted}


def send(handler: BaseHTTPRequestHandler, body: Any, status: int = 200, headers: dict[str, str] = {}) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"content-length": str(len(raw)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(raw)


def say(text: str, **kwargs) -> Respond:
    return lambda handler, body: send(handler, completion(text, **kwargs))


def fail(status: int, headers: dict[str, str] = {}, text: str = "no") -> Respond:
    return lambda handler, body: send(handler, {"error": {"message": text}}, status, headers)


def hang_up(handler, body) -> None:
    """Closes the connection without a word."""
    handler.close_connection = True


def tear(handler, body) -> None:
    """Promises more bytes than it sends."""
    send(handler, b'{"choices": [{"mess', headers={"content-length": "500"})
    handler.close_connection = True


def cut_json(handler, body) -> None:
    """A whole HTTP message around half of a JSON text."""
    send(handler, json.dumps(completion("hello")).encode()[:40])


def drip(seconds: float) -> Respond:
    """Sends a byte now and then: no single read times out."""

    def respond(handler, body):
        send(handler, b"", headers={"content-length": "100000"})
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            handler.wfile.write(b" ")  # BrokenPipeError once the client has left
            time.sleep(0.02)

    return respond


def in_turn(*responses: Respond) -> Respond:
    """Each response once, in order; the last again and again."""
    lock, left = threading.Lock(), list(responses)

    def respond(handler, body):
        with lock:
            now = left.pop(0) if len(left) > 1 else left[0]
        now(handler, body)

    return respond


HELLO = Request(({"role": "user", "content": "hello"},))


def ask(respond, requests=(HELLO,), seed=0, **settings):
    """(replies, requests that reached the server) of one endpoint without patience."""
    with chat_server(respond) as (url, seen):
        endpoint = Endpoint(url=url, model="m", **{"first_wait": 0.01, "max_retries": 2, "timeout": 5.0} | settings)
        return http_generate(endpoint, seed=seed)(requests), seen
