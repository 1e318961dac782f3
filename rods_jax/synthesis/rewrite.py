"""Stage III: words the whole dialogue at once, from the calls that ran (RODS section 5).

A domain's own phrases are used where it has them; otherwise a generic wording from the tool's description.
A language model's rewrite is another function of the same signature.
"""

import json
import random
import re
import string
from collections.abc import Sequence

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.execute import ORDINALS, Argument, ExecutedCall, Execution, Reference
from rods_jax.synthesis.values import words
from rods_jax.types import Json, ToolSpec

OPENERS = ("please {}", "i need you to {}", "could you {}", "{}")
CONNECTIVES = ("; then ", ", then ", ", and after that ")


def rewrite(domain: Domain, execution: Execution, rng: random.Random) -> tuple[str, ...]:
    """One user query per turn that holds calls; each names every literal, and no tool by its identifier."""
    return tuple(word_turn(domain, turn, rng) for turn in execution.turns)


def word_turn(
    domain: Domain, calls: Sequence[ExecutedCall], rng: random.Random, hidden: tuple[int, str] | None = None
) -> str:
    """One query that asks for these calls in order, less the value of the `hidden` (call, parameter)."""
    parts = []
    for index, call in enumerate(calls):
        left_out = hidden[1] if hidden is not None and hidden[0] == index else None
        parts.append(_word_call(domain, call, rng, left_out))
    text, end = parts[0]
    for part, end in parts[1:]:
        text += rng.choice(CONNECTIVES) + part
    return text + end


def noun(domain: Domain, parameter: str) -> str:
    """What a user calls the thing that a parameter takes: the domain's noun, or plain words."""
    if parameter in domain.nouns:
        return domain.nouns[parameter]
    return words(re.sub(r"(_[iI]|I)ds?$", "", parameter)) or words(parameter)


def show(value: Json) -> str:
    """A value as a user writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(show(item) for item in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _word_call(domain: Domain, call: ExecutedCall, rng: random.Random, hidden: str | None) -> tuple[str, str]:
    """(wording, the mark that ends it)."""
    names = set(call.arguments)
    fitting = [wording for wording in domain.phrases.get(call.tool, ()) if _fields(wording) == names]
    if not fitting:
        return _word_generically(domain, call, rng, hidden), "."
    filled = {
        parameter: _field(domain, parameter, argument, parameter == hidden)
        for parameter, argument in call.arguments.items()
    }
    wording = rng.choice(fitting)
    return wording.rstrip(".?!").format_map(filled), "?" if wording.endswith("?") else "."


def _fields(wording: str) -> set[str]:
    return {parameter for _, parameter, _, _ in string.Formatter().parse(wording) if parameter}


def _field(domain: Domain, parameter: str, argument: Argument, hidden: bool) -> str:
    name = noun(domain, parameter)
    if hidden:
        return f"a certain {name}"
    if argument.origin is not None:
        return _refer(domain, parameter, argument.value, argument.origin)
    return f"{name} {show(argument.value)}" if parameter in domain.nouns else show(argument.value)


def _refer(domain: Domain, parameter: str, value: Json, origin: Reference) -> str:
    """`that ticket`, or `the second ticket` of several; named after the output where that tells more."""
    name = noun(domain, parameter if _same_thing(domain, parameter, origin) else origin.key)
    if origin.rank:
        return f"the {ORDINALS[origin.rank - 1]} {name}"
    return f"those {name}" if isinstance(value, list) else f"that {name}"


def _same_thing(domain: Domain, parameter: str, origin: Reference) -> bool:
    """Whether the output's key tells no more than the parameter: `price` for `min_price` does."""
    return parameter in domain.nouns or origin.key in (parameter, "id")


def _word_generically(domain: Domain, call: ExecutedCall, rng: random.Random, hidden: str | None) -> str:
    text = rng.choice(OPENERS).format(_imperative(domain.tools[call.tool]))
    details = []
    for parameter, argument in call.arguments.items():
        if parameter == hidden:
            details.append(f"a certain {noun(domain, parameter)}")
        elif argument.origin is not None:
            referred = _refer(domain, parameter, argument.value, argument.origin)
            same = _same_thing(domain, parameter, argument.origin)
            details.append(referred if same else f"{referred} as {words(parameter)}")
        else:
            shown = show(argument.value)
            quoted = f'"{shown}"' if isinstance(argument.value, str) else shown
            details.append(f"{words(parameter)} {quoted}")
    return text + (f", using {' and '.join(details)}" if details else "")


def _imperative(tool: ToolSpec) -> str:
    """First sentence of the description, or the name, as an order without identifiers: `Starts it.` becomes `start it`."""
    sentence = re.split(r"[.;\n](?:\s|$)", tool.description.split("Tool description:")[-1].strip())[0]
    verb, _, rest = (sentence or tool.name).replace(tool.name, words(tool.name)).replace("_", " ").partition(" ")
    verb = verb.lower()
    if re.search(r"(ss|sh|ch|x)es$", verb):
        verb = verb[:-2]
    elif verb.endswith("s") and not verb.endswith("ss"):
        verb = verb[:-1]
    return f"{verb} {rest}".strip()
