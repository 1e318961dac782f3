"""Rollouts of a tiny decoder: what was sampled is what is learned from, and no schedule changes a bit of it."""

import itertools
import threading
import time
from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rollout_toy import OTHERS, SIZES, STOP, TASKS, G, N, V, actions_of, compiled, gather

from models.decoder import DecoderConfig
from models.policy import callables
from rods_jax import rollout
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.generation import Sampling
from rods_jax.synthesis.author import orders_of
from rods_jax.types import Policy


@pytest.fixture(scope="module")
def policy():
    return Policy(**callables(DecoderConfig(V, 1, 16, 2, 1, 8, 16)))


@pytest.fixture(scope="module")
def play(policy):
    return compiled(policy)


@pytest.fixture(scope="module")
def params(policy):
    """Random, but it likes to stop: some episodes end, some are cut by the limit."""
    params = jax.tree.map(lambda x: x * 2, policy.init(jax.random.key(0)))
    embedding = 0.04 * jax.random.normal(jax.random.key(1), params["embedding"].shape)
    return params | {"embedding": embedding.at[STOP].multiply(6)}


HOT = Sampling(temperature=0.9)


@pytest.fixture(scope="module")
def sampled(params, play):
    return gather(params, play, sampling=HOT)


def test_behavior_log_probs_equal_the_updates_recomputation(policy, params, sampled):
    batch = sampled.batch
    hidden = jax.jit(policy.forward)(params, batch.prompt_tokens_NP, batch.prompt_lengths_N, batch.suffix_tokens_NGS)
    logits = jnp.einsum("ngsd,vd->ngsv", hidden, policy.unembedding(params)) / HOT.temperature
    taken = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.suffix_tokens_NGS[..., None], -1)[..., 0]
    mask = batch.action_mask_NGS
    assert mask.sum() > 300 and (~mask[:, :, : SIZES.observation_chunk]).any()
    np.testing.assert_allclose(taken[mask], batch.behavior_log_probs_NGS[mask], atol=1e-4)
    assert (batch.behavior_log_probs_NGS[~mask] == 0).all() and (batch.behavior_log_probs_NGS[mask] < 0).mean() > 0.9


def test_sampled_tokens_are_the_trajectories_steps(sampled):
    batch, trajectories = sampled.batch, sampled.trajectories
    ended = 0
    for n, g in np.ndindex(N, G):
        one = trajectories[n * G + g]
        assert actions_of(batch, n, g) == [step.text for step in one.steps]
        length = batch.suffix_lengths_NG[n, g]
        assert not batch.action_mask_NGS[n, g, length:].any() and batch.action_mask_NGS[n, g, 0]
        ended += sum(step.code in (0, 1) for step in one.steps)
    assert ended  # some messages were answers, with a stop of the policy's own


def test_the_same_call_gives_the_same_bits(params, play, sampled):
    again = gather(params, play, sampling=HOT)
    assert again.trajectories == sampled.trajectories
    for before, after in zip(sampled.batch, again.batch):
        np.testing.assert_array_equal(before, after)
    for changed in (dict(seed=1), dict(step=1)):
        assert gather(params, play, sampling=HOT, **changed).trajectories != sampled.trajectories
    assert any(a.steps != b.steps for a, b in zip(sampled.trajectories[::G], sampled.trajectories[1::G]))


def test_a_task_does_not_feel_its_place_or_its_company(params, play, sampled):
    order = [2, 0, 3, 1]
    moved = gather(params, play, sampling=HOT, tasks=[TASKS[n] for n in order])
    among_others = gather(params, play, sampling=HOT, tasks=[OTHERS[0], OTHERS[1], TASKS[2], OTHERS[3]])
    for place, n in enumerate(order):
        assert moved.trajectories[place * G : place * G + G] == sampled.trajectories[n * G : n * G + G]
    assert among_others.trajectories[2 * G : 3 * G] == sampled.trajectories[2 * G : 3 * G]
    for name in sampled.batch._fields:
        whole = getattr(sampled.batch, name)
        np.testing.assert_allclose(getattr(moved.batch, name), whole[order], atol=1e-5)
        np.testing.assert_allclose(getattr(among_others.batch, name)[2], whole[2], atol=1e-5)


