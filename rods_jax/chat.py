"""Asks any OpenAI-compatible server (vLLM, SGLang, a TPU server, a hosted one) for chat replies.

The openai client is not used, to control the retries, their seeded jitter, the deadline (rods_jax/wire.py), the error
classes and the text of errors.  docs/reference/blame.md has the table of who is to blame for which error.
Left out on purpose: streaming to the caller, and any endpoint but /chat/completions.
"""

import itertools
import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime

import httpx2

from rods_jax import strict_json, wire
from rods_jax.codecs.grammar import served_call
from rods_jax.threads import in_threads
from rods_jax.types import Call, Json

# What Reply.error can say. The server, or the way to it, is at fault:
TIMEOUT = "timeout"
CONNECTION = "connection"
RATE_LIMITED = "rate_limited"  # HTTP 429
SERVER_ERROR = "server_error"  # HTTP 5xx, 408, 409, 425
MALFORMED_REPLY = "malformed_reply"  # no chat completion: truncated JSON, or other JSON
FILTERED = "filtered"  # the server withheld the message, or the rest of it
# The settings are at fault: key, address, model, or fields of the request.
MISCONFIGURED = "misconfigured"  # HTTP 401, 403, 404 and all that is not named here
REFUSED = "refused"  # another HTTP 400, 422: this request would be refused again
BUDGET_EXHAUSTED = "budget_exhausted"  # nothing was sent
# The conversation is at fault: it has more tokens than the server takes.
TOO_LONG = "too_long"  # HTTP 413, and 400, 422 whose text says so
# The model is at fault.
MALFORMED_CALL = "malformed_call"  # it wrote what cannot be read
CUT = "cut"  # it did not come to an end within max_tokens

RETRIED = (TIMEOUT, CONNECTION, RATE_LIMITED, SERVER_ERROR, MALFORMED_REPLY)
BY_THE_MODEL = (MALFORMED_CALL, CUT)

MAX_WAIT = 60.0  # seconds before a retry; asking for a longer wait counts as a refusal
MAX_TIMEOUT = 86_400.0  # seconds; the operating system's own limit is not much higher
MAX_DETAIL = 200  # characters
MAX_SEARCHED = 4_000  # characters of an error's text
MAX_TOKENS = 10**9  # a larger count from a server is ignored

REASONING_FIELDS = ("reasoning_content", "reasoning")  # of a message; vLLM changed from the one to the other

# How servers say why a message ended, where it did not end by itself.
CUT_SHORT = ("length", "max_tokens", "model_length")
WITHHELD = ("content_filter", "safety")
BROKEN_OFF = ("error", "abort")

