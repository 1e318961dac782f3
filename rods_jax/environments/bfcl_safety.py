"""What keeps one BFCL call short, small, deterministic and to itself; no gold answer changes by any of it.

Beyond the published list this closes `round_number` on negative places (seconds to hours), a `logarithm` of
text with thousands of digits in its exponent (seconds), trees that `cp` has folded into themselves or
doubled, and error texts in the order of a set.
Left out on purpose: a wall-clock limit (worker processes have that), and the one tool that reads the
calendar: `verify_traveler_information` compares an age with today's date.
"""

import contextlib
import decimal
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from rods_jax.types import Json

MAX_PRECISION = 1_000  # decimal digits; gold calls ask for 10 at most
MAX_NUMBER_CHARACTERS = 100  # of a number that is written as text
MAX_INTEGER_DIGITS = 4_300  # CPython refuses to print more, so no longer integer was ever an answer
MAX_RESPONSE_CHARACTERS = 65_536  # the longest gold response has 31,706
MAX_TREE_ENTRIES = 10_000
MAX_TREE_DEPTH = 64
MAX_TREE_CHARACTERS = 1_000_000  # of all paths and contents; gold trees have 36,000 at most

_LOCK = threading.Lock()  # mpmath's precision and one weather table are global to the process
_SET_LISTING = re.compile(
    r"(Invalid travel class\. Must be one of \{|Invalid fields for update: )(.*?)(\}?)", re.DOTALL
)


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Runs a call and prints its result with number contexts of its own, one thread at a time."""
    import mpmath

    with _LOCK, decimal.localcontext(decimal.Context()):
        precision = mpmath.mp.prec
        try:
            yield
        finally:
            mpmath.mp.prec = precision


def refusal(tool: str, instance: Any, arguments: Mapping[str, Json]) -> str | None:
    """Why a call is not run, or None: it would take too long or make too much."""
    match tool:
        case "logarithm" | "square_root":
            with contextlib.suppress(TypeError, ValueError, OverflowError):  # the tool's own to report
                if int(arguments["precision"]) > MAX_PRECISION:
                    return f"precision must be at most {MAX_PRECISION}"
            if any(isinstance(one, str) and len(one) > MAX_NUMBER_CHARACTERS for one in arguments.values()):
                return f"a number must have at most {MAX_NUMBER_CHARACTERS} characters"
        case "power":
            base, exponent = arguments.get("base"), arguments.get("exponent")
            # bits of the result >= (bits of the base - 1) * exponent; 4 bits hold more than a digit
            if isinstance(base, int) and isinstance(exponent, int):
                if (base.bit_length() - 1) * exponent > 4 * MAX_INTEGER_DIGITS:
                    return f"the result has more than {MAX_INTEGER_DIGITS} digits"
        case "round_number":
            places = arguments.get("decimal_places")
            if isinstance(places, int) and places < -MAX_INTEGER_DIGITS:
                return f"decimal_places must be at least -{MAX_INTEGER_DIGITS}"
        case "find" | "du":
            if file_tree(instance.root) is None or file_tree(instance._current_dir) is None:
                return (
                    f"more than {MAX_TREE_ENTRIES} entries, {MAX_TREE_DEPTH} levels of directories "
                    f"or {MAX_TREE_CHARACTERS} characters"
                )
    return None


def file_tree(directory: Any) -> dict[str, Json] | None:
    """A simulated directory in the shape of `World.state`, or None beyond the limits (or endless)."""
    entries = characters = 0

    def contents(directory: Any, depth: int, path: int) -> dict[str, Json]:
        nonlocal entries, characters
        entries += len(directory.contents)
        tree = {}
        for name, item in directory.contents.items():
            end = path + 1 + len(name)
            is_file = not hasattr(item, "contents")
            characters += end + (len(str(item.content)) if is_file else 0)  # `echo` writes any value
            if entries > MAX_TREE_ENTRIES or characters > MAX_TREE_CHARACTERS or depth > MAX_TREE_DEPTH:
                raise OverflowError
            tree[name] = (
                {"type": "file", "content": item.content}
                if is_file
                else {"type": "directory", "contents": contents(item, depth + 1, end)}
            )
        return tree

    try:
        return {directory.name: {"type": "directory", "contents": contents(directory, 1, 0)}}
    except OverflowError:
        return None


def with_sorted_error(result: Any) -> Any:
    """The result with an error text that lists a set put in order: else it varies with PYTHONHASHSEED."""
    if isinstance(result, dict) and isinstance(result.get("error"), str):
        match = _SET_LISTING.fullmatch(result["error"])
        if match:
            return result | {"error": match[1] + ", ".join(sorted(match[2].split(", "))) + match[3]}
    return result
