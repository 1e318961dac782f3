"""The replay pool: human seeds and generated tasks that come and go with the policy (RODS section 6).

    seed sent -> staged -> trial -> active -> retired {mastered, hard, stuck, pruned}
                       \\-> {duplicate, stale}

A generated task waits in the staged queue until the epoch after its synthesis, is on trial until its first
measurement, and leaves when the policy masters it or cannot do it.  All functions are pure; the state is a small host
record.

An epoch sends as many seeds as the next epoch's start can take variants (`wanted`), so that variants are played and not
queued.  A variant leaves the queue unplayed, as `stale`, once its seed was chosen more than `max_age` steps ago.

Injection gives no class and no call pattern more than `max_share` of the pool.  A task with an overrepresented class or
pattern, pool and queue together, does not become a seed.  A candidate that would exceed the share does not enter.

Left out on purpose: retirement for staleness (every active task is in every epoch, so no measurement is older than one
epoch) and the rank of seeds (boundary.py, on device).
"""

from rods_jax.replay.lessons import learn
from rods_jax.replay.life import (
    active_tasks,
    all_tasks,
    begin_epoch,
    counts,
    create,
    eligible,
    enter_stage,
    epoch_batches,
    epoch_order,
    from_place,
    mark_seeds,
    observe,
    stage,
    standing,
)
from rods_jax.replay.pace import spread, wanted
from rods_jax.replay.state import (
    REASONS,
    Away,
    Events,
    Item,
    Measurement,
    Outcome,
    ReplayState,
    Retired,
    Staged,
)
from rods_jax.replay.table import Table, table

__all__ = [
    "REASONS", "Away", "Events", "Item", "Measurement", "Outcome", "ReplayState", "Retired", "Staged",
    "Table", "active_tasks", "all_tasks", "begin_epoch", "counts", "create", "eligible", "enter_stage",
    "epoch_batches", "epoch_order", "from_place", "learn", "mark_seeds", "observe", "spread", "stage", "standing",
    "table", "wanted",
]  # fmt: skip
