"""Reinforcement learning on tasks that wrote and repaired themselves: the evolution's tasks are what synthesis adds.

    python -m scripts.train --config configs/helpdesk_agent.py
    python -m scripts.evolve --config configs/evolve_helpdesk.py --out evolved/helpdesk
    python -m scripts.train --config configs/helpdesk_evolved.py

Hardware: 2 CPU cores, 2 GiB.  The agent begins where configs/helpdesk_agent.py ends.  A seed is answered with an accepted
task of its family, each once.
"""

from dataclasses import replace
from functools import partial

from configs.helpdesk import CONFIG as HELPDESK
from configs.helpdesk_agent import continued
from rods_jax.config import SynthesisConfig
from rods_jax.evolution.author import accepted_tasks

WRITTEN = partial(accepted_tasks, path="evolved/helpdesk/tasks.jsonl")
CONFIG = continued(
    "helpdesk_evolved",
    synthesis=SynthesisConfig(backends=dict, author=WRITTEN, workers=1),
    rollout=replace(HELPDESK.rollout, max_prompt_tokens=128),  # these users say more
)
