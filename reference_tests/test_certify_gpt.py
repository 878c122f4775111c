"""Certificates of networks with analogue units among their neurons: the residual stream of a spiking GPT."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_certify import (
    RULES,
    assert_same,
    complaint,
    first_wrong,
    flips_are_judged,
    imitate,
    judged,
    programs,
    some,
    within_potentials,
)
from test_rounding import Program

from refsnn.commands import cli
from refsnn.conformance.difference import first_difference
from refsnn.errors import InputError
from refsnn.model import projections
from refsnn.model.batch import Batch, attention_mask
from refsnn.model.gpt import GptConfig, SpikingGptConfig, gpt, spiking_gpt, spiking_gpt_shapes
from refsnn.model.network import Network, Population
from refsnn.model.neurons import Neuron
from refsnn.model.parameters import initial_parameters
from refsnn.model.projections import Add, Drive, Gelu, Linear, Norm, TokenEmbeddings
from refsnn.ops.rounding import OWN, PRECISIONS, Enclosed
from refsnn.readings import certify as certificates
from refsnn.readings.certify import certify
from refsnn.readings.simulate import spike_blocks
from refsnn.storage.records import certify_record, read_record, record, write_record

SMALL = GptConfig(vocab_size=30, n_positions=9, n_embd=12, n_layer=2, n_head=3, n_inner=20)
POLARITIES = ("unsigned", "retractable", "ternary")
STREAMS = ("accumulated", "at the means", "telescoped")


def random_gpt_parameters(config, seed, scale=1.0):
    """Parameters without zeros or ones; thresholds between a half and two."""
    rng = np.random.default_rng(seed)
    params = initial_parameters(spiking_gpt_shapes(config), rng, 0.4, np.float64)
    params = {name: scale * (value + 0.2 * rng.normal(size=value.shape)) for name, value in params.items()}
    own = {name: rng.uniform(0.5, 2, value.shape) for name, value in params.items() if name.endswith(".threshold")}
    return params | own


def random_tokens(config, seed, size=2, positions=5):
    rng = np.random.default_rng(seed)
    lengths = [positions, *rng.integers(1, positions + 1, size - 1)]
    return Batch.of([rng.integers(config.vocab_size, size=int(n)).tolist() for n in lengths])


def neuron_of(polarity, **constants):
    return Neuron(u0=0.0 if polarity == "ternary" else 0.5, polarity=polarity, **constants)


def spikes_of(network, params, batch, t_conv, rule, block=4):
    """Spikes of a simulation in the parameters' precision, those of neurons alone."""
    blocks = [dict(trains) for _, trains in spike_blocks(network, params, batch, t_conv, rule, block)]
    return {p.name: np.concatenate([b[p.name] for b in blocks]) for p in network.populations if p.neuron is not None}


def wrong_of(verdicts):
    return sum(verdict.wrong for verdict in verdicts.values())


@st.composite
def cases(draw, t_max=40, polarities=POLARITIES):
    heads = draw(st.integers(1, 3))
    config = GptConfig(
        vocab_size=11,
        n_positions=7,
        n_embd=heads * draw(st.integers(1, 4)),
        n_layer=draw(st.integers(1, 2)),
        n_head=heads,
        n_inner=draw(st.integers(1, 9)),
    )
    neuron = neuron_of(
        draw(st.sampled_from(polarities)),
        vth=draw(st.floats(0.5, 2)),
        leak=draw(st.sampled_from([1.0, 0.9, 0.5])),
        tie=draw(st.sampled_from([0, None])),
    )
    seed = draw(st.integers(0, 999))
    params = random_gpt_parameters(config, seed, draw(st.sampled_from([0.2, 1.0, 3.0])))
    batch = random_tokens(config, seed, draw(st.integers(1, 2)), draw(st.integers(1, 5)))
    return spiking_gpt(config, neuron), params, batch, draw(st.integers(1, t_max)), draw(st.sampled_from(RULES))


