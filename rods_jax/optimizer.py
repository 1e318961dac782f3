"""The optimizer of updates and of the cold start: AdamW behind a clip, with a schedule.

`update_step` takes any other optimizer of optax.
"""

from typing import Any

import jax
import optax


def create_optimizer(
    learning_rate: float,
    *,
    warmup_steps: int = 0,
    decay_steps: int | None = None,
    max_grad_norm: float = 1.0,
    weight_decay: float = 0.0,
    b2: float = 0.999,
) -> optax.GradientTransformation:
    """AdamW behind a global-norm clip; linear warm-up, then constant, or linear down to a tenth at `decay_steps`.

    weight_decay: for matrices; norms and biases do not decay (`decays`).
    """
    schedule = optax.linear_schedule(learning_rate / (warmup_steps + 1), learning_rate, warmup_steps)
    if decay_steps is not None:
        down = optax.linear_schedule(learning_rate, learning_rate / 10, decay_steps - warmup_steps)
        schedule = optax.join_schedules([schedule, down], [warmup_steps])
    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm),
        optax.adamw(schedule, b2=b2, weight_decay=weight_decay, mask=decays),
    )


def decays(params: Any) -> Any:
    """Which parameters decay: none that is a vector or a scalar, and none whose name contains norm, bias or scale.

    The name counts because stacked layers make a matrix of their norms.
    """

    def matrix(path, x) -> bool:
        name = jax.tree_util.keystr(path).lower()
        return x.ndim > 1 and not any(word in name for word in ("norm", "bias", "scale"))

    return jax.tree_util.tree_map_with_path(matrix, params)
