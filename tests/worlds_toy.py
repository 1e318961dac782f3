"""Worlds of other kinds, each as short as a user's: a judged question, one outcome, and a weighted rubric."""

from collections.abc import Callable, Mapping

from rods_jax.environments import toolkit
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.protocol import Answer, Domain, EpisodeBatch, Failure, Opening, Stratum
from rods_jax.rewards import TURN_FAILED, TURN_PASSED
from rods_jax.types import Message, Task, Turn, World

MORE = (Message("user", "And then?"),)


def questions(judge: Callable[[Task, str], bool]) -> Domain:
    """A single question: the judge reads the answer, and it is the only check."""

    def start(tasks, rules) -> EpisodeBatch:
        def act(actions):
            right = {place: judge(tasks[place], action.answer) for place, action in actions.items()}
            return {p: Answer(TURN_PASSED if r else TURN_FAILED, (), (), True, (r,)) for p, r in right.items()}

        return EpisodeBatch(tuple(Opening((), task.turns[0].user, 1) for task in tasks), act)

    return Domain("questions", {}, toolkit.simulator({}), strata={"question": Stratum()}, start=start)


def outcome_only(domain: Domain) -> Domain:
    """The same tasks, of which only the end counts: one check, decided with the last turn."""

    def start(tasks, rules) -> EpisodeBatch:
        batch, passed = start_episodes(domain, tasks, rules), [0] * len(tasks)

        def act(actions):
            answers = dict(batch.act(actions))
            for place, answer in answers.items():
                if not isinstance(answer, Failure):
                    passed[place] += sum(answer.passed)
                    whole = passed[place] == batch.openings[place].num_checks
                    answers[place] = answer._replace(passed=(whole,) if answer.done else ())
            return answers

        return batch._replace(openings=tuple(one._replace(num_checks=1) for one in batch.openings), act=act)

    return domain._replace(start=start)


def rubric(weights: Mapping[str, int]) -> Domain:
    """Two messages are asked for; a word of weight w is w checks, the first word's decided by the first message."""

    def start(tasks, rules) -> EpisodeBatch:
        said = [[] for _ in tasks]

        def act(actions):
            return {place: answer(said[place], action.answer) for place, action in actions.items()}

        def answer(before, text) -> Answer:
            before.append(text)
            first, *others = weights
            words, over = ([first], False) if len(before) == 1 else (others, True)
            passed = tuple(word in " ".join(before) for word in words for _ in range(weights[word]))
            return Answer(TURN_PASSED, () if over else MORE, (), over, passed)

        return EpisodeBatch(tuple(Opening((), task.turns[0].user, sum(weights.values())) for task in tasks), act)

    return Domain("rubric", {}, toolkit.simulator({}), strata={"essay": Stratum()}, start=start)


def asked(name: str, text: str, category: str = "question") -> Task:
    return Task(name, name, category, World(()), (Turn(text),))
