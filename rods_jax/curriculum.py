"""Which stage of the curriculum an epoch belongs to (RODS section 4), and the rules that its episodes play by.

Left out on purpose: switching on a measured criterion; the paper gives none.
"""

from collections.abc import Iterable
from dataclasses import replace

from rods_jax.config import Config, ConfigError, StageConfig
from rods_jax.environments.protocol import Domain
from rods_jax.environments.scoring import RODS, Rules
from rods_jax.types import Task


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


def tasks_of(stage: StageConfig, tasks: Iterable[Task]) -> list[Task]:
    """The tasks of the stage's strata, in their order."""
    return [task for task in tasks if stage.categories is None or task.category in stage.categories]


def rules_of(config: Config, stage: StageConfig | None = None) -> Rules:
    """The rules of a run's episodes: a stage's own, or the plain ones that held-out scores are made under."""
    rules = RODS._replace(max_attempts=config.rollout.max_attempts)
    if stage is None:
        return rules
    return rules._replace(explains_failures=stage.explain_failures, warns_of_calls=stage.warn_of_calls)


def require_hints(config: Config, domain: Domain) -> None:
    """ConfigError: a stage explains failures and the domain cannot."""
    for stage in config.stages:
        if stage.explain_failures and domain.explain is None:
            raise ConfigError(
                f"stages.{stage.name}.explain_failures needs a domain that explains: wrap it in hints.explained"
            )