def test_rows_beyond_a_tasks_size_are_not_played_and_the_others_stay_as_they_are(params, play, sampled):
    sizes, started = [2, 1, 1, 2], []

    def start(tasks):
        started.extend(task.id for task in tasks)
        return start_episodes(WORKPLACE, tasks)

    fewer = gather(params, play, sampling=HOT, start=start, group_sizes=sizes)
    there_NG = np.arange(G) < np.array(sizes)[:, None]
    assert started == [task.id for task, size in zip(TASKS, sizes) for _ in range(size)]
    np.testing.assert_array_equal(fewer.batch.valid_NG, there_NG)
    for name in (name for name in fewer.batch._fields if "NG" in name):
        np.testing.assert_allclose(
            getattr(fewer.batch, name)[there_NG], getattr(sampled.batch, name)[there_NG], atol=1e-5
        )
        assert not getattr(fewer.batch, name)[~there_NG].any()
    np.testing.assert_array_equal(fewer.batch.checks_N, sampled.batch.checks_N)
    assert [one.played for one in fewer.trajectories] == there_NG.ravel().tolist() and fewer.failed == 0
    assert all(one == other for one, other in zip(fewer.trajectories, sampled.trajectories) if one.played)
    assert [len(order.trajectories) for order in orders_of(TASKS, fewer.trajectories)] == sizes


# ------------------------------------------------------------------------------------- who waits for whom
def late(delays):
    """Episodes that answer the k-th time only after the k-th of some delays, for ever repeated."""
    delays = itertools.cycle(delays)

    def start(tasks):
        batch = start_episodes(WORKPLACE, tasks)

        def act(actions):
            time.sleep(next(delays))
            return batch.act(actions)

        return batch._replace(act=act)

    return start


@pytest.mark.parametrize("segment, patience, share", [(1, 0.0, 0.0), (3, 0.0, 9.0), (48, 20.0, 0.1)])
def test_no_schedule_changes_a_bit(policy, params, sampled, monkeypatch, segment, patience, share):
    """Few or many tokens before the host looks, answers that come late, read at once or when nobody speaks."""
    for name, value in dict(SEGMENT=segment, PATIENCE=patience, SHARE=share).items():
        monkeypatch.setattr(rollout, name, value)
    again = gather(params, compiled(policy), sampling=HOT, start=late([0.0, 0.03, 0.0, 0.1]))
    assert again.trajectories == sampled.trajectories
    for before, after in zip(sampled.batch, again.batch):
        np.testing.assert_array_equal(before, after)


def watched(play, **calls):
    """A player whose generator tells `calls` (by name) what it is called with."""

    def telling(name, tell):
        call = getattr(play.generator, name)

        def called(*arguments):
            tell(*arguments)
            return call(*arguments)

        return called

    return play._replace(
        generator=play.generator._replace(**{name: telling(name, tell) for name, tell in calls.items()})
    )


def test_the_device_goes_on_while_an_environment_thinks(params, play):
    """The first answer is given only when two more segments have been decoded; without overlap it never is."""
    segments, thinking, waited = itertools.count(), threading.Event(), threading.Event()

    def act(*_):
        if thinking.is_set() and next(segments) == 1:
            waited.set()

    def start(tasks):
        batch = start_episodes(WORKPLACE, tasks)

        def answer(actions):
            thinking.set()
            assert waited.wait(60.0), "nothing was decoded meanwhile"
            return batch.act(actions)

        return batch._replace(act=answer)

    assert gather(params, watched(play, act=act), sampling=HOT, start=start).batch.valid_NG.all()


def test_an_environment_that_answers_late_holds_up_nobody(params, play, sampled):
    """One rollout's first answer comes when others have been answered twice; every place is a lane of its own."""
    asked, lock, gone_on = Counter(), threading.Lock(), threading.Event()

    def start(tasks):
        batch = start_episodes(WORKPLACE, tasks)

        def act(actions):
            (place,) = actions
            with lock:
                asked[place] += 1
                if place and asked[place] == 3:
                    gone_on.set()
            if place == 0 and asked[0] == 1:
                assert gone_on.wait(60.0), "the others did not go on"
            return batch.act(actions)

        return batch._replace(act=act, lanes=tuple((place,) for place in range(len(tasks))))

    again = gather(params, play, sampling=HOT, start=start)
    assert again.trajectories == sampled.trajectories
    for before, after in zip(sampled.batch, again.batch):
        np.testing.assert_array_equal(before, after)


