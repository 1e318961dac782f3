"""Who writes the variants of a run beside its trainer: the author of a configuration, at work in threads or Ray tasks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from rods_jax import terminal
from rods_jax.config import Config, ConfigError, SynthesisConfig, load_config, require_same_run
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.synthesis.author import Author, Order, Synthesis, Write
from rods_jax.synthesis.courier.lines import storable
from rods_jax.synthesis.courier.worker import working
from rods_jax.synthesis.near_duplicates import far_from
from rods_jax.synthesis.pipeline import RULE_BASED, five_stages
from rods_jax.task_files import content_hash, read_tasks


def author_of(config: SynthesisConfig, domain: Domain, tasks: TaskSplits) -> Author:
    """The author of a run. ConfigError: a role has no backend, a prompt or a key is missing."""
    try:
        backends = config.backends()
        own = _checked(config.author(domain), domain) if config.author else None
        write = own or _five_stages(config.roles, backends, domain, tasks)
    except (ValueError, OSError) as error:
        raise ConfigError(f"synthesis: {error}") from error
    return Author(write, backends, attempts=config.attempts, known=contents_of(tasks))


def contents_of(tasks: TaskSplits) -> frozenset[str]:
    """Content hashes that no variant may have from the start: those of held-out tasks and of human seeds."""
    return frozenset(map(content_hash, (*tasks.held_out, *tasks.seeds)))


def rule_based(domain: Domain, tasks: TaskSplits) -> Write:
    """The author without a language model, whose variants lie apart from the held-out tasks and fit a file."""
    return _five_stages(lambda backends: RULE_BASED, {}, domain, tasks)


def _five_stages(roles: Any, backends: Mapping[str, Any], domain: Domain, tasks: TaskSplits) -> Write:
    """RODS' own author, whose variants lie apart from the held-out tasks and fit a file."""
    gates = (*roles(backends).gates, far_from(tasks.held_out), storable)
    return five_stages(domain, lambda backends: roles(backends)._replace(gates=gates))


def _checked(write: Write, domain: Domain) -> Write:
    """The author. ValueError: a variant's stratum is none of the domain's, so that it would end every run that plays it."""

    def checked(order: Order, **arguments: Any) -> Synthesis:
        made = write(order, **arguments)
        if made.candidate is not None and made.candidate.category not in domain.strata:
            raise ValueError(
                f"the variant {made.candidate.id} is of {made.candidate.category}, which {domain.name} lacks"
            )
        return made

    return checked


def teller(console: Console) -> Callable[[str], None]:
    return lambda sentence: terminal.say(console, sentence, "yellow")


def open_author(config: Config, directory: Path) -> Author:
    """The author of the run in a folder. ConfigError: as for `author_of`, or the run is not this config's."""
    require_same_run(config, directory)
    if config.synthesis is None:
        raise ConfigError("the config has no synthesis=SynthesisConfig(...): its author works in the trainer")
    if config.synthesis.at_once:
        raise ConfigError("the config has synthesis.at_once: its author works in the trainer, and no seed comes here")
    tasks = TaskSplits(**{part: read_tasks(directory / "tasks" / f"{part}.jsonl") for part in TaskSplits._fields})
    return author_of(config.synthesis, config.domain(), tasks)


def work(config: Config, directory: Path, workers: int, console: Console) -> None:
    """Returns when the last worker has given up."""
    author = open_author(config, directory)
    with working(directory / "synthesis", author, workers=workers, tell=teller(console)) as threads:
        terminal.say(console, f"{workers} workers wait for the seeds of {directory}")
        for thread in threads:
            thread.join()


def work_on_ray(config: Path, directory: Path, workers: int, num_tasks: int) -> None:
    """`work` as so many Ray tasks, on the cluster of RAY_ADDRESS or one that ends with this process.

    Every host sees the checkout, the config and the run directory under the same paths.  ConfigError: there is no
    Ray, or a task could not begin.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("--ray-tasks needs Ray: pip install -e '.[ray]'") from None

    def settle() -> None:
        work(load_config(config), directory, workers, Console())

    config, directory = config.resolve(), directory.resolve()
    open_author(load_config(config), directory)  # what is wrong is said before anything starts
    ray.init()
    # Spread: replies of models are waited for, so hosts are taken for their memory and network. Retried without
    # end: a host that dies takes nothing with it.
    task = ray.remote(num_cpus=1, max_retries=-1, scheduling_strategy="SPREAD")(settle)
    try:
        ray.get([task.remote() for _ in range(num_tasks)])
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
