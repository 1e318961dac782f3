"""Tables and pictures of a study, from the lines that are there.

Every figure says how many seeds it has, and the page how many of the planned runs exist.  Left out on purpose:
conclusions in words beyond what the registered tests decide.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from rods_jax import terminal
from rods_jax.files import write_atomically
from scripts.study import inference
from scripts.study.draw import draw_contrasts, draw_curves, draw_stretches
from scripts.study.plan import LINES, Lines, Study, by_seed, planned, shared_scores
from scripts.study.square import Effect, asides, draw_square, effects
from scripts.study.variety import FEWEST, draw_gains, gains, sentence

OUTCOMES = {"progress": "progress at the end", "area": "area under the curve", "strict": "whole tasks at the end"}


class Contrast(NamedTuple):
    """One arm minus another, over the seeds that both have."""

    arm: str
    reference: str
    outcome: str
    family: str  # of Study.contrasts
    differences_S: tuple[float, ...]
    paired: inference.Paired
    flips: float
    crossed: tuple[float, float] | None  # of progress at the end alone, which has scores by task
    equivalent: float
    adjusted: float  # Holm's p, within its family and outcome


# --------------------------------------------------------------------------------------- what is concluded
def contrasts(study: Study, lines: Lines, outcome: str = "progress") -> list[Contrast]:
    """Family by family; those with fewer than two seeds are left out, and are corrected for all the same."""
    found = []
    for family, pairs in study.contrasts.items():
        made = [one for pair in pairs if (one := _contrast(study, lines, outcome, family, *pair)) is not None]
        missing = [1.0] * (len(pairs) - len(made))
        adjusted = inference.holm([one.paired.p for one in made] + missing)
        found += [one._replace(adjusted=p) for one, p in zip(made, adjusted)]
    return found


def _contrast(study: Study, lines: Lines, outcome: str, family: str, arm: str, reference: str) -> Contrast | None:
    own, other = by_seed(lines, arm), by_seed(lines, reference)
    both = sorted(own.keys() & other.keys())
    if len(both) < 2:
        return None
    d_S = [own[seed][outcome] - other[seed][outcome] for seed in both]
    crossed = None
    if outcome == "progress":
        d_SK = np.array([np.subtract(own[seed]["by_task"], other[seed]["by_task"]) for seed in both])
        crossed = inference.crossed_bootstrap(d_SK)
    return Contrast(
        arm,
        reference,
        outcome,
        family,
        tuple(d_S),
        inference.paired_t(d_S),
        inference.sign_flips(d_S),
        crossed,
        inference.equivalence(d_S, study.margin),
        adjusted=1.0,
    )


def ranks(
    study: Study, lines: Lines, other: Study, other_lines: Lines
) -> tuple[int, tuple[int, int], float, tuple[float, float]]:
    """(arms that both suites have, seeds of each suite that all of them have, Spearman's correlation of their means over
    those, reliability within each suite)."""
    names = [arm.name for arm in study.arms if by_seed(lines, arm.name) and by_seed(other_lines, arm.name)]
    own_AS, other_AS = shared_scores(lines, names), shared_scores(other_lines, names)
    seeds = own_AS.shape[1], other_AS.shape[1]
    return (
        len(names),
        seeds,
        inference.rank_correlation(own_AS.mean(1), other_AS.mean(1)) if all(seeds) else float("nan"),
        (inference.reliability(own_AS), inference.reliability(other_AS)),
    )


# ------------------------------------------------------------------------------------------ the page
def write_report(studies: Sequence[tuple[Study, Lines]], console: Console, folder: Path = LINES) -> None:
    """Writes the first study's page and a picture for each question; prints where."""
    first = studies[0][0]
    folder.mkdir(parents=True, exist_ok=True)
    page, parts = folder / (first.page or f"{first.name}.md"), [head(first)]
    for study, lines in studies:
        parts.append(section(study, lines))
        if lines:
            draw_curves(study, lines, folder / f"{study.name}_curves.png")
            parts.append(
                f"![Held-out progress of every arm over rollouts, tokens and minutes]({study.name}_curves.png)"
            )
        if study.square and effects(study.square, lines):
            draw_square(study.square, lines, folder / f"{study.name}_square.png")
            parts.append(f"![Held-out progress by two choices]({study.name}_square.png)")
        if found := contrasts(study, lines):
            draw_contrasts(found, study.margin, folder / f"{study.name}_contrasts.png")
            parts.append(f"![Paired differences with their 95 % intervals]({study.name}_contrasts.png)")
        if len(gained := gains(study, lines)) >= FEWEST:
            draw_gains(study, gained, folder / f"{study.name}_tasks.png")
            parts.append(f"![Gain of every arm by the number of different tasks]({study.name}_tasks.png)")
        if lines and study.stretches:
            draw_stretches(study, lines, folder / f"{study.name}_stretches.png")
            parts.append(f"![How the pool of every arm fares over a run]({study.name}_stretches.png)")
    parts += [between(*studies[0], *other) for other in studies[1:]]
    write_atomically(page, "\n\n".join(parts) + "\n")
    terminal.say(console, f"written: {page}")


