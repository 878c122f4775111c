"""The adapter to begin with: every function of the contract, commented, and none of them there yet."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError
from ..files import write_text

__all__ = ["SKELETON", "write_skeleton"]

SKELETON = '''"""Adapter of MY BACKEND for refsnn's conformance kit. NumPy arrays come in, NumPy arrays go out.

Uncomment what your backend has, from the top; what is missing counts as unsupported. Then run

    refsnn conform MODULE
"""

import numpy as np

name = "my backend 0.1"
dtypes = ("float32",)  # of "float64", "float32", "float16", "bfloat16", "tf32", "bf16_f32"


def neurons(current, neuron, dtype):
    """Spikes (T, ...) of neurons under the currents (T, ...).

    neuron holds "vth", "leak" (1 is IF), "u0" (initial charge, in units of vth) and "tie": it fires at
    u >= vth * (1 - tie).
    """
    raise NotImplementedError("put your neurons here")


def supports(feature, dtype):
    """Whether a part is there: the features are listed in help(refsnn.conformance). Must be True or False."""
    return feature not in ("neurons:u0", "neurons:tie")


# def asr(spikes, leak, dtype):
#     """Average spiking rate (...) of spikes (T, ...): the mean, weighted by leak ** (T - t)."""
#     return spikes.mean(axis=0)
#
#
# def op(name, arrays, constants, dtype):
#     """One operation by name; arrays and constants are dicts. docs/specification.md has the table."""
#     if name == "linear":
#         return arrays["x"] @ arrays["weight"].T + arrays["bias"]  # matrices are (out, in)
#     raise NotImplementedError(name)  # or decline it: supports("op:NAME") is False
#
#
# def pullback(name, arrays, constants, cotangent, dtype):
#     """Its vector-Jacobian product: {array name: cotangent} for every real array but masks.
#
#     cotangent has the shape of what op returns: () for the losses.
#     """
#
#
# def current(config, params, population, reads, mask, dtype):
#     """Input current of one population; params holds the population's own parameters, under their names in BERT.
#
#     reads: what it reads, in order, (..., B, N, width) each; mask: (B, N), 1 on tokens.
#     """
#
#
# def rate_map(config, params, batch, dtype):
#     """Equilibrium rates {population: (B, N, width)} and raw scores {"scores/0": (B, heads, N, N), ...}."""
#
#
# def simulate(config, params, batch, t_conv, rule, dtype):
#     """Spikes {population: (T, B, N, width)}; rule is "inst" or "running"."""
#
#
# def gradients(config, params, batch, targets, simulated, dtype):
#     """{"loss": ..., "gradient/NAME": ...}, and "hidden", "attention" (stage internal) or "logits" (prediction).
#
#     If you can, also "cotangent/POPULATION", the loss's derivative by its rates: failures then say where they begin.
#     """
#
#
# def update(params, gradients, moments, settings, dtype):
#     """One step of BertAdam: {"param/NAME": ..., "m/NAME": ..., "v/NAME": ...}."""
'''


def write_skeleton(path: str | os.PathLike) -> None:
    """Write an adapter to begin with.

    Parameters
    ----------
    path : path
        A module of Python; it must not exist.

    Raises
    ------
    InputError
        It exists, or is no name of a module.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise InputError(f"{path} is no name of a Python module; name it like adapter.py")
    if path.exists():
        raise InputError(f"{path} exists, and is kept; name another file")
    write_text(path, SKELETON.replace("MODULE", path.stem))
