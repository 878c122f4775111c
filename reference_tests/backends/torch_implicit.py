"""The adapter in PyTorch, with fixed points as near as refsnn's own in float32: for the benchmark."""

from .torch_backend import Torch


class Implicit(Torch):
    name, tolerance = "torch, implicit", 1e-5


backend = Implicit()
name, dtypes, supports, gradients = backend.name, backend.dtypes, backend.supports, backend.gradients
