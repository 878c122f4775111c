"""Conformance adapter of SpikingJelly's `IFNode` and `LIFNode`, as `pip install` brings them (neurons only).

The convention of SpikingJelly 2.0.0, each point measured:

* fires at u ≥ V_th, compared as u − V_th ≥ 0; there is no tie rule, so a structural tie that rounding leaves at
  0.999…9 does not fire. Passing ``v_threshold=vth * (1 - 1e-9)`` makes it;
* ``v_reset=None`` subtracts V_th at once, the leak acts on what is left: SpikingBERT's neuron. The default, 0.0, resets
  to zero;
* `LIFNode` leaks by τ: ``decay_input=False`` is u ← u − u/τ + I, so τ = 1/(1 − λ). The default, ``decay_input=True``,
  divides the current by τ as well, that is, scales it by 1 − λ. τ = 1 is refused and τ = ∞ is `IFNode`. u − u/τ is
  rounded differently from λ·u unless λ is dyadic;
* the initial potential is `node.v`, which may be set to any number before the first step;
* the whole record in one call (``step_mode="m"``) gives the spikes of single steps; potentials and spikes have the
  precision of the input: float64, float32, float16 and bfloat16 run.
"""

from importlib.metadata import version

import torch
from spikingjelly.activation_based.neuron import IFNode, LIFNode

name = f"SpikingJelly {version('spikingjelly')}"
dtypes = ("float64", "float32")


def neurons(current, neuron, dtype):
    """Spikes of `IFNode` for λ = 1 and of `LIFNode` for λ < 1, with soft reset."""
    common = {"v_threshold": neuron["vth"], "v_reset": None, "step_mode": "m"}
    leak = neuron["leak"]
    node = IFNode(**common) if leak == 1 else LIFNode(tau=1 / (1 - leak), decay_input=False, **common)
    node.v = neuron["u0"] * neuron["vth"]
    with torch.no_grad():
        return node(torch.tensor(current)).numpy()


def supports(feature, dtype):
    return feature.startswith("neurons")
