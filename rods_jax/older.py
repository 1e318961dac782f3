"""What older versions named or wrote otherwise, so that one sentence says what changed and what to do."""

from pathlib import Path
from typing import Any

from rods_jax.fields import ConfigError
from rods_jax.files import read_object

LAYOUT = 2  # of a run directory; 1, which no config.json told: tasks of version 1, and a config without `learner`
MOVED = {  # what stands in a configuration's file -> where that is now
    "models.tokenizer": "rods_jax.codecs.tokenizer",
    "scripts.policies": "models.learner, and its `decoder` is the key `learner`",
    "scripts.players": "rods_jax.run.players",
    "needs the key 'learner'": "learner=models.learner.decoder makes the policy of `model`",
    "cannot import name 'CATEGORIES'": "a domain says its own: Domain.strata",
    "has no attribute 'Objective'": "the update takes a rods_jax.config.UpdateConfig",
}


def saved_config(directory: str | Path, **fields: Any) -> dict[str, Any]:
    """A run's config.json, without `layout`.  ConfigError: there is no run, or one of an older version."""
    path = Path(directory) / "config.json"
    if not path.exists():
        raise ConfigError(f"{directory} holds no run")
    saved = read_object(path, **fields)
    if saved.pop("layout", 1) != LAYOUT:
        raise ConfigError(
            f"{directory} was begun by another version of rods_jax, whose tasks and settings are written otherwise: "
            "go on with that version (its export is a checkpoint for this one), or begin anew in another folder"
        )
    return saved


def advice(sentence: str) -> str:
    """The sentence, and what to do where it names something that moved."""
    found = next((now for name, now in MOVED.items() if name in sentence), None)
    return sentence if found is None else f"{sentence} (since version 0.2: {found})"