def passed_on(model, params, batch, spikes, rule, precision):
    """What a certificate says that analogue units pass on, and the means of it, with bounds."""
    found = {}

    class Trains(certificates._Trains):
        def pass_on(self, name, current, total=None):
            super().pass_on(name, current, total)
            found[name] = current, None if total is None else self.means(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "_Trains", Trains)
        certify(model, params, batch, spikes, rule, precision, block=100)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# No correct program is called wrong


@settings(some, max_examples=120)
@given(cases(), programs, st.sampled_from(STREAMS))
def test_a_correct_program_is_never_called_wrong(case, program, stream):
    model, params, batch, _, rule = case
    passed = {}
    spikes, potentials = imitate(*case, program, stream=stream, seen=passed)
    assume(not program.overflowed)
    precision = PRECISIONS[program.precision]
    verdicts, compared = judged(model, params, batch, spikes, rule, precision)
    assert list(verdicts) == [p.name for p in model.populations if p.neuron is not None]
    for name, verdict in verdicts.items():
        assert within_potentials(potentials[name], *compared[name], model[name].neuron, precision) <= 1, name
        assert verdict.wrong == 0, (name, str(verdict.first_wrong))
        assert verdict.decisions == spikes[name].size
    # What the stream passes on, and its means, are held to their bounds as well.
    for name, (current, mean) in passed_on(model, params, batch, spikes, rule, precision).items():
        theirs, their_mean = passed[name]
        if rule == "inst" or stream != "telescoped":  # telescoped currents may be far off, but what is left of it
            assert (np.abs(theirs - current.value) <= current.error).all(), name
        if rule == "running":
            assert (np.abs(their_mean - mean.value) <= mean.error).all(), name


@settings(some, max_examples=40)
@given(cases(t_max=20), st.integers(0, 99))
def test_the_order_of_blocks_and_sums_is_free(case, seed):
    model, params, batch, t_conv, rule = case
    for dtype in (np.float64, np.float32):
        own = {name: value.astype(dtype) for name, value in params.items()}
        for block in (1, 3, t_conv):
            spikes = spikes_of(model, own, batch, t_conv, rule, block)
            for name, verdict in certify(model, own, batch, spikes, rule, dtype.__name__, 1 + seed % 7).items():
                assert verdict.wrong == 0, (name, block, str(verdict.first_wrong))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("polarity", POLARITIES)
def test_verdicts_do_not_depend_on_blocks(rule, polarity):
    model = spiking_gpt(SMALL, neuron_of(polarity, leak=0.9))
    params, batch = random_gpt_parameters(SMALL, 1), random_tokens(SMALL, 1)
    spikes = record(model, params, batch, 17, rule)
    flipped = spikes | {"block.1.context": spikes["block.1.context"].copy()}
    flipped["block.1.context"][9, 1, 0, 3] ^= 1
    for trains in (spikes, flipped):
        whole = certify(model, params, batch, trains, rule, "float32", block=17)
        for block in (1, 2, 5, 16, 100):
            assert_same(whole, certify(model, params, batch, trains, rule, "float32", block=block))
    assert whole["block.1.context"].first_wrong.t == 10


def stream_of(width, steps, program, rng):
    """Numbers that a stream passes on in so many steps, each next one the one whose addition rounds most."""
    total, exact, chosen = program.store(np.zeros(width)), np.zeros(width), []
    for _ in range(steps):
        choice = program.store(rng.choice([-1, 1], (200, width)) * rng.uniform(0.1, 3, (200, width)))
        after = program.store(total + choice)
        off = np.abs(after - (exact + choice.astype(float)))
        best = off.argmax(axis=0), np.arange(width)
        chosen.append(choice[best].astype(float))
        total, exact = after[best], exact + chosen[-1]
    return np.array(chosen), total, exact


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_sum_of_the_stream_can_err_by_a_good_part_of_its_bound(name):
    """Exact currents, in an order that makes their sum err: what the recurrence allows is needed."""
    program, precision, unit = Program(name), PRECISIONS[name], PRECISIONS[name].unit + OWN
    chosen, theirs, exact = stream_of(6, 40, program, np.random.default_rng(0))
    rounded = np.abs(chosen) + np.abs(np.cumsum(chosen, axis=0))
    bound = certificates._gathered(unit * rounded + 2 * precision.tiny, 0.0, growth=1 + unit)[-1]
    reached = np.abs(theirs - exact) / bound
    assert 0.15 < reached.max() <= 1


