"""Dynamic filtering: a step learns from tasks whose rollouts differ, and plays others in the place of the rest.

    N tasks -> rollouts -> keep? -> as many more as the share kept so far asks for -> ... -> N groups that teach

GRPO learns nothing from a group of equal rewards (DAPO, arXiv 2503.14476, section 3.2).  What a group achieved is judged by
checks, and not by the reward, so that a shaped reward cannot hide that all rollouts failed.  A step plays at most `cap`
tasks; places that are still free then hold dropped groups, masked.  Every dropped group is a measurement of its task.

Left out on purpose: keeping surplus groups for the next step, whose policy is another one.
"""

from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple

import jax
import numpy as np

from rods_jax import processes
from rods_jax.rollout import Rollouts, summed
from rods_jax.types import Dropped, RolloutBatch, Task

Keep = Callable[[np.ndarray, int], bool]  # (checks that each valid rollout passed, [g]; all its checks) -> keep?


# ------------------------------------------------------------------------------------- which groups teach
def mixed(passed_g: np.ndarray, checks: int) -> bool:
    """Some rollouts pass every check, and some do not (DAPO): both tails are dropped."""
    solved_g = passed_g == checks
    return bool(solved_g.any() and not solved_g.all())


def differing(passed_g: np.ndarray, checks: int) -> bool:
    """Rollouts pass different numbers of checks: exactly these groups have a gradient where progress is the reward."""
    return bool(passed_g.min() < passed_g.max())


def varied(passed_g: np.ndarray, checks: int, *, least: float = 0.3) -> bool:
    """The variance of success is at least this share of the largest that so many rollouts can have (VCRL, 2509.19803).

    Of progress it would be another rule: one check of four that flips evenly reaches a sixteenth of the largest.
    """
    solved, size = int((passed_g == checks).sum()), len(passed_g)
    largest = (size // 2) * (size - size // 2)
    return solved * (size - solved) >= least * largest


def unsolved(passed_g: np.ndarray, checks: int, *, most: float = 0.95) -> bool:
    """At most this share of the rollouts pass every check (AReaL-SEA, arXiv 2601.22607): groups that all fail stay."""
    return bool((passed_g == checks).mean() <= most)


# ----------------------------------------------------------------------------------------- playing on
class _Group(NamedTuple):
    """A task's rollouts, and what they measure; None: too few of them are valid."""

    task: Task
    rollouts: Rollouts
    measured: Dropped | None


class Filtered(NamedTuple):
    """The tasks of a step and their rollouts, after filtering."""

    tasks: tuple[Task, ...]  # N, those of all processes in their order
    rollouts: Rollouts  # of this process's share
    played: int  # tasks, in all processes
    kept: int  # ... of which the step learns
    dropped: tuple[Dropped, ...] = ()
    spent: int = 0  # rollouts of all tasks that were played


def play_until_full(
    play: Callable[[Sequence[Task]], Rollouts], tasks: Sequence[Task], *, size: int, keep: Keep, cap: int
) -> Filtered:
    """Plays `tasks` in their order until each process has kept its share of `size`, or `cap` were played.

    play: (tasks) -> rollouts of this process's share of them.  tasks: at least `size`, each once.
    """
    hosts = jax.process_count()
    share, limit = size // hosts, min(max(cap, size), len(tasks))
    limit -= limit % hosts  # no process may be left without a task to play
    kept: list[_Group] = []
    others: list[_Group] = []
    played, rounds = 0, list[Rollouts]()
    while True:
        # How many groups lack where most do, and how many tasks that takes at the share that was kept so far.
        had = processes.gather(len(kept))
        lacking = hosts * (share - min(had))
        if lacking <= 0 or played == limit:
            break
        asked = size if not played else ceil(lacking * played / max(1, sum(had)))
        drawn = tasks[played : min(limit, played + hosts * ceil(asked / hosts))]
        played += len(drawn)
        rounds.append(play(drawn))
        for task, group in zip(processes.share_of(drawn), groups_of(rounds[-1]), strict=True):
            one = _Group(task, group, _measured(task, group))
            (kept if one.measured is not None and _teaches(keep, group) else others).append(one)
    # Free places hold dropped groups that teach nothing.  Groups that are too many are dropped too.
    own, surplus = kept[:share], kept[share:]
    places = own + [one._replace(rollouts=_masked(one.rollouts)) for one in others[: share - len(own)]]
    dropped = [one.measured for one in (*others, *surplus) if one.measured is not None]
    counts = len(own), [one.task.id for one in places], dropped
    known = {task.id: task for task in tasks[:played]}
    own_kept, ids, all_dropped = zip(*processes.gather(counts))
    return Filtered(
        tuple(known[name] for some in ids for name in some),
        joined([one.rollouts for one in places], rounds),
        played,
        sum(own_kept),
        tuple(Dropped(*one) for some in all_dropped for one in some),
    )


def groups_of(rollouts: Rollouts) -> list[Rollouts]:
    """The rollouts of each task apart; the counts of the whole are left out."""
    num_tasks = len(rollouts.batch.prompt_lengths_N)
    size = len(rollouts.trajectories) // max(1, num_tasks)
    return [
        Rollouts(
            RolloutBatch(*(x[n : n + 1] for x in rollouts.batch)), rollouts.trajectories[n * size : (n + 1) * size]
        )
        for n in range(num_tasks)
    ]


def joined(groups: Sequence[Rollouts], rounds: Sequence[Rollouts]) -> Rollouts:
    """The groups as one batch, as wide as the widest; counts and FLOPs are those of all rounds."""
    width = max(group.batch.suffix_tokens_NGS.shape[-1] for group in rounds)
    columns = zip(*(_widened(group.batch, width) for group in groups))
    flops = [one.flops for one in rounds if one.flops is not None]
    totals = {name: sum(getattr(one, name) for one in rounds) for name in ("truncated", "generated", "read")}
    return Rollouts(
        RolloutBatch(*map(np.concatenate, columns)),
        tuple(one for group in groups for one in group.trajectories),
        **totals,
        flops=sum(flops) if flops else None,
        reasons=summed([one.reasons for one in rounds]),
    )


def _widened(batch: RolloutBatch[np.ndarray], width: int) -> RolloutBatch[np.ndarray]:
    pad = lambda x: np.pad(x, ((0, 0), (0, 0), (0, width - x.shape[-1])))
    return batch._replace(**{name: pad(x) for name, x in batch._asdict().items() if name.endswith("_NGS")})


def _masked(group: Rollouts) -> Rollouts:
    return group._replace(batch=group.batch._replace(valid_NG=np.zeros_like(group.batch.valid_NG)))


def _teaches(keep: Keep, group: Rollouts) -> bool:
    batch = group.batch
    return keep(batch.passed_NG[0][batch.valid_NG[0]], int(batch.checks_N[0]))


def _measured(task: Task, group: Rollouts) -> Dropped | None:
    """As the update measures it: of valid rollouts, if at least half of them are."""
    valid_g, checks = group.batch.valid_NG[0], int(group.batch.checks_N[0])
    if not checks or 2 * valid_g.sum() < len(valid_g):
        return None
    passed_g, reward_g = group.batch.passed_NG[0][valid_g], group.batch.rewards_NG[0][valid_g].astype(np.float64)
    counts = int(passed_g.sum()), len(passed_g) * checks, int(passed_g.min()), int(passed_g.max()), checks
    return Dropped(task.id, *counts, float(reward_g.mean()), float(reward_g.var()))
