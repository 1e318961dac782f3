"""Dynamic filtering: which groups teach, how many tasks are played in the place of the others, and what is measured."""

from dataclasses import replace

import numpy as np
import pytest

from rods_jax import grpo, processes, replay
from rods_jax.boundary import Seeds
from rods_jax.config import Config, EvaluationConfig, ReplaySettings, RolloutConfig, StageConfig, UpdateConfig
from rods_jax.filtering import joined, mixed, play_until_full, unsolved, varied
from rods_jax.group_statistics import group_statistics
from rods_jax.grpo import Feedback
from rods_jax.loop import Position, Stages, train
from rods_jax.rewards import progress_reward
from rods_jax.rollout import Rollouts, reasons_of
from rods_jax.run.display import warnings
from rods_jax.types import RolloutBatch, Task, TrainState, Trajectory, Turn, World

G, CHECKS = 4, 2


def task(name: str) -> Task:
    return Task(name, name, "base", World(()), (Turn("?"),))


def played(outcomes: dict[str, tuple[int, ...]], sizes: list[int], failing: frozenset[str] = frozenset()):
    """(tasks) -> rollouts in which each task's rollouts pass so many checks; `sizes` gets how many tasks were asked."""

    def play(tasks, group_sizes=None) -> Rollouts:
        sizes.append(len(tasks))
        tasks = processes.share_of(tasks)
        there_NG = np.arange(G) < np.array(group_sizes or [G] * len(tasks))[:, None]
        n, width = len(tasks), 3 + len(sizes)  # each round is wider than the one before
        passed_NG = np.array([outcomes[one.id] for one in tasks], np.int32).reshape(n, G)
        suffixes = np.broadcast_to(np.array([int(one.id) for one in tasks], np.int32)[:, None, None], (n, G, width))
        batch = RolloutBatch(
            prompt_tokens_NP=np.array([[int(one.id)] for one in tasks], np.int32).reshape(n, 1),
            prompt_lengths_N=np.ones(n, np.int32),
            suffix_tokens_NGS=suffixes,
            suffix_lengths_NG=np.full((n, G), width, np.int32),
            action_mask_NGS=np.ones((n, G, width), bool),
            behavior_log_probs_NGS=np.zeros((n, G, width), np.float32),
            rewards_NG=(passed_NG / CHECKS).astype(np.float32),
            valid_NG=there_NG & np.array([[one.id not in failing] for one in tasks]).reshape(n, 1),
            passed_NG=passed_NG,
            checks_N=np.full(n, CHECKS, np.int32),
        )
        trajectories = tuple(
            Trajectory(one.id, g, (True,) * CHECKS, (), failure="no machine" if one.id in failing else None)
            for one in tasks
            for g in range(G)
        )
        return Rollouts(
            batch,
            trajectories,
            generated=10 * n,
            read=n,
            flops=100.0 * n,
            reasons=reasons_of(trajectories),
        )

    return play


MIXED, SOLVED, FAILED, PARTLY = (2, 2, 0, 1), (2, 2, 2, 2), (0, 0, 0, 0), (1, 1, 0, 1)


def test_which_groups_teach():
    tell = lambda keep: [keep(np.array(group), CHECKS) for group in (MIXED, SOLVED, FAILED, PARTLY)]
    assert tell(mixed) == [True, False, False, False]  # no rollout of the last passes every check
    assert tell(unsolved) == [True, False, True, True]
    fifteen, all_sixteen = np.array([2] * 15 + [0]), np.array([2] * 16)
    assert unsolved(fifteen, CHECKS) and not unsolved(all_sixteen, CHECKS)  # 0.9375 and 1 against 0.95


def test_what_lacks_is_played_again_at_the_share_that_was_kept():
    kinds = [MIXED, SOLVED, FAILED, MIXED] + [MIXED] * 8  # half of the first four teach
    tasks, sizes = [task(str(n)) for n in range(len(kinds))], []
    found = play_until_full(
        played({str(n): kind for n, kind in enumerate(kinds)}, sizes), tasks, size=4, keep=mixed, cap=12
    )
    # Two lack, and a half was kept: four more are played, of which all teach; two are too many.
    assert sizes == [4, 4] and found.played == 8 and found.kept == 4
    assert [one.id for one in found.tasks] == ["0", "3", "4", "5"]
    assert [one[:6] for one in found.dropped] == [
        ("1", 8, 8, 2, 2, 2), ("2", 0, 8, 0, 0, 2), ("6", 5, 8, 0, 2, 2), ("7", 5, 8, 0, 2, 2)
    ]  # fmt: skip
    assert [(one.mean, one.variance) for one in found.dropped[:2]] == [(1.0, 0.0), (0.0, 0.0)]
    for one in found.dropped[2:]:
        assert (one.mean, one.variance) == (np.float32(MIXED).mean() / CHECKS, np.var(np.array(MIXED) / CHECKS))
    batch = found.rollouts.batch
    assert batch.valid_NG.all() and batch.suffix_tokens_NGS.shape == (4, G, 5)  # as wide as the second round
    np.testing.assert_array_equal(batch.suffix_tokens_NGS[:2, :, 4], 0)
    np.testing.assert_array_equal(batch.suffix_tokens_NGS[:, 0, 0], [0, 3, 4, 5])
    assert [one.task_id for one in found.rollouts.trajectories[::G]] == ["0", "3", "4", "5"]
    assert (found.rollouts.generated, found.rollouts.read, found.rollouts.flops) == (80, 8, 800.0)


