"""Layers of integrate-and-fire neurons as NIR graphs: files that other simulators, and chips, read and write.

    NIR      τ dv/dt = (v_leak − v) + R·I,    v > v_threshold: a spike, and v ← v_reset
    refsnn   u[t] = λ·(u[t−1] − V_th·s[t−1]) + I[t],    s[t] = 1 if u[t] ≥ V_th

A step of length dt by Euler's rule has λ = 1 − dt/τ and takes R·dt/τ of the current, an exact one λ = exp(−dt/τ) and
R·(1 − λ). IF neurons, dv/dt = R·I, take R·dt in either. What NIR has no field for (dt, the form of the leak, the reset
by subtraction, a spike *at* the threshold) stands in the neurons' metadata; a graph that does not state it is not
guessed at. NIR itself is imported by the functions here alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, is_number, one_of, shown
from ..files import atomic, existing, require
from ..model.neurons import Neuron
from ..ops import Array

__all__ = ["Layer", "from_graph", "read_graph", "to_graph", "write_graph"]

#: What a graph must state of its neurons, and what refsnn's are; of `dt` and `leak` there is a choice.
STATED: dict[str, Any] = {"dt": 1.0, "leak": "euler", "reset": "subtract", "fires": ">="}
#: How a leak over a step follows from τ.
LEAKS = ("euler", "exact")


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear map and the neurons that it drives; either may be absent.

    Attributes
    ----------
    width : int
        How many neurons, or outputs.
    neuron : Neuron, optional
        None for a linear map alone.
    weight : (width, inputs) array, optional
        None where every neuron gets its own input.
    bias : (width,) array, optional

    Raises
    ------
    InputError
        The arrays do not fit `width`, or there is a bias without a weight.

    Examples
    --------
    >>> Layer(2, Neuron(), np.ones((3, 4)))
    Traceback (most recent call last):
    refsnn.errors.InputError: the weight is (3, 4), but (2, inputs) was expected
    """

    width: int
    neuron: Neuron | None = None
    weight: Array | None = None
    bias: Array | None = None

    def __post_init__(self) -> None:
        if self.weight is not None and (np.ndim(self.weight) != 2 or len(self.weight) != self.width):
            raise InputError(f"the weight is {np.shape(self.weight)}, but ({self.width}, inputs) was expected")
        if self.bias is not None and (self.weight is None or np.shape(self.bias) != (self.width,)):
            given = "given without a weight" if self.weight is None else f"{np.shape(self.bias)}"
            raise InputError(f"the bias is {given}, but ({self.width},) beside a weight was expected")
        if self.neuron is None and self.weight is None:
            raise InputError("the layer has neither neurons nor a weight; give it one of them")


def to_graph(layers: Sequence[Layer], dt: float = 1.0, leak: str = "euler") -> Any:
    """Describe a chain of layers as a NIR graph, neurons' conventions in their metadata.

    Parameters
    ----------
    layers : sequence of Layer
        From the input on.
    dt : float
        Length of a step, in the graph's unit of time.
    leak : {"euler", "exact"}
        How λ follows from τ: 1 − dt/τ or exp(−dt/τ).

    Returns
    -------
    graph : nir.NIRGraph

    Raises
    ------
    InputError
        The package nir is missing, or a neuron has what NIR cannot say.

    References
    ----------
    Pedersen et al., *Neuromorphic intermediate representation*, Nature Communications 15, 2024.
    """
    nir = require("nir", "nir")
    one_of("leak", leak, LEAKS)
    if not (is_number(dt) and dt > 0):
        raise InputError(f"dt is {shown(dt)}, but the length of a step is a positive number")
    if not layers:
        raise InputError("there is no layer to write; give at least one")
    nodes = []
    for layer in layers:
        if layer.weight is not None:
            weight = np.asarray(layer.weight)
            nodes.append(nir.Linear(weight) if layer.bias is None else nir.Affine(weight, np.asarray(layer.bias)))
        if layer.neuron is not None:
            nodes.append(_node(nir, layer.neuron, layer.width, dt, leak))
    try:
        return nir.NIRGraph.from_list(*nodes)
    except ValueError as error:
        raise InputError(f"the layers do not fit each other: {' '.join(str(error).split())}") from None


