"""The paper's ablations: each is one key of the configuration, and changes exactly what it names."""

import random
from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grpo_toy import objective_with
from replay_toy import begin, observe, stage
from synthesis_model import LOOSE, Model, seed_of, tags
from synthesis_toy import TASK, TOY

from rods_jax import boundary, grpo, replay
from rods_jax.config import (
    Config,
    EvaluationConfig,
    ReplaySettings,
    RolloutConfig,
    StageConfig,
    SynthesisConfig,
    UpdateConfig,
    differences,
    plain_values,
)
from rods_jax.curriculum import stage_of
from rods_jax.environments.protocol import STRATA
from rods_jax.loop import Position, Stages, train
from rods_jax.rewards import format_reward, progress_reward
from rods_jax.rollout import Rollouts
from rods_jax.synthesis import llm
from rods_jax.synthesis.ask import ROLES
from rods_jax.synthesis.author import Synthesis
from rods_jax.synthesis.courier.dispatch import Dispatch
from rods_jax.synthesis.critique import has_profile
from rods_jax.synthesis.pipeline import synthesize
from rods_jax.synthesis.profile import extract_profile
from rods_jax.types import Call, Policy, RolloutBatch, Task, Turn, World

N, G, U = 8, 4, 4  # tasks of a step, rollouts, turns

CONFIG = Config(
    name="ablation", seed=0, run_dir="", domain=dict, build_tasks=dict, tokenizer=dict, codec=dict, learner=dict,
    cold_start=None, checkpoint_every=100,
    stages=(
        StageConfig(name="format", reward=format_reward, epochs=1, synthesis=False),
        StageConfig(name="online", reward=progress_reward, epochs=4, synthesis=True),
    ),
    rollout=RolloutConfig(
        tasks_per_step=N, group_size=G, max_prompt_tokens=4, max_suffix_tokens=4, max_action_tokens=4,
        observation_chunk=4,
    ),
    update=UpdateConfig(learning_rate=1e-3, ratio=grpo.token_ratio, aggregate=grpo.sequence_mean, quotas=1),
    replay=ReplaySettings(capacity=40, cooldown=2, surplus=100.0),
    evaluation=EvaluationConfig(num_tasks=1, every_epochs=9),
    synthesis=SynthesisConfig(backends=dict, roles=llm.llm_roles),
)  # fmt: skip


def changed(part, **values) -> Config:
    if part == "stages":
        return replace(CONFIG, stages=(CONFIG.stages[0], replace(CONFIG.stages[1], **values)))
    return replace(CONFIG, **{part: replace(getattr(CONFIG, part), **values)})


ABLATIONS = {
    "random seed selection": ("update.signal", changed("update", signal=boundary.any_task)),
    "binary accuracy": ("update.signal", changed("update", signal=boundary.binary_band)),
    "no coherence rewrite": ("synthesis.roles", changed("synthesis", roles=llm.without_rewrite)),
    "no narrative planning": ("synthesis.roles", changed("synthesis", roles=llm.without_narrative)),
    "no feedback loop": ("synthesis.roles", changed("synthesis", roles=llm.without_feedback)),
    "no retirement": ("replay.retire_generated", changed("replay", retire_generated=False)),
    "static pool": ("stages.1.refresh", changed("stages", refresh=False)),
}


@pytest.mark.parametrize("key, config", ABLATIONS.values(), ids=ABLATIONS)
def test_each_is_one_key(key, config):
    assert differences(plain_values(CONFIG), plain_values(config)) == (key,)


# ------------------------------------------------------------------------- a run without a network
def task(name, category="base", ancestry=()):
    turns = tuple(Turn(f"{name}, {turn}", (Call("f", {"x": name}),)) for turn in range(U))
    return Task(name, name, category, World(("C",), {}), turns, ancestry)


SEEDS = [task(f"h{i}", tuple(STRATA)[i % 4]) for i in range(16)]


