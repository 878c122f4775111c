"""Known mistakes of losses, of the optimiser's step and of averages of spikes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...model.student import StudentConfig
from .. import reference
from ..cases import Arrays, Case, parts

__all__ = [
    "UPDATE_MISTAKES",
]


def loss_mistakes(case: Case) -> Iterator[tuple[str, Arrays]]:
    """Return wrong losses and logits; their gradients are not needed to know them."""
    config, params, inputs = case.settings["config"], parts(case.inputs, "param"), case.inputs
    rates = reference.rate_map(config, params, parts(inputs, "batch"), "float64")
    values = rates | parts(inputs, "simulated")
    last = [values[name] for name in StudentConfig.from_dict(config).network.readouts]
    if "logits" in inputs:
        weight, bias = params["classifier.weight"], params["classifier.bias"]
        yield "positions are averaged instead of taking [CLS]", {"logits": last[-1].mean(axis=1) @ weight.T + bias}
        yield "tanh stands in for ReLU", {"logits": np.tanh(last[-1][:, 0]) @ weight.T + bias}
        return
    off = [
        (read @ params["fit.weight"].T + params["fit.bias"] - target) ** 2
        for read, target in zip(last, parts(inputs, "hidden").values(), strict=True)
    ]
    pairs = [(rates[f"scores/{e}"], target) for e, target in enumerate(parts(inputs, "scores").values())]
    tokens = inputs["batch/attention_mask"] == 1
    yield "padding is left out of the hidden loss", {"hidden": np.sum([d[tokens].mean() for d in off])}
    kept = np.sum([((score - target) ** 2).mean() for score, target in pairs])
    yield "masked scores are kept in the attention loss", {"attention": kept}
    seen = np.sum([((score - target)[target > -100] ** 2).mean() for score, target in pairs])
    yield "the attention loss is averaged over what is not masked", {"attention": seen}
    yield "losses are averaged over layers", {"hidden": np.mean([d.mean() for d in off])}


#: (sentence, what is changed of the step).
UPDATE_MISTAKES: list[tuple[str, dict[str, bool]]] = [
    ("moments are corrected for bias, as after the first step", {"corrected": True}),
    ("one norm of all gradients together is clipped", {"together": True}),
    ("gradients are not clipped", {"clips": False}),
    ("biases and LayerNorm weights decay too", {"everything": True}),
    ("the decay is added to the gradient", {"coupled": True}),
    ("ε is inside the root", {"inside": True}),
]


def updated(
    case: Case,
    clips: bool = True,
    together: bool = False,
    everything: bool = False,
    coupled: bool = False,
    corrected: bool = False,
    inside: bool = False,
) -> Arrays:
    """Return a step of BertAdam, changed."""
    s, a = case.settings["optimiser"], case.inputs
    gradients = parts(a, "gradient")
    norms = {name: float(np.linalg.norm(g)) for name, g in gradients.items()}
    whole = math.hypot(*norms.values())
    found: Arrays = {}
    for name, g in gradients.items():
        norm = whole if together else norms[name]
        if clips and norm > s["max_norm"]:
            g = g * (s["max_norm"] / (norm + 1e-6))
        decay = s["weight_decay"] * (everything or not name.endswith(("bias", "LayerNorm.weight"))) * a[f"param/{name}"]
        g = g + decay if coupled else g
        m = s["beta1"] * a[f"m/{name}"] + (1 - s["beta1"]) * g
        v = s["beta2"] * a[f"v/{name}"] + (1 - s["beta2"]) * g * g
        first, second = (m / (1 - s["beta1"]), v / (1 - s["beta2"])) if corrected else (m, v)
        root = np.sqrt(second + s["eps"]) if inside else np.sqrt(second) + s["eps"]
        step = first / root + (0 if coupled else decay)
        found |= {f"param/{name}": a[f"param/{name}"] - s["lr"] * step, f"m/{name}": m, f"v/{name}": v}
    return found


def asr_mistakes(case: Case) -> Iterator[tuple[str, Any]]:
    spikes, leak = case.inputs["spikes"], case.settings["leak"]
    t = len(spikes)
    yield "divided by T + 1", spikes.sum(axis=0) / (t + 1)
    yield "divided by T − 1", spikes.sum(axis=0) / (t - 1)
    yield "the first step is left out of the average", spikes[1:].mean(axis=0)
    yield "the plain mean is taken, not the leak-weighted one", spikes.mean(axis=0)
    yield "weights are in reverse: λ^(t−1)", reference.asr(spikes[::-1], leak, "float64")
    yield (
        "weights λ^(T−t) are not divided by their sum but by T",
        (np.tensordot(leak ** np.arange(t - 1, -1, -1.0), spikes, axes=(0, 0)) / t),
    )
