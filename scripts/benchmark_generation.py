"""How fast rollouts are generated: G1 (many turns), G2 (plain) and G3 (top-p), beside google-tunix or transformers.

    python -m scripts.benchmark_generation --workload G1 --peer-python /path/to/peer/bin/python

No token stops a message, so that both sides decode the same number.  G3 compares top-p 0.95 with plain temperature
sampling, both ours.  Left out on purpose: environments, codecs and everything else on the host.
"""

import json
import tempfile
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tyro

from rods_jax.generation import Sampling, generator, rollout_keys
from scripts import measure


class Workload(NamedTuple):
    tasks: int
    group: int
    prompt: int
    turns: int
    generated: int  # tokens a turn
    observed: int
    vocab: int
    temperature: float
    peer: str | None  # script in scripts/peers
    target: str


WORKLOADS = {
    "G1": Workload(1, 16, 1024, 4, 32, 32, 4096, 1.0, "tunix_generation.py", "8 times faster"),
    "G2": Workload(32, 1, 128, 1, 128, 0, 4096, 0.0, "transformers_generation.py", "1.5 times as fast"),
    "G2-32k": Workload(32, 1, 128, 1, 128, 0, 32768, 0.0, "transformers_generation.py", ""),
    "G3": Workload(32, 1, 128, 1, 128, 0, 4096, 1.0, None, "top-p at most 1.15 times the time of plain"),
    "G3-32k": Workload(32, 1, 128, 1, 128, 0, 32768, 1.0, None, "top-p at most 1.15 times the time of plain"),
    "tiny": Workload(1, 2, 8, 2, 4, 3, 64, 1.0, None, "a check that the benchmark runs"),
}


@dataclass(frozen=True)
class Options:
    workload: Literal["G1", "G2", "G2-32k", "G3", "G3-32k", "tiny"] = "tiny"
    turns: int = 0  # another number of turns, for the growth chart
    peer_python: str | None = None  # interpreter that has the peer
    rounds: int = 2  # processes of each side, in turns
    repeats: int = 3  # timed rollouts in a process
    measure: str | None = None  # set by the benchmark for its own processes


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if options.measure:
        print(json.dumps(ours(json.loads(options.measure))))
        return
    workload = WORKLOADS[options.workload]
    workload = workload._replace(turns=options.turns or workload.turns)
    with tempfile.TemporaryDirectory() as directory:
        request = workload._asdict() | {"repeats": options.repeats, "weights": f"{directory}/weights.npz"}
        measure.save_weights(request["weights"], workload.vocab)
        commands = {"ours": measure.this_module("scripts.benchmark_generation", request | {"top_p": 1.0})}
        if options.workload.startswith("G3"):
            commands["ours, top-p 0.95"] = measure.this_module(
                "scripts.benchmark_generation", request | {"top_p": 0.95}
            )
        if options.peer_python and workload.peer:
            commands["peer"] = measure.peer(options.peer_python, workload.peer, request)
        results = measure.take_turns(commands, options.rounds)
    tokens = workload.tasks * workload.group * workload.turns * workload.generated
    for result in results.values():
        if "median_seconds" in result:
            result["tokens_per_second"] = tokens / result["median_seconds"]
    report = {
        "row": options.workload,
        "shape": workload._asdict(),
        "results": results,
        "times_faster": measure.ratio(results, "ours", "peer", "median_seconds"),
        "top_p_over_plain": measure.ratio(results, "ours", "ours, top-p 0.95", "median_seconds"),
    }
    print(json.dumps(report, indent=2))


def ours(request: dict[str, Any]) -> dict[str, Any]:
    r, w = request, Workload(**{name: request[name] for name in Workload._fields})
    policy, params = measure.random_policy(w.vocab)
    generate = generator(
        policy,
        stop_tokens=(),
        group_size=w.group,
        suffix_capacity=w.turns * (w.generated + w.observed),
        max_action_tokens=w.generated,
    )
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, w.vocab, (w.tasks, w.prompt)).astype(np.int32)
    lengths = np.full(w.tasks, w.prompt, np.int32)
    told = rng.integers(0, w.vocab, (w.tasks, w.group, w.observed)).astype(np.int32)
    active = np.ones((w.tasks, w.group), bool)
    rows, heard = np.indices(active.shape, np.int32)[1], np.full(active.shape, w.observed, np.int32)
    keys = rollout_keys(0, 0, [str(n) for n in range(w.tasks)], w.group)
    sampling = Sampling(w.temperature, r["top_p"])

    def rollout() -> jax.Array:
        episodes = generate.start(params, prompts, lengths, keys)
        for turn in range(w.turns):
            generated, episodes = generate.act(params, episodes, active, sampling)
            if turn + 1 < w.turns:
                episodes = generate.observe(params, episodes, rows, told, heard)
        return generated.tokens_NGA

    measured = measure.measure(rollout, r["repeats"])
    compilations = {name: getattr(generate, name)._cache_size() for name in ("start", "act", "observe")}
    return measured | {"compilations": compilations, "checksum": int(np.asarray(rollout(), np.int64).sum())}


if __name__ == "__main__":
    main()
