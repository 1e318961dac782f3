"""Muon for the decoder's stacked matrices, AdamW for its vectors and embedding.

From scratch on a small batch it needs about half of AdamW's steps.  Left out on purpose: schedules
other than a linear warm-up, since a cold start ends on a measured reward and not on a step count.
"""

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

# Axis 0 of every stacked weight is the layer; (what is summed over, what comes out).
_MATRICES = {
    "query": MuonDimensionNumbers(1, (2, 3, 4)),
    "key": MuonDimensionNumbers(1, (2, 3)),
    "value": MuonDimensionNumbers(1, (2, 3)),
    "output": MuonDimensionNumbers((1, 2, 3), 4),
    "gate": MuonDimensionNumbers(1, 2),
    "up": MuonDimensionNumbers(1, 2),
    "down": MuonDimensionNumbers(1, 2),
}


def cold_start_optimizer(learning_rate: float = 0.04, adam_learning_rate: float = 4e-3, warmup_steps: int = 50):
    """Muon (arXiv 2502.16982, through optax) behind a global-norm clip of 1."""

    def dimensions(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: _MATRICES.get(path[-1].key), params)

    def warm(rate: float):
        return optax.linear_schedule(rate / warmup_steps, rate, warmup_steps)

    return optax.chain(
        optax.clip_by_global_norm(1.0),
        muon(
            warm(learning_rate),
            adam_learning_rate=warm(adam_learning_rate),
            adam_b2=0.98,
            muon_weight_dimension_numbers=dimensions,
        ),
    )
