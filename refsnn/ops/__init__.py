"""The mathematics: pure functions ``y, pullback = op(x, parameters…)``, without state.

``pullback(dy)`` returns the cotangents of the array arguments in argument order. Nothing here knows about neurons,
networks or training.
"""

from .attention import MASKED, attention, attention_scores, causal_mask, mix, softmax, split_heads
from .dense import Array, clip, embedding, gelu, gelu_tanh, layer_norm, linear, relu, scale, tanh
from .losses import cross_entropy, log_softmax, mse, soft_cross_entropy
from .rows import Rows

__all__ = [
    "MASKED",
    "Array",
    "Rows",
    "attention",
    "attention_scores",
    "causal_mask",
    "clip",
    "cross_entropy",
    "embedding",
    "gelu",
    "gelu_tanh",
    "layer_norm",
    "linear",
    "log_softmax",
    "mix",
    "mse",
    "relu",
    "scale",
    "soft_cross_entropy",
    "softmax",
    "split_heads",
    "tanh",
]
