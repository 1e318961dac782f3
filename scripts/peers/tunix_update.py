"""The update of benchmark_update by google-tunix: its GRPO loss, its Qwen3 with layers recomputed, AdamW.

Needs google-tunix==0.1.7.  Reads one JSON argument, prints one JSON line.
"""

import json
import resource
import sys
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.models.qwen3.model import RematConfig
from tunix.rl import algo_core, common
from tunix.rl.grpo.grpo_learner import GRPOConfig
from tunix_model import load

PAD = -1  # no token: every token of the workload counts


def main() -> None:
    request = json.loads(sys.argv[1])
    model = load(request["weights"], RematConfig.DECODER)
    with np.load(request["batch"]) as file:
        batch = dict(file)
    n, g, s = batch["suffix"].shape
    prompts = np.repeat(batch["prompt"], g, axis=0)
    example = common.TrainExample(
        prompt_ids=jnp.asarray(prompts),
        prompt_mask=jnp.ones(prompts.shape, jnp.int32),
        completion_ids=jnp.asarray(batch["suffix"].reshape(n * g, s)),
        completion_mask=jnp.ones((n * g, s), jnp.int32),
        advantages=jnp.asarray(batch["advantages"].reshape(-1)),
        ref_per_token_logps=jnp.asarray(batch["reference"].reshape(n * g, s)),
        old_per_token_logps=jnp.asarray(batch["old"].reshape(n * g, s)),
    )
    config = GRPOConfig(num_generations=g, beta=0.04, epsilon=0.2, kl_loss_mode="low_var_kl")
    config.temperature = 1.0  # which its learner sets
    optimizer = nnx.Optimizer(model, optax.adamw(1e-6), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, example):
        def loss(model):
            return algo_core.grpo_loss_fn(model, example, config, pad_id=PAD, eos_id=PAD)

        (value, _), gradient = nnx.value_and_grad(loss, has_aux=True)(model)
        optimizer.update(model, gradient)
        return value

    seconds, losses = [], []
    for _ in range(request["repeats"] + 1):
        started = time.perf_counter()
        losses.append(float(jax.block_until_ready(step(model, optimizer, example))))
        seconds.append(time.perf_counter() - started)
    found = {
        "seconds": seconds[1:],
        "compile_seconds": max(0.0, seconds[0] - min(seconds[1:])),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "loss": losses[0],
        "versions": {"google-tunix": version("google-tunix"), "jax": jax.__version__},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