def head(study: Study) -> str:
    command = f"python -m scripts.study --config configs/{Path(study.config.file or study.name).name} --report"
    page = f"[the preregistration]({study.registered})"
    decided = (
        f" What was decided before the\nfirst counted run stands in {page}."
        if study.registered
        else "\n**Exploration:** nothing was registered before the first run, and the tests describe."
    )
    return f"""# What the study found: {study.name}

This page is written by `{command}` from the lines in `docs/study/`.{decided}
[The guide](../guide/study.md) says how to go on."""


def section(study: Study, lines: Lines) -> str:
    plan = planned(study)
    rows = [_arm_row(study, lines, arm.name, min(arm.seeds, len(study.seeds))) for arm in study.arms]
    text = [
        f"## {study.name}: {len(lines)} of {len(plan)} planned runs exist",
        _verdicts(study, lines),
        _table("arm | seeds | progress | area | whole tasks | million tokens | collapsed", rows),
        "Means (sd) are over an arm's own seeds, and arms have more or fewer of them; the differences below are over common ones.",
    ]
    for outcome, title in OUTCOMES.items():
        found = contrasts(study, lines, outcome)
        if registered := [_contrast_row(one) for one in found if one.family != "added"]:
            text += [f"### Differences: {title}", _table(CONTRAST, registered)]
        if added := [_contrast_row(one) for one in found if one.family == "added"]:
            text += [f"### Exploration, added after the first counted run: {title}", _table(CONTRAST, added)]
    if study.square and (told := effects(study.square, lines)):
        text += [
            "### Two choices at once, not among the registered contrasts: progress at the end",
            _table(EFFECT, map(_effect_row, told)),
        ]
    if told := asides(study, lines):
        text += [
            "### Compared after a look at the results, without a correction: progress at the end",
            _table(EFFECT, map(_effect_row, told)),
        ]
    if len(gained := gains(study, lines)) >= FEWEST:
        text += ["### By the number of different tasks: progress at the end", sentence(study, gained)]
    if claims := [row for arm in study.arms if (row := _claims(lines, arm.name)) is not None]:
        text += ["### What the paper claims beside the score", _table(CLAIMS, claims)]
    if fared := [row for arm in study.arms for row in stretch_rows(lines, arm.name)]:
        text += ["### How the pool fares over a run", _table(STRETCHES, fared)]
    if lines:
        text += ["### Where the runs were made", _table(ORIGINS, _origins(lines))]
    return "\n\n".join(part for part in text if part)  # a study without primary contrasts has no verdicts


CONTRAST = "difference | seeds | mean [95 %] | p, t test | p, Holm | p, sign flips | crossed bootstrap | p, equivalence"
EFFECT = "effect | seeds | mean [95 %] | p, t test"
CLAIMS = (
    "arm | seeds | variance in [0.25, 0.75], elsewhere, ratio | first means in [0.25, 0.75] | "
    "groups without variance, first and last tenth | boundary among the measured tasks of the pool at the end"
)

ORIGINS = "commit | runs | processor | cores of a run | python, jax"

STRETCHES = (
    "arm | steps | seeds | progress in training | groups without variance | trained in [0.25, 0.75] | "
    "boundary tasks of the pool | variants | first in [0.25, 0.75] | life in steps | calls | turns | effective call patterns"
)


def _verdicts(study: Study, lines: Lines) -> str:
    """What the registered test says of each primary contrast, or that it may not say anything yet."""
    made = {(one.arm, one.reference): one for one in contrasts(study, lines) if one.family == "primary"}
    seeds = {
        (arm, reference): (
            len(by_seed(lines, arm).keys() & by_seed(lines, reference).keys()),
            min(len(study.seeds), *(a.seeds for a in study.arms if a.name in (arm, reference))),
        )
        for arm, reference in study.primary
    }
    whole = all(have >= planned for have, planned in seeds.values())  # the correction is over all of the family
    said = []
    for arm, reference in study.primary:
        one = made.get((arm, reference))
        if one is None or not whole:
            have, of = seeds[arm, reference]
            said.append(f"- `{arm}` minus `{reference}`: open, {have} of {of} seeds.")
        elif one.adjusted < 0.05:
            word = "more" if one.paired.mean > 0 else "less"
            said.append(
                f"- `{arm}` reaches {abs(one.paired.mean):.3f} {word} than `{reference}` (Holm's p {one.adjusted:.3f})."
            )
        elif one.equivalent < 0.05:
            said.append(f"- `{arm}` and `{reference}` are equivalent within {study.margin}.")
        else:
            said.append(
                f"- `{arm}` minus `{reference}`: neither a difference nor equivalence within {study.margin} is shown."
            )
    return "\n".join(said)


def _arm_row(study: Study, lines: Lines, arm: str, seeds: int) -> list[str]:
    own = list(by_seed(lines, arm).values())
    spent = [line["way"][-1]["tokens"] / 1e6 for line in own]
    scores = [_spread([line[key] for line in own]) for key in ("progress", "area", "strict")]
    return [
        f"`{arm}`",
        f"{len(own)} of {seeds}",
        *scores,
        _spread(spent, 2),
        str(sum(line["collapsed"] for line in own)),
    ]


