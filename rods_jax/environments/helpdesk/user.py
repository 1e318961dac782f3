"""A user by rules: does what it is asked, one thing at a time, says what it sees, and gets things wrong at set rates.

All that it says follows from what it has heard (`conversation.noise`), so its errors can be told again from a transcript: `slips`.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from rods_jax.environments.conversation import AGENT, STOP, TRANSFER, USER, Heard, Line, Spoken, User, noise, view
from rods_jax.environments.helpdesk.phrases import claims, understood
from rods_jax.environments.helpdesk.world import account_of, knows_account
from rods_jax.types import Call, Task

CHECKS = ("check_router", "check_laptop")
PATIENCE = 2  # failed tests, or messages in a row that it does not understand, until it leaves
REFUSES, PUZZLED, DONE = "I would rather not.", "I do not understand.", "Done."
VALUES = {  # what a field can show: the sound value, then another
    "power": ("on", "off"), "cable": ("in", "out"), "wifi": ("on", "off"), "light": ("green", "blinking"),
    "channel": ("free", "busy"), "airplane": ("off", "on"), "network": ("home", "guest"), "vpn": ("off", "on"),
    "dns": ("auto", "wrong"), "downloads": ("off", "on"),
}  # fmt: skip
_SOUND = {
    "check_router": "power on, cable in, wifi on, light green, channel free",
    "check_laptop": "airplane off, network home, vpn off, dns auto, downloads off",
}
UNASKED = {"pull_cable": "cable", "turn_router_off": "power", "turn_airplane_on": "airplane"}  # tool -> what it breaks


class Dials(NamedTuple):
    """How often the user errs: probabilities, each at every message of the agent that asks for something."""

    ignores: float = 0.0  # does not do it, and says so
    misreads: float = 0.0  # reports one field of a look wrongly
    acts_unasked: float = 0.0  # does it, and breaks something
    stops_early: float = 0.0  # leaves
    invents: float = 0.0  # says that it has done it, or reports a look that it has not taken


def by_rules(dials: Dials = Dials()) -> User:
    """The user with these rates."""
    return partial(_speak, dials)


def _speak(dials: Dials, heard: Heard) -> Spoken:
    last, slip = heard.lines[-1], slip_at(dials, heard)
    if last.result:
        return Spoken(_report(heard, slip == "misreads"))
    if len(heard.lines) == 1:
        return Spoken(heard.task.turns[0].user)
    asked = understood(last.text)
    if slip == "stops_early":
        return Spoken(f"I must go now. {STOP}")
    if asked == "TECHNICIAN":
        return Spoken(f"Thank you. {TRANSFER}")
    if asked == "ACCOUNT":
        return Spoken(f"My account is {account_of(heard.task)}." if knows_account(heard.task) else "I do not know it.")
    if not asked:
        return Spoken(f"I give up. {STOP}" if _puzzled(heard.lines) >= PATIENCE else PUZZLED)
    if slip == "ignores":
        return Spoken(REFUSES)
    if slip == "invents":
        return Spoken(f"It shows {_SOUND[asked]}." if asked in CHECKS else DONE)
    broken = (Call(noise(heard, "unasked").choice([*UNASKED])),) if slip == "acts_unasked" else ()
    return Spoken(calls=(Call(asked), *broken))


def slip_at(dials: Dials, heard: Heard) -> str:
    """Which error a user with these rates makes now: the name of a dial, or nothing."""
    last = heard.lines[-1]
    if last.result:
        kinds = ["misreads"] if _asked(heard.lines) in CHECKS and last.ok else []
    elif len(heard.lines) == 1 or understood(last.text) in ("", "TECHNICIAN", "ACCOUNT"):
        kinds = []
    else:
        kinds = ["stops_early", "ignores", "acts_unasked", "invents"]
        kinds = kinds[:3] if understood(last.text) in ("run_test", "read_bill") else kinds
    draw = noise(heard, "slip").random()
    for kind in kinds:
        draw -= getattr(dials, kind)
        if draw < 0:
            return kind
    return ""


def slips(dials: Dials, task: Task, lines: Sequence[Line]) -> Iterator[tuple[int, str]]:
    """(place of the user's message, dial): the errors that a user with these rates made in a transcript."""
    for place, line in enumerate(lines):
        if line.who == USER and not line.result and (heard := view(USER, lines[:place])):
            if slip := slip_at(dials, Heard(task, heard)):
                yield place, slip


def is_content(result: str) -> bool:
    """Whether a test's result is all that a user wants."""
    return claims(result) == {"internet": "up", "speed": "fast"}


def failed_tests(lines: Sequence[Line]) -> int:
    """How often the user has tested in vain."""
    return sum(
        line.who == USER and line.result and "internet" in claims(line.text) and not is_content(line.text)
        for line in lines
    )


def _report(heard: Heard, misreads: bool) -> str:
    """What the user says of its last call; of two calls in a message, of the first."""
    place = max(i for i, line in enumerate(heard.lines) if line.who == USER and line.calls)
    tool, result = heard.lines[place].calls[0].name, heard.lines[place + 1]
    if tool == "run_test":
        if is_content(result.text):
            return f"It works now. {STOP}"
        return f"I give up. {STOP}" if failed_tests(heard.lines) >= PATIENCE else f"It fails: {result.text}."
    if not result.ok:
        return f"That fails: {result.text.removeprefix('Error: ')}."
    if tool not in (*CHECKS, "read_bill"):
        return DONE
    text = result.text
    if misreads:
        field, value = noise(heard, "misreads").choice([*claims(text).items()])
        sound, other = VALUES[field]
        text = text.replace(f"{field} {value}", f"{field} {other if value == sound else sound}")
    return f"It shows {text}."


def _asked(lines: Sequence[Line]) -> str:
    words = [line.text for line in lines if line.who == AGENT and line.is_words]
    return understood(words[-1])


def _puzzled(lines: Sequence[Line]) -> int:
    """The agent's latest messages in a row that cannot be understood, this one among them."""
    count = 0
    for line in reversed([line for line in lines if line.who == AGENT and line.is_words][1:]):
        if understood(line.text):
            break
        count += 1
    return count