# ---------------------------------------------------------------------------------------------------------------------
# What is wrong is found


def changed(network, change):
    """The same network, with other populations where `change` returns some."""
    return dataclasses.replace(network, populations=tuple(change(p) or p for p in network.populations))


def without_residual(p):
    if isinstance(p.projection, Add) and p.name == "block.1.attention_output":
        return dataclasses.replace(p, projection=Linear(p.projection.dense), reads=p.reads[:1])


def with_exact_gelu(p):
    if isinstance(p.projection, Gelu):
        return dataclasses.replace(p, projection=dataclasses.replace(p.projection, tanh=False))


def looking_ahead(p):
    if isinstance(p.projection, projections.Attention):
        return dataclasses.replace(p, projection=dataclasses.replace(p.projection, causal=False))


def with_spikes_in_the_stream(p):
    if p.neuron is None and p.name != "embeddings":
        return dataclasses.replace(p, neuron=Neuron(polarity="ternary"))


def normalised_late(p):
    if p.name == "block.1.intermediate_norm":
        return dataclasses.replace(p, reads=("block.0.output",))


#: What a program does wrong, and the populations that it shows in.
MISTAKES = {
    "a residual is dropped": (without_residual, {"block.1.intermediate_norm", "final_norm"}),
    "GELU is exact": (with_exact_gelu, {"block.0.intermediate", "block.1.intermediate"}),
    "attention looks ahead": (looking_ahead, {"block.0.context", "block.1.context"}),
    "the stream spikes": (
        with_spikes_in_the_stream,
        {"block.0.intermediate_norm", "block.1.attention_norm", "block.1.intermediate_norm", "final_norm"},
    ),
    "a stream of before is read": (normalised_late, {"block.1.intermediate_norm"}),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("polarity", POLARITIES)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_networks_are_found(mistake, polarity, rule):
    change, where = MISTAKES[mistake]
    model = spiking_gpt(SMALL, neuron_of(polarity))
    params, batch = random_gpt_parameters(SMALL, 2), random_tokens(SMALL, 2)
    neurons = [p.name for p in model.populations if p.neuron is not None]
    for dtype in (np.float64, np.float32):
        own = {name: value.astype(dtype) for name, value in params.items()}
        wrong = spikes_of(changed(model, change), own, batch, 64, rule)
        verdicts = certify(model, params, batch, {n: wrong[n] for n in neurons}, rule, dtype.__name__)
        found = {name for name, verdict in verdicts.items() if verdict.wrong}
        assert found and found <= where
        assert found == where or mistake == "GELU is exact"  # by up to 5e-4, which not every neuron's spikes tell


def test_positions_that_are_counted_from_elsewhere_are_found():
    model = spiking_gpt(SMALL)
    params, batch = random_gpt_parameters(SMALL, 2), random_tokens(SMALL, 2)
    shifted = dataclasses.replace(model, drive=TokenEmbeddings(first=1))
    spikes = record(shifted, params, batch, 16)
    assert wrong_of(certify(shifted, params, batch, spikes)) == 0
    verdicts = certify(model, params, batch, spikes)
    assert first_wrong(verdicts)[1] == "block.0.attention_norm"


@pytest.mark.parametrize("rule", RULES)
def test_the_wrong_rule_is_found(rule):
    model, params, batch = spiking_gpt(SMALL), random_gpt_parameters(SMALL, 0), random_tokens(SMALL, 0)
    other = RULES[1 - RULES.index(rule)]
    verdicts = certify(model, params, batch, record(model, params, batch, 20, other), rule)
    assert verdicts["block.0.attention_norm"].wrong == 0  # of a constant, the rules are the same
    assert verdicts["block.0.intermediate_norm"].wrong > 0


TINY = GptConfig(vocab_size=5, n_positions=2, n_embd=2, n_layer=1, n_head=1, n_inner=2)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("stream", STREAMS)
def test_every_single_flip_of_a_very_small_network(rule, stream):
    model = spiking_gpt(TINY, Neuron(leak=0.9, u0=0.5))
    params, batch = random_gpt_parameters(TINY, 3), random_tokens(TINY, 3, 1, 2)
    spikes, _ = imitate(model, params, batch, 5, rule, Program("float64"), stream=stream)
    places = [(name, at) for name, train in spikes.items() for at in np.ndindex(train.shape)]
    flips_are_judged(model, params, batch, spikes, rule, PRECISIONS["float64"], places)


@settings(some, max_examples=20)
@given(cases(t_max=25, polarities=("unsigned",)), st.sampled_from(["float64", "float32", "bfloat16"]))
def test_flips_nearest_to_their_bound_are_judged(case, name):
    model, params, batch, _, rule = case
    precision = PRECISIONS[name]
    spikes, _ = imitate(*case, Program(name))
    compared = judged(model, params, batch, spikes, rule, precision)[1]
    places = []
    for which, (u, bound) in compared.items():
        neuron = model[which].neuron
        margin = np.abs(u - neuron.vth * (1 - neuron.delta(name))) - bound
        order = np.argsort(margin, axis=None)
        outside = order[np.searchsorted(margin.ravel()[order], 0) :]
        for flat in {*order[:1], *outside[:1]}:
            places.append((which, tuple(int(i) for i in np.unravel_index(flat, margin.shape))))
    flips_are_judged(model, params, batch, spikes, rule, precision, places)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("name", "most"), [("float64", 0.0), ("float32", 2e-3)])
