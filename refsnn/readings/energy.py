"""Operations and energy of a spiking network against the same network as an ordinary (analogue) one.

Two counts. The paper's takes one accumulate per spike and synapse for the spiking network and one multiply-accumulate
per synapse for the analogue one, at 45 nm: 0.9 pJ and 4.6 pJ. The full count takes every scalar operation of both, with
an energy for each kind in a table that can be replaced, and memory traffic if wanted; ``docs/energy.md`` derives it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import get_args

from ..errors import InputError, is_number, one_of, shown, whole
from ..files import read_json
from ..model.network import INPUT, Network, Population, kind_of
from ..model.neurons import Neuron
from ..model.projections import Arriving, Operations
from .inputs import check_known
from .simulate import Rule

__all__ = [
    "ACCUMULATE_PJ",
    "MULTIPLY_ACCUMULATE_PJ",
    "Counts",
    "Energies",
    "Energy",
    "FullCount",
    "by_kind",
    "count",
    "full_count",
    "read_energies",
]

#: Energy of one operation in picojoules, 45 nm CMOS (Horowitz, ISSCC 2014; Han et al., NeurIPS 2015).
ACCUMULATE_PJ = 0.9
MULTIPLY_ACCUMULATE_PJ = 4.6

#: (population, term, kind of operation) -> how many.
Counts = dict[tuple[str, str, str], float]


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

    def break_even(self, t_conv: int) -> float:
        """T at which both cost the same if neurons go on firing as in the `t_conv` steps counted."""
        return t_conv * self.gain


def count(
    network: Network, firing_rates: Mapping[str, float], t_conv: int, tokens: float, rule: Rule = "inst"
) -> Energy:
    """Count a network's synaptic operations per token, as the paper does.

    Parameters
    ----------
    network : Network
    firing_rates : mapping
        Population of neurons -> spikes per neuron and step; a spike of −1 costs what any other does.
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
    Softmax, LayerNorm and GELU at every step, the membrane updates and the real-valued embedding are not in the paper's
    count, and so not in this one; they are in `full_count`. What analogue units among neurons pass on are real numbers:
    where it drives synapses, each multiplies at every step.

    Examples
    --------
    >>> energy = Energy(accumulates=16 * 0.144, products=0.0, dense=1.0)
    >>> round(energy.gain, 1), round(energy.break_even(16), 1)
    (2.2, 35.5)
    """
    t_conv = whole("t_conv", t_conv)
    analogue = _analogue(network)
    _check(network, firing_rates, {read for p in network.populations for read in p.reads} - analogue, tokens, rule)
    accumulates = products = dense = 0.0
    for population in network.populations:
        synapses = population.projection.synapses(_widths(network, population), population.width, tokens)
        for name, operations, linear in zip(population.reads, synapses, population.projection.linear, strict=False):
            if name == INPUT:
                continue
            dense += operations
            if name in analogue or (rule == "running" and not linear):
                products += operations * t_conv
            else:
                accumulates += operations * t_conv * firing_rates[name]
    return Energy(accumulates, products, dense)


def _analogue(network: Network) -> set[str]:
    """Names of what passes real numbers on: the input, and analogue units."""
    analogue = {population.name for population in network.populations if population.neuron is None}
    if len(analogue) == len(network.populations):
        raise InputError("every population has analogue units, so there are no spikes to count")
    return {INPUT, *analogue}


def _check(network: Network, firing_rates: Mapping[str, float], needed: set[str], tokens: float, rule: Rule) -> None:
    """Make sure that operations can be counted."""
    one_of("rule", rule, get_args(Rule))
    if not (is_number(tokens) and tokens > 0):
        raise InputError(f"`tokens` is {shown(tokens)}, but a length is a positive number")
    if not isinstance(firing_rates, Mapping):
        raise InputError(f"`firing_rates` is {shown(firing_rates)}, but a dict of numbers by population was expected")
    check_known("the firing rate of population", firing_rates, [population.name for population in network.populations])
    for name in sorted(needed):
        rate = firing_rates.get(name)
        if not (is_number(rate) and rate is not None and rate >= 0):
            raise InputError(
                f"the firing rate of {name} is {shown(rate)}, but a number of spikes per step was expected"
            )


@dataclass(frozen=True)
class Energies:
    """Energy of one operation in picojoules, by its kind: 32-bit floating point at 45 nm, 0.9 V.

    Additions, multiplications and memory are published figures, the others assumptions; ``docs/energy.md`` has sources
    and reasons. A multiply-accumulate is a multiplication and an addition.

    Attributes
    ----------
    accumulate : float
        Addition of a weight, or of a real number, to a sum, because a spike arrived.
    multiply_accumulate, add, multiply : float
    compare, divide, square_root, exponential, gelu : float
        Assumed: an exponential costs 7 multiply-accumulates, `gelu`, one value of x·Φ(x), 20.
    read, write : float
        One word of 32 bits in a small on-chip memory.
    dram_read : float
        One word of 32 bits in a memory off the chip.
    """

    accumulate: float = ACCUMULATE_PJ
    multiply_accumulate: float = MULTIPLY_ACCUMULATE_PJ
    add: float = 0.9
    multiply: float = 3.7
    compare: float = 0.9
    divide: float = 26.3
    square_root: float = 26.3
    exponential: float = 32.2
    gelu: float = 92.0
    read: float = 5.0
    write: float = 5.0
    dram_read: float = 640.0

    def without_memory(self) -> Energies:
        """Leave memory traffic out: words are free."""
        return replace(self, read=0.0, write=0.0, dram_read=0.0)

    def of(self, operations: Mapping[str, float]) -> float:
        """Energy of so many operations of each kind, in picojoules.

        Parameters
        ----------
        operations : mapping
            Kind -> number.

        Returns
        -------
        picojoules : float

        Examples
        --------
        >>> Energies().of({"add": 2, "multiply": 10})
        38.8
        """
        picojoules: float = sum(number * getattr(self, kind) for kind, number in operations.items())
        return picojoules


def read_energies(path: str | os.PathLike[str]) -> Energies:
    """Read a table of energies: a JSON object of some of `Energies`' names, each with picojoules.

    Parameters
    ----------
    path : path

    Returns
    -------
    energies : Energies
        What the file leaves out keeps its default.

    Raises
    ------
    InputError
        The file cannot be read, a name is unknown, or an energy is not a number of at least 0.
    """
    values = read_json(path)
    names = [field.name for field in fields(Energies)]
    for name, value in values.items():
        if name not in names:
            raise InputError(f"{path} gives an energy for {name!r}, but the operations are {', '.join(names)}")
        if not (is_number(value) and value >= 0):
            raise InputError(
                f"{path} gives {shown(value)} for {name}, but an energy is a number of picojoules, at least 0"
            )
    return Energies(**values)


@dataclass(frozen=True)
class FullCount:
    """Every scalar operation for one token of a sentence, words of memory read and written among them.

    Attributes
    ----------
    once : Counts
        What the spiking network does once a sentence, whatever T: embeddings, class scores.
    step : Counts
        What it does in every time step.
    ordinary : Counts
        What the analogue network does, once.
    """

    once: Counts
    step: Counts
    ordinary: Counts

    def spiking(self, t_conv: int) -> Counts:
        """All that the spiking network does in T steps.

        Parameters
        ----------
        t_conv : int
            T.

        Returns
        -------
        counts : Counts
        """
        return _summed([*self.once.items(), *((key, t_conv * number) for key, number in self.step.items())])

    def gain(self, t_conv: int, energies: Energies) -> float:
        """How many times less energy T steps take than the analogue network; below 1: more.

        Parameters
        ----------
        t_conv : int
            T.
        energies : Energies

        Returns
        -------
        gain : float
        """
        once, step, ordinary = (_energy(counts, energies) for counts in (self.once, self.step, self.ordinary))
        spent = once + t_conv * step
        return ordinary / spent if spent else math.inf

    def break_even(self, energies: Energies) -> float:
        """T at which both cost the same: once + T·step = ordinary. Below 1, spiking never costs less.

        Parameters
        ----------
        energies : Energies

        Returns
        -------
        t : float
            Not rounded; infinite where steps cost nothing.
        """
        once, step, ordinary = (_energy(counts, energies) for counts in (self.once, self.step, self.ordinary))
        return (ordinary - once) / step if step else math.inf


def full_count(
    network: Network,
    firing_rates: Mapping[str, float],
    tokens: float,
    classes: int,
    rule: Rule = "inst",
    vocabulary: int = 0,
) -> FullCount:
    """Count every scalar operation of a spiking network, and of the same network with analogue units.

    Parameters
    ----------
    network : Network
        A whole one: every population at every position.
    firing_rates : mapping
        Population of neurons -> spikes per neuron and step, those of −1 included.
    tokens : float
        Sequence length.
    classes : int
        Class scores of a sentence, at [CLS]; 0 where there are none.
    rule : {"inst", "running"}
    vocabulary : int
        Scores of next tokens, at every position, with the matrix of the embeddings; 0 where there are none.

    Returns
    -------
    count : FullCount

    Notes
    -----
    What is shared by a sentence, the class scores, is divided by its tokens. With feedback the analogue network is
    charged for one pass, its feedback matrix included, though one pass is not its equilibrium.

    Examples
    --------
    >>> from refsnn.model.gpt import GptConfig, spiking_gpt
    >>> network = spiking_gpt(GptConfig(vocab_size=100, n_embd=8, n_layer=1, n_head=2))
    >>> rates = {p.name: 0.2 for p in network.populations if p.neuron is not None}
    >>> counted = full_count(network, rates, tokens=16, classes=0, vocabulary=100)
    >>> int(counted.ordinary["next token", "read-out", "multiply_accumulate"])
    800
    """
    classes, vocabulary = whole("classes", classes, 0), whole("vocabulary", vocabulary, 0)
    analogue = _analogue(network)
    _check(network, firing_rates, {p.name for p in network.populations} - analogue, tokens, rule)
    width, last = network[network.readouts[-1]].width, network.populations[-1].width
    once = _of(INPUT, network.drive.operations(width))
    ordinary, step = list(once), _of("classifier", [])
    if classes:
        once += _of("classifier", _share(_class_scores(width, classes, network.rectified), tokens))
        once += _of("classifier", _share([("read-out", "multiply", width)], tokens))  # Σ s -> mean
        ordinary += _of("classifier", _share(_class_scores(width, classes), tokens))
        step += _of("classifier", _share(_counting(width), tokens))
    if vocabulary:
        once += _of("next token", [*_taken_back(last), *_token_scores(last, vocabulary)])
        ordinary += _of("next token", [("read-out", "read", last), *_token_scores(last, vocabulary)])
        step += _of("next token", _counting(last))
    for population in network.populations:
        name, projection, widths = population.name, population.projection, _widths(network, population)
        rates = tuple(None if read in analogue else firing_rates[read] for read in population.reads)
        integrates = rule == "running" and not projection.affine
        arriving = tuple(
            None if integrates and not linear else r for linear, r in zip(projection.linear, rates, strict=False)
        )
        step += _of(name, projection.operations(widths, population.width, tokens, arriving))
        step += _of(name, _activations(population, widths, analogue))
        if population.neuron is not None:
            step += _of(name, _membrane(population.width, population.neuron, firing_rates[name]))
        if integrates:
            step += _of(name, _integral(population, widths, rates))
        real = (None,) * len(population.reads)
        ordinary += _of(name, projection.operations(widths, population.width, tokens, real))
        ordinary += _of(name, _activations(population, widths, {p.name for p in network.populations}))
    return FullCount(_summed(once), _summed(step), _summed(ordinary))


def by_kind(counts: Counts) -> dict[str, dict[str, dict[str, float]]]:
    """Add up counts over encoders.

    Parameters
    ----------
    counts : Counts

    Returns
    -------
    nested : dict
        Kind of population -> term -> kind of operation -> number.

    Examples
    --------
    >>> by_kind({("encoder.0.key", "linear", "read"): 1.0, ("encoder.1.key", "linear", "read"): 2.0})
    {'key': {'linear': {'read': 3.0}}}
    """
    nested: dict[str, dict[str, dict[str, float]]] = {}
    for (population, term, kind), number in counts.items():
        numbers = nested.setdefault(kind_of(population), {}).setdefault(term, {})
        numbers[kind] = numbers.get(kind, 0.0) + number
    return nested


# ---------------------------------------------------------------------------------------------------------------------
# What populations cost beside their projections


def _membrane(width: int, neuron: Neuron, rate: float) -> Operations:
    """``v = λ·v + I``, ``s = v ≥ V_th``, and, at a spike, ``v = v − V_th``.

    Signed neurons compare with their second level, too. Retractable ones keep n, look at every step whether it is
    above 0, and count every spike.
    """
    numbers = {"add": (1 + rate) * width, "compare": (1 + neuron.signed) * width, "read": width, "write": width}
    if neuron.leak != 1:
        numbers["multiply"] = width
    counting = {"add": rate * width, "compare": width, "read": width, "write": rate * width}
    return [
        *(("membrane", kind, number) for kind, number in numbers.items()),
        *(("net count", kind, number) for kind, number in counting.items() if neuron.polarity == "retractable"),
    ]


def _integral(population: Population, widths: tuple[int, ...], rates: Arriving) -> Operations:
    """``t·f(ā[t]) − (t−1)·f(ā[t−1])``, beside f itself.

    Kept from step to step: the sums that f starts with, if it starts with some; of what f takes the means of, the
    number of spikes of each neuron, and the sum of what each analogue unit passes on; and the integral. Sums and
    numbers are divided by t (1/t is one number for the whole network); means of what products take are written for all
    tokens to read; the bias is added to the mean of the sums; f is multiplied by t; the integral before is subtracted.
    """
    projection, width = population.projection, population.width
    sums = width if any(projection.linear) else 0
    averaged = [(w, r) for w, r, linear in zip(widths, rates, projection.linear, strict=False) if not linear]
    fetched = [w for w, by_product in zip(widths, _fetched(population, widths), strict=True) if by_product]
    kept = sum(w for w, _ in averaged) + sums + width
    numbers = {
        "accumulate": sum(w * r for w, r in averaged if r is not None),
        "multiply": kept,
        "add": sums + width + sum(w for w, r in averaged if r is None),
        "read": kept,
        "write": kept + sum(fetched),
    }
    return [("running means", kind, number) for kind, number in numbers.items()]


def _fetched(population: Population, widths: tuple[int, ...]) -> tuple[bool, ...]:
    """Which reads are fetched by products of real numbers, one word each, as attention fetches keys and values."""
    synapses = population.projection.synapses(widths, population.width, 1)
    return tuple(n > 0 and not linear for n, linear in zip(synapses, population.projection.linear, strict=False))


def _activations(population: Population, widths: tuple[int, ...], analogue: Collection[str]) -> Operations:
    """Words of analogue units: written once, and read by every map that takes them; attention's are products'."""
    read = [
        w
        for name, w, by_product in zip(population.reads, widths, _fetched(population, widths), strict=True)
        if name in analogue and name != INPUT and not by_product
    ]
    written = population.width if population.name in analogue else 0
    return [("activations", kind, number) for kind, number in (("read", sum(read)), ("write", written)) if number]


def _counting(width: int) -> Operations:
    """Spikes of neurons that are read out, counted: by an adder that adds 0, too."""
    return [("read-out", kind, width) for kind in ("add", "read", "write")]


def _taken_back(width: int) -> Operations:
    """Numbers of spikes -> rates -> what the teacher has there: ``w·a + b`` of each feature."""
    numbers = {"multiply": width, "multiply_accumulate": width, "read": 3 * width}
    return [("read-out", kind, number) for kind, number in numbers.items()]


def _token_scores(width: int, vocabulary: int) -> Operations:
    """``W_e·x`` at one position; the words' embeddings are off the chip."""
    products = vocabulary * width
    return [("read-out", "multiply_accumulate", products), ("read-out", "dram_read", products)]


def _class_scores(width: int, classes: int, rectified: bool = True) -> Operations:
    """``W_c·relu(a) + b_c`` at [CLS]; of ternary neurons without the ReLU."""
    words = classes * width + classes + width
    numbers = {"compare": width * rectified, "multiply_accumulate": classes * width, "read": words}
    return [("read-out", kind, number) for kind, number in numbers.items()]


def _share(operations: Operations, tokens: float) -> Operations:
    return [(term, kind, number / tokens) for term, kind, number in operations]


def _of(population: str, operations: Operations) -> list[tuple[tuple[str, str, str], float]]:
    return [((population, term, kind), number) for term, kind, number in operations]


def _summed(counted: Iterable[tuple[tuple[str, str, str], float]]) -> Counts:
    counts: Counts = {}
    for key, number in counted:
        counts[key] = counts.get(key, 0.0) + number
    return counts


def _energy(counts: Counts, energies: Energies) -> float:
    return sum(energies.of({kind: number}) for (_, _, kind), number in counts.items())


def _widths(network: Network, population: Population) -> tuple[int, ...]:
    """Widths of what a population reads; the input is as wide as the embeddings."""
    widths = {p.name: p.width for p in network.populations}
    return tuple(widths.get(name, population.width) for name in population.reads)
