"""A row over seeds, by hand; what is not of one kind is refused by name."""

import json

import pytest
from rich.console import Console

from rods_jax.run.evaluating import Evaluation, evaluate, under_protocol
from rods_jax.run.scores_table import METRICS
from scripts.seeds_table import SAME, over_seeds, print_table, read_scores


def result(mean, **changed):
    row = {metric: {"mean": mean, "low": 0.0, "high": 1.0} for metric in METRICS}
    scores = {"rows": {"all tasks": row | {"progress": None}}}
    return dict.fromkeys(SAME, "same") | {"player": "p", "scores": scores} | changed


def test_mean_deviation_and_range_by_hand():
    rows = over_seeds([result(0.2), result(0.4), result(0.9)])["rows"]["all tasks"]
    assert rows["rods"]["mean"] == pytest.approx(0.5)
    assert rows["rods"]["sd"] == pytest.approx(0.36055513)  # sqrt((0.09 + 0.01 + 0.16) / 2)
    assert (rows["rods"]["low"], rows["rods"]["high"]) == (0.2, 0.9)
    assert rows["progress"] is None
    assert over_seeds([result(0.2)])["rows"]["all tasks"]["rods"]["sd"] is None


def test_what_differs_is_named():
    with pytest.raises(ValueError, match="another tasks_sha256, rules make no one row: same and other"):
        over_seeds([result(0.1), result(0.2, tasks_sha256="other", rules="official")])
    with pytest.raises(ValueError, match="another max_tokens, user make no one row: None and 64"):
        over_seeds([result(0.1), result(0.2, user="a model", max_tokens=64)])
    with pytest.raises(ValueError, match="give the folders"):
        over_seeds([])


def test_a_category_may_have_any_name_and_all_have_the_same_rows(capsys):
    odd = result(0.2)
    odd["scores"]["rows"]["[/red]"] = odd["scores"]["rows"]["all tasks"]
    print_table(over_seeds([odd]), Console(width=200))
    assert "[/red]" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"another set of rows make no one row: \[/red\]"):
        over_seeds([odd, result(0.1)])


def test_folders_without_scores_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no finished evaluation"):
        read_scores(tmp_path)
    (tmp_path / "scores.json").write_text(json.dumps({"player": "gold"}))
    with pytest.raises(ValueError, match="lacks protocol"):
        read_scores(tmp_path)


def test_table_1_of_two_evaluations(tmp_path, capsys):
    console = Console(width=200)
    for name in ("gold", "null"):
        settings = Evaluation(player=name, tasks="bfcl-held-out", protocol="table1", out=tmp_path / name)
        written = evaluate(settings, console)
        assert written["temperature"] == 0 and written["num_tasks"] == 400
        assert written["protocol"] == "table1" and len(written["disputed"]) == 15
    table = over_seeds([read_scores(tmp_path / name) for name in ("gold", "null")])
    assert table["rows"]["all tasks"]["rods"] == pytest.approx({"mean": 0.5, "sd": 0.5**0.5, "low": 0.0, "high": 1.0})
    print_table(table, console)
    assert table["tasks_sha256"] in capsys.readouterr().out


def test_a_protocol_fixes_what_it_fixes(tmp_path):
    asked = Evaluation(player="gold", protocol="table1", rollouts=4)
    with pytest.raises(ValueError, match="--protocol table1 fixes --rollouts at 1: got 4"):
        under_protocol(asked)
    assert under_protocol(Evaluation(player="gold")).temperature == 1.0


def test_a_split_file_names_the_held_out_tasks(tmp_path):
    (tmp_path / "val.txt").write_text("multi_turn_base_7\nmulti_turn_base_4\n")
    settings = Evaluation(
        player="gold", tasks="bfcl-held-out", split_file=(tmp_path / "val.txt",), out=tmp_path / "out"
    )
    written = evaluate(settings, Console(quiet=True))
    assert written["num_tasks"] == 2 and "val.txt" in written["tasks"]
    assert list(written["disputed"]) == ["multi_turn_base_4"]
    assert written["scores"]["rows"]["all but disputed gold"]["tasks"] == 1


def test_a_split_file_is_for_bfcl(tmp_path):
    """It was passed over where the tasks were others."""
    settings = Evaluation(player="gold", tasks="workplace", split_file=(tmp_path / "val.txt",), out=tmp_path / "out")
    with pytest.raises(ValueError, match="--split-file names tasks of BFCL, for --tasks bfcl-held-out: got workplace"):
        evaluate(settings, Console(quiet=True))
    assert not (tmp_path / "out").exists()