def test_few_decisions_are_left_open(name, most, rule):
    model, params, batch = spiking_gpt(SMALL), random_gpt_parameters(SMALL, 4), random_tokens(SMALL, 4)
    dtype = np.dtype(name)
    spikes = spikes_of(model, {k: v.astype(dtype) for k, v in params.items()}, batch, 64, rule)
    verdicts = certify(model, params, batch, spikes, rule, name)
    left = sum(v.undecidable for v in verdicts.values()) / sum(v.decisions for v in verdicts.values())
    assert left <= most and wrong_of(verdicts) == 0


# ---------------------------------------------------------------------------------------------------------------------
# Other networks than GPTs


def loop(neuron, stream=None):
    """A stream that reads itself of a step ago, through neurons and past them."""
    return Network(
        drive=TokenEmbeddings(),
        populations=(
            Population("heard", Norm("ln_f", 1e-5), ("stream",), 12, neuron),
            Population("key", Linear("h.0.attn.key"), ("stream",), 12, neuron),
            Population("embeddings", Drive(), ("input",), 12, stream),
            Population("stream", Add("h.0.attn.c_proj"), ("heard", "embeddings"), 12, stream),
        ),
        readouts=("stream",),
        contexts=(),
    )


@pytest.mark.parametrize("name", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("rule", RULES)
def test_a_stream_that_is_fed_back_is_read_a_step_late(rule, name):
    params, batch = random_gpt_parameters(SMALL, 5), random_tokens(SMALL, 5)
    for polarity in POLARITIES:
        model = loop(neuron_of(polarity))
        for stream in ("accumulated", "telescoped"):
            for folded in (False, True):
                spikes, _ = imitate(model, params, batch, 30, rule, Program(name, folded=folded), stream=stream)
                verdicts = certify(model, params, batch, spikes, rule, name, block=7)
                assert wrong_of(verdicts) == 0
        spikes["heard"][20, 0, 0, 0] ^= 1
        assert name == "bfloat16" or certify(model, params, batch, spikes, rule, name)["heard"].wrong >= 1


def test_rounding_that_gathers_step_by_step_in_an_affine_map_is_allowed_for():
    """Spikes of both signs cancel in the means, and the errors that a program made of them do not."""
    config = dataclasses.replace(SMALL, n_embd=2, n_head=1)
    params = random_gpt_parameters(config, 0)
    batch = Batch.of([[1]])
    neuron = Neuron(polarity="ternary", tie=0.0)
    model = Network(
        drive=TokenEmbeddings(),
        populations=(
            Population("embeddings", Drive(), ("input",), 2, neuron),
            Population("key", Linear("h.0.attn.key"), ("embeddings",), 2, neuron),
        ),
        readouts=("embeddings",),
        contexts=(),
    )
    # A bias of 1/3 that starts the sum, then ±2²⁰ and ∓2²⁰: 3/8 is left, or 5/16.
    params["h.0.attn.key.weight"] = np.array([[2.0**20, -(2.0**20)]] * 2)
    params["h.0.attn.key.bias"] = np.full(2, 1 / 3)
    trains = {"embeddings": np.tile([[[[1.0, 1.0]]], [[[-1.0, -1.0]]]], (400, 1, 1, 1))}
    program, charge = Program("float32", "sequential", folded=True), np.zeros((1, 1, 2), np.float32)
    theirs, found = np.zeros(trains["embeddings"].shape), np.zeros(trains["embeddings"].shape)
    for t, s in enumerate(trains["embeddings"].astype(np.float32)):
        u = charge + program.linear(s, params["h.0.attn.key.weight"], params["h.0.attn.key.bias"])[0]
        theirs[t], found[t] = u, (u >= 0.5) * 1.0 - (u < -0.5)
        charge = u - found[t].astype(np.float32)
    assert trains["embeddings"].shape == found.shape
    verdict = certify(model, params, batch, trains | {"key": found}, "running", "float32")["key"]
    assert verdict.wrong == 0


def test_networks_that_cannot_be_certified_are_refused_in_one_sentence():
    params, batch = random_gpt_parameters(SMALL, 0), random_tokens(SMALL, 0)
    model = spiking_gpt(SMALL)
    spikes = record(model, params, batch, 4)
    assert spikes.keys() == {p.name for p in model.populations if p.neuron is not None}
    with pytest.raises(InputError, match="spikes of embeddings, whose analogue units have none"):
        certify(model, params, batch, spikes | {"embeddings": spikes["block.0.key"]})
    with pytest.raises(InputError, match="lacks the spikes of final_norm"):
        certify(model, params, batch, {k: v for k, v in spikes.items() if k != "final_norm"})
    with pytest.raises(InputError, match="every population has analogue units"):
        certify(gpt(SMALL), params, batch, {})
    curved = changed(model, lambda p: dataclasses.replace(p, neuron=None) if isinstance(p.projection, Gelu) else None)
    spikes = {name: train for name, train in spikes.items() if not name.endswith(".intermediate")}
    with pytest.raises(
        InputError, match=r"population block\.0\.intermediate has analogue units whose map is not affine"
    ):
        certify(curved, params, batch, spikes, "running")


def test_analogue_units_of_any_map_are_certified_under_inst():
    params, batch = random_gpt_parameters(SMALL, 0), random_tokens(SMALL, 0)
    curved = changed(
        spiking_gpt(SMALL), lambda p: dataclasses.replace(p, neuron=None) if isinstance(p.projection, Gelu) else None
    )
    spikes = spikes_of(curved, params, batch, 20, "inst")
    assert wrong_of(certify(curved, params, batch, spikes)) == 0
    assert wrong_of(certify(curved, params | {"h.0.mlp.c_fc.bias": -params["h.0.mlp.c_fc.bias"]}, batch, spikes)) > 0


# ---------------------------------------------------------------------------------------------------------------------
# Bounds are those of the formulas in docs/certificates.md


@pytest.mark.parametrize("name", ["float64", "float16"])
def test_bounds_of_the_stream_are_those_of_the_recurrence(name):
    """Written out a second time, over all steps at once and one population after the other."""
    model, params = spiking_gpt(SMALL, Neuron(polarity="ternary")), random_gpt_parameters(SMALL, 1)
    batch, precision, steps = random_tokens(SMALL, 1), PRECISIONS[name], 9
    spikes, unit = record(model, params, batch, steps, "running"), PRECISIONS[name].unit + OWN
    found = passed_on(model, params, batch, spikes, "running", precision)
    mask = attention_mask(batch, np.dtype(float))
    x, times = model.drive.enclose(params, batch, precision), np.arange(1.0, steps + 1).reshape(-1, 1, 1, 1)
    currents, means = {"input": x}, {"input": x}
    for p in model.populations:
        if p.neuron is not None:
            train = spikes[p.name].astype(float)
            mean = np.cumsum(train, axis=0) / times
            currents[p.name], means[p.name] = Enclosed.exact(train), Enclosed(mean, 2 * unit * np.abs(mean))
            continue
        z, f = (
            Enclosed(*(np.broadcast_to(part, (steps, *part.shape[-3:])) for part in
                       p.projection.enclose(params, tuple(of[r] for r in p.reads), mask, precision)))
            for of in (currents, means)
        )  # fmt: skip
        off = times * (f.error + 2 * unit * (1 + 2 * unit) * (np.abs(f.value) + f.error)) + precision.tiny
        telescoped = np.maximum.accumulate(off, axis=0)
        total, gathered, bound = times * f.value, np.zeros(f.value.shape[1:]), []
        for t in range(steps):
            rounded = np.abs(z.value[t]) + np.abs(total[t]) + 3 * telescoped[t]
            gathered = (gathered + z.error[t] + unit * rounded + 2 * precision.tiny) * (1 + unit)
            bound.append((telescoped[t] + gathered) / times[t])
        mean = total / times
        currents[p.name], means[p.name] = z, Enclosed(mean, bound + 2 * unit * (np.abs(mean) + bound))
        for ours, expected in zip(found[p.name], (currents[p.name], means[p.name]), strict=True):
            np.testing.assert_allclose(ours.value, expected.value, rtol=1e-12, atol=1e-13)
            np.testing.assert_allclose(ours.error, expected.error, rtol=1e-9)


# ---------------------------------------------------------------------------------------------------------------------
# Files


class Case:
    def __init__(self, path, rule="running", polarity="unsigned"):
        self.path, self.rule = path, rule
        own = {"block.0.key": {"vth": 0.7}}
        self.config = SpikingGptConfig(SMALL, neuron_of(polarity, leak=0.9), own)
        self.params, self.batch = random_gpt_parameters(SMALL, 6), random_tokens(SMALL, 6)
        self.spikes = record(self.config.network, self.params, self.batch, 17, rule)
        self.write(self.spikes)

    def write(self, spikes):
        write_record(self.path, self.config, self.batch, spikes, self.rule, "float64", self.params)


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path / "spikes.safetensors")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("polarity", POLARITIES)
def test_records_of_a_gpt_come_back_as_they_were_written(tmp_path, rule, polarity):
    case = Case(tmp_path / "spikes", rule, polarity)
    found, spikes = read_record(case.path)
    assert (found.network, found.rule, found.precision) == (case.config.network, rule, PRECISIONS["float64"])
    for ours, theirs in (
        (found.params, case.params),
        (spikes, case.spikes),
        (found.batch._asdict(), case.batch._asdict()),
    ):
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert {train.dtype.name for train in spikes.values()} == {"uint8" if polarity == "unsigned" else "int8"}
    whole = certify(case.config.network, case.params, case.batch, case.spikes, rule)
    assert wrong_of(whole) == 0
    for block in (None, 1, 5):
        assert_same(whole, certify_record(case.path, block=block)[1])


