"""The user of configs/helpdesk_user.py, tuned: its weights go on with the user's side of flawless conversations.

    python -m scripts.train --config configs/helpdesk_user_tuned.py

A conversation is flawless where it succeeded and no detector found an error of the user; what the user's rates were is
not asked.  Source: AReaL-SEA, arXiv 2601.22607, fine-tuning of the user model.
"""

from dataclasses import replace
from functools import partial

from configs.helpdesk_user import CONFIG as UNTUNED
from configs.helpdesk_user import ERRS, IMITATION, build_tasks
from rods_jax.adapters.trajectories import formed, user_chat
from rods_jax.chat_rows import chosen
from rods_jax.codecs.tokenizer import checkpoint_tokenizer
from rods_jax.dialogue import demonstrator_player, play
from rods_jax.environments.helpdesk.domain import helpdesk
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.run.played import begun_with


def flawless(domain: Domain, seed: int) -> TaskSplits:
    """The tasks of the untuned user; of practice, those whose recorded conversation is one to learn from."""
    tasks, desk = build_tasks(domain, seed), helpdesk(ERRS)
    records = [play(desk, task, 0, demonstrator_player(desk, task)) for task in tasks.practice]
    rows = chosen(formed(records, tasks.practice, desk, user_chat), faultless_user=True).rows
    kept = {row["task_id"] for row in rows}
    return tasks._replace(practice=tuple(task for task in tasks.practice if task.id in kept))


CONFIG = replace(
    UNTUNED,
    name="helpdesk_user_tuned",
    run_dir="runs/helpdesk_user_tuned",
    build_tasks=flawless,
    tokenizer=partial(checkpoint_tokenizer, directory=f"{UNTUNED.run_dir}/tokenizer"),
    learner=partial(begun_with, UNTUNED.run_dir, UNTUNED.learner),
    cold_start=replace(IMITATION, learning_rate=1e-3, max_steps=750, evaluate_every=250),
)
