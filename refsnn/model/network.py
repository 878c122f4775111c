"""The network as data: populations of neurons, the projections that drive them, and the families built from both.

A network is an ordered tuple of *populations*. Each names the populations whose spikes it reads and the *projection*
that turns what it reads into its input current. Simulation, equilibrium, gradient, certificate and operation count are
readings of this one description (see ``docs/architecture.md``), so each map below is written once.

The order means: within a time step populations fire in order, so a population that reads an earlier one sees this
step's spikes; one that reads a later one (feedback) sees the previous step's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import InputError
from .neurons import Neuron
from .projections import Embeddings, FirstPosition, Projection, TokenEmbeddings

__all__ = [
    "INPUT",
    "Network",
    "Population",
    "encoder_of",
    "first_position",
    "kind_of",
]

#: The name under which a population reads the constant embedding current.
INPUT = "input"


def kind_of(name: str) -> str:
    """Kind of a population, from its name.

    Parameters
    ----------
    name : str

    Returns
    -------
    kind : str
        Of `refsnn.model.families`' networks: embeddings, key, value, context, attention_output, intermediate, output.

    Examples
    --------
    >>> kind_of("encoder.1.key"), kind_of("embeddings")
    ('key', 'embeddings')
    """
    return name.rpartition(".")[2]


def encoder_of(name: str) -> int | None:
    """Which encoder, or block of a GPT, a population belongs to, from its name.

    Parameters
    ----------
    name : str

    Returns
    -------
    encoder : int or None
        Counted from 0; None for a population outside of them.

    Examples
    --------
    >>> encoder_of("encoder.1.key"), encoder_of("embeddings")
    (1, None)
    """
    where, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    return int(number) if where in ("encoder", "block") and number.isdecimal() else None


@dataclass(frozen=True)
class Population:
    """Units with one projection. `neuron` None makes them analogue: they pass their current on, as all do in BERT."""

    name: str
    projection: Projection
    reads: tuple[str, ...]
    width: int
    neuron: Neuron | None

    @property
    def kind(self) -> str:
        """What the population is within its encoder, such as ``"key"``; see `kind_of`."""
        return kind_of(self.name)


@dataclass(frozen=True)
class Network:
    """Populations in firing order, the input that drives them, and what is observed.

    Attributes
    ----------
    drive : Embeddings or TokenEmbeddings
        The constant current that populations read under the name ``"input"``.
    populations : tuple of Population
    readouts : tuple of str
        Populations 0…N compared with the teacher's hidden states: the embeddings and the output of each encoder.
    contexts : tuple of str
        The population of each encoder whose attention scores are compared with the teacher's.
    """

    drive: Embeddings | TokenEmbeddings
    populations: tuple[Population, ...]
    readouts: tuple[str, ...]
    contexts: tuple[str, ...]

    def __post_init__(self) -> None:
        names = [population.name for population in self.populations]
        if not names or len(set(names)) < len(names) or INPUT in names:
            raise InputError(f"the populations are called {names}, but each needs a name of its own, and not {INPUT!r}")
        for population in self.populations:
            if unknown := [read for read in population.reads if read not in (*names, INPUT)]:
                raise InputError(f"population {population.name} reads {unknown[0]!r}, but there are {', '.join(names)}")
        if unknown := [name for name in (*self.readouts, *self.contexts) if name not in names]:
            raise InputError(f"population {unknown[0]!r} is to be observed, but there are {', '.join(names)}")

    def __getitem__(self, name: str) -> Population:
        for population in self.populations:
            if population.name == name:
                return population
        raise InputError(f"there is no population {name!r}; there are {', '.join(p.name for p in self.populations)}")

    @property
    def fed_back(self) -> tuple[str, ...]:
        """Populations that are read before they are evaluated; if any, the rates solve a true fixed-point equation."""
        known = {INPUT}
        found: dict[str, None] = {}
        for population in self.populations:
            found |= dict.fromkeys(name for name in population.reads if name not in known)
            known.add(population.name)
        return tuple(found)

    @property
    def rectified(self) -> bool:
        """Whether a classifier reads rates through a ReLU: not those of ternary neurons, which may be negative."""
        neuron = self[self.readouts[-1]].neuron
        return neuron is None or neuron.low == 0

    @property
    def last_readers(self) -> dict[str, str]:
        """The population that reads each population, or the input, last: after it, nobody in this sweep needs it."""
        return {read: population.name for population in self.populations for read in population.reads}


def first_position(network: Network) -> Network:
    """Reduce a network to what class scores need: of the last encoder, only what [CLS] depends on.

    Keys and values are needed everywhere, the populations after them at the first position alone, where they have the
    shape (B, 1, width). With feedback, which needs them all, the network is returned as it is.

    Parameters
    ----------
    network : Network

    Returns
    -------
    network : Network

    Examples
    --------
    >>> from refsnn.model.shapes import BertConfig
    >>> from refsnn.model.families import spiking_bert
    >>> network = first_position(spiking_bert(BertConfig(num_hidden_layers=2)))
    >>> [p.name for p in network.populations if isinstance(p.projection, FirstPosition)]
    ['encoder.1.context', 'encoder.1.attention_output']
    """
    if network.fed_back:
        return network
    populations = []
    first: set[str] = set()
    for population in network.populations:
        if population.name == network.contexts[-1] or first:
            # The context reads its encoder's input there, for the query; what comes after reads all there.
            cut = [read not in first for read in population.reads]
            if not first:
                cut = [True, False, False]
            first.add(population.name)
            if any(cut):
                population = replace(population, projection=FirstPosition(population.projection, tuple(cut)))
        populations.append(population)
    return replace(network, populations=tuple(populations))
