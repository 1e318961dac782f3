"""The rules of an assistant's message, the same for a run's policy, a served policy and an evaluation.

    THOUGHT  Text before the last </think> outside of a call is ignored.  A thought that is not closed is an error.
    LENGTH   A message has at most 8,000 characters, its thought not counted.
    CALL     A call has a name, and an object of arguments or none.  Other keys are ignored.
             A call holds only values that `strict_json` accepts.
    WORDS    Words beside a tagged call are ignored.  Calls without tags must stand alone.
    BROKEN   Of several tagged calls, the readable ones are made.  The policy is told why the others are not.
    LOOKS    Text that looks like a call, but not like one of the family's, is an error with a reason, never an answer.

The families (qwen, llama, python_list) add how a call is written.  Beside `parse`, each has `official`: what the
leaderboard's own handler reads in the same text, except that nothing is ever evaluated.

The environment checks names and arguments against the tools.
"""

import json
import re
from collections.abc import Callable, Sequence

from rods_jax import strict_json
from rods_jax.types import Action, Call, Json

MAX_ACTION_CHARACTERS = 8_000  # bounds the work that a model's text can cause

# Characters that carry no text: white space, the byte order mark and the zero-width space.
BLANK = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\ufeff\u200b"

THOUGHT, END_OF_THOUGHT = "<think>", "</think>"
_TAGS = re.compile(r"</?tool_call>")
_STARTS_AS_CALLS = re.compile(r"[\s`]*(?:<\|python_tag\|>|[{\[]|[A-Za-z_][\w.]*\()")
# Marks of other families' calls; a model that is unsure of its own format writes them too.
_TAG = re.compile(r"</?\W{0,3}(?:tool_?calls?|function(?:_?calls?)?|invoke|python_tag)\b|\[TOOL_CALLS\]", re.IGNORECASE)
_JSON_CALL = (
    re.compile(r"""[{,]\s*["']name["']\s*:"""),
    re.compile(r"""[{,]\s*["'](?:arguments|parameters)["']\s*:"""),
)
_FENCE = re.compile(r"\A\s*```\w*|```\s*\Z")
_PYTHON_CALL = re.compile(r"[\[\s]*[A-Za-z_][\w.]*\(\s*(?:\)|\w+\s*=[^=])")
# Finds only where a JSON value ends; strict_json converts its numbers.
_EXTENT = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


# ------------------------------------------------------------------------------------- the message
class MessageError(ValueError):
    """The whole message is invalid; the policy is told the text."""


def read_message(read: Callable[[str], Action], text: str) -> Action:
    """`read` of the text behind the thought.  Never raises, and never takes a call for an answer."""
    try:
        action = read(_bounded(_without_thought(text)))
        if action.answer:
            _check_answer(action.answer)
        return action
    except MessageError as error:
        return Action(error=str(error))
    except ValueError as error:
        return unreadable(error)
    except (RecursionError, MemoryError):  # from the parsers of JSON and Python
        return unreadable("it is nested too deeply")


def read_official(read: Callable[[str], Action], text: str) -> Action:
    """`read` of the text behind the last </think>; any exception makes the message unreadable."""
    try:
        return read(_bounded(text.rpartition(END_OF_THOUGHT)[2].lstrip("\n")))
    except Exception as error:  # the leaderboard's handlers stop at any exception
        return unreadable(f"{type(error).__name__}: {error}")


def unreadable(reason: object, calls: Sequence[Call] = ()) -> Action:
    """An Action with the error, and with the calls that could be read."""
    return Action(tuple(calls), error=f"the tool call cannot be read: {reason}")


def answer(text: str) -> Action:
    """A plain answer. MessageError: it is empty."""
    if not text.strip(BLANK):
        raise MessageError("the message is empty")
    return Action(answer=text.strip())


def looks_like_call(text: str) -> str | None:
    """Why a text that is no call of its family looks like a call; None: it does not."""
    if _TAG.search(text):
        return "a tag of calls stands where none is read"
    if all(key.search(text) for key in _JSON_CALL):
        return "an object with a name and arguments stands beside words, in a code fence or without its tags"
    bare = _FENCE.sub("", text).strip("` \t\r\n")
    if _PYTHON_CALL.match(bare) and bare.endswith((")", "]")):
        return "a call is written as Python, or in a code fence"
    return None


