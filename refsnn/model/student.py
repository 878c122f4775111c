"""The one serialised description of a student, and of the network in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from ..errors import InputError, shown, whole
from ..schema import checked
from .families import spiking_bert
from .network import Network
from .neurons import Neuron, Polarity
from .shapes import LARGEST, BertConfig, network_shapes

__all__ = ["StudentConfig"]


@dataclass(frozen=True)
class StudentConfig:
    """All that a student's `config.json` says; without heads, all that a spike record says of its network.

    Attributes
    ----------
    bert : BertConfig
        Sizes; ``num_hidden_layers`` is the number of spiking encoders.
    teacher_width : int
        Width of the teacher's hidden states, to which `fit` maps the read-outs; 0 where there is no such map.
    classes : int
        Outputs of the classifier; 0 where there is none.
    neuron : Neuron
        The constants of every population.
    feedback : bool
    populations : mapping
        Population -> the constants of its own, which take the place of the neuron's: ``{"embeddings": {"u0": 0.0}}``.
    per_feature : bool
        Whether features have synapses of their own for residuals, and neurons thresholds; see
        `refsnn.model.families.spiking_bert`.

    Examples
    --------
    >>> config = StudentConfig(BertConfig(), neuron=Neuron(vth=2.0))
    >>> values = config.to_dict()
    >>> values["vth"], values["leak"], values["feedback"], values["hidden_size"]
    (2.0, 1.0, False, 768)
    >>> StudentConfig.from_dict(values) == config
    True
    """

    bert: BertConfig
    teacher_width: int = 0
    classes: int = 0
    neuron: Neuron = field(default_factory=Neuron)
    feedback: bool = False
    populations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    per_feature: bool = False

    def __post_init__(self) -> None:
        whole("teacher_width", self.teacher_width, 0)
        whole("classes", self.classes, 0)
        if not isinstance(self.neuron, Neuron):
            raise InputError(f"`neuron` is {shown(self.neuron)}, but a Neuron was expected")
        if not isinstance(self.populations, Mapping):
            raise InputError(f"`populations` is {shown(self.populations)}, but a table by population was expected")
        for name, constants in self.populations.items():
            checked("the student", constants, CONSTANTS, f"populations.{name}")
        self.network  # noqa: B018 - refuses what makes no network, populations that it does not have among it

    @property
    def network(self) -> Network:
        """The network that these numbers describe."""
        own = {name: replace(self.neuron, **constants) for name, constants in self.populations.items()}
        return spiking_bert(self.bert, self.neuron, self.feedback, own, self.per_feature)

    @property
    def body(self) -> StudentConfig:
        """The network alone, without `fit` and classifier."""
        return replace(self, teacher_width=0, classes=0)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all parameters: the network, the map `fit` to the teacher's width, the classifier."""
        shapes = network_shapes(self.bert, self.feedback, self.per_feature)
        for head, out in (("fit", self.teacher_width), ("classifier", self.classes)):
            if out:
                shapes |= {f"{head}.weight": (out, self.bert.hidden_size), f"{head}.bias": (out,)}
        return shapes

    def varied(self, vth: float, leak: float, u0: float) -> StudentConfig:
        """Set other constants for all neurons; a population's own threshold is scaled, its own u0 stays.

        Parameters
        ----------
        vth, leak, u0 : float
            See `refsnn.model.neurons.Neuron`.

        Returns
        -------
        config : StudentConfig
        """
        own = {name: dict(constants) for name, constants in self.populations.items()}
        for constants in own.values():
            if "vth" in constants:
                constants["vth"] *= vth / self.neuron.vth
        return replace(self, neuron=replace(self.neuron, vth=vth, leak=leak, u0=u0), populations=own)

    def to_dict(self) -> dict[str, Any]:
        """One flat table: BERT's keys, the neurons' constants, and what only students have.

        Returns
        -------
        values : dict
        """
        neuron = asdict(self.neuron)
        if not self.neuron.signed:
            del neuron["polarity"]  # the paper's, and every file's before there were others
        values = {**self.bert.to_dict(), **neuron, "feedback": self.feedback}
        if self.per_feature:
            values["per_feature"] = True
        if self.populations:
            values["populations"] = {name: dict(constants) for name, constants in self.populations.items()}
        if self == self.body:
            return values
        return {"model_type": "spiking_bert", **values, "teacher_width": self.teacher_width, "classes": self.classes}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: object = "the student's configuration") -> StudentConfig:
        """Undo `to_dict`.

        Parameters
        ----------
        values : mapping
            Neurons' constants that are absent take their usual values. What refsnn 0.1 wrote is read as well: a table
            ``neuron``, and ``thresholds``, in units of the neurons', and ``initial_potentials`` of single populations.
        source : object
            Where it was read, for messages.

        Returns
        -------
        config : StudentConfig

        Raises
        ------
        InputError
            Something is missing, of another type, or out of its range.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"{source} is a {type(values).__name__}, but a table was expected")
        if (kind := values.get("model_type")) not in (None, "bert", "spiking_bert"):
            said = "; it is a GPT's, which `refsnn gpt` reads" if kind in ("gpt2", "spiking_gpt") else ""
            raise InputError(f"{source}: model_type is {shown(kind)}, but 'spiking_bert' was expected{said}")
        values = checked(source, dict(values), SCHEMA, closed=False)
        _refuse_near_misses(source, values)
        nested = checked(source, values.get("neuron", {}), CONSTANTS, "neuron")
        neuron = Neuron(**{name: value for name, value in (values | nested).items() if name in CONSTANTS})
        own: dict[str, dict[str, Any]] = {}
        for name, factor in values.get("thresholds", {}).items():
            own.setdefault(name, {})["vth"] = neuron.vth * factor
        for name, u0 in values.get("initial_potentials", {}).items():
            own.setdefault(name, {})["u0"] = u0
        for name, changes in values.get("populations", {}).items():
            own.setdefault(name, {}).update(checked(source, changes, CONSTANTS, f"populations.{name}"))
        width, classes = values.get("teacher_width", 0), values.get("classes", 0)
        if not (0 <= width <= LARGEST["hidden_size"] and 0 <= classes <= LARGEST["hidden_size"]):
            raise InputError(
                f"{source}: teacher_width is {width} and classes {classes}, but sizes are from 0 to "
                f"{LARGEST['hidden_size']}"
            )
        try:
            bert = BertConfig.from_dict(values)
            return cls(
                bert, width, classes, neuron, values.get("feedback", False), own, values.get("per_feature", False)
            )
        except InputError as error:
            raise InputError(f"{source}: {error}") from None


def _refuse_near_misses(source: object, values: Mapping[str, Any]) -> None:
    """Other keys are a BERT's and may be there, but none that is a student's own but for a letter or two."""
    for key in values.keys() - SCHEMA.keys():
        for meant in get_close_matches(str(key), SCHEMA, 1, 0.65):
            if abs(len(str(key)) - len(meant)) <= 1:
                raise InputError(f"{source}: the key {key!r} is not known; {meant!r} is")


#: A neuron's constants, and what else a student's configuration has of its own, with their types.
CONSTANTS: dict[str, Any] = {"vth": float, "leak": float, "u0": float, "tie": float | None, "polarity": Polarity}
SCHEMA: dict[str, Any] = CONSTANTS | {
    "feedback": bool,
    "per_feature": bool,
    "populations": dict[str, dict],  # type: ignore[type-arg]
    "teacher_width": int,
    "classes": int,
    "neuron": dict,
    "thresholds": dict[str, float],
    "initial_potentials": dict[str, float],
}
