"""One HTTP exchange under one deadline, which a slow server cannot exceed, wherever it drips.

The exchange runs in its own thread.  The caller waits until the deadline, then shuts the connection down.  That ends
every read and write of the thread at once: headers, interim responses, chunk extensions, trailers, bodies that unpack
to nothing, a proxy's greeting, a TLS handshake.  Only a name's look-up continues as long as the system lets it, and
nobody waits for it.

Left out on purpose: redirects, cookies and .netrc, because each could send a key elsewhere; connections that are kept;
SOCKS proxies.
"""

import contextlib
import ipaddress
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from functools import cache
from typing import Any, NamedTuple

import httpcore2
import httpx2

MAX_BYTES = 16 * 2**20  # of a reply, unpacked

_create_tls = cache(httpx2.create_ssl_context)  # slow to make


class Answer(NamedTuple):
    """What a server answered, unpacked."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class UnusableProxy(ValueError):
    """The environment names a proxy that cannot be used."""


def post(url: str, content: bytes, headers: Mapping[str, str], *, timeout: float) -> Answer:
    """`request` by POST."""
    return request("POST", url, content, headers, timeout=timeout)


def request(method: str, url: str, content: bytes, headers: Mapping[str, str], *, timeout: float) -> Answer:
    """Sends `content`, and waits at most `timeout` seconds for the whole of the answer.

    TimeoutError: the deadline has passed.  ConnectionError: no connection, or no whole HTTP message.
    UnusableProxy.  ValueError: the reply is longer than MAX_BYTES.  httpx2.DecodingError: it cannot be unpacked.
    """
    line, answer = _Line(), Future[Answer]()

    def exchange() -> None:
        try:
            answer.set_result(_exchange(line, method, httpx2.URL(url), content, headers, timeout))
        except BaseException as error:  # raised in the caller, if it still waits
            answer.set_exception(error)

    # A daemon: the end of the interpreter waits for no server.
    threading.Thread(target=exchange, name="exchange", daemon=True).start()
    try:
        return answer.result(timeout)
    except (TimeoutError, httpcore2.TimeoutException):
        raise TimeoutError(f"no whole reply in {timeout:g} s") from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError, OSError) as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error
    finally:  # after the answer, the deadline or Ctrl-C alike
        line.cut()


def proxy_of(url: httpx2.URL) -> httpx2.Proxy | None:
    """The proxy that the environment names for `url`; always None for an address of this host."""
    if _is_loopback(url.host):
        return None
    named = urllib.request.getproxies()
    address = named.get(url.scheme) or named.get("all")
    if not address or urllib.request.proxy_bypass(url.host):
        return None
    try:
        proxy = httpx2.Proxy(address if "://" in address else f"http://{address}")
    except (ValueError, httpx2.InvalidURL) as error:
        raise UnusableProxy(f"the environment's proxy for {url.scheme}:// cannot be used: {error}") from None
    if proxy.url.scheme not in ("http", "https") or not is_address(proxy.url):
        raise UnusableProxy(f"the environment's proxy for {url.scheme}:// must be an http:// or https:// address")
    return proxy


def is_address(url: httpx2.URL) -> bool:
    """Whether it names a host and, if it names a port, a valid one."""
    return bool(url.host) and (url.port is None or 0 < url.port < 2**16)


def _is_loopback(host: str) -> bool:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))  # 127.1 is an address too
        except OSError:
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


class _Line(httpcore2.SyncBackend):
    """Opens the connection of one exchange, and can cut it from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_cut = False
        self._socket: socket.socket | None = None

    def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore2.NetworkStream:
        stream = super().connect_tcp(*args, **kwargs)
        with self._lock:
            if not self._is_cut:
                # A second descriptor, because TLS detaches the socket's own before its handshake.
                self._socket = stream.get_extra_info("socket").dup()
                return stream
        stream.close()
        raise httpcore2.ConnectTimeout("connected after the deadline")

    def cut(self) -> None:
        """Ends whatever the exchange waits for, and keeps it from connecting again."""
        with self._lock:
            self._is_cut, ours = True, self._socket
        if ours is not None:
            with contextlib.suppress(OSError):  # the server has left already
                ours.shutdown(socket.SHUT_RDWR)
            ours.close()


class _Parts(httpx2.SyncByteStream):
    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        return self._parts


def _exchange(
    line: _Line, method: str, url: httpx2.URL, content: bytes, headers: Mapping[str, str], timeout: float
) -> Answer:
    # A pool for one connection. httpx2's own client would read the environment's settings and prepare redirects.
    proxy = proxy_of(url)
    pool: httpcore2.ConnectionPool
    if proxy is None:
        pool = httpcore2.ConnectionPool(_tls_of(url), network_backend=line)
    else:
        pool = httpcore2.HTTPProxy(
            _core_url(proxy.url),
            proxy.raw_auth,
            ssl_context=_tls_of(url),
            proxy_ssl_context=_tls_of(proxy.url),
            network_backend=line,
        )
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
    with (
        pool,
        pool.stream(
            method, _core_url(url), headers=list(headers.items()), content=content, extensions={"timeout": timeouts}
        ) as raw,
    ):
        # httpx2 unpacks compressed bodies piece by piece, so that MAX_BYTES bounds the unpacked size.
        response = httpx2.Response(raw.status, headers=raw.headers, stream=_Parts(raw.iter_stream()))
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > MAX_BYTES:
                raise ValueError("the reply is too long")
        return Answer(raw.status, response.headers, bytes(body))


def _tls_of(url: httpx2.URL) -> ssl.SSLContext | None:
    return _create_tls() if url.scheme == "https" else None


def _core_url(url: httpx2.URL) -> httpcore2.URL:
    return httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path or b"/")
