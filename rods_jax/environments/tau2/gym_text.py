"""An action as tau2-bench's gym environment reads it from text: a JSON object, one call as Python writes it, or plain words.

    gymnasium_env.environment(domain, tasks, parse=gym_text.parse)

Kept as they are there: a positional argument is dropped, a bare name is a text, and of several calls the first one counts.  Text
is parsed and walked over, never run.  Left out on purpose: an object's `id` and `requestor`, since a player calls its own side's
tools, and the call `done()`, which ends an episode there and is a call like any other here.
"""

import ast
import re
import warnings

from rods_jax import strict_json
from rods_jax.codecs.grammar import MAX_ACTION_CHARACTERS, checked
from rods_jax.threads import parse_python
from rods_jax.types import Action, Call, Json

_CALL = re.compile(r"[A-Za-z_]\w*\s*\(.*\)", re.DOTALL)


def parse(text: str) -> Action:
    """Never raises; an empty text, or one longer than a codec's messages, is an error."""
    text = text.strip()
    if not text:
        return Action(error="the message is empty")
    if len(text) > MAX_ACTION_CHARACTERS:
        return Action(error=f"the message is longer than {MAX_ACTION_CHARACTERS} characters")
    try:
        call = _written_out(text) or _as_python(text)
    except (ValueError, RecursionError, MemoryError):  # from the parsers: what cannot be read is words
        call = None
    return Action(answer=text) if call is None else Action((call,))


def _written_out(text: str) -> Call | None:
    try:
        value = strict_json.loads(text)
    except strict_json.JsonError:
        return None
    match value:
        case {"name": str(name), "arguments": dict(arguments)}:
            return Call(name, arguments)
    return None


def _as_python(text: str) -> Call | None:
    """ValueError: an argument is no literal."""
    if not _CALL.fullmatch(text):
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # Python warns of strings such as '\d'
            first = parse_python(text).body[0]
    except SyntaxError:
        return None
    match first:
        case ast.Expr(ast.Call(ast.Name(name), _, keywords)):
            arguments = {"null" if one.arg is None else one.arg: _value(one.value) for one in keywords}
            return Call(name, checked(arguments))
    return None


def _value(node: ast.expr) -> Json:
    match node:
        case ast.Constant(None | bool() | int() | float() | str() as value):
            return value
        case ast.Constant(value):
            return str(value)
        case ast.Name(name):
            return name
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as value)):
            return -value
        case ast.List(elements) | ast.Tuple(elements):
            return [_value(element) for element in elements]
        case ast.Dict(keys, values):
            return {str(_value(key)): _value(value) for key, value in zip(keys, values) if key is not None}
    raise ValueError("an argument is not a literal")
