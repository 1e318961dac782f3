"""Checks a configuration without starting a run: what a start would say and refuse; nothing is written."""

from rich.console import Console

from rods_jax import dashboards, terminal
from rods_jax.checks import check_devices, check_start
from rods_jax.config import Config
from rods_jax.curriculum import require_hints
from rods_jax.lengths import check_lengths
from rods_jax.run.authors import author_of, teller
from rods_jax.run.directory import build, world
from rods_jax.run.forecast import forecast, sentences
from rods_jax.run.learning import learning
from rods_jax.types import Json


def check(config: Config, console: Console | None = None) -> dict[str, Json]:
    """Plays gold twice, measures lengths, rehearses synthesis, and foresees memory and the first step; says it all.

    Returns "lengths" as in a run's lengths.json, "flows", "diversity", "synthesis", "memory" (bytes) and "first_step".
    ConfigError, ValueError, ImportError: as for `train`.
    """
    dashboards.prepared(config)
    check_devices(config)
    console = console or Console()
    make_learner, domain, say = config.learner(config), world(config), teller(console)
    require_hints(config, domain)
    inputs = build(config, domain, console)
    for sentence in check_start(config, inputs.tasks, domain):
        say(sentence)
    lengths = check_lengths(config, inputs.tasks, domain, config.codec(inputs.tokenizer), say)
    if config.synthesis is not None:
        author_of(config.synthesis, domain, inputs.tasks)
    learner = make_learner(len(inputs.tokenizer))
    learn = learning(config, learner, tuple(domain.strata))
    found = forecast(config, inputs.tasks, domain, learner, learn, lengths)
    for sentence in sentences(found):
        terminal.say(console, sentence)
    return {"lengths": lengths} | found
