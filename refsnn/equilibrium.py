"""Equilibrium: the average spiking rates at which every population is consistent with those it reads.

    a_l = σ(f_l(a_…)/V_th)      for every population l        (the *rate map*, a = F(a))

Without feedback one sweep in firing order finds the rates, and reverse accumulation through it the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .errors import InputError
from .network import INPUT, Attention, Batch, Network, Params, Population, accumulate, attention_mask
from .neurons import rate
from .ops import Array

__all__ = ["Rates", "activity", "rate_map", "scores"]

#: Average spiking rate (or, for analogue units, activity) of each population, by name: (B, N, width) each.
Rates = dict[str, Array]


def activity(
    population: Population,
    params: Mapping[str, Array],
    reads: tuple[Array, ...],
    mask: Array,
    edge_derivative: float = 0.0,
) -> tuple[Array, Callable[[Array], tuple[tuple[Array, ...], Params]]]:
    """Rate of one population from the rates it reads: ``a = σ(f(reads)/V_th)``, or ``a = f(reads)`` for analogue units.

    Parameters
    ----------
    population : Population
    params : mapping
    reads : tuple of arrays
    mask : array
    edge_derivative : float
        See `refsnn.ops.clip`.

    Returns
    -------
    a : (B, N, width) array
    pullback : callable
        ``pullback(da) -> (dreads, dparams)``.
    """
    current, projection_pullback = population.projection(params, reads, mask)
    if population.neuron is None:
        return current, projection_pullback
    a, rate_pullback = rate(current, population.neuron, edge_derivative)
    return a, lambda da: projection_pullback(rate_pullback(da))


def rate_map(
    network: Network, params: Mapping[str, Array], batch: Batch, edge_derivative: float = 0.0
) -> tuple[Rates, Callable[[Mapping[str, Array]], Params]]:
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
    if network.has_feedback:
        raise InputError("the network has feedback, so one sweep does not give its rates; solve for the equilibrium")
    x, drive_pullback = network.drive(params, batch)
    mask = attention_mask(batch, x.real.dtype)
    rates = {INPUT: x}
    tape = []
    for population in network.populations:
        reads = tuple(rates[name] for name in population.reads)
        rates[population.name], pull = activity(population, params, reads, mask, edge_derivative)
        tape.append((population, pull))

    def pullback(drates: Mapping[str, Array]) -> Params:
        cotangents = dict(drates)
        dparams: Params = {}
        for population, pull in reversed(tape):
            if population.name not in cotangents:
                continue  # nothing downstream depends on it
            dreads, dlocal = pull(cotangents.pop(population.name))
            for name, dread in zip(population.reads, dreads, strict=True):
                accumulate(cotangents, name, dread)
            for name, gradient in dlocal.items():
                accumulate(dparams, name, gradient)
        if INPUT in cotangents:
            dparams |= drive_pullback(cotangents[INPUT])
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
