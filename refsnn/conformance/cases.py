"""The cases: inputs on which a backend is asked for its answer, level by level.

A case holds inputs only. Its answer is what the reference adapter gives (`refsnn.conformance.reference`), and how far
others may lie from it follows from its own sensitivity, so nothing is stored that could grow stale. Real inputs are
random numbers of eight significant bits, which every precision down to bfloat16 has: one set of inputs, one answer, for
all of them. Exceptions say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import Any, Literal, get_args

import numpy as np

from ..errors import NotConverged
from ..model.batch import Batch
from ..model.neurons import Neuron, fire, membrane_potential
from ..model.parameters import initial_parameters
from ..model.shapes import BertConfig, network_shapes
from ..model.student import StudentConfig
from ..ops import Array
from ..ops.rounding import MIXED
from ..readings.equilibrium import Search, equilibrium
from . import reference

__all__ = [
    "SUITES",
    "VANISHING",
    "VERSION",
    "Case",
    "Level",
    "call",
    "cases",
    "fingerprint",
    "named_answer",
    "parts",
    "question",
    "with_padding_row",
]

Level = Literal["neuron", "op", "population", "encoder", "network", "distillation"]
Arrays = dict[str, Array]

#: A gradient is compared relative to its largest entry, or to this fraction of the case's largest gradient if that is
#: more: some vanish in exact arithmetic (a key's bias shifts all scores of a query alike), and are rounding alone.
VANISHING = 1e-2

#: Sizes of the networks of each suite: batch, positions, width, heads, intermediate, encoders, vocabulary, T, and T of
#: the few long simulations where it is another.
SUITES: dict[str, dict[str, int]] = {
    "tiny": {"batch": 2, "positions": 5, "width": 6, "heads": 2, "inner": 10, "encoders": 2, "vocab": 11, "t": 16},
    # The size of tiny: spikes of −1, synapses of the residual, thresholds of single neurons, none of them the paper's.
    "signed": {"batch": 2, "positions": 5, "width": 6, "heads": 2, "inner": 10, "encoders": 2, "vocab": 11, "t": 16},
    # The same size again, of the family of GPT-2s.
    "gpt": {"batch": 2, "positions": 5, "width": 6, "heads": 2, "inner": 10, "encoders": 2, "vocab": 11, "t": 16},
    "base": {"batch": 4, "positions": 16, "width": 64, "heads": 4, "inner": 256, "encoders": 4, "vocab": 97, "t": 64},
    "odd": {
        "batch": 3,
        "positions": 19,
        "width": 36,
        "heads": 3,
        "inner": 300,
        "encoders": 2,
        "vocab": 101,
        "t": 24,
        "long": 300,
    },
}
#: What cases the suites hold: version 2 added those of `refsnn.conformance.sharper`.
VERSION = 2


@dataclass(frozen=True, eq=False)  # one case is itself and no other, so that its answer can be kept
class Case:
    """One question to a backend.

    Attributes
    ----------
    id : str
    level : str
    requirement : str
        Id of the requirement that a wrong answer violates, unless `named` says otherwise for a quantity.
    function : str
        The adapter's function that is called.
    features : tuple of str
        What the adapter must support.
    settings : dict
        JSON: constants, configuration.
    inputs : dict
        Flat name -> array; a prefix groups them (``param/…``, ``batch/…``).
    named : dict
        Beginning of a quantity's name -> requirement.
    exact : tuple of str
        Precisions in which every correct backend answers bit for bit the same: all numbers are dyadic, so that no sum
        rounds, in whatever order.
    dtypes : tuple of str
        Precisions that the case is for.
    note : str
        What it looks at.
    """

    id: str
    level: Level
    requirement: str
    function: str
    features: tuple[str, ...]
    settings: dict[str, Any]
    inputs: Arrays
    named: dict[str, str] = field(default_factory=dict)
    exact: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("float64", "float32", "float16", "bfloat16")
    note: str = ""

    def asked_in(self, dtype: str) -> bool:
        """Whether the case is for a precision; those of accelerators are asked what bfloat16 is."""
        return ("bfloat16" if dtype in MIXED else dtype) in self.dtypes

    def exact_in(self, dtype: str) -> bool:
        """Whether every correct backend answers bit for bit the same in a precision."""
        return ("bfloat16" if dtype in MIXED else dtype) in self.exact

    @property
    def multiplies(self) -> bool:
        """Whether the answer takes matrix products."""
        if self.function in ("op", "pullback"):
            return self.settings["op"] in ("linear", "attention_scores", "attention", "causal_attention")
        return self.function in ("current", "rate_map", "gradients")

    def requirement_of(self, quantity: str) -> str:
        """Id of the requirement that this quantity shows."""
        return next((r for start, r in self.named.items() if quantity.startswith(start)), self.requirement)


def parts(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Entries of a flat dict under a prefix, without it.

    Parameters
    ----------
    arrays : mapping
    prefix : str

    Returns
    -------
    part : dict
    """
    return {name.removeprefix(prefix + "/"): v for name, v in arrays.items() if name.startswith(prefix + "/")}


