"""Where two spike records part: the first decision that differs, and what each neuron had at that moment.

Both are read with the parameters, tokens and rule of the first. At the first difference, everything before agrees, so
what was read is the same for both up to the population itself, and u of either says which answer the equations ask for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..model.batch import attention_mask
from ..model.network import INPUT
from ..model.neurons import membrane_potential
from ..model.parameters import Params
from ..ops import Array
from ..readings.simulate import currents
from ..storage.records import Record, read_record

__all__ = ["Difference", "first_difference", "plot_difference"]


@dataclass(frozen=True)
class Difference:
    """The first decision in which two records differ.

    Attributes
    ----------
    population : str
    t : int
        Timestep, from 1.
    index : tuple of int
        (sequence, position, feature).
    spikes : (int, int)
        What each record says.
    asked : int
        The spike that the equations ask for.
    u, current, level : float
        Potential and current there, by the first record, and the level that u is nearer to.
    lower : bool
        Whether that is the level below which a signed neuron fires −1, and not the one from which a neuron fires.
    read : dict
        Population -> spikes of the step, over its features, at the place that the neuron reads.
    differing, decisions : int
        How many decisions differ in all.
    potentials : (T,) array
        u of that neuron over time, by the first record.
    """

    population: str
    t: int
    index: tuple[int, ...]
    spikes: tuple[int, int]
    asked: int
    u: float
    current: float
    level: float
    lower: bool
    read: dict[str, Array]
    differing: int
    decisions: int
    potentials: Array

    def __str__(self) -> str:
        said = [{1: "fired", 0: "did not fire", -1: "fired −1"}[spike] for spike in self.spikes]
        asked = {1: "fires", 0: "does not fire", -1: "fires −1"}[self.asked]
        level = f"fires −1 below {self.level:.9g}" if self.lower else f"fires from {self.level:.9g} on"
        read = ", ".join(f"{name}: {int(spikes.sum())} of {spikes.size} spikes" for name, spikes in self.read.items())
        return (
            f"the first difference is of {self.population} at t = {self.t}, index {self.index}: in the first record it "
            f"{said[0]}, in the second it {said[1]}\n"
            f"  u = {self.u:.9g} with a current of {self.current:.9g}; it {level}, so by the "
            f"equations it {asked}; the margin is {abs(self.u - self.level):.1e}\n"
            f"  it read {read or 'no spikes, but real numbers alone'}\n"
            f"{self.differing:,} of {self.decisions:,} decisions differ"
        )


def first_difference(
    one: str | os.PathLike, other: str | os.PathLike, params: str | os.PathLike | None = None
) -> Difference | None:
    """Find where two records part.

    Parameters
    ----------
    one, other : path
        Records of the same network, tokens and length; parameters and rule are the first's.
    params : path, optional
        A safetensors file with the parameters, where the records do not hold them.

    Returns
    -------
    difference : Difference or None
        None where all spikes agree.

    Raises
    ------
    InputError
        One is no record, or they are not of the same network, tokens or length.
    """
    first, trains = read_record(one, params)
    second, others = read_record(other, params)
    names = [p.name for p in first.network.populations if p.neuron is not None]
    if set(names) != set(trains) or set(names) != set(others):
        raise InputError("a record lacks populations, or they are of different networks; certify says which")
    if not np.array_equal(first.batch.input_ids, second.batch.input_ids):
        raise InputError("the records are of different tokens, so that their spikes cannot be compared")
    trains = {name: np.asarray(train, np.float64) for name, train in trains.items()}
    for name in names:
        if trains[name].shape != others[name].shape:
            shapes = f"{trains[name].shape} and {others[name].shape}"
            raise InputError(f"the spikes of {name} have shapes {shapes}, but records of one length were expected")
    apart = {name: trains[name] != others[name] for name in names}
    found = [(int(where.any(axis=(1, 2, 3)).argmax()), order, name)
             for order, (name, where) in enumerate(apart.items()) if where.any()]  # fmt: skip
    if not found:
        return None
    step, _, name = min(found)
    index = tuple(int(i) for i in np.argwhere(apart[name][step])[0])
    for analogue in (p for p in first.network.populations if p.neuron is None):  # an affine map, whatever the rule
        values, mask, reads, _ = _arriving(first, trains, analogue.name, step)
        now = analogue.projection(values, reads, mask)[0]
        trains[analogue.name] = np.broadcast_to(now, (step + 1, *now.shape[-3:]))
    current, read = _currents(first, trains, name, step, index)
    population = first.network[name]
    neuron = population.neuron
    assert neuron is not None
    b, n, feature = index
    train = trains[name][: step + 1, b, n, [feature]]
    u = membrane_potential(current, train, neuron)[:, 0]
    up, down = neuron.levels(first.precision.name)
    back = u[-1] < down and (neuron.polarity != "retractable" or train[:-1].sum() > 0)
    lower = bool(abs(u[-1] - down) < abs(u[-1] - up))
    return Difference(
        name, step + 1, index, (int(trains[name][(step, *index)]), int(others[name][(step, *index)])),
        int(u[-1] >= up) - int(back), float(u[-1]), float(current[-1, 0]), down if lower else up, lower, read,
        sum(int(where.sum()) for where in apart.values()), sum(where.size for where in apart.values()), u,
    )  # fmt: skip


def _currents(
    record: Record, trains: Mapping[str, Array], name: str, step: int, index: tuple[int, ...]
) -> tuple[Array, dict[str, Array]]:
    """Return a neuron's currents (T, 1) up to a step, and the spikes that its population read in it, at its place."""
    params, mask, reads, spikes = _arriving(record, trains, name, step)
    population = record.network[name]
    if record.rule == "running":
        current = currents(population, params, reads, mask, step + 1)
    else:
        current = population.projection(params, reads, mask)[0]
        current = np.broadcast_to(current, (step + 1, *current.shape[-3:]))  # of the constant input alone, too
    b, n, feature = index
    return current[:, b, n, [feature]], {read: train[-1, b, n] for read, train in spikes.items()}


