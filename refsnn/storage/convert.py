"""Conversion of models: BERTs, students of refsnn, and checkpoints of the authors' program, each into the others' form.

`docs/checkpoints.md` has the table of names and the commands.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ..data.tasks import TASKS, Task
from ..errors import InputError
from ..files import atomic, existing, folder_at_once, read_json, require
from ..model.neurons import Neuron
from ..model.parameters import Params, check_parameters, initial_parameters
from ..model.shapes import LARGEST
from ..model.student import StudentConfig
from ..ops import Array
from .checkpoints import (
    bert_config,
    bert_folder,
    bert_names,
    bert_shapes,
    load_student,
    read_weights,
    rows_of,
    save_description,
    save_model,
)
from .recipe import Stream
from .run import Run
from .torch_files import write_torch

__all__ = ["Format", "authors_names", "convert"]

#: What `convert` writes: a run's student, a checkpoint of the authors' task or general program, or a BERT.
Format = Literal["refsnn", "authors", "authors-general", "bert"]

#: Order of the classes in the authors' program, of the tasks where it is not that of `refsnn.data.tasks.TASKS`.
AUTHORS_LABELS = {"mnli": ("contradiction", "entailment", "neutral")}

#: What the authors' program computes with, whatever its `config.json` says.
AUTHORS_CONSTANTS = {"layer_norm_eps": 1e-12, "pad_token_id": 0}


def authors_names(encoders: int) -> dict[str, str]:
    """Parameter names of the authors' program, and ours.

    There the six populations of encoder e (from 0) are ``network_s{6e+1}`` … ``network_s{6e+6}``, the embedding is
    ``network_x`` and the feedback ``network_s{6·encoders+1}``.

    Parameters
    ----------
    encoders : int

    Returns
    -------
    names : dict
        Theirs -> ours.

    Examples
    --------
    >>> authors_names(4)["network_s9.query.bias"]
    'encoder.layer.1.attention.self.query.bias'
    """
    prefixes = {f"network_s{6 * encoders + 1}.fc": "feedback", "fit_dense": "fit", "classification": "classifier"}
    for part in ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm"):
        prefixes[f"network_x.{part}"] = f"embeddings.{part}"
    for e in range(encoders):
        ours = f"encoder.layer.{e}"
        prefixes |= {
            f"network_s{6 * e + 1}.dense": f"{ours}.attention.self.key",
            f"network_s{6 * e + 2}.dense": f"{ours}.attention.self.value",
            f"network_s{6 * e + 3}.query": f"{ours}.attention.self.query",
            f"network_s{6 * e + 4}.dense": f"{ours}.attention.output.dense",
            f"network_s{6 * e + 4}.LayerNorm": f"{ours}.attention.output.LayerNorm",
            f"network_s{6 * e + 5}.dense": f"{ours}.intermediate.dense",
            f"network_s{6 * e + 6}.dense": f"{ours}.output.dense",
            f"network_s{6 * e + 6}.LayerNorm": f"{ours}.output.LayerNorm",
        }
    names = {f"{a}.{kind}": f"{b}.{kind}" for a, b in prefixes.items() for kind in ("weight", "bias")}
    return {a: b for a, b in names.items() if not b.endswith(("embeddings.bias", "feedback.bias"))}  # there are none


def _aliases(name: str) -> list[str]:
    """All names under which a parameter stands in a state dict of the authors' program.

    There the populations' modules are attributes of the model and, again, items of a list in ``snn_func``; that is an
    attribute of the model and of ``snn_ide_conv``, and so is ``snn_func_copy``, a copy that the first step of training
    makes equal to it. Their loader insists on every name.
    """
    part, _, rest = name.partition(".")
    if not part.startswith("network_"):
        return [name]
    inner = f"network_x.{rest}" if part == "network_x" else f"network_s_list.{int(part[9:]) - 1}.{rest}"
    outer = ("snn_func", "snn_func_copy", "snn_ide_conv.snn_func", "snn_ide_conv.snn_func_copy")
    return [name, *(f"{holder}.{inner}" for holder in outer)]


def convert(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    to: Format,
    task: str | None = None,
    classes: int | None = None,
    vth: float | None = None,
    leak: float | None = None,
    feedback: bool = False,
    seed: int = 0,
) -> list[str]:
    """Convert a checkpoint into the folder of another program, or of this one.

    Parameters
    ----------
    source : path or str
        A run's student; a checkpoint of the authors' program, general or of a task, a folder or a file with its
        `config.json` beside it; or, to write a BERT, what `bert_folder` takes or such a file.
    destination : path
        A folder without a model.
    to : {"refsnn", "authors", "authors-general", "bert"}
    task : str, optional
        A key of `refsnn.data.tasks.TASKS`: fixes number and order of the classes, and lets the run be evaluated.
    classes : int, optional
        Of a head that is missing, where no task says it.
    vth, leak : float, optional
        Of a checkpoint of the authors' program, which does not hold them; 1 by default.
    feedback : bool
        Whether to keep that checkpoint's feedback matrix, which the released program does not use.
    seed : int
        For heads that are missing.

    Returns
    -------
    notes : list of str
        What was assumed, left out or made up; and what the other program has to be told.

    Raises
    ------
    InputError
        The source is not what the format asks for, options do not fit it, or something is there already.
    """
    with folder_at_once(destination) as folder:
        return _convert(Path(source), folder, to, task, classes, vth, leak, feedback, seed)


def _convert(
    source: Path,
    folder: Path,
    to: Format,
    task: str | None,
    classes: int | None,
    vth: float | None,
    leak: float | None,
    feedback: bool,
    seed: int,
) -> list[str]:
    """Convert into an empty folder."""
    if task is not None and task not in TASKS:
        raise InputError(f"the task is {task!r}, but refsnn knows {', '.join(TASKS)}")
    if classes is not None and not 1 <= classes <= LARGEST["hidden_size"]:
        raise InputError(f"the number of classes is {classes}, but it must be from 1 to {LARGEST['hidden_size']}")
    student_options = (classes, vth, leak, feedback) != (None, None, None, False)
    if to == "bert":
        if task is not None or student_options:
            raise InputError("a BERT is converted as it is; leave out what concerns students, tasks and classes")
        return _convert_bert(source, folder)

    home = source.parent if source.is_file() else existing(source, "the checkpoint")
    if not (home / "config.json").exists():
        raise InputError(f"{home} has no config.json; the authors' program saves none, so copy the one it was given")
    notes: list[str] = []
    if read_json(home / "config.json").get("model_type") == "spiking_bert":
        if student_options or to == "refsnn":
            raise InputError(f"{home} is a run of refsnn, whose student is converted as it is, with `to` authors")
        config, params = load_student(home)
        known = TASKS[task] if task else Run(home).task if Run(home).exists else None
        order = _class_order(known, config.classes)
    else:
        if vth is None or leak is None:
            notes.append("threshold and leak, which the file does not hold, are taken to be 1 unless given")
        neuron = Neuron(1.0 if vth is None else vth, 1.0 if leak is None else leak)
        known = TASKS[task] if task else None
        config, params = _from_authors(source, home, known.outputs if known else classes, neuron, feedback, seed, notes)
        order = _class_order(known, config.classes)
        params = _reordered(params, order)
    if known is not None and len(known.sentences) == 2 and config.bert.type_vocab_size < 2:
        raise InputError(
            f"type_vocab_size of {home} is 1, but the second text of a pair of {known.name} has the type 1"
        )
    if to == "refsnn":
        if task is None:
            notes.append("without `task` it is not known what the classes are, so `refsnn evaluate` will not work")
        else:
            recipe = {"task": task, "encoders": config.bert.num_hidden_layers, "max_length": None}
            Run(folder).begin({"recipe": recipe, "converted": str(source)})
        save_model(folder, config.to_dict(), params, home)
        return notes
    state = _to_authors(config, _reordered(params, np.argsort(order)), to == "authors-general", seed, notes)
    write_torch(folder / "pytorch_model.bin", state)
    save_description(folder, config.bert.to_dict(), home)
    if not (folder / "vocab.txt").exists():
        notes.append("their tokenizer needs a vocab.txt, and there was none to copy")
    return notes


def _convert_bert(source: Path, folder: Path) -> list[str]:
    """Write a BERT, with whatever heads it has, for Hugging Face's programs and the authors'."""
    source = source if source.is_file() else bert_folder(source)
    home = source.parent if source.is_file() else source
    config, values = bert_config(home / "config.json")
    path, tensors = read_weights(source)
    found = bert_names(path, tensors)
    params = check_parameters(found, bert_shapes(path, config, found), path)
    values |= {"model_type": "bert", "architectures": ["BertModel"]}
    if "classifier.weight" in params:
        values |= {"architectures": ["BertForSequenceClassification"], "num_labels": len(params["classifier.weight"])}
    theirs = {name if name.startswith("classifier.") else f"bert.{name}": value for name, value in params.items()}
    # Older versions of transformers insist on this key.
    contents = {name: np.ascontiguousarray(value) for name, value in theirs.items()}
    contents = require("safetensors.numpy").save(contents, {"format": "pt"})
    with atomic(folder / "model.safetensors") as temporary:
        temporary.write_bytes(contents)
    write_torch(folder / "pytorch_model.bin", theirs)
    save_description(folder, values, home)
    return []


def _class_order(task: Task | None, classes: int) -> list[int]:
    """Place of each of our classes among those of the authors' program."""
    if task is None:
        return list(range(classes))
    if task.outputs != classes:
        raise InputError(f"the student tells {classes} classes apart, but {task.name} has {task.outputs}")
    theirs = AUTHORS_LABELS.get(task.name)
    return [theirs.index(label) for label in task.labels] if theirs else list(range(classes))


