"""BFCL's prompting format, for any model with a chat template: a list of Python calls.

    [function(a=1, b='x'), other()]

An assistant message is either such a list and nothing else, or a plain answer (`grammar` has the rules).  An empty list
is an answer, because it ends the turn officially.  Backticks around the list and a missing bracket are accepted, as they
are officially.  Only syntax is read: calls by name, with literals as arguments.  The official decoder evaluates sums and
lambdas, turns bare names into strings, and makes the calls that stand in arguments; here those are errors.

Left out on purpose: other output formats of that prompt, and `*` and `**` in calls.
"""

import ast
import keyword
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rods_jax.codecs import grammar
from rods_jax.codecs.documents import tool_schema
from rods_jax.codecs.template import DATE, template_codec
from rods_jax.strict_json import MAX_INTEGER_DIGITS
from rods_jax.threads import parse_python
from rods_jax.types import Action, Call, Codec, Json, ToolSpec

_CALLS = re.compile(r"\[|[A-Za-z_][\w.]*\(")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_INTEGER_LIMIT = 10**MAX_INTEGER_DIGITS


def python_list_codec(
    tokenizer: Any,
    document: Callable[[ToolSpec], str] = tool_schema,
    tools: Sequence[ToolSpec] | None = None,
    *,
    template: Mapping[str, Json] | None = None,
    date: str = DATE,
) -> Codec:
    """The codec of a tokenizer whose template prints system, user, assistant and tool messages.

    document, template, date: see `template_codec`.
    tools: give positional arguments their parameter names, in documented order.  None: positional arguments are
    dropped, as the official decoder does.
    """
    parameters = None if tools is None else {tool.name: tuple(tool.parameters["properties"]) for tool in tools}
    return template_codec(
        tokenizer,
        document=document,
        write=write,
        parse=partial(parse, parameters=parameters),
        official=official,
        system=system_prompt,
        template=template,
        date=date,
    )


def system_prompt(documents: str) -> str:
    """What the model is told: the format, when to stop, when to ask, and its functions."""
    return (
        "You serve the user by calling functions. A message that calls functions is one Python list of calls and"
        " nothing else:\n[first_function(parameter=1, other='text'), second_function()]\nName every parameter and"
        " write its value out. You then see what the calls returned, and can call again until the request is"
        " fulfilled; then answer in plain words. If the request lacks a value that a function requires, or no"
        f" function can do it, call nothing and say what is missing.\n\nFunctions:\n{documents}"
    )


def write(calls: Sequence[Call]) -> str:
    """The calls as a Python list. ValueError: Python cannot write the name of a function or a parameter."""
    # The escape of "<" means "<" in a Python string, and outside of strings a call has no "<".
    return f"[{', '.join(map(_write_call, calls))}]".replace("<", r"\u003c")


def parse(text: str, parameters: Mapping[str, Sequence[str]] | None = None) -> Action:
    """Calls, an answer, or why the text is neither; never an exception.

    parameters: parameter names of each tool, for positional arguments; None drops those.
    """
    return grammar.read_message(partial(_read, parameters=parameters), text)


def official(text: str) -> Action:
    """What the leaderboard's decoder of prompting formats reads (bfcl_eval's utils.py), if arguments are literals."""
    return grammar.read_official(partial(_read, parameters=None), text)


def _write_call(call: Call) -> str:
    for name in (*call.name.split("."), *call.arguments):
        if not _NAME.fullmatch(name) or keyword.iskeyword(name):
            raise ValueError(f"Python cannot write a call with the name {name!r}")
    return f"{call.name}({', '.join(f'{name}={value!r}' for name, value in call.arguments.items())})"


def _read(text: str, parameters: Mapping[str, Sequence[str]] | None) -> Action:
    source = text.strip("`" + grammar.BLANK)
    if not _CALLS.match(source):
        return grammar.answer(text if source else "")
    source = source if source.startswith("[") else f"[{source}"
    source = source if source.endswith("]") else f"{source}]"
    try:
        with warnings.catch_warnings(action="ignore"):  # Python warns of strings such as '\d'
            tree = parse_python(source, "eval")
    except SyntaxError as error:
        raise ValueError(error.msg) from error
    if not isinstance(tree.body, ast.List):
        raise ValueError("expected one list of calls")
    calls = tuple(_call(node, parameters) for node in tree.body.elts)
    return Action(calls=calls) if calls else Action(answer=source)


def _call(node: ast.expr, parameters: Mapping[str, Sequence[str]] | None) -> Call:
    if not isinstance(node, ast.Call):
        raise ValueError("the list holds something that is not a call")
    name = _function_name(node.func)
    named = [(_keyword(item), _value(item.value)) for item in node.keywords]
    arguments = [*_positional(name, node.args, parameters), *named]
    if len(dict(arguments)) < len(arguments):
        raise ValueError(f"{name} is given an argument twice")
    return grammar.to_call(grammar.checked({"name": name, "arguments": dict(arguments)}), "arguments")


def _positional(
    name: str, nodes: Sequence[ast.expr], parameters: Mapping[str, Sequence[str]] | None
) -> list[tuple[str, Json]]:
    values = [_value(node) for node in nodes]
    if parameters is None or not values:
        return []
    if len(values) > len(parameters.get(name, ())):
        raise ValueError(f"{name} takes no {len(values)} positional arguments")
    return list(zip(parameters[name], values))


def _function_name(node: ast.expr) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise ValueError("a function must be called by its name")
    return ".".join([node.id, *reversed(parts)])


def _keyword(node: ast.keyword) -> str:
    if node.arg is None:
        raise ValueError("** is not allowed")
    return node.arg


def _value(node: ast.expr) -> Json:
    match node:
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)) if not isinstance(number, bool):
            return -_bounded(number)
        case ast.Constant(None | str() | int() | float() as value):
            return _bounded(value)
        case ast.List(elements) | ast.Tuple(elements):
            return [_value(element) for element in elements]
        case ast.Dict(keys, values):
            names = [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
            if len(names) == len(keys):
                read = dict(zip(names, map(_value, values)))
                if len(read) < len(names):
                    raise ValueError("a key stands twice")
                return read
    raise ValueError("an argument is not a literal")


def _bounded(value: Json) -> Json:
    if isinstance(value, int) and value >= _INTEGER_LIMIT:
        raise ValueError(f"an integer has more than {MAX_INTEGER_DIGITS} digits")
    return value
