"""Tasks without content, and pools of them in a known state."""

from rods_jax import replay
from rods_jax.config import ReplaySettings
from rods_jax.types import Task, Turn, World


def task_named(name, ancestry=("human0",)):
    return Task(
        name, f"scenario-{name}", "base", World(("Files",), {"Files": {"z": 1, "a": 2}}), (Turn("u"),), ancestry
    )


def human_seeds(n):
    return [task_named(f"human{i}", ()) for i in range(n)]


def stage(state, tasks, epoch, step=0):
    """Queues the variants of seeds that were chosen at `step`."""
    seeds = [(task.ancestry or ("",))[-1] for task in tasks]
    return replay.stage(
        state, [replay.Outcome(*entry) for entry in zip(seeds, [step] * len(tasks), tasks)], epoch, step
    )


def begin(state, epoch, step=0):
    return replay.begin_epoch(state, epoch, step)


def observe(state, task_id, passed, total, step, low=0, high=0, checks=0):
    """Records one measurement of one task."""
    return replay.observe(state, [(task_id, replay.Measurement(passed, total, step, low, high, checks))])


def pool_of(num_seeds=10, names=(), **changes):
    """A pool in epoch 1 in which the named generated tasks are on trial."""
    settings = ReplaySettings(**({"capacity": 8, "injection_fraction": 1.0} | changes))
    state = stage(replay.create(human_seeds(num_seeds), settings), [task_named(name) for name in names], epoch=0)
    state, _ = begin(state, 1)
    return state


def ids_of(state):
    return [task.id for task in replay.active_tasks(state)]
