"""Cases of the suites' second version: mistakes that the first one lets pass.

Each is for mistakes that were made on purpose and passed: constants that matter only together, masks of every form,
scores too large for a plain exponential, sizes that are no powers of two, long simulations, names of parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..ops import Array
from . import reference
from .cases import ALL, POPULATIONS, Arrays, Case, _belongs, _gradient_case, _network, _rng, eight_bits, parts

__all__ = ["sharper_cases"]

PRECISE = ("float64", "float32")
#: Neurons with every constant at once, and an ε of LayerNorm that shows.
CONSTANTS = {"leak": 0.9, "vth": 0.8, "u0": 0.5, "tie": 0.0625, "epsilon": 2.0**-6}


def sharper_cases(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    """Yield the cases that the second version adds.

    Parameters
    ----------
    sizes : mapping
    seed : int

    Yields
    ------
    case : Case
    """
    yield from _neurons(seed)
    yield from _large(sizes, seed)
    yield from _all_padded(seed)
    yield from _combined(sizes, seed)
    yield from _padded(sizes, seed)
    yield from _single(sizes, seed)
    yield from _updates(seed)


def _neurons(seed: int) -> Iterator[Case]:
    steps, tie = 24, {"vth": 2.0, "leak": 1.0, "u0": 0.0, "tie": 0.0625}
    draws = _rng(seed, "neurons/wide-tie").normal(0.4, 0.5, (steps, 20000))
    current = np.clip(np.rint(draws * 32) / 32, -0.5, 2) * 2.0
    u, low, met, high = np.zeros(20000), *np.zeros((3, 20000), bool)
    for now in current:
        u = u + now
        low, met = low | ((u > 1.875) & (u < 2)), met | (u == 1.875)
        u = u - 2.0 * (u >= 1.875)
        high |= np.abs(u) > 8
    chosen = np.flatnonzero(low & met & ~high)[:16]
    yield Case(
        "neurons/wide-tie", "neuron", "S-2", "neurons", ("neurons", "neurons:tie"), {"neuron": tie},
        {"current": current[:, chosen].reshape(steps, 2, 8)}, exact=ALL,
        note="V_th = 2, δ = 1/16: fires from 15/8 on, not from V_th − δ, and still subtracts V_th; exact",
    )  # fmt: skip
    spikes = (_rng(seed, "asr/300").random((300, 3, 5)) < 0.6).astype(float)
    spikes[..., 0] = 1.0
    yield Case("asr/300-leak-1", "neuron", "S-5", "asr", ("asr",), {"leak": 1.0}, {"spikes": spikes},
               note="300 steps: more than bytes and half precisions count")  # fmt: skip


def _large(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    rng = _rng(seed, "ops/large")
    n, d, heads = sizes["positions"], sizes["width"], sizes["heads"]

    def large(*shape: int) -> Array:
        """Numbers around 1000 and −1000, eight bits each: multiples of 4 and 8."""
        return eight_bits(rng.choice([-1000.0, 1000.0], shape) + 4 * rng.integers(0, 4, shape))

    x = large(4, n)
    x[0], x[1] = -np.abs(x[0]), np.abs(x[1])
    wide = {name: eight_bits(32 * rng.normal(size=(2, n, d))) for name in ("query", "key")}
    wide |= {"value": eight_bits(rng.normal(size=(2, n, d))), "mask": np.zeros((2, 1, 1, n))}
    labels = rng.integers(0, 3, 4)
    for name, requirement, arrays, constants, dtypes in (
        ("softmax", "S-16", {"x": x}, {}, ALL),
        ("attention", "S-16", wide, {"heads": heads}, PRECISE),
        ("cross_entropy", "S-20", {"logits": large(4, 3), "labels": labels}, {}, ALL),
        ("soft_cross_entropy", "S-19", {"student": large(4, 3), "teacher": large(4, 3)}, {"temperature": 1.0}, ALL),
    ):
        note = "of about ±1000: no exponential overflows, and no logarithm is of 0"
        yield from _op(f"{name}-large", name, requirement, arrays, constants, dtypes, note, rng)


def _op(
    identity: str, name: str, requirement: str, arrays: Arrays, constants: dict[str, Any], dtypes: tuple[str, ...],
    note: str, rng: np.random.Generator,
) -> Iterator[Case]:  # fmt: skip
    """Yield an operation's case, and its pullback's."""
    settings = {"op": name, "constants": constants}
    yield Case(f"op/{identity}", "op", requirement, "op", (f"op:{name}",), settings, arrays, dtypes=dtypes, note=note)
    shape = np.shape(reference.op(name, arrays, constants, "float64"))
    cotangent = np.asarray(eight_bits(rng.normal(size=shape)))
    yield Case(f"pullback/{identity}", "op", requirement, "pullback", (f"pullback:{name}",), settings,
               {**arrays, "cotangent": cotangent}, dtypes=dtypes, note=note)  # fmt: skip


def _all_padded(seed: int) -> Iterator[Case]:
    # Scores are halves, so that adding −10000 does not round.
    rng = _rng(seed, "ops/all-padded")
    arrays = {name: rng.integers(-3, 4, (2, 5, 8)).astype(float) for name in ("query", "key", "value")}
    arrays["mask"] = np.zeros((2, 1, 1, 5))
    arrays["mask"][1] = -10000.0
    note = "all keys of the second sequence are padding: their weights are those without a mask"
    scores = {name: arrays[name] for name in ("query", "key", "mask")}
    yield from _op("attention_scores-all-padded", "attention_scores", "S-15", scores, {"heads": 2}, PRECISE, note, rng)
    yield from _op("attention-all-padded", "attention", "S-15", arrays, {"heads": 2}, PRECISE, note, rng)


def _combined(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    note = "feedback, λ = 0.9, V_th = 0.8, u0 = 1/2, δ = 1/16, ε = 1/64"
    config, inputs = _network(sizes, seed, "combined", feedback=True, settles=True, **CONSTANTS)
    neurons = ("neurons:lif", "neurons:u0", "neurons:tie")
    yield Case("rate_map/combined", "network", "S-30", "rate_map", ("rate_map", "rate_map:feedback"),
               {"config": config}, inputs, named={"scores/": "S-31"}, note=note)  # fmt: skip
    for rule, requirement in (("inst", "S-28"), ("running", "S-29")):
        yield Case(
            f"simulate/{rule}-combined", "network", requirement, "simulate",
            ("simulate", f"simulate:{rule}", "simulate:feedback", *neurons),
            {"config": config, "t_conv": sizes["t"], "rule": rule}, inputs, note=f"{note}, by certificate",
        )  # fmt: skip
        ties, tied = _network(sizes, seed, f"{rule}-tie-rule", tie=0.0625)
        yield Case(
            f"simulate/{rule}-tie-rule", "network", "S-2", "simulate", ("simulate", f"simulate:{rule}", "neurons:tie"),
            {"config": ties, "t_conv": sizes["t"], "rule": rule}, tied, note="δ = 1/16, by certificate",
        )  # fmt: skip
    for stage in ("internal", "prediction"):
        options: dict[str, Any] = {"feedback": True, **CONSTANTS}
        yield _gradient_case(sizes, seed, f"{stage}-combined", (f"gradients:{stage}", "gradients:feedback"), options,
                          None, note)  # fmt: skip
    cut = _gradient_case(sizes, seed, "internal-cut", ("gradients:internal",), {}, None,
                     "the teacher's scores are cut elsewhere than the student's, at −100")  # fmt: skip
    rng = _rng(seed, "gradients", "internal-cut", "scores")
    for name, scores in parts(cut.inputs, "scores").items():
        masked = rng.random(scores.shape) < 0.3
        shown = eight_bits(rng.normal(0, 1, scores.shape))
        shown.flat[:2] = -99.5, -100.5
        cut.inputs[f"scores/{name}"] = np.where(masked, -10000.0, shown)
    yield replace(cut, requirement="S-32")


#: Attention masks that no length describes: holes, padding on the left, nothing but padding.
def _masks(positions: int) -> Array:
    mask = np.ones((3, positions), np.int64)
    mask[0, 1::3] = 0
    mask[1, : positions // 2] = 0
    mask[2] = 0
    return mask


def _padded(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    """Networks whose padding id is 3, with tokens of that id, masked tokens of others, and masks of every form."""
    mask = _masks(sizes["positions"])
    padding = 3

    def padded(config: dict[str, Any], inputs: Arrays, rows: int, rng: np.random.Generator) -> None:
        ids = rng.integers(0, sizes["vocab"], (rows, sizes["positions"]))
        ids[mask[:rows] == 0] = rng.integers(padding + 1, sizes["vocab"], int((mask[:rows] == 0).sum()))
        ids[0, :3], ids[1, -1] = (0, padding, padding), padding  # id 0 is a token, the padding id a token and padding
        inputs |= {"batch/input_ids": ids, "batch/attention_mask": mask[:rows]}
        inputs["batch/token_type_ids"] = rng.integers(0, 2, ids.shape)
        config["pad_token_id"] = padding

    note = "holes and padding on the left; the padding id is 3, and says nothing about the mask"
    for name, rows in (("rate_map", 2), ("simulate", 3)):
        config, inputs = _network(sizes, seed, f"{name}-padding")
        padded(config, inputs, rows, _rng(seed, name, "padding"))
        settings = {"config": config} | ({"t_conv": sizes["t"], "rule": "inst"} if name == "simulate" else {})
        features = (name, "simulate:inst") if name == "simulate" else (name,)
        yield Case(f"{name}/padding", "network", "S-15", name, features, settings, inputs,
                   note=note + ("; one row is all padding, by certificate" if rows == 3 else ""))  # fmt: skip
    case = _gradient_case({**sizes, "batch": 2}, seed, "internal-padding", ("gradients:internal",), {}, None, note)
    padded(case.settings["config"], case.inputs, 2, _rng(seed, "internal", "padding"))
    yield case
    config, inputs = _network(sizes, seed, "currents-holes")
    rng = _rng(seed, "currents-holes")
    shape = (3, *mask.shape, sizes["width"])
    reads = {f"read/{i}": (rng.random(shape) < 0.4).astype(float) for i in range(3)}
    own = {name: value for name, value in inputs.items() if _belongs(name.removeprefix("param/"), "context")}
    yield Case(
        "current/context-holes", "population", "S-15", "current", ("current", "current:context"),
        {"config": config, "population": "encoder.0.context"}, {**reads, **own, "mask": mask[[0, 1, 0]]},
        note="holes in the mask, and padding on the left",
    )  # fmt: skip


def _single(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    """Yield cases of one sequence alone; long simulations, where the suite has any, are of one."""
    one = {**sizes, "batch": 1}
    steps = sizes.get("long", sizes["t"])
    named = {f"encoder.{e}.{kind}": r for e in range(sizes["encoders"]) for kind, r in POPULATIONS.items()}
    config, inputs = _network(one, seed, "single")
    yield Case("rate_map/single", "network", "S-30", "rate_map", ("rate_map",), {"config": config}, inputs,
               named={**named, "embeddings": "S-21", "scores/": "S-31"}, note="one sequence")  # fmt: skip
    for rule, requirement in (("inst", "S-28"), ("running", "S-29")):
        config, inputs = _network(one, seed, f"{rule}-single")
        yield Case(
            f"simulate/{rule}-single", "network", requirement, "simulate", ("simulate", f"simulate:{rule}"),
            {"config": config, "t_conv": steps, "rule": rule}, inputs,
            note=f"one sequence, T = {steps}, by certificate",
        )  # fmt: skip
    for stage in ("internal", "prediction"):
        yield _gradient_case(one, seed, f"{stage}-single", (f"gradients:{stage}",), {}, None, "one sequence")


#: Parameters under their own names, one shape of each kind; which of them decay follows from the name.
NAMES = {
    "embeddings.word_embeddings.weight": (5, 3),
    "embeddings.position_embeddings.weight": (4, 3),
    "embeddings.token_type_embeddings.weight": (2, 3),
    "embeddings.LayerNorm.weight": (3,),
    "embeddings.LayerNorm.bias": (3,),
    "encoder.layer.0.attention.self.query.weight": (3, 3),
    "encoder.layer.0.attention.self.query.bias": (3,),
    "encoder.layer.0.attention.output.LayerNorm.weight": (3,),
    "encoder.layer.0.output.dense.weight": (3, 7),
    "feedback.weight": (3, 3),
    "fit.weight": (4, 3),
    "fit.bias": (4,),
    "classifier.weight": (2, 3),
    "classifier.bias": (2,),
}
#: Of these one gradient is 0, and one is missing.
ZERO, ABSENT = "encoder.layer.0.attention.self.query.weight", "embeddings.position_embeddings.weight"


def _updates(seed: int) -> Iterator[Case]:
    settings = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.125, "max_norm": 1.0}
    for name, more, features, note in (
        ("names", {"lr": 0.0625}, (), "names of a student; one gradient is 0 and one is missing"),
        ("warm-up", {"lr": 0.25, "step": 3, "steps": 64, "warmup": 0.125}, ("update:warmup",),
         "step 3 of 64, of which 8 warm up: the rate is 3/8 of lr"),
        ("warm-down", {"lr": 0.25, "step": 36, "steps": 64, "warmup": 0.125}, ("update:warmup",),
         "step 36 of 64, of which 8 warm up: the rate is 1/2 of lr"),
    ):  # fmt: skip
        rng = _rng(seed, "update", name)
        inputs: Arrays = {}
        for i, (parameter, shape) in enumerate(NAMES.items()):
            inputs[f"param/{parameter}"] = eight_bits(rng.normal(0, 1, shape))
            inputs[f"gradient/{parameter}"] = eight_bits(rng.normal(0, 0.02 if i % 2 else 2.0, shape))
            inputs[f"m/{parameter}"] = eight_bits(rng.normal(0, 0.1, shape))
            inputs[f"v/{parameter}"] = eight_bits(rng.random(shape) * 0.01 + 0.001)
        inputs[f"gradient/{ZERO}"] = np.zeros(NAMES[ZERO])
        del inputs[f"gradient/{ABSENT}"]
        yield Case(f"update/{name}", "distillation", "S-36", "update", ("update", *features),
                   {"optimiser": {**settings, **more}}, inputs, dtypes=PRECISE, note=note)  # fmt: skip
