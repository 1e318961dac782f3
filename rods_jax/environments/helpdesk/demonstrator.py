"""Who shows a policy the help desk: looks at everything in order, mends what it sees, and lets the user test.

Its habits are the imperfections that reinforcement learning is later asked to remove.
"""

import random
import re
from collections.abc import Callable, Generator, Sequence

from rods_jax.config import Habits
from rods_jax.environments.helpdesk.faults import FAULTS, LOOKS, Fault, arguments_of
from rods_jax.environments.helpdesk.phrases import ASKS, TECHNICIAN, claims
from rods_jax.environments.helpdesk.user import REFUSES
from rods_jax.types import Action, Call, Message, Task

_Script = Generator[Action, str, None]  # says an action, and is sent what came back


def demonstrator(task: Task, habits: Habits, rng: random.Random) -> Callable[[Sequence[Message]], Action]:
    """An agent that knows only what it is told.

    stop_early: looks at some of the four things alone.  skip: leaves what it saw, at each fault.  repeat: calls twice.
    """
    script: list[_Script] = []

    def act(messages: Sequence[Message]) -> Action:
        text = "\n".join(message.content for message in messages)
        if not script:
            script.append(_script(text, habits, rng))
            return next(script[0])
        return script[0].send(text)

    return act


def _script(first: str, habits: Habits, rng: random.Random) -> _Script:
    found = re.search(r"account is (\d{1,9})\b", first)
    account = int(found[1]) if found else 0
    restart = False
    # Look at the account, the line, the router and the laptop, in this order.
    stops = rng.randint(1, len(LOOKS) - 1) if rng.random() < habits.stop_early else len(LOOKS)
    for look in LOOKS[:stops]:
        shown = claims((yield from _do(look, account)))
        # Mend what it shows, or hand it over.
        for fault in FAULTS.values():
            if not _shows(fault, look, shown) or rng.random() < habits.skip:
                continue
            if fault.reason:
                yield Action(calls=(Call("hand_over", {"account": account, "reason": fault.reason}),))
                yield Action(answer=TECHNICIAN)
            for _, tool in fault.mends:
                for _ in range(2 if rng.random() < habits.repeat and tool != "lift_suspension" else 1):
                    yield from _do(tool, account)
            restart = restart or fault.restart
    # Let the router load what the provider has changed, and let the user test.
    if restart:
        yield from _do("restart_router", account)
    yield from _do("run_test", account)
    while True:
        yield Action(answer=TECHNICIAN)


def _do(tool: str, account: int) -> Generator[Action, str, str]:
    """A call of the agent's own, or a request to the user, which is made once more where it refuses."""
    if tool not in ASKS:
        return (yield Action(calls=(Call(tool, arguments_of(tool, account)),)))
    said = yield Action(answer=ASKS[tool])
    return (yield Action(answer=ASKS[tool])) if said == REFUSES else said


def _shows(fault: Fault, look: str, shown: dict[str, str]) -> bool:
    seen = {field: str(value) for field, value in {**fault.account, **fault.home}.items() if field in shown}
    return fault.shown_by == look and bool(seen) and all(shown[field] == value for field, value in seen.items())
