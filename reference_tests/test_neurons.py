"""Neurons: the vectorised dynamics against the plain loop, conservation of charge, rates and their limits."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refsnn.errors import InputError
from refsnn.model.neurons import Neuron, asr, fire, fire_loop, membrane_potential, rate
from refsnn.model.shapes import BertConfig
from refsnn.model.student import StudentConfig

POLARITIES = ["unsigned", "retractable", "ternary"]


def made(polarity="unsigned", u0=0.0, **constants):
    """A neuron whose membrane starts `u0` above the least that its polarity allows."""
    return Neuron(polarity=polarity, u0=u0 - 0.5 * (polarity == "ternary"), **constants)


NEURONS = st.builds(
    made,
    polarity=st.sampled_from(POLARITIES),
    vth=st.sampled_from([0.5, 1.0, 1.7]),
    leak=st.sampled_from([1.0, 0.99, 0.5]),
    u0=st.sampled_from([0.0, 0.5, 0.9]),
    tie=st.sampled_from([None, 0.0, 1e-3]),
)
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 3), st.integers(1, 5))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(NEURONS, SHAPES, st.integers(0, 9), st.sampled_from([np.float64, np.float32]))
def test_vectorised_and_plain_dynamics_are_the_same_bit_for_bit(neuron, shape, seed, dtype):
    current = np.random.default_rng(seed).normal(0.4, 0.8, shape).astype(dtype)
    for ours, plain in zip(fire(current, neuron), fire_loop(current, neuron), strict=True):
        assert ours.dtype == plain.dtype == dtype
        np.testing.assert_array_equal(ours, plain)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(NEURONS, st.integers(0, 9), st.integers(1, 12))
def test_blocks_of_timesteps_do_not_change_anything(neuron, seed, block):
    current = np.random.default_rng(seed).normal(0.4, 0.8, (30, 4))
    whole, last = fire(current, neuron)
    parts, charge = [], None
    for start in range(0, 30, block):
        spikes, charge = fire(current[start : start + block], neuron, charge)
        parts.append(spikes)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(charge, last)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(NEURONS, st.integers(0, 9))
def test_the_potential_implied_by_a_record_is_the_one_that_made_it(neuron, seed):
    current = np.random.default_rng(seed).normal(0.4, 0.8, (50, 6))
    spikes, charge = fire(current, neuron)
    u = membrane_potential(current, spikes, neuron)
    # The equation itself, written out here once more.
    before = np.concatenate([np.full((1, 6), neuron.u0 * neuron.vth), (u - neuron.vth * spikes)[:-1]])
    np.testing.assert_allclose(u, neuron.leak * before + current, atol=1e-12)
    left = charge[0] if neuron.polarity == "retractable" else charge
    np.testing.assert_allclose(u[-1] - neuron.vth * spikes[-1], left, atol=1e-12)
    split = membrane_potential(current[20:], spikes[20:], neuron, charge=(u - neuron.vth * spikes)[19])
    np.testing.assert_allclose(split, u[20:], atol=1e-12)


def test_spikes_at_threshold_exactly_and_within_the_tie_rule():
    exact = Neuron(tie=0.0)
    assert fire(np.array([[1.0]]), exact)[0][0, 0] == 1  # ≥, not >
    below = np.array([[1 - 1e-15]])
    assert fire(below, exact)[0][0, 0] == 0
    assert fire(below, Neuron())[0][0, 0] == 1  # a structural tie fires
    assert fire(np.array([[1 - 1e-8]]), Neuron())[0][0, 0] == 0
    assert fire(np.array([[1 - 5e-6]], np.float32), Neuron())[0][0, 0] == 1


def signed(currents, **constants):
    return fire(np.array(currents, float)[:, None], Neuron(**constants))[0][:, 0].tolist()


def test_a_retractable_neuron_gives_back_what_it_fired_and_no_more():
    assert signed([1.0, 1.0, -3.0, 0.0, 0.0, 0.0, 4.0], polarity="retractable") == [1, 1, -1, -1, 0, 0, 1]
    assert signed([-1.0, -1.0, 2.5, 0.0], polarity="retractable") == [0, 0, 0, 0]  # a charge below 0 stays
    assert signed([2.5, 0.0, -1.0, 0.0], polarity="unsigned") == [1, 1, 0, 0]


def test_a_ternary_neuron_fires_both_ways_from_half_the_threshold():
    assert signed([0.5, -0.75, 0.0, -0.5], polarity="ternary") == [1, -1, 0, -1]
    assert signed([1.7, -1.9, 0.4], vth=2.0, polarity="ternary") == [1, -1, 0]


@pytest.mark.parametrize(("polarity", "first"), [("retractable", [1.0]), ("ternary", [])])
@pytest.mark.parametrize("vth", [1.0, 2.0])
def test_the_tie_rule_lowers_the_level_of_minus_one_as_well(polarity, first, vth):
    level = 0.0 if first else -0.5  # where exact arithmetic has a tie: a spike of −1 is due below it, not at it
    for delta, below, last in ((0.0, 0.0, 0), (0.0, 1e-15, -1), (None, 1e-15, 0), (None, 1e-8, -1), (1e-3, 1e-4, 0)):
        current = [vth * x for x in (*first, level - below)]
        assert signed(current, vth=vth, polarity=polarity, tie=delta)[-1] == last, (delta, below)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(NEURONS, st.integers(0, 9))
def test_the_net_count_of_spikes_stays_in_its_range(neuron, seed):
    spikes, _ = fire(np.random.default_rng(seed).normal(0.1, 2, (40, 8)), neuron)
    count, t = spikes.cumsum(axis=0), np.arange(1, 41)[:, None]
    assert ((neuron.low * t <= count) & (count <= t)).all()
    assert set(np.unique(spikes)) <= ({-1, 0, 1} if neuron.signed else {0, 1})


def test_leak_acts_after_the_reset():
    # u[1] = 1.5 fires; what is left, 0.5, leaks to 0.25: u[2] = 0.25 + 0.8 = 1.05 fires. Leaking before the reset
    # would leave 0.5·1.5 − 1 < 0 and no second spike.
    spikes, charge = fire(np.array([[1.5], [0.8]]), Neuron(leak=0.5))
    np.testing.assert_array_equal(spikes[:, 0], [1, 1])
    np.testing.assert_allclose(charge, 0.05, atol=1e-15)


@pytest.mark.parametrize("current", [-0.3, 0.0, 0.123, 0.5, 0.999, 1.0, 1.7])
@pytest.mark.parametrize("vth", [0.5, 1.0, 2.0])
def test_integrate_and_fire_rate_tends_to_the_rate_map_like_one_over_t(current, vth):
    target = rate(np.array([current]), Neuron(vth=vth))[0][0]
    for t_conv in (1, 10, 100, 1000):
        spikes, _ = fire(np.full((t_conv, 1), current), Neuron(vth=vth))
        assert abs(asr(spikes)[0] - target) <= 1 / t_conv + 1e-12


def test_starting_at_half_the_threshold_removes_the_bias_of_the_rate():
    currents = np.random.default_rng(0).uniform(0, 1, (1, 4000))
    errors = {u0: asr(fire(np.repeat(currents, 16, axis=0), Neuron(u0=u0))[0]) - currents[0] for u0 in (0.0, 0.5)}
    assert errors[0.0].mean() == pytest.approx(-0.5 / 16, abs=2e-3)  # floor
    assert errors[0.5].mean() == pytest.approx(0, abs=1.2e-3)  # rounding


@pytest.mark.parametrize("polarity", POLARITIES)
@pytest.mark.parametrize("vth", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("u0", [0.0, 0.5, 0.8])
def test_the_quantised_rate_is_what_steps_of_a_constant_current_leave(vth, u0, polarity):
    neuron = made(polarity, u0, vth=vth)
    currents = np.random.default_rng(0).uniform(-1.5, 1.5, 2000) * vth
    for t_conv in (1, 7, 16, 100):
        spikes, _ = fire(np.broadcast_to(currents, (t_conv, *currents.shape)), neuron)
        quantised, pullback = rate(currents, neuron, t_conv=t_conv)
        np.testing.assert_allclose(quantised, asr(spikes), rtol=0, atol=1e-15)
        cotangent = np.random.default_rng(1).normal(size=currents.shape)
        np.testing.assert_array_equal(pullback(cotangent), rate(currents, neuron)[1](cotangent))
        inside = (currents > neuron.low * vth) & (currents < vth)
        np.testing.assert_allclose(pullback(cotangent), cotangent * inside / vth, rtol=1e-15)


def test_leak_weighted_average_and_its_limit():
    spikes = (np.random.default_rng(0).random((60, 5)) < 0.3).astype(float)
    weights = [0.9 ** (60 - t) for t in range(1, 61)]  # Σ λ^(T−t) s[t] / Σ λ^(T−t)
    expected = sum(w * s for w, s in zip(weights, spikes, strict=True)) / sum(weights)
    np.testing.assert_allclose(asr(spikes, leak=0.9), expected, rtol=1e-14)
    np.testing.assert_allclose(asr(spikes, leak=1.0), spikes.mean(axis=0), rtol=1e-15)
    near = asr(spikes, leak=1 - 1e-9)
    assert np.abs(near - spikes.mean(axis=0)).max() < 1e-7  # λ → 1 is a limit, not 0/0


@pytest.mark.parametrize(
    ("constants", "word"),
    [
        ({"vth": 0}, "threshold"),
        ({"vth": np.nan}, "threshold"),
        ({"leak": 0}, "leak"),
        ({"u0": 1}, "potential"),
        ({"u0": 0.5, "polarity": "ternary"}, r"of ternary neurons lies in \[-0.5, 0.5\)"),
        ({"polarity": "signed"}, "unsigned, retractable, ternary"),
    ],
)
def test_impossible_constants_are_refused_in_words(constants, word):
    with pytest.raises(InputError, match=word):
        Neuron(**constants)


@pytest.mark.parametrize("polarity", POLARITIES)
def test_one_neuron_may_come_without_an_axis_of_neurons(polarity):
    current, neuron = np.random.default_rng(0).normal(0.1, 1, 50), made(polarity, 0.5, leak=0.9)
    first, charge = fire(current[:20], neuron)
    second, _ = fire(current[20:], neuron, charge)
    whole, _ = fire(current[:, None], neuron)
    assert np.array_equal(np.concatenate([first, second]), whole[:, 0])


def test_a_polarity_is_written_only_where_it_is_not_the_papers():
    paper = StudentConfig(BertConfig(num_hidden_layers=1))
    assert "polarity" not in paper.to_dict()
    config = replace(
        paper,
        neuron=Neuron(polarity="retractable", u0=0.5),
        populations={"encoder.0.intermediate": {"polarity": "ternary", "u0": 0.0}, "embeddings": {"vth": 2.0}},
    )
    values = json.loads(json.dumps(config.to_dict()))
    assert values["polarity"] == "retractable" and StudentConfig.from_dict(values) == config
    network = config.network
    assert [network[n].neuron.polarity for n in ("embeddings", "encoder.0.intermediate")] == ["retractable", "ternary"]
    with pytest.raises(InputError, match="polarity is 'both', but one of 'unsigned', 'retractable', 'ternary'"):
        StudentConfig.from_dict(values | {"polarity": "both"})
    with pytest.raises(InputError, match="populations"):
        StudentConfig.from_dict(values | {"populations": {"embeddings": {"polarity": 1}}})


def followed(neuron, current):
    """Net counts n and what they follow, m, with the lag's bound: docs/derivations.md, propositions 4 and 5."""
    spikes, _ = fire(current, neuron)
    summed = neuron.u0 + np.cumsum(current, axis=0) / neuron.vth
    target = np.floor(summed + 1 - neuron.due)
    target = np.maximum(target, 0) if neuron.polarity == "retractable" else target
    bound, lag = np.zeros(current.shape), np.zeros(current.shape[1:])
    for t, moved in enumerate(np.abs(np.diff(target, axis=0, prepend=0))):
        lag = np.maximum(lag + moved - 1, 0)
        bound[t] = lag
    return np.cumsum(spikes, axis=0), target, bound


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(["retractable", "ternary"]), st.sampled_from([0.0, 0.25, 0.5, 0.875]),
    st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.5, 2.0, 6.0]), st.integers(0, 99),
)  # fmt: skip
def test_counts_follow_what_was_summed(polarity, u0, vth, size, seed):
    neuron = made(polarity, u0, vth=vth, tie=0.0)
    current = vth * np.rint(np.random.default_rng(seed).normal(0.2, size, (40, 30)) * 8) / 8  # nothing rounds
    n, m, bound = followed(neuron, current)
    before = np.concatenate([np.zeros((1, 30)), n[:-1]])
    np.testing.assert_array_equal(n, before + np.sign(m - before))
    assert (np.abs(m - n) <= bound).all()
    steady = np.abs(np.diff(m, axis=0, prepend=0)).max(axis=0) <= 1
    assert (n == m)[:, steady].all()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(["retractable", "ternary"]), st.integers(-29, 29), st.integers(-6, 6))