@pytest.mark.parametrize(("cap", "num_tasks"), [(8, 20), (100, 8), (0, 4)])
def test_a_step_ends_at_the_cap_or_with_the_epoch_and_free_places_teach_nothing(cap, num_tasks):
    kinds = {str(n): MIXED if n == 1 else FAILED for n in range(num_tasks)}
    sizes: list[int] = []
    found = play_until_full(played(kinds, sizes), [task(str(n)) for n in range(num_tasks)], size=4, keep=mixed, cap=cap)
    assert found.played == sum(sizes) == min(max(cap, 4), num_tasks) and found.kept == 1
    assert [one.id for one in found.tasks] == ["1", "0", "2", "3"]
    np.testing.assert_array_equal(found.rollouts.batch.valid_NG[:, 0], [True, False, False, False])
    assert len(found.dropped) == found.played - 1


def test_a_broken_group_is_neither_kept_nor_a_measurement():
    sizes: list[int] = []
    play = played({str(n): MIXED for n in range(4)}, sizes, failing=frozenset("0"))
    found = play_until_full(play, [task(str(n)) for n in range(4)], size=2, keep=mixed, cap=4)
    assert [one.id for one in found.tasks] == ["1", "2"] and [one[:6] for one in found.dropped] == [
        ("3", 5, 8, 0, 2, 2)
    ]


# ------------------------------------------------------------------------------------------ in a run
KINDS = {"a": MIXED, "b": SOLVED, "c": FAILED, "d": MIXED, "e": SOLVED, "f": FAILED}
SEEDS = [task(str(ord(name))) for name in KINDS]
CONFIG = Config(
    name="filtered", seed=0, run_dir="", domain=dict, build_tasks=dict, tokenizer=dict, codec=dict, learner=dict,
    cold_start=None, checkpoint_every=100,
    stages=(StageConfig(name="online", reward=progress_reward, epochs=3, synthesis=False),),
    rollout=RolloutConfig(
        tasks_per_step=2, group_size=G, max_prompt_tokens=4, max_suffix_tokens=4, max_action_tokens=4, keep=mixed,
        refill=1.5,
    ),
    update=UpdateConfig(
        learning_rate=1e-3, ratio=grpo.token_ratio, aggregate=grpo.sequence_mean, quotas=1, count_dropped=True
    ),
    replay=ReplaySettings(), evaluation=EvaluationConfig(num_tasks=1, every_epochs=9),
)  # fmt: skip


def numbered(kinds):
    return {str(ord(name)): kind for name, kind in kinds.items()}


def run(
    config: Config = CONFIG,
    start: Position | None = None,
    until: int = 10**9,
    kinds=lambda step: KINDS,
    failing=frozenset(),
):
    """(the records of the steps, the weights of each update, where it stopped)"""
    records, weights, sizes = [], [], []

    def update(state, batch, standing):
        weights.append(standing.weights_N.tolist())
        statistics = group_statistics(batch.rewards_NG, batch.valid_NG)
        passed_N = np.where(batch.valid_NG, batch.passed_NG, 0).sum(1)
        total_N = batch.valid_NG.sum(1) * batch.checks_N
        low_N, high_N = batch.passed_NG.min(1), batch.passed_NG.max(1)
        seeds = Seeds(np.array([-1]), 1)
        rewards = batch.rewards_NG[batch.valid_NG]
        without = float(np.mean(statistics.variance_N == 0))
        rewards_mean = rewards.mean() if rewards.size else 0.0
        metrics = {"reward_mean": rewards_mean, "valid_rollouts": rewards.size, "zero_variance": without}
        return state, Feedback(statistics, passed_N, total_N, low_N, high_N, batch.checks_N, None, seeds, metrics)

    stages = Stages(
        collect=lambda params, tasks, step, stage, group_sizes: played(numbered(kinds(step)), sizes, failing=failing)(
            tasks, group_sizes
        ),
        update=update,
        synthesize=lambda *_: (),
        renew=lambda state: state,
        evaluate=lambda params, step: {},
        record=lambda step, values: records.append(dict(values)),
        show=lambda *_: None,
        save=lambda position, metrics: None,
        stop=lambda: len(weights) >= until,
    )
    start = start or Position(TrainState(None, None, None, 0), replay.create(SEEDS, config.replay))
    position = train(config, ("base",), SEEDS, (), stages, start)
    return [one for one in records if "task_ids" in one], weights, position


