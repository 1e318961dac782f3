"""Asks environments without waiting for them: each lane of a batch answers in a thread of its own."""

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from rods_jax.environments.protocol import Answer, EpisodeBatch, Failure
from rods_jax.types import Action


class Lanes:
    """The environments of a batch, asked from one thread.  Use it in a `with` statement."""

    def __init__(self, environments: EpisodeBatch, places: Sequence[int]):
        """places: what the batch's episodes are called here."""
        lanes = environments.lanes or (range(len(places)),)
        self._environments, self._places = environments, places
        self._inner = {place: inner for inner, place in enumerate(places)}
        self._lane_of = {places[inner]: lane for lane, inners in enumerate(lanes) for inner in inners}
        self._threads = ThreadPoolExecutor(max(1, len(lanes)))
        self._asked: dict[int, Future[Mapping[int, Answer | Failure]]] = {}  # by lane, one question at a time in each

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
        return [place for some in questions.values() for place in some]

    def answers(self, patience: float | None) -> dict[int, Answer | Failure]:
        """What has been answered, by place.  patience: seconds in which one answer at least is waited for; None: for ever."""
        if not self._asked:
            return {}
        done = wait(self._asked.values(), patience, FIRST_COMPLETED).done
        lanes = [lane for lane, future in self._asked.items() if future in done]
        return {place: answer for lane in lanes for place, answer in self._asked.pop(lane).result().items()}

    def _act(self, actions: Mapping[int, Action]) -> dict[int, Answer | Failure]:
        answers = self._environments.act({self._inner[place]: action for place, action in actions.items()})
        return {self._places[inner]: answer for inner, answer in answers.items()}
