"""Distillation of a spiking student from a BERT teacher: fine-tune the teacher, then the three stages of the paper.

    teacher      labelled task text           BERT with a pooler and a classifier
    general      unlabelled text              hidden states and attention of the pretrained teacher
    internal     task text                    hidden states and attention of the fine-tuned teacher
    prediction   task text                    soft labels of the fine-tuned teacher, or the true labels or scores

Everything a run is goes into one folder: its settings, the teacher, the student, the log; started again after a kill
it resumes and ends with the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import ops
from ..data.examples import Examples, epoch_batches, tokenise
from ..data.packing import pack
from ..data.reading import read_task
from ..data.tasks import HUB, Task, column_names
from ..data.tokenizer import TOKENIZER, load_tokenizer
from ..data.unlabelled import read_corpus
from ..errors import InputError
from ..model.batch import Batch
from ..model.dropout import dropout_masks
from ..model.families import bert
from ..model.network import Network
from ..model.parameters import Params, accumulate, initial_parameters
from ..model.shapes import BertConfig, head_shapes, teacher_shapes
from ..model.student import StudentConfig
from ..ops import Array
from ..readings.adjoint import Solve
from ..readings.equilibrium import Search
from ..readings.implicit import within_spectral_norm
from ..readings.rate_map import Rates
from ..readings.simulate import simulate
from ..storage.checkpoints import bert_folder, load_bert, load_student, save_model
from ..storage.digests import array_digest, file_digest, table_digest
from ..storage.recipe import Initialisation, Recipe, Stage, Stream
from ..storage.run import Run, run_settings
from .initialise import SEQUENCES, check_start, initial_student
from .predict import predict_rates, predict_teacher
from .student import Loss, Scheme, internal_gradients, layer_pairs, prediction_gradients, true_loss
from .teacher import answered, classify, encode, ready_head
from .training import Objective, finished, train

__all__ = [
    "data_digest",
    "distill",
    "distill_general",
    "run_digests",
]

#: What is told of a stage and its text.
Announce = Callable[[Stage, Examples], None]

#: What is told of a stage's name, the class scores that its model gives the dev split, and the split's labels.
Measured = Callable[[str, Array, Array], None]

#: Runs a stage: its number in the random streams, where to start, text and objective.
RunStage = Callable[[Stage, int, Params, Examples, Objective], Params]

#: Relative residual of the equilibrium and of its adjoint in training, where gradients are noisy anyway.
TRAINING = 1e-4


def distill(
    recipe: Recipe,
    data: str | os.PathLike,
    teacher: str | os.PathLike | tuple[BertConfig, Path],
    out: str | os.PathLike,
    corpus: Sequence[str | os.PathLike] = (),
    save_every: float = 20.0,
    columns: Sequence[str] = (),
    general: str | os.PathLike | None = None,
    announce: Announce = lambda stage, text: None,
    measured: Measured | None = None,
) -> None:
    """Run or resume a whole distillation.

    Parameters
    ----------
    recipe : Recipe
    data : path
        The task's folder, the one above it, a file or the hub; see `refsnn.data.reading.read_task`.
    teacher : path or (BertConfig, Path)
        A pretrained BERT, see `refsnn.storage.checkpoints.bert_folder`; or a configuration and the folder of a
        tokenizer, to train one from scratch.
    out : path
        The run's folder.
    corpus : sequence of path or str
        Unlabelled text for the general stage, see `refsnn.data.unlabelled.read_corpus`; the task's own text without
        its labels where there is none.
    save_every : float
        Seconds between checkpoints; see `refsnn.distillation.training.train`.
    columns : sequence of str
        Pairs ``name=column``; see `refsnn.data.tasks.column_names`. The run remembers them.
    general : path, optional
        What `distill_general` made: the student to start from, instead of a general stage.
    announce : callable, optional
        Called with every stage and its text before it begins or is found to be finished.
    measured : callable, optional
        Called after the teacher, internal and prediction stages with the stage's name, its class scores on the dev
        split, by the rate map, and the labels, if there is a dev split beside the train split.

    Raises
    ------
    InputError
        Something given cannot be used, or `out` holds a run with other settings.
    """
    packs = bool(corpus and recipe.epochs_general and general is None)
    task, given = recipe.definition, _given(recipe, teacher, packs, recipe.definition)
    train_text = read_task(data, task, "train", column_names(task, columns))
    student, start = _student(recipe, given.config, task.outputs), "random" if general is not None else recipe.init
    check_start(student, given.config, start)
    started = None if general is None else _general_student(general, student)
    packed, run = None, Run(out)
    if packs and finished(run, recipe.stage("general")) is None:
        packed = _packed(recipe, given, corpus)
    examples = tokenise(train_text, task.sentences, given.tokenizer)
    with run.held():
        run.begin(
            run_settings(recipe, data, teacher, corpus, columns, general),
            run_digests(
                train_text,
                given.config,
                given.pretrained | given.head if given.earlier else None,
                given.folder,
                corpus,
                general,
            ),
        )
        dev = None if measured is None else _dev_examples(run, data, given.tokenizer)

        def report(stage: str, score: Callable[[Examples], Array]) -> None:
            if measured is not None and dev is not None and recipe.stage(stage).epochs:
                measured(stage, score(dev), dev.labels)

        run_stage = _runner(run, recipe, given.config, save_every, announce)
        tuned = _tuned(run, recipe, given, examples, run_stage)
        report("teacher", lambda dev: predict_teacher(given.config, tuned, dev))
        # A teacher trained from scratch has no earlier, more general self to learn from.
        origin = given.pretrained if recipe.epochs_general and given.earlier else tuned
        student, params = _initial(run, recipe, student, given, origin, start, examples)
        if not (start == "converted" and origin is tuned):  # then there is a classifier already
            params = _centred(params, task, examples)
        if started is not None:
            student, general_params = started
            params = params | general_params
        elif recipe.epochs_general:
            objective = _internal_objective(recipe, student, given.config, origin, given.pairs)
            text = examples if packed is None else packed
            params = run_stage(recipe.stage("general"), Stream.GENERAL_STAGE, params, text, objective)
        if recipe.mode == "few-steps":
            objective = _few_steps_objective(recipe, student, given.config, tuned, given.pairs, examples)
        else:
            objective = _internal_objective(recipe, student, given.config, tuned, given.pairs)
        params = run_stage(recipe.stage("internal"), Stream.INTERNAL_STAGE, params, examples, objective)
        report("internal", lambda dev: predict_rates(student, params, dev))
        objective = _prediction_objective(run, recipe, student, given.config, tuned, examples)
        params = run_stage(recipe.stage("prediction"), Stream.PREDICTION_STAGE, params, examples, objective)
        report("prediction", lambda dev: predict_rates(student, params, dev))
        save_model(run.folder, student.to_dict(), params, given.folder)


@dataclass(frozen=True)
class _Given:
    """The teacher that a distillation is given, and its tokenizer."""

    config: BertConfig
    pretrained: Params
    head: Params  # its classifier, where it is used as it is
    earlier: bool  # whether it was pretrained, and not drawn at random just now
    folder: Path  # of the tokenizer's files
    tokenizer: Any
    pairs: list[int]  # its layers that the student's are compared with


def _given(recipe: Recipe, teacher: Any, packs: bool, task: Task | None = None) -> _Given:
    """Read a teacher and its tokenizer, and see that the recipe, the task and packed text, if there are, suit it."""
    config, pretrained, folder = _teacher(teacher, recipe.seed, task is not None and not recipe.epochs_teacher)
    head: Params = {}
    if task is not None and "classifier.weight" in pretrained:
        head = ready_head(folder, pretrained, task)
        pretrained = {name: value for name, value in pretrained.items() if name not in head}
    asked = task is not None and task.outputs > 1 and recipe.targets == "soft" and recipe.epochs_prediction
    if asked and not recipe.epochs_teacher and not head:
        raise InputError(
            f"`epochs_teacher` is 0, but {folder} has no classifier, so its soft labels would be random; fine-tune it, "
            "or learn the true labels (`targets` true)"
        )
    pairs = layer_pairs(recipe.encoders, config.num_hidden_layers)
    if recipe.limit > config.max_position_embeddings:
        raise InputError(
            f"max_length is {recipe.limit}, but the teacher embeds {config.max_position_embeddings} positions only"
        )
    if config.type_vocab_size < 2 and (packs or (task is not None and len(task.sentences) == 2)):
        raise InputError(
            "the teacher embeds 1 token type, 0 (type_vocab_size), but the second text of a pair has the type 1; "
            "give a teacher that was trained on pairs, or texts alone"
        )
    tokenizer = load_tokenizer(folder, config.vocab_size, recipe.limit)
    return _Given(config, pretrained, head, not isinstance(teacher, tuple), folder, tokenizer, pairs)


def _packed(recipe: Recipe, given: _Given, corpus: Sequence[str | os.PathLike]) -> Examples:
    return pack(read_corpus(corpus), given.tokenizer, recipe.limit, [recipe.seed, Stream.PACKING]).examples


def _centred(params: Params, task: Task, examples: Examples) -> Params:
    """Let the scores of a regression start at their mean: steps of the bias are too small to get there."""
    if task.labels:
        return params
    return params | {"classifier.bias": examples.labels.mean(keepdims=True).astype(np.float32)}


def _tuned(run: Run, recipe: Recipe, given: _Given, examples: Examples, run_stage: RunStage) -> Params:
    """Fine-tune the teacher and write it down."""
    config, classes = given.config, recipe.definition.outputs
    heads = initial_parameters(
        head_shapes(config, classes), Stream.TEACHER_HEAD.rng(recipe.seed), config.initializer_range
    )
    params = _centred(heads, recipe.definition, examples) | given.pretrained | given.head
    objective = _teacher_objective(config, examples)
    tuned = run_stage(recipe.stage("teacher"), Stream.TEACHER_STAGE, params, examples, objective)
    save_model(run.teacher_folder, config.to_dict() | {"num_labels": classes}, tuned, given.folder)
    return tuned


def _dev_examples(run: Run, data: Any, tokenizer: Any) -> Examples | None:
    """Read the first dev split beside the train split, if there is one."""
    if str(data) != HUB and Path(data).is_file():
        return None
    try:
        dataset = next(iter(run.split("dev", data).values()))
    except InputError:  # whoever only trains needs none
        return None
    return tokenise(dataset, run.task.sentences, tokenizer)


def distill_general(
    recipe: Recipe,
    teacher: str | os.PathLike,
    corpus: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    save_every: float = 20.0,
    announce: Announce = lambda stage, text: None,
) -> None:
    """Run or resume the general stage alone, for students of several tasks to start from.

    Parameters
    ----------
    recipe : Recipe
        Its task gives the limit in tokens, if none is set; nothing else about other stages matters.
    teacher : path
        A pretrained BERT, see `refsnn.storage.checkpoints.bert_folder`.
    corpus : sequence of path or str
        Unlabelled text, see `refsnn.data.unlabelled.read_corpus`.
    out : path
        The folder for the student, with a classifier that knows nothing.
    save_every : float
        Seconds between checkpoints; see `refsnn.distillation.training.train`.
    announce : callable, optional
        As for `distill`.

    Raises
    ------
    InputError
        As for `distill`.
    """
    given, run = _given(recipe, teacher, packs=True), Run(out)
    student = _student(recipe, given.config, 1)
    check_start(student, given.config, recipe.init)
    others = ("task", "own", "targets", "temperature", "_teacher", "_internal", "_prediction")
    concerns = {
        name: value
        for name, value in replace(recipe, max_length=recipe.limit).to_dict().items()
        if not name.endswith(others)
    }
    with run.held():
        run.begin(
            run_settings(recipe, None, teacher, corpus) | {"recipe": concerns},
            run_digests(None, given.config, given.pretrained, given.folder, corpus),
        )
        if run.finished:
            return
        packed = _packed(recipe, given, corpus)
        student, params = _initial(run, recipe, student, given, given.pretrained, recipe.init, packed)
        objective = _internal_objective(recipe, student, given.config, given.pretrained, given.pairs)
        run_stage = _runner(run, recipe, given.config, save_every, announce)
        params = run_stage(recipe.stage("general"), Stream.GENERAL_STAGE, params, packed, objective)
        save_model(run.folder, student.to_dict(), params, given.folder)


def data_digest(train: Any) -> str:
    """Fingerprint a train split.

    Parameters
    ----------
    train : datasets.Dataset

    Returns
    -------
    digest : str
    """
    return table_digest({name: train[name] for name in train.column_names})


def run_digests(
    train: Any,
    config: BertConfig,
    teacher: Params | None,
    tokenizer: Path,
    corpus: Sequence[str | os.PathLike] = (),
    general: str | os.PathLike | None = None,
) -> dict[str, str]:
    """Fingerprint what a run's settings name.

    Parameters
    ----------
    train : datasets.Dataset or None
        The train split.
    config, teacher : BertConfig, dict or None
        The pretrained teacher; None if it is trained from scratch.
    tokenizer : Path
        Folder of its files.
    corpus : sequence of path or str
        Unlabelled text; that of the hub is left out.
    general : path, optional
        The general student.

    Returns
    -------
    digests : dict
    """
    files = {name: file_digest(tokenizer / name) for name in TOKENIZER if (tokenizer / name).exists()}
    digests = {"vocabulary": array_digest([], files)}
    if train is not None:
        digests["data"] = data_digest(train)
    if teacher is not None:
        digests["teacher"] = array_digest((teacher[name] for name in sorted(teacher)), config.to_dict())
    if found := [file_digest(Path(source)) for source in corpus if not str(source).startswith(f"{HUB}:")]:
        digests["corpus"] = array_digest([], found)
    if general is not None:
        digests["general"] = file_digest(Path(general) / "model.safetensors")
    return digests


def _student(recipe: Recipe, config: BertConfig, classes: int) -> StudentConfig:
    """Describe the student: the teacher's sizes, where the recipe has none of its own."""
    sizes = {"num_hidden_layers": recipe.encoders}
    sizes |= {"hidden_size": recipe.hidden_size} if recipe.hidden_size else {}
    sizes |= {"intermediate_size": recipe.intermediate_size} if recipe.intermediate_size else {}
    bert = BertConfig(**(config.to_dict() | sizes))
    return StudentConfig(
        bert, config.hidden_size, classes, recipe.neuron, recipe.feedback > 0, per_feature=recipe.per_feature
    )