def _node(nir: Any, neuron: Neuron, width: int, dt: float, leak: str) -> Any:
    """Describe neurons, or say what NIR cannot say of them."""
    for what, given, plain in (("tie", neuron.tie, 0), ("u0", neuron.u0, 0), ("polarity", neuron.polarity, "unsigned")):
        if given != plain:
            raise InputError(f"{what} is {given!r}, but NIR has no field for it and neurons need {what} = {plain!r}")
    stated = STATED | {"dt": float(dt), "leak": leak}
    ones = np.ones(width)
    if neuron.leak == 1:
        return nir.IF(r=ones / dt, v_threshold=neuron.vth * ones, v_reset=0 * ones, metadata=stated)
    gap = 1 - neuron.leak
    tau = dt / gap if leak == "euler" else -dt / math.log(neuron.leak)
    return nir.LIF(
        tau=tau * ones, r=ones / gap, v_leak=0 * ones, v_threshold=neuron.vth * ones, v_reset=0 * ones, metadata=stated
    )


def from_graph(graph: Any, stated: Mapping[str, Any] | None = None) -> list[Layer]:
    """Read a chain of layers from a NIR graph.

    The share of its current that a neuron takes in a step goes into the weights; it is 1 in what `to_graph` writes. λ
    comes back but for a rounding or two, since NIR holds τ in its place.

    Parameters
    ----------
    graph : nir.NIRGraph
    stated : mapping, optional
        What the graph does not state of its neurons: "dt", "leak" ("euler" or "exact"), "reset" ("subtract") and
        "fires" (">="). Where the graph states it, the graph counts.

    Returns
    -------
    layers : list of Layer

    Raises
    ------
    InputError
        A node, a constant or an edge is none that refsnn has, or something is not stated.
    """
    nir = require("nir", "nir")
    if not isinstance(graph, nir.NIRGraph):
        raise InputError(f"the graph is {shown(graph)}, but a nir.NIRGraph was expected")
    if unknown := sorted(set(stated or ()) - set(STATED)):
        raise InputError(f"`stated` has {unknown[0]!r}, but only {', '.join(STATED)} can be stated")
    layers: list[Layer] = []
    weight: Array | None = None
    bias: Array | None = None
    for name in _chain(nir, graph):
        node = graph.nodes[name]
        if isinstance(node, (nir.Linear, nir.Affine)):
            if weight is not None:
                layers.append(Layer(len(weight), None, weight, bias))
            weight, bias = np.asarray(node.weight), getattr(node, "bias", None)
        elif type(node) in (nir.IF, nir.LIF):
            neuron, gain = _neuron(nir, name, node, stated or {})
            if weight is None:
                if (gain != 1).any():
                    raise InputError(f"{name} takes {gain.flat[0]:g} of its current, and has no weights to scale by it")
            elif (gain != 1).any():
                weight, bias = gain[:, None] * weight, None if bias is None else gain * bias
            layers.append(Layer(gain.size, neuron, weight, bias))
            weight = bias = None
        else:
            raise InputError(
                f"the node {name} is a {type(node).__name__}, but refsnn reads Linear, Affine, IF and LIF alone"
            )
    return layers if weight is None else [*layers, Layer(len(weight), None, weight, bias)]


def _chain(nir: Any, graph: Any) -> list[str]:
    """Names of the nodes from the input to the output, these two left out."""
    starts = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
    after: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for before, name in graph.edges:
        after[before].append(name)
    if len(starts) != 1:
        raise InputError(f"the graph has {len(starts)} inputs, but refsnn reads chains of one")
    found: list[str] = []
    name = starts[0]
    while not isinstance(graph.nodes[name], nir.Output):
        if len(after[name]) != 1 or len(found) > len(graph.nodes):
            raise InputError(f"the graph is no chain: {name} is read by {after[name] or 'nothing'}, not by one node")
        name = after[name][0]
        found.append(name)
    if len(found) != len(graph.nodes) - 1 or len(graph.edges) != len(found):
        raise InputError("the graph is no chain: some nodes or edges do not lie between its input and its output")
    return found[:-1]