def _check_answer(text: str) -> None:
    if THOUGHT in text:
        raise MessageError("a thought is not closed")
    if reason := looks_like_call(text):
        raise ValueError(reason)


def _bounded(text: str) -> str:
    if len(text) > MAX_ACTION_CHARACTERS:
        raise MessageError(f"the message is longer than {MAX_ACTION_CHARACTERS} characters")
    return text


def _without_thought(text: str) -> str:
    """The text behind the last </think> that is not part of a call's arguments."""
    calls_alone = _STARTS_AS_CALLS.match(text) is not None
    end = -1 if calls_alone else text.rfind(END_OF_THOUGHT)
    while end >= 0:
        behind = end + len(END_OF_THOUGHT)
        too_long = len(text) - behind > MAX_ACTION_CHARACTERS  # the message is refused in any case
        if too_long or not _in_tagged_call(text, end):
            return text[behind:]
        end = text.rfind(END_OF_THOUGHT, 0, end)
    if text[: 2 * len(THOUGHT)].lstrip().startswith(THOUGHT):
        raise MessageError("a thought is not closed")
    return text


def _in_tagged_call(text: str, position: int) -> bool:
    before = _TAGS.findall(text[max(0, position - MAX_ACTION_CHARACTERS) : position])
    after = _TAGS.search(text, position)
    return bool(before) and before[-1] == "<tool_call>" and after is not None and after[0] == "</tool_call>"


# ------------------------------------------------------------------------------------------- calls
def read_json(text: str, position: int) -> tuple[Json, int]:
    """(value, end) of the strict JSON that begins at a position. ValueError: there is none."""
    _, end = _EXTENT.raw_decode(text, position)
    return strict_json.loads(text[position:end]), end


def skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    """The end of the pattern's match at a position; the position itself if it does not match."""
    found = pattern.match(text, position)
    return found.end() if found else position


def to_call(record: Json, arguments_key: str) -> Call:
    """The Call of an object of strict JSON. ValueError: it has another shape."""
    if not isinstance(record, dict) or not isinstance(record.get("name"), str):
        raise ValueError(f"expected an object with name and {arguments_key}; name must be a string")
    (other,) = {"arguments", "parameters"} - {arguments_key}
    if other in record and arguments_key not in record:
        raise ValueError(f"expected an object with name and {arguments_key}, not {other}")
    arguments = record.get(arguments_key, {})
    if not isinstance(arguments, dict):
        raise ValueError(f"{arguments_key} must be an object")
    if strict_json.is_deeper(arguments, strict_json.MAX_NESTING):
        raise ValueError(f"values are nested more than {strict_json.MAX_NESTING} levels deep")
    return Call(record["name"], arguments)


def served_call(name: Json, arguments: Json) -> Call:
    """A call as a server sends it, under the rule CALL: its arguments are JSON text, an object, or none.

    ValueError: the model wrote a call that cannot be read.
    """
    if arguments is None:
        arguments = {}
    elif isinstance(arguments, str):
        arguments = strict_json.loads(arguments) if arguments.strip() else {}
    return to_call(checked({"name": name, "arguments": arguments}), "arguments")


def sendable(name: str) -> str:
    """A call's name as it goes back to a server: servers refuse names that no tool could have."""
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:64] or "_"


def checked(value: Json) -> Json:
    """A value after a round trip through strict JSON text. ValueError: no such text holds it."""
    try:
        return strict_json.loads(json.dumps(value))
    except strict_json.JsonError as error:  # its place is one in our own text
        raise ValueError(str(error).partition(": ")[2]) from error


def write_call(call: Call, arguments_key: str) -> str:
    """The call in one line. "<" is escaped, so that no string in it can open or close a tag."""
    record = json.dumps({"name": call.name, arguments_key: call.arguments}, ensure_ascii=False)
    return record.replace("<", r"\u003c")