def _initial(
    run: Run,
    recipe: Recipe,
    student: StudentConfig,
    given: _Given,
    origin: Params,
    start: Initialisation,
    text: Examples,
) -> tuple[StudentConfig, Params]:
    """Start a student as the recipe says, from the parameters `origin` of its teacher."""
    sample = _sample(text, recipe, given.config)
    student, params = initial_student(
        student, given.config, origin, start, recipe.seed, sample, recipe.t_conv, recipe.clipped
    )
    return run.as_begun(student), params


def _sample(examples: Examples, recipe: Recipe, config: BertConfig) -> Iterator[Batch]:
    """Batches of the text that a conversion looks at, drawn at random; none are made if it looks at nothing.

    A text is as likely as it is long: most texts of SST-2 to train on are phrases of a few words, those to evaluate on
    are sentences.
    """
    rng, lengths = Stream.CONVERSION_SAMPLE.rng(recipe.seed), examples.lengths
    size = min(SEQUENCES, len(examples))
    rows = rng.choice(len(examples), size, replace=False, p=lengths / lengths.sum())
    order = epoch_batches(lengths[rows], 32, [recipe.seed, Stream.CONVERSION_SAMPLE])
    return (examples.batch(rows[batch], config.pad_token_id) for batch in order)


def _general_student(run: str | os.PathLike, student: StudentConfig) -> tuple[StudentConfig, Params]:
    """Read a general student that is to become this one: constants of its populations, and all but its classifier."""
    config, params = load_student(run)
    found = config.to_dict()
    wanted = replace(student, classes=config.classes, populations=config.populations).to_dict()
    names = [*wanted, *(name for name in found if name not in wanted)]
    different = [f"{n} {found.get(n)} instead of {wanted.get(n)}" for n in names if found.get(n) != wanted.get(n)]
    if different:
        raise InputError(
            f"the general student in {run} has {', '.join(different)}; distil it again with the settings of the task"
        )
    student = replace(student, populations=config.populations)
    return student, {name: value for name, value in params.items() if not name.startswith("classifier.")}


