"""The clock of the overhead benchmark: which seconds of a step lie in none of its stages."""

import threading
import time

import pytest

from scripts.benchmark_overhead import STAGES, Clock, Options, covered, measure


def test_covered_counts_no_second_twice():
    assert covered([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (5.2, 5.4)]) == pytest.approx(4.0)
    assert covered([]) == 0.0


def test_a_step_is_its_stages_and_what_lies_in_none():
    clock = Clock()
    clock.intervals["update"] += [(0.0, 4.0), (10.0, 14.0), (20.0, 24.0)]
    clock.intervals["generation"] += [(2.0, 7.0), (15.0, 21.0)]  # the first begins beside the update
    clock.intervals["environment"] += [(8.0, 9.0)]
    assert clock.steps() == [
        pytest.approx({"step": 10, "update": 4, "generation": 3, "environment": 1, "overhead": 2}),
        pytest.approx({"step": 10, "update": 4, "generation": 5, "environment": 0, "overhead": 1}),
    ]


def test_an_update_is_watched_while_the_host_goes_on():
    class Late:
        """Ready when it is told so, as a device's array."""

        ready = threading.Event()

        def block_until_ready(self):
            self.ready.wait(60)
            return self

    clock = Clock()
    update = clock.watched(lambda: ("state", Late()))
    assert update()[0] == "state"  # though nothing is ready
    sent = time.perf_counter()
    Late.ready.set()
    update()
    (step,) = clock.steps()
    assert clock.intervals["update"][0][1] > sent
    assert 0 < step["update"] <= step["step"]


@pytest.mark.slow
def test_a_run_is_measured(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(
        "from dataclasses import replace\nfrom tests.training_toy import CONFIG as TOY\n"
        "CONFIG = replace(TOY, evaluation=replace(TOY.evaluation, every_epochs=9))\n"
    )
    report = measure(Options(config=str(path), steps=3, warmup=2))
    assert len(report["steps"]) == 3 and 0 < report["median_share"] < 1
    assert all(step[stage] > 0 for step in report["steps"] for stage in STAGES)
