"""A recipe: all that decides the numbers of a run, the data and the teacher aside, as a run's folder remembers it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from ..data.tasks import TASKS, Task
from ..errors import InputError, number, one_of, whole
from ..model.neurons import Neuron, Polarity
from ..readings.simulate import Rule
from ..schema import checked

__all__ = ["Initialisation", "Recipe", "Stage", "Stream"]

Initialisation = Literal["random", "teacher", "converted"]


class Stream(IntEnum):
    """What is drawn at random: each from a stream of its own, ``default_rng([seed, stream, …])``.

    The numbers are part of every run's bytes. Streams of the same number differ by what follows it: the order of a
    stage's examples is drawn from ``[seed, stage, epoch]``.
    """

    UNTRAINED_TEACHER = 0
    STUDENT = 1
    TEACHER_STAGE = 1
    GENERAL_STAGE = 2
    INTERNAL_STAGE = 3
    PREDICTION_STAGE = 4
    TEACHER_HEAD = 5
    PACKING = 6
    MISSING_CLASSIFIER = 6
    AUTHORS_POOLER = 7
    CONVERSION_SAMPLE = 8

    def rng(self, seed: int) -> np.random.Generator:
        """Return the stream's generator."""
        return np.random.default_rng([seed, self])


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes
    ----------
    name : str
        Names its checkpoint and its lines in the log.
    epochs : float
        Passes over the examples; of the last, a fraction takes the first batches.
    batch_size : int
    lr : float
        Peak learning rate.
    schedule : {"linear", "constant"}
        Linear warm-up over a tenth of the steps and linear decay, or a constant rate.

    Examples
    --------
    >>> [Stage("internal", epochs, 64, 1e-4).steps(1000) for epochs in (0, 0.01, 0.25, 1, 2.5)]
    [0, 1, 4, 16, 40]
    """

    name: str
    epochs: float
    batch_size: int
    lr: float
    schedule: Literal["linear", "constant"] = "linear"

    def batches(self, rows: int) -> int:
        """Count the batches of one epoch.

        Parameters
        ----------
        rows : int
            Examples.

        Returns
        -------
        batches : int
        """
        return -(-rows // self.batch_size)

    def steps(self, rows: int) -> int:
        """Count the steps of the stage: ⌈epochs · batches⌉.

        Parameters
        ----------
        rows : int
            Examples.

        Returns
        -------
        steps : int
        """
        return math.ceil(self.batches(rows) * self.epochs)


#: The least and the most of the fields that are whole numbers. The greatest are far beyond what anybody trains, and
#: keep a slip of the finger from asking for more memory than there is.
RANGES = {
    "encoders": (1, 1000),
    "seed": (0, 10**18),
    "max_length": (3, 2**20),
    "batch_size": (1, 10**6),
    "batch_size_internal": (1, 10**6),
    "t_conv": (1, 10**6),
    "hidden_size": (1, 2**20),
    "intermediate_size": (1, 2**20),
}


@dataclass(frozen=True)
class Recipe:
    """All that decides the numbers of a run, the data and the teacher aside.

    Attributes
    ----------
    task : str
        One of `refsnn.data.tasks.TASKS`, or the name of `own`.
    encoders : int
        Spiking encoders of the student; divides the teacher's.
    seed : int
    max_length : int or None
        Limit in tokens; the task's own where None.
    batch_size : int
    batch_size_internal : int or None
        Of the internal stage; that of the others where None.
    epochs_teacher, epochs_general, epochs_internal, epochs_prediction : float
        0 leaves a stage out; 0.25 is a quarter of an epoch.
    lr_teacher, lr_general, lr_internal, lr_prediction : float
        Peak learning rates.
    schedule_internal : {"constant", "linear"}
        Of the internal stage: a constant learning rate, as in the authors' program, or warm-up and linear decay, as in
        the other stages. A student that starts near its teacher needs the latter: BertAdam's first steps are three
        times the learning rate, and lead away from there.
    attention_weight : float
        Weight of the attention loss beside the hidden-state loss; 1 in the paper.
    targets : {"soft", "true"}
        What the prediction stage learns: the teacher's soft labels or the true ones. A regression has scores, and
        learns the true ones in either case.
    temperature : float
        τ of the soft labels.
    mode : {"equilibrium", "quantised", "released", "simulated", "few-steps"}
        Forward values of the read-outs and where the gradient is taken: both at the equilibrium of the rate map; both
        there with every rate quantised, as t_conv steps of a constant current would leave it; simulated values and
        the gradient at the equilibrium, as in the authors' program; both at the simulated rates. Simulation is
        some t_conv times dearer, quantisation costs nothing. ``few-steps`` is ``simulated`` for a student that is
        to answer early: its internal stage compares the rates after T/2 and after T steps, learns the teacher's soft
        labels beside its hidden states, and leaves the tables of the embeddings, `fit` and thresholds alone.
    t_conv : int
        Timesteps of the quantised and the simulated modes, and of the steps to which a conversion per feature is
        fitted.
    rule : {"inst", "running"}
        Integration rule of the simulated modes.
    init : {"random", "teacher", "converted"}
        Where the student starts: at random, with the teacher's weights, or with these converted so that its rates are
        images of the teacher's activities; see `refsnn.distillation.initialise`.
    clipped : float
        Fraction of the teacher's activities that a conversion lets fall outside the rates' range.
    hidden_size, intermediate_size : int or None
        Sizes of the student; the teacher's where None. Others need a random start. The number of heads is the
        teacher's, since attention is compared head by head.
    dropout_teacher, dropout_student : float
        Probability of dropout while the one or the other is trained; see `refsnn.model.dropout.dropout_masks`.
    feedback : float
        Largest spectral norm of the feedback matrix, which is projected back after every step; 0 for no feedback.
    vth, leak, u0 : float
        See `refsnn.model.neurons.Neuron`.
    own : Task or None
        A task that is not one of GLUE's.
    polarity : {"unsigned", "retractable", "ternary"}
        Of every neuron; see `refsnn.model.neurons.Neuron`.
    per_feature : bool
        Whether residuals come through a synapse per feature, and some neurons have thresholds of their own; see
        `refsnn.model.families.spiking_bert`.
    """

    task: str
    encoders: int
    seed: int = 0
    max_length: int | None = None
    batch_size: int = 32
    epochs_teacher: float = 2
    epochs_general: float = 1
    epochs_internal: float = 2
    epochs_prediction: float = 2
    lr_teacher: float = 1e-4
    lr_general: float = 3e-4
    lr_internal: float = 3e-4
    lr_prediction: float = 1e-4
    schedule_internal: Literal["constant", "linear"] = "constant"
    attention_weight: float = 1.0
    targets: Literal["soft", "true"] = "soft"
    temperature: float = 1.0
    mode: Literal["equilibrium", "quantised", "released", "simulated", "few-steps"] = "equilibrium"
    t_conv: int = 32
    rule: Rule = "inst"
    init: Initialisation = "teacher"
    hidden_size: int | None = None
    intermediate_size: int | None = None
    dropout_teacher: float = 0.0
    dropout_student: float = 0.0
    feedback: float = 0.0
    vth: float = 1.0
    leak: float = 1.0
    u0: float = 0.0
    own: Task | None = None
    polarity: Polarity = "unsigned"
    per_feature: bool = False
    batch_size_internal: int | None = None
    clipped: float = 1e-2

    def __post_init__(self) -> None:
        if self.task not in TASKS and self.own is None:
            raise InputError(
                f"the task is {self.task!r}, but refsnn knows {', '.join(TASKS)}; "
                "say what a task of your own is by its labels"
            )
        for name, (least, most) in RANGES.items():
            if (value := getattr(self, name)) is not None:
                whole(name, value, least, most)
        for name in ("schedule_internal", "targets", "mode", "rule", "init", "polarity"):
            one_of(name, getattr(self, name), get_args(get_type_hints(Recipe)[name]))
        for name in REALS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
                raise InputError(f"`{name}` is {value!r}, but a number was expected")
            if name.startswith("epochs_"):
                number(name, value, 0, 10**6)
            if name.startswith("dropout_") and not 0 <= value < 1:
                raise InputError(f"`{name}` is {value}, but a probability of dropout lies in [0, 1)")
            if name == "attention_weight" and not (value >= 0 and math.isfinite(value)):
                raise InputError(f"`attention_weight` is {value}, but a weight is 0 or a positive number")
            if name == "clipped":
                number(name, value, 0, 0.5)
            if name == "feedback" and not (value >= 0 and math.isfinite(value)):
                raise InputError(f"`feedback` is {value}, but a spectral norm is 0 (no feedback) or a positive number")
            if (name.startswith("lr_") or name == "temperature") and not (value > 0 and math.isfinite(value)):
                raise InputError(f"`{name}` is {value}, but it must be a positive number")
        if not isinstance(self.per_feature, bool):
            raise InputError(f"`per_feature` is {self.per_feature!r}, but it must be True or False")
        self.neuron  # noqa: B018 - refuses constants out of their range
        if self.mode == "quantised" and self.leak != 1:
            raise InputError(f"`leak` is {self.leak}, but only the rates of IF neurons (`leak` 1) can be quantised")

    @property
    def definition(self) -> Task:
        """The task."""
        return TASKS[self.task] if self.own is None else self.own

    @property
    def limit(self) -> int:
        """Limit in tokens."""
        return self.max_length or self.definition.max_length

    @property
    def neuron(self) -> Neuron:
        """The constants of every population."""
        return Neuron(self.vth, self.leak, self.u0, polarity=self.polarity)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON has them.

        Returns
        -------
        values : dict
        """
        values = asdict(self) | {"own": None if self.own is None else self.own.to_dict()}
        return {name: value for name, value in values.items() if name not in LATER or value != LATER[name]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: object = "the recipe") -> Recipe:
        """Undo `to_dict`; fields that an older version did not have take their defaults.

        Parameters
        ----------
        values : mapping
        source : object
            Where it was read, for messages.

        Returns
        -------
        recipe : Recipe

        Raises
        ------
        InputError
            A field is missing, unknown, of another type or out of its range.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"{source} is a {type(values).__name__}, but a table was expected")
        values = dict(values)
        if "labels" in values:  # what refsnn 0.1 called it
            values["targets"] = values.pop("labels")
        types = get_type_hints(cls) | {"own": dict | None}
        values = checked(source, values, types, "recipe", ("task", "encoders"))
        try:
            if values.get("own") is not None:
                own = checked(source, values["own"], OWN, "recipe.own", OWN)
                values["own"] = Task.own(own["name"], own["labels"], own["pair"])
            return cls(**values)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None

    def stage(self, name: str) -> Stage:
        """Epochs, batch size and learning rate of a stage.

        Parameters
        ----------
        name : {"teacher", "general", "internal", "prediction"}

        Returns
        -------
        stage : Stage
        """
        internal = name == "internal"
        schedule = self.schedule_internal if internal else "linear"
        size = (internal and self.batch_size_internal) or self.batch_size
        return Stage(name, getattr(self, f"epochs_{name}"), size, getattr(self, f"lr_{name}"), schedule)


#: Fields that are written only where they are not this: files from before there were any stay as they are.
LATER = {"polarity": "unsigned", "per_feature": False, "batch_size_internal": None, "clipped": 1e-2}

#: Fields of a recipe that are real numbers, and fields of a task of one's own.
REALS = [field.name for field in fields(Recipe) if "float" in str(field.type)]
OWN = {"name": str, "labels": list[str], "pair": bool}