def _runner(run: Run, recipe: Recipe, config: BertConfig, save_every: float, announce: Announce) -> RunStage:
    """Bind all that the stages of a run have in common."""

    def constrain(params: Params) -> None:
        if "feedback.weight" in params:
            params["feedback.weight"][:] = within_spectral_norm(params["feedback.weight"], recipe.feedback)

    def run_stage(stage: Stage, number: int, params: Params, text: Examples, objective: Objective) -> Params:
        announce(stage, text)
        seed = [recipe.seed, number]
        teaching = stage.name == "teacher"
        probability = recipe.dropout_teacher if teaching else recipe.dropout_student
        network = bert(config) if teaching else _student(recipe, config, 1).network
        if probability:
            objective = _with_dropout(objective, network, probability, seed)
        return train(run, stage, params, text, objective, seed, config.pad_token_id, save_every, constrain)

    return run_stage


def _with_dropout(objective: Objective, network: Network, probability: float, seed: Sequence[int]) -> Objective:
    """Draw masks for every batch, from the seed and the numbers of its examples: a resumed run draws the same."""

    def dropping(params: Params, batch: Batch, rows: Array):
        rng = np.random.default_rng([*seed, *rows.tolist()])
        return objective(params | dropout_masks(network, batch, probability, rng), batch, rows)

    return dropping


