"""Next tokens: scores, losses and gradients of a GPT and of its spiking student.

The scores of the next token at every position are a linear map of what the last LayerNorm has there, by the token
embeddings themselves (tied). A student's rates are first taken back to the teacher's scale, feature by feature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .. import ops
from ..errors import InputError
from ..model.batch import Batch
from ..model.gpt import FINAL, GptConfig, gpt
from ..model.network import INPUT, Network
from ..model.parameters import Gradients, Params, accumulate
from ..ops import Array
from ..readings.adjoint import Solve
from ..readings.implicit import adjoint
from ..readings.rate_map import Rates, rate_map, scores, sweep
from .student import MASKED_SCORE
from .teacher import Encoding, encoded

__all__ = [
    "Target",
    "distillation_gradients",
    "language_gradients",
    "next_token_logits",
    "surprisals",
    "target",
]


def next_token_logits(
    params: Mapping[str, Array], final: Array
) -> tuple[Array, Callable[[Array], tuple[Array, Params]]]:
    """Scores of the next token: ``z = W_e·h``, with ``h = r ⊙ a + s`` of a student, whose rates are a.

    Parameters
    ----------
    params : mapping
        ``wte.weight`` (V, D), and of a student ``readout.weight`` r and ``readout.bias`` s, (D,).
    final : (B, N, D) array
        What `refsnn.model.gpt.FINAL` has.

    Returns
    -------
    logits : (B, N, V) array
    pullback : callable
        ``pullback(dlogits) -> (dfinal, dparams)``.

    Examples
    --------
    >>> z, pullback = next_token_logits({"wte.weight": np.eye(2)}, np.array([[[1.0, 2.0]]]))
    >>> z, pullback(z)[0]
    (array([[[1., 2.]]]), array([[[1., 2.]]]))
    """
    scaled = "readout.weight" in params
    if scaled:
        product, scale_pullback = ops.scale(final, params["readout.weight"])
        hidden = product + params["readout.bias"]
    else:
        hidden = final
    logits, linear_pullback = ops.linear(hidden, params["wte.weight"])

    def pullback(dlogits: Array) -> tuple[Array, Params]:
        dhidden, dtable = linear_pullback(dlogits)
        if not scaled:
            return dhidden, {"wte.weight": dtable}
        dfinal, dweight = scale_pullback(dhidden)
        dbias = dhidden.reshape(-1, dhidden.shape[-1]).sum(axis=0)
        return dfinal, {"wte.weight": dtable, "readout.weight": dweight, "readout.bias": dbias}

    return logits, pullback


def _predicted(batch: Batch) -> Array:
    """Positions (B, N − 1) that have a next token, all but the last of each sequence."""
    if batch.input_ids.shape[1] < 2:
        raise InputError("the sequences have one token, but predicting the next takes two")
    return batch.attention_mask[:, 1:].astype(bool)


def surprisals(logits: Array, batch: Batch) -> Array:
    """How surprising each token is after those before it: ``−log softmax(z)[next]``, in nats.

    Parameters
    ----------
    logits : (B, N, V) array
    batch : Batch

    Returns
    -------
    nats : (B, N) array
        0 for the first token of a sequence, which nothing predicts, and for padding.
    """
    log_p = ops.log_softmax(logits[:, :-1])
    found = -np.take_along_axis(log_p, batch.input_ids[:, 1:, None], axis=-1)[..., 0]
    nats: Array = np.pad(np.where(_predicted(batch), found, 0), ((0, 0), (1, 0)))
    return nats


def _mean_over_sequences(count: int, batch: Batch) -> float:
    """Factor from the mean over `count` predicted tokens to Σ/(B·(N − 1)), a mean over sequences of one length."""
    size, length = batch.input_ids.shape
    return count / (size * (length - 1))


def language_gradients(
    network: Network, params: Mapping[str, Array], batch: Batch
) -> tuple[dict[str, Array], Gradients, dict[str, float]]:
    """Cross-entropy of the next token and its gradient, by the rate map: what a teacher is trained by.

    Parameters
    ----------
    network : Network
        Without feedback.
    params : mapping
    batch : Batch

    Returns
    -------
    losses : dict
        ``"loss"``: ``Σ −log p(next)/(B·(N − 1))`` in nats, over all tokens but padding.
    gradients : Gradients
    statistics : dict
        Empty.
    """
    rates, pullback = rate_map(network, params, batch)
    logits, logits_pullback = next_token_logits(params, rates[FINAL])
    places = _predicted(batch)
    loss, loss_pullback = ops.cross_entropy(logits[:, :-1][places], batch.input_ids[:, 1:][places])
    factor = _mean_over_sequences(int(places.sum()), batch)
    dlogits = np.zeros_like(logits)
    dlogits[:, :-1][places] = loss_pullback(factor)
    dfinal, dhead = logits_pullback(dlogits)
    gradients = Gradients(dhead)
    gradients.add(pullback({FINAL: dfinal}))
    return {"loss": np.asarray(loss * factor)}, gradients, {}


class Target(NamedTuple):
    """What distillation reads off the teacher.

    Attributes
    ----------
    encoding : Encoding
        Its hidden states are the residual stream: the embeddings, and after each block.
    logits : (B, N, V) array
    """

    encoding: Encoding
    logits: Array


def target(config: GptConfig, params: Mapping[str, Array], batch: Batch) -> Target:
    """Read a teacher.

    Parameters
    ----------
    config : GptConfig
    params : mapping
    batch : Batch

    Returns
    -------
    target : Target
    """
    activities, encoding = encoded(gpt(config), params, batch)
    return Target(encoding, next_token_logits(params, activities[FINAL])[0])


def _relative(found: Array, wanted: Array, seen: Array | bool = True) -> tuple[Array, Callable[[float], Array]]:
    """Mean squared error in units of the mean square of what is wanted, and its pullback."""
    wanted = np.where(seen, wanted, 0)
    error, pullback = ops.mse(np.where(seen, found, 0), wanted)
    unit = float(np.square(wanted).mean()) or 1.0
    return error / unit, lambda dloss: pullback(dloss / unit)[0] * seen


def distillation_gradients(
    network: Network,
    params: Mapping[str, Array],
    batch: Batch,
    wanted: Target,
    simulated: Rates,
    weights: Sequence[float] = (1.0, 1.0, 1.0),
) -> tuple[dict[str, Array], Gradients, dict[str, float]]:
    """Losses of a student at simulated rates, and the gradient of their weighted sum, through the rate map there.

    ``hidden``: squared error of the residual stream after each block, relative to the teacher's mean square;
    ``attention``: the same of raw scores, where a key is seen; ``prediction``: the cross-entropy, in nats, of the
    student's next token under the teacher's distribution.

    Parameters
    ----------
    network : Network
    params : mapping
    batch : Batch
    wanted : Target
    simulated : dict
        Rates of all populations, as from `refsnn.readings.simulate.simulate`.
    weights : sequence of three floats
        Of hidden, attention and prediction.

    Returns
    -------
    losses : dict
    gradients : Gradients
    statistics : dict
        Empty.
    """
    _, linearisation = sweep(network, params, batch, at=simulated)
    rates = {**simulated, INPUT: network.drive(params, batch)[0]}
    observed, scores_pullback = scores(network, params, rates, batch)
    hidden = [_relative(simulated[n], h) for n, h in zip(network.readouts[1:], wanted.encoding.hidden[1:], strict=True)]
    attention = [
        _relative(found, there, there > MASKED_SCORE)
        for found, there in zip(observed, wanted.encoding.scores, strict=True)
    ]
    logits, logits_pullback = next_token_logits(params, simulated[FINAL])
    places = _predicted(batch)
    prediction, prediction_pullback = ops.soft_cross_entropy(logits[:, :-1][places], wanted.logits[:, :-1][places])
    factor = _mean_over_sequences(int(places.sum()), batch) * logits.shape[-1]  # the mean is over classes, too

    drates, dquery = scores_pullback([pull(weights[1] / len(attention)) for _, pull in attention])
    for name, (_, pull) in zip(network.readouts[1:], hidden, strict=True):
        accumulate(drates, name, pull(weights[0] / len(hidden)))
    dlogits = np.zeros_like(logits)
    dlogits[:, :-1][places] = prediction_pullback(weights[2] * factor)[0]
    dfinal, dhead = logits_pullback(dlogits)
    accumulate(drates, FINAL, dfinal)
    gradients = Gradients(dquery | dhead)
    gradients.add(adjoint(linearisation, drates, Solve())[1])
    losses: dict[str, Array] = {
        "hidden": np.asarray(np.mean([loss for loss, _ in hidden])),
        "attention": np.asarray(np.mean([loss for loss, _ in attention])),
        "prediction": np.asarray(prediction * factor),
    }
    return losses, gradients, {}