def passed_checks(task, step):
    """What the policy can do is up to the root: from nothing to everything; 2 of 4 is partly right in each rollout."""
    root = int((task.ancestry or (task.id,))[0][1:])
    kinds = ([0] * G, [2] * G, [4, 4, 0, 2], [4] * G)
    return random.Random(f"{task.id} {step}").sample(kinds[root // 4], G)


def batch_of(tasks, step) -> RolloutBatch:
    passed = np.array([passed_checks(task, step) for task in tasks], np.int32)
    rng = np.random.default_rng(step)
    n, tokens = len(tasks), rng.integers(0, 5, (len(tasks), G, 3)).astype(np.int32)
    ones = np.ones(n, np.int32)
    return RolloutBatch(
        tokens[:, 0], 3 * ones, tokens, np.full((n, G), 3, np.int32), np.ones((n, G, 3), bool),
        np.full((n, G, 3), -1.5, np.float32), (passed / U).astype(np.float32), np.ones((n, G), bool), passed,
        U * ones,
    )  # fmt: skip


POLICY = Policy(
    init=lambda key: {"embedding": jax.random.normal(key, (5, 6))},
    forward=lambda params, prompt, lengths, suffix: params["embedding"][suffix],
    unembedding=lambda params: params["embedding"],
    prefill=None,
    empty=None,
    extend=None,
)
UPDATES = {}


def update_of(config):
    """(update, first state) with the config's signal, compiled once for each."""
    signal = config.update.signal
    if signal not in UPDATES:
        objective = objective_with(signal=signal, kl_coefficient=0.0, entropy_coefficient=0.0)
        update = jax.jit(
            lambda state, batch, standing: grpo.update_step(
                state,
                batch,
                standing,
                1.0,
                policy=POLICY,
                optimizer=optax.sgd(0.1),
                objective=objective,
                quotas=(1,) * 4,
            )
        )
        UPDATES[signal] = update, objective
    update, objective = UPDATES[signal]
    return update, grpo.create_state(POLICY.init(jax.random.key(0)), optax.sgd(0.1), objective)


def run(config):
    """The loop: where it ended, what it recorded, the seeds that it dispatched as (step, task), its batches."""
    records, dispatched, batches = [], [], []
    compiled, state = update_of(config)

    def update(state, batch, standing):
        batches.append((batch, standing))
        return compiled(state, batch, standing)

    def write(orders, step, known):
        dispatches = []
        for seed, _ in orders:
            name = f"{seed.id}~{step}"
            variant = task(name, seed.category, (*seed.ancestry, seed.id))
            dispatched.append((step, seed))
            dispatches.append(Dispatch(seed, step, Synthesis(variant)))
        return dispatches

    stages = Stages(
        collect=lambda params, tasks, step, stage, sizes: Rollouts(batch_of(tasks, step), ()),
        update=update,
        synthesize=write,
        renew=lambda state: state,
        evaluate=lambda params, step: {},
        record=lambda step, values: records.append(dict(values, step=step)),
        show=lambda *_: None,
        save=lambda position, metrics: None,
        stop=lambda: False,
    )
    position = train(config, tuple(STRATA), SEEDS, (), stages, Position(state, replay.create(SEEDS, config.replay)))
    return position, records, dispatched, batches


@pytest.fixture(scope="module")
def full():
    return run(CONFIG)


def epochs_of(records):
    return {record["step"] - 1: record["epoch"] for record in records[1:]}


def test_the_full_method_on_this_world(full):
    """Everything that an ablation takes away happens here."""
    _, records, dispatched, _ = full
    roots = Counter(int((seed.ancestry or (seed.id,))[0][1:]) // 4 for _, seed in dispatched)
    assert set(roots) == {1, 2}  # partly right, sometimes right; neither never nor always
    assert {epochs_of(records)[step] for step, _ in dispatched} == {1, 2, 3}  # none is written for nobody
    assert records[-1]["injected"] > 8 and records[-1]["pool_active"] > 5


# ---------------------------------------------------------------------------------------- detection
def differing(a, b):
    """The names of the parts of a feedback that are not bit-equal."""
    return [name for name, x, y in zip(a._fields, a, b) if not jax.tree.all(jax.tree.map(np.array_equal, x, y))]


@pytest.mark.parametrize("name", ["random seed selection", "binary accuracy"])
def test_detection_changes_the_seeds_and_nothing_else(name):
    tasks = [SEEDS[i] for i in (0, 1, 4, 5, 8, 9, 12, 13)]  # two of each kind and category
    batch, known = batch_of(tasks, 0), replay.standing(replay.create(SEEDS, CONFIG.replay), tasks, 0, tuple(STRATA))
    (update, state), (other, _) = update_of(CONFIG), update_of(ABLATIONS[name][1])
    (after, feedback), (other_after, other_feedback) = update(state, batch, known), other(state, batch, known)
    jax.tree.map(np.testing.assert_array_equal, after, other_after)
    assert differing(feedback, other_feedback) == ["seeds"]
    expected = {
        "random seed selection": [0, 1, -1, -1],  # the first of each category, hard as they are
        "binary accuracy": [4, 5, -1, -1],  # half of their rollouts pass every turn
    }
    assert other_feedback.seeds.indices_k.tolist() == expected[name]
    assert feedback.seeds.indices_k.tolist() == [2, 3, -1, -1]  # 2 of 4 turns in each rollout: r = 0.5


def test_any_task_of_a_shuffled_epoch_is_a_uniform_draw():
    state = replay.create(SEEDS, CONFIG.replay)
    select = jax.jit(
        lambda categories: (
            boundary.select_seeds(
                jnp.zeros(N), jnp.ones(N, int), categories, jnp.ones(N, bool), quotas=(1,) * 4
            ).indices_k
        )
    )
    counts, epochs = Counter(), 300
    for epoch in range(epochs):
        for tasks in replay.epoch_batches(state, seed=0, epoch=epoch, batch_size=N):
            chosen = select(np.array([tuple(STRATA).index(task.category) for task in tasks]))
            counts.update(tasks[index].id for index in chosen.tolist() if index >= 0)
    expected = sum(counts.values()) / len(SEEDS)
    chi_square = sum((counts[task.id] - expected) ** 2 / expected for task in SEEDS)
    assert expected > 100 and chi_square < 37.7  # 0.1 % of the distribution with 15 degrees lies above


def test_the_update_sees_what_was_measured_before():
    config = changed("replay", half_life=10.0)
    _, records, _, batches = run(config)
    seen = {}  # task: (step, passed, total) of each visit
    for record, (batch, standing) in zip(records[1:], batches, strict=True):
        step = record["step"] - 1
        for i, name in enumerate(record["task_ids"]):
            visits = seen.setdefault(name, [])
            weights = [2 ** ((then - step) / 10) for then, _ in visits]
            passed = sum(w * x for w, (_, x) in zip(weights, visits, strict=True))
            np.testing.assert_allclose(standing.earlier_passed_N[i], passed, rtol=1e-5)
            np.testing.assert_allclose(standing.earlier_total_N[i], G * U * sum(weights), rtol=1e-5)
            visits.append((step, int(batch.passed_NG[i].sum())))
            del visits[: -config.replay.history]
    assert max(map(len, seen.values())) > 2


def test_random_selection_in_the_loop(full):
    _, _, dispatched, _ = run(ABLATIONS["random seed selection"][1])
    roots = Counter(int((seed.ancestry or (seed.id,))[0][1:]) // 4 for _, seed in dispatched)
    assert set(roots) == {0, 1, 2, 3}
    steps = {}  # the cooldown still holds
    for step, seed in dispatched:
        assert step - steps.get(seed.id, -9) >= CONFIG.replay.cooldown
        steps[seed.id] = step


# ---------------------------------------------------------------------------------------- the pool
def test_without_retirement_everything_that_was_injected_stays():
    """Each generated task never passes, or always does; the same candidates wait in both pools."""
    pools = {}
    for config in (CONFIG, ABLATIONS["no retirement"][1]):
        state = replay.create(SEEDS, replace(config.replay, retire_seeds=True))
        state = stage(state, [task(f"g{i}", ancestry=("h0",)) for i in range(5)], 0)
        state, first = begin(state, 1)
        for item in list(state.items):
            state = observe(state, item.task.id, 0 if item.task.id in ("g0", "h0") else 20, 20, 1)
        state, second = begin(state, 2)
        pools[config] = first, [(entry.task_id, entry.reason) for entry in second.retired], state
    (first, retired, _), (other_first, other_retired, state) = pools.values()
    assert first == other_first and first.injected == ("g0", "g1", "g2")
    seeds = [(f"h{i}", "mastered") for i in range(1, 16)]  # human seeds have a switch of their own
    assert retired == [*seeds, ("g0", "hard"), ("g1", "mastered"), ("g2", "mastered")]
    assert other_retired == seeds
    assert [item.task.id for item in state.items] == ["h0", "g0", "g1", "g2"]


def test_no_retirement_in_the_loop():
    """Random seeds bring hard and mastered variants, which leave a pool that retires and stay in one that does not."""
    config = ABLATIONS["random seed selection"][1]
    gone = [
        sum(run(replace(config, replay=pool))[1][-1][f"retired_{reason}"] for reason in ("hard", "mastered"))
        for pool in (CONFIG.replay, ABLATIONS["no retirement"][1].replay)
    ]
    assert gone[0] > 0 and gone[1] == 0


def test_a_static_pool_is_generated_in_the_first_epoch_of_the_stage(full):
    config = ABLATIONS["static pool"][1]
    assert [stage_of(config, epoch)[0].synthesis for epoch in range(5)] == [False, True, False, False, False]
    assert [stage_of(CONFIG, epoch)[0].synthesis for epoch in range(5)] == [False, True, True, True, True]
    _, records, dispatched, _ = run(config)
    _, full_records, full_dispatched, _ = full
    epochs = epochs_of(full_records)
    assert dispatched and dispatched == [(step, seed) for step, seed in full_dispatched if epochs[step] == 1]
    assert records[-1]["injected"] == len(dispatched) < full_records[-1]["injected"]
    until = [record for record in records if record["epoch"] <= 1]
    same = [record["task_mean"].tolist() if record["step"] else None for record in until]
    assert same == [r["task_mean"].tolist() if r["step"] else None for r in full_records[: len(until)]]


# --------------------------------------------------------------------------------------- synthesis
def write(model, name, seed=TASK, rng=0):
    roles = (ABLATIONS[name][1] if name else CONFIG).synthesis.roles(dict.fromkeys(ROLES, model))
    return synthesize(TOY, seed, rng=random.Random(rng), step=3, known_hashes=(), roles=roles)


@pytest.mark.parametrize("category", STRATA)
def test_without_rewrite_the_same_calls_keep_their_first_wording(category):
    full, other = Model(), Model()
    with_rewrite = write(full, None, seed_of(category))
    without = write(other, "no coherence rewrite", seed_of(category))
    expected, found = with_rewrite.candidate, without.candidate
    assert with_rewrite.rejections == without.rejections and "rewriter" in full.roles()
    assert other.roles() == [role for role in full.roles() if role != "rewriter"]
    assert [turn.gold for turn in found.turns] == [turn.gold for turn in expected.turns]
    assert found.world.state == expected.world.state
    said = [(a.user, b.user) for a, b in zip(found.turns, expected.turns, strict=True) if a.gold and b.gold]
    assert all("Ada here" not in ours for ours, _ in said) and any("Ada here" in theirs for _, theirs in said)


@pytest.mark.parametrize("category", STRATA)
def test_without_narrative_the_rules_draw_the_functions_and_nobody_is_told_a_story(category):
    seed, accepted = seed_of(category), 0
    for rng in range(6):
        result = write(model := Model(rng), "no narrative planning", seed, rng)
        assert "planner" not in model.roles()
        assert all(data["narrative"] == "" for _, data in model.asked if "narrative" in data)
        if result.candidate is not None:
            accepted += 1
            assert has_profile(extract_profile(TOY, seed))(TOY, result.candidate) is None
            assert {"arguments", "query", "verifier", "rewriter", "judge"} <= set(model.roles())
    assert accepted >= 2


def test_a_drawn_plan_keeps_the_layout_whole():
    """Four functions in one turn, one of them twice."""
    gold = tuple(call for turn in TASK.turns for call in turn.gold if call.name != "deposit_cash")
    one_turn = replace(TASK, turns=(Turn(TASK.turns[0].user, (*gold, gold[0])),))
    result = write(Model(), "no narrative planning", one_turn)
    plans = [rejection.plan for rejection in result.rejections]
    plans += [[[call.name for call in turn.gold] for turn in result.candidate.turns]] if result.candidate else []
    assert plans and all([len(turn) for turn in plan] == [4] for plan in plans if plan)


def test_without_feedback_an_attempt_knows_nothing_of_the_ones_before_it():
    def broken(data):
        names = data["function"]["parameters"]["properties"]
        return tags(reasoning="", arguments='{"book_id": 0}') if list(names) == ["book_id"] else None

    def model():
        good = Model()
        return Model(arguments=lambda data: broken(data) or good.arguments(data))

    full, other = model(), model()
    expected, result = write(full, None, LOOSE), write(other, "no feedback loop", LOOSE)
    assert expected.rejections[0] == result.rejections[0] and expected.rejections[0].error == "vm_exec_failed"
    asked = {name: [data for role, data in m.asked if role == "planner"] for name, m in (("f", full), ("o", other))}
    assert [len(data["failures"]) for data in asked["f"]][:2] == [0, 1] and asked["f"][1]["blocked"]
    assert len(asked["o"]) == 3 and asked["o"][0] == asked["o"][1] == asked["o"][2] == asked["f"][0]
    assert "patcher" in full.roles() and "patcher" not in other.roles()
    assert [rejection.attempt for rejection in result.rejections] == [0, 1, 2]  # recorded all the same


def test_without_feedback_a_seed_that_needs_none_is_unchanged():
    full, other = Model(), Model()
    assert write(full, None) == write(other, "no feedback loop")
    assert full.asked == other.asked