def _teacher(teacher: Any, seed: int, ready: bool) -> tuple[BertConfig, Params, Path]:
    if isinstance(teacher, tuple):
        config, folder = teacher
        shapes = teacher_shapes(config, 1)
        params = initial_parameters(shapes, Stream.UNTRAINED_TEACHER.rng(seed), config.initializer_range)
        return config, {name: value for name, value in params.items() if not name.startswith("classifier.")}, folder
    folder = bert_folder(teacher)
    return *load_bert(folder, classifier=ready), folder


def _teacher_objective(config: BertConfig, examples: Examples) -> Objective:
    def objective(params: Params, batch: Batch, rows: Array):
        logits, pullback = classify(config, params, batch)
        loss, loss_pullback = true_loss(logits, examples.labels[rows])
        return {"loss": loss}, pullback(loss_pullback(1.0)), {}

    return objective


def _trained(recipe: Recipe, student: StudentConfig) -> Network:
    """Return the network that is trained; quantised rates are rounded alike in every population.

    A membrane that starts at 0 cuts a rate of T steps off by half a spike on average; T' of `t_conv` steps, a
    fraction of T, would cut off so much more that the student would learn to make up for it.
    """
    if recipe.mode != "quantised":
        return student.network
    own = {name: {**constants, "u0": student.neuron.u0} for name, constants in student.populations.items()}
    return replace(student, populations=own).network


