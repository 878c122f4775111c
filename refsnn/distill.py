"""Distillation of a spiking student from a BERT teacher: fine-tune the teacher, then the three stages of the paper.

    teacher      labelled task text           BERT with a pooler and a classifier
    general      unlabelled text              hidden states and attention of the pretrained teacher
    internal     task text                    hidden states and attention of the fine-tuned teacher
    prediction   task text                    soft labels of the fine-tuned teacher, or the true labels or scores

Everything a run is goes into one folder: its settings, the teacher, the student, the log; started again after a kill
it goes on where it was and ends with the same bytes.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy

from . import ops
from ._version import __version__
from .checkpoints import bert_folder, load_bert, load_student, load_teacher, save_model
from .config import BertConfig
from .errors import InputError
from .files import existing, new_folder, read_json, write_json
from .implicit import within_spectral_norm
from .network import Batch, Params, initial_parameters
from .neurons import Neuron
from .ops import Array
from .predict import predict_teacher
from .simulate import Rule, simulate
from .student import StudentConfig, internal_gradients, layer_pairs, prediction_gradients
from .teacher import classify, encode, head_shapes, teacher_shapes
from .text import TASKS, Examples, Task, column_names, load_tokenizer, read_corpus, read_task, splits, tokenise
from .training import Objective, Stage, finished, train

__all__ = [
    "Recipe",
    "dev_sample",
    "distill",
    "load_student",
    "load_teacher",
    "read_split",
    "run_tokenizer",
    "true_loss",
]


#: Relative residual of the equilibrium and of its adjoint in training, where gradients are noisy anyway.
TRAINING = {"tolerance": 1e-4}


@dataclass(frozen=True)
class Recipe:
    """All that decides the numbers of a run, the data and the teacher aside.

    Attributes
    ----------
    task : str
        A key of `refsnn.text.TASKS`.
    encoders : int
        Spiking encoders of the student; divides the teacher's.
    seed : int
    max_length : int or None
        Limit in tokens; the task's own where None.
    batch_size : int
    epochs_teacher, epochs_general, epochs_internal, epochs_prediction : int
        0 leaves a stage out.
    lr_teacher, lr_general, lr_internal, lr_prediction : float
    labels : {"soft", "true"}
        What the prediction stage learns: the teacher's soft labels or the true ones. A regression has scores, and
        learns the true ones in either case.
    temperature : float
        τ of the soft labels.
    mode : {"equilibrium", "released", "simulated"}
        Forward values of the read-outs and where the gradient is taken: both at the equilibrium of the rate map;
        simulated values and the gradient at that equilibrium, as in the authors' program; both at the simulated
        rates. Simulation is some t_conv times dearer.
    t_conv : int
        Timesteps of the simulated modes.
    rule : {"inst", "running"}
        Integration rule of the simulated modes.
    feedback : float
        Largest spectral norm of the feedback matrix, which is projected back after every step; 0 for no feedback.
    vth, leak, u0 : float
        See `refsnn.neurons.Neuron`.
    """

    task: str
    encoders: int
    seed: int = 0
    max_length: int | None = None
    batch_size: int = 32
    epochs_teacher: int = 2
    epochs_general: int = 1
    epochs_internal: int = 2
    epochs_prediction: int = 2
    lr_teacher: float = 1e-4
    lr_general: float = 3e-4
    lr_internal: float = 3e-4
    lr_prediction: float = 1e-4
    labels: Literal["soft", "true"] = "soft"
    temperature: float = 1.0
    mode: Literal["equilibrium", "released", "simulated"] = "equilibrium"
    t_conv: int = 32
    rule: Rule = "inst"
    feedback: float = 0.0
    vth: float = 1.0
    leak: float = 1.0
    u0: float = 0.0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InputError(f"the task is {self.task!r}, but refsnn knows {', '.join(TASKS)}")
        for name, value in asdict(self).items():
            least = {"encoders": 1, "batch_size": 1, "t_conv": 1, "max_length": 3}.get(name)
            if name.startswith("epochs_"):
                least = 0
            if least is not None and value is not None and value < least:
                raise InputError(f"{name} is {value}, but it must be at least {least}")
            if name == "feedback" and not (value >= 0 and np.isfinite(value)):
                raise InputError(f"feedback is {value}, but a spectral norm is 0 (no feedback) or a positive number")
            if (name.startswith("lr_") or name == "temperature") and not (value > 0 and np.isfinite(value)):
                raise InputError(f"{name} is {value}, but it must be a positive number")

    @property
    def neuron(self) -> Neuron:
        """The constants of every population."""
        return Neuron(self.vth, self.leak, self.u0)

    def stage(self, name: str, schedule: Literal["linear", "constant"] = "linear") -> Stage:
        """Epochs, batch size and learning rate of a stage.

        Parameters
        ----------
        name : {"teacher", "general", "internal", "prediction"}
        schedule : {"linear", "constant"}

        Returns
        -------
        stage : Stage
        """
        return Stage(name, getattr(self, f"epochs_{name}"), self.batch_size, getattr(self, f"lr_{name}"), schedule)


def distill(
    recipe: Recipe,
    data: str | os.PathLike,
    teacher: str | os.PathLike | tuple[BertConfig, Path],
    out: str | os.PathLike,
    corpus: str | os.PathLike | None = None,
    save_every: float = 20.0,
    columns: Sequence[str] = (),
) -> None:
    """Run or resume a whole distillation.

    Parameters
    ----------
    recipe : Recipe
    data : path
        The task's folder, the one above it, a file or the hub; see `refsnn.text.read_task`.
    teacher : path or (BertConfig, Path)
        A pretrained BERT, see `refsnn.checkpoints.bert_folder`; or a configuration and the folder of a tokenizer, to
        train one from scratch.
    out : path
        The run's folder.
    corpus : path, optional
        Unlabelled text for the general stage; the task's own text without its labels where None.
    save_every : float
        Seconds between checkpoints; see `refsnn.training.train`.
    columns : sequence of str
        Pairs ``name=column``; see `refsnn.text.column_names`. The run remembers them.

    Raises
    ------
    InputError
        Something given cannot be used, or `out` holds a run with other settings.
    """
    task = TASKS[recipe.task]
    max_length = recipe.max_length or task.max_length
    config, pretrained, folder = _teacher(teacher, recipe.seed)
    pairs = layer_pairs(recipe.encoders, config.num_hidden_layers)
    if max_length > config.max_position_embeddings:
        raise InputError(
            f"max_length is {max_length}, but the teacher embeds {config.max_position_embeddings} positions only"
        )
    tokenizer = load_tokenizer(folder, config.vocab_size, max_length)
    train_text = read_task(data, task, "train", column_names(task, columns))
    corpus_text = None if corpus is None else read_corpus(corpus)
    run = new_folder(out)
    _remember_settings(run, recipe, data, teacher, corpus, columns)
    examples = tokenise(train_text, task.sentences, tokenizer)

    def constrain(params: Params) -> None:
        if "feedback.weight" in params:
            params["feedback.weight"][:] = within_spectral_norm(params["feedback.weight"], recipe.feedback)

    def run_stage(stage: Stage, number: int, params: Params, text: Examples, objective: Objective) -> Params:
        seed = [recipe.seed, number]
        return train(run, stage, params, text, objective, seed, config.pad_token_id, save_every, constrain)

    def centred(params: Params) -> Params:
        """Let the scores of a regression start at their mean: steps of the bias are too small to get there."""
        if task.labels:
            return params
        return params | {"classifier.bias": examples.labels.mean(keepdims=True).astype(np.float32)}

    classes = task.outputs
    heads = initial_parameters(
        head_shapes(config, classes), np.random.default_rng([recipe.seed, 5]), config.initializer_range
    )
    heads = centred(heads)
    tuned = run_stage(recipe.stage("teacher"), 1, heads | pretrained, examples, _teacher_objective(config, examples))
    save_model(run / "teacher", config.to_dict() | {"num_labels": classes}, tuned, folder)

    bert = BertConfig(**(config.to_dict() | {"num_hidden_layers": recipe.encoders}))
    student = StudentConfig(bert, config.hidden_size, classes, recipe.neuron, recipe.feedback > 0)
    if recipe.epochs_general:
        text = examples if corpus_text is None else tokenise(corpus_text, ("text",), tokenizer)
        # A teacher trained from scratch has no earlier, more general self to learn from.
        general = tuned if isinstance(teacher, tuple) else pretrained
        params = centred(student_from_teacher(student, general, pairs, recipe.seed))
        objective = _internal_objective(recipe, student, config, general, pairs)
        params = run_stage(recipe.stage("general"), 2, params, text, objective)
    else:
        params = centred(student_from_teacher(student, tuned, pairs, recipe.seed))
    objective = _internal_objective(recipe, student, config, tuned, pairs)
    params = run_stage(recipe.stage("internal", "constant"), 3, params, examples, objective)
    objective = _prediction_objective(run, recipe, student, config, tuned, examples)
    params = run_stage(recipe.stage("prediction"), 4, params, examples, objective)
    save_model(run, student.to_dict(), params, folder)


def student_from_teacher(student: StudentConfig, teacher: Params, pairs: list[int], seed: int) -> Params:
    """Start a student from its teacher: embeddings, and encoder e from the teacher's encoder number (e+1)·M/N.

    `fit` starts as the identity where the widths are equal; the classifier starts at random.

    Parameters
    ----------
    student : StudentConfig
    teacher : dict
    pairs : list of int
        As from `refsnn.student.layer_pairs`.
    seed : int

    Returns
    -------
    params : dict
    """
    rng = np.random.default_rng([seed, 1])
    params = initial_parameters(student.shapes, rng, student.bert.initializer_range)
    if student.teacher_width == student.bert.hidden_size:
        params["fit.weight"] = np.eye(student.teacher_width, dtype=np.float32)
    for name in params:
        source = name
        if name.startswith("encoder.layer."):
            _, _, layer, rest = name.split(".", 3)
            source = f"encoder.layer.{pairs[int(layer) + 1] - 1}.{rest}"
        if source in teacher and not name.startswith("classifier."):
            params[name] = teacher[source].copy()
    return params


def _teacher(teacher: Any, seed: int) -> tuple[BertConfig, Params, Path]:
    if isinstance(teacher, tuple):
        config, folder = teacher
        shapes = teacher_shapes(config, 1)
        params = initial_parameters(shapes, np.random.default_rng([seed, 0]), config.initializer_range)
        return config, {name: value for name, value in params.items() if not name.startswith("classifier.")}, folder
    folder = bert_folder(teacher)
    return *load_bert(folder), folder


def true_loss(logits: Array, labels: Array) -> tuple[Array, Callable[[Array | float], Array]]:
    """Loss against the truth: cross-entropy for classes, the mean squared error for scores.

    Parameters
    ----------
    logits : (B, classes) array
    labels : (B,) array
        Class indices, integers; or scores, floats, and one class.

    Returns
    -------
    loss : scalar
    pullback : callable
        ``pullback(dloss) -> dlogits``.

    Examples
    --------
    >>> loss, pullback = true_loss(np.array([[3.0], [1.0]]), np.array([2.0, 1.0]))
    >>> float(loss), pullback(1.0).tolist()
    (0.5, [[1.0], [0.0]])
    """
    if np.issubdtype(labels.dtype, np.floating):
        loss, pullback = ops.mse(logits, labels[:, None].astype(logits.dtype))
        return loss, lambda dloss: pullback(dloss)[0]
    return ops.cross_entropy(logits, labels)


def _teacher_objective(config: BertConfig, examples: Examples) -> Objective:
    def objective(params: Params, batch: Batch, rows: Array):
        logits, pullback = classify(config, params, batch)
        loss, loss_pullback = true_loss(logits, examples.labels[rows])
        return {"loss": loss}, pullback(loss_pullback(1.0)), {}

    return objective


def _forward(recipe: Recipe, student: StudentConfig) -> Callable[[Params, Batch], dict[str, Any]]:
    """Forward values and place of the gradient of a batch, as `internal_gradients` wants them."""
    network, t_conv = student.network, recipe.t_conv
    if recipe.mode == "equilibrium":
        return lambda params, batch: {"search": TRAINING, "solve": TRAINING}
    at = "simulated" if recipe.mode == "simulated" else "equilibrium"
    return lambda params, batch: {
        "simulated": simulate(network, params, batch, t_conv, recipe.rule)[t_conv],
        "at": at,
        "search": TRAINING,
        "solve": TRAINING,
    }


def _internal_objective(
    recipe: Recipe, student: StudentConfig, config: BertConfig, teacher: Params, pairs: list[int]
) -> Objective:
    network, forward = student.network, _forward(recipe, student)

    def objective(params: Params, batch: Batch, rows: Array):
        target = encode(config, teacher, batch)
        hidden = [target.hidden[i] for i in pairs]
        scores = [target.scores[i - 1] for i in pairs[1:]]
        return internal_gradients(network, params, batch, hidden, scores, **forward(params, batch))

    return objective


def _prediction_objective(
    run: Path, recipe: Recipe, student: StudentConfig, config: BertConfig, teacher: Params, examples: Examples
) -> Objective:
    network, forward = student.network, _forward(recipe, student)
    soft = recipe.labels == "soft" and student.classes > 1 and not finished(run, recipe.stage("prediction"))
    # The teacher does not change any more: its soft labels are computed once, not once an epoch.
    target = predict_teacher(config, teacher, examples) if soft else None

    def objective(params: Params, batch: Batch, rows: Array):
        def loss(z: Array):
            if target is None:
                return true_loss(z, examples.labels[rows])
            value, pullback = ops.soft_cross_entropy(z, target[rows], recipe.temperature)
            return value, lambda dvalue: pullback(dvalue)[0]

        return prediction_gradients(network, params, batch, loss, **forward(params, batch))

    return objective


def _remember_settings(run: Path, recipe: Recipe, data: Any, teacher: Any, corpus: Any, columns: Sequence[str]) -> None:
    scratch = isinstance(teacher, tuple)
    settings = {
        "recipe": asdict(recipe),
        "data": str(data),
        "teacher": teacher[0].to_dict() if scratch else str(teacher),
        "corpus": None if corpus is None else str(corpus),
        "columns": list(columns) or None,
    }
    path = run / "run.json"
    if path.exists():
        before = read_json(path).get("settings", {})
        changed = [
            f"{key} was {_flat(before).get(key)!r} and is {value!r}"
            for key, value in _flat(settings).items()
            if _flat(before).get(key) != value
        ]
        if changed:
            raise InputError(
                f"{run} holds a run with other settings ({'; '.join(changed)}); "
                "name another --out, or the same settings to go on with it"
            )
        return
    write_json(path, {"settings": settings, "versions": versions()})


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k != "recipe"} | settings.get("recipe", {})


def versions() -> dict[str, str]:
    """Versions of all that computes, for the record of a run.

    Returns
    -------
    versions : dict
    """
    from importlib.metadata import PackageNotFoundError, version

    found = {"refsnn": __version__, "python": platform.python_version()}
    found |= {"numpy": np.__version__, "scipy": scipy.__version__, "machine": platform.machine()}
    for package in ("tokenizers", "datasets", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _settings(run: str | os.PathLike) -> dict[str, Any]:
    return read_json(existing(Path(run) / "run.json", "the run's settings"))["settings"]


def read_split(
    run: str | os.PathLike, data: str | os.PathLike, split: Literal["dev", "test"], columns: Sequence[str] = ()
) -> tuple[Task, dict[str, Any]]:
    """Read the dev or test split of a run's task.

    Parameters
    ----------
    run, data : path
    split : {"dev", "test"}
    columns : sequence of str
        Pairs ``name=column``; those that the run was distilled with where there are none.

    Returns
    -------
    task : Task
    parts : dict
        Part of the split -> datasets.Dataset; two for MNLI, one for every other task.
    """
    settings = _settings(run)
    task = TASKS[settings["recipe"]["task"]]
    names = column_names(task, columns or settings.get("columns") or ())
    return task, {part: read_task(data, task, part, names) for part in splits(task, data, split)}


def run_tokenizer(run: str | os.PathLike, config: StudentConfig) -> Any:
    """Load a run's tokenizer, with the limit of length it was trained with.

    Parameters
    ----------
    run : path
    config : StudentConfig

    Returns
    -------
    tokenizer : tokenizers.Tokenizer
    """
    recipe = _settings(run)["recipe"]
    return load_tokenizer(run, config.bert.vocab_size, recipe["max_length"] or TASKS[recipe["task"]].max_length)


def dev_sample(
    run: str | os.PathLike, data: str | os.PathLike, config: StudentConfig, samples: int
) -> tuple[Examples, Batch]:
    """Read the first sentences of a run's dev split.

    Parameters
    ----------
    run, data : path
    config : StudentConfig
    samples : int

    Returns
    -------
    examples : Examples
    batch : Batch
        All of them, padded to the longest.
    """
    if samples < 1:
        raise InputError(f"{samples} sentences were asked for; take at least one")
    task, parts = read_split(run, data, "dev")
    dataset = next(iter(parts.values()))
    examples = tokenise(dataset.select(range(min(samples, len(dataset)))), task.sentences, run_tokenizer(run, config))
    return examples, examples.batch(np.arange(len(examples)), config.bert.pad_token_id)
