"""Operations and energy of a spiking network against the same network as an ordinary (analogue) one.

The paper counts one accumulate per spike and synapse for the spiking network and one multiply-accumulate per synapse
for the analogue one, at 45 nm: 0.9 pJ and 4.6 pJ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .network import INPUT, Network

__all__ = ["ACCUMULATE_PJ", "MULTIPLY_ACCUMULATE_PJ", "Energy", "count"]

#: Energy of one operation in picojoules, 45 nm CMOS (Horowitz, ISSCC 2014; Han et al., NeurIPS 2015).
ACCUMULATE_PJ = 0.9
MULTIPLY_ACCUMULATE_PJ = 4.6


@dataclass(frozen=True)
class Energy:
    """The paper's count for one token.

    Attributes
    ----------
    accumulates : float
        Spikes × synapses over all T steps.
    multiply_accumulates : float
        Synapses of the same-size analogue network.
    """

    accumulates: float
    multiply_accumulates: float

    @property
    def norm_ops(self) -> float:
        """Norm#OPS = Σ_i IFR_i·Ops_{i+1} / Σ_i Ops_i, with IFR_i the spikes per neuron over all T."""
        return self.accumulates / self.multiply_accumulates

    @property
    def gain(self) -> float:
        """How many times less energy than the analogue network: (4.6/0.9)/Norm#OPS. Below 1 it costs more."""
        return MULTIPLY_ACCUMULATE_PJ / ACCUMULATE_PJ / self.norm_ops if self.norm_ops else math.inf


def count(network: Network, firing_rates: Mapping[str, float], t_conv: int, tokens: float) -> Energy:
    """Count a network's synaptic operations per token.

    Parameters
    ----------
    network : Network
    firing_rates : mapping
        Population -> spikes per neuron and step.
    t_conv : int
        T.
    tokens : float
        Mean sequence length; attention products grow with it.

    Returns
    -------
    energy : Energy

    Notes
    -----
    Softmax, LayerNorm and GELU at every step, the membrane updates, the real-valued embedding, and the fact that
    attention products accumulate real numbers are not in the paper's count, and so not in this one.

    Examples
    --------
    >>> Energy(accumulates=16 * 0.144, multiply_accumulates=1.0).gain.__round__(1)
    2.2
    """
    widths = {population.name: population.width for population in network.populations}
    accumulates = dense = 0.0
    for population in network.populations:
        reads = tuple(widths.get(name, population.width) for name in population.reads)
        synapses = population.projection.synapses(reads, population.width, tokens)
        for name, operations in zip(population.reads, synapses, strict=True):
            if name != INPUT:
                accumulates += operations * t_conv * firing_rates[name]
                dense += operations
    return Energy(accumulates, dense)