def _arriving(
    record: Record, trains: Mapping[str, Array], name: str, step: int
) -> tuple[Params, Array, tuple[Array, ...], dict[str, Array]]:
    """Return parameters, mask and what a population read up to a step, and what of it are spikes, by population."""
    network, batch = record.network, record.batch
    params = {key: np.asarray(value, np.float64) for key, value in record.params.items()}
    mask = attention_mask(batch, np.dtype(float))
    x = network.drive(params, batch)[0]
    order = [p.name for p in network.populations]
    reads, shown = [], {}
    for read in network[name].reads:
        if read == INPUT:
            reads.append(x)
            continue
        spikes = trains[read][: step + 1]
        if order.index(read) >= order.index(name):  # fed back: the step before
            spikes = np.concatenate([np.zeros_like(spikes[:1]), spikes[:-1]])
        if network[read].neuron is not None:
            shown[read] = spikes
        reads.append(spikes)
    return params, mask, tuple(reads), shown


def plot_difference(difference: Difference, path: str | os.PathLike) -> None:
    """Draw the potential of the neuron up to the first difference as an SVG picture.

    Parameters
    ----------
    difference : Difference
    path : path
    """
    from ..files import atomic, require

    require("matplotlib")
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot(
        xlabel="timestep", ylabel="potential u", title=f"{difference.population} {difference.index}"
    )
    times = np.arange(1, difference.t + 1)
    axes.step(times, difference.potentials, where="mid", label="u, by the first record")
    axes.axhline(
        difference.level,
        linestyle="--",
        color="C1",
        label="fires −1 below" if difference.lower else "fires from here on",
    )
    axes.plot(times[-1:], difference.potentials[-1:], "o", color="C3", label="the records part")
    axes.legend(loc="best", fontsize="small")
    FigureCanvasSVG(figure)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="svg")
