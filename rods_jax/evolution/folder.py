"""An evolution in a folder: begun, continued, and written out.

evolution.jsonl   the journal: plans, attempts, versions, and every reply of a language model
tasks.jsonl       the accepted tasks, as any task file
trials.jsonl      their dialogues, as an evaluation's journal has them
plans/NAME.txt    the best version of a pair;  plans/NAME.diff: what each version changed
report.json       the figures
"""

from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from rods_jax import strict_json, terminal
from rods_jax.config import ConfigError
from rods_jax.evolution.attempt import Tried
from rods_jax.evolution.evolve import Evolved, evolve
from rods_jax.evolution.ledger import opened
from rods_jax.evolution.pairs import difference, text_of
from rods_jax.evolution.report import print_report, report_of
from rods_jax.evolution.settings import EvolutionConfig
from rods_jax.fields import plain_values
from rods_jax.files import require_begun, write_atomically
from rods_jax.records import encode
from rods_jax.task_files import write_tasks
from rods_jax.types import Json

JOURNAL, TASKS, TRIALS, REPORT, PLANS = "evolution.jsonl", "tasks.jsonl", "trials.jsonl", "report.json", "plans"
FREE = ("tasks", "workers")  # of the pace: what another call of the command may change


def evolve_in(config: EvolutionConfig, folder: Path, console: Console) -> Evolved:
    """Continues where the folder's journal ends. ConfigError: a role has no backend, a key is missing.

    FolderError: it holds what this command did not write.  JournalError: the journal is of another version or of other
    settings, or another process is writing it.
    """
    ground = config.ground()
    try:
        backends = config.backends()
        config.roles(ground, backends)  # what is wrong is said before anything starts
    except (ValueError, OSError) as error:
        raise ConfigError(f"roles: {error}") from error
    require_begun(folder, JOURNAL)
    folder.mkdir(parents=True, exist_ok=True)
    with opened(folder / JOURNAL, settings_of(config), backends, config.max_tokens) as ledger:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("attempts", total=None)

            def done(outcome: Tried) -> None:
                progress.update(bar, advance=1)

            def tell(sentence: str) -> None:
                terminal.say(console, sentence)

            evolved = evolve(ground, partial(config.roles, ground), config.pace, ledger, tell=tell, done=done)
        prices = {"prompt_price": config.prompt_price, "completion_price": config.completion_price}
        report = report_of(ground, evolved, ledger.spent, **prices)
    write(folder, evolved, report)
    print_report(report, console)
    terminal.say(console, f"{len(evolved.tasks)} tasks: {folder / TASKS}")
    return evolved


def settings_of(config: EvolutionConfig) -> dict[str, Json]:
    """What decides what is written: the same folder takes no other."""
    pace = {name: value for name, value in plain_values(config.pace).items() if name not in FREE}
    return {"ground": plain_values(config.ground), "roles": plain_values(config.roles)} | pace


def write(folder: Path, evolved: Evolved, report: Json) -> None:
    """All files beside the journal, each whole."""
    fine = [one for one in evolved.scaled if one.task is not None and not one.error]
    write_tasks(folder / TASKS, [one.task for one in fine if one.task is not None])
    header = strict_json.dumps({"trials_of": folder.name}) + "\n"
    lines = (strict_json.dumps(encode(one.trial)) + "\n" for one in fine if one.trial is not None)
    write_atomically(folder / TRIALS, header + "".join(lines))
    (folder / PLANS).mkdir(exist_ok=True)
    for lineage in evolved.lineages:
        name = lineage.pair.name
        write_atomically(folder / PLANS / f"{name}.txt", text_of(lineage.pair))
        versions = {pair.version: pair for one in evolved.rounds for pair in one.pairs if pair.name == name}
        ordered = [versions[number] for number in sorted(versions)]
        changes = "".join(difference(old, new) for old, new in zip(ordered, ordered[1:]))
        write_atomically(folder / PLANS / f"{name}.diff", changes)
    write_atomically(folder / REPORT, strict_json.dumps(report, indent=2) + "\n")