def _neuron(nir: Any, name: str, node: Any, stated: Mapping[str, Any]) -> tuple[Neuron, Array]:
    """Return a node's neuron, and the share of its current that each takes in a step."""
    said = dict(stated) | {key: _plain(value) for key, value in node.metadata.items() if key in STATED}
    if missing := [key for key in STATED if key not in said]:
        raise InputError(
            f"{name} does not state {', '.join(missing)}, which NIR has no place for but metadata; say what is meant: "
            f"stated={ {key: STATED[key] for key in missing} }"
        )
    for key in ("reset", "fires"):
        if said[key] != STATED[key]:
            raise InputError(f"{name}: {key} is {said[key]!r}, but refsnn's neurons have {STATED[key]!r} alone")
    one_of("leak", said["leak"], LEAKS)
    dt = said["dt"]
    if not (is_number(dt) and dt > 0):
        raise InputError(f"{name}: dt is {shown(dt)}, but the length of a step is a positive number")
    for field in ("v_leak", "v_reset"):
        if np.any(getattr(node, field, 0)):
            raise InputError(f"{name}: {field} is not 0, but refsnn's neurons rest at 0 and subtract the threshold")
    vth, r = _one(name, "v_threshold", node.v_threshold), np.ravel(np.asarray(node.r, float))
    if isinstance(node, nir.IF):
        return Neuron(vth, tie=0.0), _near_one(r * dt)
    tau = _one(name, "tau", node.tau)
    if tau <= 0 or (said["leak"] == "euler" and tau <= dt):
        raise InputError(f"{name}: tau is {tau:g}, but a leak between 0 and 1 needs more than {dt if tau > 0 else 0:g}")
    leak = 1 - dt / tau if said["leak"] == "euler" else math.exp(-dt / tau)
    return Neuron(vth, leak, tie=0.0), _near_one(r * (1 - leak))


def _near_one(gain: Array) -> Array:
    """Take 1 for what rounding alone keeps from it, so that weights stay the bits that they were written as."""
    return np.where(np.abs(gain - 1) < 1e-12, 1.0, gain)


def _plain(value: Any) -> Any:
    """Return a metadata entry as text or number, which files hold as bytes or arrays."""
    value = value.item() if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0 else value
    return value.decode() if isinstance(value, bytes) else value


def _one(name: str, field: str, values: Any) -> float:
    """Return the one number that all neurons of a layer share."""
    values = np.ravel(np.asarray(values, float))
    if not values.size or (values != values[0]).any():
        raise InputError(f"{name}: {field} differs within the layer, but refsnn has one for all neurons of a layer")
    return float(values[0])


def write_graph(path: str | os.PathLike, layers: Sequence[Layer], dt: float = 1.0, leak: str = "euler") -> None:
    """Write a chain of layers as a NIR file.

    Parameters
    ----------
    path : path
    layers, dt, leak
        As in `to_graph`.
    """
    graph = to_graph(layers, dt, leak)
    with atomic(path) as temporary:
        require("nir", "nir").write(os.fspath(temporary), graph)


def read_graph(source: Any, stated: Mapping[str, Any] | None = None) -> list[Layer]:
    """Read a chain of layers from a NIR file, or from a graph at hand.

    Parameters
    ----------
    source : path or nir.NIRGraph
    stated : mapping, optional
        As in `from_graph`.

    Returns
    -------
    layers : list of Layer

    Raises
    ------
    InputError
        As in `from_graph`; or the file is missing or no NIR file.
    """
    if not isinstance(source, (str, os.PathLike)):
        return from_graph(source, stated)
    path, nir = existing(source, "the NIR graph"), require("nir", "nir")
    try:
        graph = nir.read(os.fspath(path))
    except Exception as error:  # h5py and nir raise whatever they meet
        raise InputError(f"{path} cannot be read as a NIR graph ({type(error).__name__}: {error})") from None
    return from_graph(graph, stated)
