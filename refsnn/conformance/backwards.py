"""Where a gradient goes wrong: the cotangents of the rates, population by population, from the loss backwards.

    λ = g + Jᵀ λ,    dL/dθ = (∂F/∂θ)ᵀ λ + what the loss depends on directly

A backend that answers its λ, too, is checked as its spikes are: each population's λ against what its *own* λ of the
populations that read it imply, each parameter's gradient against its population's λ. So one error is seen in one place,
with feedback as well, where everything else is wrong because of it.

λ of a neuron that is silent or saturated is not looked at: nothing goes through it. It need not be the same in two
right programs: where all values of a feature are 1, its context is exactly 1, an edge where σ has either derivative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..distillation.student import Direct
from ..model.network import INPUT
from ..model.parameters import accumulate
from ..ops import Array
from . import reference
from .cases import Case, question

__all__ = ["COTANGENT", "first_astray", "inside"]

#: What the cotangent of a population's rate is called in an answer, before the population's name.
COTANGENT = "cotangent/"


def inside(case: Case) -> dict[str, Array]:
    """Say which units a derivative goes through: neurons whose rate lies inside its limits, and all analogue ones.

    Parameters
    ----------
    case : Case
        One of gradients.

    Returns
    -------
    inside : dict
        Name of a cotangent -> Boolean array.
    """
    direct = reference.linearised(*question(case, case.inputs, "float64"))
    found = {}
    for population, _ in direct.linearisation.tape:
        a, neuron = direct.rates[population.name], population.neuron
        found[COTANGENT + population.name] = np.ones(a.shape, bool) if neuron is None else (a > neuron.low) & (a < 1)
    return found


def first_astray(
    case: Case, answer: Mapping[str, Any], allowed: Mapping[str, float], compared: Mapping[str, Array]
) -> str:
    """Say where the derivative is wrong that a backend's gradients are made of.

    Parameters
    ----------
    case : Case
        One of gradients.
    answer : mapping
        The backend's.
    allowed : mapping
        Quantity -> largest difference.
    compared : mapping
        As `inside` says; cotangents elsewhere are 0 in the answer.

    Returns
    -------
    sentence : str
        Empty if the answer lacks a population's cotangent, or no place is found.
    """
    direct = reference.linearised(*question(case, case.inputs, "float64"))
    order, layout = [p for p, _ in reversed(direct.linearisation.tape)], direct.linearisation.layout
    given: dict[str, Array] = {}
    for population in order:
        value = np.asarray(answer.get(COTANGENT + population.name, np.nan), np.float64)
        if value.shape != layout[population.name][0] or not np.isfinite(value).all():
            return ""
        given[population.name] = value
    implied = direct.linearisation.transpose(given)
    for name, g in direct.drates.items():
        accumulate(implied, name, g)

    gradients, owners = _parameters(direct, given)

    def off(quantity: str, right: Array) -> bool:
        found = answer.get(quantity)
        if found is None or np.shape(found) != right.shape:
            return False
        difference = np.abs(np.asarray(found, np.float64) - right)
        return bool(difference.max(initial=0, where=compared.get(quantity, True)) > allowed[quantity])

    unfit = {owners[name]: name for name, right in gradients.items() if off(f"gradient/{name}", right)}
    for population in order:
        name = population.name
        if off(COTANGENT + name, implied[name]):
            readers = [p.name for p in order if name in p.reads]
            readers += ["the loss"] if name in direct.drates else []
            suspects = [reader for reader in readers if reader in unfit] or readers
            told = f"walking back from the loss, the cotangent of the rates first goes wrong at {name}, read by "
            return f"{told}{_listed(readers)}: look at the derivative of {_listed(suspects)}"
    if unfit:
        owner, name = next(iter(unfit.items()))
        return f"the cotangents of all rates agree with each other, but the gradient of {name} not with that of {owner}"
    return ""


def _parameters(direct: Direct, given: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the gradients that cotangents imply, and whose each parameter is: a population's, or the loss's alone."""
    gradients, owners = dict(direct.gradients), dict.fromkeys(direct.gradients, "the loss")
    for population, pull in direct.linearisation.tape:
        dreads, own = pull(given[population.name])
        for read, dread in zip(population.reads, dreads, strict=True):
            if read == INPUT:
                own = {**own, **direct.linearisation.drive_pullback(dread)}
        for name, gradient in own.items():
            accumulate(gradients, name, gradient)
            owners[name] = population.name
    return gradients, owners


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