def test_a_row_waits_for_no_other_message(params, play):
    """Rows begin their next message while others of their group are in the middle of one."""
    speaking = []
    gather(params, watched(play, act=lambda *a: speaking.append((a[1].said_NG > 0) & a[2])), sampling=HOT)
    between = [np.asarray(said).any(1) & ~np.asarray(said).all(1) for said in speaking]
    assert sum(some.any() for some in between) > len(between) // 4


@pytest.mark.parametrize(
    "slots, rows", [(3, G), (1, 1), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((1, G), (2, 1)))]
)
def test_slots_and_rows_go_to_the_next_task_and_rollout(policy, params, sampled, slots, rows):
    admitted, renewed = [], []
    few = watched(
        compiled(policy, slots, concurrent_rollouts=rows),
        admit=lambda *a: admitted.append(int(a[2])),
        renew=lambda *a: renewed.append(int(a[1].sum())),
    )
    played = gather(params, few, sampling=HOT, start=late([0.0, 0.02]))
    assert sorted(admitted) == sorted(n % slots for n in range(slots, N))
    assert sum(renewed) == N * (G - rows)
    assert played.trajectories == sampled.trajectories
    # Two orders of float32 sums: a few hundred units in the last place of logits near 7, on some processors.
    for name, before, after in zip(sampled.batch._fields, sampled.batch, played.batch):
        np.testing.assert_allclose(before, after, atol=1e-5, rtol=1e-5, err_msg=name)


def test_more_slots_than_tasks_stay_empty(policy, params, sampled):
    played = gather(params, compiled(policy, N + 2), sampling=HOT)
    assert played.trajectories == sampled.trajectories


def test_a_task_that_fails_at_the_start_takes_no_slot(policy, params, sampled):
    bad = replace(TASKS[0], world=replace(TASKS[0].world, classes=("Nowhere",)))
    few = gather(params, compiled(policy, 1), sampling=HOT, tasks=[bad, *TASKS[1:]])
    assert [t.failure is not None for t in few.trajectories] == [True] * G + [False] * (N - 1) * G
    assert few.trajectories[G:] == sampled.trajectories[G:]


def test_nothing_recompiles_in_a_whole_run(policy, params):
    """Any tasks, sampling settings, delays and steps."""
    play = compiled(policy, 2, concurrent_rollouts=1)
    gather(params, play, sampling=HOT)
    calls = play.generator._replace(grow=None)
    before = {name: call._cache_size() for name, call in calls._asdict().items() if call}
    assert all(before.values())
    runs = [
        dict(tasks=TASKS, sampling=HOT),
        dict(tasks=OTHERS, sampling=Sampling(temperature=0.5, top_k=20), step=7),
        dict(tasks=OTHERS, sampling=Sampling(temperature=0.7, top_p=0.9), step=8, start=late([0.0, 0.02])),
        dict(tasks=TASKS, sampling=Sampling(temperature=0.0), seed=3, start=late([0.01])),
    ]
    for one in runs:
        gather(params, play, **one)
    assert {name: call._cache_size() for name, call in calls._asdict().items() if call} == before


def test_caches_grow_with_the_longest_row(policy, params):
    """The smallest that holds it, of a few sizes."""
    play = compiled(policy, 2, max_suffix_tokens=1024, max_action_tokens=300)
    held = []
    quiet = params | {"embedding": params["embedding"].at[STOP].multiply(0.1)}
    watching = watched(play, act=lambda *a: held.append(a[1].suffixes.keys_NGKSE[0].shape[3]))
    played = gather(quiet, watching, sampling=HOT, tasks=TASKS[:2])
    assert int(played.batch.suffix_lengths_NG.max()) > 512
    assert held[0] == 512 and held[-1] == 1024 and held == sorted(held)
