"""A real MCP server by the official SDK: `python mcp_server.py`, over stdio; with a port, over streamable HTTP."""

import asyncio
import os
import sys

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("counter", log_level="CRITICAL")
counts: dict[str, dict[str, int]] = {}  # by session; over stdio a process has one


def own(context: Context) -> dict[str, int]:
    request = context.request_context.request
    return counts.setdefault(request.headers.get("mcp-session-id", "") if request else "", {"count": 0})


@server.tool()
def reset(context: Context, count: int = 0) -> str:
    """Sets the count."""
    own(context)["count"] = count
    return "ok"


@server.tool()
def read_state(context: Context) -> dict[str, int]:
    """Returns the state."""
    return own(context)


@server.tool()
def add(context: Context, number: int) -> str:
    """Adds a number to the count.

    Args:
        number: What is added.
    """
    if number < 0:
        raise ToolError("only what is positive can be added")
    own(context)["count"] += number
    return f"the count is {own(context)['count']}"


@server.tool()
def process() -> str:
    """Tells the process."""
    return str(os.getpid())


@server.tool()
def letters(number: int) -> str:
    """Returns so many letters."""
    return "x" * number


@server.tool()
async def hang() -> str:
    """Never returns."""
    await asyncio.sleep(1_000)
    return "late"


@server.tool()
def die() -> str:
    """Ends the process."""
    os._exit(1)


@server.tool()
def garbage() -> str:
    """Writes what is no message, and never answers it."""
    os.write(1, b'{"jsonrpc": "2.0", "id": }\n\xff\xfe nothing\n' + b"[" * 5_000 + b"\n")
    import time

    time.sleep(1_000)
    return "late"


if __name__ == "__main__":
    if len(sys.argv) == 1:
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
