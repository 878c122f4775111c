"""Parameters: a flat dict of arrays under the names of a checkpoint."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from ..ops import Array, Rows

__all__ = [
    "SCALES",
    "Gradients",
    "Params",
    "accumulate",
    "check_parameters",
    "initial_parameters",
    "kept",
    "products_per_token",
]

Params = dict[str, Array]

#: How the names of vectors end that multiply or divide: 1 leaves everything as it is, and they do not decay.
SCALES = (
    "LayerNorm.weight",
    "residual.weight",
    "threshold",
    *(f"ln_{which}.weight" for which in "12f"),
    "readout.weight",
)


class Gradients(UserDict[str, Any]):
    """Gradients by name, a dict of arrays; those of embedding tables are kept as rows until somebody looks at them.

    ``|`` and `add` do not look, nor do sums over the shares of a batch, which would else take a table as large as the
    vocabulary from every share.

    Attributes
    ----------
    data : dict
        The gradients as they are kept: arrays, and `refsnn.ops.Rows`.

    Examples
    --------
    >>> gradients = Gradients() | {"table": Rows(np.array([1]), np.array([[5.0, 6.0]]), 3)}
    >>> gradients["table"]
    array([[0., 0.],
           [5., 6.],
           [0., 0.]])
    """

    def __getitem__(self, name: str) -> Array:
        """Return the gradient as an array."""
        if isinstance(self.data[name], Rows):
            self.data[name] = self.data[name].dense()
        found: Array = self.data[name]
        return found

    def add(self, others: Mapping[str, Array]) -> None:
        """Add other gradients to these.

        Parameters
        ----------
        others : mapping
        """
        for name, value in kept(others).items():
            accumulate(self.data, name, value)


def kept(values: Mapping[str, Array]) -> Mapping[str, Any]:
    """Return arrays by name without looking at them: tables as `refsnn.ops.Rows`, where they are so kept.

    Parameters
    ----------
    values : mapping

    Returns
    -------
    values : mapping
    """
    return values.data if isinstance(values, Gradients) else values


def accumulate(total: dict[str, Any], name: str, value: Array | Rows) -> None:
    """Add a cotangent to those already gathered under a name, leaving the arrays themselves alone.

    Parameters
    ----------
    total : dict of arrays
    name : str
    value : array or Rows
    """
    total[name] = total[name] + value if name in total else value


def initial_parameters(
    shapes: Mapping[str, tuple[int, ...]],
    rng: np.random.Generator,
    scale: float = 0.02,
    dtype: np.dtype | type = np.float32,
) -> Params:
    """BERT's initialisation: matrices normal with the given scale, biases 0, LayerNorm weights and other scales 1.

    Parameters
    ----------
    shapes : mapping
        Parameter name -> shape.
    rng : numpy.random.Generator
    scale : float
        ``initializer_range`` of the configuration.
    dtype : dtype

    Returns
    -------
    params : dict

    Examples
    --------
    >>> p = initial_parameters({"a.weight": (2, 2), "a.bias": (2,)}, np.random.default_rng(0))
    >>> p["a.weight"].dtype, p["a.bias"]
    (dtype('float32'), array([0., 0.], dtype=float32))
    """

    def one(name: str, shape: tuple[int, ...]) -> Array:
        if len(shape) > 1:
            return rng.normal(0, scale, shape).astype(dtype)
        return np.ones(shape, dtype) if name.endswith(SCALES) else np.zeros(shape, dtype)

    return {name: one(name, shape) for name, shape in shapes.items()}


def check_parameters(params: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]], source: object) -> Params:
    """Pick the wanted parameters and make sure of their presence, shape, type and finiteness.

    Parameters
    ----------
    params : mapping
        What a checkpoint holds; names that are not wanted are left out.
    shapes : mapping
        What is wanted.
    source : object
        Names the checkpoint in messages.

    Returns
    -------
    params : dict
        In the order of `shapes`.

    Raises
    ------
    InputError
        One sentence about the first parameter that does not fit.
    """
    for name, shape in shapes.items():
        if name not in params:
            raise InputError(f"{source} lacks the parameter {name}; it holds {len(params)} others")
        value = params[name]
        if value.shape != shape:
            raise InputError(f"{source}: {name} has shape {value.shape}, but the configuration asks for {shape}")
        if value.dtype.kind != "f":
            raise InputError(f"{source}: {name} is of type {value.dtype}, but parameters are floating-point numbers")
        if not np.isfinite(value).all():
            raise InputError(
                f"{source}: {name} holds NaN or infinite values, so nothing computed from it would mean anything"
            )
        moment = "/" in name  # of a threshold, in a checkpoint of training
        if name.endswith(".threshold") and not moment and not (value > 0).all():
            raise InputError(f"{source}: {name} holds {value.min():.4g}, but thresholds are positive numbers")
    return {name: params[name] for name in shapes}


def products_per_token(params: Mapping[str, Array]) -> int:
    """Count the multiply-accumulates of a token in one pass, attention's products aside.

    Parameters
    ----------
    params : mapping

    Returns
    -------
    count : int
        Entries of all matrices, but for tables of embeddings.
    """
    return sum(
        value.size
        for name, value in params.items()
        if value.ndim == 2 and not name.startswith(("embeddings.", "wte.", "wpe."))
    )
