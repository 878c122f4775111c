"""Conformance adapter of Norse's box LIF and IAF neurons, as `pip install` brings them (neurons only).

The convention of Norse 1.1.0, each point measured:

* fires at u > V_th, not at V_th itself; ``v_th=vth * (1 - 1e-9)`` makes ties fire;
* reset by subtraction exists in `LIFBoxCell` alone (``reset_method=reset_subtract``). It acts at once and the leak on
  what is left, as in SpikingBERT. All other cells, `IAFCell` among them, reset to a value;
* the current is scaled: u ← u + k·(I − u) with k = dt·tau_mem_inv, so λ = 1 − k and the current is passed as I/(1 − λ).
  λ = 1 would be 0/0; k = 2⁻⁶⁰ is small enough to round to λ = 1 and, a power of two, changes no current;
* `LIFCell` filters the current by a synapse first and is no candidate;
* the initial potential is the state that is passed, and may be anything;
* potentials and spikes have the precision of the input if the parameters do: float64 and float32 run; float16 does
  too, but not with k = 2⁻⁶⁰.

``neurons(..., cell="iaf")`` asks for `iaf_feed_forward_step`, the library's own integrate-and-fire: reset to zero.
"""

import norse
import torch
from norse.torch import IAFFeedForwardState, IAFParameters, LIFBoxFeedForwardState, LIFBoxParameters
from norse.torch.functional.iaf import iaf_feed_forward_step
from norse.torch.functional.lif_box import lif_box_feed_forward_step
from norse.torch.functional.reset import reset_subtract

name = f"Norse {norse.__version__}"
dtypes = ("float64", "float32")


def neurons(current, neuron, dtype, cell="lif_box"):
    """Spikes of the box LIF with reset by subtraction, or of the IAF, which knows no leak."""

    def constant(value):
        return torch.tensor(value, dtype=getattr(torch, dtype))

    drive = torch.tensor(current)
    charge = torch.full_like(drive[0], neuron["u0"] * neuron["vth"])
    if cell == "iaf":
        step, state, parameters = (
            iaf_feed_forward_step,
            IAFFeedForwardState(charge),
            IAFParameters(v_th=constant(neuron["vth"]), v_reset=constant(0.0)),
        )
    else:
        k = 1 - neuron["leak"] or 2.0**-60
        drive = drive / k
        step, state, parameters = (
            lif_box_feed_forward_step,
            LIFBoxFeedForwardState(charge),
            LIFBoxParameters(tau_mem_inv=constant(k), v_th=constant(neuron["vth"]), reset_method=reset_subtract),
        )
    spikes = torch.empty_like(drive)
    with torch.no_grad():
        for t, now in enumerate(drive):
            spikes[t], state = step(now, state, parameters, 1.0)
    return spikes.numpy()


def supports(feature, dtype):
    return feature.startswith("neurons")
