"""Parity with numbers recorded from another program: rates, losses, gradients, and spikes by certificate.

A case is an ``.npz`` file: configuration, inputs, parameters under the authors' names, every population's spikes and
average rates, the rate map, read-outs, losses and gradients. Spikes are not compared with a simulation of ours (two
correct programs differ at structural ties) but certified; everything else agrees to rounding, given the recorded
average rates as forward values.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .. import ops
from ..distillation.student import internal_gradients, logits, prediction_gradients
from ..errors import InputError, whole
from ..files import existing
from ..model.batch import Batch, checked_batch
from ..model.families import spiking_bert
from ..model.network import Network
from ..model.neurons import Neuron
from ..model.parameters import Params, check_parameters
from ..model.shapes import BertConfig, network_shapes
from ..ops import Array
from ..readings.certify import certify
from ..readings.rate_map import Rates, rate_map, scores
from ..schema import checked, parsed
from ..storage.convert import authors_names

__all__ = ["TOLERANCE", "Comparison", "check_case", "parity_table", "read_case"]

#: Largest difference of a quantity, relative to its largest entry. Rounding alone gives 1e-15 to 1e-13.
TOLERANCE = 1e-12

#: A gradient that vanishes in exact arithmetic is rounding and nothing else. Gradients are therefore compared relative
#: to their largest entry or to this fraction of the case's largest gradient, whichever is more.
GRADIENT_FLOOR = 1e-6


#: How many times its size a file may unpack to: recorded spikes shrink to a tenth or so.
UNPACKED = 200

#: What a case's configuration says beside a BERT's sizes.
SETTINGS = {
    "t_conv": int,
    "vth": float,
    "leak": float,
    "feedback": bool,
    "loss": Literal["internal", "pred"],
    "temperature": float,
}


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
    tolerance : float
        Of the relative difference.
    detail : str
    """

    name: str
    absolute: float = 0.0
    relative: float = 0.0
    unexplained: int | None = None
    tolerance: float = TOLERANCE
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether the quantity agrees; a NaN never does."""
        return self.relative <= self.tolerance and not self.unexplained


def parity_table(comparisons: Sequence[Comparison]) -> str:
    """Lay the quantities of a case out, a line each, and say the outcome.

    Parameters
    ----------
    comparisons : sequence of Comparison

    Returns
    -------
    text : str
    """
    lines = [f"{'':4}{'quantity':<64}{'absolute':>10}{'relative':>10}"]
    for c in comparisons:
        mark = "    " if c.passed else "*** "
        if c.unexplained is None:
            lines.append(f"{mark}{c.name:<64}{c.absolute:>10.1e}{c.relative:>10.1e}  {c.detail}".rstrip())
        else:
            lines.append(f"{mark}{c.name:<64}{c.unexplained:>9} unexplained  {c.detail}")
    wrong = sum(not c.passed for c in comparisons)
    worst = max((c.relative for c in comparisons), default=0.0)
    unexplained = sum(c.unexplained or 0 for c in comparisons)
    lines.append(
        f"{'FAILED' if wrong else 'passed'}: {len(comparisons) - wrong} of {len(comparisons)} quantities; "
        f"largest relative difference {worst:.1e} (tolerance {TOLERANCE:.0e}); "
        f"{unexplained} unexplained spike decisions"
    )
    return "\n".join(lines)


def compare_arrays(
    name: str, ours: Array, recorded: Array, floor: float = 0.0, moved: Array | None = None
) -> Comparison:
    """Largest absolute and relative difference of two arrays, or a note that their shapes differ.

    Parameters
    ----------
    name : str
    ours, recorded : arrays
    floor : float
        The difference is relative to the largest recorded entry, or to this where that is smaller.
    moved : array, optional
        Ours, recomputed from parameters that differ in the last place. Where that alone moves a quantity by more than
        a tenth of `TOLERANCE`, the tolerance is ten times the movement.

    Returns
    -------
    comparison : Comparison
    """
    ours, recorded = np.asarray(ours), np.asarray(recorded)
    if ours.shape != recorded.shape:
        return Comparison(name, np.inf, np.inf, detail=f"shape {recorded.shape} recorded, {ours.shape} expected")
    if not (np.isfinite(ours).all() and np.isfinite(recorded).all()):
        return Comparison(name, np.nan, np.nan, detail="NaN or infinite values")
    scale = max(float(np.abs(recorded).max(initial=0)), floor) or 1.0
    difference = float(np.abs(ours - recorded).max(initial=0))
    movement = 0.0 if moved is None else float(np.abs(ours - moved).max(initial=0)) / scale
    tolerance = max(TOLERANCE, 10 * movement)
    detail = "" if tolerance == TOLERANCE else f"ill-conditioned: tolerance {tolerance:.0e}"
    return Comparison(name, difference, difference / scale, tolerance=tolerance, detail=detail)


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
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with file, zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > max(UNPACKED * path.stat().st_size, 1 << 20):
                raise ValueError(f"it would unpack to {unpacked / 1e6:.0f} MB, {UNPACKED} times its size or more")
            return {key: file[key] for key in file.files}
    except Exception as error:  # damaged files make NumPy and zipfile raise almost anything
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} cannot be read as an .npz of plain arrays ({said}); it may be truncated") from None


def _need(case: Mapping[str, Array], key: str, shape: tuple[int, ...] | None = None) -> Array:
    if key not in case:
        raise InputError(f"the case lacks {key!r}; it is not in the format of the authors' cases")
    if shape is not None and case[key].shape != shape:
        raise InputError(f"the case's {key!r} has shape {case[key].shape}, but {shape} was expected")
    return case[key]


def _last_axis(case: Mapping[str, Array], key: str) -> int:
    value = _need(case, key)
    if not value.ndim:
        raise InputError(f"the case's {key!r} is a single number, but an array was expected")
    return value.shape[-1]


def _settings(case: Mapping[str, Array]) -> dict[str, Any]:
    settings = parsed("the case's 'config'", str(_need(case, "config")))
    settings = checked("the case's configuration", settings, SETTINGS, "", SETTINGS, closed=False)
    whole("t_conv", settings["t_conv"])
    if not settings["temperature"] > 0:
        raise InputError(f"the case's temperature is {settings['temperature']}, but it must be a positive number")
    return settings


def _check_arrays(case: Mapping[str, Array], populations: int) -> None:
    """Make sure that what is compared are numbers, and that no population is recorded that the network lacks."""
    for key, value in case.items():
        group, _, number = key.partition("/")
        if key != "config" and value.dtype.kind not in "fiub":
            raise InputError(f"the case's {key!r} is of type {value.dtype}, but numbers were expected")
        if group in ("spikes", "asr", "rate") and number not in {f"{i:02d}" for i in range(populations)}:
            raise InputError(f"the case records {key!r}, but its network has populations 00 … {populations - 1:02d}")


def _parameters(case, settings, ours: Mapping[str, str], config: BertConfig, feedback: bool) -> dict[str, Array]:
    shapes = network_shapes(config, feedback)
    if settings["loss"] == "internal":
        width = _last_axis(case, "teacher_rep/0")
        shapes |= {"fit.weight": (width, config.hidden_size), "fit.bias": (width,)}
    else:
        classes = _last_axis(case, "teacher_logits")
        shapes |= {"classifier.weight": (classes, config.hidden_size), "classifier.bias": (classes,)}
    recorded = {ours[name]: case[f"param/{name}"] for name in ours if f"param/{name}" in case}
    return check_parameters(recorded, shapes, "the case")


def _activity(case: Mapping[str, Array], network: Network, batch: Batch, t_conv: int) -> tuple[Rates, Rates]:
    """Pick the recorded spikes and average rates of every population, by our names."""
    spikes, asr = {}, {}
    for i, population in enumerate(network.populations):
        shape = (*batch.input_ids.shape, population.width)
        asr[population.name] = _need(case, f"asr/{i:02d}", shape)
        spikes[population.name] = _need(case, f"spikes/{i:02d}", (t_conv, *shape))
        if not np.isin(spikes[population.name], (0, 1)).all():
            raise InputError(f"the case's spikes/{i:02d} holds other values than 0 and 1")
    return spikes, asr


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
    _check_arrays(case, len(network.populations))
    batch = checked_batch(Batch(*(_need(case, key) for key in Batch._fields)), config)
    ours = authors_names(config.num_hidden_layers)
    params = _parameters(case, settings, ours, config, feedback)

    names = [population.name for population in network.populations]
    spikes, asr = _activity(case, network, batch, settings["t_conv"])
    result = []
    for name, verdict in certify(network, params, batch, spikes).items():
        detail = f"{verdict.decisions} decisions, {verdict.by_rounding} by rounding"
        if verdict.first_wrong is not None:
            detail += f"; first wrong {verdict.first_wrong}"
        result.append(Comparison(f"spikes/{name}", unexplained=verdict.wrong, detail=detail))
    result += [compare_arrays(f"asr/{name}", spikes[name].mean(axis=0, dtype=float), asr[name]) for name in names]
    if feedback:
        return result  # its rates solve an equation; the cases record no rate map for them

    found = _recompute(case, settings, network, params, batch, asr)
    # The same from parameters that differ in the last place: no two programs agree better than this.
    rng = np.random.default_rng(0)
    nudged = {k: v * (1 + np.finfo(v.dtype).eps * rng.choice([-1, 1], v.shape)) for k, v in params.items()}
    moved = _recompute(case, settings, network, nudged, batch, asr)
    theirs = {name: key for key, name in ours.items()}
    largest = max((float(np.abs(case[key]).max(initial=0)) for key in case if key.startswith("grad/")), default=0.0)
    for name, value in found.items():
        group, _, rest = name.partition("/")
        key = f"{group}/{names.index(rest):02d}" if group == "rate" else name
        key = f"grad/{theirs[rest]}" if group == "gradient" else key
        if group in ("rate", "rate_attn") and key not in case:
            continue
        floor = GRADIENT_FLOOR * largest if group == "gradient" else 0.0
        result.append(compare_arrays(name, value, _need(case, key), floor, moved[name]))
    return result


def _recompute(case, settings, network: Network, params: Params, batch: Batch, asr: Rates) -> dict[str, Array]:
    """All that the case records beside the spikes, by name; gradients under our parameters' names.

    The forward value of a read-out is its recorded rate; its cotangent goes through the rate map.
    """
    rates, _ = rate_map(network, params, batch)
    observed, _ = scores(network, params, rates, batch)
    found = {f"rate/{population.name}": rates[population.name] for population in network.populations}
    found |= {f"rate_attn/{e}": score for e, score in enumerate(observed, 1)}
    if settings["loss"] == "internal":
        size, positions = batch.input_ids.shape
        for i, name in enumerate(network.readouts):
            found[f"rep/{i}"], _ = ops.linear(asr[name], params["fit.weight"], params["fit.bias"])
        width = len(params["fit.bias"])
        hidden = [_need(case, f"teacher_rep/{i}", (size, positions, width)) for i in range(len(network.readouts))]
        shape = (size, settings["num_attention_heads"], positions, positions)
        attention = [_need(case, f"teacher_att/{e}", shape) for e in range(len(network.contexts))]
        losses, gradients, _ = internal_gradients(network, params, batch, hidden, attention, simulated=asr)
        found |= {"rep_loss": losses["hidden"], "att_loss": losses["attention"], "loss": np.sum(list(losses.values()))}
    else:
        found["logits"], _ = logits(params, asr[network.readouts[-1]])
        target = _need(case, "teacher_logits", found["logits"].shape)

        def soft_labels(z: Array):
            loss, pullback = ops.soft_cross_entropy(z, target, settings["temperature"])
            return loss, lambda dloss: pullback(dloss)[0]

        losses, gradients, _ = prediction_gradients(network, params, batch, soft_labels, simulated=asr)
        found["loss"] = losses["prediction"]
    return found | {f"gradient/{name}": gradient for name, gradient in gradients.items()}
