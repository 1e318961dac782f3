"""What is knowable at the start is refused or said at the start, by name."""

import re
from dataclasses import replace

import pytest
from rich.console import Console
from training_toy import CONFIG

from rods_jax import run
from rods_jax.checks import check_start
from rods_jax.config import ColdStartConfig, ConfigError, Habits, RetentionConfig, StageConfig, SynthesisConfig
from rods_jax.environments import toolkit
from rods_jax.environments.protocol import STRATA, Stratum, TaskSplits
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.held_out import TOTALS, scores
from rods_jax.rewards import progress_reward
from rods_jax.types import Call, Task, Turn, World


def make(name: str, number: int, category: str = "base") -> Task:
    """Its words are its own: no two numbers share a run of five."""
    words = " ".join(f"w{number}x{place}" for place in range(8))
    return Task(f"{name}_{number}", f"{name}_{number}", category, World((), {}), (Turn(words, (Call(f"f{number}"),)),))


SEEDS = tuple(make("seed", number, tuple(STRATA)[number % 4]) for number in range(8))
HELD_OUT = tuple(make("held", 10 + number, tuple(STRATA)[number % 4]) for number in range(4))
TASKS = TaskSplits(seeds=SEEDS, held_out=HELD_OUT)
COLD_START = ColdStartConfig(
    learning_rate=1e-3,
    habits=Habits(),
    batch_size=1,
    suffix_sizes=(64,),
    max_steps=7,
    target_reward=0.5,
    evaluate_every=1,
    rounds=125,  # of eight tasks: a thousand demonstrations
)


def stage(name: str, synthesis: bool = False, categories=tuple(STRATA)) -> StageConfig:
    return StageConfig(name=name, reward=progress_reward, epochs=1, synthesis=synthesis, categories=categories)


def test_nothing_is_said_of_a_run_without_oddities():
    assert check_start(CONFIG, TASKS, WORKPLACE) == ()