# How servers say that a conversation is too long (vLLM, SGLang, llama.cpp, TGI and hosted ones).
_LENGTH = re.compile(
    r"context.{0,30}(length|size|window)|too (long|large|many tokens)|(reduce|exceed).{0,60}(length|size|token)|"
    r"(tokens?|length|input).{0,80}(exceed|maximum|limit|longer|larger|greater|<=|must be at most)|longer than",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where and how to ask. Prices are per million tokens, in the currency of `max_cost`."""

    url: str  # up to and with /v1
    model: str
    api_key_env: str | None = None  # name of the environment variable that holds the key, never the key
    temperature: float = 1.0
    top_p: float = 0.7
    max_tokens: int = 4096  # of one reply
    timeout: float = 120.0  # seconds that one try may take, from connecting to the last byte received
    concurrency: int = 8  # requests in flight
    max_retries: int = 4
    first_wait: float = 0.5  # seconds before the first retry; doubles with each
    requests_per_minute: float | None = None
    max_total_tokens: int | None = None  # prompts and completions; requests in flight may go beyond
    prompt_price: float = 0.0
    completion_price: float = 0.0
    max_cost: float | None = None
    # More fields of a request, as they are sent, such as chat_template_kwargs; None takes a field out.
    extra: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            url = httpx2.URL(self.url)
        except httpx2.InvalidURL as error:
            raise ValueError(f"url: {error}") from None
        if url.scheme not in ("http", "https") or not wire.is_address(url):
            raise ValueError(f"url must start with http:// or https:// and name a host, not {str(url)!r}")
        if url.userinfo or url.query or url.fragment:
            raise ValueError("url must hold no user, query or fragment: a key belongs in api_key_env's variable")
        if url.path.rstrip("/").endswith("/chat/completions"):
            raise ValueError("url must end before /chat/completions, as in http://localhost:8000/v1")
        for name in ("timeout", "concurrency", "max_tokens", "first_wait"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("timeout", "first_wait"):
            if not getattr(self, name) <= MAX_TIMEOUT:
                raise ValueError(f"{name} must be at most {MAX_TIMEOUT:g} seconds, not {getattr(self, name)}")
        if self.requests_per_minute is not None and not self.requests_per_minute >= 60 / MAX_TIMEOUT:
            raise ValueError(f"requests_per_minute must be at least {60 / MAX_TIMEOUT:g}, or None for no limit")
        if math.isinf(self.temperature):
            raise ValueError("temperature must be a number, not inf")
        for name in ("temperature", "max_retries", "prompt_price", "completion_price"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be below 0, but is {getattr(self, name)}")
        for name in ("max_total_tokens", "max_cost"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 or None, not {getattr(self, name)}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.max_cost is not None and not self.prompt_price + self.completion_price > 0:
            raise ValueError("max_cost needs prompt_price or completion_price")
        _check_extra(self.extra)


@dataclass(frozen=True)
class Request:
    """OpenAI messages ({"role", "content"}) and tools ({"type": "function", "function": ...}), as they are sent."""

    messages: tuple[Mapping[str, Json], ...]
    tools: tuple[Mapping[str, Json], ...] = ()


@dataclass(frozen=True)
class Reply:
    """What a model said; or `error`, one of the constants above, with a detail for people."""

    text: str  # holds no half of a surrogate pair
    calls: tuple[Call, ...] = ()  # beside MALFORMED_CALL: those that can be read
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    detail: str = ""
    reasoning: str = ""  # what a thinking model wrote before its message
    reasoning_field: str = ""  # the field of the message that held it, in which it can be sent back


Generate = Callable[[Sequence[Request]], list[Reply]]


def http_generate(endpoint: Endpoint, *, seed: int = 0) -> Generate:
    """A function that answers requests in order and never raises; safe to call from several threads.

    The endpoint's concurrency, rate and budget hold over all its calls; `seed` drives the jitter of retries.
    Requests to this host go directly, all others through the proxy that the environment names.
    ValueError: the environment variable of the key is not set, or holds no key.
    """
    key = _api_key(endpoint)
    headers = {"content-type": "application/json", "user-agent": "rods_jax"}
    headers |= {"authorization": f"Bearer {key}"} if key else {}
    meter = _Meter(endpoint)
    free = threading.BoundedSemaphore(endpoint.concurrency)
    numbers = itertools.count()

    def answer(numbered: tuple[int, Request]) -> Reply:
        number, request = numbered
        rng = random.Random(f"{seed}:{number}")
        retry = 0
        while True:
            with free:
                if meter.exhausted():
                    return Reply("", error=BUDGET_EXHAUSTED, detail=f"{meter.tokens} tokens spent")
                time.sleep(meter.wait_for_turn())
                reply, told_to_wait = _try(endpoint, headers, request)
            meter.add(reply)
            wait = endpoint.first_wait * 2.0 ** min(retry, 30) * rng.uniform(0.5, 1.0)
            wait = min(wait, MAX_WAIT) if told_to_wait is None else told_to_wait
            if reply.error not in RETRIED or retry == endpoint.max_retries or wait > MAX_WAIT:
                return _tidy(reply, key)
            time.sleep(wait)
            retry += 1

    def generate(requests: Sequence[Request]) -> list[Reply]:
        numbered = [(next(numbers), request) for request in requests]
        if len(numbered) == 1:
            return [answer(numbered[0])]
        replies = dict(in_threads(answer, numbered, endpoint.concurrency))
        return [replies[place] for place in range(len(numbered))]

    return generate


def _check_extra(extra: Mapping[str, Json]) -> None:
    """ValueError: it holds what this client writes itself, or what JSON cannot hold."""
    for name in ("messages", "tools", "stream"):
        if name in extra:
            raise ValueError(f"extra must not hold {name!r}, which every request sets itself")
    try:
        json.dumps(dict(extra), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"extra must hold JSON values: {error}") from None


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
            if reply.error in (None, FILTERED, *BY_THE_MODEL) and not reply.prompt_tokens + completion:
                completion = self._endpoint.max_tokens  # the server sent no count: assume the most
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


def _try(endpoint: Endpoint, headers: Mapping[str, str], request: Request) -> tuple[Reply, float | None]:
    """One exchange: the reply, and the seconds that the server asks to wait."""
    body = {
        "model": endpoint.model,
        "messages": request.messages,
        "temperature": endpoint.temperature,
        "top_p": endpoint.top_p,
        "max_tokens": endpoint.max_tokens,
    } | ({"tools": request.tools} if request.tools else {})
    body = {name: value for name, value in {**body, **endpoint.extra}.items() if value is not None}
    url = endpoint.url.rstrip("/") + "/chat/completions"
    try:
        answer = wire.post(url, json.dumps(body, default=dict).encode(), headers, timeout=endpoint.timeout)
        text = answer.body.decode("utf-8-sig", "replace")
        if not 200 <= answer.status < 300:
            text = text or answer.headers.get("location", "")  # of a redirect, which is not followed
            return _status_error(answer.status, text), _retry_after(answer.headers.get("retry-after"))
        return _read_reply(text, endpoint.max_tokens), None
    except TimeoutError as error:
        return Reply("", error=TIMEOUT, detail=str(error)), None
    except ConnectionError as error:
        return Reply("", error=CONNECTION, detail=str(error)), None
    except wire.UnusableProxy as error:
        return Reply("", error=MISCONFIGURED, detail=str(error)), None
    except Exception as error:  # any library that reads the server's bytes: one bad reply must not stop the others
        return Reply("", error=MALFORMED_REPLY, detail=f"{type(error).__name__}: {error}"), None


# -------------------------------------------------------------------------- what a server sent
def _status_error(status: int, text: str) -> Reply:
    if status == 429:
        kind = RATE_LIMITED
    elif status >= 500 or status in (408, 409, 425):
        kind = SERVER_ERROR
    elif status in (400, 413, 422):
        # Search the beginning only: an error's text may have any length, and the pattern's work grows with it.
        kind = TOO_LONG if status == 413 or _LENGTH.search(text[:MAX_SEARCHED]) else REFUSED
    else:
        kind = MISCONFIGURED
    return Reply("", error=kind, detail=f"HTTP {status}: {text}")


def _retry_after(header: str | None) -> float | None:
    """Seconds from now, from a number or a date; None if the header is missing or unreadable."""
    header = (header or "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", header):
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def _read_reply(text: str, max_tokens: int) -> Reply:
    """The reply in a response's text.  Any exception: it is no chat completion.  A model's mistake is `Reply.error`."""
    try:
        # Lenient, because servers add fields of their own; the model's calls are read strictly below.
        record = json.loads(text, parse_int=_integer)
    except RecursionError:
        if '"choices"' not in text:
            raise ValueError("nested too deeply") from None
        return Reply("", error=MALFORMED_CALL, detail="values are nested too deeply")
    problem = record.get("error")
    if problem and not record.get("choices"):  # some gateways report so, beside HTTP 200
        if isinstance(problem, dict) and type(problem.get("code")) is int:
            return _status_error(problem["code"], str(problem.get("message")))
        raise ValueError(f"the server reports {problem}")
    choice = record["choices"][0]
    message, finish = choice["message"], choice.get("finish_reason")
    said, thought = _texts(message.get("content"))
    said = said or _text(message.get("refusal"))
    name = next((name for name in REASONING_FIELDS if _text(message.get(name))), "")
    thought = message[name] if name else thought
    calls, detail = _read_calls(message)  # the readable calls are kept; detail names the errors of the others
    usage = record.get("usage")
    prompt_tokens, completion_tokens = (_count(usage, key) for key in ("prompt_tokens", "completion_tokens"))
    if said != (written := _whole(said)):
        detail = "half a surrogate pair is no character"
    error = MALFORMED_CALL if detail else None
    if finish in CUT_SHORT:
        error, detail, calls = CUT, f"the message is longer than {max_tokens} tokens", ()
    elif finish in WITHHELD:
        error, detail, calls = FILTERED, "the server's content filter withheld the message", ()
    elif finish in BROKEN_OFF:
        error, detail, calls = SERVER_ERROR, f"the server broke the message off: {finish}", ()
    return Reply(written, calls, error, prompt_tokens, completion_tokens, detail, _whole(thought), name)


def _texts(content: Json) -> tuple[str, str]:
    """(text, reasoning) of a message's content, which may come in parts.  ValueError: a part is of another kind."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list):
        raise ValueError("content is neither text nor a list of parts")
    said, thought = [], []
    for part in content:
        match part:
            case str(text) | {"type": "text" | "output_text", "text": str(text)} | {"refusal": str(text)}:
                said.append(text)
            case {"type": "thinking" | "reasoning", **rest}:
                thought += [text for inner in rest.values() for text in _texts_within(inner)]
            case _:
                raise ValueError("content holds a part that is no text")
    return "".join(said), "".join(thought)


def _texts_within(value: Json) -> list[str]:
    """A thought's text, or those of its parts."""
    if isinstance(value, str):
        return [value]
    parts = value if isinstance(value, list) else ()
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


def _read_calls(message: Mapping[str, Json]) -> tuple[tuple[Call, ...], str]:
    """(calls that can be read, what the model did wrong with the others)."""
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    if not functions and message.get("function_call"):  # how the field was called at first
        functions = [message["function_call"]]
    calls, wrong = [], []
    for function in functions:
        name, arguments = function["name"], function.get("arguments")
        try:
            calls.append(served_call(name, arguments))
        except RecursionError:
            wrong.append("values are nested too deeply")
        except ValueError as error:
            wrong.append(str(error))
    return tuple(calls), "; ".join(wrong)


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _whole(text: str) -> str:
    """The text, with a mark in place of each half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


def _integer(digits: str) -> float:
    """An integer of at most MAX_INTEGER_DIGITS digits; a longer one is infinity, which every reader here refuses."""
    return int(digits) if len(digits.removeprefix("-")) <= strict_json.MAX_INTEGER_DIGITS else math.inf


def _count(usage: Json, name: str) -> int:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int and 0 < count <= MAX_TOKENS else 0


def _tidy(reply: Reply, key: str | None) -> Reply:
    """The reply with a short detail, and without the key that a server may have repeated in it."""
    hide = lambda value: strict_json.replaced(value, key, "***") if key else value
    calls = tuple(Call(hide(call.name), hide(call.arguments)) for call in reply.calls)
    detail = " ".join(_whole(hide(reply.detail)).split())[:MAX_DETAIL]
    return replace(reply, text=hide(reply.text), calls=calls, detail=detail, reasoning=hide(reply.reasoning))
