"""Worlds of other kinds behind the one seam: all numbers of a run come from the checks that they decide."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rollout_toy import CODEC, GOLD, SCRIPTED, TASKS, compiled, gather, script
from training_toy import CONFIG, few_tasks, play, toy
from worlds_toy import asked, outcome_only, questions, rubric

from rods_jax import boundary, evaluation, lengths
from rods_jax.dialogue import Said, Stop, gold_player
from rods_jax.dialogue import play as play_one
from rods_jax.environments.episode import Episode, start_episodes
from rods_jax.environments.gold import check_gold
from rods_jax.environments.mixture import mixed, mixture
from rods_jax.environments.protocol import Answer, EpisodeBatch, Failure, TaskSplits
from rods_jax.environments.scoring import OFFICIAL, RODS, gold_trace
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.run.trajectory_page import write_page
from rods_jax.types import Action, Turn

CAPITALS = questions(lambda task, said: said == {"q1": "Paris", "q2": "Rome"}[task.id.rpartition("/")[2]])
QUESTIONS = asked("q1", "The capital of France?"), asked("q2", "The capital of Italy?")
ESSAY = rubric({"whale": 3, "sea": 1, "ship": 1})


@pytest.fixture(scope="module")
def recite():
    return compiled(SCRIPTED, slots=2)


def spoken(*texts):
    """The tokens of a rollout that gives these answers, with the user's words between."""
    tokens = []
    for number, text in enumerate(texts):
        tokens += CODEC.encode_messages(ESSAY_MORE) if number else []
        tokens += CODEC.encode_action((), text)
    return tokens


ESSAY_MORE = ESSAY.start([asked("e", "Go.")], RODS).act({0: Action(answer="")})[0].messages


def zones(batch):
    passed = (batch.passed_NG * batch.valid_NG).sum(1)
    return boundary.partition(passed, batch.checks_N * batch.valid_NG.sum(1)).tolist()


# ------------------------------------------------------------------------------------- in a rollout
def test_a_judge_reads_the_answer_and_every_number_follows_it(recite):
    batch, trajectories, *_ = gather(script(spoken("Paris"), spoken("Madrid")), recite, QUESTIONS, CAPITALS)
    assert [one.passed for one in trajectories] == [(True,)] * 2 + [(False,)] * 2
    assert batch.rewards_NG.tolist() == [[1, 1], [0, 0]] == batch.passed_NG.tolist()
    assert batch.checks_N.tolist() == [1, 1] and zones(batch) == [boundary.MASTERED, boundary.HARD]


def test_weighted_checks_are_decided_when_the_world_says(recite):
    tasks = asked("e1", "Tell.", "essay"), asked("e2", "Tell.", "essay")
    both = script(spoken("A whale.", "The sea, a ship."), spoken("A ship.", "A whale at sea."))
    batch, trajectories, *_ = gather(both, recite, tasks, ESSAY)
    assert trajectories[0].passed == (True,) * 5
    assert trajectories[2].passed == (False,) * 3 + (True, True)  # the whale came too late
    assert [step.turn for step in trajectories[0].steps] == [0, 1]
    np.testing.assert_array_equal(batch.rewards_NG, np.float32([[1, 1], [0.4, 0.4]]))
    assert batch.passed_NG.tolist() == [[5, 5], [2, 2]] and zones(batch) == [boundary.MASTERED, boundary.BOUNDARY]


def test_what_was_not_decided_does_not_count(recite):
    def start(tasks, rules):
        batch = ESSAY.start(tasks, rules)
        return batch._replace(act=lambda said: {p: one._replace(done=True) for p, one in batch.act(said).items()})

    tasks = (asked("e1", "Tell.", "essay"),)
    batch, (one, _), *_ = gather(script(spoken("A whale.")), recite, tasks, ESSAY._replace(start=start))
    assert one.passed == (True,) * 3 + (False,) * 2 and batch.rewards_NG[0, 0] == np.float32(0.6)


def test_one_outcome_instead_of_turns(recite):
    task = next(task for task in TASKS if len(task.turns) > 1)
    suffix = script(GOLD[task.id].suffix)
    by_turns, *_ = gather(suffix, recite, (task,))
    by_outcome, (one, _), *_ = gather(suffix, recite, (task,), outcome_only(WORKPLACE))
    assert by_turns.checks_N == len(task.turns) and by_outcome.checks_N == 1 and one.passed == (True,)
    np.testing.assert_array_equal(by_turns.suffix_tokens_NGS, by_outcome.suffix_tokens_NGS)


def test_a_scorer_of_ones_own_reads_what_was_said():
    polite = WORKPLACE._replace(rules=lambda rules: rules._replace(turn_passed=lambda turn: "please" in turn.said))
    task = replace(TASKS[0], turns=(Turn("Ask me."), Turn("Ask again.")))
    episode = Episode(polite, task, gold_trace(polite, task))
    assert episode.act(Action(answer="please?")).passed == (True,) and episode.act(Action(answer="no")).passed == (
        False,
    )
    answers = iter(["please?", "no"])
    record = play_one(polite, task, 0, lambda messages: Said("", Action(answer=next(answers))), OFFICIAL)
    assert record.rods == (True, False) and not record.failure