def _contrast_row(one: Contrast) -> list[str]:
    t, crossed = one.paired, one.crossed
    name = f"`{one.arm}` - `{one.reference}`"
    return [
        f"**{name}**" if one.family == "primary" else name,
        str(t.num_seeds),
        f"{t.mean:+.3f} [{t.low:+.3f}, {t.high:+.3f}]",
        f"{t.p:.3f}",
        f"{one.adjusted:.3f}",
        f"{one.flips:.4f}",
        f"[{crossed[0]:+.3f}, {crossed[1]:+.3f}]" if crossed else "-",
        f"{one.equivalent:.3f}" if one.outcome == "progress" else "-",  # the margin is one of progress
    ]


def _effect_row(one: Effect) -> list[str]:
    t = one.paired
    p = f"{t.p:.4f}" if t.p >= 1e-4 else "below 0.0001"
    return [one.name, str(t.num_seeds), f"{t.mean:+.3f} [{t.low:+.3f}, {t.high:+.3f}]", p]


def _claims(lines: Lines, arm: str) -> list[str] | None:
    own = list(by_seed(lines, arm).values())
    if not own:
        return None
    middle, outside = (np.mean([line["variance"][k] or 0.0 for line in own]) for k in (0, 1))
    ratio = f"{middle / outside:.1f}" if outside else "-"
    inside, all_of = (sum(line["first_in_band"][k] for line in own) for k in (0, 1))
    zero = [[line["zero_variance"][k] for line in own] for k in (0, 1)]  # null where groups were dropped
    chosen = None in zero[0]  # what is left of the groups was chosen by their variance, which says nothing then
    zones = [sum(line["pool"][f"zone_{name}"] for line in own) for name in ("hard", "boundary", "mastered")]
    return [
        f"`{arm}`",
        str(len(own)),
        "-" if chosen else f"{middle:.3f}, {outside:.3f}, {ratio}",
        f"{inside / all_of:.0%} of {all_of}" if all_of else "-",
        "-" if chosen else f"{np.mean(zero[0]):.0%}, {np.mean(zero[1]):.0%}",
        f"{zones[1] / max(1, sum(zones)):.0%} of {sum(zones) / len(own):.0f}",
    ]


def _origins(lines: Lines) -> list[list[str]]:
    """A row for each commit and machine, in the order of their first runs."""
    made = [
        (
            f"`{line['commit'][:7]}`{', changed' if line['changed'] else ''}",
            line["machine"]["cpu"],
            str(line["machine"]["cores"]),
            f"{line['machine']['python']}, {line['machine']['jax']}",
        )
        for line in lines
    ]
    return [[commit, str(count), *rest] for (commit, *rest), count in Counter(made).items()]


def stretch_rows(lines: Lines, arm: str) -> list[list[str]]:
    """A row for each stretch that all runs of the arm have: means over the seeds."""
    own = [line["stretches"] for line in by_seed(lines, arm).values() if line.get("stretches")]
    rows = []
    for parts in zip(*own):
        mean = {
            key: np.mean([part[key] for part in parts if part[key] is not None] or [np.nan])
            for key in parts[0].keys() - {"steps", "first_in_band"}
        }
        inside, entered = (sum(part["first_in_band"][k] for part in parts) for k in (0, 1))
        number = lambda key, digits=1: "-" if np.isnan(mean[key]) else f"{mean[key]:.{digits}f}"
        share = lambda key: "-" if np.isnan(mean[key]) else f"{mean[key]:.0%}"
        rows.append(
            [
                f"`{arm}`",
                f"{parts[0]['steps'][0]} to {parts[0]['steps'][1]}",
                str(len(parts)),
                number("trained_progress", 3),
                share("zero_variance"),
                share("in_band"),
                f"{mean['boundary']:.0f} of {mean['pool']:.0f}",
                number("variants", 0),
                f"{inside / entered:.0%}" if entered else "-",
                number("life", 0),
                number("calls", 2),
                number("turns", 2),
                number("patterns"),
            ]
        )
    return rows


def between(study: Study, lines: Lines, other: Study, other_lines: Lines) -> str:
    count, seeds, correlation, within = ranks(study, lines, other, other_lines)
    text = f"## The same order in {study.name} and {other.name}?\n\nOver {count} arms, "
    text += f"with the {seeds[0]} and {seeds[1]} seeds that all of them have: "
    if count < 3 or np.isnan(correlation):
        return text + "too few have runs in both."
    own, theirs = (f"{one:.2f}" if not np.isnan(one) else "unknown" for one in within)
    return (
        text
        + f"Spearman's correlation of the means is {correlation:.2f}. Its split-half reliability within {study.name} is {own}, within "
        f"{other.name} {theirs}; below 0.5 the correlation between suites says nothing."
    )


def _spread(values: Sequence[float], digits: int = 3) -> str:
    if not values:
        return "-"
    deviation = f" ({np.std(values, ddof=1):.{digits}f})" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def _table(head: str, rows: Iterable[Sequence[str]]) -> str:
    columns = head.split(" | ")
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))
