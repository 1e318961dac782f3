"""The two sides of a trial by language models: both are told what the pair's plan says of trials."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rods_jax.chat import Generate, Reply, Request
from rods_jax.environments.conversation import AGENT, OUT_OF_SCOPE, STOP, TRANSFER, USER, Heard, Spoken, User
from rods_jax.environments.users import model_user
from rods_jax.evolution.ground import Ground
from rods_jax.evolution.pairs import PlanPair
from rods_jax.types import Json, Task


def told(generate: Generate, lines: Sequence[str]) -> Generate:
    """The model with these lines at the end of its system message."""

    def answer(requests: Sequence[Request]) -> list[Reply]:
        return generate([replace(one, messages=_with_lines(one.messages, lines)) for one in requests])

    return answer


def _with_lines(messages: Sequence[Mapping[str, Json]], lines: Sequence[str]) -> tuple[Mapping[str, Json], ...]:
    first, *rest = messages
    if first["role"] != "system":
        first, rest = {"role": "system", "content": ""}, [*messages]
    text = "\n".join([first["content"], *lines]).strip()
    return ({"role": "system", "content": text}, *rest)


def user(generate: Generate, ground: Ground, pair: PlanPair) -> User:
    """Begins with the task's words; then a model speaks, which knows the task's facts and the trial's instructions."""

    def instructions(task: Task) -> str:
        options = task.world.options
        return "\n".join(
            [
                "You are a user who talks to an assistant. You have a problem, and tools of your own, if any are listed.",
                f"You said: {task.turns[0].user}",
                f"All that you know besides: {json.dumps(options['facts'], ensure_ascii=False)}. Make nothing up.",
                f"You are {options['style']}. Use a tool only when the assistant asks for it, and say what it shows.",
                f"When all is settled, or you are told that it cannot be, end your message with {STOP}. "
                f"Where you are handed over to somebody, with {TRANSFER}; where you lack what you need, with {OUT_OF_SCOPE}.",
                *pair.trial,
            ]
        )

    model = model_user(generate, instructions, ground.tools_of(USER))
    return lambda heard: Spoken(heard.task.turns[0].user) if _begins(heard) else model(heard)


def _begins(heard: Heard) -> bool:
    return all(line.who == AGENT for line in heard.lines)
