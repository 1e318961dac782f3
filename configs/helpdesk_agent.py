"""The help desk's agent as its demonstrations make it, without reinforcement learning: where other runs begin.

    python -m scripts.train --config configs/helpdesk_agent.py

Hardware: 2 CPU cores, 2 GiB; 3 to 5 minutes.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from configs.helpdesk import CONFIG as HELPDESK
from rods_jax.codecs.tokenizer import checkpoint_tokenizer
from rods_jax.config import Config
from rods_jax.run.played import begun_with

CONFIG = replace(HELPDESK, name="helpdesk_agent", run_dir="runs/helpdesk_agent", stages=())


def continued(name: str, **changes: Any) -> Config:
    """Reinforcement learning of this agent, in the help desk's own stages; `changes` are what differs."""
    return replace(
        HELPDESK,
        name=name,
        run_dir=f"runs/{name}",
        tokenizer=partial(checkpoint_tokenizer, directory=f"{CONFIG.run_dir}/tokenizer"),
        learner=partial(begun_with, CONFIG.run_dir, CONFIG.learner),
        cold_start=None,
        **changes,
    )
