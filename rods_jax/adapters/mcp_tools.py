"""The tools of an MCP server (Model Context Protocol) as a world of tools: user turns, gold calls and rules as ever.

Each episode has a session of its own: over stdio a process of its own as well.  A tool that reports an error is a
failed call, which the policy reads.  A server that dies, hangs beyond the deadline or answers garbage is a `Failure`.
The sessions live in one thread's event loop, whichever threads ask.
"""

import asyncio
import atexit
import functools
import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from rods_jax import strict_json
from rods_jax.adapters import require
from rods_jax.adapters.episodes import own_state
from rods_jax.environments.protocol import Domain
from rods_jax.environments.schemas import foreign
from rods_jax.environments.toolkit import MAX_RESPONSE_CHARACTERS
from rods_jax.files import require_object
from rods_jax.types import Call, Json, Observation, ToolSpec, World

GRACE = 10.0  # seconds beyond a deadline, in which the client itself gives up and ends the server's process
SILENT = -32000, -32001  # the SDK's own codes: the connection is closed, no answer in time


class SessionError(RuntimeError):
    """The server broke, not the policy."""


def domain(
    name: str,
    server: Any,
    *,
    begin: str = "",
    state: str = "",
    deadline: float = 30.0,
) -> Domain:
    """A Domain of the tools that the server lists now; its one class has the domain's name.

    server: the URL of a streamable HTTP endpoint, or a command with its arguments, or a coroutine function that makes a
    server of the SDK, which then runs in this process.  begin: a tool that sets up a session, called with what a task's
    `world.state` holds under the class.  state: a tool that takes no arguments and returns an object, which is compared
    with the gold's.  Neither is shown to the policy.  deadline: seconds for opening a session, for
    the list of tools, and for each call.
    SessionError: the server cannot be asked, or lacks one of these two.
    """
    session = Session(server, deadline)
    try:
        listed = {tool.name: spec_of(tool, name) for tool in session.tools()}
    finally:
        session.close()
    hidden = {tool for tool in (begin, state) if tool}
    if missing := sorted(hidden - set(listed)):
        raise SessionError(f"the MCP server of {name} has no tool {missing[0]}")
    tools = {tool: spec for tool, spec in listed.items() if tool not in hidden}
    return Domain(name, tools, functools.partial(_Simulator, name, server, frozenset(tools), begin, state, deadline))


def spec_of(tool: Any, class_name: str, prefix: str = "") -> ToolSpec:
    """What a server's listing says of a tool, as the policy sees it."""
    parameters = {"type": "object", "properties": {}, "required": []} | foreign(tool.input_schema)
    return ToolSpec(
        prefix + tool.name, tool.description or "", parameters, class_name, foreign(tool.output_schema or {})
    )


class _Simulator:
    """One episode's session as a world of tools."""

    def __init__(
        self, name: str, server: Any, offered: frozenset[str], begin: str, state: str, deadline: float, world: World
    ):
        self._name, self._offered, self._state = name, offered, state
        self._session = Session(server, deadline)
        if begin:
            self._succeed(begin, own_state(world, name))

    def call(self, call: Call) -> Observation:
        """The tool's answer. SessionError: there was none."""
        if call.name not in self._offered:
            return Observation(f"Error: unknown tool {call.name}", ok=False)
        return self._session.call(call.name, call.arguments)

    def state(self) -> Mapping[str, Mapping[str, Json]]:
        if not self._state:
            return {}
        text, where = self._succeed(self._state, {}), f"the answer of the tool {self._state}"
        return {self._name: require_object(strict_json.loads(text, where), where)}

    def _succeed(self, tool: str, arguments: Mapping[str, Json]) -> str:
        answer = self._session.call(tool, arguments, limit=None)
        if not answer.ok:
            raise SessionError(f"the tool {tool} failed: {answer.text}")
        return answer.text


