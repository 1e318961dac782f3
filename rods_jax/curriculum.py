"""Which stage of the curriculum an epoch belongs to (RODS section 4).

Left out on purpose: switching on a measured criterion; the paper gives none.
"""

from dataclasses import replace

from rods_jax.config import Config, StageConfig


def num_epochs(config: Config) -> int:
    """Epochs of all stages together."""
    return sum(stage.epochs for stage in config.stages)


def stage_of(config: Config, epoch: int) -> tuple[StageConfig, bool]:
    """The stage of an epoch, counted over the whole run, and whether the epoch is the stage's first.

    Its `synthesis` is that of the epoch: without refresh, only the first one's seeds grow into tasks.
    """
    for stage in config.stages:
        if epoch < stage.epochs:
            return replace(stage, synthesis=stage.synthesis and (stage.refresh or epoch == 0)), epoch == 0
        epoch -= stage.epochs
    raise ValueError("the epoch lies after the last stage")