def _reordered(params: Params, order: Sequence[int] | Array) -> Params:
    return params | {name: params[name][order] for name in ("classifier.weight", "classifier.bias")}


def _from_authors(
    source: Path, home: Path, classes: int | None, neuron: Neuron, feedback: bool, seed: int, notes: list[str]
) -> tuple[StudentConfig, Params]:
    """Read a checkpoint of the authors' program; its classes stay in their order."""
    path, tensors = read_weights(source)
    tensors = {name.removeprefix("module."): value for name, value in tensors.items()}  # of DataParallel
    encoders = sum(re.fullmatch(r"network_s\d+\.query\.weight", name) is not None for name in tensors)
    if not encoders:
        raise InputError(
            f"{path} has no parameter network_s3.query.weight, so it is no student of the authors' program, "
            "and config.json says that it is none of refsnn's; a BERT is converted with `to` bert"
        )
    ours = authors_names(encoders)
    bert, _ = bert_config(home / "config.json", AUTHORS_CONSTANTS | {"num_hidden_layers": encoders})
    head = "classification.weight" in tensors
    if not head and classes is None:
        raise InputError(
            f"{path} comes from general distillation and has no classification head; "
            "say with `task` or `classes` which one it should have"
        )
    classes = rows_of(tensors, "classification.weight") if head else classes
    if "fit_dense.weight" not in tensors:
        raise InputError(f"{path} lacks the parameter fit_dense.weight; it holds {len(tensors)} others")
    config = StudentConfig(bert, rows_of(tensors, "fit_dense.weight"), classes or 0, neuron, feedback)
    shapes = {theirs: config.shapes[name] for theirs, name in ours.items() if name in config.shapes}
    made = {} if head else {name: shapes.pop(name) for name in ("classification.weight", "classification.bias")}
    params = {ours[name]: value for name, value in check_parameters(tensors, shapes, path).items()}
    if made:
        rng, dtype = Stream.MISSING_CLASSIFIER.rng(seed), params["fit.weight"].dtype
        made = {ours[name]: shape for name, shape in made.items()}
        params |= initial_parameters(made, rng, bert.initializer_range, dtype)
        notes.append(f"there was no classification head: one of {classes} classes was made with the seed {seed}")
    if "pooler_layer.dense.weight" in tensors:
        notes.append("pooler_layer, which their program does not use, was left out")
    if not feedback:
        notes.append("the feedback matrix, which the released program does not use, was left out; `feedback` keeps it")
    return config, {name: params[name] for name in config.shapes}


