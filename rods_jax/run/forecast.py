"""What a run will need and can hope for, foreseen from its parts before its first step; nothing is trained or written.

    tasks -> which tools pass values on        seeds, author -> how many of a sample become variants
    learner -> memory                          lengths, learner -> tokens and arithmetic of the first step

`python -m scripts.check` shows it, and a run says the sentences when it begins.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rods_jax.config import Config, rollout_of, rollouts_of
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.held_out import sample_tasks
from rods_jax.run.authors import contents_of, rule_based
from rods_jax.run.learner import Learner
from rods_jax.run.learning import Learning, quotas_of
from rods_jax.run.playing import places_of
from rods_jax.run.speed import peak_of
from rods_jax.synthesis.diversity import diversity
from rods_jax.synthesis.plan import flowing
from rods_jax.synthesis.rehearsal import Rehearsal, rehearse
from rods_jax.types import Json

REHEARSED = 16  # seeds
LIKELY = 0.5  # below this share of them synthesis is said to need mending
MATMUL = 1024  # width of the product that times a device whose peak is not known

Flows = dict[str, dict[str, list[str]]]  # producer -> consumer -> its parameters


def forecast(
    config: Config, tasks: TaskSplits, domain: Domain, learner: Learner, learn: Learning, lengths: Mapping[str, Json]
) -> dict[str, Json]:
    """The figures of `rods check`, as plain values.  lengths: as `check_lengths` returns them."""
    rehearsal = rehearsed(config, tasks, domain)
    return {
        "flows": tool_flows(domain, tasks),
        "diversity": asdict(diversity(tasks.seeds)),
        "synthesis": None if rehearsal is None else asdict(rehearsal),
        "begins_with": begins_with(config, learner),
        "memory": memory(config, learner, learn),
        "first_step": first_step(config, domain, learner, lengths),
    }


def tool_flows(domain: Domain, tasks: TaskSplits) -> Flows:
    """For each tool, the tools of its domain that take something which it returns, as names and schemas tell."""
    members = {id(domain.of(task)): domain.of(task) for task in tasks.seeds}
    flows: Flows = {}
    for member in members.values():
        for producer in member.tools.values():
            into = {name: sorted(flowing(producer, tool)) for name, tool in member.tools.items()}
            flows[producer.name] = {name: taken for name, taken in into.items() if taken and name != producer.name}
    return flows


def rehearsed(config: Config, tasks: TaskSplits, domain: Domain) -> Rehearsal | None:
    """A rehearsal of the rule-based author; None: no stage synthesises, others write, or episodes are no gold's."""
    if config.synthesis is not None or not any(stage.synthesis for stage in config.stages):
        return None
    seeds = [task for task in sample_tasks(tasks.seeds, REHEARSED) if domain.of(task).start is None]
    known = contents_of(tasks)
    return rehearse(rule_based(domain, tasks), seeds, known=known, run_seed=config.seed) if seeds else None


def begins_with(config: Config, learner: Learner) -> str:
    """What the policy knows before the first step."""
    if config.cold_start is not None:
        return "demonstrations"
    return "random weights" if learner.random_weights else "its own weights"


def memory(config: Config, learner: Learner, learn: Learning) -> dict[str, int]:
    """Bytes: `parameters` and all `state` on a device, frozen weights in both; `caches`, those of the longest rollouts at
    their limits in this process."""
    r = max(rollouts_of(config).values(), key=lambda r: r.max_prompt_tokens + r.max_suffix_tokens)
    slots, rows = places_of(config, learner, r)
    actor = learner.actor(rows)
    suffixes = jax.eval_shape(lambda: actor.empty(slots, rows, r.max_suffix_tokens))
    prompts = jax.eval_shape(lambda: actor.empty(slots, 1, r.max_prompt_tokens))  # a prompt is cached once per task
    return {
        "parameters": _bytes_of((learn.state.params, learner.frozen)),
        "state": _bytes_of((learn.state, learner.frozen)),
        "caches": _bytes_of(suffixes) + _bytes_of(prompts),
    }