def test_records_of_a_gpt_are_certified_on_the_command_line(case, tmp_path, capsys):
    files = tmp_path / "verdicts.json", tmp_path / "margins.svg"
    assert cli.main(["certify", str(case.path), "--json", str(files[0]), "--plot", str(files[1])]) == 0
    said = capsys.readouterr().out
    assert f"consistent: of {sum(t.size for t in case.spikes.values()):,} decisions 0 are wrong" in said
    assert list(json.loads(files[0].read_text())["populations"]) == list(case.spikes) and files[1].exists()
    flipped = case.spikes | {"block.1.intermediate_norm": case.spikes["block.1.intermediate_norm"].copy()}
    flipped["block.1.intermediate_norm"][12, 1, 0, 9] ^= 1
    case.write(flipped)
    assert cli.main(["certify", str(case.path)]) == 1
    first = "the first wrong decision is of block.1.intermediate_norm: at t = 13, index (1, 0, 9), the neuron"
    assert first in capsys.readouterr().out


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("name", "at"), [("final_norm", (12, 1, 0, 9)), ("block.1.context", (5, 0, 3, 2)), ("block.0.key", (0, 0, 0, 0))]
)
def test_records_of_a_gpt_are_compared(tmp_path, capsys, rule, name, at):
    """The potential is the one that the certificate has."""
    one, other = Case(tmp_path / "one", rule), Case(tmp_path / "other", rule)
    spikes = one.spikes | {name: one.spikes[name].copy()}
    spikes[name][at] ^= 1
    other.write(spikes)
    found = first_difference(one.path, other.path)
    u, _ = judged(one.config.network, one.params, one.batch, one.spikes, rule, PRECISIONS["float64"])[1][name]
    assert (found.population, found.t, found.index, found.differing) == (name, at[0] + 1, at[1:], 1)
    np.testing.assert_allclose(found.potentials, u[: at[0] + 1, *at[1:]], rtol=1e-9, atol=1e-11)
    assert cli.main(["diff", str(one.path), str(other.path)]) == 1
    said = capsys.readouterr().out
    assert f"the first difference is of {name}" in said
    assert ("it read no spikes, but real numbers alone" in said) == (name == "final_norm")


