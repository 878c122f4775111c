"""Conformance adapter of snnTorch's `Leaky`, as `pip install` brings it (neurons only).

The convention of snnTorch 1.0.0, each point measured:

* fires at u > V_th, not at V_th itself;
* `Leaky(reset_mechanism="subtract")` leaks before the reset: u[t] = λ·u[t−1] + I[t] − V_th·s[t−1], the reset being
  decided anew from u[t−1] one step later. For λ = 1 that is SpikingBERT's neuron but for ties, for λ < 1 it is not;
* with ``reset_delay=False`` the leak does act after the reset, but a charge that is still above V_th afterwards
  (u > 2·V_th) is reset a second time *before* the next decision, which so needs more than 2·V_th;
* exact but for ties: ``reset_mechanism="none"``, and ``mem = mem - spikes * threshold`` in the caller's loop. And
  the ties too fire with ``threshold=vth * (1 - 1e-9)``;
* the input is not scaled. The initial potential is the first `mem` that is passed, and may be anything; but a `mem` of
  another shape than the input's is replaced by zeros without a word;
* float64 works if λ and V_th are float64 tensors of shape (1,): Python numbers become float32, and a 0-dimensional
  threshold is rounded to float32 when it is subtracted, because the spikes are float32 whatever the input. For the
  same reason float16 potentials become float32 on the second step.
"""

import numpy as np
import snntorch
import torch

name = f"snnTorch {snntorch.__version__}"
dtypes = ("float64", "float32")


def neurons(current, neuron, dtype, reset_delay=True):
    """Spikes of `Leaky` with reset by subtraction; what is not said here is left as the library has it."""

    def constant(value):
        return torch.tensor([value], dtype=getattr(torch, dtype))

    cell = snntorch.Leaky(
        beta=constant(neuron["leak"]),
        threshold=constant(neuron["vth"]),
        reset_mechanism="subtract",
        reset_delay=reset_delay,
    )
    drive = torch.tensor(current.reshape(len(current), -1))
    mem = torch.full_like(drive[0], neuron["u0"] * neuron["vth"])
    spikes = np.empty(drive.shape)
    with torch.no_grad():
        for t, step in enumerate(drive):
            fired, mem = cell(step, mem)
            spikes[t] = fired
    return spikes.reshape(current.shape)


def supports(feature, dtype):
    return feature.startswith("neurons")
