"""Parity with numbers recorded from another program: rates, losses, gradients, and spikes by certificate.

A case is an ``.npz`` file: configuration, inputs, parameters under the authors' names, every population's spikes and
average rates, the rate map, read-outs, losses and gradients. Spikes are not compared with a simulation of ours (two
correct programs differ at structural ties) but certified; everything else agrees to rounding, given the recorded
average rates as forward values.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from . import ops
from .certify import certify
from .checkpoints import authors_names, check_parameters
from .config import BertConfig
from .equilibrium import rate_map, scores
from .errors import InputError
from .files import existing
from .network import Batch, Params, accumulate, network_shapes, spiking_bert
from .neurons import Neuron
from .ops import Array
from .student import internal_loss, logits

__all__ = ["TOLERANCE", "Comparison", "check_case", "read_case"]

#: Largest difference of a quantity, relative to its largest entry. Rounding alone gives 1e-15 to 1e-13.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Comparison:
    """One quantity of a case: ours against the recorded one.

    Attributes
    ----------
    name : str
    absolute, relative : float
        Largest difference; relative to the largest recorded entry.
    unexplained : int or None
        For spikes: decisions that rounding cannot explain.
    detail : str
    """

    name: str
    absolute: float = 0.0
    relative: float = 0.0
    unexplained: int | None = None
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether the quantity agrees; a NaN never does."""
        return self.relative <= TOLERANCE and not self.unexplained


def compare(name: str, ours: Array, recorded: Array) -> Comparison:
    """Largest absolute and relative difference of two arrays, or a note that their shapes differ.

    Parameters
    ----------
    name : str
    ours, recorded : arrays

    Returns
    -------
    comparison : Comparison
    """
    ours, recorded = np.asarray(ours), np.asarray(recorded)
    if ours.shape != recorded.shape:
        return Comparison(name, np.inf, np.inf, detail=f"shape {recorded.shape} recorded, {ours.shape} expected")
    if not (np.isfinite(ours).all() and np.isfinite(recorded).all()):
        return Comparison(name, np.nan, np.nan, detail="NaN or infinite values")
    difference = float(np.abs(ours - recorded).max(initial=0))
    scale = float(np.abs(recorded).max(initial=0))
    return Comparison(name, difference, difference / scale if scale else difference)


