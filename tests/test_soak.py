"""A long run holds no more at its end than after its first steps, and compiles nothing after its first epoch."""

import json
from collections import Counter

import numpy as np
import pytest
from forks import forks

STEPS, SETTLED = 3_000, 1_000  # the allocator and the pools of threads fill up for some hundred steps


@pytest.mark.slow
def test_3000_steps_leak_nothing(tmp_path):
    with forks("training_toy") as start:
        start("soak", str(tmp_path / "run"), str(tmp_path / "compiled"), STEPS).join(3600)
    rows = json.loads((tmp_path / "run.json").read_text())
    step, epoch, kilobytes, files, threads, tasks, writers, programs = np.array(rows).T
    assert step.tolist() == list(range(STEPS))
    first, last = (np.median(part) for part in (kilobytes[SETTLED : SETTLED + 100], kilobytes[-100:]))
    print(
        f"{STEPS} steps, {epoch[-1] + 1} epochs: memory {first / 1024:.0f} MB after {SETTLED}, {last / 1024:.0f} MB at the end "
        f"({last / first - 1:+.2%}); open files {spread(files)}, threads {spread(threads)}, system threads "
        f"{spread(tasks)}, of tensorstore at most {writers.max()}; "
        f"{programs[epoch == 0][-1]} programs compiled in the first epoch, "
        f"{programs[-1] - programs[epoch == 0][-1]} later"
    )
    assert last < 1.02 * first
    # How long a checkpoint is being written hangs on the disk; what stays open counts, so the least of each.
    for held in (files, threads):
        assert held[-200:].min() <= held[SETTLED : SETTLED + 200].min()
    # A pool of XLA's may begin its last thread late.
    assert np.median(tasks[-200:]) <= tasks[SETTLED : SETTLED + 200].max()
    assert writers.max() <= 128  # its pool begins threads as writes coincide, up to the limit that Orbax sets
    assert programs[-1] == programs[epoch == 0][-1]


def spread(held) -> str:
    """The values from step SETTLED on and how often each was seen."""
    return str(dict(sorted(Counter(held[SETTLED:].tolist()).items())))
