"""EigenData's recipe on tau2-bench's telecom, with RODS: tasks at the boundary become variants by an algebra of faults.

    python -m scripts.train --config configs/tau2_telecom.py        (what it needs: tau2_qwen3_4b.py)

Hardware: as there.  74 training tasks, 40 held out.  A variant has other faults of the same structure, and is gated
before it is played (docs/guide/faults.md).  None is of the kin of a held-out or validation task.
"""

from dataclasses import replace
from functools import partial

from configs.tau2_qwen3_4b import CONFIG as RECIPE
from configs.tau2_qwen3_4b import build_tasks, domain
from rods_jax.config import ReplaySettings, SynthesisConfig
from rods_jax.environments.protocol import Domain
from rods_jax.environments.tau2 import data, domains
from rods_jax.environments.tau2.telecom_variants import variants
from rods_jax.synthesis.algebra import variants_by
from rods_jax.synthesis.author import Write


def author(domain: Domain) -> Write:
    """Variants of telecom's tasks."""
    files, tasks = data.find(), build_tasks(domain, 0)
    measured = [task.id for task in (*tasks.held_out, *tasks.validation)]
    fresh = domains.DOMAINS[domain.name](files).environment
    return variants_by(variants(fresh, files.json("telecom", "tasks.json"), measured), domain)


CONFIG = replace(
    RECIPE,
    name="tau2_telecom",
    run_dir="runs/tau2_telecom",
    domain=partial(domain, "telecom"),
    stages=tuple(replace(stage, synthesis=True) for stage in RECIPE.stages),
    replay=ReplaySettings(capacity=200, surplus=1.25),
    synthesis=SynthesisConfig(backends=dict, author=author, workers=1),
)
