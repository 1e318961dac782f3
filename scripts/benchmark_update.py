"""How long a GRPO update takes, and how much memory: U1 to U4, beside google-tunix or hand-written torch.

    python -m scripts.benchmark_update --workload U1 --peer-python /path/to/peer/bin/python

Loss, gradient and AdamW update with given old and reference log-probabilities, k3 KL 0.04, clip 0.2, mean over
sequences of token means, float32.  Both sides start from the same weights and tokens; their first losses are
compared.  docs/guide/measure.md says how to install the peers.  Left out on purpose: rollouts and rewards.
"""

import json
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
import tyro

from rods_jax import grpo
from rods_jax.config import UpdateConfig
from rods_jax.types import RolloutBatch
from scripts import measure


class Workload(NamedTuple):
    tasks: int
    group: int
    prompt: int
    suffix: int
    vocab: int
    peer: str | None  # script in scripts/peers
    target: str
    keep: tuple[str, ...] = ("gate", "up")  # ours, DecoderConfig.keep


WORKLOADS = {
    "U1": Workload(1, 16, 1024, 256, 4096, "tunix_update.py", "12 times faster, 1/8 of the memory"),
    "U2": Workload(1, 16, 2048, 512, 4096, "tunix_update.py", "12 s, 2.5 GB"),
    "U3": Workload(1, 16, 8192, 10240, 4096, None, "24 GB", keep=()),
    "U4": Workload(8, 4, 128, 128, 4096, "torch_update.py", "1.0 times as fast"),
    "U4-32k": Workload(8, 4, 128, 128, 32768, "torch_update.py", "1.25 times as fast, 1.5 GB"),
    "tiny": Workload(2, 3, 16, 8, 64, "torch_update.py", "a check that the benchmark runs"),
}


@dataclass(frozen=True)
class Options:
    workload: Literal["U1", "U2", "U3", "U4", "U4-32k", "tiny"] = "tiny"
    group: int = 0  # another group size, for the growth chart
    prompt: int = 0  # another prompt length
    peer_python: str | None = None  # interpreter that has the peer
    rounds: int = 2  # processes of each side, in turns
    repeats: int = 3  # timed steps in a process
    measure: str | None = None  # set by the benchmark for its own processes


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if options.measure:
        print(json.dumps(ours(json.loads(options.measure))))
        return
    workload = WORKLOADS[options.workload]
    workload = workload._replace(group=options.group or workload.group, prompt=options.prompt or workload.prompt)
    with tempfile.TemporaryDirectory() as directory:
        request = workload._asdict() | {"repeats": options.repeats, "weights": f"{directory}/weights.npz"}
        measure.save_weights(request["weights"], workload.vocab)
        np.savez(f"{directory}/batch.npz", **arrays(workload))
        request["batch"] = f"{directory}/batch.npz"
        commands = {"ours": measure.this_module("scripts.benchmark_update", request)}
        if options.peer_python and workload.peer:
            commands["peer"] = measure.peer(options.peer_python, workload.peer, request)
        results = measure.take_turns(commands, options.rounds)
    needed = flops(workload)
    own = results["ours"]
    report = {
        "row": options.workload,
        "shape": workload._asdict(),
        "results": results,
        "times_faster": measure.ratio(results, "ours", "peer", "median_seconds"),
        "times_less_memory": measure.ratio(results, "ours", "peer", "peak_bytes"),
        "losses_differ_by": measure.difference(own, results.get("peer", {})),
        "needed_flops": needed,
    }
    if "median_seconds" in own:
        report["floor_seconds"] = needed / own["matrix_peak"]
        report["share_of_peak"] = report["floor_seconds"] / own["median_seconds"]
    print(json.dumps(report, indent=2))


def arrays(w: Workload) -> dict[str, np.ndarray]:
    """Tokens, advantages, and old and reference log-probabilities near the policy's; every suffix token is an action."""
    rng = np.random.default_rng(0)
    shape = w.tasks, w.group, w.suffix
    given = {
        "prompt": rng.integers(0, w.vocab, (w.tasks, w.prompt)).astype(np.int32),
        "suffix": rng.integers(0, w.vocab, shape).astype(np.int32),
        "old": np.zeros(shape, np.float32),
        "advantages": rng.normal(size=shape[:2]).astype(np.float32),
    }
    if w.peer:
        policy, params = measure.random_policy(w.vocab)
        near = jax.jit(partial(grpo.action_log_probs, policy=policy))(params, batch_of(given), 1.0).log_probs_T
    else:  # nobody compares losses, and a forward pass takes minutes
        near = np.full(shape, -np.log(w.vocab))
    old, reference = (np.asarray(near, np.float32) + 0.1 * rng.normal(size=shape).astype(np.float32) for _ in range(2))
    return given | {"old": old, "reference": reference}


def batch_of(given: dict[str, np.ndarray]) -> RolloutBatch:
    n, g, s = given["suffix"].shape
    used = {
        "prompt_tokens_NP": given["prompt"],
        "prompt_lengths_N": np.full(n, given["prompt"].shape[1], np.int32),
        "suffix_tokens_NGS": given["suffix"],
        "suffix_lengths_NG": np.full((n, g), s, np.int32),
        "action_mask_NGS": np.ones((n, g, s), bool),
        "behavior_log_probs_NGS": given["old"],
        "valid_NG": np.ones((n, g), bool),
    }
    return RolloutBatch(**dict.fromkeys(RolloutBatch._fields) | used)


def ours(request: dict[str, Any]) -> dict[str, Any]:
    policy, params = measure.random_policy(request["vocab"], keep=tuple(request["keep"]))
    with np.load(request["batch"]) as file:
        given = dict(file)
    batch = batch_of(given)
    objective = UpdateConfig(
        learning_rate=1.0,
        ratio=grpo.token_ratio,
        aggregate=grpo.sequence_mean,
        clip_high=0.2,
        dual_clip=1e9,
        kl_coefficient=0.04,
        entropy_coefficient=0.0,
    )
    optimizer = optax.adamw(1e-6)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, batch, reference, advantages):
        def loss(params):
            taken = grpo.action_log_probs(params, batch, 1.0, policy=policy)
            return grpo.objective_value(taken, reference, batch, advantages, objective)[0]

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state, losses = (params, optimizer.init(params)), []

    def one():
        nonlocal state
        *state, value = step(*state, batch, given["reference"], given["advantages"])
        losses.append(value)
        return value

    measured = measure.measure(one, request["repeats"])
    return measured | {
        "loss": float(losses[0]),
        "compilations": step._cache_size(),
        "matrix_peak": measure.matrix_peak(),
    }


def flops(w: Workload) -> float:
    """What one step must compute: 2 FLOPs a weight and token forward, 4 backward; scores of visible pairs alike."""
    c = measure.SHAPE
    heads = c["query_heads"] + 2 * c["key_value_heads"]
    weights = c["width"] * c["head_width"] * (heads + c["query_heads"]) + 3 * c["width"] * c["feed_forward"]
    tokens = w.tasks * (w.prompt + w.group * w.suffix)
    prompt_pairs = w.tasks * w.prompt * (w.prompt + 1) / 2
    suffix_pairs = w.tasks * w.group * (w.suffix * w.prompt + w.suffix * (w.suffix + 1) / 2)
    attention = 2 * c["query_heads"] * c["head_width"] * (prompt_pairs + suffix_pairs)
    projection = w.tasks * w.group * w.suffix * c["width"] * w.vocab
    return 6 * (c["layers"] * (tokens * weights + attention) + projection)


if __name__ == "__main__":
    main()
