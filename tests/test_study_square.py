"""Two choices at once: effects by hand, over common seeds alone, and the section of the page."""

from dataclasses import replace

import pytest
from rich.console import Console
from test_study_report import TWELVE, line

from rods_jax.config import ConfigError
from scripts.study import report, square
from scripts.study.plan import Square

SQUARE = Square((("rods", "other"), ("few", "static")), ("new", "copies"), ("band", "any"))
ENDS = {"rods": (0.875, 0.75), "other": (0.625, 0.75), "few": (0.375, 0.5), "static": (0.375, 0.25)}


def ends(**more):
    return [
        line(arm, seed, 0.0) | {"progress": x} for arm, some in (ENDS | more).items() for seed, x in enumerate(some)
    ]


def test_effects_are_those_of_a_calculation_by_hand():
    rows, columns, both = square.effects(SQUARE, ends())
    # Rows: (1/2 + 1/4) / 2 and (1/4 + 1/2) / 2.  Columns: (1/4 + 0) / 2 and (0 + 1/4) / 2.  Both: 1/2 - 1/4 and 1/4 - 1/2.
    assert (rows.name, rows.paired.num_seeds) == ("new instead of copies", 2)
    assert rows.paired.mean == pytest.approx(0.375) and columns.paired.mean == pytest.approx(0.125)
    assert both.paired.mean == pytest.approx(0.0) and both.paired.sd == pytest.approx(0.5 / 2**0.5)


def test_only_seeds_that_all_four_have_count():
    assert square.scores_of(SQUARE, ends(rods=(0.9, 0.8, 0.1))).shape == (2, 2, 2)
    assert square.effects(SQUARE, ends(rods=(0.9,))) == [] == square.effects(SQUARE, [])


def test_the_page_tells_the_effects_and_shows_them(tmp_path):
    study = replace(TWELVE, square=SQUARE)
    report.write_report([(study, ends())], Console(quiet=True), tmp_path)
    text = (tmp_path / "toy.md").read_text("utf-8")
    assert "| new instead of copies | 2 | +0.375 [+0.375, +0.375] |" in text and "(toy_square.png)" in text
    assert (tmp_path / "toy_square.png").read_bytes().startswith(b"\x89PNG")
    assert "Two choices" not in report.section(study, ends(rods=(0.9,)))


def test_pairs_that_were_looked_at_later_stand_apart_and_need_two_common_seeds():
    study = replace(TWELVE, asides=(("rods", "few"), ("other", "few")))
    told = report.section(study, ends(other=(0.9,))).split("### Compared after a look at the results")[1]
    assert "| `rods` - `few` | 2 | +0.375 [" in told and "`other` - `few`" not in told
    assert "after a look" not in report.section(TWELVE, ends())


def test_its_arms_are_those_of_the_study():
    with pytest.raises(ConfigError, match="nobody"):
        replace(TWELVE, square=SQUARE._replace(arms=(("rods", "nobody"), ("few", "static"))))
    with pytest.raises(ConfigError, match="nobody"):
        replace(TWELVE, asides=(("rods", "nobody"),))
