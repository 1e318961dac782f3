"""Tasks for the help desk that write and repair themselves, by imperfect rules: no language model is needed.

    python -m scripts.evolve --config configs/evolve_helpdesk.py --out evolved/helpdesk

Hardware: 1 CPU core; a minute.
"""

from rods_jax.evolution.evolve import Pace
from rods_jax.evolution.helpdesk import ground
from rods_jax.evolution.imperfect import make_imperfect
from rods_jax.evolution.settings import EvolutionConfig

CONFIG = EvolutionConfig(ground=ground, roles=make_imperfect, pace=Pace(pairs=16, attempts=16, tasks=200))