# -------------------------------------------------------------------------------------- sessions
class Session:
    """A session with a server, usable from any thread; it ends when it is closed or forgotten."""

    def __init__(self, server: Any, deadline: float):
        """SessionError: none could be opened before the deadline.  ImportError: as for `require`."""
        self._refused = require("mcp.client.client", "mcp").MCPError  # a module of the SDK's second version
        self._loop, self._deadline, self._lost = _loop(os.getpid()), deadline, ""
        opened, closing = Future[Any](), asyncio.Event()
        holder = asyncio.run_coroutine_threadsafe(_hold(server, deadline, opened, closing), self._loop)
        self.close = weakref.finalize(self, self._loop.call_soon_threadsafe, closing.set)
        try:
            self._client = opened.result(deadline)
        except TimeoutError:
            holder.cancel()
            raise SessionError(f"the MCP server opened no session within {deadline:g} s") from None
        except Exception as error:
            raise SessionError(f"the MCP server cannot be asked: {_told(error)}") from error

    def tools(self) -> list[Any]:
        """All tools of all pages. SessionError: they do not end before the deadline."""
        began, found, page = time.monotonic(), [], self._wait("the list of tools", self._client.list_tools)
        found += page.tools
        while page.next_cursor:
            if time.monotonic() - began > self._deadline:
                raise self._break(
                    f"the MCP server listed tools for more than {self._deadline:g} s, {len(found)} so far"
                )
            page = self._wait("the list of tools", self._client.list_tools, cursor=page.next_cursor)
            found += page.tools
        return found

    def call(
        self, tool: str, arguments: Mapping[str, Json], limit: int | None = MAX_RESPONSE_CHARACTERS
    ) -> Observation:
        """A tool's answer as text, of at most so many characters. SessionError: there was none, and none will come."""
        try:
            result = self._wait(tool, self._client.call_tool, tool, dict(arguments))
        except self._refused as error:
            if error.code in SILENT:
                raise self._break(f"the MCP server left {tool} unanswered: {error}") from error
            return Observation(f"Error: {error}"[:limit], ok=False)
        return Observation(_text(result)[:limit], ok=not result.is_error)

    def _wait(self, what: str, ask: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if self._lost:
            raise SessionError(self._lost)

        async def asked() -> Any:
            return await asyncio.wait_for(ask(*arguments, **options), self._deadline)

        answer = asyncio.run_coroutine_threadsafe(asked(), self._loop)
        try:
            return answer.result(self._deadline + GRACE)
        except self._refused:
            raise
        except TimeoutError:
            answer.cancel()
            raise self._break(f"the MCP server left {what} unanswered for {self._deadline:g} s") from None
        except Exception as error:
            raise self._break(f"the MCP server answered {what} with what cannot be read: {_told(error)}") from error

    def _break(self, reason: str) -> SessionError:
        self._lost = reason
        self.close()
        return SessionError(reason)


async def _hold(server: Any, deadline: float, opened: Future, closing: asyncio.Event) -> None:
    """Keeps one client open until `closing`; what opened it has to end it, in the same task."""
    try:
        # The protocol from 2026-07-28 on has no sessions: the handshake before it gives each episode its own.
        client = require("mcp", "mcp").Client(
            await _transport(server), mode="legacy", read_timeout_seconds=deadline, cache=None
        )
        async with client:
            opened.set_result(client)
            await closing.wait()
    except Exception as error:  # afterwards, whoever asks is told by the client
        if not opened.done():
            opened.set_exception(error)


async def _transport(server: Any) -> Any:
    if isinstance(server, str):
        return server
    if isinstance(server, Sequence):
        command, *arguments = server
        mcp = require("mcp", "mcp")
        return mcp.stdio_client(mcp.StdioServerParameters(command=command, args=arguments))
    return await server()


@functools.cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """The event loop of this process, in a thread of its own; at the end of the process it ends all sessions."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="mcp", daemon=True).start()

    async def end_all() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=GRACE) if others else None

    def end() -> None:
        if process == os.getpid():
            asyncio.run_coroutine_threadsafe(end_all(), loop).result(2 * GRACE)

    atexit.register(end)
    return loop


def _text(result: Any) -> str:
    """The text of a result; of a result without one its structure, or what kinds of content it has."""
    texts = [part.text if part.type == "text" else f"({part.type})" for part in result.content]
    if not texts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(texts).encode("utf-8", "replace").decode()


def _told(error: BaseException) -> str:
    """The one exception of a group, in a line."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
