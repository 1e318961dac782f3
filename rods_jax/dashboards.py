"""Dashboards that a run is shown on while it trains: TensorBoard, Weights & Biases, MLflow, or one's own.

    Config(..., writers=(tensorboard, partial(wandb, project="lamps"), mlflow))

A writer is called with the run directory before anything is built, and gives a context manager of a `MetricWriter`.  That
is entered, in the first process alone, once the directory has its config.json.  Each of these three needs an extra of
its name.
"""

import contextlib
import importlib
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rods_jax import strict_json
from rods_jax.config import Config
from rods_jax.fields import plain_values
from rods_jax.files import read_object, write_atomically
from rods_jax.metrics import MetricWriter

Dashboard = AbstractContextManager[MetricWriter]

# What the field calls it (TRL, Tunix and verl alike where they agree) -> what metrics.jsonl calls it.
NAMES = {
    "loss": "loss",
    "rewards/mean": "reward_mean",
    "frac_reward_zero_std": "zero_variance",
    "kl": "kl",
    "entropy": "entropy",
    "clip_ratio": "clip_fraction",
    "grad_norm": "grad_norm",
    "epoch": "epoch",
    "num_tokens": "tokens_spent",
    "step_time": "seconds_step",
    "perf/tokens_per_second": "tokens_per_second",
    "perf/mfu": "mfu",
}


# --------------------------------------------------------------------------------------- the services
def tensorboard(directory: Path, **options: Any) -> Dashboard:
    """Event files in `tensorboard/` of the run directory.  options: of tensorboardX.SummaryWriter."""
    package = _package("tensorboardX", "tensorboard")

    @contextlib.contextmanager
    def opened() -> Iterator[MetricWriter]:
        own = f".{time.time_ns()}"  # two lives that begin in one second would share a file
        ours = {"logdir": str(directory / "tensorboard"), "filename_suffix": own}
        with package.SummaryWriter(**ours | options) as board:

            def write(step: int, values: Mapping[str, Any]) -> None:
                for name, value in named(values).items():
                    board.add_scalar(name, value, step)
                board.flush()

            yield write

    return opened()


def wandb(directory: Path, **options: Any) -> Dashboard:
    """A run of Weights & Biases, whose id is kept in `wandb.id`.  options: of wandb.init, such as project and mode."""
    package = _package("wandb", "wandb")

    @contextlib.contextmanager
    def opened() -> Iterator[MetricWriter]:
        config = _config(directory)
        kept = _kept(directory / "wandb.id", lambda: uuid.uuid4().hex)
        ours = {"dir": str(directory), "id": kept, "resume": "allow", "name": config["name"], "config": config}
        with package.init(**ours | options) as run:
            yield lambda step, values: run.log(named(values), step=step, commit=True)

    return opened()


def mlflow(directory: Path, *, experiment: str = "rods", tracking_uri: str | None = None) -> Dashboard:
    """A run of MLflow, whose id is kept in `mlflow.id`.  tracking_uri: None: as MLflow's own settings say."""
    package = _package("mlflow", "mlflow")

    @contextlib.contextmanager
    def opened() -> Iterator[MetricWriter]:
        client, status = package.MlflowClient(tracking_uri), "KILLED"
        run = _kept(directory / "mlflow.id", lambda: _new_run(client, experiment, _config(directory)["name"]))
        client.update_run(run, "RUNNING")

        def write(step: int, values: Mapping[str, Any]) -> None:
            now, metric = int(1000 * time.time()), package.entities.Metric
            client.log_batch(run, [metric(name, value, now, step) for name, value in named(values).items()])

        try:
            yield write
            status = "FINISHED"
        finally:
            client.set_terminated(run, status)

    return opened()


def _new_run(client: Any, experiment: str, name: str) -> str:
    found = client.get_experiment_by_name(experiment)
    inside = client.create_experiment(experiment) if found is None else found.experiment_id
    return client.create_run(inside, run_name=name).info.run_id


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"the dashboard {extra} needs {name}: pip install -e '.[{extra}]' ({error})") from error


def _config(directory: Path) -> dict[str, Any]:
    return read_object(directory / "config.json", name=str)


def _kept(path: Path, make: Callable[[], str]) -> str:
    """What the file holds; a new one gets what `make` gives."""
    if not path.exists():
        write_atomically(path, make())
    return path.read_text("utf-8")


# ------------------------------------------------------------------------------------------ the names
def named(values: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers of a record: under the names of the field, `eval/...` when held out, and all as `rods/...`."""
    numbers = {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (bool, int, float, np.generic, np.ndarray)) and np.ndim(value) == 0
    }
    field = {name: numbers[ours] for name, ours in NAMES.items() if ours in numbers}
    held_out = {
        f"eval/{name.removeprefix('held_out_')}": x for name, x in numbers.items() if name.startswith("held_out_")
    }
    return field | _derived(values) | held_out | {f"rods/{name}": x for name, x in numbers.items()}


def _derived(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of a step's record that the field takes per rollout, or of the groups' standard deviations."""
    if "task_variance" not in values:
        return {}
    rollouts = int(values["rollouts_played"])
    spreads = [math.sqrt(x) for x in values["task_variance"] if math.isfinite(x)]
    return {
        "rewards/std": sum(spreads) / len(spreads) if spreads else math.nan,
        "completions/mean_length": values["tokens_generated"] / rollouts,
        "completions/clipped_ratio": values["truncated_rollouts"] / rollouts,
    }


# ------------------------------------------------------------------------------------------- the seam
def prepared(config: Config) -> dict[str, Dashboard]:
    """The configuration's dashboards, by their names in `dashboards.json`, not yet entered.

    ImportError: a package is not installed.  Nothing was touched.
    """
    plain = [plain_values(one) for one in config.writers]
    names = [one if isinstance(one, str) else strict_json.dumps(one) for one in plain]
    return {name: one(Path(config.run_dir)) for name, one in zip(names, config.writers)}


@contextlib.contextmanager
def shown(dashboards: Mapping[str, Dashboard], directory: Path, say: Callable[[str], None]) -> Iterator[MetricWriter]:
    """Writes to all of them.  What fails is counted, said once for each, and ends nothing.

    `dashboards.json` keeps each one's latest step and its failures.  A resumed run computes again what lies beyond its
    checkpoint, to the same numbers: a dashboard that has them is not given them twice.
    """
    path = directory / "dashboards.json"
    standing = read_object(path) if path.exists() else {}
    writers: dict[str, MetricWriter] = {}
    said: set[str] = set()

    @contextlib.contextmanager
    def counting_failures(name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            standing[name]["failures"] += 1
            if name not in said:
                say(f"the dashboard {name} failed, and the run goes on: {type(error).__name__}: {error}")
            said.add(name)

    def keep() -> None:
        if dashboards:
            write_atomically(path, strict_json.dumps(standing, indent=1) + "\n")

    def write(step: int, values: Mapping[str, Any]) -> None:
        for name, writer in writers.items():
            if step > standing[name]["step"]:
                with counting_failures(name):
                    writer(step, values)
                    standing[name]["step"] = step
        keep()

    def close(name: str, *error: Any) -> None:
        with counting_failures(name):
            dashboards[name].__exit__(*error)
        keep()

    with contextlib.ExitStack() as stack:
        for name, dashboard in dashboards.items():
            standing.setdefault(name, {"step": -1, "failures": 0})
            with counting_failures(name):
                writers[name] = dashboard.__enter__()
                stack.push(partial(close, name))
        yield write
