"""Checkpoints: parameters in and out, under Hugging Face's names, ours, and those of the authors' program.

`docs/checkpoints.md` is the user's guide to this module.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._version import __version__
from ..data.tasks import Task
from ..data.tokenizer import TOKENIZER
from ..errors import InputError
from ..files import atomic, existing, load_tensors, read_json, require, save_tensors, write_json
from ..model.parameters import Params, check_parameters
from ..model.shapes import BertConfig, check_architecture, head_shapes, network_shapes, teacher_shapes
from ..model.student import StudentConfig
from ..ops import Array
from .torch_files import read_torch

__all__ = [
    "bert_folder",
    "class_names",
    "holds_bert",
    "in_order",
    "load_bert",
    "load_student",
    "load_teacher",
    "read_weights",
    "save_model",
]

#: Files that hold a model's weights; the first that a folder has is read.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def read_weights(source: str | os.PathLike) -> tuple[Path, dict[str, Array]]:
    """Read every tensor of a checkpoint.

    Parameters
    ----------
    source : path
        A file of safetensors or PyTorch; the index of several (``….index.json``); or a folder with one of `WEIGHTS`.

    Returns
    -------
    path : Path
        The file that was read.
    tensors : dict
        Half precision floats became float32. The arrays may be read-only.

    Raises
    ------
    InputError
        There is no such file, or it is damaged. No file is ever unpickled.
    """
    path = existing(source, "the checkpoint")
    if path.is_dir():
        found = [name for name in WEIGHTS if (path / name).exists()]
        if not found:
            raise InputError(f"{path} holds no weights; a file {WEIGHTS[0]} or {WEIGHTS[2]} was expected in it")
        path = path / found[0]
    return path, _read_shards(path) if path.suffix == ".json" else _read_file(path)


def _read_file(path: Path) -> dict[str, Array]:
    return load_tensors(path)[0] if path.suffix == ".safetensors" else read_torch(path)


def _read_shards(index: Path) -> dict[str, Array]:
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise InputError(f"{index} is not the index of a checkpoint: it has no weight_map of names and files")
    shards = {}
    for file in dict.fromkeys(map(str, files.values())):
        if not re.fullmatch(r"[\w.-]+\.(safetensors|bin)", file):
            raise InputError(f"{index} names {file!r}, but a file .safetensors or .bin of its own folder was expected")
        shards[file] = _read_file(index.parent / file)
    missing = [name for name, file in files.items() if name not in shards[str(file)]]
    if missing:
        raise InputError(f"{index} says that {files[missing[0]]} holds {missing[0]}, which it does not")
    return {name: shards[str(file)][name] for name, file in files.items()}


def bert_folder(name: str | os.PathLike) -> Path:
    """Find the folder of a BERT, fetching it from the Hugging Face hub if there is none of that name.

    Parameters
    ----------
    name : path or str
        A folder; or the id of a model on the hub, such as ``google/bert_uncased_L-2_H-128_A-2``.

    Returns
    -------
    folder : Path
        With configuration, weights and vocabulary; what came from the hub stays in its cache.

    Raises
    ------
    InputError
        There is no such folder, and no such model that could be fetched.
    """
    if Path(name).exists() or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", str(name)):
        return existing(name, "the teacher")
    fetch = require("huggingface_hub").snapshot_download
    try:
        for weights in ("model*.safetensors*", "pytorch_model*.bin*"):  # the second only where the first are not
            folder = Path(fetch(str(name), allow_patterns=["config.json", *TOKENIZER, weights]))
            if any((folder / file).exists() for file in WEIGHTS):
                break
    except Exception as error:  # of any of the libraries that the hub's client is made of
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(
            f"the teacher {name} is neither a folder nor could it be fetched from the hub ({reason}); "
            "give a folder with config.json, model.safetensors and vocab.txt"
        ) from None
    return folder


def bert_config(path: Path, changes: Mapping[str, Any] | None = None) -> tuple[BertConfig, dict[str, Any]]:
    """Read a BERT's `config.json`: what of it we compute with, and everything."""
    values = read_json(path)
    if values.get("model_type") == "spiking_bert":
        home = path.parent
        raise InputError(f"{home} is a run's student, which is no BERT; its teacher is in {home / 'teacher'}")
    try:
        check_architecture(values)
        return BertConfig.from_dict({**values, **(changes or {})}), values
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def bert_names(path: Path, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Rename a BERT's parameters to our names: without a prefix, and LayerNorm's not as TensorFlow calls them."""
    found: dict[str, Array] = {}
    for name, value in tensors.items():
        ours = re.sub(r"^(module\.)?(bert\.)?", "", name)
        ours = ours.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if ours in found:
            raise InputError(f"{path} holds {ours} twice, under names that mean the same; which one counts is unclear")
        found[ours] = value
    return found


#: Numbers in a checkpoint that are no parameters: 0, 1, 2, …, and zeros.
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


def bert_shapes(path: Path, config: BertConfig, found: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Wanted parameters of a BERT: embeddings, encoders, and the heads that there are.

    Others in its embeddings or encoders (task ids, entities, cross-attention, more layers) would change what it
    computes: it is another model than `config.json` says.
    """
    shapes = network_shapes(config)
    body = (name for name in found if name.startswith(("embeddings.", "encoder.")) and name not in BUFFERS)
    if other := next((name for name in body if name not in shapes), None):
        raise InputError(
            f"{path} holds {other}, which a BERT of {config.num_hidden_layers} layers does not have; "
            "config.json describes another model than the weights are of"
        )
    heads = head_shapes(config, rows_of(found, "classifier.weight")).items()
    return shapes | {n: shape for n, shape in heads if f"{n.rpartition('.')[0]}.weight" in found}


def rows_of(tensors: Mapping[str, Array], name: str) -> int:
    return len(np.atleast_1d(tensors.get(name, ())))


def load_bert(
    folder: str | os.PathLike, dtype: np.dtype | type = np.float32, classifier: bool = False
) -> tuple[BertConfig, Params]:
    """Read a BERT encoder in Hugging Face's layout: `config.json` and weights.

    Parameters
    ----------
    folder : path or str
        See `bert_folder`, and `read_weights` for the files. Parameter names may or may not begin with ``bert.``, and
        LayerNorm's may be the older ``gamma`` and ``beta``. Heads of pretraining are left out.
    dtype : dtype
    classifier : bool
        Whether to keep a classifier, if there is one.

    Returns
    -------
    config : BertConfig
    params : dict
        Embeddings and encoders, and the pooler where there is one.

    Raises
    ------
    InputError
        A file is missing or malformed, or the parameters do not fit the configuration.
    """
    folder = bert_folder(folder)
    config, _ = bert_config(folder / "config.json")
    path, tensors = read_weights(folder)
    found = bert_names(path, tensors)
    if not classifier:
        found = {name: value for name, value in found.items() if not name.startswith("classifier.")}
    params = check_parameters(found, bert_shapes(path, config, found), path)
    return config, {name: value.astype(dtype) for name, value in params.items()}


def load_teacher(folder: str | os.PathLike) -> tuple[BertConfig, Params]:
    """Read a fine-tuned BERT, such as the teacher of a run.

    Parameters
    ----------
    folder : path
        As `load_bert` reads it, with pooler and classifier.

    Returns
    -------
    config : BertConfig
    params : dict
        With pooler and classifier.
    """
    folder = existing(folder, "the fine-tuned teacher")
    config, _ = bert_config(folder / "config.json")
    path, tensors = read_weights(folder)
    found = bert_names(path, tensors)
    if "classifier.weight" not in found:
        raise InputError(f"{path} has no classifier; a BERT that was fine-tuned for classes or scores has one")
    class_names(folder / "config.json", rows_of(found, "classifier.weight"))
    bert_shapes(path, config, found)
    return config, check_parameters(found, teacher_shapes(config, rows_of(found, "classifier.weight")), path)


def holds_bert(folder: str | os.PathLike) -> bool:
    """Whether a folder is a checkpoint of something else than a student.

    Parameters
    ----------
    folder : path

    Returns
    -------
    holds : bool
    """
    config = Path(folder) / "config.json"
    return config.exists() and read_json(config).get("model_type") != "spiking_bert"


def class_names(path: Path, classes: int) -> tuple[str, ...]:
    """Names of a classifier's classes, as ``id2label`` of a `config.json` has them.

    Parameters
    ----------
    path : Path
        The `config.json`.
    classes : int
        Rows of the classifier.

    Returns
    -------
    names : tuple of str
        In the order of the rows; empty where there are none, or where they say nothing (``LABEL_0``, ``LABEL_1``, …).

    Raises
    ------
    InputError
        There are more or fewer names than classes, two are the same, or the classifier does something else than choose
        one of its classes.
    """
    values = read_json(path)
    if values.get("problem_type") == "multi_label_classification":
        raise InputError(f"{path}: problem_type is {values['problem_type']!r}, but refsnn chooses one class of several")
    named = values.get("id2label") or {}
    keys = [str(i) for i in range(classes)]
    if not isinstance(named, dict) or (named and sorted(named) != sorted(keys)):
        raise InputError(f"{path}: id2label does not name the classes 0 to {classes - 1}, which the classifier has")
    if named and len(set(map(str, named.values()))) < classes:
        raise InputError(f"{path}: id2label names two classes alike")
    names = tuple(str(named[key]) for key in keys) if named else ()
    return () if classes == 1 or names == tuple(f"LABEL_{key}" for key in keys) else names


def in_order(path: Path, names: Sequence[str], task: Task) -> list[int]:
    """Places of a task's classes among those of a classifier.

    Parameters
    ----------
    path : Path
        For messages.
    names : sequence of str
        Of the classifier's classes, as from `class_names`; without names, they are in the task's order.
    task : Task

    Returns
    -------
    places : list of int

    Raises
    ------
    InputError
        The names are not the task's.
    """
    if not names:
        return list(range(task.outputs))

    def plain(name: str) -> str:
        return re.sub(r"[\s_-]+", "_", name.strip()).casefold()

    given = [plain(name) for name in names]
    for wanted in ([plain(name) for name in known] for known in (task.labels, task.names)):
        if sorted(wanted) == sorted(given):
            return [given.index(name) for name in wanted]
    raise InputError(
        f"{path}: the classes are called {', '.join(names)}, but those of {task.name} are "
        f"{', '.join(task.names or task.labels)}; name them so in id2label, in the order that the classifier has them"
    )


def load_student(folder: str | os.PathLike) -> tuple[StudentConfig, Params]:
    """Read a student, such as that of a finished run.

    Parameters
    ----------
    folder : path
        With `config.json` and `model.safetensors`.

    Returns
    -------
    config : StudentConfig
    params : dict

    Raises
    ------
    InputError
        The folder holds no student, or a file of it is damaged.
    """
    folder = existing(folder, "the student's folder")
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} holds no finished student; run `refsnn distill … --out {folder}` to its end first")
    config = StudentConfig.from_dict(read_json(folder / "config.json"), folder / "config.json")
    if not config.classes or not config.teacher_width:
        raise InputError(f"{folder / 'config.json'} is not a student's: it lacks teacher_width or classes")
    path = folder / "model.safetensors"
    return config, check_parameters(load_tensors(path)[0], config.shapes, path)


def save_model(folder: Path, config: Mapping[str, Any], params: Mapping[str, Array], tokenizer: Path) -> None:
    """Write a model's folder: `model.safetensors`, its tokenizer's files and, at last, `config.json`.

    Parameters
    ----------
    folder : Path
    config : mapping
    params : mapping
    tokenizer : Path
        Folder to copy the tokenizer's files from.
    """
    folder.mkdir(exist_ok=True)
    save_tensors(folder / "model.safetensors", params, {"refsnn": __version__})
    save_description(folder, config, tokenizer)


def save_description(folder: Path, config: Mapping[str, Any], tokenizer: Path) -> None:
    for name in TOKENIZER:
        if (tokenizer / name).exists():
            with atomic(folder / name) as temporary:
                shutil.copyfile(tokenizer / name, temporary)
    write_json(folder / "config.json", config)
