"""What a reading is given, checked once per call: parameters, batch, cotangents. What does not fit is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ..errors import InputError, shown
from ..model.batch import Batch, check_batch
from ..model.network import INPUT, Network, Population
from ..model.projections import FirstPosition, TokenEmbeddings
from ..ops import Array

__all__ = ["Finite", "Layout", "check_inputs", "check_known", "checked_cotangents", "dropout_shapes", "real_array"]

#: Shape and precision of arrays by name.
Layout = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]


class Finite(dict[str, Array]):
    """Parameters that are known to be finite: many readings of the same ones need not look at every number again."""

    @classmethod
    def of(cls, params: Mapping[str, Array]) -> Finite:
        """Look at every number.

        Parameters
        ----------
        params : mapping

        Returns
        -------
        params : Finite

        Raises
        ------
        InputError
            One is not finite.
        """
        for name, value in params.items():
            _check_finite(name, value)
        return cls(params)

    def __or__(self, others: Any) -> Any:
        """Add others, looking at these alone."""
        return Finite({**self, **Finite.of(others)})


def check_inputs(network: Network, params: Mapping[str, Array], batch: Batch) -> None:
    """Make sure that a network can be read with these parameters on this batch.

    Parameters
    ----------
    network : Network
    params : mapping
        Parameters that the network does not have, such as a classifier's, are left alone; dropout masks that it does
        not have are refused.
    batch : Batch

    Raises
    ------
    InputError
        One sentence about the first thing that does not fit: a missing parameter, a shape, NaN.
    """
    if not isinstance(network, Network):
        raise InputError(f"the network is {_type(network)}, but a Network was expected, such as spiking_bert makes")
    check_batch(batch)
    if not isinstance(params, Mapping):
        raise InputError(f"the parameters are {_type(params)}, but a dict of arrays by name was expected")
    masks = dropout_shapes(network, batch)
    if unknown := sorted(name for name in params if str(name).endswith(".dropout") and name not in masks):
        raise InputError(f"there is a dropout mask {unknown[0]}, but the network has {', '.join(masks)}")
    if isinstance(network.drive, TokenEmbeddings) and (np.diff(batch.attention_mask, axis=1) > 0).any():
        raise InputError("a sequence is padded on the left, but a GPT counts positions from there; pad it on the right")
    known = isinstance(params, Finite)
    for name, shape in _shapes(network).items():
        if name not in params:
            raise InputError(f"the parameters lack {name}, which the network needs; they are {len(params)} others")
        _check_parameter(name, params[name], shape, known)
    for name, shape in masks.items():
        if name in params:
            _check_parameter(name, params[name], shape, known)


def _shapes(network: Network) -> dict[str, tuple[int | None, ...]]:
    """Names and shapes of a network's parameters, None for a length that the network leaves open."""
    widths = {population.name: population.width for population in network.populations}
    widths[INPUT] = network.populations[0].width
    shapes: dict[str, tuple[int | None, ...]] = dict(network.drive.shapes(widths[INPUT]))
    for population in network.populations:
        # A projection of one's own need not say what it takes; then nothing is known to be missing.
        if of_reads := getattr(_whole(population), "shapes", None):
            shapes |= of_reads(tuple(widths[read] for read in population.reads), population.width)
    return shapes


def _whole(population: Population) -> Any:
    """Return a population's projection, at all positions."""
    projection = population.projection
    return projection.projection if isinstance(projection, FirstPosition) else projection


def dropout_shapes(network: Network, batch: Batch) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the dropout masks that a network may have; see `refsnn.model.dropout.dropout_masks`.

    Parameters
    ----------
    network : Network
    batch : Batch

    Returns
    -------
    shapes : dict
    """
    size, positions = batch.input_ids.shape
    shapes: dict[str, tuple[int, ...]] = {network.drive.dropout: (size, positions, network.populations[0].width)}
    for population in network.populations:
        projection = _whole(population)
        if name := getattr(projection, "dropout", None):
            heads = getattr(projection, "heads", None)
            one = (positions, population.width) if heads is None else (heads, positions, positions)
            shapes[name] = (size, *one)
    return shapes


def _check_parameter(name: str, value: Any, shape: tuple[int | None, ...], known_finite: bool) -> None:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fc":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(f"the parameter {name} is of type {kind}, but an array of floating-point numbers was expected")
    fits = value.ndim == len(shape) and all(n in (m, None) for m, n in zip(value.shape, shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise InputError(f"the parameter {name} has shape {value.shape}, but the network needs ({wanted})")
    if not known_finite:
        _check_finite(name, value)
    if name.endswith(".threshold") and not (value.real > 0).all():
        raise InputError(f"the parameter {name} holds {value.real.min():.4g}, but thresholds are positive numbers")


def _check_finite(name: str, value: Array) -> None:
    if not np.isfinite(value).all():
        raise InputError(
            f"the parameter {name} holds NaN or infinite values, so nothing computed from it would be right"
        )


def check_known(what: str, names: Collection[Any], known: Collection[str]) -> None:
    """Refuse names that nobody has.

    Parameters
    ----------
    what : str
        What the names are of, for the message.
    names, known : collections of str
    """
    if not isinstance(names, Collection) or isinstance(names, str):
        raise InputError(f"{what} is {shown(names)}, but names were expected, of {', '.join(known)}")
    if unknown := [name for name in names if not isinstance(name, str) or name not in known]:
        raise InputError(f"{what} {shown(unknown[0])} is not known; there are {', '.join(known)}")


def checked_cotangents(g: Mapping[str, Any], layout: Layout) -> dict[str, Array]:
    """Return cotangents of rates as arrays, or say which does not fit.

    Parameters
    ----------
    g : mapping
        Population name -> cotangent of its rate.
    layout : mapping
        Shape and precision of every rate.

    Returns
    -------
    g : dict
        The same; integers in the precision of their rate.
    """
    if not isinstance(g, Mapping):
        raise InputError(f"the cotangents are {_type(g)}, but a dict of arrays by population was expected")
    check_known("the cotangent of population", g, layout)
    found = {}
    for name, value in g.items():
        shape, dtype = layout[name]
        found[name] = real_array(f"the cotangent of {name}", value, dtype)
        if np.iscomplexobj(found[name]) and dtype.kind != "c":
            raise InputError(f"the cotangent of {name} is complex, but its rate is {dtype}")
        if found[name].shape != shape:
            raise InputError(f"the cotangent of {name} has shape {found[name].shape}, but its rate has {shape}")
    return found


def real_array(what: str, value: Any, dtype: Any = np.float64) -> Array:
    """Return numbers as an array of floating-point ones, or say what they are.

    Parameters
    ----------
    what : str
        For the message.
    value : array or nested sequence
    dtype : dtype
        That integers get.

    Returns
    -------
    array : array

    Examples
    --------
    >>> real_array("the current", [1, 2])
    array([1., 2.])
    >>> real_array("the current", [True])
    Traceback (most recent call last):
    refsnn.errors.InputError: the current is of type bool, but numbers were expected
    """
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        raise InputError(f"{what} is {_type(value)}, but an array of numbers was expected") from None
    if array.dtype.kind in "iu":
        array = array.astype(dtype)
    if array.dtype.kind not in "fc":
        raise InputError(f"{what} is of type {array.dtype}, but numbers were expected")
    if not np.isfinite(array).all():
        raise InputError(f"{what} holds NaN or infinite values, so nothing computed from it would be right")
    return array


def _type(value: Any) -> str:
    return f"of type {type(value).__name__}"