@pytest.mark.parametrize("too_many", [2, 3])
def test_a_world_that_decides_more_checks_than_it_has_is_a_recorded_failure(recite, too_many):
    def start(tasks, rules):
        batch = CAPITALS.start(tasks, rules)
        return batch._replace(act=lambda actions: {p: Answer(1, (), (), True, (True,) * too_many) for p in actions})

    found = gather(script(*[spoken("x")] * 2), recite, QUESTIONS, CAPITALS._replace(start=start))
    batch, trajectories = found[:2]
    assert found.failed == 4 and not batch.valid_NG.any()
    told = "decided more than the 1 checks that it has"
    assert told in trajectories[0].failure and trajectories[0].passed == (True,)
    record = play_one(CAPITALS._replace(start=start), QUESTIONS[0], 0, lambda _: Said("", Action(answer="x")))
    assert told in record.failure and record.rods == (False,)


def test_an_episode_without_checks_is_a_recorded_failure(recite):
    def start(tasks, rules):
        first, *others = CAPITALS.start(tasks, rules).openings
        return CAPITALS.start(tasks, rules)._replace(openings=(first._replace(num_checks=0), *others))

    domain = CAPITALS._replace(start=start)
    found = gather(script(spoken("Paris"), spoken("Rome")), recite, QUESTIONS, domain)
    batch, trajectories = found[:2]
    told = "the world opened an episode without checks"
    assert (
        found.failed == 1
        and batch.valid_NG.tolist() == [[False, True], [True, True]]
        and trajectories[0].failure == told
    )
    record = play_one(domain, QUESTIONS[0], 0, lambda _: Said("", Action(answer="x")))
    assert record.failure == told and record.official == (False,)


def test_a_rollout_that_begins_otherwise_than_its_groups_prompt_is_a_recorded_failure(recite):
    def start(tasks, rules):
        first, second, *others = CAPITALS.start(tasks, rules).openings
        return CAPITALS.start(tasks, rules)._replace(openings=(first, second._replace(user="The lake?"), *others))

    found = gather(script(spoken("Paris"), spoken("Rome")), recite, QUESTIONS, CAPITALS._replace(start=start))
    assert found.failed == 1 and found.batch.valid_NG.tolist() == [[True, False], [True, True]]
    told = "the world began this rollout otherwise than the prompt that its group shares"
    assert [one.failure for one in found.trajectories] == [None, told, None, None]
    assert found.trajectories[1].passed == (False,)


def test_a_world_that_raises_or_leaves_out_an_answer_fails_its_episodes_alone(recite):
    def start(tasks, rules):
        batch = CAPITALS.start(tasks, rules)
        half = dict.fromkeys(range(2), Failure("half a world"))
        return batch._replace(act=lambda actions: {p: one for p, one in batch.act(actions).items() if p not in half})

    def falls(tasks, rules):
        raise SystemExit(3)

    two = script(spoken("Paris"), spoken("Rome"))
    found = gather(two, recite, QUESTIONS, CAPITALS._replace(start=start))
    batch, trajectories = found[:2]
    assert found.failed == 2 and batch.rewards_NG[1].tolist() == [1, 1]
    assert [one.failure for one in trajectories] == ["the world gave no answer"] * 2 + [None] * 2
    for broken in (falls, lambda tasks, rules: CAPITALS.start(tasks[:1], rules)):
        found = gather(two, recite, QUESTIONS, CAPITALS._replace(start=broken))
        failure = found.trajectories[0].failure
        assert found.failed == 4 and ("SystemExit" in failure or "opened 1 episodes for 4" in failure)
    assert not start_episodes(CAPITALS, []).openings and not start_episodes(WORKPLACE, []).openings


# ------------------------------------------------------------------------------------ in an evaluation
def test_an_evaluation_scores_the_same_checks():
    answers = {"q1": "Paris", "q2": "Oslo"}

    def act_of(task):
        return lambda messages: Said("", Action(answer=answers[task.id]), tokens=3)

    records = [play_one(CAPITALS, task, 0, act_of(task)) for task in QUESTIONS]
    assert [(r.rods, r.official, r.state, r.tokens) for r in records] == [
        ((True,), (True,), True, 3), ((False,), (False,), False, 3)
    ]  # fmt: skip
    assert records[0].reasons == ((),) and records[1].reasons[0][0].where == "check"
    rows = evaluation.score(QUESTIONS, records, seed=0)["rows"]
    assert rows["question"]["progress"]["mean"] == rows["question"]["pass^1"]["mean"] == 0.5


def test_a_world_that_breaks_is_in_no_score():
    def broken(tasks, rules):
        return EpisodeBatch((Failure("no such world"),), lambda actions: {})

    def breaks(tasks, rules):
        return CAPITALS.start(tasks, rules)._replace(act=lambda actions: {0: Failure("it fell")})

    for start, reason in ((broken, "no such world"), (breaks, "it fell")):
        record = play_one(CAPITALS._replace(start=start), QUESTIONS[0], 0, lambda _: Said("", Action(answer="x")))
        assert record.failure == reason
    assert play_one(CAPITALS, QUESTIONS[0], 0, lambda _: Stop("too long")).truncated == "too long"


