"""Injected failures: who meets them, who does not, and that a repeated call gets through."""

import pickle
from functools import partial

import pytest
from synthesis_toy import TASK, TOY

from rods_jax.dialogue import Said, gold_player, play
from rods_jax.environments.episode import Episode, start_episodes
from rods_jax.environments.gold import check_gold
from rods_jax.environments.mixture import mixture
from rods_jax.environments.scoring import gold_trace
from rods_jax.environments.unreliable import KINDS, with_failures
from rods_jax.rewards import CALL_FAILED
from rods_jax.types import Action, Call


def toy():
    return TOY


ALWAYS = with_failures(toy, rate=1.0)
GOLD = [call for turn in TASK.turns for call in turn.gold]


def persistent(task):
    """Makes the gold calls one by one, each until it got through."""

    def script():
        for turn in task.turns:
            for call in turn.gold:
                said = Said("", Action(calls=(call,)))
                messages = yield said
                while messages[-1].content in KINDS:
                    messages = yield said
            yield Said("Done.", Action(answer="Done."))

    said = script()
    state = {"begun": False}

    def act(messages):
        begun, state["begun"] = state["begun"], True
        return said.send(messages) if begun else next(said)

    return act


def test_gold_that_repeats_what_failed_passes_at_any_rate():
    for rate in (0.0, 0.3, 1.0):
        record = play(with_failures(toy, rate=rate), TASK, 0, persistent(TASK))
        assert all(record.rods) and all(record.official) and record.state and not record.failure
        failed = [move for move in record.moves if move.code == CALL_FAILED]
        assert all(move.observations[0] in KINDS for move in failed)
        if rate in (0, 1):
            assert len(failed) == len(GOLD) * rate


def test_who_does_not_repeat_fails_and_nothing_has_changed():
    record = play(ALWAYS, TASK, 0, gold_player(TASK))
    assert not any(record.rods)
    episode = Episode(ALWAYS, TASK, gold_trace(ALWAYS, TASK))
    before = Episode(TOY, TASK, gold_trace(TOY, TASK)).state
    answer = episode.act(Action(calls=(GOLD[0],)))
    assert answer.code == CALL_FAILED and answer.observations[0] in KINDS and episode.state == before


def test_gold_is_checked_without_failures():
    check_gold(ALWAYS, [TASK])


def test_rollouts_that_do_the_same_meet_the_same_failures_and_others_do_not():
    domain = with_failures(toy, rate=0.5)
    calls = [Call("add_book", {"title": f"Book {n}"}) for n in range(40)]

    def failures(domain):
        batch = start_episodes(domain, [TASK, TASK])
        answers = batch.act({place: Action(calls=tuple(calls)) for place in range(2)})
        first, second = ([text in KINDS for text in answers[place].observations] for place in range(2))
        assert first == second
        return first

    found = failures(domain)
    assert 10 < sum(found) < 30 and found == failures(pickle.loads(pickle.dumps(domain)))
    assert found != failures(with_failures(toy, rate=0.5, seed=1))


def test_a_snapshot_remembers_what_was_called():
    episode = Episode(ALWAYS, TASK, gold_trace(ALWAYS, TASK))
    episode.act(Action(calls=(GOLD[0],)))
    copy = episode.snapshot()
    assert copy.act(Action(calls=(GOLD[0],))).observations[0] not in KINDS


def test_half_a_surrogate_pair_in_an_argument_is_an_observation():
    episode = Episode(ALWAYS, TASK, gold_trace(ALWAYS, TASK))
    assert episode.act(Action(calls=(Call("add_book", {"title": "\ud800"}),))).code == CALL_FAILED


@pytest.mark.parametrize(
    "make, how, complaint",
    [
        (toy, {"rate": 1.5}, "the rate of failures must lie in [0, 1]: got 1.5"),
        (toy, {"kinds": ()}, "failures need kinds, each with a text"),
        (partial(mixture, "both", [TOY]), {}, "both is a mixture: give its domains failures before they are mixed"),
        (lambda: TOY._replace(start=lambda *_: None), {}, "toy makes its own calls: only worlds of tools can be given"),
    ],
)
def test_what_cannot_fail_is_refused(make, how, complaint):
    with pytest.raises(ValueError) as error:
        with_failures(make, **how)
    assert str(error.value).startswith(complaint)
