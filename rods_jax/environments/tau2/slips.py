"""Errors that a transcript of tau2-bench shows without a judge: of its user, and calls of the other side's tools.

says_nothing         its model gave neither words nor calls, twice
stops_early          agrees to what the agent asks and leaves in the same message, so that the agent can do nothing
transfers_unasked    says that it was handed over, and the agent has handed nobody over
stops_beside_calls   says a stop word in a message of calls, where nobody hears it
speaks_beside_calls  says something else there
unknown_tool         calls a tool that neither side has
failed_call          a call of its own tools fails

What is found is an error; what is not found may be one.  Left out on purpose: all that needs an understanding of words, such
as facts that it invents, or acts that nobody asked for.
"""

import re
from collections.abc import Container, Iterator, Sequence

from rods_jax.environments.conversation import AGENT, OUT_OF_SCOPE, STOP, TRANSFER, USER, wrong_owner
from rods_jax.environments.protocol import Slip
from rods_jax.environments.tau2.data import Files
from rods_jax.environments.tau2.domains import DOMAINS
from rods_jax.environments.tau2.messages import task_from_json
from rods_jax.environments.tau2.scoring import TRANSFER as HAND_OVER
from rods_jax.environments.tau2.toolkit import marks
from rods_jax.types import Line, Task

NOTHING, STOPS, TRANSFERS = "says_nothing", "stops_early", "transfers_unasked"
STOPS_BESIDE, SPEAKS_BESIDE, UNKNOWN, FAILED = (
    "stops_beside_calls",
    "speaks_beside_calls",
    "unknown_tool",
    "failed_call",
)
DECISIVE = NOTHING, STOPS, TRANSFERS  # after these the agent could do nothing more

_AGREES = re.compile(r"\b(yes|yeah|yep|sure|agreed?|confirm(ed)?|proceed|go ahead|please do)\b", re.IGNORECASE)
_REFUSES = re.compile(r"\b(no|not|don't|never|nothing)\b", re.IGNORECASE)
_FAREWELL = re.compile(r"anything else|any other|further", re.IGNORECASE)  # a question that agreement may end


def slips(files: Files, task: Task, lines: Sequence[Line], ended: str) -> list[Slip]:
    """In the order of the lines, after the task's own history."""
    (name,) = task.world.classes
    domain = DOMAINS[name](files)
    tools = {AGENT: marks(domain.agent), USER: {} if domain.user is None else marks(domain.user)}
    history = len(task_from_json(task.world.state[name]).start.history)
    found = [*wrong_owner(lines, tools), *_user_errors(lines, tools[USER], tools[AGENT])]
    silent = [Slip(len(lines), USER, NOTHING)] if ended == "user_error" else []
    return [*sorted(one for one in found if one.place >= history), *silent]


def _user_errors(lines: Sequence[Line], own: Container[str], others: Container[str]) -> Iterator[Slip]:
    """own: names of the user's tools."""
    asked, handed_over = "", False  # the agent's latest words; whether it spoke of a transfer, or made one
    for place, line in enumerate(lines):
        stops = any(word in line.text for word in (STOP, TRANSFER, OUT_OF_SCOPE))
        if line.who == AGENT:
            asked = line.text if line.is_words else asked
            handed_over |= "transfer" in line.text.lower() or any(call.name == HAND_OVER for call in line.calls)
        elif line.calls:
            if line.text.strip():
                yield Slip(place, USER, STOPS_BESIDE if stops else SPEAKS_BESIDE)
            results = lines[place + 1 : place + 1 + len(line.calls)]
            for call, result in zip(line.calls, results):
                if call.name in own and not result.ok:
                    yield Slip(place, USER, FAILED, call.name)
                elif call.name not in own and call.name not in others:
                    yield Slip(place, USER, UNKNOWN, call.name)
        elif line.is_words and TRANSFER in line.text and not handed_over:
            yield Slip(place, USER, TRANSFERS)
        elif line.is_words and stops and _agrees(asked, line.text):
            yield Slip(place, USER, STOPS)


def _agrees(asked: str, said: str) -> bool:
    """Whether the user says yes to a question that is more than a farewell."""
    open_question = "?" in asked and not _FAREWELL.search(asked)
    return open_question and bool(_AGREES.search(said)) and not _REFUSES.search(said)
