"""The one serialised description of a student, and of the network in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from ..errors import InputError
from .families import spiking_bert
from .network import Network
from .neurons import Neuron
from .shapes import BertConfig, network_shapes

__all__ = [
    "StudentConfig",
    "network_config",
    "network_from",
]


@dataclass(frozen=True)
class StudentConfig:
    """All that a student's `config.json` says.

    Attributes
    ----------
    bert : BertConfig
        Sizes; ``num_hidden_layers`` is the number of spiking encoders.
    teacher_width : int
        Width of the teacher's hidden states, to which `fit` maps the read-outs.
    classes : int
    neuron : Neuron
    feedback : bool
    thresholds : mapping
        V_th of single populations, by name, in units of the neuron's.
    initial_potentials : mapping
        u0 of single populations, by name, where it is not the neuron's.
    """

    bert: BertConfig
    teacher_width: int
    classes: int
    neuron: Neuron = field(default_factory=Neuron)
    feedback: bool = False
    thresholds: Mapping[str, float] = field(default_factory=dict)
    initial_potentials: Mapping[str, float] = field(default_factory=dict)

    @property
    def network(self) -> Network:
        """The network that these numbers describe."""
        return spiking_bert(self.bert, self.neuron, self.feedback, self.thresholds, self.initial_potentials)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all parameters: the network, the map `fit` to the teacher's width, the classifier."""
        return network_shapes(self.bert, self.feedback) | {
            "fit.weight": (self.teacher_width, self.bert.hidden_size),
            "fit.bias": (self.teacher_width,),
            "classifier.weight": (self.classes, self.bert.hidden_size),
            "classifier.bias": (self.classes,),
        }

    def to_dict(self) -> dict[str, Any]:
        """Contents of `config.json`: BERT's keys, and ours beside them.

        Returns
        -------
        values : dict
        """
        rest = {name: value for name, value in asdict(self).items() if name != "bert"}
        return {"model_type": "spiking_bert", **self.bert.to_dict(), **rest}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StudentConfig:
        """Read the contents of a student's `config.json`.

        Parameters
        ----------
        values : mapping

        Returns
        -------
        config : StudentConfig
        """
        try:
            return cls(
                BertConfig.from_dict(values),
                values["teacher_width"],
                values["classes"],
                Neuron(**values["neuron"]),
                values["feedback"],
                dict(values.get("thresholds", {})),
                dict(values.get("initial_potentials", {})),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"this is not a student's configuration ({error}); a run's folder holds one") from None


def network_config(
    config: BertConfig,
    neuron: Neuron,
    feedback: bool = False,
    thresholds: Mapping[str, float] = MappingProxyType({}),
    initial_potentials: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Any]:
    """Describe a network by one flat dict: BERT's sizes, the neurons' constants, and whether there is feedback.

    Parameters
    ----------
    config : BertConfig
    neuron : Neuron
    feedback : bool
    thresholds, initial_potentials : mappings
        As of `refsnn.model.families.spiking_bert`; the dict says nothing of them if there are none.

    Returns
    -------
    values : dict

    Examples
    --------
    >>> values = network_config(BertConfig(), Neuron(vth=2.0))
    >>> values["vth"], values["leak"], values["feedback"], values["hidden_size"]
    (2.0, 1.0, False, 768)
    """
    special = {"thresholds": dict(thresholds), "initial_potentials": dict(initial_potentials)}
    special = {name: own for name, own in special.items() if own}
    return {**config.to_dict(), **asdict(neuron), "feedback": feedback, **special}


def network_from(values: Mapping[str, Any]) -> tuple[Network, BertConfig]:
    """Undo `network_config`; neurons' constants that are absent take their usual values.

    Parameters
    ----------
    values : mapping

    Returns
    -------
    network : Network
    config : BertConfig

    Raises
    ------
    InputError
        Something is missing, or out of its range.
    """
    config = BertConfig.from_dict(values)
    constants = {name: values[name] for name in ("vth", "leak", "u0", "tie") if name in values}
    if not all(isinstance(v, (int, float)) or (v is None and k == "tie") for k, v in constants.items()):
        raise InputError(f"the neurons' constants are {constants}, but vth, leak, u0 and tie are numbers")
    feedback = values.get("feedback", False)
    if not isinstance(feedback, bool):
        raise InputError(f"feedback is {feedback!r}, but it is either true or false")
    special = {name: values[name] for name in ("thresholds", "initial_potentials") if name in values}
    for name, own in special.items():
        if not isinstance(own, dict) or not all(isinstance(v, (int, float)) for v in own.values()):
            raise InputError(f"{name} are {own!r}, but they are numbers by the names of populations")
    return spiking_bert(config, Neuron(**constants), feedback, **special), config
