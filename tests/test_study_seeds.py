"""What the seeds of a study's runs were, by hand."""

import json

import numpy as np
import pytest
from study_toy import STUDY

from scripts.study import seeds


def record(step, **tasks):
    means, variances = zip(*tasks.values())
    return {"step": step, "task_ids": list(tasks), "task_mean": list(means), "task_variance": list(variances)}


def test_shares_of_groups_and_of_seeds_in_each_third():
    records = [
        record(1, a=(0.5, 0.25), b=(0.5, 0.0)),  # b is stuck: half of the checks in every rollout
        record(2, a=(0.2, 0.0), b=(0.85, 0.0)),  # the edges of the band belong to it
        record(3, a=(1.0, 0.0), b=(0.0, 0.0)),  # mastered and hard: no gradient either, and not stuck
    ]
    first, second, last = seeds.parts_of(records, [(1, "a"), (1, "b"), (2, "b"), (2, "a")], unfit={"a"})
    assert first == {
        "steps": [1, 1],
        "informative": 0.5,
        "stuck": 0.5,
        "seeds": 2,
        "seeds_in_band": 1.0,
        "seeds_stuck": 0.5,
        "seeds_unfit": 0.5,
        "stuck_unfit": 0.0,
    }
    assert second["informative"] == 0.0 and second["stuck"] == second["seeds_stuck"] == 1.0
    assert last["informative"] == last["stuck"] == 0.0 and last["seeds"] == 0 and last["seeds_stuck"] is None


def test_a_run_that_drops_groups_has_no_share_of_them():
    records = [record(step, a=(0.5, 0.25), b=(0.5, 0.0)) for step in (1, 2, 3)]
    records[1] |= {"tasks_played": 6, "tasks_kept": 2}  # four more were played, and have no place
    for part in seeds.parts_of(records, [(3, "b")], unfit=set()):
        assert part["informative"] is part["stuck"] is None
    assert part["seeds_stuck"] == 1.0  # seeds are known all the same


def test_lines_of_runs_that_are_elsewhere_stay(tmp_path):
    path = tmp_path / "toy_seeds.jsonl"
    assert seeds.merged(path, [{"arm": "rods", "seed": 0, "parts": 1}]) == [{"arm": "rods", "seed": 0, "parts": 1}]
    before = [{"arm": "rods", "seed": 0, "parts": 1}, {"arm": "static", "seed": 0, "parts": 2}]
    path.write_text("".join(json.dumps(line) + "\n" for line in before))
    again = {"arm": "rods", "seed": 0, "parts": 3}
    assert seeds.merged(path, [again]) == [again, before[1]]


def test_a_table_and_a_picture_of_what_is_there(tmp_path):
    def line(seed, share):
        return {"arm": "rods", "seed": seed, "parts": [dict.fromkeys(seeds.WORDS | seeds.BESIDE, share)] * 3}

    lines = [line(0, 0.25), line(1, 0.75), line(2, None)]  # a part without a seed is in no mean
    assert seeds.means_of(lines, "rods", "stuck") == pytest.approx([0.5] * 3)
    assert np.isnan(seeds.means_of(lines, "static", "stuck")).all()
    assert seeds.table_of(STUDY, lines).row_count == 1 and seeds.pool_table_of(STUDY, lines).row_count == 0
    seeds.draw(STUDY, lines, tmp_path / "it.png")
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