def question(case: Case, inputs: Arrays, dtype: str) -> tuple[Any, ...]:
    """Arguments that a case calls the adapter's function with.

    Parameters
    ----------
    case : Case
    inputs : dict
        The case's, in the precision's arrays.
    dtype : str

    Returns
    -------
    arguments : tuple
    """
    s = case.settings
    params, batch = parts(inputs, "param"), parts(inputs, "batch")
    match case.function:
        case "neurons":
            return inputs["current"], dict(s["neuron"]), dtype
        case "asr":
            return inputs["spikes"], s["leak"], dtype
        case "op":
            return s["op"], dict(inputs), dict(s["constants"]), dtype
        case "pullback":
            arrays = {name: value for name, value in inputs.items() if name != "cotangent"}
            return s["op"], arrays, dict(s["constants"]), inputs["cotangent"], dtype
        case "current":
            reads = [inputs[f"read/{i}"] for i in range(len(parts(inputs, "read")))]
            return s["config"], params, s["population"], reads, inputs["mask"], dtype
        case "rate_map":
            return s["config"], params, batch, dtype
        case "simulate":
            return s["config"], params, batch, s["t_conv"], s["rule"], dtype
        case "gradients":
            hidden, scores = parts(inputs, "hidden"), parts(inputs, "scores")
            targets: dict[str, Any] = {"logits": inputs.get("logits"), "temperature": s.get("temperature")}
            if hidden:
                targets = {"hidden": list(hidden.values()), "scores": list(scores.values())}
            elif "labels" in inputs:
                targets = {"labels": inputs["labels"]}
            return s["config"], params, batch, targets, parts(inputs, "simulated") or None, dtype
        case "update":
            moments = {moment: parts(inputs, moment) for moment in "mv"}
            return params, parts(inputs, "gradient"), moments, dict(s["optimiser"]), dtype
    raise ValueError(f"no adapter function is called {case.function}")


#: The functions whose answer is one array, and what the kit calls it.
SINGLE = {"neurons": "spikes", "asr": "asr", "op": "y", "current": "current"}


def named_answer(case: Case, found: Any) -> dict[str, Any]:
    """Name the quantities of an answer as the kit does.

    Parameters
    ----------
    case : Case
    found : object
        What the adapter's function returned.

    Returns
    -------
    answer : dict
        Quantity -> what was returned for it.
    """
    if case.function in SINGLE:
        return {SINGLE[case.function]: found}
    if not isinstance(found, Mapping):
        raise TypeError(f"{case.function} returned a {type(found).__name__}, but a dict of arrays was expected")
    if case.function == "pullback":
        return {f"d{name}": found.get(name) for name in reference.OPS[case.settings["op"]][1]}
    return dict(found)


def with_padding_row(case: Case, answer: dict[str, Any]) -> dict[str, Any]:
    """Put the gradient of the padding id's word embedding first, a quantity of its own.

    Parameters
    ----------
    case : Case
    answer : dict

    Returns
    -------
    answer : dict
    """
    table, row = None, None
    if case.function == "pullback":
        table, row = answer.get("dtable"), case.settings["constants"].get("frozen_row")
    elif case.function == "gradients":
        table = answer.get("gradient/embeddings.word_embeddings.weight")
        row = case.settings["config"].get("pad_token_id")
    shaped = table is not None and row is not None and np.ndim(table) == 2 and len(table) > row
    return {"padding row": table[row], **answer} if shaped else answer  # type: ignore[index]


def call(adapter: Any, case: Case, inputs: Arrays, dtype: str) -> dict[str, Any]:
    """Put a case to an adapter that is trusted; `refsnn.conformance.ask` is for all others.

    Parameters
    ----------
    adapter : module or object
    case : Case
    inputs : dict
        The case's, in the precision's arrays.
    dtype : str

    Returns
    -------
    answer : dict
        Quantity -> array.
    """
    found = getattr(adapter, case.function)(*question(case, inputs, dtype))
    return with_padding_row(case, named_answer(case, found))


def eight_bits(x: Array) -> Array:
    """Round to eight significant bits, which bfloat16 has too.

    Parameters
    ----------
    x : array

    Returns
    -------
    x : array of float64

    Examples
    --------
    >>> eight_bits(np.array([0.1, 300.0]))
    array([1.00097656e-01, 3.00000000e+02])
    """
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.rint(mantissa * 256) / 256, exponent)


def cases(suite: str = "tiny", seed: int = 0, version: int = VERSION) -> list[Case]:
    """All cases of a suite.

    Parameters
    ----------
    suite : {"tiny", "base", "odd", "signed", "gpt"}
    seed : int
        One seed fixes every number.
    version : int
        Of the suites; a later one adds cases and changes none.

    Returns
    -------
    cases : list of Case
    """
    sizes = SUITES[suite]
    if suite == "signed":
        found = [*_signed_neurons(seed), *_signed_networks(sizes, seed)]
    elif suite == "gpt":
        from .gpt_cases import gpt_cases

        found = list(gpt_cases(sizes, seed))
    else:
        found = [*_neurons(seed), *_rates(seed), *_ops(sizes, seed), *_networks(sizes, seed)]
    if version >= 2 and suite not in ("signed", "gpt"):
        from .sharper import sharper_cases

        found += sharper_cases(sizes, seed)
        found.sort(key=lambda case: get_args(Level).index(case.level))  # stable: from the parts to the whole
    assert len({case.id for case in found}) == len(found)
    return found


