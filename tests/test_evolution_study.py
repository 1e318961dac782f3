"""The study of an evolution: every arm and seed has its rows, a table, and a picture."""

import json

import pytest

from scripts import evolution_study
from scripts.evolution_study import ARMS, MEASURES, interval, main, table_of


def test_intervals_by_hand():
    mean, half = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0 and half == pytest.approx(2.776 * (2.5 / 5) ** 0.5)


def test_every_arm_is_measured_in_every_round_and_drawn(tmp_path, capsys):
    main(seeds=2, out=tmp_path, attempts=16, rounds=1)
    rows = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert [(row["arm"], row["seed"], row["round"]) for row in rows] == [
        (arm, seed, number) for arm in ARMS for seed in (0, 1) for number in (0, 1)
    ]
    assert {row["attempts"] for row in rows} == {16} and set(MEASURES) < rows[0].keys()
    assert (tmp_path / "rounds.png").read_bytes().startswith(b"\x89PNG")
    assert table_of("x", rows).row_count == len(ARMS) and "scaled, 2 seeds" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(seeds=1, out=tmp_path)


@pytest.mark.parametrize("numbers", [{"attempts": 15}, {"rounds": 0}])
def test_numbers_from_which_no_study_can_follow_are_refused_first(tmp_path, capsys, monkeypatch, numbers):
    monkeypatch.setattr(evolution_study, "measured", lambda *_: pytest.fail("it began"))
    with pytest.raises(SystemExit) as ended:
        main(seeds=2, out=tmp_path, **numbers)
    assert ended.value.code == 2 and "--attempts must be at least 16, and --rounds 1" in capsys.readouterr().out
