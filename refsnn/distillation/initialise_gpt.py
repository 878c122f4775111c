"""Where a spiking GPT starts: as a network whose rates are images of its teacher's activities.

As in `refsnn.distillation.initialise`, each population's rate is an affine image of the teacher's activity,
``a = α ⊙ h + c``, feature by feature, and the weights take the images back. The residual stream, of analogue units,
needs none: it is the teacher's own. ``docs/gpt.md`` derives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..model.batch import Batch
from ..model.gpt import FINAL, SpikingGptConfig, gpt
from ..model.network import kind_of
from ..model.parameters import Params
from ..ops import Array
from .initialise import Affine, absorb, activities_on, centred_where_contexts_lie

__all__ = ["converted_gpt"]


def _images(student: SpikingGptConfig, activities: Mapping[str, Array], clipped: float) -> dict[str, Affine]:
    """Choose the image of every population of neurons."""
    low = student.neuron.low
    images: dict[str, Affine] = {}
    for name, values in activities.items():
        kind = kind_of(name)
        if kind == "intermediate":  # GELU is not homogeneous: a threshold, and no shift
            size = np.quantile(np.abs(values) if low else values, 1 - clipped, axis=0)
            images[name] = Affine(1 / np.maximum(size, 1e-3), np.zeros(values.shape[1]))
        elif kind == "context":
            value = name.replace("context", "value")
            if low:
                images[value], images[name] = centred_where_contexts_lie(activities[value], values, clipped)
            else:
                images[name] = images[value].times(1 / student.neuron.vth)
        else:
            images[name] = Affine.into_unit_interval(values, clipped).onto(low)
    return images


def converted_gpt(
    student: SpikingGptConfig, teacher: Mapping[str, Array], batches: Iterable[Batch], clipped: float = 1e-3
) -> tuple[SpikingGptConfig, Params]:
    """Turn a GPT into a spiking network whose rates are images of its activities.

    Parameters
    ----------
    student : SpikingGptConfig
        Of the teacher's sizes.
    teacher : mapping
        Parameters of `refsnn.model.gpt.gpt_shapes`.
    batches : iterable of Batch
        Text to see activities on; the first 4096 tokens are.
    clipped : float
        Fraction of each feature's activities that may fall outside the rates' range.

    Returns
    -------
    student : SpikingGptConfig
        Unsigned neurons that GELU drives start at 0, since their spikes cannot be taken back.
    params : dict
        In the teacher's precision.
    """
    spiking = [population.name for population in student.network.populations if population.neuron is not None]
    images = _images(student, activities_on(gpt(student.gpt), teacher, batches, spiking), clipped)
    vth = student.neuron.vth
    params = {name: np.asarray(value) for name, value in teacher.items()}

    def linear(name: str, source: Affine, wanted: Affine) -> None:
        weight, bias = f"{name}.weight", f"{name}.bias"
        params[weight], params[bias] = absorb(params[weight], params[bias], source, wanted)

    def norm(name: str, image: Affine) -> None:
        wanted = image.times(vth)
        params[f"{name}.weight"] = wanted.scale * params[f"{name}.weight"]
        params[f"{name}.bias"] = wanted.scale * params[f"{name}.bias"] + wanted.shift

    itself = Affine.uniform(student.gpt.n_embd)
    for e in range(student.gpt.n_layer):
        layer = f"h.{e}"
        h, key, value, context, h2, inner = (
            images[f"block.{e}.{kind}"]
            for kind in ("attention_norm", "key", "value", "context", "intermediate_norm", "intermediate")
        )
        norm(f"{layer}.ln_1", h)
        linear(f"{layer}.attn.query", h, Affine(1 / key.scale, np.zeros_like(key.shift)))
        linear(f"{layer}.attn.key", h, key.times(vth))
        linear(f"{layer}.attn.value", h, value.times(vth))
        # The current of a context is a mean of values' rates; in units of its own threshold it is its image.
        params[f"{layer}.attn.threshold"] = value.scale / (vth * context.scale)
        linear(f"{layer}.attn.c_proj", context, itself)
        norm(f"{layer}.ln_2", h2)
        linear(f"{layer}.mlp.c_fc", h2, Affine.uniform(student.gpt.inner))
        params[f"{layer}.mlp.threshold"] = 1 / (vth * inner.scale)
        linear(f"{layer}.mlp.c_proj", inner, itself)
    norm("ln_f", images[FINAL])
    params["readout.weight"] = 1 / images[FINAL].scale  # h = (a − c)/α
    params["readout.bias"] = -images[FINAL].shift / images[FINAL].scale
    dtype = teacher["wte.weight"].dtype
    own = {} if student.neuron.signed else {f"block.{e}.intermediate": {"u0": 0.0} for e in range(student.gpt.n_layer)}
    described = SpikingGptConfig(student.gpt, student.neuron, {**own, **student.populations})
    return described, {name: params[name].astype(dtype, copy=False) for name in student.shapes}
