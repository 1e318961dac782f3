"""The page of a study: what it says with no line, with some, and with all of them."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from study_toy import STUDY

from scripts.study import draw as study_draw
from scripts.study import report
from scripts.study.plan import Arm

TWELVE = replace(
    STUDY,
    seeds=tuple(range(12)),
    arms=tuple(replace(arm, seeds=12) for arm in STUDY.arms) + (Arm(name="few", about="", seeds=6),),
)
SHIFT = {"static": 0.0, "rods": 0.05, "other": 0.002, "few": 0.0}


def line(arm: str, seed: int, shift: float, noise: float = 0.02) -> dict:
    """A run that ends at 0.6 + shift and some noise, of the seed and of its own."""
    rng = np.random.default_rng([seed, len(arm)])
    by_task = np.clip(0.6 + shift + rng.normal(0, noise / 3) + np.linspace(-0.2, 0.2, 16), 0, 1)
    end = float(by_task.mean())
    point = lambda rollouts, progress: dict(
        rollouts=rollouts, tokens=100 * rollouts, seconds=3.0 * rollouts, progress=progress
    )
    return {
        "arm": arm,
        "seed": seed,
        "progress": end,
        "strict": end / 2,
        "area": end - 0.1,
        "collapsed": seed == 3,
        "way": [point(0, 0.4), point(12, 0.5), point(24, end)],
        "by_task": by_task.tolist(),
        "variance": [0.12, 0.06],
        "first_in_band": [6, 10],
        "zero_variance": [0.1, 0.4],
        "pool": {"pool_human": 4, "injected": 6, "zone_hard": 5, "zone_boundary": 10, "zone_mastered": 5},
        "commit": "0123456789" if seed else "fedcba9876",
        "changed": seed == 0,
        "machine": {"cpu": "a processor", "cores": 2, "python": "3.11.7", "jax": "0.10.2"},
    }


def lines(study=TWELVE, shifts=SHIFT, seeds=12):
    return [line(arm.name, seed, shifts[arm.name]) for arm in study.arms for seed in range(min(arm.seeds, seeds))]


def test_contrasts_hold_the_differences_of_the_seeds_that_both_arms_have():
    found = {(one.arm, one.reference): one for one in report.contrasts(TWELVE, lines())}
    assert list(found) == [("rods", "static"), ("other", "static"), ("few", "static")]
    primary, few = found["rods", "static"], found["few", "static"]
    assert (primary.family, few.family) == ("primary", "secondary") and (
        primary.paired.num_seeds,
        few.paired.num_seeds,
    ) == (12, 6)
    by_seed = {(one["arm"], one["seed"]): one["progress"] for one in lines()}
    assert primary.differences_S[4] == pytest.approx(by_seed["rods", 4] - by_seed["static", 4])
    assert primary.adjusted == primary.paired.p < 0.001 and primary.flips == 2 / 4096  # alone in its family
    assert found["other", "static"].adjusted == pytest.approx(
        min(1.0, max(2 * min(few.paired.p, found["other", "static"].paired.p), found["other", "static"].paired.p))
    )
    assert primary.crossed[0] < primary.paired.mean < primary.crossed[1]


def test_contrasts_that_are_not_there_yet_are_corrected_for():
    two = replace(TWELVE, primary=(("rods", "static"), ("other", "rods")))
    there = [one for one in lines(two) if one["arm"] != "other"]
    first = report.contrasts(two, there)[0]
    assert first.adjusted == min(1.0, 2 * first.paired.p) > first.paired.p
    both = "- `rods` minus `static`: open, 12 of 12 seeds.\n- `other` minus `rods`: open, 0 of 12 seeds."
    assert both in report.section(two, there)


def test_a_verdict_stands_where_fewer_seeds_are_planned_later():
    assert "- `rods` reaches" in report.section(replace(TWELVE, seeds=tuple(range(6))), lines())


def test_arms_are_ranked_over_the_seeds_that_all_of_them_have():
    only_later = lambda seed: 5.0 * (seed > 5)  # of which `few` has none
    own = [one | {"progress": only_later(one["seed"])} for one in lines() if one["arm"] == "static"]
    rest = [one for one in lines() if one["arm"] != "static"]
    count, seeds, correlation, _ = report.ranks(TWELVE, own + rest, TWELVE, lines(seeds=5))
    equal = [one | {"progress": 0.0} if one["arm"] == "static" else one for one in lines()]
    assert (count, seeds, correlation) == (4, (6, 5), report.ranks(TWELVE, equal, TWELVE, lines(seeds=5))[2])


def test_a_contrast_without_two_common_seeds_is_left_out():
    assert report.contrasts(TWELVE, lines(seeds=1)) == []


@pytest.mark.parametrize(("shift", "seeds", "said"), [
    (0.05, 12, "- `rods` reaches 0.049 more than `static` (Holm's p 0.000)."),
    (0.0, 12, "- `rods` and `static` are equivalent within 0.03."),
    (0.05, 5, "- `rods` minus `static`: open, 5 of 12 seeds."),
    (0.05, 0, "- `rods` minus `static`: open, 0 of 12 seeds."),
])  # fmt: skip
def test_the_page_says_what_the_registered_test_decides_and_nothing_before_the_last_seed(shift, seeds, said):
    text = report.section(TWELVE, lines(shifts=SHIFT | {"rods": shift}, seeds=seeds))
    assert said in text and f"{len(lines(seeds=seeds))} of 42 planned runs exist" in text


def test_the_page_and_its_pictures(tmp_path):
    second, third = replace(TWELVE, name="second"), replace(TWELVE, name="third")
    suites = [(TWELVE, lines()), (second, lines()), (third, lines(seeds=5))]
    report.write_report(suites, Console(quiet=True), tmp_path)
    text = (tmp_path / "toy.md").read_text("utf-8")
    assert "| `static` | 12 of 12 |" in text and "| 1 |" in text  # one collapse
    assert "0.120, 0.060, 2.0 | 60% of 120 | 10%, 40% | 50% of 20 |" in text
    # `few` has six of the twelve seeds, and the third suite has five of all: all that is ranked is over those.
    for name, seeds in (("second", 6), ("third", 5)):
        said = text.split(f"## The same order in toy and {name}?\n\n")[1]
        assert said.startswith(
            f"Over 4 arms, with the 6 and {seeds} seeds that all of them have: Spearman's correlation"
        )
    assert "Spearman's correlation of the means is 1.00." in text
    assert "| `0123456` | 38 | a processor | 2 | 3.11.7, 0.10.2 |" in text and "| `fedcba9`, changed | 4 |" in text
    names = [f"{study}_{kind}.png" for study in ("toy", "second") for kind in ("curves", "contrasts")]
    assert all((tmp_path / name).stat().st_size > 10_000 and name in text for name in names)


def test_what_was_added_later_stands_apart():
    added = replace(TWELVE, arms=(*TWELVE.arms, Arm(name="later", about="", against="rods")))
    text = report.section(added, lines(added, SHIFT | {"later": 0.0}))
    registered, later = text.split("### Exploration, added after the first counted run: progress at the end")
    assert "`later` - `rods`" not in registered and "| `later` - `rods` | 6 |" in later
    assert "`later` - `static`" not in text


PART = dict(
    steps=[1, 10],
    trained_progress=0.5,
    in_band=0.25,
    zero_variance=0.5,
    pool=90,
    boundary=30,
    first_in_band=[1, 2],
    life=None,
    variants=4,
    calls=2.0,
    turns=2.5,
    patterns=3.0,
)


def test_stretches_are_means_over_the_seeds():
    part = PART
    other = part | {"trained_progress": 0.7, "first_in_band": [2, 2], "life": 8.0, "pool": 110}
    runs = [line("rods", seed, 0.0) | {"stretches": [some]} for seed, some in enumerate((part, other))]
    text = report.section(TWELVE, runs)
    assert "| `rods` | 1 to 10 | 2 | 0.600 | 50% | 25% | 30 of 100 | 4 | 75% | 8 | 2.00 | 2.50 | 3.0 |" in text
    [row] = report.stretch_rows([line("rods", 0, 0.0) | {"stretches": [part | {"zero_variance": None}]}], "rods")
    assert row[3:6] == ["0.500", "-", "25%"]


def test_a_study_with_stretches_shows_how_the_pools_fared(tmp_path, monkeypatch):
    """`rods` has written variants in its second stretch alone, `static` none at all; each mean leaves out what is unknown."""
    nothing = {"variants": 0, "calls": None, "turns": None, "patterns": 0.0, "life": None, "zero_variance": None}
    late = PART | {"steps": [11, 20], "life": 8.0}
    parts = {"static": [PART | nothing] * 2, "rods": [PART | nothing, late]}
    runs = [line(arm, seed, 0.0) | {"stretches": parts[arm]} for arm in parts for seed in range(2)]
    runs[-1]["stretches"] = [parts["rods"][0], late | {"life": None, "boundary": 60}]
    drawn = {}

    def save(path, size, draw):
        draw(figure := Figure())
        drawn[path.name] = {
            axes.get_title(): {
                one.get_label(): one.get_xydata().tolist() for one in axes.lines if "(" in one.get_label()
            }
            for axes in figure.axes
        }

    monkeypatch.setattr(study_draw, "save", save)
    report.write_report([(replace(TWELVE, stretches=2), runs)], Console(quiet=True), tmp_path)
    assert "](toy_stretches.png)" in (tmp_path / "toy.md").read_text("utf-8")
    panels = drawn["toy_stretches.png"]
    assert panels["boundary tasks, share of the pool"]["rods (2)"] == [[10, 1 / 3], [20, 0.5]]
    life = panels["life of a variant so far, steps"]
    assert life["rods (2)"][1] == [20, 8.0] and np.isnan([life["rods (2)"][0][1], life["static (2)"][0][1]]).all()


def test_the_page_of_a_study_without_runs_says_so(tmp_path):
    folder = tmp_path / "docs" / "study"  # of a directory in which no run has ended yet
    report.write_report([(TWELVE, [])], Console(quiet=True), folder)
    text = (folder / "toy.md").read_text("utf-8")
    assert "toy: 0 of 42 planned runs exist" in text and ".png" not in text
    assert "**Exploration:** nothing was registered" in text
    assert "Exploration" not in report.head(replace(TWELVE, registered="preregistration.md"))


def test_the_margin_is_one_of_progress_and_an_arm_that_drops_groups_has_no_share_of_them():
    runs = [one | ({"zero_variance": [None, None]} if one["arm"] == "few" else {}) for one in lines()]
    progress, area = (
        report.section(TWELVE, runs).split(f"### Differences: {title}")[1].split("\n\n")[1]
        for title in ("progress at the end", "area under the curve")
    )
    assert progress.splitlines()[2].split(" | ")[-1] != "- |" and area.splitlines()[2].split(" | ")[-1] == "- |"
    claims = report.section(TWELVE, runs).split("### What the paper claims")[1]
    few = claims.split("| `few` |")[1].splitlines()[0].split(" | ")
    assert "| 0.120, 0.060, 2.0 | 60% of 120 | 10%, 40% |" in claims and few[1:4] == ["-", "60% of 60", "-"]


def test_a_verdict_needs_the_corrected_p_and_a_shown_equivalence(monkeypatch):
    found = [one._replace(adjusted=0.06, equivalent=0.06) for one in report.contrasts(TWELVE, lines())]
    assert found[0].paired.p < 0.001
    monkeypatch.setattr(report, "contrasts", lambda *_: found)
    assert "neither a difference nor equivalence" in report._verdicts(TWELVE, lines())