def spoilt(case, **config):
    return {"config": case.config.to_dict() | config, "rule": case.rule, "dtype": "float64"}


KEY = "spikes/block.0.key"
SPOILED = {
    "spikes of analogue units": (lambda t: t.update({"spikes/block.0.output": t[KEY]}), {}, "spikes of block.0.output"),
    "missing population": (lambda t: t.pop(KEY), {}, "lacks the spikes of block.0.key"),
    "an unknown model": (None, {"model_type": "spiking_t5"}, "model_type is 'spiking_t5', but 'spiking_bert' or"),
    "a near constant": (None, {"vht": 1.0}, "the key 'vht' is not known; there are "),
    "a teacher": (None, {"model_type": "gpt2"}, "model_type is 'gpt2'"),
    "a model of a list": (None, {"model_type": []}, "model_type is []"),
    "a BERT's tokens": (lambda t: t.update(token_type_ids=t["token_type_ids"] + 1), {}, "token_type_ids must hold"),
    "unknown tokens": (lambda t: t.update(input_ids=t["input_ids"] + 30), {}, "input_ids must hold"),
    "too many positions": (None, {"n_positions": 4}, "only 4 are embedded"),
    "threshold": (None, {"vth": "one"}, "vth is 'one'"),
    "another activation": (None, {"activation_function": "relu"}, "activation_function is 'relu'"),
    "a width": (None, {"n_embd": 13}, "n_embd 13 is not divisible"),
    "a population": (None, {"populations": {"block.2.key": {"vth": 1.0}}}, "no such population"),
    "thresholds": (lambda t: t.pop("param/h.1.mlp.threshold"), {}, "lacks the parameter h.1.mlp.threshold"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_records_that_cannot_be_judged_are_refused_in_one_sentence(case, capsys, what):
    spoil, config, words = SPOILED[what]
    tensors = {f"spikes/{k}": v for k, v in case.spikes.items()} | case.batch._asdict()
    tensors |= {f"param/{k}": v for k, v in case.params.items()}
    if spoil:
        spoil(tensors)
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    safetensors.numpy.save_file(tensors, case.path, {"refsnn": json.dumps(spoilt(case, **config))})
    assert words in complaint(capsys, case.path)