def first_step(config: Config, domain: Domain, learner: Learner, lengths: Mapping[str, Json]) -> dict[str, Json] | None:
    """What the first step takes if its rollouts are as long as gold dialogues: tokens, FLOPs, and seconds at least.

    None: a run without stages takes none.
    """
    if not config.stages:
        return None
    stage = config.stages[0]
    r = rollout_of(config, stage)
    shape = r.tasks_per_step, r.group_size
    mean = lengths[f"stages.{stage.name}"]["mean"] or {"prompt": 0, "suffix": 0}
    prompts_N, suffixes_NG = np.full(shape[0], mean["prompt"]), np.full(shape, mean["suffix"])
    flops = None if learner.flops is None else learner.flops(prompts_N, suffixes_NG)
    peak = peak_of(learner)
    asked = sum(quotas_of(config.update, tuple(domain.strata))) if config.synthesis and stage.synthesis else 0
    return {
        "rollouts": math.prod(shape),
        "tokens": float(prompts_N.sum() + suffixes_NG.sum()),
        "dialogues": mean["suffix"] > 0,  # whether gold dialogues are among them
        "tokens_at_most": shape[0] * (r.max_prompt_tokens + r.group_size * r.max_suffix_tokens),
        "flops": flops,
        "seconds": None if flops is None else flops / (peak or measured_peak()),
        "seconds_of": "datasheet" if peak else "measured",
        "seeds": asked,  # that the authors of config.synthesis are asked about
    }


def measured_peak(clock: Callable[[], float] = time.perf_counter) -> float:
    """FLOPs a second of a float32 product on one device; the best of three."""
    x = jnp.ones((MATMUL, MATMUL), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    seconds = []
    for _ in range(3):
        began = clock()
        product(x, x).block_until_ready()
        seconds.append(clock() - began)
    return 2 * MATMUL**3 / min(seconds)


def sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """What a person should know of it, the answer first."""
    if found["begins_with"] == "random weights":
        yield (
            "the policy begins with random weights and without a cold start: no rollout will pass a check, and equal "
            "rewards teach nothing; give the model a checkpoint, or the config a cold_start"
        )
    flows, held, step = found["flows"], found["memory"], found["first_step"]
    passing = sum(map(bool, flows.values()))
    yield f"{passing} of {len(flows)} tools return something that another tool takes" + (
        "" if passing or not flows else ": no task can be a chain of calls, unless gold shows such flows"
    )
    if (calls := found["diversity"])["tools"]:
        yield (
            f"the gold of {calls['tasks']} seeds has {calls['patterns']} call patterns, as varied as "
            f"{calls['effective_patterns']:.1f} equally frequent ones, and calls {calls['tools']} tools in "
            f"{calls['pairs']} pairs"
        )
    if rehearsal := found["synthesis"]:
        accepted, seeds = rehearsal["accepted"], rehearsal["seeds"]
        yield f"synthesis found a variant of {accepted} of {seeds} sampled seeds"
        if accepted < LIKELY * seeds:
            for name, failing in rehearsal["failures"].items():
                remedy = f"; {failing['remedy']}" if failing["remedy"] else ""
                yield f"synthesis: {failing['attempts']} attempts ended in {name} ({failing['detail']}){remedy}"
    yield (
        f"memory: {_sized(held['state'])} of training state on a device, {_sized(held['parameters'])} of it the policy, "
        f"and {_sized(held['caches'])} of rollout caches; the update's activations come on top"
    )
    if step is None:
        return
    measured = "if they are as long as gold" if step["dialogues"] else "in their prompts alone: no gold is known"
    yield (
        f"a first step plays {step['rollouts']} rollouts, {step['tokens']:,.0f} tokens {measured}"
        + (
            ""
            if step["flops"] is None
            else f", {step['flops'] / 1e12:.3g} TFLOP, at least {step['seconds']:.2g} s here"
        )
    )
    if step["seeds"]:
        yield f"each step asks the authors about at most {step['seeds']} seeds"


def _bytes_of(tree: Any) -> int:
    """Of the arrays, or of the part of each that a device holds where a sharding is stated."""
    shapes = [
        (x.shape if getattr(x, "sharding", None) is None else x.sharding.shard_shape(x.shape), x.dtype)
        for x in jax.tree.leaves(tree)
    ]
    return sum(math.prod(shape) * jnp.dtype(dtype).itemsize for shape, dtype in shapes)


def _sized(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
