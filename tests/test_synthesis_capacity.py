"""Little's law by hand, and against workers that wait for a model: a clock of its own, no wall clock."""

import heapq
import random

import pytest
from synthesis_model import LOOSE, Model, write
from synthesis_toy import TASK

from rods_jax.synthesis.capacity import Load, load_of, workers_needed


def test_by_hand():
    needed = workers_needed(seeds_per_step=16, questions=20, seconds_per_question=15, seconds_per_step=300)
    assert needed == 16  # 4,800 seconds of waiting a step
    assert workers_needed(seeds_per_step=16, questions=20, seconds_per_question=15, seconds_per_step=299) == 17
    assert workers_needed(seeds_per_step=0, questions=20, seconds_per_question=15, seconds_per_step=300) == 1


def test_what_a_seed_asks_is_counted_over_its_attempts():
    results = [write(Model(), LOOSE, attempts=1), write(Model(verifier=lambda data: "accept"), TASK, attempts=2)]
    load = load_of(results)
    assert load == Load((len(results[0].exchanges) + len(results[1].exchanges)) / 2, 1.5, 0.5)
    with pytest.raises(ValueError, match="no seed"):
        load_of([])


def waiting_seeds(workers: int, steps: int = 400) -> list[int]:
    """Seeds that wait after each step: 16 come every 300 s, each asks 20 questions of log-normal length, mean 15 s."""
    rng = random.Random(3)
    free, queue, waiting = [0.0] * workers, [], []
    for step in range(steps):
        queue += [300.0 * step] * 16
        while queue and free[0] < 300.0 * (step + 1):
            begun = max(heapq.heappop(free), queue.pop(0))
            heapq.heappush(free, begun + sum(rng.lognormvariate(2.583, 0.5) for _ in range(20)))
        waiting.append(len(queue))
    return waiting


def test_a_simulated_pool_keeps_up_with_the_number_and_not_with_fewer():
    needed = workers_needed(seeds_per_step=16, questions=20, seconds_per_question=15, seconds_per_step=300)
    assert max(waiting_seeds(needed + 1)[100:]) <= 16
    assert waiting_seeds(needed - 2)[-1] > 400  # two seeds more with every step
