"""Writes a large pool of variants before any training: static data to compare a run with (RODS section 9: 17,000).

    python -m scripts.offline_pool --config configs/bfcl_qwen3_4b.py --count 17000 --out pools/bfcl.jsonl --rules

The config's own author writes (`synthesis=SynthesisConfig(...)`), or the rules with --rules.  Killed and started again,
it goes on: what is done lies in OUT.journal.  OUT itself is written whole at the end, a task a line with its ancestry.
Train on it with `build_tasks=partial(with_offline_pool, build_tasks=..., path=OUT)` (docs/guide/offline_pool.md).
Left out on purpose: a policy, and so the boundary.
"""

import json
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rods_jax import terminal
from rods_jax.config import Config, ConfigError, load_config
from rods_jax.fields import differences, plain_values
from rods_jax.files import read_object, write_atomically
from rods_jax.preemption import interrupts
from rods_jax.run.authors import author_of, contents_of, rule_based
from rods_jax.synthesis.offline import fill
from rods_jax.task_files import write_tasks

OF_THE_POOL = ("seed", "domain", "build_tasks", "synthesis")  # keys of a config that decide what is written


def write_pool(config: Config, out: Path, count: int, rules: bool, workers: int, console: Console) -> None:
    """Writes or goes on writing.  ConfigError: nothing to write with, or the journal is another configuration's."""
    if count < 1 or workers < 1:
        raise ConfigError("--count and --workers must be at least 1")
    journal, about = out.with_name(out.name + ".journal"), out.with_name(out.name + ".config.json")
    if out.exists():
        raise ConfigError(f"{out} is there already: choose another --out")
    if config.synthesis is None and not rules:
        raise ConfigError("the config has no synthesis=SynthesisConfig(...): pass --rules for the rule-based author")
    mine = {key: value for key, value in plain_values(config).items() if key in OF_THE_POOL} | {"rules": rules}
    if journal.exists() and not about.exists():
        raise ConfigError(f"{about} is missing, so who wrote {journal} is not known: choose another --out")
    if about.exists():
        changed = differences(read_object(about), json.loads(json.dumps(mine)))
        if changed:
            raise ConfigError(f"{out} was begun with another {', '.join(changed)}: choose another --out")

    # Who writes, of what, and what must not come.
    domain = config.domain()
    tasks = config.build_tasks(domain, config.seed)
    if rules:
        write, known = rule_based(domain, tasks), contents_of(tasks)
    else:
        author = author_of(config.synthesis, domain, tasks)
        known = author.known
        write = partial(author.write, backends=author.backends, attempts=author.attempts)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(about, json.dumps(mine, indent=2) + "\n")

    # Settle seeds, round after round.
    variants, dispatched, errors, started = [], 0, Counter(), time.monotonic()
    seeds = Counter()  # task id -> variants
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("variants", total=count)
        settling = fill(journal, write, tasks.seeds, count=count, run_seed=config.seed, known=known, workers=workers)
        for settled in settling:
            seeds[settled.key.partition("/")[2]] += settled.candidate is not None
            dispatched += 1
            errors.update(settled.errors)
            if settled.candidate is not None:
                variants.append(settled.candidate)
                progress.update(bar, completed=len(variants))
    write_tasks(out, variants[:count])  # several workers may bring a few more
    minutes = (time.monotonic() - started) / 60
    terminal.say(
        console, f"{len(variants[:count])} variants of {dispatched} dispatched seeds in {minutes:.1f} min: {out}"
    )
    terminal.say(console, "rejected attempts: " + (", ".join(f"{k} {n}" for k, n in errors.most_common()) or "none"))
    if barren := [seed for seed, brought in seeds.items() if not brought]:
        terminal.say(console, f"{len(barren)} of {len(seeds)} seeds brought no variant: {', '.join(barren)}")


def main(config: Path, count: int, out: Path, rules: bool = False, workers: int = 1) -> None:
    """Writes a large pool of variants before any training.

    Args:
        config: names domain, tasks and author.
        count: variants to write.
        out: the file to write; what is under way lies beside it.
        rules: the rule-based author writes, whatever the config says.
        workers: seeds at a time; useful where servers write.
    """
    console = Console()
    try:
        with interrupts():
            write_pool(load_config(config), out, count, rules, workers, console)
    except (ConfigError, ValueError, RuntimeError, OSError) as error:
        terminal.refuse(console, error)
        sys.exit(2)
    except KeyboardInterrupt:
        terminal.say(console, "stopped: the same command goes on", "yellow")
        sys.exit(130)


if __name__ == "__main__":
    tyro.cli(main)
