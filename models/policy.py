"""Packs a decoder into the callables that the training loop asks of any model."""

import jax
from flax import nnx

from .decoder import Decoder, DecoderConfig
from .layout import Layout, gathered


def callables(config: DecoderConfig, layout: Layout = Layout()) -> dict:
    """The fields of `rods_jax.types.Policy`; parameters are plain nested dicts of arrays."""

    def create(key: jax.Array) -> Decoder:
        return Decoder(config, nnx.Rngs(params=key), layout)

    graph, shapes = nnx.split(nnx.eval_shape(create, jax.random.key(0)))

    def unembedding(params):
        # From a cut along the width to one along the vocabulary, one mesh axis at a time: no device gathers it whole.
        weight = params["embedding" if config.tied_embedding else "unembedding"]
        for axes in ("VD", "UD", "W-"):
            weight = layout.constrain(weight, axes)
        return weight

    def bind(params) -> Decoder:
        return nnx.merge(graph, nnx.State(params))

    return dict(
        init=jax.jit(lambda key: nnx.to_pure_dict(nnx.split(create(key))[1])),
        forward=lambda params, *batch: bind(params).forward(*batch),
        unembedding=unembedding,
        gather=lambda x: gathered(x, "NGT-"[: x.ndim], "-" * x.ndim, layout),
        chunk_size=layout.chunk_size,
        prefill=lambda params, *batch: bind(params).prefill(*batch),
        empty=lambda *sizes: nnx.merge(graph, shapes).empty(*sizes),
        extend=lambda params, *batch: bind(params).extend(*batch),
    )
