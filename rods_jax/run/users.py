"""The policy of a run as a model that speaks for users, in this process."""

import functools
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rods_jax.chat import Generate, Reply, Request
from rods_jax.config import ConfigError
from rods_jax.environments.protocol import Domain
from rods_jax.generation import Sampling, generator
from rods_jax.policy_chat import policy_generate
from rods_jax.run.played import played, run_config

ROWS = 16  # messages at a time; a batch costs the same however few of them wait
_LOADING = threading.Lock()


def with_user(domain: Callable[..., Domain], directory: str) -> Domain:
    """A domain whose users are models, `domain(model=...)`, with the policy of a run as theirs.

    ConfigError: there is no such run.
    """
    if not (Path(directory) / "config.json").is_file():
        raise ConfigError(f"no run in {directory}: train the model that speaks for the user first")
    return domain(model=partial(run_generate, directory))


def run_generate(directory: str, requests: Sequence[Request]) -> list[Reply]:
    """A `chat.Generate`, with `partial(run_generate, "runs/mine")`: the run's newest policy, sampled as it was trained.

    It is read when it is first asked.  CheckpointError: there is none.
    """
    with _LOADING:
        generate = _loaded(directory)
    return generate(requests)


@functools.cache
def _loaded(directory: str) -> Generate:
    own = played(Path(directory), run_config(Path(directory), None))
    codec, sizes = own.config.codec(own.tokenizer), own.config.rollout
    compiled = generator(
        own.learner.actor(1),
        stop_tokens=codec.stop_tokens,
        group_size=1,
        suffix_capacity=sizes.max_action_tokens,
        max_action_tokens=sizes.max_action_tokens,
        num_tokens=len(own.tokenizer),
    )
    return policy_generate(
        lambda: own.params,
        codec,
        compiled,
        rows=ROWS,
        prompt_capacity=sizes.max_prompt_tokens + sizes.max_suffix_tokens,
        sampling=Sampling(sizes.temperature, sizes.top_p, sizes.top_k),
        seed=own.config.seed,
    )
