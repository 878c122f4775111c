"""The student's heads and the losses that compare it with its teacher.

Forward values may come from the simulation or from the rate map; the losses do not care. Their pullbacks return the
cotangents of the read-outs and of the attention scores; the caller sends those through the equilibrium.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from . import ops
from .config import BertConfig
from .errors import InputError
from .network import Params, accumulate, network_shapes
from .ops import Array

__all__ = ["internal_loss", "layer_pairs", "logits", "student_shapes"]

#: Attention scores at or below this count as masked, and as 0 in the loss, on both sides.
MASKED_SCORE = -100.0


def student_shapes(
    config: BertConfig, teacher_width: int, classes: int, feedback: bool = False
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters of a student: the network, the map `fit` to the teacher's width, a classifier.

    Parameters
    ----------
    config : BertConfig
    teacher_width : int
    classes : int
        1 for regression.
    feedback : bool

    Returns
    -------
    shapes : dict
    """
    d = config.hidden_size
    return network_shapes(config, feedback) | {
        "fit.weight": (teacher_width, d),
        "fit.bias": (teacher_width,),
        "classifier.weight": (classes, d),
        "classifier.bias": (classes,),
    }


def layer_pairs(student_layers: int, teacher_layers: int) -> list[int]:
    """Teacher layer compared with each student read-out i = 0…N: ``i·M/N``.

    Parameters
    ----------
    student_layers, teacher_layers : int
        N and M; N divides M.

    Returns
    -------
    layers : list of N + 1 ints

    Examples
    --------
    >>> layer_pairs(2, 6)
    [0, 3, 6]
    """
    if teacher_layers % student_layers:
        raise InputError(
            f"the student has {student_layers} encoders and the teacher {teacher_layers}, but the student's number "
            f"must divide the teacher's: try {[n for n in range(1, teacher_layers + 1) if teacher_layers % n == 0]}"
        )
    return [i * teacher_layers // student_layers for i in range(student_layers + 1)]


def internal_loss(
    params: Mapping[str, Array],
    readouts: Sequence[Array],
    scores: Sequence[Array],
    teacher_hidden: Sequence[Array],
    teacher_scores: Sequence[Array],
) -> tuple[dict[str, Array], Callable[[float], tuple[list[Array], list[Array], Params]]]:
    """Hidden-state and attention losses of internal distillation.

    ``hidden = Σ_i MSE(fit(a_i), h_i)`` over all positions, padding included, and ``attention = Σ_e MSE(S_e, S'_e)``
    with scores ≤ −100 set to 0 on both sides. The loss is their sum.

    Parameters
    ----------
    params : mapping
        Holds ``fit.weight`` and ``fit.bias``.
    readouts : N + 1 arrays (B, N, D)
        Rates of the embedding population and of the output of each encoder.
    scores : N arrays (B, heads, N, N)
        Raw attention scores.
    teacher_hidden, teacher_scores
        What they are compared with, in the same order.

    Returns
    -------
    losses : dict
        ``"hidden"`` and ``"attention"``, scalars.
    pullback : callable
        ``pullback(dloss) -> (dreadouts, dscores, dparams)`` of the sum.
    """
    weight, bias = params["fit.weight"], params["fit.bias"]
    hidden = []
    for readout, target in zip(readouts, teacher_hidden, strict=True):
        fitted, fit_pullback = ops.linear(readout, weight, bias)
        hidden.append((*ops.mse(fitted, target), fit_pullback))
    attention = []
    for score, target in zip(scores, teacher_scores, strict=True):
        seen = score.real > MASKED_SCORE
        attention.append((*ops.mse(np.where(seen, score, 0), np.where(target > MASKED_SCORE, target, 0)), seen))

    def pullback(dloss: float) -> tuple[list[Array], list[Array], Params]:
        dreadouts: list[Array] = []
        dparams: Params = {}
        for _, mse_pullback, fit_pullback in hidden:
            dreadout, dweight, dbias = fit_pullback(mse_pullback(dloss)[0])
            dreadouts.append(dreadout)
            accumulate(dparams, "fit.weight", dweight)
            accumulate(dparams, "fit.bias", dbias)
        return dreadouts, [mse_pullback(dloss)[0] * seen for _, mse_pullback, seen in attention], dparams

    losses = {
        name: np.sum([loss for loss, *_ in terms]) for name, terms in (("hidden", hidden), ("attention", attention))
    }
    return losses, pullback


def logits(params: Mapping[str, Array], readout: Array) -> tuple[Array, Callable[[Array], tuple[Array, Params]]]:
    """Class scores of the student: ``z = W_c·relu(a_[CLS]) + b_c``, a linear map of the last encoder's [CLS] rates.

    Parameters
    ----------
    params : mapping
        Holds ``classifier.weight`` and ``classifier.bias``.
    readout : (B, N, D) array

    Returns
    -------
    logits : (B, classes) array
    pullback : callable
        ``pullback(dlogits) -> (dreadout, dparams)``. ReLU passes nothing where a rate is exactly 0.
    """
    active, relu_pullback = ops.relu(readout[:, 0])
    z, linear_pullback = ops.linear(active, params["classifier.weight"], params["classifier.bias"])

    def pullback(dz: Array) -> tuple[Array, Params]:
        dactive, dweight, dbias = linear_pullback(dz)
        dreadout = np.zeros_like(readout)
        dreadout[:, 0] = relu_pullback(dactive)
        return dreadout, {"classifier.weight": dweight, "classifier.bias": dbias}

    return z, pullback
