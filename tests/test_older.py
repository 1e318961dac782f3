"""What an older version wrote or named is refused in one sentence that says what changed, and nothing is touched."""

import json

import pytest

from rods_jax.config import ConfigError, load_config
from rods_jax.fields import ConfigError as Refused
from rods_jax.older import LAYOUT, MOVED, saved_config


@pytest.mark.parametrize("layout", [None, 1, 99])
def test_a_run_of_another_layout_is_refused_and_left_alone(tmp_path, layout):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"name": "it"} | ({} if layout is None else {"layout": layout})))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="begun by another version of rods_jax.*begin anew in another folder"):
        saved_config(tmp_path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    path.write_text(json.dumps({"name": "it", "layout": LAYOUT}))
    assert saved_config(tmp_path) == {"name": "it"}


@pytest.mark.parametrize(
    ("line", "now"),
    [
        ("from models.tokenizer import train_tokenizer", "rods_jax.codecs.tokenizer"),
        ("from scripts.policies import policy_of", "models.learner"),
        ("from rods_jax import grpo\ngrpo.Objective()", "rods_jax.config.UpdateConfig"),
        ("from rods_jax.types import CATEGORIES", "Domain.strata"),
        (
            "from rods_jax.config import Config\nConfig(**{k: None for k in Config.__annotations__ if k != 'learner'})",
            "decoder",
        ),
    ],
)
def test_a_config_of_an_older_version_is_told_where_things_are(tmp_path, line, now):
    path = tmp_path / "mine.py"
    path.write_text(line + "\n")
    with pytest.raises(Refused, match=f"mine.py, line .* .since version .*{now}"):
        load_config(path)
    assert len(MOVED) >= 5
