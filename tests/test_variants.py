"""The kernels jitted or not, on a chosen device and mapped over devices: the same numbers; and one trace for many calls."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from rods_jax import boundary_score, group_statistics, log_probs, partition, segment_group_statistics

REWARDS = np.array([[0.0, 1.0, 0.5, 0.5], [0.25, 0.25, 0.25, 0.25]], np.float32)


class KernelsTest(chex.TestCase):
    @chex.all_variants()
    def test_group_statistics(self):
        found = self.variant(group_statistics)(REWARDS)
        np.testing.assert_allclose(found.mean_N, [0.5, 0.25])
        np.testing.assert_allclose(found.variance_N, [0.125, 0.0])
        deviation = np.sqrt(0.5 / 3)
        np.testing.assert_allclose(found.advantages_NG[0], (REWARDS[0] - 0.5) / (deviation + 1e-6), rtol=1e-6)

    @chex.all_variants()
    def test_ragged_statistics_are_the_dense_ones(self):
        ids = np.repeat(np.arange(2, dtype=np.int32), 4)
        ragged = self.variant(lambda x, i: segment_group_statistics(x, i, num_groups=2))(REWARDS.reshape(-1), ids)
        dense = group_statistics(jnp.asarray(REWARDS))
        np.testing.assert_allclose(ragged.advantages_NG, dense.advantages_NG.reshape(-1), rtol=1e-6)

    @chex.all_variants()
    def test_boundary(self):
        zones = self.variant(lambda passed, total: partition(passed, total, lower=0.2, upper=0.85))
        passed, total = np.array([0, 5, 10], np.int32), np.array([10, 10, 10], np.int32)
        np.testing.assert_array_equal(zones(passed, total), [0, 1, 2])
        np.testing.assert_allclose(self.variant(boundary_score)(np.float32([0.5, 1.0])), [1.0, 0.0])

    @chex.all_variants()
    def test_log_probs(self):
        hidden, table = np.float32([[1.0, 0.0], [0.0, 2.0]]), np.float32([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        found = self.variant(log_probs)(hidden, table, np.array([0, 2], np.int32)).log_probs_T
        expected = jax.nn.log_softmax(hidden @ table.T)[np.arange(2), [0, 2]]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_one_trace_serves_every_call_of_one_shape():
    chex.clear_trace_counter()
    counted = jax.jit(chex.assert_max_traces(group_statistics, n=1))
    for scale in (1.0, 2.0, 3.0):
        counted(scale * REWARDS)
