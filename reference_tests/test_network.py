"""The readings of the network: rate map, gradient, simulation, certificate, operation count."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from conftest import SMALL, random_batch, random_parameters
from hypothesis import given, settings
from hypothesis import strategies as st

from refsnn.errors import InputError
from refsnn.model.batch import Batch, attention_mask
from refsnn.model.dropout import dropout_masks
from refsnn.model.families import spiking_bert
from refsnn.model.network import INPUT, encoder_of, first_position
from refsnn.model.neurons import Neuron, asr, fire_loop
from refsnn.model.parameters import check_parameters
from refsnn.model.shapes import BertConfig, feature_shapes, network_shapes
from refsnn.readings.certify import certify
from refsnn.readings.energy import count
from refsnn.readings.rate_map import rate_map, scores, sweep
from refsnn.readings.simulate import simulate, spike_blocks, spike_steps

CONFIGS = st.builds(
    lambda heads, d, layers, m: BertConfig(
        vocab_size=11,
        hidden_size=heads * d,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=m,
        max_position_embeddings=7,
    ),
    heads=st.integers(1, 3),
    d=st.integers(1, 4),
    layers=st.integers(1, 3),
    m=st.integers(1, 9),
)


def complex_step(function, params, direction, h=1e-30):
    """d function(params + t·direction)/dt at t = 0, exact to rounding."""
    return function({k: v + 1j * h * direction.get(k, 0) for k, v in params.items()}).imag / h


def check_gradient_of_rates_and_scores(network, params, batch, dropout, seed, learnt, frozen_row=None):
    """Every parameter's gradient alone, then all together, against the complex step; `learnt` are those that have one.

    `frozen_row` is a parameter and its row that receives no gradient, by convention.
    """
    rng = np.random.default_rng(seed)
    masks = dropout_masks(network, batch, dropout, rng, np.float64) if dropout else {}
    rates, pullback = rate_map(network, params | masks, batch)
    observed, scores_pullback = scores(network, params, rates, batch)
    weights = {p.name: rng.normal(size=rates[p.name].shape) for p in network.populations}
    # Masked scores are −10000 + something: rounding there would drown what is being tested.
    score_weights = [rng.normal(size=s.shape) * (s > -100) for s in observed]

    def loss(params):
        rates, _ = rate_map(network, params | masks, batch)
        observed, _ = scores(network, params, rates, batch)
        return sum((w * rates[name]).sum() for name, w in weights.items()) + sum(
            (w * s).sum() for w, s in zip(score_weights, observed, strict=True)
        )

    drates, gradient = scores_pullback(score_weights)
    total = pullback({name: w + drates.get(name, 0) for name, w in weights.items()})
    for name, value in gradient.items():
        total[name] = total[name] + value
    assert set(total) == set(learnt)
    directions = {name: rng.normal(size=params[name].shape) for name in learnt}
    if frozen_row is not None:
        name, row = frozen_row
        directions[name][row] = 0
    for chosen in (*learnt, None):  # each parameter alone, then all together
        direction = directions if chosen is None else {chosen: directions[chosen]}
        expected = complex_step(loss, params, direction)
        ours = sum((total[name] * d).sum() for name, d in direction.items())
        size_of = sum(np.abs(total[name] * d).sum() for name, d in direction.items())
        assert abs(ours - expected) <= 1e-12 * max(size_of, 1), chosen


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    CONFIGS,
    st.sampled_from([0.6, 1.0, 1.5]),
    st.integers(0, 99),
    st.integers(1, 3),
    st.integers(1, 7),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from(["unsigned", "retractable", "ternary"]),
    st.booleans(),
)
def test_gradient_through_the_rate_map_and_the_scores(
    config, vth, seed, size, positions, dropout, polarity, per_feature
):
    network = spiking_bert(config, Neuron(vth=vth, polarity=polarity), per_feature=per_feature)
    params, batch = (
        random_parameters(config, seed, per_feature=per_feature),
        random_batch(config, seed, size, positions),
    )
    frozen = "embeddings.word_embeddings.weight", config.pad_token_id
    check_gradient_of_rates_and_scores(network, params, batch, dropout, seed, list(params), frozen)


def test_padding_row_of_the_word_embedding_gets_no_gradient():
    network = spiking_bert(SMALL)
    batch = random_batch(SMALL, 1)
    assert (batch.input_ids == 0).any()
    rates, pullback = rate_map(network, random_parameters(SMALL, 0), batch)
    gradient = pullback({"encoder.1.output": np.ones_like(rates["encoder.1.output"])})
    assert not gradient["embeddings.word_embeddings.weight"][0].any()


def test_derivative_at_the_edges_of_the_clip_does_not_matter_for_structural_ties():
    # Values saturated at 1 drive context neurons with a current of exactly V_th, values at 0 with exactly 0.
    params = random_parameters(SMALL, 3)
    half = SMALL.hidden_size // 2
    bias = np.r_[np.full(half, 50.0), np.full(SMALL.hidden_size - half, -50.0)]
    params["encoder.layer.0.attention.self.value.bias"] = bias
    network, batch = spiking_bert(SMALL), random_batch(SMALL, 3)
    cotangent = np.random.default_rng(0).normal(size=(*batch.input_ids.shape, SMALL.hidden_size))
    gradients = []
    for edge in (0.0, 1.0):
        rates, pullback = rate_map(network, params, batch, edge_derivative=edge)
        gradients.append(pullback({"encoder.0.context": cotangent}))
    assert np.abs(rates["encoder.0.context"][..., :half] - 1).max() < 1e-12
    for name in gradients[0]:
        np.testing.assert_allclose(gradients[0][name], gradients[1][name], atol=1e-13)


SIGNED = [Neuron(polarity="retractable", u0=0.5), Neuron(vth=0.8, leak=0.9, polarity="ternary", u0=-0.2)]


def plain_simulation(network, params, batch, t_conv, rule):
    """The definition: one step at a time, one population at a time, with whole histories kept."""
    x, _ = network.drive(params, batch)
    mask = attention_mask(batch, x.dtype)
    history = {p.name: np.zeros((0, *x.shape[:2], p.width)) for p in network.populations}
    nothing = {p.name: np.zeros((*x.shape[:2], p.width)) for p in network.populations}
    currents = {p.name: np.zeros((0, *x.shape[:2], p.width)) for p in network.populations}
    for t in range(1, t_conv + 1):
        for p in network.populations:

            def mean_at(name, when, t=t):
                if name == INPUT:
                    return x
                seen = history[name]
                fed_back = len(seen) == t - 1  # not yet swept in this step: what was seen up to t − 1
                steps = seen[: when - fed_back] if when else seen[:0]
                return steps.sum(axis=0) / max(when, 1)

            def spikes_now(name, t=t):
                if name == INPUT:
                    return x
                seen = history[name]
                return seen[t - 1] if len(seen) == t else seen[-1] if len(seen) else nothing[name]

            if rule == "inst":
                current = p.projection(params, tuple(spikes_now(n) for n in p.reads), mask)[0]
            else:
                f = [p.projection(params, tuple(mean_at(n, when) for n in p.reads), mask)[0] for when in (t, t - 1)]
                current = t * f[0] - (t - 1) * f[1]
            currents[p.name] = np.concatenate([currents[p.name], current[None]])
            history[p.name] = currents[p.name] if p.neuron is None else fire_loop(currents[p.name], p.neuron)[0]
    return history


@pytest.mark.parametrize("rule", ["inst", "running"])
@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("neuron", [Neuron(), Neuron(vth=0.8, leak=0.9, u0=0.5), *SIGNED])
def test_simulation_equals_its_plain_definition(rule, feedback, neuron):
    config = dataclasses.replace(SMALL, hidden_size=6, intermediate_size=5, num_hidden_layers=1)
    network = spiking_bert(config, neuron, feedback, per_feature=neuron.signed)
    params = random_parameters(config, 5, feedback, per_feature=neuron.signed)
    batch = random_batch(config, 5, 2, 3)
    expected = plain_simulation(network, params, batch, 12, rule)
    for block in (1, 5, 12):
        blocks = [dict(spikes) for _, spikes in spike_blocks(network, params, batch, 12, rule, block)]
        for name, record in expected.items():
            ours = np.concatenate([spikes[name] for spikes in blocks])
            np.testing.assert_array_equal(ours, record, err_msg=f"{name}, block {block}")


@pytest.mark.parametrize("leak", [1.0, 0.8])
def test_rates_read_at_several_times_are_those_of_the_spike_record(leak):
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 2), random_batch(SMALL, 2)
    blocks = [dict(spikes) for _, spikes in spike_blocks(network, params, batch, 23, block=23)]
    found = simulate(network, params, batch, [5, 16, 23], block=4, leak=leak)
    assert list(found) == [5, 16, 23]
    for t, rates in found.items():
        for name, rate in rates.items():
            np.testing.assert_allclose(rate, asr(blocks[0][name][:t], leak), atol=1e-14)


@pytest.mark.parametrize("rule", ["inst", "running"])
@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("block", [1, 4, 23])
def test_steps_are_those_of_the_blocks_with_the_rates_up_to_then(rule, feedback, block):
    network, t_conv = spiking_bert(SMALL, feedback=feedback), 23  # the last block of four is cut short
    params, batch = random_parameters(SMALL, 2, feedback), random_batch(SMALL, 2)
    blocks = [dict(spikes) for _, spikes in spike_blocks(network, params, batch, t_conv, rule, block)]
    record = {name: np.concatenate([spikes[name] for spikes in blocks]) for name in blocks[0]}
    read = simulate(network, params, batch, [1, 4, 6, 23], rule, block)
    steps = list(spike_steps(network, params, batch, t_conv, rule, block))  # kept: none may be written over
    assert [t for t, _, _ in steps] == list(range(1, t_conv + 1))
    for t, spikes, rates in steps:
        assert list(spikes) == list(rates) == list(record)
        for name in record:
            np.testing.assert_array_equal(spikes[name], record[name][t - 1], err_msg=f"{name}, t = {t}")
            np.testing.assert_allclose(rates[name], asr(record[name][:t]), atol=1e-14, err_msg=f"{name}, t = {t}")
            if t in read:
                np.testing.assert_allclose(rates[name], read[t][name], atol=1e-14, err_msg=f"{name}, t = {t}")


def test_rates_of_single_precision_spikes_are_counted_in_double():
    params = {name: value.astype(np.float32) for name, value in random_parameters(SMALL, 2).items()}
    for t, spikes, rates in spike_steps(spiking_bert(SMALL), params, random_batch(SMALL, 2), 3):
        for name, rate in rates.items():
            assert spikes[name].dtype == np.float32 and rate.dtype == np.float64
            assert np.isin(rate, np.arange(t + 1) / t).all()  # a third is that of float64


def test_memory_does_not_grow_with_t():
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 0), random_batch(SMALL, 0, 8, 9)
    peaks = []
    for t_conv in (40, 400):
        tracemalloc.start()
        simulate(network, params, batch, t_conv)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]


@pytest.mark.parametrize("neuron", [Neuron(), Neuron(polarity="retractable", u0=0.5), Neuron(polarity="ternary")])
def test_running_integration_reaches_the_rate_map_and_inst_does_not(neuron):
    network, per_feature = spiking_bert(SMALL, neuron, per_feature=neuron.signed), neuron.signed
    params, batch = random_parameters(SMALL, 1, per_feature=per_feature), random_batch(SMALL, 1)
    target, _ = rate_map(network, params, batch)
    error = {
        rule: {
            t: {name: np.abs(rate - target[name]).mean() for name, rate in rates.items()}
            for t, rates in simulate(network, params, batch, [100, 1000], rule).items()
        }
        for rule in ("inst", "running")
    }
    for name in target.keys() - {INPUT}:
        assert error["running"][1000][name] < 0.2 * error["running"][100][name] + 1e-6, name
    assert error["inst"][1000]["encoder.0.attention_output"] > 0.7 * error["inst"][100]["encoder.0.attention_output"]


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("neuron", [Neuron(), Neuron(vth=0.7, leak=0.9, u0=0.5), *SIGNED])
def test_certificate_accepts_our_spikes_and_finds_every_flipped_one(neuron, feedback):
    network = spiking_bert(SMALL, neuron, feedback, per_feature=neuron.signed)
    params = random_parameters(SMALL, 4, feedback, per_feature=neuron.signed)
    batch = random_batch(SMALL, 4)
    spikes = dict(next(iter(spike_blocks(network, params, batch, 1)))[1])
    blocks = [dict(s) for _, s in spike_blocks(network, params, batch, 15)]
    spikes = {name: np.concatenate([s[name] for s in blocks]) for name in spikes}
    assert sum(v.wrong for v in certify(network, params, batch, spikes).values()) == 0
    rng = np.random.default_rng(0)
    for population in network.populations:
        at = tuple(rng.integers(0, n) for n in spikes[population.name].shape)
        flipped = spikes[population.name].copy()
        flipped[at] = 1 - abs(flipped[at])
        verdict = certify(network, params, batch, spikes | {population.name: flipped})[population.name]
        assert verdict.wrong >= 1
        assert (verdict.first_wrong.t, verdict.first_wrong.index) == (at[0] + 1, at[1:]), population.name


def test_operation_count_of_one_small_encoder_by_hand():
    config = dataclasses.replace(SMALL, num_hidden_layers=1)
    d, m, n = config.hidden_size, config.intermediate_size, 5
    network = spiking_bert(config)
    firing = {p.name: 0.1 * (i + 1) for i, p in enumerate(network.populations)}
    energy = count(network, firing, t_conv=10, tokens=n)
    assert energy.dense == 3 * d * d + 2 * n * d + (d * d + d) + d * m + (m * d + d)
    h, key, value, context, attended, inner, _ = (10 * rate for rate in firing.values())  # spikes per neuron
    by_hand = (
        h * (3 * d * d + d) + key * n * d + value * n * d + context * d * d + attended * (d * m + d) + inner * m * d
    )
    assert energy.accumulates == pytest.approx(by_hand, rel=1e-14)
    assert energy.gain == pytest.approx(4.6 / 0.9 * energy.dense / by_hand)
    running = count(network, firing, t_conv=10, tokens=n, rule="running")
    assert running.products == 10 * 2 * n * d  # attention multiplies rates at every step, spike or no spike
    assert running.accumulates == pytest.approx(by_hand - (key + value) * n * d, rel=1e-14)
    assert running.gain < energy.gain


@settings(max_examples=30, deadline=None, derandomize=True)
@given(CONFIGS, st.sampled_from(["retractable", "ternary"]), st.integers(0, 99), st.integers(1, 24), st.booleans())
def test_few_steps_of_running_are_the_quantised_rate_map(config, polarity, seed, t_conv, gentle):
    """Each population, but for its lag; all of them, where nobody lags: docs/derivations.md, proposition 6."""
    neuron = Neuron(polarity=polarity, u0=0.5 if polarity == "retractable" else 0.1)
    network = spiking_bert(config, neuron, per_feature=True)
    params, batch = random_parameters(config, seed, per_feature=True), random_batch(config, seed, 2, 4)
    if gentle:  # nothing but constants and, of contexts, spikes that neurons of higher thresholds count
        params = {k: 0 * v if v.ndim > 1 or k.endswith("LayerNorm.weight") else v for k, v in params.items()}
        params = {k: np.maximum(v, 1) if k.endswith("threshold") else v for k, v in params.items()}
    steps = list(spike_steps(network, params, batch, t_conv, "running"))
    integrals = {p.name: [] for p in network.populations}  # t·f(ā[t]) in thresholds
    for t, _, means in steps:
        currents = sweep(network, params, batch, at=means, t_conv=None)[0]
        for p in network.populations:
            reads = tuple(currents[INPUT] if r == INPUT else means[r] for r in p.reads)
            integrals[p.name].append(t * p.projection(params, reads, attention_mask(batch, np.dtype(float)))[0])
    rates, kept_up = steps[-1][2], True
    for p in network.populations:
        summed = neuron.u0 + 1 - neuron.due + 1e-9 + np.stack(integrals[p.name])
        target = np.floor(summed) if polarity == "ternary" else np.maximum(np.floor(summed), 0)
        lag = np.zeros(target.shape[1:])
        for moved in np.abs(np.diff(target, axis=0, prepend=0)):
            lag = np.maximum(lag + moved - 1, 0)
        quantised = np.clip(target[-1], neuron.low * t_conv, t_conv) / t_conv
        off = np.abs(rates[p.name] - quantised)
        assert (off <= lag / t_conv + 1e-12).all(), p.name
        kept_up = kept_up and off.max() < 1e-12
    assert kept_up or not gentle
    if kept_up:
        for name, value in sweep(network, params, batch, t_conv=t_conv)[0].items():
            if name != INPUT:
                np.testing.assert_allclose(rates[name], value, atol=1e-12, err_msg=name)


def test_scales_of_one_are_the_papers_network():
    """Synapses of the residual and thresholds are parameters; where all are 1, nothing changes by a bit."""
    params, batch = random_parameters(SMALL, 4), random_batch(SMALL, 4)
    plain, other = (spiking_bert(SMALL, Neuron(u0=0.5), per_feature=own) for own in (False, True))
    ones = {k: np.ones(v) for e in range(2) for k, v in feature_shapes(SMALL, e).items()}
    for one, two in (
        (rate_map(plain, params, batch)[0], rate_map(other, params | ones, batch)[0]),
        (simulate(plain, params, batch, 9, "running")[9], simulate(other, params | ones, batch, 9, "running")[9]),
    ):
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize("per_feature", [False, True])
def test_norms_bound_the_derivative_of_every_projection(per_feature):
    """By power iteration, over each read alone: what the bound must not be below."""
    network = spiking_bert(SMALL, Neuron(polarity="ternary"), per_feature=per_feature)
    params, batch = random_parameters(SMALL, 6, per_feature=per_feature), random_batch(SMALL, 6, 1)
    params |= {name: 0.5 * value for name, value in params.items() if name.endswith("threshold")}
    params |= {name: 3 * value for name, value in params.items() if name.endswith("residual.weight")}
    mask, rng = attention_mask(batch, np.dtype(float)), np.random.default_rng(0)
    for p in network.populations[1:7]:
        reads = tuple(rng.uniform(-1, 1, (*batch.input_ids.shape, network[name].width)) for name in p.reads)
        bounds = p.projection.norms(params, reads, mask)
        for i, bound in enumerate(bounds):
            v, largest = rng.normal(size=reads[i].shape), 0.0
            for _ in range(30):
                v = v / np.linalg.norm(v)
                moved = tuple(r + 1e-30j * v if i == j else r.astype(complex) for j, r in enumerate(reads))
                u = p.projection(params, moved, mask)[0].imag / 1e-30
                v, largest = p.projection(params, reads, mask)[1](u)[0][i], max(largest, np.linalg.norm(u))
            assert 0 < largest <= bound * (1 + 1e-9), (p.name, i)


@pytest.mark.parametrize("per_feature", [False, True])
def test_norms_of_constant_rows_are_those_of_epsilon(per_feature):
    """Nothing is divided by but √ε where a row is constant."""
    network, batch = spiking_bert(SMALL, per_feature=per_feature), random_batch(SMALL, 0)
    params = {name: np.zeros(shape) for name, shape in network_shapes(SMALL, per_feature=per_feature).items()}
    name = "encoder.layer.0.output"
    params[f"{name}.LayerNorm.weight"] = np.linspace(-3, 2, SMALL.hidden_size)
    params[f"{name}.dense.weight"][0, 0] = 2.0
    if per_feature:
        params[f"{name}.residual.weight"] = np.full(SMALL.hidden_size, -4.0)
    population = network["encoder.0.output"]
    reads = tuple(np.zeros((*batch.input_ids.shape, network[read].width)) for read in population.reads)
    norms = population.projection.norms(params, reads, attention_mask(batch, np.dtype(float)))
    assert norms == pytest.approx((3e6 * 2, 3e6 * (4 if per_feature else 1)), rel=1e-12)


def test_populations_of_an_encoder_are_named_by_its_number():
    numbers = {"encoder.0.key": 0, "encoder.12.output": 12, "encoder.3": 3, "encoder.x.key": None, "encoder.": None,
               "embeddings": None, "late": None, "3": None, "encoder": None}  # fmt: skip
    assert {name: encoder_of(name) for name in numbers} == numbers


def test_a_classifier_reads_the_last_read_out_alone():
    for own, rectified in (
        ({}, True),
        ({"encoder.1.output": Neuron(polarity="ternary")}, False),
        ({"encoder.0.output": Neuron(polarity="ternary"), "embeddings": Neuron(polarity="ternary")}, True),
    ):
        assert spiking_bert(SMALL, own=own).rectified is rectified


def test_synapses_at_the_first_position_are_shared_by_all_tokens():
    """Counts are per token: one position of seven does a seventh."""
    network, short = spiking_bert(SMALL), first_position(spiking_bert(SMALL))
    for name in ("encoder.1.context", "encoder.1.attention_output"):
        widths = tuple(network[read].width for read in network[name].reads)
        whole, part = (n[name].projection.synapses(widths, network[name].width, 7.0) for n in (network, short))
        assert part == pytest.approx([value / 7 for value in whole]) and max(whole) > 0


@pytest.mark.parametrize("value", [0.0, -0.5])
def test_thresholds_that_are_not_positive_are_refused(value):
    params = random_parameters(SMALL, 4, per_feature=True)
    params["encoder.layer.1.intermediate.threshold"][3] = value
    network = spiking_bert(SMALL, per_feature=True)
    with pytest.raises(InputError, match=r"intermediate\.threshold holds .*, but thresholds are positive"):
        simulate(network, params, random_batch(SMALL, 4), 4)
    with pytest.raises(InputError, match=r"model: encoder\.layer\.1\.intermediate\.threshold holds"):
        check_parameters(params, network_shapes(SMALL, per_feature=True), "model")
    del params["encoder.layer.0.output.residual.weight"]
    with pytest.raises(InputError, match=r"encoder\.layer\.0\.output\.residual\.weight"):
        simulate(network, params, random_batch(SMALL, 4), 4)


def test_a_threshold_of_its_own_is_what_a_neuron_of_that_threshold_has():
    """One vector of equal thresholds and the constant of a population are the same network."""
    config = dataclasses.replace(SMALL, num_hidden_layers=1)
    for polarity in ("unsigned", "retractable", "ternary"):
        neuron = Neuron(polarity=polarity)
        own = {name: dataclasses.replace(neuron, vth=0.25) for name in ("encoder.0.context", "encoder.0.intermediate")}
        params, batch = random_parameters(config, 4), random_batch(config, 4)
        scales = {k: np.full(v, 0.25 if k.endswith("threshold") else 1.0) for k, v in feature_shapes(config, 0).items()}
        constants = spiking_bert(config, neuron, own=own)
        vectors = spiking_bert(config, neuron, per_feature=True)
        found = simulate(constants, params, batch, 12)[12], simulate(vectors, params | scales, batch, 12)[12]
        for name in found[0]:
            np.testing.assert_array_equal(found[0][name], found[1][name], err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", ["inst", "running"])
@pytest.mark.parametrize("feedback", [False, True])
def test_spikes_and_rates_have_the_precision_of_the_parameters(dtype, rule, feedback):
    """What is fed back begins with zeros of that precision, or everything after them has another."""
    network = spiking_bert(SMALL, feedback=feedback)
    params = {name: value.astype(dtype) for name, value in random_parameters(SMALL, 2, feedback).items()}
    batch, seen = random_batch(SMALL, 2), 0
    for _, spikes in spike_blocks(network, params, batch, 3, rule):
        assert {name: train.dtype for name, train in spikes.items()} == dict.fromkeys(spikes, dtype)
        seen += len(spikes)
    assert seen == 13 * (3 if feedback else 1)
    for leak in (1.0, 0.9):
        rates = simulate(network, params, batch, 3, rule, leak=leak)[3]
        assert {name: rate.dtype for name, rate in rates.items()} == dict.fromkeys(rates, dtype)


def test_every_encoders_scores_have_a_cotangent():
    params, batch = random_parameters(SMALL, 3), random_batch(SMALL, 3)
    observed, pullback = scores(spiking_bert(SMALL), params, rate_map(spiking_bert(SMALL), params, batch)[0], batch)
    for wrong in (observed[:1], [*observed, observed[0]]):
        with pytest.raises(ValueError, match="argument 2"):
            pullback(wrong)


def test_feedback_is_part_of_the_description():
    assert spiking_bert(SMALL, feedback=True).fed_back == ("encoder.1.output",)
    assert spiking_bert(SMALL).fed_back == ()
    with pytest.raises(InputError, match="feedback"):
        rate_map(spiking_bert(SMALL, feedback=True), random_parameters(SMALL, 0, True), random_batch(SMALL, 0))


@pytest.mark.parametrize(("t_conv", "rule"), [(0, "inst"), (4, "instant")])
def test_impossible_simulations_are_refused(t_conv, rule):
    with pytest.raises(InputError):
        next(spike_blocks(spiking_bert(SMALL), random_parameters(SMALL, 0), random_batch(SMALL, 0), t_conv, rule))


@pytest.mark.parametrize("rule", ["inst", "running"])
def test_first_position_is_that_of_the_whole_network(rule):
    """Class scores need no more: the same spikes, rates and gradients at [CLS], from a part of the work."""
    params, batch = random_parameters(SMALL, 1), random_batch(SMALL, 2, size=4)
    network = spiking_bert(SMALL, Neuron(u0=0.5))
    short = first_position(network)
    last = network.readouts[-1]
    whole, part = (simulate(n, params, batch, 40, rule)[40] for n in (network, short))
    assert part[last].shape == (4, 1, SMALL.hidden_size)
    assert all(np.array_equal(whole[name][:, : part[name].shape[1]], part[name]) for name in part)
    (rates, pullback), (first, first_pullback) = (rate_map(n, params, batch) for n in (network, short))
    np.testing.assert_allclose(first[last], rates[last][:, :1], rtol=1e-14)
    cotangent = np.random.default_rng(0).normal(size=first[last].shape)
    padded = np.zeros_like(rates[last])
    padded[:, :1] = cotangent
    wanted, found = pullback({last: padded}), first_pullback({last: cotangent})
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-13, err_msg=name)


def test_first_position_leaves_feedback_alone():
    network = spiking_bert(SMALL, feedback=True)
    assert first_position(network) is network


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_take_shares_of_the_sequences(threads, monkeypatch):
    params, batch = random_parameters(SMALL, 3), random_batch(SMALL, 4, size=5)
    network = spiking_bert(SMALL)
    whole = simulate(network, params, batch, [3, 20])
    monkeypatch.setattr("refsnn.readings.simulate.SHARE", 2 * batch.input_ids.shape[1])  # two sequences at a time
    one, several = (simulate(network, params, batch, [3, 20], threads=n) for n in (1, threads))
    for t in (3, 20):
        for name in one[t]:
            np.testing.assert_array_equal(one[t][name], several[t][name], err_msg=name)
            np.testing.assert_array_equal(one[t][name], whole[t][name], err_msg=name)


def test_no_sequences_have_no_rates():
    batch = Batch(*(ids[:0] for ids in random_batch(SMALL, 4)))
    rates = simulate(spiking_bert(SMALL), random_parameters(SMALL, 3), batch, 4, threads=2)[4]
    assert {name: rate.shape[0] for name, rate in rates.items()} == dict.fromkeys(rates, 0) and len(rates) == 13
    with pytest.raises(InputError, match=r"`block` is 0.* at least one step"):
        simulate(spiking_bert(SMALL), random_parameters(SMALL, 3), batch, 4, block=0)


def test_rates_are_those_that_are_asked_for():
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 3), random_batch(SMALL, 4)
    wanted = ["encoder.0.output", "embeddings"]
    assert list(simulate(network, params, batch, 4, keep=wanted)[4]) == wanted
    with pytest.raises(InputError, match=r"population 'nothing' is not known; there are embeddings, encoder\.0\.key"):
        simulate(network, params, batch, 4, keep=["nothing"])


def test_spikes_are_let_go_when_nobody_reads_them_any_more(monkeypatch):
    monkeypatch.setattr("refsnn.readings.simulate.SHARE", 1000)  # all sequences at once
    config = dataclasses.replace(SMALL, num_hidden_layers=8)
    network, params, batch = spiking_bert(config), random_parameters(config, 0), random_batch(config, 0, 8, 9)
    (block,) = [spikes for _, spikes in spike_blocks(network, params, batch, 16, block=16)]
    everything = sum(spikes.nbytes for spikes in block.values())
    del block
    tracemalloc.start()
    simulate(network, params, batch, 16, block=16, keep=network.readouts[-1:])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * everything


@pytest.mark.parametrize("rule", ["inst", "running"])
def test_a_fed_back_population_may_be_read_by_any_map_before_and_after_it_fires(rule):
    config = dataclasses.replace(SMALL, hidden_size=6, intermediate_size=6, num_hidden_layers=1)
    network, params = spiking_bert(config, Neuron(vth=0.7, u0=0.5)), random_parameters(config, 5)
    last, inner = "encoder.0.output", network["encoder.0.intermediate"]
    # Rates between 0 and 1, which small changes move.
    params["encoder.layer.0.attention.output.LayerNorm.weight"] *= 0.2
    params["encoder.layer.0.attention.output.LayerNorm.bias"] += 0.3
    early = dataclasses.replace(network["encoder.0.attention_output"], reads=("encoder.0.context", last))
    late = dataclasses.replace(inner, name="late", reads=(last,))
    populations = [early if p.name == early.name else p for p in network.populations]
    network = dataclasses.replace(network, populations=(*populations, late))
    assert network.fed_back == (last,)
    batch = random_batch(config, 5, 2, 3)
    expected = plain_simulation(network, params, batch, 40, rule)
    blocks = [spikes for _, spikes in spike_blocks(network, params, batch, 40, rule)]
    for name, record in expected.items():
        ours = np.concatenate([spikes[name] for spikes in blocks])
        np.testing.assert_array_equal(ours, record, err_msg=name)
    assert 0 < expected["late"].mean() < 1


def test_dropout_leaves_out_what_its_masks_say():
    """Masks of zeros are absent maps; the others are 0 or 1/(1 − p), as often as they should be."""
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 3), random_batch(SMALL, 4, size=3)
    masks = dropout_masks(network, batch, 0.25, np.random.default_rng(0), np.float64)
    values = np.concatenate([mask.ravel() for mask in masks.values()])
    assert set(values) == {0.0, 4 / 3}
    assert abs((values == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(values))
    nothing = {name: np.zeros_like(mask) for name, mask in masks.items()}
    without = {name: np.zeros_like(value) if ".dense." in name else value for name, value in params.items()}
    without |= {name: params[name] for name in params if "intermediate" in name}
    inner = {name: mask for name, mask in nothing.items() if name.endswith("dense.dropout")}
    wanted, found = (rate_map(network, p, batch)[0] for p in (without, params | inner))
    for name, rate in wanted.items():
        np.testing.assert_array_equal(found[name], rate, err_msg=name)
    attention = {name: mask for name, mask in nothing.items() if name.endswith("query.dropout")}
    assert not rate_map(network, params | attention, batch)[0]["encoder.0.context"].any()
    assert not rate_map(network, params | {"embeddings.dropout": nothing["embeddings.dropout"]}, batch)[0][INPUT].any()


def test_dropout_at_the_first_position_is_that_of_the_whole_network():
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 1), random_batch(SMALL, 2, size=4)
    params |= dropout_masks(network, batch, 0.5, np.random.default_rng(1), np.float64)
    last = network.readouts[-1]
    whole, part = (rate_map(n, params, batch)[0][last] for n in (network, first_position(network)))
    np.testing.assert_allclose(part, whole[:, :1], rtol=1e-14)


def test_spikes_settle_under_masks_that_stay_the_same():
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 1), random_batch(SMALL, 1)
    plain = rate_map(network, params, batch)[0]
    params |= dropout_masks(network, batch, 0.3, np.random.default_rng(2), np.float64)
    target, (near, far) = (
        rate_map(network, params, batch)[0],
        simulate(network, params, batch, [100, 1000], "running").values(),
    )
    for name in far:
        error = np.abs(far[name] - target[name]).mean()
        assert error < 0.2 * np.abs(near[name] - target[name]).mean() + 1e-6, name
    last = network.readouts[-1]
    assert np.abs(plain[last] - target[last]).mean() > 10 * np.abs(far[last] - target[last]).mean()


@pytest.mark.parametrize("probability", [-0.1, 1.0, float("nan")])
def test_impossible_probabilities_of_dropout_are_refused(probability):
    with pytest.raises(InputError, match="dropout probability is"):
        dropout_masks(spiking_bert(SMALL), random_batch(SMALL, 0), probability, np.random.default_rng(0))