def test_gold_that_ends_before_its_world_does_is_a_failure_that_says_so():
    record = play_one(ESSAY, asked("e", "Go."), 0, gold_player(asked("e", "Go.")))
    assert record.failure == "the task's gold calls are all made, and its world goes on" and len(record.moves) == 1


def test_gold_and_lengths_are_asked_only_where_there_is_gold():
    check_gold(CAPITALS, QUESTIONS)
    length = lengths.length_of(CAPITALS, CODEC, QUESTIONS[0])
    assert length == (len(CODEC.encode_prompt((), "The capital of France?")), 0, 0)


# ----------------------------------------------------------------------------------------- mixtures
def both(domain=None, seed=0):
    return mixture("both", [WORKPLACE, questions(lambda task, said: len(said) % 2 == 0)])


def both_tasks(domain, seed) -> TaskSplits:
    own = few_tasks(WORKPLACE, seed)
    asks = tuple(asked(f"q{i}", f"What is {i}?") for i in range(8))
    other = TaskSplits(seeds=asks[:4], held_out=asks[4:])
    return mixed([(WORKPLACE, own, 0.75), (CAPITALS, other, 0.25)])


def test_each_task_is_played_by_its_own_domain(recite):
    domain = mixture("both", [WORKPLACE, CAPITALS])
    office = replace(TASKS[0], id="workplace/t", category="workplace/base")
    question = replace(QUESTIONS[0], id="questions/q1", category="questions/question")
    suffixes = script(GOLD[TASKS[0].id].suffix, spoken("Paris"))
    batch, trajectories, *_ = gather(suffixes, recite, (office, question), domain)
    assert batch.checks_N.tolist() == [len(office.turns), 1] and (batch.rewards_NG == 1).all()
    assert [len(one.passed) for one in trajectories] == [len(office.turns)] * 2 + [1] * 2
    assert play_one(domain, office, 0, gold_player(office)).rods == (True,) * len(office.turns)
    started = start_episodes(domain, [question, office, office, question])
    assert [len(opening.tools) > 0 for opening in started.openings] == [False, True, True, False]
    answers = started.act({3: Action(answer="Paris"), 1: Action(answer="no")})
    assert answers[3].passed == (True,) and answers[1].passed == (False,)


def test_a_mixture_is_checked_and_shared():
    domain = both()
    assert "questions/question" in domain.strata and "workplace/base" in domain.strata
    tasks = both_tasks(domain, 0)
    assert [task.category.partition("/")[0] for task in tasks.seeds] == ["workplace"] * 6 + ["questions"] * 2
    assert len({task.scenario for task in tasks.seeds}) == 8 and len(tasks.practice) == 28
    with pytest.raises(ValueError, match="two domains with the domain workplace"):
        mixture("twice", [WORKPLACE, WORKPLACE])
    with pytest.raises(ValueError, match="two domains with the tool"):
        mixture("twice", [WORKPLACE, WORKPLACE._replace(name="other")])
    with pytest.raises(ValueError, match="must begin with one of"):
        domain.of(TASKS[0])
    with pytest.raises(ValueError, match="add up to 1"):
        mixed([(WORKPLACE, tasks, 0.5), (CAPITALS, tasks, 0.4)])


def test_a_run_trains_on_the_office_and_on_questions_together(tmp_path):
    evaluation = replace(CONFIG.evaluation, num_tasks=5)
    config = toy(tmp_path / "run", domain=both, build_tasks=both_tasks, evaluation=evaluation)
    play(config)
    lines = [json.loads(line) for line in Path(tmp_path, "run", "metrics.jsonl").read_text().splitlines()]
    played = {name.partition("/")[0] for line in lines[1:] for name in line["task_ids"]}
    assert played == {"workplace", "questions"} and CONFIG.update.quotas == 4
    assert any("held_out_questions/question" in line for line in lines)
    candidates = [json.loads(line) for line in Path(tmp_path, "run", "candidates.jsonl").read_text().splitlines()]
    assert {line["seed"].partition("/")[0] for line in candidates} == {"workplace", "questions"}
    written = [line["candidate"]["category"] for line in candidates if line["candidate"]]
    assert written and all(name.startswith("workplace/") for name in written)


def test_the_page_of_an_evaluation_shows_checks_that_are_no_turns(tmp_path):
    task = asked("e1", "Tell.", "essay")
    answers = iter(["A ship.", "A <b>whale</b> at sea."])
    record = play_one(ESSAY, task, 0, lambda messages: Said(text := next(answers), Action(answer=text)))
    assert record.rods == (False,) * 3 + (True, True) and [move.turn for move in record.moves] == [0, 1]
    scores = evaluation.score([task], [record], seed=0)
    result = {"scores": scores, "floor": scores["rows"], "disputed": {}}
    write_page(tmp_path / "page.html", "essays", ESSAY, [task], [record], result)
    html = (tmp_path / "page.html").read_text()
    assert html.count("<td>check</td>") == 3 and "A &lt;b&gt;whale&lt;/b&gt; at sea." in html