def _scheme(recipe: Recipe) -> Scheme:
    """Return where and how a recipe differentiates the rate map."""
    return Scheme(
        at="simulated" if recipe.mode in ("simulated", "few-steps") else "equilibrium",
        t_conv=recipe.t_conv if recipe.mode == "quantised" else None,
        search=Search(tolerance=TRAINING),
        solve=Solve(tolerance=TRAINING),
    )


def _simulated(recipe: Recipe, student: StudentConfig) -> Callable[[Params, Batch], Rates | None]:
    """Return what simulates the forward values of a batch, where a recipe wants that."""
    network, t_conv = student.network, recipe.t_conv
    if recipe.mode in ("equilibrium", "quantised"):
        return lambda params, batch: None
    return lambda params, batch: simulate(network, params, batch, t_conv, recipe.rule)[t_conv]


def _internal_objective(
    recipe: Recipe, student: StudentConfig, config: BertConfig, teacher: Params, pairs: list[int]
) -> Objective:
    network, simulated, scheme = _trained(recipe, student), _simulated(recipe, student), _scheme(recipe)

    def objective(params: Params, batch: Batch, rows: Array):
        target = encode(config, teacher, batch)
        hidden = [target.hidden[i] for i in pairs]
        scores = [target.scores[i - 1] for i in pairs[1:]]
        rates = simulated(params, batch)
        return internal_gradients(network, params, batch, hidden, scores, rates, scheme, recipe.attention_weight)

    return objective