@pytest.mark.parametrize(
    "changes, tasks, words",
    [
        (
            {"stages": (stage("first"), stage("second", categories=("base",)))},
            TASKS._replace(seeds=SEEDS[:5]),
            "is 2.* in stages.second: .*base.* there are 1",
        ),
        ({}, TASKS._replace(seeds=()), "stages.online: .* there are 0"),
        ({"retention": RetentionConfig(best=1)}, TASKS, "retention.best is 1 .* validation"),
        ({"cold_start": COLD_START}, TASKS, "cold_start .* practice"),
        (
            {"cold_start": replace(COLD_START, batch_size=1001)},
            TASKS._replace(practice=SEEDS),
            "cold_start.batch_size must be at most its 1000 demonstrations: got 1001",
        ),
        ({}, TASKS._replace(held_out=SEEDS[:4]), "seed_0, seed_1, seed_2 and 1 more both to train on and to measure on"),
        ({}, TASKS._replace(practice=SEEDS[:1], validation=SEEDS[:1]), "seed_0 both"),
        ({}, TASKS._replace(seeds=(*SEEDS, SEEDS[3], SEEDS[1])), "seed_1, seed_3 twice in seeds"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_by_name(changes, tasks, words):
    if "stages" in changes:
        tasks = tasks._replace(
            seeds=tuple(replace(t, category="missing_function") for t in tasks.seeds[1:]) + SEEDS[:1]
        )
    with pytest.raises(ConfigError, match=words):
        check_start(replace(CONFIG, **changes), tasks, WORKPLACE)


def test_practice_tasks_that_nothing_can_demonstrate_are_refused():
    """As the worlds of other libraries: they play by themselves, and bring no demonstrator."""
    config, world = replace(CONFIG, cold_start=COLD_START), WORKPLACE._replace(start=lambda tasks, rules: None)
    with pytest.raises(ConfigError, match="plays gold calls or a demonstrator, and no practice task has either"):
        check_start(config, TASKS._replace(practice=SEEDS), world)


def test_what_an_earlier_stage_may_have_grown_is_not_refused():
    two = replace(CONFIG, stages=(stage("first", synthesis=True), stage("second", categories=("base",))))
    assert check_start(two, TASKS._replace(seeds=SEEDS[1:5]), WORKPLACE) == ()


@pytest.mark.parametrize(
    "changes, tasks, words",
    [
        ({}, TASKS._replace(held_out=()), "no held-out tasks: no score is measured"),
        ({}, TASKS._replace(held_out=HELD_OUT[:3]), "evaluation.num_tasks is 4, and there are 3"),
        ({"mesh": (2, 4, 1, 1)}, TASKS, "the mesh does not divide rollout.group_size: 2 on fsdp 4"),
        ({"cold_start": COLD_START}, TASKS._replace(practice=SEEDS), "no validation tasks: the cold start goes on for 7"),
        (
            {"cold_start": replace(COLD_START, rounds=124)},
            TASKS._replace(practice=SEEDS, validation=(make("valid", 20),)),
            "the cold start has 992 demonstrations: a policy from scratch needs thousands",
        ),
        ({}, TASKS._replace(held_out=(*HELD_OUT[:3], make("copy", 4))), "1 of 4 tasks are equal to .*copy_4"),
        (
            {},
            TASKS._replace(held_out=(*HELD_OUT[:3], replace(make("near", 3), turns=(Turn(SEEDS[3].turns[0].user),)))),
            "1 of 4 tasks share at least 50% .*near_3",
        ),
        (
            {},
            TASKS._replace(held_out=(*HELD_OUT[:3], replace(HELD_OUT[3], scenario="seed_1"))),
            "1 of 4 tasks share a scenario .*held_13",
        ),
        (
            {"replay": replace(CONFIG.replay, max_age=3), "stages": (stage("first", synthesis=True), stage("second"))},
            TASKS,
            "max_age is 3 steps, and an epoch of stages.first has 4: what its first steps write is too old",
        ),
    ],
)  # fmt: skip
def test_what_is_odd_is_said(changes, tasks, words):
    (sentence,) = check_start(replace(CONFIG, **changes), tasks, WORKPLACE)
    assert re.search(words, sentence)


@pytest.mark.parametrize(
    "max_age, stages",
    [(4, (stage("first", True), stage("second"))), (3, (stage("first"), stage("second"))), (3, (stage("one", True),))],
    ids=["an epoch as long", "no synthesis", "no epoch follows"],
)
def test_variants_that_are_young_enough_or_never_written_are_no_oddity(max_age, stages):
    config = replace(CONFIG, replay=replace(CONFIG.replay, max_age=max_age), stages=stages)
    assert check_start(config, TASKS, WORKPLACE) == ()


def test_a_stratum_that_the_domain_has_not_is_named():
    odd = replace(CONFIG, stages=(stage("only", categories=("base", "hard")),))
    with pytest.raises(ConfigError, match="stages.only.categories names the stratum 'hard': the domain's are base, "):
        check_start(odd, TASKS, WORKPLACE)
    easy = TASKS._replace(seeds=(replace(SEEDS[0], category="easy"), *SEEDS[1:]))
    with pytest.raises(ConfigError, match="task seed_0 names the stratum 'easy': the domain's are base, "):
        check_start(CONFIG, easy, WORKPLACE)
    assert check_start(CONFIG, easy, WORKPLACE._replace(strata={**STRATA, "easy": Stratum()})) == ()


@pytest.mark.parametrize("name", ["progress", "solved", "failed", "greedy", "greedy_solved", "unfit", "fitting"])
def test_a_stratum_cannot_be_called_as_a_score_of_all_tasks_is(name):
    with pytest.raises(ConfigError, match=f"the stratum '{name}' has the name of a score of all held-out tasks"):
        check_start(CONFIG, TASKS, WORKPLACE._replace(strata={**STRATA, name: Stratum()}))


def test_the_names_of_scores_are_all_of_them():
    unfit = {SEEDS[0].id}
    found = scores("of", [replace(task, category="it") for task in SEEDS[:2]], [0.5, 1.0], [0.5, 1.0], unfit)
    assert {f"of_{name}" for name in (*TOTALS, "it", "greedy_solved_it")} == found.keys()


class Lamp:
    def turn(self, on):
        """Turns it."""


@pytest.mark.parametrize("start", [run.check, run.train])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"domain": lambda: toolkit.domain("lamps", {"Lamp": Lamp})},
            "domain: Lamp.turn: parameter 'on' has no type hint",
        ),
        (
            {"build_tasks": lambda domain, seed: SEEDS},
            "build_tasks must return TaskSplits(seeds=..., held_out=...): got a tuple",
        ),
    ],
)
def test_what_a_function_of_the_configuration_gets_wrong_is_one_sentence(tmp_path, start, changes, sentence):
    config = replace(CONFIG, run_dir=str(tmp_path / "run"), **changes)
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        start(config, console=Console(quiet=True))


@pytest.mark.parametrize("start", [run.check, run.train])
def test_an_author_without_its_key_is_refused_before_weights_are_read(tmp_path, start):
    """Adapters read their base when the learner is made."""

    def backends():
        raise ValueError("the environment variable KEY is not set")

    config = replace(
        CONFIG,
        run_dir=str(tmp_path / "run"),
        synthesis=SynthesisConfig(backends=backends, author=lambda domain: None),
        learner=lambda config: lambda vocab_size: pytest.fail("weights are read"),
    )
    with pytest.raises(ConfigError, match="^synthesis: the environment variable KEY is not set$"):
        start(config, console=Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_a_fault_within_a_function_of_the_configuration_keeps_its_place(tmp_path):
    def domain():
        return len(5)

    with pytest.raises(TypeError, match="has no len"):
        run.check(replace(CONFIG, run_dir=str(tmp_path / "run"), domain=domain), console=Console(quiet=True))
