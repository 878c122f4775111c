"""Mistakes recognised by their signature: each known one under its own name, and those of real libraries."""

from functools import partial
from importlib import import_module

import numpy as np
import pytest

from refsnn.conformance.mistakes.neurons import NEURON_MISTAKES, _signed, _signed_candidates, recognise_neuron
from refsnn.model.neurons import Neuron, fire

LIF = {"vth": 0.5, "leak": 0.75, "u0": 0.5, "tie": 1e-9}
IF = {"vth": 1.0, "leak": 1.0, "u0": 0.0, "tie": 1e-9}
VARIANTS = dict(NEURON_MISTAKES)
ABOVE, TIE, LEAK, ZERO, *_ = VARIANTS
TWICE = next(sentence for sentence in VARIANTS if "2·V_th" in sentence)


def currents(kind, vth=1.0, dtype=np.float64):
    """Normal random ones, dyadic ones that reach V_th exactly, or those but for a few units of rounding."""
    rng = np.random.default_rng(0)
    normal = rng.normal(0.4, 0.8, (40, 4, 25))
    ties = rng.integers(-8, 17, normal.shape) / 16
    below = ties * (1 - 2 * np.finfo(dtype).eps)
    record = {"normal": normal, "ties": ties, "below": below, "all": np.concatenate([normal, ties, below], 1)}[kind]
    return (vth * record).astype(dtype)


@pytest.mark.parametrize("sentence", VARIANTS)
def test_every_mistake_is_recognised_under_its_own_name(sentence):
    neuron = LIF | {"tie": 0.0625}  # so wide that it shows what is done with δ
    current = currents("all", LIF["vth"])
    assert recognise_neuron(current, VARIANTS[sentence](current, **neuron), neuron) == sentence


@pytest.mark.parametrize("neuron", [IF, LIF, IF | {"tie": 0.0}, LIF | {"leak": 0.9, "vth": 1.7}])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_right_rule_is_no_mistake_and_what_is_the_same_to_the_last_spike_has_one_name(neuron, dtype):
    if neuron["tie"] and dtype == np.float32:
        neuron = neuron | {"tie": 1e-5}
    current = currents("all", neuron["vth"], dtype)
    right = fire(current, Neuron(**neuron))[0]
    assert recognise_neuron(current, right, neuron) is None
    for variant in VARIANTS.values():
        spikes = variant(current, **neuron)
        assert spikes.dtype == dtype and spikes.shape == current.shape
        named = recognise_neuron(current, spikes, neuron)
        assert (
            named is None
            if np.array_equal(spikes, right)
            else np.array_equal(VARIANTS[named](current, **neuron), spikes)
        )


@pytest.mark.parametrize("polarity", ["retractable", "ternary"])
def test_every_mistake_of_signed_neurons_is_recognised_under_its_own_name(polarity):
    neuron = {"vth": 0.5, "leak": 1.0, "u0": 0.25, "tie": 1e-9, "polarity": polarity}
    rng = np.random.default_rng(0)
    ties = rng.integers(-16, 17, (40, 4, 25)) / 16  # potentials meet the levels exactly now and then
    current = 0.5 * np.concatenate([rng.normal(0.1, 0.8, ties.shape), ties, ties * (1 - 1e-12)], 1)
    (_, right), *others = _signed_candidates(polarity, 0.5, 1e-9)
    spikes = fire(current, Neuron(**neuron))[0]
    np.testing.assert_array_equal(_signed(current, 0.5, 1.0, 0.25, **right), spikes)
    assert recognise_neuron(current, spikes, neuron) is None
    for sentence, levels in others:
        assert recognise_neuron(current, _signed(current, 0.5, 1.0, 0.25, **levels), neuron) == sentence


def test_two_mistakes_at_once_are_both_named():
    current = currents("all", LIF["vth"])
    wrong = partial(VARIANTS[LEAK], **VARIANTS[ABOVE].keywords)(current, **LIF)
    assert recognise_neuron(current, wrong, LIF) == f"{ABOVE}; and {LEAK}"


def test_what_is_unknown_is_not_explained():
    current = currents("all")
    right = fire(current, Neuron(**IF))[0]
    one_off = right.copy()
    one_off[-1, -1, -1] = 1 - one_off[-1, -1, -1]  # beyond the first neurons that are looked at
    for spikes in (one_off, 1 - right, np.zeros_like(right), right[1:], np.full_like(right, np.nan)):
        assert recognise_neuron(current, spikes, IF) is None


# No tie rule unless it is what is looked at: in float32 its δ is wide enough to meet a random potential now and then.
IF_0, LIF_0 = IF | {"tie": 0.0}, LIF | {"tie": 0.0}
LIBRARIES = [
    # library, options, neuron, currents, what comes out
    ("snntorch", {}, IF_0, "normal", None),
    ("snntorch", {}, IF_0, "ties", ABOVE),
    ("snntorch", {}, LIF_0, "normal", LEAK),
    ("snntorch", {}, LIF_0, "ties", f"{ABOVE}; and {LEAK}"),
    ("snntorch", {"reset_delay": False}, IF_0, "normal", TWICE),
    ("snntorch", {"reset_delay": False}, LIF_0, "normal", TWICE),
    ("snntorch", {"reset_delay": False}, LIF_0, "ties", ABOVE),
    ("spikingjelly", {}, IF_0, "all", None),
    ("spikingjelly", {}, LIF_0, "all", None),
    ("spikingjelly", {}, IF, "all", TIE),
    ("norse", {}, IF_0, "normal", None),
    ("norse", {}, IF_0, "ties", ABOVE),
    ("norse", {}, LIF_0, "normal", None),
    ("norse", {}, LIF_0, "ties", ABOVE),
    ("norse", {"cell": "iaf"}, IF_0, "normal", ZERO),
    ("norse", {"cell": "iaf"}, IF_0, "ties", f"{ABOVE}; and {ZERO}"),
]


@pytest.mark.parametrize(("library", "options", "neuron", "kind", "expected"), LIBRARIES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_conventions_of_libraries(library, options, neuron, kind, expected, dtype):
    pytest.importorskip(library)
    adapter = import_module(f"backends.{library}_backend")
    if neuron["tie"] and dtype == "float32":
        neuron = neuron | {"tie": 1e-5}
    current = currents(kind, neuron["vth"], dtype)
    spikes = adapter.neurons(current, neuron, dtype, **options)
    assert np.array_equal(spikes, fire(current, Neuron(**neuron))[0]) == (expected is None)
    assert recognise_neuron(current, spikes, neuron) == expected
    assert dtype in adapter.dtypes and adapter.supports("neurons:lif", dtype) and not adapter.supports("asr", dtype)
