"""A shipped run on a small mesh, with a small model: what tests plan and compile."""

from dataclasses import replace

from models.decoder import DecoderConfig


def twin(config, **model):
    """A run of the same stages on a small mesh, with a model of the same class that compiles in a second."""
    shape = config.model if isinstance(config.model, DecoderConfig) else config.model.shape
    fields = dict(
        vocab_size=96, layers=1, width=32, query_heads=4, key_value_heads=2, head_width=8, feed_forward=48,
        max_positions=4096, compute_dtype="float32",
    )  # fmt: skip
    small = lambda tokens: None if tokens is None else max(16, tokens // 64)
    lengths = lambda entry, *names: {name: small(getattr(entry, name)) for name in names}
    names = "max_prompt_tokens", "max_suffix_tokens", "max_action_tokens"
    r = config.rollout
    return replace(
        config,
        mesh=(2, 2, 2, 1),
        model=replace(shape, **fields | model),
        cold_start=None if config.stages else config.cold_start,
        stages=tuple(replace(stage, **lengths(stage, *names)) for stage in config.stages),
        rollout=replace(
            r, **lengths(r, *names), tasks_per_step=4, group_size=4, observation_chunk=8, concurrent_tasks=2,
            suffix_sizes=tuple(sorted(set(map(small, r.suffix_sizes)) - {small(r.max_suffix_tokens)})),
        ),
        update=replace(config.update, micro_batches=2, quotas=1),
        evaluation=replace(config.evaluation, num_tasks=4),
    )  # fmt: skip
