"""Simulation: what spikes when, over T steps, in blocks of timesteps whose memory does not grow with T.

Two integration rules turn a projection f and the spikes s it reads into input currents:

* ``inst``: ``I[t] = f(s[t])``, what the authors' program does;
* ``running``: ``I[t] = t·f(ā[t]) − (t−1)·f(ā[t−1])`` with ā the running mean of the spikes, so that the currents add
  up to ``T·f(ā[T])`` and every population's rate tends to the rate map. Where f is affine the two are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from .equilibrium import Rates
from .errors import InputError
from .network import INPUT, Batch, Network, Population, attention_mask
from .neurons import fire
from .ops import Array
from .parallel import map_shares

__all__ = ["Rule", "simulate", "spike_blocks", "spike_steps"]

Rule = Literal["inst", "running"]


def spike_blocks(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    t_conv: int,
    rule: Rule = "inst",
    block: int = 4,
    stops: Sequence[int] = (),
) -> Iterator[tuple[int, dict[str, Array]]]:
    """Simulate a network, yielding the spikes of all populations a block of timesteps at a time.

    Parameters
    ----------
    network : Network
    params : mapping
        Its arrays decide the precision.
    batch : Batch
    t_conv : int
        T, the number of timesteps.
    rule : {"inst", "running"}
        Integration rule.
    block : int
        Timesteps per block. It sets the size of the matrix products and the memory, not the result beyond rounding.
        With feedback a population needs the previous step's spikes of a later one, so blocks have one step.
    stops : sequence of int
        Times at which a block must end.

    Yields
    ------
    t : int
        The time of the block's last step, counted from 1.
    spikes : dict
        Population name -> (steps, B, N, width) array of 0 and 1. The same dict comes with every block: copy it to keep
        its arrays.

    Raises
    ------
    InputError
        `t_conv` or `block` is not positive, the rule is unknown, or some units do not spike.
    """
    if t_conv < 1 or block < 1:
        raise InputError(f"t_conv is {t_conv} and block {block}, but a simulation takes at least one step of each")
    if rule not in ("inst", "running"):
        raise InputError(f"the integration rule is {rule!r}, but it must be 'inst' or 'running'")
    x, _ = network.drive(params, batch)
    mask = attention_mask(batch, x.dtype)
    step = 1 if network.fed_back else block
    # s[0] = 0: what a population that reads a later one sees at the first step.
    spikes = {p.name: np.zeros((1, *x.shape[:-1], p.width), x.dtype) for p in network.populations}
    charge: dict[str, Array] = {}
    means = _RunningMeans()
    integrals: dict[str, Array] = {}  # t·f(ā[t]) of each population at the end of the last block
    ends = sorted({*range(step, t_conv, step), *(s for s in stops if 0 < s < t_conv), t_conv})
    for t0, t1 in zip([0, *ends], ends, strict=False):
        times = np.arange(t0 + 1, t1 + 1, dtype=x.dtype).reshape(-1, 1, 1, 1)  # t of each step of the block
        means.start(times)
        for population in network.populations:
            name = population.name
            if rule == "inst" or population.projection.affine:
                reads = tuple(x if read == INPUT else spikes[read] for read in population.reads)
                current, _ = population.projection(params, reads, mask)
            else:
                reads = tuple(x if read == INPUT else means.of(read, spikes[read]) for read in population.reads)
                integral = times * population.projection(params, reads, mask)[0]  # t·f(ā[t])
                current = np.diff(integral, axis=0, prepend=integrals.get(name, np.zeros_like(integral[0]))[None])
                integrals[name] = integral[-1]
            current = np.broadcast_to(current, (t1 - t0, *current.shape[-3:]))
            spikes[name], charge[name] = fire(current, _neuron(population), charge.get(name))
        yield t1, spikes


class _RunningMeans:
    """Running means ā[t] of the spikes of each population, carried from block to block."""

    def __init__(self) -> None:
        self.sums: dict[str, Array] = {}
        self.block: dict[str, Array] = {}

    def start(self, times: Array) -> None:
        self.times = times
        self.block = {}

    def of(self, name: str, spikes: Array) -> Array:
        if name not in self.block:  # several populations may read the same one
            total = np.cumsum(spikes, axis=0)
            if name in self.sums:
                total += self.sums[name]
            self.sums[name] = total[-1]
            self.block[name] = total / self.times
        return self.block[name]


def _neuron(population: Population):
    if population.neuron is None:
        raise InputError(f"population {population.name} has analogue units, so there is nothing to simulate")
    return population.neuron


def spike_steps(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    t_conv: int,
    rule: Rule = "inst",
    block: int = 4,
) -> Iterator[tuple[int, dict[str, Array], dict[str, Array]]]:
    """Simulate a network, yielding after every timestep its spikes and its average spiking rates up to then.

    ``a[t] = (s[1] + … + s[t]) / t``, the plain mean of `refsnn.neurons.asr`.

    Parameters
    ----------
    network, params, batch, t_conv, rule, block
        As in `spike_blocks`.

    Yields
    ------
    t : int
        The time, counted from 1.
    spikes : dict
        Population name -> (B, N, width) array of 0 and 1.
    asr : dict
        Population name -> (B, N, width) array of float64, in [0, 1].

    Raises
    ------
    InputError
        As in `spike_blocks`.

    Examples
    --------
    Two neurons, driven by half the threshold and by a quarter of it:

    >>> from refsnn.config import BertConfig
    >>> from refsnn.network import initial_parameters, network_shapes, spiking_bert
    >>> config = BertConfig(vocab_size=5, hidden_size=2, num_hidden_layers=1, num_attention_heads=1,
    ...                     intermediate_size=4, max_position_embeddings=1)
    >>> params = initial_parameters(network_shapes(config), np.random.default_rng(0), dtype=np.float64)
    >>> params |= {"embeddings.LayerNorm.weight": np.zeros(2), "embeddings.LayerNorm.bias": np.array([0.5, 0.25])}
    >>> batch = Batch(np.array([[3]]), np.array([[0]]), np.array([[1]]))
    >>> for t, spikes, asr in spike_steps(spiking_bert(config), params, batch, t_conv=4):
    ...     print(t, spikes["embeddings"][0, 0], asr["embeddings"][0, 0].round(2))
    1 [0. 0.] [0. 0.]
    2 [1. 0.] [0.5 0. ]
    3 [0. 0.] [0.33 0.  ]
    4 [1. 1.] [0.5  0.25]
    """
    counts: dict[str, Array] = {}  # spikes so far
    for end, record in spike_blocks(network, params, batch, t_conv, rule, block):
        steps = len(next(iter(record.values())))
        for i, t in enumerate(range(end - steps + 1, end + 1)):
            spikes = {name: s[i] for name, s in record.items()}
            counts = {name: np.add(counts.get(name, 0.0), s, dtype=np.float64) for name, s in spikes.items()}
            yield t, spikes, {name: count / t for name, count in counts.items()}


def simulate(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    t_conv: int | Sequence[int],
    rule: Rule = "inst",
    block: int = 4,
    leak: float = 1.0,
    keep: Sequence[str] | None = None,
    threads: int = 1,
) -> dict[int, Rates]:
    """Average spiking rates after one or several numbers of timesteps, from one simulation.

    Parameters
    ----------
    network, params, batch
        As in `spike_blocks`.
    t_conv : int or sequence of int
        The times T at which the rates are read.
    rule, block
        As in `spike_blocks`.
    leak : float
        Leak of the *average* (see `refsnn.neurons.asr`); 1, the plain mean, is what the authors' program uses.
    keep : sequence of str, optional
        The populations whose rates are wanted; all by default.
    threads : int
        Sequences do not interact, so each thread takes its share of them through all timesteps. The matrix products
        should then have one thread each (``OPENBLAS_NUM_THREADS=1``). Rates may differ in the last place where a
        product of fewer rows rounds otherwise, and spikes where that decides them.

    Returns
    -------
    rates : dict
        T -> population name -> (B, N, width) array in [0, 1]. ``"input"`` is not among them.

    Raises
    ------
    InputError
        `t_conv` names no time or one below 1; and as in `spike_blocks`.
    """
    times = sorted({t_conv} if isinstance(t_conv, int) else set(t_conv))
    if not times or times[0] < 1:
        raise InputError(f"t_conv is {t_conv!r}, but rates are read after one step or more")
    names = [p.name for p in network.populations] if keep is None else list(keep)
    if threads > 1 and len(batch.input_ids) > 1:

        def alone(share: Batch, _: Array) -> dict[int, Rates]:
            return simulate(network, params, share, times, rule, block, leak, names)

        found = map_shares(alone, batch, threads, threads)
        return {t: {name: np.concatenate([part[t][name] for part in found]) for name in names} for t in times}
    sums: dict[str, Array] = {}
    rates: dict[int, Rates] = {}
    weight = 0.0  # Σ λ^(T−t)
    for t, spikes in spike_blocks(network, params, batch, times[-1], rule, block, stops=times):
        steps = len(spikes[names[0]])
        decay = leak ** np.arange(steps - 1, -1, -1.0)
        weight = weight * leak**steps + decay.sum()
        for name in names:
            new = np.tensordot(decay.astype(spikes[name].dtype), spikes[name], axes=(0, 0))
            sums[name] = new if name not in sums else sums[name] * leak**steps + new
        if t in times:
            rates[t] = {name: sums[name] / weight for name in names}
    return rates