def test_a_lag_is_made_up_for_as_fast_as_is_said(polarity, x, jump):
    neuron, x = made(polarity, 0.5, tie=0.0), x / 32  # nothing rounds
    current = np.full((120, 1), x)
    current[:2] = jump
    n, m, _ = followed(neuron, current)
    behind = int(m[1, 0] - n[1, 0])
    speed = 1 - x if behind > 0 else 1 + x
    settled = 1 + int(np.ceil(abs(behind) / speed))
    assert (n == m)[settled:, 0].all()


def test_an_unsigned_neuron_keeps_what_it_fired_too_much():
    current = np.array([1.0, 1.0, -2.0, 0.0, 0.5])[:, None]
    counts = {polarity: fire(current, Neuron(polarity=polarity))[0].sum() for polarity in POLARITIES[:2]}
    assert counts == {"unsigned": 2, "retractable": 0}


def test_the_potential_of_a_single_neuron_is_that_of_a_column():
    rng = np.random.default_rng(3)
    current, neuron = rng.uniform(-0.2, 0.9, 40), Neuron(0.8, 0.9, 0.25)
    spikes, _ = fire(current, neuron)
    column = membrane_potential(current[:, None], spikes[:, None], neuron)[:, 0]
    assert np.array_equal(membrane_potential(current, spikes, neuron), column)
