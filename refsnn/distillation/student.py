"""The student: its configuration, its heads, the losses that compare it with its teacher, and their gradients.

A read-out's forward value is the equilibrium's or, as in the authors' program, the simulated average spiking rate. Its
cotangent goes back through the rate map in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from .. import ops
from ..errors import InputError, one_of
from ..model.batch import Batch
from ..model.network import INPUT, Network
from ..model.parameters import Gradients, Params, accumulate
from ..ops import Array
from ..readings.adjoint import Solve
from ..readings.equilibrium import Search, equilibrium
from ..readings.implicit import adjoint
from ..readings.rate_map import Linearisation, Rates, sweep
from ..readings.rate_map import scores as attention_scores

__all__ = [
    "Direct",
    "Scheme",
    "internal_direct",
    "internal_gradients",
    "internal_loss",
    "layer_pairs",
    "logits",
    "prediction_direct",
    "prediction_gradients",
    "through",
    "true_loss",
]

#: ``loss(logits) -> (value, pullback)``.
Loss = Callable[[Array], tuple[Array, Callable[[float], Array]]]

#: Where the rate map is differentiated.
Linearise = Literal["equilibrium", "simulated"]

#: Attention scores at or below this count as masked, and as 0 in the loss, on both sides.
MASKED_SCORE = -100.0


@dataclass(frozen=True)
class Scheme:
    """Where the rate map is differentiated, and how.

    Attributes
    ----------
    at : {"equilibrium", "simulated"}
        Where the rate map is differentiated, and where attention scores are read: at its equilibrium, as the authors'
        program does even with simulated forward values, or at the simulated rates.
    edge_derivative : float
        See `refsnn.ops.clip`.
    t_conv : int, optional
        Steps that the equilibrium's rates are quantised for; see `refsnn.model.neurons.rate`.
    search, solve
        How the equilibrium and the adjoint state are found, in networks with feedback.
    """

    at: Linearise = "equilibrium"
    edge_derivative: float = 0.0
    t_conv: int | None = None
    search: Search = field(default_factory=Search)
    solve: Solve = field(default_factory=Solve)

    def __post_init__(self) -> None:
        one_of("at", self.at, get_args(Linearise))


@dataclass(frozen=True)
class Direct:
    """How a loss depends directly on rates and heads, before anything goes back through the network.

    Attributes
    ----------
    losses : dict
    drates : dict
        Population -> g, the cotangent of its rate: of the read-outs and of what attention scores are made of.
    gradients : dict
        Of the parameters outside the rate map: heads, `fit`, and what scores take of the query.
    rates : dict
        Where everything is differentiated.
    linearisation : Linearisation
        Of the rate map there, for ``(I − Jᵀ) λ = g``.
    statistics : dict
        Of the forward search.
    """

    losses: dict[str, Array]
    drates: Rates
    gradients: Params
    rates: Rates
    linearisation: Linearisation
    statistics: dict[str, float]


def layer_pairs(student_layers: int, teacher_layers: int) -> list[int]:
    """Teacher layer compared with each student read-out i = 0…N: ``i·M/N``.

    Parameters
    ----------
    student_layers, teacher_layers : int
        N and M; N divides M.

    Returns
    -------
    layers : list of N + 1 ints

    Raises
    ------
    InputError
        N does not divide M.

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
    attention_weight: float = 1.0,
) -> tuple[dict[str, Array], Callable[[float], tuple[list[Array], list[Array], Params]]]:
    """Hidden-state and attention losses of internal distillation.

    ``hidden = Σ_i MSE(fit(a_i), h_i)`` over all positions, padding included, and ``attention = Σ_e MSE(S_e, S'_e)``
    with scores ≤ −100 set to 0 on both sides. The loss is their sum, the second weighted by `attention_weight`.

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
    attention_weight : float

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
        return (
            dreadouts,
            [mse_pullback(dloss * attention_weight)[0] * seen for _, mse_pullback, seen in attention],
            dparams,
        )

    losses = {
        name: np.sum([loss for loss, *_ in terms]) for name, terms in (("hidden", hidden), ("attention", attention))
    }
    return losses, pullback


def logits(
    params: Mapping[str, Array], readout: Array, rectified: bool = True
) -> tuple[Array, Callable[[Array], tuple[Array, Params]]]:
    """Class scores of the student: ``z = W_c·relu(a_[CLS]) + b_c``, a linear map of the last encoder's [CLS] rates.

    Parameters
    ----------
    params : mapping
        Holds ``classifier.weight`` and ``classifier.bias``.
    readout : (B, N, D) array
    rectified : bool
        Whether there is the ReLU; see `refsnn.model.network.Network.rectified`.

    Returns
    -------
    logits : (B, classes) array
    pullback : callable
        ``pullback(dlogits) -> (dreadout, dparams)``. ReLU passes nothing where a rate is exactly 0.
    """
    active, relu_pullback = ops.relu(readout[:, 0]) if rectified else (readout[:, 0], lambda dy: dy)
    z, linear_pullback = ops.linear(active, params["classifier.weight"], params["classifier.bias"])

    def pullback(dz: Array) -> tuple[Array, Params]:
        dactive, dweight, dbias = linear_pullback(dz)
        dreadout = np.zeros_like(readout)
        dreadout[:, 0] = relu_pullback(dactive)
        return dreadout, {"classifier.weight": dweight, "classifier.bias": dbias}

    return z, pullback


def _linearise(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    simulated: Rates | None,
    scheme: Scheme,
) -> tuple[Rates, Rates, Linearisation, dict[str, float]]:
    """Forward values of the read-outs, rates where everything is differentiated, the derivative there, statistics."""
    if scheme.at == "simulated":
        if simulated is None:
            raise InputError("gradients at simulated rates need simulated rates")
        at_rates = {**simulated, INPUT: network.drive(params, batch)[0]}
        _, linearisation = sweep(network, params, batch, at=simulated, edge_derivative=scheme.edge_derivative)
        return simulated, at_rates, linearisation, {}
    found = equilibrium(
        network, params, batch, scheme.search, edge_derivative=scheme.edge_derivative, t_conv=scheme.t_conv
    )
    statistics = {"sweeps": float(found.solution.evaluations)} if network.fed_back else {}
    return (found.rates if simulated is None else simulated), found.rates, found.linearisation, statistics


def through(direct: Direct, solve: Solve) -> tuple[Gradients, Rates, dict[str, float]]:
    """Whole gradient of a loss, by one adjoint solve: what it depends on directly, and what goes through the network.

    Parameters
    ----------
    direct : Direct
    solve : Solve

    Returns
    -------
    gradients : Gradients
    cotangents : dict
        Population -> λ, the loss's derivative by its rate, everything that the rate changes included.
    statistics : dict
        As in `internal_gradients`.
    """
    cotangents, dparams, solution = adjoint(direct.linearisation, direct.drates, solve)
    gradients, statistics = Gradients(direct.gradients), dict(direct.statistics)
    gradients.add(dparams)
    if direct.linearisation.fed_back:
        statistics |= {"products": float(solution.evaluations), "residual": float(solution.residual.max())}
    return gradients, cotangents, statistics


def _answered(network: Network, params: Mapping[str, Array], readout: Array, loss: Loss) -> tuple[Array, Array, Params]:
    """Loss of the class scores; the cotangents of the read-out and of the classifier."""
    z, logits_pullback = logits(params, readout, network.rectified)
    value, loss_pullback = loss(z)
    dreadout, gradients = logits_pullback(loss_pullback(1.0))
    return value, dreadout, gradients


def internal_gradients(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    teacher_hidden: Sequence[Array],
    teacher_scores: Sequence[Array],
    simulated: Rates | None = None,
    scheme: Scheme = Scheme(),
    attention_weight: float = 1.0,
    loss: Loss | None = None,
) -> tuple[dict[str, Array], Gradients, dict[str, float]]:
    """Losses of internal distillation and the gradient of their sum, through one adjoint solve for all of them.

    Parameters
    ----------
    network : Network
    params : mapping
    batch : Batch
    teacher_hidden, teacher_scores : sequences of arrays
        The teacher layers that the student's are compared with.
    simulated : dict, optional
        Simulated rates, which then take the place of the equilibrium's as forward values of the read-outs.
    scheme : Scheme
    attention_weight : float
        Weight of the attention loss in the sum.
    loss : callable, optional
        A loss of the class scores to be added, as `prediction_gradients` takes it.

    Returns
    -------
    losses : dict
        ``"hidden"`` and ``"attention"``, and ``"prediction"`` with `loss`.
    gradients : Gradients
    statistics : dict
        With feedback: sweeps of the forward search, products of the adjoint solve, its largest true residual.
    """
    direct = internal_direct(
        network, params, batch, teacher_hidden, teacher_scores, simulated, scheme, attention_weight, loss
    )
    gradients, _, statistics = through(direct, scheme.solve)
    return direct.losses, gradients, statistics


def internal_direct(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    teacher_hidden: Sequence[Array],
    teacher_scores: Sequence[Array],
    simulated: Rates | None = None,
    scheme: Scheme = Scheme(),
    attention_weight: float = 1.0,
    loss: Loss | None = None,
) -> Direct:
    """Losses of internal distillation, and how they depend on the rates themselves.

    Parameters
    ----------
    network, params, batch, teacher_hidden, teacher_scores, simulated, scheme, attention_weight, loss
        As in `internal_gradients`.

    Returns
    -------
    direct : Direct
    """
    values, rates, linearisation, statistics = _linearise(network, params, batch, simulated, scheme)
    observed, scores_pullback = attention_scores(network, params, rates, batch)
    readouts = [values[name] for name in network.readouts]
    losses, loss_pullback = internal_loss(params, readouts, observed, teacher_hidden, teacher_scores, attention_weight)
    dreadouts, dscores, gradients = loss_pullback(1.0)
    drates, dquery = scores_pullback(dscores)
    for name, dreadout in zip(network.readouts, dreadouts, strict=True):
        accumulate(drates, name, dreadout)
    gradients |= dquery
    if loss is not None:
        losses["prediction"], dlast, dclassifier = _answered(network, params, readouts[-1], loss)
        accumulate(drates, network.readouts[-1], dlast)
        gradients |= dclassifier
    return Direct(losses, drates, gradients, rates, linearisation, statistics)


def prediction_gradients(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    simulated: Rates | None = None,
    scheme: Scheme = Scheme(),
) -> tuple[dict[str, Array], Gradients, dict[str, float]]:
    """Loss of the prediction stage and its gradient.

    Parameters
    ----------
    network, params, batch
        As in `internal_gradients`.
    loss : callable
        ``loss(logits) -> (value, pullback)``: soft labels, true labels or scores.
    simulated, scheme
        As in `internal_gradients`.

    Returns
    -------
    losses : dict
        ``"prediction"``.
    gradients, statistics
        As in `internal_gradients`.
    """
    direct = prediction_direct(network, params, batch, loss, simulated, scheme)
    gradients, _, statistics = through(direct, scheme.solve)
    return direct.losses, gradients, statistics


def prediction_direct(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    loss: Loss,
    simulated: Rates | None = None,
    scheme: Scheme = Scheme(),
) -> Direct:
    """Loss of the prediction stage, and how it depends on the rates themselves.

    Parameters
    ----------
    network, params, batch, loss, simulated, scheme
        As in `prediction_gradients`.

    Returns
    -------
    direct : Direct
    """
    values, rates, linearisation, statistics = _linearise(network, params, batch, simulated, scheme)
    last = network.readouts[-1]
    value, dlast, gradients = _answered(network, params, values[last], loss)
    return Direct({"prediction": value}, {last: dlast}, gradients, rates, linearisation, statistics)


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
