"""Errors of a user, found in a transcript alone, and who caused a failure.

contradicts   reports something else than its tool has shown, or another account than its own
stops_early   leaves before its case is settled, and not for want of patience
acts_unasked  changes something that no message of the agent asked for
invents       says that it did or saw something, and made no call
ignores       neither does what it is asked nor says that it cannot
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rods_jax.environments.conversation import AGENT, STOP, TRANSFER, USER, Ended, Line, wrong_owner
from rods_jax.environments.helpdesk.faults import FAULTS, Fault
from rods_jax.environments.helpdesk.phrases import claims, understood
from rods_jax.environments.helpdesk.user import DONE, PATIENCE, UNASKED, VALUES, failed_tests, is_content
from rods_jax.environments.helpdesk.world import AGENT_TOOLS, USER_TOOLS, account_of, composition_of, is_mended
from rods_jax.environments.protocol import Slip
from rods_jax.types import Json, Task

CONTRADICTS, STOPS, ACTS, INVENTS, IGNORES = "contradicts", "stops_early", "acts_unasked", "invents", "ignores"
LOOKS = ("check_router", "check_laptop", "run_test", "read_bill")  # of the user: they change nothing


class UserError(NamedTuple):
    """One error of the user."""

    place: int  # of its message in the transcript
    kind: str
    asked: str  # what the agent had asked for
    about: tuple[str, ...] = ()  # fields that it reported wrongly, or tools that it used unasked


def user_errors(task: Task, lines: Sequence[Line], stop_words: Sequence[str]) -> Iterator[UserError]:
    """The errors in a transcript, in order; what the user was told to be is not needed."""
    asked, called, puzzled = "", dict[str, Line](), 0  # since the agent's latest words
    for place, line in enumerate(lines):
        if line.who == AGENT:
            if line.is_words and place:
                asked, called = understood(line.text), {}
                puzzled = 0 if asked else puzzled + 1
        elif line.calls:
            results = lines[place + 1 : place + 1 + len(line.calls)]
            called |= {call.name: result for call, result in zip(line.calls, results)}
            unasked = tuple(call.name for call in line.calls if call.name not in (asked, *LOOKS))
            if unasked:
                yield UserError(place, ACTS, asked, unasked)
        elif not line.result:
            if any(word in line.text for word in stop_words):
                tested = called.get("run_test")
                settled = asked == "TECHNICIAN" or (tested is not None and is_content(tested.text))
                if not settled and max(puzzled, failed_tests(lines[:place])) < PATIENCE:
                    yield UserError(place, STOPS, asked)
            elif asked in called:
                said, shown = claims(line.text), claims(called[asked].text)
                wrong = tuple(field for field, value in said.items() if field in shown and value != shown[field])
                if wrong:
                    yield UserError(place, CONTRADICTS, asked, wrong)
            elif claims(line.text).get("is", str(account_of(task))) != str(account_of(task)):
                yield UserError(place, CONTRADICTS, asked, ("account",))
            elif asked not in ("", "TECHNICIAN", "ACCOUNT"):
                invented = line.text.startswith(DONE) or not VALUES.keys().isdisjoint(claims(line.text))
                yield UserError(place, INVENTS if invented else IGNORES, asked)


def slips(task: Task, lines: Sequence[Line], ended: str) -> list[Slip]:
    """Errors of the user, and calls of either side that the other one's tools can take."""
    errors = [Slip(one.place, USER, one.kind, one.asked) for one in user_errors(task, lines, (STOP, TRANSFER))]
    tools = {AGENT: {tool.name for tool in AGENT_TOOLS}, USER: {tool.name for tool in USER_TOOLS}}
    return [*errors, *wrong_owner(lines, tools)]


def blamed(ended: Ended, record: Mapping[str, Json], home: Mapping[str, Json], stop_words: Sequence[str]) -> str:
    """USER where one of its errors bears on what is still wrong at the end, else AGENT."""
    wrong = [FAULTS[name] for name in composition_of(ended.task).faults if not is_mended(FAULTS[name], record, home)]
    restart = home["loaded"] != record["settings"]
    errors = user_errors(ended.task, ended.lines, stop_words)
    return USER if any(_bears(error, wrong, home, restart) for error in errors) else AGENT


def _bears(error: UserError, wrong: Sequence[Fault], home: Mapping[str, Json], restart: bool) -> bool:
    match error.kind:
        case "stops_early":
            return True
        case "acts_unasked":
            return any(
                home[UNASKED[tool]] in ("out", "off") or tool == "turn_airplane_on"
                for tool in error.about
                if tool in UNASKED
            )
        case "contradicts":
            return any(field in fault.home for fault in wrong for field in error.about)
        case _:
            shown = any(fault.shown_by == error.asked for fault in wrong)
            mends = any(tool == error.asked for fault in wrong for _, tool in fault.mends)
            return shown or mends or error.asked == "run_test" or (error.asked == "restart_router" and restart)
