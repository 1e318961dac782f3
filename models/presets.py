"""The shapes of published checkpoints, 0.5B to 8B, and one tiny shape of each family for tests.

A checkpoint's own config.json decides when weights are loaded; these serve to plan a run without one.
"""

from collections.abc import Callable
from functools import partial

from .decoder import DecoderConfig
from .families import FAMILIES
from .rotary import RopeScaling

_qwen2: Callable[..., DecoderConfig] = partial(
    DecoderConfig, **FAMILIES["qwen2"], rope_theta=1e6, norm_epsilon=1e-6, max_positions=32_768
)
_qwen3: Callable[..., DecoderConfig] = partial(
    DecoderConfig, **FAMILIES["qwen3"], rope_theta=1e6, norm_epsilon=1e-6, max_positions=40_960
)
_llama3: Callable[..., DecoderConfig] = partial(
    DecoderConfig, **FAMILIES["llama"], rope_theta=5e5, norm_epsilon=1e-5, max_positions=131_072
)
_scaled = partial(RopeScaling, low_frequency_factor=1.0, high_frequency_factor=4.0, original_positions=8192)

# vocabulary, layers, width, query heads, key/value heads, head width, feed-forward
QWEN2_5_0_5B = _qwen2(151_936, 24, 896, 14, 2, 64, 4864)
QWEN2_5_1_5B = _qwen2(151_936, 28, 1536, 12, 2, 128, 8960)
QWEN2_5_3B = _qwen2(151_936, 36, 2048, 16, 2, 128, 11_008)
QWEN2_5_7B = _qwen2(152_064, 28, 3584, 28, 4, 128, 18_944, tied_embedding=False)

QWEN3_0_6B = _qwen3(151_936, 28, 1024, 16, 8, 128, 3072)
QWEN3_1_7B = _qwen3(151_936, 28, 2048, 16, 8, 128, 6144)
QWEN3_4B = _qwen3(151_936, 36, 2560, 32, 8, 128, 9728)
QWEN3_8B = _qwen3(151_936, 36, 4096, 32, 8, 128, 12_288, tied_embedding=False)

LLAMA_3_2_1B = _llama3(128_256, 16, 2048, 32, 8, 64, 8192, rope_scaling=_scaled(32.0))
LLAMA_3_2_3B = _llama3(128_256, 28, 3072, 24, 8, 128, 8192, rope_scaling=_scaled(32.0))
LLAMA_3_1_8B = _llama3(128_256, 32, 4096, 32, 8, 128, 14_336, rope_scaling=_scaled(8.0), tied_embedding=False)

TINY_QWEN2_5 = _qwen2(96, 2, 32, 4, 2, 8, 48, max_positions=256, tied_embedding=False)
TINY_QWEN3 = _qwen3(96, 2, 32, 4, 2, 16, 48, max_positions=256)  # heads wider than width / heads
TINY_LLAMA3 = _llama3(
    96, 2, 32, 4, 1, 8, 48, max_positions=256, rope_theta=1e4, rope_scaling=_scaled(8.0, original_positions=16)
)
