"""BertAdam and its learning-rate schedule, as BERT's and the authors' programs train.

Parameters and moments are flat dicts of arrays, updated in place, in slices small enough to stay in a core's cache:
a step touches every parameter some fifteen times, and memory traffic would otherwise dominate small models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..model.parameters import SCALES, Params
from ..ops import Array
from ..parallel import each, threads

__all__ = ["BertAdam", "clipped", "linear_warmup"]

#: Elements per slice: 256 kB of float32, so that parameter, gradient, two moments and scratch stay in a core's cache,
#: and yet so many that threads seldom wait for each other between two operations.
SLICE = 65536


def linear_warmup(progress: float, warmup: float = 0.1) -> float:
    """Factor of the learning rate: rises from 0 to 1 over the warm-up, then falls linearly to 0.

    Parameters
    ----------
    progress : float
        Steps done / steps in all, before this step.
    warmup : float
        Fraction of the steps that warm up.

    Returns
    -------
    factor : float

    Examples
    --------
    >>> [round(linear_warmup(x), 3) for x in (0, 0.05, 0.1, 0.55, 1)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return progress / warmup if progress < warmup else max((1 - progress) / (1 - warmup), 0.0)


def clipped(gradient: Array, max_norm: float) -> Array:
    """Scale a gradient down to a Euclidean norm of at most `max_norm`.

    Parameters
    ----------
    gradient : array
    max_norm : float

    Returns
    -------
    gradient : array
        The same array if it is short enough.

    Examples
    --------
    >>> clipped(np.array([3.0, 4.0]), 1.0).round(6)
    array([0.6, 0.8])
    """
    flat = gradient.reshape(-1)
    norm = float(np.sqrt(np.dot(flat, flat)))
    return gradient * (max_norm / (norm + 1e-6)) if norm > max_norm else gradient


@dataclass(frozen=True)
class BertAdam:
    """Adam without bias correction and with decoupled weight decay.

    ``m ← β₁m + (1−β₁)g``, ``v ← β₂v + (1−β₂)g²``, ``θ ← θ − lr·(m/(√v + ε) + w·θ)``, after clipping each parameter's
    gradient to norm `max_norm` by itself. Biases, LayerNorm parameters and other scales do not decay.

    Examples
    --------
    >>> params = {"w": np.ones(2)}
    >>> optimiser = BertAdam(weight_decay=0.0)
    >>> state = optimiser.initial(params)
    >>> optimiser.step(params, {"w": np.array([0.1, -0.1])}, state, lr=0.01)
    >>> params["w"].round(4)
    array([0.9684, 1.0316])
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.01
    max_norm: float = 1.0

    def initial(self, params: Mapping[str, Array]) -> Params:
        """Zero moments, under the names ``m/NAME`` and ``v/NAME``.

        Parameters
        ----------
        params : mapping

        Returns
        -------
        state : dict
        """
        return {f"{moment}/{name}": np.zeros_like(p) for moment in "mv" for name, p in params.items()}

    def step(self, params: Params, gradients: Mapping[str, Array], state: Params, lr: float) -> None:
        """Update parameters and moments in place; parameters without a gradient stay as they are.

        Parameters
        ----------
        params, state : dict
            Contiguous arrays.
        gradients : mapping
        lr : float
        """
        tasks = []
        for name, gradient in gradients.items():
            decay = 0.0 if name.endswith(("bias", *SCALES)) else self.weight_decay
            arrays = params[name], clipped(gradient, self.max_norm), state[f"m/{name}"], state[f"v/{name}"]
            flat = [array.reshape(-1) for array in arrays]  # views: the arrays are contiguous
            for start in range(0, gradient.size, SLICE):
                tasks.append(([array[start : start + SLICE] for array in flat], lr, decay))
        each(self._update, tasks, threads())

    def _update(self, task: tuple[list[Array], float, float]) -> None:
        (p, g, m, v), lr, decay = task
        with np.errstate(over="ignore", invalid="ignore"):  # what is no longer finite ends the stage, by name
            m *= self.beta1
            m += (1 - self.beta1) * g
            v *= self.beta2
            scratch = g * g
            scratch *= 1 - self.beta2
            v += scratch
            np.sqrt(v, out=scratch)
            scratch += self.eps
            np.divide(m, scratch, out=scratch)
            scratch *= lr
            if decay:
                p *= 1 - lr * decay
            p -= scratch
