"""Asks any OpenAI-compatible server (vLLM, SGLang, a TPU server, a hosted one) for chat replies.

httpx2 carries the requests, and not the openai client: it is installed with transformers already, and retries,
their seeded jitter, the deadline and what an error may say stay ours, in one page.
Left out on purpose: streaming to the caller, and any endpoint but /chat/completions.
"""

import itertools
import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime

import httpx2

from rods_jax.types import Call, Json

# What Reply.error can say. The server, or the way to it, is at fault in all but the last.
TIMEOUT = "timeout"
CONNECTION = "connection"
RATE_LIMITED = "rate_limited"  # HTTP 429
SERVER_ERROR = "server_error"  # HTTP 5xx
REFUSED = "refused"  # any other HTTP status: the same request would be refused again
MALFORMED_REPLY = "malformed_reply"  # no chat completion: truncated JSON, or other JSON
BUDGET_EXHAUSTED = "budget_exhausted"  # nothing was sent
MALFORMED_CALL = "malformed_call"  # the model wrote a tool call that cannot be read

RETRIED = (TIMEOUT, CONNECTION, RATE_LIMITED, SERVER_ERROR, MALFORMED_REPLY)

MAX_WAIT = 60.0  # seconds before a retry; a server that asks for more has refused
MAX_REPLY_BYTES = 16 * 2**20
MAX_DETAIL = 200  # characters
MAX_INTEGER_DIGITS = 400  # no argument needs more, and long ones are slow to read


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where and how to ask. Prices are per million tokens, in the currency of `max_cost`."""

    url: str  # up to and with /v1
    model: str
    api_key_env: str | None = None  # name of the environment variable that holds the key, never the key
    temperature: float = 1.0
    top_p: float = 0.7
    max_tokens: int = 4096  # of one reply
    timeout: float = 120.0  # seconds that one try may take, from the first byte sent to the last received
    concurrency: int = 8  # requests in flight
    max_retries: int = 4
    first_wait: float = 0.5  # seconds before the first retry; doubles with each
    requests_per_minute: float | None = None
    max_total_tokens: int | None = None  # prompts and completions; requests in flight may go beyond
    prompt_price: float = 0.0
    completion_price: float = 0.0
    max_cost: float | None = None

    def __post_init__(self) -> None:
        try:
            url = httpx2.URL(self.url)
        except httpx2.InvalidURL as error:
            raise ValueError(f"url: {error}") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"url must start with http:// or https:// and name a host, not {str(url)!r}")
        if url.userinfo or url.query or url.fragment:
            raise ValueError("url must hold no user, query or fragment: a key belongs in api_key_env's variable")
        for name in ("timeout", "concurrency", "max_tokens", "first_wait"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("temperature", "max_retries", "prompt_price", "completion_price"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be below 0, but is {getattr(self, name)}")
        for name in ("requests_per_minute", "max_total_tokens", "max_cost"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 or None, not {getattr(self, name)}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.max_cost is not None and not self.prompt_price + self.completion_price > 0:
            raise ValueError("max_cost needs prompt_price or completion_price")


@dataclass(frozen=True)
class Request:
    """OpenAI messages ({"role", "content"}) and tools ({"type": "function", "function": ...}), as they are sent."""

    messages: tuple[Mapping[str, Json], ...]
    tools: tuple[Mapping[str, Json], ...] = ()


@dataclass(frozen=True)
class Reply:
    """What a model said; or `error`, one of the constants above, with a detail for people."""

    text: str
    calls: tuple[Call, ...] = ()
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    detail: str = ""


Generate = Callable[[Sequence[Request]], list[Reply]]


def http_generate(endpoint: Endpoint, *, seed: int = 0) -> Generate:
    """A function that answers requests in order and never raises; safe to call from several threads.

    The endpoint's concurrency, rate and budget hold over all its calls; `seed` drives the jitter of retries.
    ValueError: the environment variable of the key is not set, or holds no key.
    """
    key = _api_key(endpoint)
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    meter = _Meter(endpoint)
    free = threading.BoundedSemaphore(endpoint.concurrency)
    tls = httpx2.create_ssl_context()
    numbers = itertools.count()

    def answer(client: httpx2.Client, number: int, request: Request) -> Reply:
        rng = random.Random(f"{seed}:{number}")
        for retry in itertools.count():
            with free:
                if meter.exhausted():
                    return Reply("", error=BUDGET_EXHAUSTED, detail=f"{meter.tokens} tokens spent")
                time.sleep(meter.wait_for_turn())
                reply, told_to_wait = _try(client, endpoint, request)
            meter.add(reply)
            wait = endpoint.first_wait * 2**retry * rng.uniform(0.5, 1.0)
            wait = min(wait, MAX_WAIT) if told_to_wait is None else told_to_wait
            if reply.error not in RETRIED or retry == endpoint.max_retries or wait > MAX_WAIT:
                return _tidy(reply, key)
            time.sleep(wait)

    def generate(requests: Sequence[Request]) -> list[Reply]:
        if not requests:
            return []
        # A client for each batch: connections end with it, and none is left for the interpreter to close.
        with httpx2.Client(headers=headers, timeout=endpoint.timeout, verify=tls) as client:
            own_numbers = [next(numbers) for _ in requests]
            if len(requests) == 1:  # in the caller's thread: the interpreter's end waits for those of a pool
                return [answer(client, own_numbers[0], requests[0])]
            with ThreadPoolExecutor(min(endpoint.concurrency, len(requests))) as workers:
                return list(workers.map(answer, itertools.repeat(client), own_numbers, requests))

    return generate


def read_json(text: str) -> Json:
    """Strict JSON from a model or server. ValueError: malformed, NaN, lone surrogates, too deep, long integers."""
    try:
        value = json.loads(text, parse_int=_integer)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS:
        raise ValueError(f"an integer has more than {MAX_INTEGER_DIGITS} digits")
    return int(digits)


def _api_key(endpoint: Endpoint) -> str | None:
    if endpoint.api_key_env is None:
        return None
    key = os.environ.get(endpoint.api_key_env, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ValueError(f"the environment variable {endpoint.api_key_env} must hold the key of {endpoint.url}")
    return key


class _Meter:
    """Tokens, cost and the next free moment, shared by all threads of an endpoint."""

    def __init__(self, endpoint: Endpoint):
        self.tokens = 0
        self._endpoint = endpoint
        self._cost = 0.0
        self._next_turn = 0.0
        self._lock = threading.Lock()

    def exhausted(self) -> bool:
        tokens, cost = self._endpoint.max_total_tokens, self._endpoint.max_cost
        return (tokens is not None and self.tokens >= tokens) or (cost is not None and self._cost >= cost)

    def add(self, reply: Reply) -> None:
        with self._lock:
            completion = reply.completion_tokens
            if reply.error in (None, MALFORMED_CALL) and not reply.prompt_tokens + completion:
                completion = self._endpoint.max_tokens  # a server that counts nothing must not spend for nothing
            self.tokens += reply.prompt_tokens + completion
            self._cost += self._endpoint.prompt_price * reply.prompt_tokens / 1e6
            self._cost += self._endpoint.completion_price * completion / 1e6

    def wait_for_turn(self) -> float:
        """Seconds until this request may go out."""
        if self._endpoint.requests_per_minute is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next_turn)
            self._next_turn = turn + 60 / self._endpoint.requests_per_minute
            return turn - now


def _try(client: httpx2.Client, endpoint: Endpoint, request: Request) -> tuple[Reply, float | None]:
    """One exchange: the reply, and the seconds that the server asks to wait."""
    body = {
        "model": endpoint.model,
        "messages": request.messages,
        "temperature": endpoint.temperature,
        "top_p": endpoint.top_p,
        "max_tokens": endpoint.max_tokens,
    } | ({"tools": request.tools} if request.tools else {})
    # A read timeout alone would let a server that sends a byte now and then hold the request for ever.
    deadline = time.monotonic() + endpoint.timeout
    try:
        content = json.dumps(body, default=dict).encode()
        with client.stream("POST", endpoint.url.rstrip("/") + "/chat/completions", content=content) as response:
            received = bytearray()
            for chunk in response.iter_bytes():
                received += chunk
                if time.monotonic() > deadline:
                    return Reply("", error=TIMEOUT, detail=f"no whole reply in {endpoint.timeout} s"), None
                if len(received) > MAX_REPLY_BYTES:
                    return Reply("", error=MALFORMED_REPLY, detail="the reply is too long"), None
    except httpx2.TimeoutException as error:
        return Reply("", error=TIMEOUT, detail=_detail(error)), None
    except httpx2.TransportError as error:
        return Reply("", error=CONNECTION, detail=_detail(error)), None
    except httpx2.HTTPError as error:
        return Reply("", error=MALFORMED_REPLY, detail=_detail(error)), None
    text = received.decode("utf-8", "replace")
    if response.status_code != 200:
        return _status_error(response.status_code, text), _retry_after(response.headers.get("retry-after"))
    try:
        return _read_reply(read_json(text)), None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        return Reply("", error=MALFORMED_REPLY, detail=_detail(error)), None


def _status_error(status: int, text: str) -> Reply:
    kind = RATE_LIMITED if status == 429 else SERVER_ERROR if status >= 500 else REFUSED
    return Reply("", error=kind, detail=f"HTTP {status}: {text}")


def _retry_after(header: str | None) -> float | None:
    """Seconds from now, given as such or as a date; None where the server asks for nothing."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _read_reply(record: Json) -> Reply:
    message = record["choices"][0]["message"]
    text = message.get("content") or ""
    if not isinstance(text, str):
        raise ValueError("content is no text")
    usage = record.get("usage") or {}
    tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    tokens = [count if isinstance(count, int) and count > 0 else 0 for count in tokens]
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    try:
        calls = tuple(_read_call(function) for function in functions)
    except ValueError as error:
        return Reply(text, (), MALFORMED_CALL, *tokens, detail=_detail(error))
    return Reply(text, calls, None, *tokens)


def _read_call(function: Mapping[str, Json]) -> Call:
    name, arguments = function["name"], read_json(function["arguments"] or "{}")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ValueError("name must be a string and arguments an object")
    return Call(name, arguments)


def _detail(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _tidy(reply: Reply, key: str | None) -> Reply:
    """The reply with a short detail, and without the key that a server may have repeated in it."""
    detail = reply.detail.replace(key, "***") if key else reply.detail
    return replace(reply, detail=" ".join(detail.split())[:MAX_DETAIL])
