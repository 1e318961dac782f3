"""What foreign worlds have in common: one episode after the other, whose every exception is a recorded failure."""

import math
from collections.abc import Callable, Mapping, Sequence

from rods_jax.environments.foreign import told
from rods_jax.environments.protocol import Answer, EpisodeBatch, Failure, Opening, Rules
from rods_jax.types import Action, Json, Task, World

Act = Callable[[Action], Answer]
Begin = Callable[[Task, Rules], tuple[Opening, Act]]


def batches(begin: Begin) -> Callable[[Sequence[Task], Rules], EpisodeBatch]:
    """A `Domain.start` that begins every episode by itself."""

    def start(tasks: Sequence[Task], rules: Rules) -> EpisodeBatch:
        begun = [_guarded(lambda: begin(task, rules)) for task in tasks]

        def act(actions: Mapping[int, Action]) -> dict[int, Answer | Failure]:
            return {place: _answer(begun[place], action) for place, action in actions.items()}

        return EpisodeBatch(tuple(one if isinstance(one, Failure) else one[0] for one in begun), act)

    return start


def own_state(world: World, name: str) -> Mapping[str, Json]:
    """What a task's state holds for a domain's one class. ValueError: it names another."""
    if other := [one for one in world.state if one != name]:
        raise ValueError(f"the domain has no class {other[0]}: its class is {name}")
    return world.state.get(name, {})


def checks_of(reward: float, num_checks: int) -> tuple[bool, ...]:
    """The first k of n passed, k being the part of n that the reward is, rounded down. ValueError: not in [0, 1]."""
    if not -1e-6 <= reward <= 1 + 1e-6:
        raise ValueError(f"a reward must lie in [0, 1] to become checks: got {reward}")
    passed = math.floor(reward * num_checks + 1e-6)  # 0.1 + 0.2 are three tenths
    return tuple(number < passed for number in range(num_checks))


def _answer(begun: tuple[Opening, Act] | Failure, action: Action) -> Answer | Failure:
    return begun if isinstance(begun, Failure) else _guarded(lambda: begun[1](action))


def _guarded(do):
    try:
        return do()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a package may even exit
        return Failure(told(error))