#: How the names of parameters end that the internal stage leaves alone in the mode `few-steps`.
FROZEN = ("_embeddings.weight", "fit.weight", "fit.bias", ".threshold")


def _few_steps_objective(
    recipe: Recipe,
    student: StudentConfig,
    config: BertConfig,
    teacher: Params,
    pairs: list[int],
    examples: Examples,
) -> Objective:
    """Mean of the losses after T/2 and after T steps: hidden states, attention and answers, by simulated rates."""
    network, scheme = student.network, _scheme(recipe)
    times = sorted({max(recipe.t_conv // 2, 1), recipe.t_conv})
    soft = _learns_answers(recipe, student)

    def objective(params: Params, batch: Batch, rows: Array):
        target = encode(config, teacher, batch)
        hidden = [target.hidden[i] for i in pairs]
        scores = [target.scores[i - 1] for i in pairs[1:]]
        answers = _toward(recipe, examples.labels[rows], answered(teacher, target.hidden[-1])[0] if soft else None)
        losses: dict[str, Any] = {}
        gradients: Params = {}
        for rates in simulate(network, params, batch, times, recipe.rule).values():
            found, gradient, statistics = internal_gradients(
                network, params, batch, hidden, scores, rates, scheme, recipe.attention_weight, answers
            )
            for name, value in found.items():
                accumulate(losses, name, value / len(times))
            for name in gradient:
                if not name.endswith(FROZEN):
                    accumulate(gradients, name, gradient[name] / len(times))
        return losses, gradients, statistics

    return objective


def _learns_answers(recipe: Recipe, student: StudentConfig) -> bool:
    """Whether the teacher's answers are learnt, and not the true ones; a regression always learns the latter."""
    return recipe.targets == "soft" and student.classes > 1


def _toward(recipe: Recipe, labels: Array, target: Array | None) -> Loss:
    """Make the loss of class scores: against a teacher's, softly, or against the truth where there are none."""
    if target is not None and not np.isfinite(target).all():
        raise InputError("the teacher's class scores are not finite, so there is nothing to learn from")

    def loss(z: Array):
        if target is None:
            return true_loss(z, labels)
        value, pullback = ops.soft_cross_entropy(z, target, recipe.temperature)
        return value, lambda dvalue: pullback(dvalue)[0]

    return loss


def _prediction_objective(
    run: Run, recipe: Recipe, student: StudentConfig, config: BertConfig, teacher: Params, examples: Examples
) -> Objective:
    network, simulated, scheme = _trained(recipe, student), _simulated(recipe, student), _scheme(recipe)
    stage, target = recipe.stage("prediction"), None
    if _learns_answers(recipe, student) and stage.epochs and not finished(run, stage):
        target = predict_teacher(config, teacher, examples)  # once: the teacher does not change any more

    def objective(params: Params, batch: Batch, rows: Array):
        answers = _toward(recipe, examples.labels[rows], None if target is None else target[rows])
        return prediction_gradients(network, params, batch, answers, simulated(params, batch), scheme)

    return objective