def _to_authors(config: StudentConfig, params: Params, general: bool, seed: int, notes: list[str]) -> dict[str, Array]:
    """Build the state dict that the authors' loader wants: exactly its names, each under every alias."""
    bert, neuron, dtype = config.bert, config.neuron, params["fit.weight"].dtype
    encoders, width = bert.num_hidden_layers, bert.hidden_size
    if not config.feedback:
        params = params | {"feedback.weight": np.zeros((width, width), dtype)}
    state = {theirs: params[ours] for theirs, ours in authors_names(encoders).items() if ours in params}
    if general:
        state = {name: value for name, value in state.items() if not name.startswith("classification.")}
    else:
        pooler = {"pooler_layer.dense.weight": (width, width), "pooler_layer.dense.bias": (width,)}
        state |= initial_parameters(pooler, Stream.AUTHORS_POOLER.rng(seed), bert.initializer_range, dtype)
    other = [f"{name} = {value:g}" for name, value in AUTHORS_CONSTANTS.items() if getattr(bert, name) != value]
    own = {name for constants in config.populations.values() for name in constants}
    differences = [
        (neuron.vth != 1, f"the file does not hold the threshold: call their program with --vth {neuron.vth:g}"),
        ("vth" in own, "their populations share one threshold, some of this student's have their own"),
        (neuron.leak != 1, f"the file does not hold the leak: set self.leaky = {neuron.leak:g} in their model"),
        (neuron.u0 != 0, f"their membranes start at 0, this student's at {neuron.u0:g} of the threshold"),
        ("u0" in own, "their membranes share one initial potential, some of this student's do not"),
        (any(p.neuron and p.neuron.signed for p in config.network.populations), "their spikes are 0 and 1, never −1"),
        (config.per_feature, "their residuals have no synapses, and neurons no thresholds, of single features"),
        (config.feedback, "their released program has the feedback commented out"),
        (config.teacher_width != width, f"their fit_dense is {width} wide, this student's {config.teacher_width}"),
        (encoders not in (2, 4), f"their models have 2 or 4 encoders, this student has {encoders}"),
        (bool(other), f"their program computes with {' and '.join(other)}, this student does not"),
    ]
    notes += [note for differs, note in differences if differs]
    return {alias: value for name, value in state.items() for alias in _aliases(name)}
