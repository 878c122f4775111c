"""Operations and energy of a spiking network against the same network as an ordinary (analogue) one.

The paper counts one accumulate per spike and synapse for the spiking network and one multiply-accumulate per synapse
for the analogue one, at 45 nm: 0.9 pJ and 4.6 pJ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .network import INPUT, Network
from .simulate import Rule

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
    products : float
        Multiply-accumulates of the spiking network itself: under the rule ``running``, attention multiplies running
        rates at every step.
    dense : float
        Multiply-accumulates of the same-size analogue network: its synapses.
    """

    accumulates: float
    products: float
    dense: float

    @property
    def norm_ops(self) -> float:
        """Norm#OPS = Σ_i IFR_i·Ops_{i+1} / Σ_i Ops_i, with IFR_i the spikes per neuron over all T."""
        return (self.accumulates + self.products) / self.dense

    @property
    def gain(self) -> float:
        """How many times less energy than the analogue network: (4.6/0.9)/Norm#OPS if all accumulate. Below 1: more."""
        spent = ACCUMULATE_PJ * self.accumulates + MULTIPLY_ACCUMULATE_PJ * self.products
        return MULTIPLY_ACCUMULATE_PJ * self.dense / spent if spent else math.inf


def count(
    network: Network, firing_rates: Mapping[str, float], t_conv: int, tokens: float, rule: Rule = "inst"
) -> Energy:
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
    rule : {"inst", "running"}
        Integration rule.

    Returns
    -------
    energy : Energy

    Notes
    -----
    Softmax, LayerNorm and GELU at every step, the membrane updates, the real-valued embedding, and the fact that
    attention products accumulate real numbers are not in the paper's count, and so not in this one.

    Examples
    --------
    >>> Energy(accumulates=16 * 0.144, products=0.0, dense=1.0).gain.__round__(1)
    2.2
    """
    widths = {population.name: population.width for population in network.populations}
    accumulates = products = dense = 0.0
    for population in network.populations:
        reads = tuple(widths.get(name, population.width) for name in population.reads)
        synapses = population.projection.synapses(reads, population.width, tokens)
        for name, operations, linear in zip(population.reads, synapses, population.projection.linear, strict=False):
            if name == INPUT:
                continue
            dense += operations
            if rule == "running" and not linear:
                products += operations * t_conv
            else:
                accumulates += operations * t_conv * firing_rates[name]
    return Energy(accumulates, products, dense)