def read_case(path: str | os.PathLike) -> dict[str, Array]:
    """Read an ``.npz`` case without ever unpickling anything.

    Parameters
    ----------
    path : path

    Returns
    -------
    case : dict
        Key -> array.

    Raises
    ------
    InputError
        The file is missing, not an ``.npz``, truncated, or holds pickled objects.
    """
    path = existing(path, "the case")
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            return {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{path} cannot be read as an .npz of plain arrays ({error}); it may be truncated") from None


def _need(case: Mapping[str, Array], key: str) -> Array:
    if key not in case:
        raise InputError(f"the case lacks {key!r}; it is not in the format of the authors' cases")
    return case[key]


def _settings(case: Mapping[str, Array]) -> dict:
    try:
        settings = json.loads(str(_need(case, "config")))
    except json.JSONDecodeError as error:
        raise InputError(f"the case's 'config' is not valid JSON ({error})") from None
    missing = [k for k in ("t_conv", "vth", "leak", "feedback", "loss", "temperature") if k not in settings]
    if missing:
        raise InputError(f"the case's configuration lacks {', '.join(missing)}")
    return settings


def _batch(case: Mapping[str, Array], config: BertConfig) -> Batch:
    batch = Batch(*(_need(case, key) for key in Batch._fields))
    if len({a.shape for a in batch}) != 1 or batch.input_ids.ndim != 2 or not batch.input_ids.size:
        raise InputError(f"input_ids, token_type_ids and attention_mask have shapes {[a.shape for a in batch]}, "
                         "but one shape (batch, positions) was expected")  # fmt: skip
    limits = (config.vocab_size, config.type_vocab_size, 2)
    for name, ids, limit in zip(Batch._fields, batch, limits, strict=True):
        if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= limit:
            raise InputError(f"{name} must hold integers in [0, {limit}), but it holds {ids.min()} … {ids.max()}")
    if batch.input_ids.shape[1] > config.max_position_embeddings:
        raise InputError(
            f"the case has {batch.input_ids.shape[1]} positions, more than the {config.max_position_embeddings} embedded"
        )
    return batch


def check_case(case: Mapping[str, Array]) -> list[Comparison]:
    """Recompute everything a case records and compare.

    Parameters
    ----------
    case : mapping
        As from `read_case`.

    Returns
    -------
    comparisons : list of Comparison

    Raises
    ------
    InputError
        The case lacks something, or its parts do not fit together.
    """
    settings = _settings(case)
    config = BertConfig.from_dict(settings)
    neuron = Neuron(settings["vth"], settings["leak"], tie=0.0)  # the recording program has no tie rule
    feedback = bool(settings["feedback"])
    network = spiking_bert(config, neuron, feedback)
    batch = _batch(case, config)
    ours = authors_names(config.num_hidden_layers)
    recorded = {
        ours[k.removeprefix("param/")]: v
        for k, v in case.items()
        if k.removeprefix("param/") in ours and k.startswith("param/")
    }
    params = check_parameters(recorded, network_shapes(config, feedback), "the case")
    params |= {name: recorded[name] for name in recorded if name.startswith(("fit.", "classifier."))}

    names = [population.name for population in network.populations]
    spikes = {name: _need(case, f"spikes/{i:02d}") for i, name in enumerate(names)}
    asr = {name: _need(case, f"asr/{i:02d}") for i, name in enumerate(names)}
    shape = batch.input_ids.shape
    for population, record in zip(network.populations, spikes.values(), strict=True):
        expected = (settings["t_conv"], *shape, population.width)
        if record.shape != expected or not np.isin(record, (0, 1)).all():
            raise InputError(f"the spikes of {population.name} must be 0 or 1 in shape {expected}, not {record.shape}")
        if asr[population.name].shape != expected[1:]:
            raise InputError(
                f"the rates of {population.name} have shape {asr[population.name].shape}, not {expected[1:]}"
            )

    result = []
    for name, verdict in certify(network, params, batch, spikes).items():
        detail = f"{verdict.decisions} decisions, {verdict.by_rounding} by rounding"
        if verdict.first_wrong is not None:
            t, index, u, bound = verdict.first_wrong
            detail += f"; first wrong at t = {t}, {index}: u = {u:.17g}, V_th = {neuron.vth}, bound {bound:.1e}"
        result.append(Comparison(f"spikes/{name}", unexplained=verdict.wrong, detail=detail))
    result += [compare(f"asr/{name}", spikes[name].mean(axis=0, dtype=float), asr[name]) for name in names]
    if feedback:
        return result  # its rates solve an equation; the cases record no rate map for them

    rates, rate_pullback = rate_map(network, params, batch, edge_derivative=1.0)
    observed, scores_pullback = scores(network, params, rates, batch)
    result += [
        compare(f"rate/{n}", rates[n], case[f"rate/{i:02d}"]) for i, n in enumerate(names) if f"rate/{i:02d}" in case
    ]
    for e, score in enumerate(observed, 1):
        if f"rate_attn/{e}" in case:
            result.append(compare(f"attention scores/{e}", score, case[f"rate_attn/{e}"]))

    # The forward value of a read-out is its recorded rate; its cotangent goes through the rate map.
    readouts = [asr[name] for name in network.readouts]
    dparams: Params
    if settings["loss"] == "internal":
        for i, readout in enumerate(readouts):
            fitted, _ = ops.linear(readout, params["fit.weight"], params["fit.bias"])
            result.append(compare(f"read-out/{i}", fitted, _need(case, f"rep/{i}")))
        hidden = [_need(case, f"teacher_rep/{i}") for i in range(len(readouts))]
        attention = [_need(case, f"teacher_att/{e}") for e in range(len(observed))]
        losses, loss_pullback = internal_loss(params, readouts, observed, hidden, attention)
        result.append(compare("loss/hidden", losses["hidden"], _need(case, "rep_loss")))
        result.append(compare("loss/attention", losses["attention"], _need(case, "att_loss")))
        loss = losses["hidden"] + losses["attention"]
        dreadouts, dscores, dparams = loss_pullback(1.0)
        drates, dquery = scores_pullback(dscores)
        for name, dreadout in zip(network.readouts, dreadouts, strict=True):
            accumulate(drates, name, dreadout)
        dparams |= dquery
    elif settings["loss"] == "pred":
        z, logits_pullback = logits(params, readouts[-1])
        result.append(compare("logits", z, _need(case, "logits")))
        loss, pullback = ops.soft_cross_entropy(z, _need(case, "teacher_logits"), settings["temperature"])
        dreadout, dparams = logits_pullback(pullback(1.0)[0])
        drates = {network.readouts[-1]: dreadout}
    else:
        raise InputError(f"the case's loss is {settings['loss']!r}, but it must be 'internal' or 'pred'")
    result.append(compare("loss", loss, _need(case, "loss")))
    for name, gradient in rate_pullback(drates).items():
        accumulate(dparams, name, gradient)
    theirs = {name: key for key, name in ours.items()}
    for name, gradient in dparams.items():
        result.append(compare(f"gradient/{name}", gradient, _need(case, f"grad/{theirs[name]}")))
    return result
