"""The rate map: the average spiking rate of every population from those it reads, and its derivative.

    a_l = σ(f_l(a_…)/V_th)      for every population l        (a = F(a), one population after the other)

Without feedback one sweep in firing order gives all rates, and its pullback the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, number
from ..model.batch import Batch, attention_mask
from ..model.network import INPUT, Network, Population
from ..model.neurons import rate
from ..model.parameters import Gradients, Params, accumulate, kept
from ..model.projections import Attention
from ..ops import Array, Rows
from .inputs import Layout, check_inputs, checked_cotangents

__all__ = [
    "Linearisation",
    "Rates",
    "activity",
    "finite",
    "one_sweep",
    "rate_map",
    "scores",
    "sweep",
]

#: Average spiking rate (or, for analogue units, activity) of each population, by name: (B, N, width) each.
Rates = dict[str, Array]

#: A projection's pullback followed by the neuron's: cotangent of a rate -> cotangents of what was read, of parameters.
LocalPullback = Callable[[Array], tuple[tuple[Array, ...], Mapping[str, Array]]]


def activity(
    population: Population,
    params: Mapping[str, Array],
    reads: tuple[Array, ...],
    mask: Array,
    edge_derivative: float = 0.0,
    t_conv: int | None = None,
) -> tuple[Array, LocalPullback]:
    """Rate of one population from the rates it reads: ``a = σ(f(reads)/V_th)``, or ``a = f(reads)`` for analogue units.

    Parameters
    ----------
    population : Population
    params : mapping
    reads : tuple of arrays
    mask : array
    edge_derivative : float
        See `refsnn.ops.clip`.
    t_conv : int, optional
        Steps that the rate is quantised for; see `refsnn.model.neurons.rate`.

    Returns
    -------
    a : (B, N, width) array
    pullback : callable
        ``pullback(da) -> (dreads, dparams)``.
    """
    current, projection_pullback = population.projection(params, reads, mask)
    if population.neuron is None:
        return current, projection_pullback
    a, rate_pullback = rate(current, population.neuron, edge_derivative, t_conv)
    return a, lambda da: projection_pullback(rate_pullback(da))


@dataclass(frozen=True)
class Linearisation:
    """The derivative of the rate map F at some rates, as local pullbacks in firing order.

    With L the part of J = ∂F/∂a that reads earlier populations and U the part that reads later ones (feedback),
    J = L + U. Nothing is assembled.

    Attributes
    ----------
    tape : tuple of (Population, pullback)
    fed_back : tuple of str
        Populations that an earlier one reads.
    drive_pullback : callable
        From the cotangent of the embedding current to the embeddings' parameters.
    layout : mapping
        Name -> shape and precision of every rate.
    """

    tape: tuple[tuple[Population, LocalPullback], ...]
    fed_back: tuple[str, ...]
    drive_pullback: Callable[[Array], Gradients]
    layout: Layout

    def transpose(self, v: Mapping[str, Array]) -> Rates:
        """Whole-state product ``Jᵀ v``, every population at once.

        Parameters
        ----------
        v : mapping
            Population -> cotangent of its value of F.

        Returns
        -------
        drates : dict
            Population -> cotangent of its rate; 0 where nothing reads it.
        """
        total: Rates = {name: np.zeros_like(value) for name, value in v.items()}
        for population, pull in self.tape:
            for name, dread in zip(population.reads, pull(v[population.name])[0], strict=True):
                if name != INPUT:
                    total[name] = total[name] + dread
        return total

    def substitute(self, g: Mapping[str, Array], parameters: bool = True) -> tuple[Rates, Rates, Gradients]:
        """Back substitution ``λ = (I − Lᵀ)⁻¹ g``, that is back-propagation through one sweep.

        Parameters
        ----------
        g : mapping
            Cotangents of any of the rates.
        parameters : bool
            Whether to compute ``dparams``, which cost half of it.

        Returns
        -------
        adjoint : dict
            λ of the populations it reached.
        fed : dict
            ``Uᵀ λ``: cotangents of the rates that were fed back.
        dparams : Gradients
            ``(∂F/∂θ)ᵀ λ``; empty without `parameters`.
        """
        cotangents = dict(g)
        adjoint: Rates = {}
        fed: Rates = {}
        dparams = Gradients()
        done: set[str] = set()
        for population, pull in reversed(self.tape):
            done.add(population.name)
            if population.name not in cotangents:
                continue  # nothing downstream depends on it
            adjoint[population.name] = cotangents.pop(population.name)
            dreads, dlocal = pull(adjoint[population.name])
            for name, dread in zip(population.reads, dreads, strict=True):
                accumulate(fed if name in done else cotangents, name, dread)
            if parameters:
                dparams.add(dlocal)
        if parameters and INPUT in cotangents:
            dparams.add(self.drive_pullback(cotangents[INPUT]))
        return adjoint, fed, dparams


def sweep(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    fed_back: Mapping[str, Array] | None = None,
    at: Mapping[str, Array] | None = None,
    edge_derivative: float = 0.0,
    t_conv: int | None = None,
) -> tuple[Rates, Linearisation]:
    """Evaluate the rate map once, population after population in firing order.

    Parameters
    ----------
    network : Network
    params : mapping
    batch : Batch
    fed_back : mapping, optional
        Rates of the populations that are read before they are evaluated.
    at : mapping, optional
        Rates that every population reads instead of those just evaluated: the result is then F(`at`), and the
        linearisation that of F at these rates, which may be simulated ones.
    edge_derivative : float
        Derivative of the clip at exactly 0 and 1; see `refsnn.ops.clip`.
    t_conv : int, optional
        Steps that every rate is quantised for; see `refsnn.model.neurons.rate`.

    Returns
    -------
    rates : dict
        Population name -> (B, N, width) array; ``"input"`` -> the embedding current.
    linearisation : Linearisation
    """
    check_inputs(network, params, batch)
    number("edge_derivative", edge_derivative, 0, 1)
    given, wanted = (fed_back or {}, network.fed_back) if at is None else (at, network.last_readers)
    if missing := [name for name in wanted if name not in given and name != INPUT]:
        raise InputError(f"the rates of {missing[0]} are missing; a population reads them before they are evaluated")
    return one_sweep(network, params, batch, fed_back, at, edge_derivative, t_conv)


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # `finite` says so in words
def one_sweep(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    fed_back: Mapping[str, Array] | None = None,
    at: Mapping[str, Array] | None = None,
    edge_derivative: float = 0.0,
    t_conv: int | None = None,
) -> tuple[Rates, Linearisation]:
    """`sweep` without its checks, for those who have made them once and sweep often.

    Parameters
    ----------
    network, params, batch, fed_back, at, edge_derivative, t_conv
        As in `sweep`.

    Returns
    -------
    rates, linearisation
        As in `sweep`.
    """
    x, drive_pullback = network.drive(params, batch)
    mask = attention_mask(batch, x.real.dtype)
    rates: Rates = {INPUT: x}
    tape = []
    for population in network.populations:
        known = {**(fed_back or {}), **rates} if at is None else {**at, INPUT: x}
        reads = tuple(known[name] for name in population.reads)
        rates[population.name], pull = activity(population, params, reads, mask, edge_derivative, t_conv)
        tape.append((population, pull))
    layout = {name: (a.shape, a.dtype) for name, a in rates.items()}
    return rates, Linearisation(tuple(tape), network.fed_back, drive_pullback, layout)


def finite(values: Mapping[str, Array], what: str) -> None:
    """Make sure that what was computed are numbers: finite parameters may still be too large for their precision.

    Parameters
    ----------
    values : mapping
    what : str
        For the message.

    Raises
    ------
    InputError
        They are not.
    """
    for name, value in kept(values).items():
        numbers = value.values if isinstance(value, Rows) else value
        if not np.isfinite(numbers).all():
            raise InputError(f"{what} {name} overflows {numbers.dtype}; the numbers it is computed from are too large")


def rate_map(
    network: Network, params: Mapping[str, Array], batch: Batch, edge_derivative: float = 0.0
) -> tuple[Rates, Callable[[Mapping[str, Array]], Gradients]]:
    """Rates of a network without feedback, by one sweep in firing order.

    Parameters
    ----------
    network : Network
    params : mapping
    batch : Batch
    edge_derivative : float
        Derivative of the clip at exactly 0 and 1; see `refsnn.ops.clip`.

    Returns
    -------
    rates : dict
        Population name -> (B, N, width) array; ``"input"`` -> the embedding current.
    pullback : callable
        ``pullback(drates) -> dparams``. `drates` holds cotangents of any of the rates; parameters that did not take
        part are absent from the result.

    Raises
    ------
    InputError
        The network has feedback: its rates are the solution of an equation, not of a sweep.
    """
    check_inputs(network, params, batch)
    number("edge_derivative", edge_derivative, 0, 1)
    if network.fed_back:
        raise InputError("the network has feedback, so one sweep does not give its rates; solve for the equilibrium")
    rates, linearisation = one_sweep(network, params, batch, edge_derivative=edge_derivative)
    finite(rates, "the rate of")

    def pullback(drates: Mapping[str, Array]) -> Gradients:
        with np.errstate(over="ignore", invalid="ignore"):
            dparams = linearisation.substitute(checked_cotangents(drates, linearisation.layout))[2]
        finite(dparams, "the gradient of")
        return dparams

    return rates, pullback


def scores(
    network: Network, params: Mapping[str, Array], rates: Rates, batch: Batch
) -> tuple[list[Array], Callable[[list[Array]], tuple[Rates, Params]]]:
    """Raw attention scores of every encoder at given rates, mask included.

    Parameters
    ----------
    network : Network
    params : mapping
    rates : dict
    batch : Batch

    Returns
    -------
    scores : list of (B, heads, N, N) arrays
    pullback : callable
        ``pullback(dscores) -> (drates, dparams)``: how the scores depend on the rates, and directly on the query's
        parameters.
    """
    mask = attention_mask(batch, rates[INPUT].real.dtype)
    observed = []
    for name in network.contexts:
        population = network[name]
        assert isinstance(population.projection, Attention)
        reads = tuple(rates[read] for read in population.reads)
        observed.append((population, *population.projection.scores(params, reads, mask)))

    def pullback(dscores: list[Array]) -> tuple[Rates, Params]:
        drates: Rates = {}
        dparams: Params = {}
        for (population, _, pull), dscore in zip(observed, dscores, strict=True):
            dreads, dlocal = pull(dscore)
            for name, dread in zip(population.reads[:2], dreads[:2], strict=True):  # the scores ignore the values
                accumulate(drates, name, dread)
            dparams |= dlocal
        return drates, dparams

    return [score for _, score, _ in observed], pullback