def test_the_loop_fills_its_batches_and_resumes_within_an_epoch():
    whole, weights, final = run()
    # Of six tasks two teach, so that most steps play three of them.
    assert 6 <= len(whole) <= 9 and all(one["tasks_kept"] <= 2 <= one["tasks_played"] for one in whole)
    assert sum(one["tasks_played"] for one in whole) >= 3 * len(SEEDS)
    assert weights == [[pytest.approx(one["tasks_kept"] / one["tasks_played"])] * 2 for one in whole]
    assert all(one["tasks_played"] == 3 or one["tasks_kept"] == 2 for one in whole)  # no step ends with its epoch
    for one in whole:  # a dropped group in a free place has what it measured
        for name, mean in zip(one["task_ids"], one["task_mean"], strict=True):
            assert mean == pytest.approx(np.mean(KINDS[chr(int(name))]) / CHECKS)
    for item in final.replay.seeds:  # what was dropped is measured too, at least once in each epoch
        assert len(item.measurements) >= 3
        assert {one.passed for one in item.measurements} == {sum(KINDS[chr(int(item.task.id))])}
    first, _, stopped = run(until=1)
    rest, _, resumed = run(start=stopped)
    steps = lambda records: [(one["task_ids"], one["tasks_played"]) for one in records]
    assert stopped.place > 0 and steps(first + rest) == steps(whole)
    assert resumed.replay == final.replay and resumed.step == final.step


def test_a_group_that_was_hardly_played_has_no_mean_in_the_record():
    unfiltered = replace(CONFIG, rollout=replace(CONFIG.rollout, keep=None))
    records, _, _ = run(unfiltered, failing=frozenset([str(ord("a"))]))
    means = {name: mean for one in records for name, mean in zip(one["task_ids"], one["task_mean"], strict=True)}
    assert [name for name, mean in means.items() if np.isnan(mean)] == [str(ord("a"))]
    assert all(one["rollouts_played"] == 2 * G for one in records)


def test_a_limit_of_steps_that_lies_behind_a_run_ends_it_at_once():
    _, _, stopped = run(until=3)
    assert stopped.step == 3
    for limit in (3, 2):
        _, _, resumed = run(replace(CONFIG, max_steps=limit), start=stopped)
        assert resumed.step == 3


def test_without_a_filter_every_group_is_learnt_from_with_weight_1():
    unfiltered = replace(CONFIG, rollout=replace(CONFIG.rollout, keep=None))
    records, weights, _ = run(unfiltered)
    assert len(records) == 9 and weights == [[1.0, 1.0]] * 9 and not any("tasks_played" in one for one in records)


def test_the_filter_sees_valid_rollouts_alone():
    play, seen = played({str(n): (2, 2, 0, 2) for n in range(2)}, []), []

    def one_failed(tasks):
        found = play(tasks)
        found.batch.valid_NG[:, 2] = False
        return found

    keep = lambda passed_g, checks: bool(seen.append(passed_g.tolist()))
    play_until_full(one_failed, [task("0"), task("1")], size=2, keep=keep, cap=2)
    assert seen == [[2, 2, 2]] * 2


def test_a_steps_failures_and_cut_episodes_are_those_of_all_its_rounds():
    batch = played({"1": MIXED}, [])([task("1")]).batch
    reasons = {"failures": {"no disk": 1}}, {"failures": {"no disk": 1, "no machine": 1}, "ended": {"stop": 5}}
    rounds = [Rollouts(batch, (), truncated=t, reasons=some) for t, some in zip((4, 8), reasons)]
    found = joined(rounds[:1], rounds)
    assert (found.failed, found.truncated) == (3, 12)


def test_a_step_says_why_rollouts_failed_whose_groups_got_no_place():
    """The world of one of four tasks is down; it is played, and another in its place."""
    kinds = dict.fromkeys(KINDS, MIXED)
    records, _, _ = run(
        replace(CONFIG, rollout=replace(CONFIG.rollout, refill=3.0)),
        kinds=lambda step: kinds,
        failing=frozenset([str(ord("d"))]),
    )
    [record] = [one for one in records if one["failed_rollouts"]][:1]
    assert str(ord("d")) not in record["task_ids"] and record["failures"] == {"no machine": G}
    # Where nothing else may be played its place stays free, and the record says so though nothing was dropped.
    records, _, _ = run(
        replace(CONFIG, rollout=replace(CONFIG.rollout, refill=1.0)),
        kinds=lambda step: kinds,
        failing=frozenset([str(ord("d"))]),
    )
    [record] = [one for one in records if one["failed_rollouts"]][:1]
    assert (record["tasks_kept"], record["tasks_played"]) == (1, 2) and record["failures"] == {"no machine": G}
    said: list[str] = []
    warnings(said.append)(1, record)
    assert [one.partition(",")[0] for one in said] == ["step 1: 1 of 2 places hold a task that teaches"]


def test_gates_are_inclusive():
    assert unsolved(np.array([2] * 19 + [0]), 2)  # 0.95 of 20
    assert varied(np.array([1, 1, 1, 1, 1, 1, 0, 0]), 1, least=0.75)  # 12/64 of 16/64
    assert varied(np.array([4, 4, 4, 4, 4, 4, 3, 3]), 4, least=0.75)  # success, not progress
    assert not varied(np.array([3, 3, 3, 3, 0, 0, 0, 0]), 4)  # nobody succeeds
