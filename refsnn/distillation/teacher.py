"""BERT, the teacher: the populations of `refsnn.model.network` as analogue units, with a pooler and a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import ops
from ..data.tasks import Task
from ..errors import InputError
from ..model.batch import Batch
from ..model.families import bert
from ..model.network import Network, first_position
from ..model.parameters import Gradients, Params
from ..model.shapes import BertConfig
from ..ops import Array
from ..readings.rate_map import Rates, rate_map, scores
from ..storage.checkpoints import class_names, in_order

__all__ = [
    "Encoding",
    "answered",
    "classify",
    "encode",
    "encoded",
    "ready_head",
]


@dataclass(frozen=True)
class Encoding:
    """What distillation reads off the teacher.

    Attributes
    ----------
    hidden : list of M + 1 arrays (B, N, D)
        The embeddings and the output of each encoder.
    scores : list of M arrays (B, heads, N, N)
        Raw attention scores, before the softmax, mask included.
    """

    hidden: list[Array]
    scores: list[Array]


def encoded(network: Network, params: Mapping[str, Array], batch: Batch) -> tuple[Rates, Encoding]:
    """Activities of an ordinary network, and what distillation reads off them.

    Parameters
    ----------
    network : Network
        Of analogue units.
    params : mapping
    batch : Batch

    Returns
    -------
    activities : dict
    encoding : Encoding
    """
    activities, _ = rate_map(network, params, batch)
    observed, _ = scores(network, params, activities, batch)
    return activities, Encoding([activities[name] for name in network.readouts], observed)


def encode(config: BertConfig, params: Mapping[str, Array], batch: Batch) -> Encoding:
    """Hidden states and attention scores of BERT.

    Parameters
    ----------
    config : BertConfig
    params : mapping
    batch : Batch

    Returns
    -------
    encoding : Encoding
    """
    return encoded(bert(config), params, batch)[1]


def ready_head(folder: Path, params: Mapping[str, Array], task: Task) -> Params:
    """Take over the classifier of a BERT that was fine-tuned before, its classes in a task's order.

    Parameters
    ----------
    folder : Path
        The BERT's, with `config.json`.
    params : mapping
        As from `refsnn.storage.checkpoints.load_bert` with its classifier.
    task : Task

    Returns
    -------
    head : dict
        Weight and bias of the classifier.

    Raises
    ------
    InputError
        It has another number of classes than the task, other names for them, or no pooler.
    """
    path, classes = folder / "config.json", len(params["classifier.bias"])
    if classes != task.outputs:
        raise InputError(
            f"the classifier of the teacher {folder} has {classes} outputs, but {task.name} takes {task.outputs}; "
            "let the teacher learn the task (`epochs_teacher`), or give another"
        )
    if "pooler.dense.weight" not in params:
        raise InputError(f"the teacher {folder} has a classifier but no pooler, which BERT has between the two")
    order = in_order(path, class_names(path, classes), task)
    return {name: params[name][order] for name in ("classifier.weight", "classifier.bias")}


def answered(params: Mapping[str, Array], last: Array) -> tuple[Array, Callable[[Array], tuple[Array, Params]]]:
    """Class scores from the last hidden states: ``z = W_c tanh(W_p h_[CLS] + b_p) + b_c``.

    Parameters
    ----------
    params : mapping
        With pooler and classifier.
    last : (B, N, d) array

    Returns
    -------
    logits : (B, classes) array
    pullback : callable
        ``pullback(dlogits) -> dlast, dparams``.

    Examples
    --------
    >>> eye, zero = np.eye(2), np.zeros(2)
    >>> params = {f"{name}.{part}": value for name in ("pooler.dense", "classifier")
    ...           for part, value in (("weight", eye), ("bias", zero))}
    >>> answered(params, np.array([[[0.0, 1.0], [9.0, 9.0]]]))[0].round(3)
    array([[0.   , 0.762]])
    """
    pooled, pooler_pullback = ops.linear(last[:, 0], params["pooler.dense.weight"], params["pooler.dense.bias"])
    active, tanh_pullback = ops.tanh(pooled)
    logits, classifier_pullback = ops.linear(active, params["classifier.weight"], params["classifier.bias"])

    def pullback(dlogits: Array) -> tuple[Array, Params]:
        dactive, dclassifier, dclassifier_bias = classifier_pullback(dlogits)
        dcls, dpooler, dpooler_bias = pooler_pullback(tanh_pullback(dactive))
        dlast = np.zeros_like(last)
        dlast[:, 0] = dcls
        return dlast, {
            "pooler.dense.weight": dpooler,
            "pooler.dense.bias": dpooler_bias,
            "classifier.weight": dclassifier,
            "classifier.bias": dclassifier_bias,
        }

    return logits, pullback


def classify(
    config: BertConfig, params: Mapping[str, Array], batch: Batch
) -> tuple[Array, Callable[[Array], Gradients]]:
    """Class scores of a batch: `answered` of BERT's last hidden states.

    Parameters
    ----------
    config : BertConfig
    params : mapping
    batch : Batch

    Returns
    -------
    logits : (B, classes) array
    pullback : callable
        ``pullback(dlogits) -> dparams``, through the whole encoder.
    """
    network = first_position(bert(config))
    activities, encoder_pullback = rate_map(network, params, batch)
    last = network.readouts[-1]
    logits, head_pullback = answered(params, activities[last])

    def pullback(dlogits: Array) -> Gradients:
        dlast, dhead = head_pullback(dlogits)
        return encoder_pullback({last: dlast}) | dhead

    return logits, pullback
