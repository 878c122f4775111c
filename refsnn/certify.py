"""Certificates: whether a spike record, made by anyone, is consistent with the equations.

No simulation is replayed. Each population's currents follow from the *recorded* spikes it reads, its membrane
potential from its *own* recorded spikes, and every decision is then checked by itself, so nothing drifts apart. A
decision is wrong only where it disagrees with ``u ≥ V_th`` by more than rounding can explain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .network import INPUT, Batch, Network, attention_mask
from .neurons import membrane_potential
from .ops import Array

__all__ = ["Verdict", "certify"]

#: Rounding allowed for, in units of u·(Σ|I| + V_th·Σs + V_th), u the unit round-off: the sums behind one current and
#: the normalisation that may amplify them. Two orders above what correct programs show, ten below a decision's margin.
ROUNDING_UNITS = 256


@dataclass(frozen=True)
class Verdict:
    """The decisions of one population.

    Attributes
    ----------
    decisions : int
        T × B × N × width.
    by_rounding : int
        Decisions that differ from ours, within the rounding bound: either answer is right.
    wrong : int
        Decisions that rounding cannot explain.
    first_wrong : tuple or None
        ``(t, index, u, bound)`` of the earliest, t counted from 1.
    """

    decisions: int
    by_rounding: int
    wrong: int
    first_wrong: tuple[int, tuple[int, ...], float, float] | None


def certify(
    network: Network, params: Mapping[str, Array], batch: Batch, spikes: Mapping[str, Array]
) -> dict[str, Verdict]:
    """Check every spike decision of a record made with the integration rule ``inst``.

    Parameters
    ----------
    network : Network
    params : mapping
    batch : Batch
    spikes : mapping
        Population name -> (T, B, N, width) array of 0 and 1, for every population.

    Returns
    -------
    verdicts : dict
        Population name -> Verdict.
    """
    x, _ = network.drive(params, batch)
    mask = attention_mask(batch, x.dtype)
    verdicts = {}
    seen: set[str] = set()
    for population in network.populations:
        neuron = population.neuron
        assert neuron is not None
        reads = []
        for name in population.reads:
            if name == INPUT:
                reads.append(x)
            elif name in seen:
                reads.append(spikes[name].astype(x.dtype))
            else:  # fed back: the previous step's spikes
                delayed = np.zeros(spikes[name].shape, x.dtype)
                delayed[1:] = spikes[name][:-1]
                reads.append(delayed)
        seen.add(population.name)
        own = spikes[population.name].astype(x.dtype)
        current = np.broadcast_to(population.projection(params, tuple(reads), mask)[0], own.shape)
        u = membrane_potential(current, own, neuron)
        size = np.cumsum(np.abs(current) + neuron.vth * own, axis=0) + neuron.vth
        bound = ROUNDING_UNITS * np.finfo(x.dtype).eps * size
        level = neuron.firing_level(x.dtype)
        differs = (u >= level) != (own != 0)
        wrong = (differs & (np.abs(u - level) > bound)) | ~np.isfinite(u)
        first = None
        if wrong.any():
            at = np.unravel_index(int(wrong.argmax()), wrong.shape)
            first = (int(at[0]) + 1, tuple(int(i) for i in at[1:]), float(u[at]), float(bound[at]))
        verdicts[population.name] = Verdict(own.size, int((differs & ~wrong).sum()), int(wrong.sum()), first)
    return verdicts
