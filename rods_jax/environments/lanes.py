"""Asks environments without waiting for them: each lane of a batch answers in a thread of its own."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from rods_jax.environments.protocol import Answer, EpisodeBatch, Failure
from rods_jax.types import Action


class Lanes:
    """The environments of a batch, asked from one thread.  Use it in a `with` statement."""

    def __init__(self, environments: EpisodeBatch, places: Sequence[int], patience: float):
        """places: what the batch's episodes are called here.  patience: seconds after a question in which `answers` waits, though its caller has other work."""
        lanes = environments.lanes or (range(len(places)),)
        self._environments, self._places, self._patience = environments, places, patience
        self._inner = {place: inner for inner, place in enumerate(places)}
        self._lane_of = {places[inner]: lane for lane, inners in enumerate(lanes) for inner in inners}
        self._threads = ThreadPoolExecutor(max(1, len(lanes)))
        self._asked: dict[int, Future[Mapping[int, Answer | Failure]]] = {}  # by lane, one question at a time in each
        self._until = 0.0

    def __enter__(self) -> "Lanes":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    def __bool__(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._asked)

    def ask(self, actions: Mapping[int, Action]) -> list[int]:
        """Sends the actions whose lane is free; returns their places."""
        questions: dict[int, dict[int, Action]] = {}
        for place, action in actions.items():
            if (lane := self._lane_of[place]) not in self._asked:
                questions.setdefault(lane, {})[place] = action
        for lane, some in questions.items():
            self._asked[lane] = self._threads.submit(self._act, some)
            self._until = time.monotonic() + self._patience
        return [place for some in questions.values() for place in some]

    def answers(self, idle: bool) -> dict[int, Answer | Failure]:
        """What has been answered, by place.  idle: nothing else is to be done, so one answer at least is waited for."""
        if not self._asked:
            return {}
        patience = None if idle else max(0.0, self._until - time.monotonic())
        done = wait(self._asked.values(), patience, FIRST_COMPLETED).done
        lanes = [lane for lane, future in self._asked.items() if future in done]
        return {place: answer for lane in lanes for place, answer in self._asked.pop(lane).result().items()}

    def _act(self, actions: Mapping[int, Action]) -> dict[int, Answer | Failure]:
        answers = self._environments.act({self._inner[place]: action for place, action in actions.items()})
        return {self._places[inner]: answer for inner, answer in answers.items()}