def fingerprint(chosen: Iterable[Case]) -> str:
    """Return a short hash of cases: two runs with the same one were asked the same.

    Parameters
    ----------
    chosen : iterable of Case

    Returns
    -------
    hash : str
    """
    held = sha256()
    for case in chosen:
        held.update(f"{case.id} {case.function} {json.dumps(case.settings, sort_keys=True)}".encode())
        for name, value in case.inputs.items():
            held.update(f"{name} {value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    return held.hexdigest()[:12]


def _rng(seed: int, *name: str) -> np.random.Generator:
    """Return a generator for each case, so that a new one does not change the others."""
    return np.random.default_rng([seed, *"/".join(name).encode()])


ALL = ("float64", "float32", "float16", "bfloat16")


#: Steps of a neuron's case.
STEPS = 24


def _neuron_case(
    kind: str, requirement: str, note: str, current: Array, exact=(), features=(), **neuron: Any
) -> Case:  # fmt: skip
    constants = {"vth": 1.0, "leak": 1.0, "u0": 0.0, "tie": 0.0} | neuron
    return Case(
        f"neurons/{kind}", "neuron", requirement, "neurons", ("neurons", *features), {"neuron": constants},
        {"current": current}, exact=exact, note=note,
    )  # fmt: skip


def _dyadic(
    seed: int, kind: str, mean: float, steps: int = STEPS, grain: float = 8, low: float = -0.5, **neuron: Any
) -> Array:
    """Currents that are multiples of V_th/8 between −1/2 and 2, at which no potential meets a level."""
    constants = Neuron(tie=0.0, **neuron)
    draws = _rng(seed, "neurons", kind).normal(mean, 0.5, (steps, 1000))
    current = np.clip(np.rint(draws * grain) / grain, low, 2) * constants.vth
    u = membrane_potential(current, fire(current, constants)[0], constants)
    levels = np.array(constants.levels("float64"))
    apart = np.flatnonzero((u[..., None] != levels).all(axis=(0, 2)))[:16]
    return current[:, apart].reshape(steps, 2, 8)


def _neurons(seed: int) -> Iterator[Case]:
    t, case, dyadic = STEPS, _neuron_case, partial(_dyadic, seed)
    lif, both = ("neurons:lif",), ("float64", "float32")
    impulse = np.zeros((t, 2, 8))
    impulse[np.arange(8), :, np.arange(8)] = 1.25
    yield case("impulse", "S-3", "one impulse at step 1 … 8: the spike comes in that step; exact", impulse, ALL)
    yield case("subtract", "S-1", "reset by subtraction; exact", dyadic("subtract", 0.5), ALL)
    yield case("negative", "S-1", "inhibition carries the charge below zero; exact", dyadic("negative", 0.0), ALL)
    yield case("threshold", "S-1", "V_th = 2; exact", dyadic("threshold", 0.4, vth=2.0), ALL, vth=2.0)
    yield case("threshold-half", "S-1", "V_th = 1/2; exact", dyadic("threshold-half", 0.4, vth=0.5), ALL, vth=0.5)
    # λ = 1/2 takes one more bit a step: 16 steps of multiples of 1/4 stay within float32's 24.
    yield case("leak-half", "S-1", "λ = 1/2: the leak acts after the reset; exact",
               dyadic("leak-half", 0.7, 16, 4, leak=0.5), both, lif, leak=0.5)  # fmt: skip
    yield case("ties", "S-2", "every neuron meets the threshold exactly, again and again; exact",
               np.tile([0.25, 0.5, 1.0, 0.125, 0.75, 0.375, 0.625, 0.875], (t, 2, 1)), ALL)  # fmt: skip
    yield case("one-spike", "S-2", "currents far above the threshold: still one spike a step; exact",
               np.concatenate([np.full((4, 2, 8), 2.5), np.full((t - 4, 2, 8), 0.15625)]), ALL)  # fmt: skip
    yield case(
        "half-charge", "S-4", "u0 = 1/2; exact", dyadic("half-charge", 0.4, u0=0.5), ALL, ("neurons:u0",), u0=0.5
    )
    yield case("threshold-charge", "S-4", "u0 = 1/2 and V_th = 2: the charge is in units of V_th; exact",
               dyadic("threshold-charge", 0.4, vth=2.0, u0=0.5), ALL, ("neurons:u0",), vth=2.0, u0=0.5)  # fmt: skip
    yield case("leak-charge", "S-4", "λ = 1/2 and u0 = 1/2: the leak acts on the charge at step 1; exact",
               dyadic("leak-charge", 0.6, 16, 4, leak=0.5, u0=0.5), both, (*lif, "neurons:u0"),
               leak=0.5, u0=0.5)  # fmt: skip
    rng = _rng(seed, "neurons/random")
    yield case("random", "S-1", "random currents, by certificate", eight_bits(rng.normal(0.4, 0.6, (t, 2, 8))))
    yield case("random-leak", "S-1", "λ = 0.9 and V_th = 0.8, by certificate",
               eight_bits(rng.normal(0.4, 0.6, (t, 2, 8))), (), lif, leak=0.9, vth=0.8)  # fmt: skip
    short = np.full((t, 2, 8), 1.0) * [1, 0.5, 1, 0.25, 1, 0.5, 0.25, 1]
    short[..., ::2] *= 1 - 2.0**-40
    yield Case(
        "neurons/tie-rule", "neuron", "S-2", "neurons", ("neurons", "neurons:tie"),
        {"neuron": {"vth": 1.0, "leak": 1.0, "u0": 0.0, "tie": 2.0**-30}}, {"current": short},
        exact=("float64",), dtypes=("float64",), note="δ = 2⁻³⁰: potentials at V_th and a little below it fire; exact",
    )  # fmt: skip


def _signed_neurons(seed: int) -> Iterator[Case]:
    dyadic, lif, charged = partial(_dyadic, seed), ("neurons:lif",), ("neurons:u0",)
    for polarity, requirement, mean in (("retractable", "S-38", 0.1), ("ternary", "S-39", 0.0)):

        def case(kind, note, current, exact=(), features=(), polarity=polarity, requirement=requirement, **neuron):
            features = (f"polarity:{polarity}", *features)
            neuron["polarity"] = polarity
            return _neuron_case(f"{polarity}-{kind}", requirement, note, current, exact, features, **neuron)

        own: dict[str, Any] = {"low": -2, "polarity": polarity}
        start = 0.5 if polarity == "retractable" else -0.25
        yield case("plain", "both levels; exact", dyadic(f"{polarity}-plain", mean, **own), ALL)
        yield case("threshold", "V_th = 2; exact", dyadic(f"{polarity}-threshold", mean, vth=2.0, **own), ALL, vth=2.0)
        yield case("charge", f"u0 = {start:g}; exact", dyadic(f"{polarity}-charge", mean, u0=start, **own), ALL,
                   charged, u0=start)  # fmt: skip
        yield case("leak", "λ = 1/2; exact", dyadic(f"{polarity}-leak", mean, 16, 4, leak=0.5, **own),
                   ("float64", "float32"), lif, leak=0.5)  # fmt: skip
        yield case("ties", "potentials meet both levels again and again; exact", _meeting(polarity), ALL)
        drawn = eight_bits(_rng(seed, "neurons", polarity, "random").normal(mean, 0.8, (STEPS, 2, 8)))
        yield case("random", "λ = 0.9 and V_th = 0.8, by certificate", drawn, (), lif, leak=0.9, vth=0.8)
        near = 1 - 2.0**-40 * (np.arange(8) % 2)
        features = ("neurons", "neurons:tie", f"polarity:{polarity}")
        neuron = {"vth": 1.0, "leak": 1.0, "u0": 0.0, "tie": 2.0**-30, "polarity": polarity}
        yield Case(
            f"neurons/{polarity}-tie-rule", "neuron", requirement, "neurons", features, {"neuron": neuron},
            {"current": _meeting(polarity) * near}, exact=("float64",), dtypes=("float64",),
            note="δ = 2⁻³⁰: potentials at a level and a little off it are decided alike; exact",
        )  # fmt: skip


def _meeting(polarity: str) -> Array:
    """Currents under which potentials meet the levels exactly: V_th and 0, or ±V_th/2."""
    ups = np.array([1, 0.5, 1.5, 0.25, 0.75, 1, 0.5, 2]) * (0.5 if polarity == "ternary" else 1)
    signs = np.where(np.arange(STEPS) % 8 < 3, 1, np.where(np.arange(STEPS) % 8 < 6, -1, 0))
    return np.tile(signs[:, None, None] * ups, (1, 2, 1))


def _rates(seed: int) -> Iterator[Case]:
    rng = _rng(seed, "asr")
    for t, leak, requirement, note in (
        (16, 1.0, "S-5", "the mean of 16 steps; exact"),
        (10, 1.0, "S-5", "the mean of 10 steps"),
        (12, 0.75, "S-6", "weights λ^(T−t), λ = 3/4"),
        (12, 0.5, "S-6", "weights λ^(T−t), λ = 1/2"),
    ):
        spikes = (rng.random((t, 3, 5)) < 0.3).astype(float)
        exact = ALL if (t, leak) == (16, 1.0) else ()
        yield Case(
            f"asr/{t}-leak-{leak:g}", "neuron", requirement, "asr", ("asr",) if leak == 1 else ("asr", "asr:leak"),
            {"leak": leak}, {"spikes": spikes}, exact=exact, note=note,
        )  # fmt: skip


def _ops(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    rng = _rng(seed, "ops")
    d, inner, heads, n = sizes["width"], sizes["inner"], sizes["heads"], sizes["positions"]

    def normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> Array:
        return eight_bits(rng.normal(shift, scale, shape))

    open_ = np.zeros((2, 1, 1, n))
    mask = open_.copy()
    mask[1, ..., -2:] = -10000.0
    hidden = np.zeros((2, 1, 1, 8))
    hidden[..., 4:] = -10000.0
    integers = {name: rng.integers(-4, 5, shape).astype(float) for name, shape in
                {"x": (3, d), "weight": (inner, d), "bias": (inner,)}.items()}  # fmt: skip
    ids = rng.integers(0, 7, (2, 5))
    ids[0, :2] = 0
    labels = rng.integers(0, 3, 4)
    near = 4 + rng.integers(-3, 4, (3, d)) / 32  # eight bits
    qkv = {"query": normal(2, n, d), "key": normal(2, n, d), "value": normal(2, n, d)}
    uniform = {"query": np.zeros((2, 4, d)), "key": rng.integers(0, 2, (2, 8, d)).astype(float),
               "value": rng.integers(0, 2, (2, 8, d)).astype(float)}  # fmt: skip
    # name, variant, requirement of the value, of the pullback, arrays, constants, exact, note
    table: list[tuple[str, str, str, str, Arrays, dict[str, Any], tuple[str, ...], str]] = [
        ("embedding", "", "S-9", "S-9", {"ids": ids, "table": normal(7, d)}, {"frozen_row": 0}, ALL,
         "repeated ids, and the padding id 0; the value is exact"),
        ("linear", "", "S-11", "S-11", {"x": normal(2, 3, d), "weight": normal(inner, d), "bias": normal(inner)},
         {}, (), ""),
        ("linear", "integers", "S-11", "S-11", integers, {}, ALL, "small integers; exact"),
        ("layer_norm", "", "S-12", "S-12", {"x": normal(3, d), "weight": normal(d, shift=1.0), "bias": normal(d)},
         {"eps": 1e-12}, (), ""),
        ("layer_norm", "small", "S-12", "S-12",
         {"x": normal(3, d, scale=2.0**-10), "weight": normal(d), "bias": normal(d)}, {"eps": 1e-12}, (),
         "rows of size 1e-3: a larger ε shows"),
        ("layer_norm", "epsilon", "S-12", "S-12",
         {"x": normal(3, d, scale=2.0**-6), "weight": normal(d), "bias": normal(d)}, {"eps": 2.0**-12}, (),
         "ε as large as the variance: whether it is inside the root"),
        ("layer_norm", "near-constant", "S-12", "S-12", {"x": near, "weight": normal(d), "bias": normal(d)},
         {"eps": 1e-12}, (), "rows 4 ± 1/32"),
        ("gelu", "", "S-13", "S-13", {"x": eight_bits(np.linspace(-6, 6, 97))}, {}, (), "from −6 to 6"),
        ("relu", "", "S-17", "S-17", {"x": np.append(normal(20), [0.0, 0.0])}, {}, ALL, "0 is among the inputs; exact"),
        ("tanh", "", "S-17", "S-17", {"x": normal(20)}, {}, (), ""),
        ("rate", "", "S-7", "S-8", {"current": eight_bits(np.linspace(-2.03, 4.07, 61))}, {"vth": 2.0}, ALL,
         "V_th = 2; below, inside and above; exact"),
        ("rate", "threshold-1.5", "S-7", "S-8", {"current": normal(4, d, scale=2.0)}, {"vth": 1.5}, (), ""),
        ("attention_scores", "", "S-14", "S-14",
         {"query": qkv["query"], "key": qkv["key"], "mask": open_}, {"heads": heads}, (), "without mask"),
        ("attention_scores", "masked", "S-15", "S-14", {"query": qkv["query"], "key": qkv["key"], "mask": mask},
         {"heads": heads}, (), "the last two keys of the second sequence are padding"),
        ("softmax", "", "S-16", "S-16", {"x": normal(3, n, scale=3.0)}, {}, (), ""),
        ("attention", "", "S-16", "S-16", {**qkv, "mask": open_}, {"heads": heads}, (), "without mask"),
        ("attention", "masked", "S-15", "S-16", {**qkv, "mask": mask}, {"heads": heads}, (), "with padding"),
        ("attention", "uniform", "S-16", "S-16", {**uniform, "mask": hidden}, {"heads": heads}, ALL,
         "queries 0: the mean of the four real keys' spikes; exact"),
        ("mse", "", "S-18", "S-18", {"prediction": normal(3, d), "target": normal(3, d)}, {}, (), ""),
        ("soft_cross_entropy", "", "S-19", "S-19", {"student": normal(4, 3), "teacher": normal(4, 3, scale=2.0)},
         {"temperature": 1.0}, (), "three classes"),
        ("soft_cross_entropy", "temperature", "S-19", "S-19",
         {"student": normal(4, 2), "teacher": normal(4, 2, scale=2.0)}, {"temperature": 2.0}, (), "τ = 2"),
        ("cross_entropy", "", "S-20", "S-20", {"logits": normal(4, 3), "labels": labels}, {}, (), ""),
    ]  # fmt: skip
    for name, variant, of_value, of_pullback, arrays, constants, exact, note in table:
        identity = f"{name}-{variant}" if variant else name
        settings = {"op": name, "constants": constants}
        yield Case(f"op/{identity}", "op", of_value, "op", (f"op:{name}",), settings, arrays, exact=exact, note=note)
        y = reference.op(name, arrays, constants, "float64")
        cotangent = normal(*np.shape(y))
        yield Case(
            f"pullback/{identity}", "op", of_pullback, "pullback", (f"pullback:{name}",), settings,
            {**arrays, "cotangent": np.asarray(cotangent)}, named={"padding row": "S-10"}, note=note,
        )  # fmt: skip
    wide = {"x": rng.normal(0, 1, (2, 256)), "weight": rng.normal(0, 1, (3, 256)), "bias": rng.normal(0, 1, 3)}
    for dtype, unit in (("float64", np.float64), ("float32", np.float32)):
        arrays = {name: value.astype(unit).astype(float) for name, value in wide.items()}
        yield Case(
            f"op/linear-wide-{dtype}", "op", "S-37", "op", ("op:linear",), {"op": "linear", "constants": {}}, arrays,
            dtypes=(dtype,), note=f"256 products of full {dtype} numbers",
        )  # fmt: skip
    flat = {"x": rng.normal(0, 1, (2, 256)) + 8, "weight": rng.normal(1, 0.2, 256), "bias": rng.normal(0, 1, 256)}
    for dtype, unit in (("float64", np.float64), ("float32", np.float32)):
        arrays = {name: value.astype(unit).astype(float) for name, value in flat.items()}
        yield Case(
            f"op/layer_norm-wide-{dtype}", "op", "S-37", "op", ("op:layer_norm",),
            {"op": "layer_norm", "constants": {"eps": 1e-12}}, arrays, dtypes=(dtype,),
            note=f"256 full {dtype} numbers around 8",
        )  # fmt: skip


#: The requirement that a population's current or rate shows.
POPULATIONS = {
    "embeddings": "S-21",
    "key": "S-22",
    "value": "S-22",
    "context": "S-23",
    "attention_output": "S-24",
    "intermediate": "S-25",
    "output": "S-26",
}


def _network(sizes: Mapping[str, int], seed: int, name: str, **options: Any) -> tuple[dict[str, Any], Arrays]:
    """Return configuration, parameters and batch of a random network; none of its parameters can be left out."""
    rng = _rng(seed, "network", name)
    encoders, feedback = options.pop("encoders", sizes["encoders"]), options.pop("feedback", False)
    settles = options.pop("settles", False)
    per_feature, norm = options.pop("per_feature", False), options.pop("norm", 0.3)
    config = BertConfig(
        hidden_size=sizes["width"],
        num_hidden_layers=encoders,
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["inner"],
        vocab_size=sizes["vocab"],
        max_position_embeddings=sizes["positions"] + 2,
        layer_norm_eps=options.pop("epsilon", 1e-12),
    )
    shapes = network_shapes(config, feedback, per_feature)
    params = initial_parameters(shapes, rng, 1.0 / np.sqrt(sizes["width"]), np.float64)
    params = {k: eight_bits(v + 0.2 * rng.normal(size=v.shape)) for k, v in params.items()}
    if feedback:
        size = np.linalg.norm(params["feedback.weight"], 2)
        params["feedback.weight"] = eight_bits(params["feedback.weight"] * (norm / size))
    lengths = np.maximum(sizes["positions"] - 2 * np.arange(sizes["batch"]), 2)
    mask = (np.arange(sizes["positions"]) < lengths[:, None]).astype(np.int64)
    ids = rng.integers(1, sizes["vocab"], mask.shape) * mask
    neuron = Neuron(**({"tie": 0.0} | options))
    inputs = {f"param/{k}": v for k, v in params.items()}
    inputs |= {"batch/input_ids": ids, "batch/token_type_ids": rng.integers(0, 2, mask.shape) * mask}
    inputs |= {"batch/attention_mask": mask}
    student = StudentConfig(config, neuron=neuron, feedback=feedback, per_feature=per_feature)
    if settles:
        _settle(student, inputs)
    return student.to_dict(), inputs


#: Sweeps in which a network with feedback that is asked for its equilibrium must have found it.
SWEEPS = 60


def _settle(student: StudentConfig, inputs: Arrays) -> None:
    """Halve the feedback until plain iteration finds the equilibrium in a few sweeps: any backend's will."""
    batch = Batch(**parts(inputs, "batch"))
    for _ in range(20):
        try:
            search = Search(tolerance=1e-12, max_evaluations=SWEEPS)
            equilibrium(student.network, parts(inputs, "param"), batch, search)
            return
        except NotConverged:
            inputs["param/feedback.weight"] = inputs["param/feedback.weight"] / 2
    raise AssertionError("the feedback is as good as 0, and the network does not settle")


def _networks(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    yield from _currents(sizes, seed)
    by_population = {f"encoder.{e}.{kind}": r for e in range(sizes["encoders"]) for kind, r in POPULATIONS.items()}
    by_population |= {"embeddings": "S-21", "scores/": "S-31"}
    levels: list[tuple[str, Level, tuple[str, ...], dict[str, Any], str]] = [
        ("encoder", "encoder", (), {"encoders": 1}, "one encoder"),
        ("network", "network", (), {}, "all encoders"),
        ("threshold", "network", (), {"vth": 1.5}, "V_th = 1.5"),
        ("feedback", "network", ("rate_map:feedback",), {"feedback": True}, "a true fixed point"),
    ]
    for name, level, features, options, note in levels:
        config, inputs = _network(sizes, seed, name, settles=name == "feedback", **options)
        named = by_population if name != "feedback" else {}
        if name == "threshold":
            named = {"scores/": "S-31"}
        requirement = {"threshold": "S-7"}.get(name, "S-30")
        yield Case(
            f"rate_map/{name}", level, requirement, "rate_map", ("rate_map", *features), {"config": config}, inputs,
            named=named, note=note,
        )  # fmt: skip
    for name, requirement, features, rule, options, note in (
        ("one-step", "S-27", (), "inst", {"t": 1}, "spikes cross the whole network within a step"),
        ("inst", "S-28", (), "inst", {}, "IF neurons"),
        ("inst-leak", "S-28", ("neurons:lif",), "inst", {"leak": 0.9, "vth": 0.8}, "λ = 0.9, V_th = 0.8"),
        ("inst-charge", "S-4", ("neurons:u0",), "inst", {"u0": 0.5}, "u0 = 1/2"),
        ("running", "S-29", (), "running", {}, "IF neurons"),
        ("running-leak", "S-29", ("neurons:lif",), "running", {"leak": 0.9}, "λ = 0.9"),
        ("inst-feedback", "S-27", ("simulate:feedback",), "inst", {"feedback": True}, "fed back one step later"),
        (
            "running-feedback",
            "S-27",
            ("simulate:feedback",),
            "running",
            {"feedback": True},
            "the same by running means",
        ),
    ):
        t = options.pop("t", sizes["t"])
        config, inputs = _network(sizes, seed, name, **options)
        yield Case(
            f"simulate/{name}", "network", requirement, "simulate", ("simulate", f"simulate:{rule}", *features),
            {"config": config, "t_conv": t, "rule": rule}, inputs, note=note + ", by certificate",
        )  # fmt: skip
    yield from _distillation(sizes, seed)
    yield _update(sizes, seed)


def _currents(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    config, inputs = _network(sizes, seed, "currents", feedback=True)
    params, mask = parts(inputs, "param"), inputs["batch/attention_mask"]
    shape = (3, *mask.shape)  # three timesteps of spikes
    network = StudentConfig.from_dict(config).network
    for kind, requirement in POPULATIONS.items():
        name = kind if kind == "embeddings" else f"encoder.0.{kind}"
        population = network[name]
        widths = [sizes["width"] if read == "input" else network[read].width for read in population.reads]
        for what in ("spikes", "rates", *["padding"] * (kind == "context")):
            rng = _rng(seed, "currents", kind, what)
            reads = {
                f"read/{i}": eight_bits(rng.random((*shape, w)))
                if what == "rates"
                else (rng.random((*shape, w)) < 0.4).astype(float)
                for i, w in enumerate(widths)
            }
            own = {f"param/{k}": v for k, v in params.items() if _belongs(k, kind)}
            note = "with padded keys" if what == "padding" else f"driven by {what}"
            yield Case(
                f"current/{kind}-{what}", "population", "S-15" if what == "padding" else requirement, "current",
                ("current", f"current:{kind}"), {"config": config, "population": name},
                {**reads, **own, "mask": mask if what == "padding" else np.ones_like(mask)},
                note=note + (", with feedback" if kind == "embeddings" else ""),
            )  # fmt: skip


#: How the parameters begin that a kind of population gets. Key and value get each other's too: one may take the wrong.
PARAMETERS = {
    "embeddings": ("feedback.",),
    "key": ("encoder.layer.0.attention.self.key.", "encoder.layer.0.attention.self.value."),
    "value": ("encoder.layer.0.attention.self.key.", "encoder.layer.0.attention.self.value."),
    "context": ("encoder.layer.0.attention.self.query.",),
    "attention_output": ("encoder.layer.0.attention.output.",),
    "intermediate": ("encoder.layer.0.intermediate.",),
    "output": ("encoder.layer.0.output.",),
}


def _belongs(parameter: str, kind: str) -> bool:
    return parameter.startswith(PARAMETERS[kind])


def _distillation(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    # Not in half precision: with an error of a percent some rates fall on the other side of the clip's kinks, and their
    # derivatives differ by all or nothing.
    internal, prediction, solved = ("gradients:internal",), ("gradients:prediction",), ("gradients:feedback",)
    # lowest: where the simulated values begin, in 16ths; those below 0 become 0, in one case: what ReLU does there is a
    # question of its own.
    for name, features, options, lowest, note in (
        ("internal", internal, {}, None, "hidden states and attention scores"),
        ("internal-simulated", internal, {}, 1, "read-outs take simulated values"),
        ("internal-threshold", internal, {"vth": 1.5}, None, "V_th = 1.5"),
        ("prediction", prediction, {}, None, "soft labels, τ = 2"),
        ("prediction-simulated", prediction, {}, 1, "soft labels, simulated values"),
        ("prediction-silent", prediction, {}, -15, "half of the simulated values are 0: ReLU passes no gradient there"),
        ("internal-feedback", internal + solved, {"feedback": True}, None, "implicit gradient"),
        ("prediction-feedback", prediction + solved, {"feedback": True}, None, "implicit gradient"),
    ):
        yield _gradient_case(sizes, seed, name, features, options, lowest, note)


def _gradient_case(
    sizes: Mapping[str, int], seed: int, name: str, features: tuple[str, ...], options: dict[str, Any],
    lowest: int | None, note: str, requirement: str = "", negative: bool = False,
) -> Case:  # fmt: skip
    width, classes = sizes["width"] + 2, 3
    config, inputs = _network(sizes, seed, "gradients-" + name, settles="feedback" in options, **options)
    rng = _rng(seed, "gradients", name)
    shape = inputs["batch/input_ids"].shape
    d, encoders = sizes["width"], sizes["encoders"]
    settings: dict[str, Any] = {"config": config}
    if "internal" in name:
        inputs |= {"param/fit.weight": eight_bits(rng.normal(0, 0.4, (width, d)))}
        inputs |= {"param/fit.bias": eight_bits(rng.normal(0, 0.4, width))}
        inputs |= {f"hidden/{i}": eight_bits(rng.normal(0, 1, (*shape, width))) for i in range(encoders + 1)}
        masked = inputs["batch/attention_mask"][:, None, None, :] == 0
        for e in range(encoders):
            scores = eight_bits(rng.normal(0, 1, (shape[0], sizes["heads"], shape[1], shape[1])))
            inputs[f"scores/{e}"] = np.where(masked, -10000.0, scores)
    else:
        settings["temperature"] = 2.0
        inputs |= {"param/classifier.weight": eight_bits(rng.normal(0, 0.4, (classes, d)))}
        inputs |= {"param/classifier.bias": eight_bits(rng.normal(0, 0.4, classes))}
        inputs |= {"logits": eight_bits(rng.normal(0, 2, (shape[0], classes)))}
    named = {"padding row": "S-10"}
    if lowest is None:
        named |= {"hidden": "S-32", "attention": "S-32", "logits": "S-33"}
        named |= {"loss": "S-32" if "internal" in name else "S-19"}
    else:
        names = ("embeddings", *(f"encoder.{e}.output" for e in range(encoders)))
        floor = lowest if negative else 0
        inputs |= {f"simulated/{r}": np.maximum(rng.integers(lowest, 17, (*shape, d)), floor) / 16 for r in names}
    usual = {"prediction-silent": "S-33"}.get(name, "S-35" if options.get("feedback") else "S-34")
    requirement = requirement or usual
    return Case(
        f"gradients/{name}", "distillation", requirement, "gradients",
        ("gradients", *features), settings, inputs, named=named, dtypes=("float64", "float32"), note=note,
    )  # fmt: skip


def _signed_networks(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    yield from _ternary_rates(sizes, seed)
    yield from _feature_currents(sizes, seed)
    retractable: dict[str, Any] = {"polarity": "retractable"}
    ternary: dict[str, Any] = {"polarity": "ternary"}
    own: dict[str, Any] = {"per_feature": True}
    solved = ternary | own | {"feedback": True, "norm": 0.05}  # F contracts, which rates of both signs do not help
    for name, requirement, options, note in (
        ("ternary", "S-40", ternary, "rates between −1 and 1"),
        ("per-feature", "S-30", own, "synapses of residuals, thresholds of neurons"),
        ("ternary-feedback", "S-30", solved, "a true fixed point"),
    ):
        config, inputs = _network(sizes, seed, name, **options)
        yield Case(
            f"rate_map/{name}", "network", requirement, "rate_map", ("rate_map", *_needs(options, "rate_map")),
            {"config": config}, inputs, note=note,
        )  # fmt: skip
    for name, requirement, rule, options in (
        ("retractable-inst", "S-38", "inst", retractable),
        ("retractable-running", "S-38", "running", retractable | own | {"u0": 0.5}),
        ("ternary-inst", "S-39", "inst", ternary | own),
        ("ternary-running", "S-39", "running", ternary),
        ("ternary-running-leak", "S-39", "running", ternary | {"leak": 0.9, "vth": 0.8}),
        ("retractable-feedback", "S-38", "running", retractable | {"feedback": True}),
    ):
        config, inputs = _network(sizes, seed, name, **options)
        yield Case(
            f"simulate/{name}", "network", requirement, "simulate",
            ("simulate", f"simulate:{rule}", *_needs(options, "simulate")),
            {"config": config, "t_conv": sizes["t"], "rule": rule}, inputs,
            note=f"rule {rule}, by certificate",
        )  # fmt: skip
    for name, options, lowest, note, requirement in (
        ("internal-ternary", ternary | own, None, "rates between −1 and 1", ""),
        ("internal-per-feature", own | {"vth": 1.5}, 1, "synapses and thresholds have gradients; simulated values", ""),
        ("prediction-ternary", ternary, -15, "negative values reach the classifier: there is no ReLU", "S-40"),
        ("prediction-ternary-feedback", solved, None, "implicit gradient", ""),
    ):
        features = (f"gradients:{name.partition('-')[0]}", *_needs(options, "gradients"))
        case = _gradient_case(sizes, seed, name, features, options, lowest, note, requirement, "ternary" in name)
        yield case if "prediction" not in name else replace(case, named=case.named | {"logits": "S-40"})


def _needs(options: Mapping[str, Any], function: str) -> tuple[str, ...]:
    """Features that a network's options ask for."""
    found = {
        f"polarity:{options.get('polarity')}": "polarity" in options,
        "per_feature": "per_feature" in options,
        f"{function}:feedback": "feedback" in options,
        "neurons:lif": "leak" in options,
        "neurons:u0": "u0" in options,
    }
    return tuple(name for name, needed in found.items() if needed)


def _ternary_rates(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    rng = _rng(seed, "ops", "ternary")
    current = eight_bits(np.linspace(-3.97, 4.07, 61))  # not at −2 or 2
    for function, prefix, arrays in (
        ("op", "op", {"current": current}),
        ("pullback", "pullback", {"current": current, "cotangent": eight_bits(rng.normal(size=61))}),
    ):
        yield Case(
            f"{prefix}/rate-ternary", "op", "S-40", function, (f"{prefix}:rate", "polarity:ternary"),
            {"op": "rate", "constants": {"vth": 2.0, "polarity": "ternary"}}, arrays,
            exact=ALL if function == "op" else (), note="V_th = 2; below −1, inside and above 1",
        )  # fmt: skip


def _feature_currents(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    config, inputs = _network(sizes, seed, "feature-currents", per_feature=True)
    params, mask = parts(inputs, "param"), inputs["batch/attention_mask"]
    network = StudentConfig.from_dict(config).network
    for kind, requirement in (
        ("attention_output", "S-41"), ("output", "S-41"), ("context", "S-42"), ("intermediate", "S-42"),
    ):  # fmt: skip
        population = network[f"encoder.0.{kind}"]
        for what in ("spikes", "rates"):
            rng = _rng(seed, "feature-currents", kind, what)
            reads = {}
            for i, read in enumerate(population.reads):
                shape = (3, *mask.shape, network[read].width)
                drawn = rng.integers(-1, 2, shape) if what == "spikes" else rng.uniform(-1, 1, shape)
                reads[f"read/{i}"] = eight_bits(drawn.astype(float))
            own = {f"param/{k}": v for k, v in params.items() if _belongs(k, kind)}
            own |= {"param/" + k: params[k] for k in ("encoder.layer.0.attention.self.threshold",) if kind == "context"}
            yield Case(
                f"current/{kind}-per-feature-{what}", "population", requirement, "current",
                ("current", f"current:{kind}", "per_feature"), {"config": config, "population": population.name},
                {**reads, **own, "mask": np.ones_like(mask)}, note=f"driven by signed {what}",
            )  # fmt: skip


def _update(sizes: Mapping[str, int], seed: int) -> Case:
    rng = _rng(seed, "update")
    shapes = {"a.weight": (3, 4), "a.bias": (3,), "b.LayerNorm.weight": (5,), "b.weight": (2, 3)}
    inputs: Arrays = {}
    for name, shape in shapes.items():
        size = 0.02 if name == "b.weight" else 2.0  # one gradient is short, the others are clipped
        inputs[f"param/{name}"] = eight_bits(rng.normal(0, 1, shape))
        inputs[f"gradient/{name}"] = eight_bits(rng.normal(0, size, shape))
        inputs[f"m/{name}"] = eight_bits(rng.normal(0, 0.1, shape))
        inputs[f"v/{name}"] = eight_bits(rng.random(shape) * 0.01 + 0.001)
    optimiser = {"lr": 0.0625, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.01, "max_norm": 1.0}
    return Case(
        "update/step", "distillation", "S-36", "update", ("update",), {"optimiser": optimiser}, inputs,
        dtypes=("float64", "float32"), note="one step, with clipping and decay",
    )  # fmt: skip
