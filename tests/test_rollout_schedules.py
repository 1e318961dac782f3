"""Rollouts of a tiny decoder: what was sampled is what is learned from, and no schedule changes a bit of it."""

import itertools
import threading
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rollout_toy import G, LIMITS, N, OTHERS, STOP, TASKS, V, actions_of, compiled, gather

from models.decoder import DecoderConfig
from models.policy import callables
from rods_jax import rollout
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.generation import Generator, Sampling
from rods_jax.types import Policy


@pytest.fixture(scope="module")
def policy():
    return Policy(**callables(DecoderConfig(V, 1, 16, 2, 1, 8, 16)))


@pytest.fixture(scope="module")
def decode(policy):
    return compiled(policy)


@pytest.fixture(scope="module")
def params(policy):
    """Random, but it likes to stop: some episodes end, some are cut by the limit."""
    params = jax.tree.map(lambda x: x * 2, policy.init(jax.random.key(0)))
    embedding = 0.04 * jax.random.normal(jax.random.key(1), params["embedding"].shape)
    return params | {"embedding": embedding.at[STOP].multiply(6)}


HOT = Sampling(temperature=0.9)


@pytest.fixture(scope="module")
def sampled(params, decode):
    return gather(params, decode, sampling=HOT)


def test_behavior_log_probs_equal_the_updates_recomputation(policy, params, sampled):
    batch = sampled.batch
    hidden = jax.jit(policy.forward)(
        params, batch.prompt_tokens_NP, batch.prompt_lengths_N, batch.suffix_tokens_NGS
    )
    logits = jnp.einsum("ngsd,vd->ngsv", hidden, policy.unembedding(params)) / HOT.temperature
    taken = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.suffix_tokens_NGS[..., None], -1)[..., 0]
    mask = batch.action_mask_NGS
    assert mask.sum() > 300 and (~mask[:, :, : LIMITS.chunk]).any()
    np.testing.assert_allclose(taken[mask], batch.behavior_log_probs_NGS[mask], atol=1e-4)
    assert (batch.behavior_log_probs_NGS[~mask] == 0).all() and (
        batch.behavior_log_probs_NGS[mask] < 0
    ).mean() > 0.9


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


def test_the_same_call_gives_the_same_bits(params, decode, sampled):
    again = gather(params, decode, sampling=HOT)
    assert again.trajectories == sampled.trajectories
    for before, after in zip(sampled.batch, again.batch):
        np.testing.assert_array_equal(before, after)
    for changed in (dict(seed=1), dict(step=1)):
        assert gather(params, decode, sampling=HOT, **changed).trajectories != sampled.trajectories
    assert any(a.steps != b.steps for a, b in zip(sampled.trajectories[::G], sampled.trajectories[1::G]))


def test_a_task_does_not_feel_its_place_or_its_company(params, decode, sampled):
    order = [2, 0, 3, 1]
    moved = gather(params, decode, sampling=HOT, tasks=[TASKS[n] for n in order])
    among_others = gather(params, decode, sampling=HOT, tasks=[OTHERS[0], OTHERS[1], TASKS[2], OTHERS[3]])
    for place, n in enumerate(order):
        assert moved.trajectories[place * G : place * G + G] == sampled.trajectories[n * G : n * G + G]
    assert among_others.trajectories[2 * G : 3 * G] == sampled.trajectories[2 * G : 3 * G]
    for name in sampled.batch._fields:
        whole = getattr(sampled.batch, name)
        np.testing.assert_allclose(getattr(moved.batch, name), whole[order], atol=1e-5)
        np.testing.assert_allclose(getattr(among_others.batch, name)[2], whole[2], atol=1e-5)


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


@pytest.mark.parametrize("enough, steps", [(0.01, 1), (0.5, 3), (1.0, 100)])
def test_no_schedule_changes_a_bit(params, decode, sampled, monkeypatch, enough, steps):
    monkeypatch.setattr(rollout, "ENOUGH", enough)
    monkeypatch.setattr(rollout, "STEPS", steps)
    again = gather(params, decode, sampling=HOT, start=late([0.0, 0.03, 0.0, 0.1]))
    assert again.trajectories == sampled.trajectories
    for before, after in zip(sampled.batch, again.batch):
        np.testing.assert_array_equal(before, after)


def test_the_device_goes_on_while_an_environment_thinks(params, decode, monkeypatch):
    """The first answer is given only when two more segments have been decoded; without overlap it never is."""
    monkeypatch.setattr(rollout, "ENOUGH", 0.5)
    segments, thinking, waited = itertools.count(), threading.Event(), threading.Event()

    def act(*arguments):
        if thinking.is_set() and next(segments) == 1:
            waited.set()
        return decode.act(*arguments)

    def start(tasks):
        batch = start_episodes(WORKPLACE, tasks)

        def answer(actions):
            thinking.set()
            assert waited.wait(60.0), "nothing was decoded meanwhile"
            return batch.act(actions)

        return batch._replace(act=answer)

    assert gather(params, decode._replace(act=act), sampling=HOT, start=start).batch.valid_NG.all()


@pytest.mark.parametrize("slots", [1, 3])
def test_a_finished_group_gives_its_slot_to_the_next_task(params, decode, sampled, slots):
    admitted = []

    def admit(params, episodes, slot, *rest):
        admitted.append(int(slot))
        return decode.admit(params, episodes, slot, *rest)

    few = gather(
        params, decode._replace(admit=admit), sampling=HOT, concurrent_tasks=slots, start=late([0.0, 0.02])
    )
    assert sorted(admitted) == sorted(n % slots for n in range(slots, N))
    assert few.trajectories == sampled.trajectories
    for name, before, after in zip(sampled.batch._fields, sampled.batch, few.batch):
        np.testing.assert_allclose(before, after, atol=1e-5, err_msg=name)


def test_a_task_that_fails_at_the_start_takes_no_slot(params, decode, sampled):
    bad = replace(TASKS[0], classes=("Nowhere",))
    few = gather(params, decode, sampling=HOT, tasks=[bad, *TASKS[1:]], concurrent_tasks=1)
    assert [t.failure is not None for t in few.trajectories] == [True] * G + [False] * (N - 1) * G
    assert few.trajectories[G:] == sampled.trajectories[G:]


def test_nothing_recompiles_in_a_whole_run(params, decode, sampled):
    """Any tasks, sampling settings, delays and steps; all tasks on the device, or one at a time."""
    assert isinstance(decode, Generator)
    gather(params, decode, sampling=HOT, concurrent_tasks=1)
    before = {name: function._cache_size() for name, function in decode._asdict().items()}
    assert all(before.values())
    runs = [
        dict(tasks=TASKS, sampling=HOT),
        dict(tasks=OTHERS, sampling=Sampling(temperature=0.5, top_k=20), step=7),
        dict(tasks=OTHERS, sampling=Sampling(temperature=0.7, top_p=0.9), step=8, start=late([0.0, 0.02])),
        dict(tasks=TASKS, sampling=Sampling(temperature=0.0), seed=3, start=late([0.01])),
    ]
    for one in runs:
        gather(params, decode, **one)
        gather(params, decode, concurrent_tasks=1, **one)
    assert {name: function._cache_size() for name, function in decode._asdict().items()} == before
