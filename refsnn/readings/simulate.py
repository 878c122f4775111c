"""Simulation: what spikes when, over T steps, in blocks of timesteps whose memory does not grow with T.

Two integration rules turn a projection f and the spikes s it reads into input currents:

* ``inst``: ``I[t] = f(s[t])``, what the authors' program does;
* ``running``: ``I[t] = t·f(ā[t]) − (t−1)·f(ā[t−1])`` with ā the running mean of the spikes, so that the currents add
  up to ``T·f(ā[T])`` and every population's rate tends to the rate map. Where f is affine the two are the same.

Analogue units among neurons, such as the residual stream of `refsnn.model.gpt`, pass their current on in the place of
spikes; their rate is the mean of these currents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ..errors import InputError, is_number, one_of, shown, whole
from ..model.batch import Batch, attention_mask, in_shares, map_shares
from ..model.network import INPUT, Network, Population
from ..model.neurons import fire
from ..model.parameters import products_per_token
from ..ops import Array
from ..shared import Shared, copied, room
from ..workers import each_process, worth_processes
from .inputs import check_inputs, check_known, dropout_shapes
from .rate_map import Rates

__all__ = [
    "Rule",
    "currents",
    "rates_and_firing",
    "reading_times",
    "simulate",
    "spike_blocks",
    "spike_steps",
    "spike_stream",
    "timesteps",
]

Rule = Literal["inst", "running"]

#: Tokens taken through all timesteps together, and rows of a matrix product (tokens times steps of a block): enough
#: for products to be fast, and no more, for what a block holds to stay in the caches.
SHARE, ROWS = 64, 384


def spike_stream(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    t_conv: int,
    rule: Rule = "inst",
    block: int = 4,
    stops: Sequence[int] = (),
    earlier: Mapping[str, Array] = MappingProxyType({}),
) -> Iterator[tuple[int, str, Array]]:
    """Simulate a network, yielding the spikes of a block of timesteps population by population, in firing order.

    Spikes are let go once the last population that reads them has fired, so only a few populations' are held at a time.

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
    earlier : mapping, optional
        Population -> its spikes (T, B, N', width) at positions before those of the batch, of which it is then read as
        well. Where attention is causal, that is all that earlier positions are needed for: keys and values.

    Yields
    ------
    t : int
        The time of the block's last step, counted from 1.
    name : str
        The population.
    spikes : (steps, B, N, width) array of 0 and 1, and of −1 where neurons are signed; currents of analogue units

    Raises
    ------
    InputError
        `t_conv` or `block` is not positive, the rule is unknown, no unit spikes, or the earlier spikes do not fit.
    """
    t_conv, block = timesteps("t_conv", t_conv), timesteps("block", block)
    one_of("rule", rule, get_args(Rule))
    check_inputs(network, params, batch)
    check_known("the earlier spikes of population", earlier, [p.name for p in network.populations])
    for name, train in earlier.items():
        wanted = len(batch.input_ids), network[name].width
        if np.ndim(train) != 4 or (train.shape[1], train.shape[3]) != wanted or len(train) < t_conv:
            raise InputError(
                f"the earlier spikes of {name} have shape {np.shape(train)}, but ({t_conv}, {wanted[0]}, positions, "
                f"{wanted[1]}) was expected"
            )
    if len(before := {train.shape[2] for train in earlier.values()}) > 1:
        raise InputError(
            f"the earlier spikes are of {' and '.join(map(str, sorted(before)))} positions, but as many were expected "
            "of every population; give those of the same positions"
        )
    yield from _stream(network, params, batch, t_conv, rule, block, stops, earlier)


def _stream(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    t_conv: int,
    rule: Rule,
    block: int,
    stops: Sequence[int],
    earlier: Mapping[str, Array] = MappingProxyType({}),
) -> Iterator[tuple[int, str, Array]]:
    """`spike_stream` without its checks."""
    if all(population.neuron is None for population in network.populations):
        raise InputError("every population has analogue units, so there is nothing to simulate")
    with np.errstate(over="ignore", invalid="ignore"):  # `fire` says so in words
        x, _ = network.drive(params, batch)
    before = next((train.shape[2] for train in earlier.values()), 0)
    mask = np.pad(attention_mask(batch, x.dtype), [(0, 0)] * 3 + [(before, 0)])  # earlier positions are no padding
    fed_back, last_readers = network.fed_back, network.last_readers
    # s[0] = 0: what a population that reads a later one sees at the first step.
    spikes = {name: np.zeros((1, *x.shape[:-1], network[name].width), x.dtype) for name in fed_back}
    charge: dict[str, Array] = {}
    means = _RunningMeans()
    integrals: dict[str, Array] = {}  # t·f(ā[t]) of each population at the end of the last block

    @np.errstate(over="ignore", invalid="ignore")
    def current(population: Population, times: Array) -> Array:
        if rule == "inst" or population.projection.affine:
            reads = tuple(x if read == INPUT else spikes[read] for read in population.reads)
            inst, _ = population.projection(params, reads, mask)
            return np.broadcast_to(inst, (len(times), *inst.shape[-3:]))
        reads = tuple(x if read == INPUT else means.of(read, spikes[read]) for read in population.reads)
        integral = times * population.projection(params, reads, mask)[0]  # t·f(ā[t])
        steps = integral.copy()
        steps[1:] -= integral[:-1]
        if population.name in integrals:
            steps[0] -= integrals[population.name]
        integrals[population.name] = integral[-1].copy()  # not a view, which would keep the block alive
        return steps

    step = 1 if fed_back else block
    ends = sorted({*range(step, t_conv, step), *(s for s in stops if 0 < s < t_conv), t_conv})
    for t0, t1 in zip([0, *ends], ends, strict=False):
        times = np.arange(t0 + 1, t1 + 1, dtype=x.dtype).reshape(-1, 1, 1, 1)  # t of each step of the block
        means.start(times)
        for population in network.populations:
            name = population.name
            drive = current(population, times)
            if population.neuron is None:
                fired = drive
            else:
                fired, charge[name] = fire(drive, population.neuron, charge.get(name))
            for read in population.reads:
                if last_readers[read] == name and read not in fed_back and read in spikes:
                    del spikes[read]
                    means.advance(read)
            if name in last_readers:
                means.advance(name)  # past the step before, where it is fed back
                known = earlier.get(name)
                if known is not None:
                    known = known[t0:t1].astype(fired.dtype, copy=False)
                spikes[name] = fired if known is None else np.concatenate([known, fired], axis=-2)
            yield t1, name, fired
            del fired


def spike_blocks(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    t_conv: int,
    rule: Rule = "inst",
    block: int = 4,
    stops: Sequence[int] = (),
    earlier: Mapping[str, Array] = MappingProxyType({}),
) -> Iterator[tuple[int, dict[str, Array]]]:
    """Simulate a network, yielding the spikes of all populations a block of timesteps at a time.

    Parameters
    ----------
    network, params, batch, t_conv, rule, block, stops, earlier
        As in `spike_stream`.

    Yields
    ------
    t : int
        The time of the block's last step, counted from 1.
    spikes : dict
        Population name -> (steps, B, N, width) array of 0 and 1, and of −1 where neurons are signed; of currents of
        analogue units.

    Raises
    ------
    InputError
        As in `spike_stream`.
    """
    spikes: dict[str, Array] = {}
    for t, name, fired in spike_stream(network, params, batch, t_conv, rule, block, stops, earlier):
        spikes[name] = fired
        if name == network.populations[-1].name:
            yield t, spikes
            spikes = {}


def currents(
    population: Population, params: Mapping[str, Array], reads: tuple[Array, ...], mask: Array, t_conv: int
) -> Array:
    """Currents of one population over T steps, by the rule ``running``, from all the spikes that it reads.

    Parameters
    ----------
    population : Population
    params : mapping
    reads : tuple of arrays
        Spikes (T, B, N, width) of any type; (B, N, width) of the constant input.
    mask : array
        As from `refsnn.model.batch.attention_mask`.
    t_conv : int
        T.

    Returns
    -------
    current : (T, B, N, width) array
    """
    times = np.arange(1, t_conv + 1, dtype=mask.dtype).reshape(-1, 1, 1, 1)
    means = tuple(r if r.ndim == 3 else np.cumsum(r, axis=0, dtype=mask.dtype) / times for r in reads)
    integral = times * population.projection(params, means, mask)[0]  # t·f(ā[t])
    return np.diff(integral, axis=0, prepend=np.zeros_like(integral[:1]))


class _RunningMeans:
    """Running means ā[t] of the spikes of each population, carried from block to block."""

    def __init__(self) -> None:
        self.sums: dict[str, Array] = {}  # of all spikes before those that are read now
        self.ends: dict[str, Array] = {}  # of these as well
        self.block: dict[str, Array] = {}

    def start(self, times: Array) -> None:
        self.times = times
        self.block = {}

    def of(self, name: str, spikes: Array) -> Array:
        if name not in self.block:  # several populations may read the same one
            total = np.empty_like(spikes)
            before: Array | float = self.sums.get(name, 0.0)
            for now, fired in zip(total, spikes, strict=True):  # several times as fast as `cumsum` along the first axis
                np.add(before, fired, out=now)
                before = now
            self.ends[name] = total[-1].copy()  # not a view, which would keep the block alive
            total /= self.times
            self.block[name] = total
        return self.block[name]

    def advance(self, name: str) -> None:
        """Let go of spikes that are read no more."""
        self.block.pop(name, None)
        if name in self.ends:
            self.sums[name] = self.ends.pop(name)


def spike_steps(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    t_conv: int,
    rule: Rule = "inst",
    block: int = 4,
) -> Iterator[tuple[int, dict[str, Array], dict[str, Array]]]:
    """Simulate a network, yielding after every timestep its spikes and its average spiking rates up to then.

    ``a[t] = (s[1] + … + s[t]) / t``, the plain mean of `refsnn.model.neurons.asr`.

    Parameters
    ----------
    network, params, batch, t_conv, rule, block
        As in `spike_blocks`.

    Yields
    ------
    t : int
        The time, counted from 1.
    spikes : dict
        Population name -> (B, N, width) array of 0 and 1, and of −1 where neurons are signed.
    asr : dict
        Population name -> (B, N, width) array of float64, in [0, 1]; of ternary neurons in [−1, 1].

    Raises
    ------
    InputError
        As in `spike_blocks`.

    Examples
    --------
    Two neurons, driven by half the threshold and by a quarter of it:

    >>> from refsnn.model.families import spiking_bert
    >>> from refsnn.model.parameters import initial_parameters
    >>> from refsnn.model.shapes import BertConfig, network_shapes
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


def reading_times(t_conv: int | Sequence[int]) -> list[int]:
    """Return the times at which rates are read: one or several numbers of timesteps, in order, each once.

    Parameters
    ----------
    t_conv : int or sequence of int

    Returns
    -------
    times : list of int

    Raises
    ------
    InputError
        There is none, or one is no number of timesteps.

    Examples
    --------
    >>> reading_times([16, 4, 16])
    [4, 16]
    """
    try:
        given: list[Any] = [t_conv] if isinstance(t_conv, str) else list(t_conv)  # type: ignore[arg-type]
    except TypeError:
        given = [t_conv]
    if not given:
        raise InputError(f"`t_conv` is {shown(t_conv)}, but rates are read after one step or more")
    return sorted({timesteps("t_conv", t) for t in given})


#: Timesteps of one simulation: beyond them not every spike count is a number in float32.
MOST = 2**24


def timesteps(name: str, given: object) -> int:
    """Return a number of timesteps as Python's.

    Parameters
    ----------
    name : str
        The argument's, for the message.
    given : object

    Returns
    -------
    steps : int

    Raises
    ------
    InputError
        It is no whole number from 1 to `MOST`.

    Examples
    --------
    >>> timesteps("t_conv", np.int64(8))
    8
    """
    try:
        return whole(name, given, most=MOST)
    except InputError:
        raise InputError(
            f"`{name}` is {shown(given)}, but a simulation takes a whole number, at least one step and at most {MOST}"
        ) from None


def simulate(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    t_conv: int | Sequence[int],
    rule: Rule = "inst",
    block: int | None = None,
    leak: float = 1.0,
    keep: Sequence[str] | None = None,
    threads: int = 1,
) -> dict[int, Rates]:
    """Average spiking rates after one or several numbers of timesteps, from one simulation.

    Parameters
    ----------
    network, params, batch
        As in `spike_stream`.
    t_conv : int or sequence of int
        The times T at which the rates are read.
    rule
        As in `spike_stream`.
    block : int, optional
        As in `spike_stream`; by default so many that a matrix product has 384 rows.
    leak : float
        Leak of the *average* (see `refsnn.model.neurons.asr`); 1, the plain mean, is what the authors' program uses.
    keep : sequence of str, optional
        The populations whose rates are wanted; all by default.
    threads : int
        Sequences do not interact, so each thread takes its own share of them through all timesteps.
        The matrix products should then have one thread each (``OPENBLAS_NUM_THREADS=1``). More than two threads
        become processes where there is much to do (`refsnn.workers.each_process`). What is computed does not depend on
        their number.

    Returns
    -------
    rates : dict
        T -> population name -> (B, N, width) array in [0, 1], of ternary neurons in [−1, 1], of analogue units the
        mean of their currents, in the parameters' precision. ``"input"`` is not among them.

    Raises
    ------
    InputError
        `t_conv` names no time or one below 1; and as in `spike_stream`.
    """
    found = rates_and_firing(network, params, batch, t_conv, rule, block, leak, keep, threads=threads)
    return {t: rates for t, (rates, _) in found.items()}


def rates_and_firing(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    t_conv: int | Sequence[int],
    rule: Rule = "inst",
    block: int | None = None,
    leak: float = 1.0,
    keep: Sequence[str] | None = None,
    counted: Sequence[str] = (),
    threads: int = 1,
) -> dict[int, tuple[Rates, Rates]]:
    """Average spiking rates, and how often neurons fired: what is read, and what it costs.

    Parameters
    ----------
    network, params, batch, t_conv, rule, block, leak, keep
        As in `simulate`.
    counted : sequence of str
        The populations whose firing is wanted.
    threads : int
        As in `simulate`.

    Returns
    -------
    found : dict
        T -> rates, firing: population name -> (B, N, width) arrays. Firing is spikes per step, a spike of −1 counting
        like any other; of unsigned neurons it is the plain rate.

    Raises
    ------
    InputError
        As in `simulate`.
    """
    times = reading_times(t_conv)
    one_of("rule", rule, get_args(Rule))
    if not (is_number(leak) and 0 < leak <= 1):
        raise InputError(f"`leak` is {shown(leak)}, but the leak of an average lies in (0, 1]")
    check_inputs(network, params, batch)
    everything = [p.name for p in network.populations]
    check_known("population", everything if keep is None else keep, everything)
    check_known("population", counted, everything)
    names = everything if keep is None else list(keep)
    sequences, positions = batch.input_ids.shape
    shares = max(min(-(-batch.input_ids.size // SHARE), sequences), 1)
    if block is not None:
        block = timesteps("block", block)
    else:
        block = max(ROWS // max(-(-sequences // shares) * positions, 1), 1)

    plan = _Plan(network, times, rule, block, float(leak), (names, counted), list(dropout_shapes(network, batch)))
    workers = min(whole("threads", threads), shares)
    products = float(batch.input_ids.size) * products_per_token(params) * times[-1]
    if worth_processes(workers, products) and len({value.dtype for value in params.values()}) == 1:
        found = _by_processes(plan, params, batch, shares, workers)
    else:
        parts = map_shares(lambda share, rows: _share(plan, params, share, rows), batch, shares, workers)

        def joined(key: _Key) -> Array:
            arrays = [part.pop(key) for part in parts]
            return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

        found = {key: joined(key) for key in plan.keys}

    def of(t: int, counted: bool) -> Rates:
        return {name: found[t, counted, name] for name in plan.wanted[counted]}

    return {t: (of(t, False), of(t, True)) for t in times}


#: A time, whether spikes are counted whatever their sign, and the population.
_Key = tuple[int, bool, str]


class _Plan(NamedTuple):
    """How every share of a batch is simulated, and what is kept of it."""

    network: Network
    times: list[int]
    rule: Rule
    block: int
    leak: float
    wanted: tuple[Sequence[str], Sequence[str]]  # populations whose rates are kept, and those whose spikes are counted
    masks: list[str]  # parameters that belong to sequences

    @property
    def keys(self) -> list[_Key]:
        """All that is kept."""
        return [(t, counted, name) for t in self.times for counted in (False, True) for name in self.wanted[counted]]


def _share(plan: _Plan, params: Mapping[str, Array], share: Batch, rows: Array) -> dict[_Key, Array]:
    """Simulate some sequences of a batch."""
    times = plan.times
    own = {name: value[rows] if name in plan.masks else value for name, value in params.items()}
    signed = {p.name for p in plan.network.populations if p.neuron is not None and p.neuron.signed}
    found: dict[_Key, Array] = {}
    sums: Rates = {}  # Σ λ^(t−k)·s[k], k = 1…t
    fired: Rates = {}  # Σ |s[k]|
    for t, name, spikes in _stream(plan.network, own, share, times[-1], plan.rule, plan.block, times):
        if name in plan.wanted[False]:
            _add(sums, name, spikes, plan.leak)
            if t in times:
                found[t, False, name] = sums[name] / float((plan.leak ** np.arange(t)).sum())
        if name in plan.wanted[True]:
            _add(fired, name, np.abs(spikes) if name in signed else spikes, 1.0)
            if t in times:
                found[t, True, name] = fired[name] / t
        if t == times[-1]:
            sums.pop(name, None), fired.pop(name, None)
    return found


def _add(sums: Rates, name: str, spikes: Array, leak: float) -> None:
    """Add the spikes of a block to a sum that leaks from step to step."""
    if name not in sums:
        sums[name] = np.zeros_like(spikes[0])
    total = sums[name]
    for fired in spikes:
        if leak != 1:
            total *= leak
        total += fired


def _by_processes(
    plan: _Plan, params: Mapping[str, Array], batch: Batch, shares: int, workers: int
) -> dict[_Key, Array]:
    """Simulate shares by processes, which read the parameters and write the rates where all of them can."""
    precision = next(iter(params.values())).dtype
    layout = {_text(key): ((*batch.input_ids.shape, plan.network[key[2]].width), precision) for key in plan.keys}
    with copied(params) as kept, room(layout) as rates:
        each_process(partial(_write_share, plan, kept, rates), in_shares(batch, shares), workers)
    return {key: rates[_text(key)] for key in plan.keys}


def _text(key: _Key) -> str:
    return "/".join(map(str, key))


def _write_share(plan: _Plan, params: Shared, rates: Shared, part: tuple[Batch, Array]) -> None:
    share, rows = part
    for key, value in _share(plan, params, share, rows).items():
        np.copyto(rates[_text(key)][rows[0] : rows[-1] + 1], value, casting="no")
