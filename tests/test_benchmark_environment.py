"""The environment vanishes beside generation: CPU time of an episode, and a benchmark that measures what it says."""

import pytest

pytest.importorskip("bfcl_eval", reason="needs pip install --no-deps bfcl-eval==2026.3.23")
pytest.importorskip("mpmath", reason="needs pip install 'mpmath>=1.3,<1.4'")

from rods_jax.environments import bfcl
from scripts import benchmark_environment as benchmark


@pytest.mark.parametrize("category, limit", [("base", 0.001), ("long_context", 0.004)])
def test_an_episode_costs_at_most_so_many_seconds(category, limit):
    """Construction, gold calls and scoring, on one core; `play` asserts that every turn passed."""
    tasks = bfcl.load_tasks([category])[::4]
    seconds = benchmark.ours(bfcl.bfcl_domain(), tasks, repeats=2)
    assert 0 < seconds["call"] < seconds["episode"] <= limit, seconds
    assert seconds["construct"] < seconds["episode"]


def test_the_official_measurement_plays_the_same_calls():
    tasks = bfcl.load_tasks(["base"])[::20]
    seconds = benchmark.official(tasks, repeats=1)  # asserts that the checker calls every trajectory valid
    assert 0 < seconds["call"] < seconds["episode"] and seconds["construct"] > 0
