"""What readings are given: what fits is read right, what nearly fits is refused by name, nothing passes in silence."""

import dataclasses

import numpy as np
import pytest
from conftest import SMALL, random_batch, random_parameters

import refsnn
from refsnn.distillation.training import in_shares
from refsnn.errors import InputError
from refsnn.model.batch import Batch
from refsnn.model.dropout import dropout_masks
from refsnn.model.families import bert, spiking_bert
from refsnn.model.network import INPUT, Network, Population, first_position
from refsnn.model.neurons import Neuron, fire, fire_loop
from refsnn.model.parameters import initial_parameters
from refsnn.model.projections import Attention
from refsnn.readings import inputs
from refsnn.readings.adjoint import Solve
from refsnn.readings.equilibrium import Search, equilibrium
from refsnn.readings.implicit import adjoint, contraction_bound, implicit_gradient, unrolled_gradient
from refsnn.readings.inputs import check_inputs
from refsnn.readings.rate_map import rate_map, sweep
from refsnn.readings.simulate import simulate, spike_blocks, spike_steps, spike_stream
from refsnn.storage.records import record

NETWORK, LOOP = spiking_bert(SMALL), spiking_bert(SMALL, feedback=True)
BATCH = random_batch(SMALL, 0)
PARAMS = random_parameters(SMALL, 0)
LOOPED = random_parameters(SMALL, 0, feedback=True) | {"feedback.weight": 0.05 * np.eye(12)}
LAST = "encoder.1.output"
ONES = {LAST: np.ones((2, 5, 12))}

#: Every reading, as a function of network, parameters and batch.
READINGS = {
    "rate_map": rate_map,
    "sweep": sweep,
    "equilibrium": equilibrium,
    "simulate": lambda *inputs: simulate(*inputs, 2),
    "spike_stream": lambda *inputs: list(spike_stream(*inputs, 2)),
    "spike_blocks": lambda *inputs: list(spike_blocks(*inputs, 2)),
    "spike_steps": lambda *inputs: list(spike_steps(*inputs, 2)),
    "record": lambda *inputs: record(*inputs, 2),
    "unrolled_gradient": lambda *inputs: unrolled_gradient(*inputs, ONES, 1),
    "contraction_bound": lambda *inputs: contraction_bound(*inputs, RATES),
}
RATES = rate_map(NETWORK, PARAMS, BATCH)[0]

BIAS, WEIGHT = "encoder.layer.1.intermediate.dense.bias", "encoder.layer.0.attention.self.query.weight"
NORM, WORDS = "encoder.layer.0.output.LayerNorm.weight", "embeddings.word_embeddings.weight"


def changed(name, change):
    return PARAMS | {name: change(PARAMS[name])}


def spoilt(value, at, what):
    value = value.copy()
    value.reshape(-1)[at] = what
    return value


#: Inputs that do not fit, and what the sentence must name.
SPOILT = {
    "a network's name": (("spiking_bert", PARAMS, BATCH), "the network is of type str"),
    "a list of parameters": ((NETWORK, [*PARAMS.values()], BATCH), "the parameters are of type list"),
    "a missing bias": ((NETWORK, {k: v for k, v in PARAMS.items() if k != BIAS}, BATCH), f"lack {BIAS}"),
    "a missing table": ((NETWORK, {k: v for k, v in PARAMS.items() if k != WORDS}, BATCH), f"lack {WORDS}"),
    "a matrix too wide": ((NETWORK, changed(WEIGHT, lambda w: w[:, 1:]), BATCH), rf"{WEIGHT} has shape \(12, 11\)"),
    "a bias as a column": ((NETWORK, changed(BIAS, lambda b: b[:, None]), BATCH), rf"{BIAS} has shape \(20, 1\)"),
    "a bias that broadcasts": ((NETWORK, changed(BIAS, lambda b: b[:1]), BATCH), rf"{BIAS} has shape \(1,\)"),
    "a norm that broadcasts": ((NETWORK, changed(NORM, lambda b: b[:1]), BATCH), rf"{NORM} has shape \(1,\)"),
    "a table too narrow": ((NETWORK, changed(WORDS, lambda w: w[:, :11]), BATCH), rf"{WORDS} .* needs \(any, 12\)"),
    "NaN in a bias": ((NETWORK, changed(BIAS, lambda b: spoilt(b, 3, np.nan)), BATCH), f"{BIAS} holds NaN"),
    "infinity in a matrix": ((NETWORK, changed(WEIGHT, lambda b: spoilt(b, 3, np.inf)), BATCH), f"{WEIGHT} holds NaN"),
    "NaN in a word": ((NETWORK, changed(WORDS, lambda b: spoilt(b, 3, np.nan)), BATCH), f"{WORDS} holds NaN"),
    "integers": ((NETWORK, changed(BIAS, lambda b: b.astype(int)), BATCH), f"{BIAS} is of type int64"),
    "truths": ((NETWORK, changed(BIAS, lambda b: b > 0), BATCH), f"{BIAS} is of type bool"),
    "a list as a bias": ((NETWORK, changed(BIAS, lambda b: b.tolist()), BATCH), f"{BIAS} is of type list"),
    "an unknown mask": ((NETWORK, PARAMS | {"embedding.dropout": np.ones((2, 5, 12))}, BATCH), "embedding.dropout"),
    "a mask of NaN": ((NETWORK, PARAMS | {"embeddings.dropout": np.full((2, 5, 12), np.nan)}, BATCH), "holds NaN"),
    "a mask of another batch": ((NETWORK, PARAMS | {"embeddings.dropout": np.ones((1, 5, 12))}, BATCH), "has shape"),
    "lists of ids": ((NETWORK, PARAMS, [[3, 4], [5, 6]]), "the batch is a list"),
    "an array of ids": ((NETWORK, PARAMS, BATCH.input_ids), "the batch is a ndarray"),
    "lists in a batch": ((NETWORK, PARAMS, Batch([[3]], [[0]], [[1]])), "input_ids must hold integers"),
    "float ids": ((NETWORK, PARAMS, BATCH._replace(input_ids=BATCH.input_ids * 1.0)), "input_ids must hold integers"),
    "a Boolean mask": ((NETWORK, PARAMS, BATCH._replace(attention_mask=BATCH.attention_mask > 0)), "attention_mask"),
    "a mask of 2": ((NETWORK, PARAMS, BATCH._replace(attention_mask=2 * BATCH.attention_mask)), "other values than 1"),
    "a mask of −1": ((NETWORK, PARAMS, BATCH._replace(attention_mask=-BATCH.attention_mask)), "other values than 1"),
    "shapes that differ": ((NETWORK, PARAMS, BATCH._replace(attention_mask=np.ones((1, 5), int))), "have shapes"),
    "one sequence's axis": ((NETWORK, PARAMS, Batch(*(ids[0] for ids in BATCH))), "have shapes"),
    "a word too many": ((NETWORK, PARAMS, BATCH._replace(input_ids=BATCH.input_ids + 30)), "must lie in|must hold"),
    "a negative word": ((NETWORK, PARAMS, BATCH._replace(input_ids=BATCH.input_ids - 30)), "must lie in|must hold"),
    "a type too many": ((NETWORK, PARAMS, BATCH._replace(token_type_ids=BATCH.input_ids)), "must lie in|must hold"),
    "too many positions": ((NETWORK, PARAMS, Batch(*np.ones((3, 1, 10), int))), "must lie in"),
}


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("what", SPOILT)
def test_every_reading_refuses_what_does_not_fit(what, reading):
    inputs, said = SPOILT[what]
    if reading == "contraction_bound" and "must lie in" in said:
        pytest.skip("it does not look at the tokens: the rates are given")
    with pytest.raises(InputError, match=said):
        READINGS[reading](*inputs)


def test_what_fits_is_read_as_before():
    for network in (NETWORK, first_position(NETWORK), bert(SMALL)):
        check_inputs(network, PARAMS, BATCH)
        check_inputs(network, PARAMS | {"classifier.weight": np.full(3, np.nan)}, BATCH)  # not the network's
        check_inputs(network, PARAMS | dropout_masks(network, BATCH, 0.3, np.random.default_rng(0)), BATCH)
    check_inputs(LOOP, {name: value.astype(complex) for name, value in LOOPED.items()}, BATCH)
    check_inputs(NETWORK, PARAMS, Batch(*(ids.astype(np.uint8) for ids in BATCH)))
    check_inputs(NETWORK, PARAMS, Batch(*(ids[:0] for ids in BATCH)))
    with pytest.raises(InputError, match=r"lack feedback\.weight"):
        equilibrium(LOOP, PARAMS, BATCH)
    with pytest.raises(InputError, match=r"feedback.weight has shape \(12,\)"):
        equilibrium(LOOP, LOOPED | {"feedback.weight": np.ones(12)}, BATCH)


def test_the_shapes_that_projections_say_are_those_of_a_checkpoint():
    from refsnn.model.shapes import network_shapes
    from refsnn.readings.inputs import _shapes

    config = dataclasses.replace(SMALL, intermediate_size=7)
    for feedback in (False, True):
        said, known = _shapes(spiking_bert(config, feedback=feedback)), network_shapes(config, feedback)
        assert said.keys() == known.keys()
        for name, shape in known.items():
            assert all(n in (m, None) for m, n in zip(shape, said[name], strict=True)), name


def test_finite_parameters_may_still_overflow():
    huge = PARAMS | {"embeddings.LayerNorm.weight": np.full(12, 1.7e308)}
    for reading in ("rate_map", "equilibrium", "simulate"):
        with pytest.raises(InputError, match=r"overflow"):
            READINGS[reading](NETWORK, huge, BATCH)
    rates, pullback = rate_map(NETWORK, PARAMS, BATCH)
    with pytest.raises(InputError, match=r"the gradient of .* overflows float64"):
        pullback({name: np.full(rate.shape, 1e308) for name, rate in rates.items()})
    linearisation = equilibrium(NETWORK, PARAMS, BATCH).linearisation
    with pytest.raises(InputError, match=r"the gradient of .* overflows float64"):
        implicit_gradient(linearisation, {name: np.full(rate.shape, 1e308) for name, rate in rates.items()})


# --- Cotangents -------------------------------------------------------------------------------------------------------


def gradients(network, params):
    """Every way to a gradient, as a function of cotangents."""
    linearisation = equilibrium(network, params, BATCH).linearisation
    found = {
        "gradient": lambda g: refsnn.gradient(linearisation, g),
        "whole": lambda g: adjoint(linearisation, g, whole=True)[1],
        "unrolled": lambda g: unrolled_gradient(network, params, BATCH, g, 60),
    }
    return found if network.fed_back else found | {"pullback": rate_map(network, params, BATCH)[1]}


@pytest.mark.parametrize("looped", [False, True])
def test_cotangents_that_do_not_fit_are_refused(looped):
    network, params = (LOOP, LOOPED) if looped else (NETWORK, PARAMS)
    for name, gradient in gradients(network, params).items():
        for g, said in (
            ({"encoder.0.outputt": ONES[LAST]}, r"'encoder\.0\.outputt' is not known; there are .*encoder\.0\.output"),
            ({LAST: ONES[LAST][..., :1]}, r"has shape \(2, 5, 1\), but its rate has \(2, 5, 12\)"),
            ({LAST: 1.0}, r"has shape \(\)"),
            ({LAST: ONES[LAST][:1]}, r"has shape \(1, 5, 12\)"),
            ({LAST: ONES[LAST] * np.nan}, "NaN"),
            ({LAST: ONES[LAST] > 0}, "of type bool"),
            ({LAST: "one"}, "of type <U3"),
            ({LAST: [[1], [1, 2]]}, "an array of numbers"),
            (ONES[LAST], "a dict of arrays by population"),
            ([LAST], "a dict of arrays by population"),
        ):
            with pytest.raises(InputError, match=said):
                gradient(g)
                pytest.fail(f"{name} took {said}")


@pytest.mark.parametrize("looped", [False, True])
def test_cotangents_of_integers_lists_and_of_the_input_are_read_right(looped):
    network, params = (LOOP, LOOPED) if looped else (NETWORK, PARAMS)
    rng = np.random.default_rng(0)
    whole = {LAST: rng.integers(-3, 4, (2, 5, 12)), INPUT: rng.integers(-3, 4, (2, 5, 12))}
    exact = {name: value.astype(float) for name, value in whole.items()}
    ways = gradients(network, params)
    reference = ways["unrolled"](exact)
    for name, gradient in ways.items():
        for g in (exact, whole, {name: value.tolist() for name, value in whole.items()}):
            found = gradient(g)
            assert found.keys() == reference.keys(), name
            for parameter, value in reference.items():
                np.testing.assert_allclose(
                    found[parameter], value, rtol=1e-9, atol=1e-10, err_msg=f"{name} {parameter}"
                )
        assert not any(value.any() for value in gradient({}).values()), name


# --- Options ----------------------------------------------------------------------------------------------------------


def test_options_that_mean_nothing_are_refused_with_feedback_or_without():
    for network, params in ((NETWORK, PARAMS), (LOOP, LOOPED)):
        for options, said in (
            ({"search": "nonsense"}, "a Search was expected"),
            ({"search": None}, "a Search was expected"),
            ({"edge_derivative": "1"}, "edge_derivative"),
            ({"edge_derivative": np.nan}, "edge_derivative"),
            ({"edge_derivative": 2}, "between 0 and 1"),
            ({"t_conv": 0}, "t_conv"),
            ({"t_conv": 2.5}, "t_conv"),
            ({"t_conv": True}, "t_conv"),
            ({"start": {"encoder.1.outptu": ONES[LAST]}}, r"'encoder\.1\.outptu' is not known"),
        ):
            with pytest.raises(InputError, match=said):
                equilibrium(network, params, BATCH, **options)
        with pytest.raises(InputError, match="that of an equilibrium was expected"):
            refsnn.gradient(equilibrium(network, params, BATCH), ONES)
        with pytest.raises(InputError, match="a Solve was expected"):
            refsnn.gradient(equilibrium(network, params, BATCH).linearisation, ONES, "gmres")
    for bad, said in ((ONES[LAST][:1], "has shape"), (ONES[LAST] * np.nan, "NaN"), (ONES[LAST] > 0, "bool")):
        with pytest.raises(InputError, match=said):
            equilibrium(LOOP, LOOPED, BATCH, start={LAST: bad})
    for make in (Search, Solve):
        for options in ({"method": "nonsense"}, {"max_evaluations": 0}, {"max_evaluations": 2.5}, {"tolerance": -1}):
            with pytest.raises(InputError, match=next(iter(options))):
                make(**options)
        for options in ({"tolerance": np.nan}, {"tolerance": "small"}, {"on_failure": "ignore"}):
            with pytest.raises(InputError, match=next(iter(options))):
                make(**options)
    for damping in (0, 2, np.nan, "half", None, True):
        with pytest.raises(InputError, match="damping"):
            Search(damping=damping)


def test_numbers_of_steps_may_be_numpys():
    found = simulate(NETWORK, PARAMS, BATCH, np.int64(8))
    assert list(found) == [8] and type(next(iter(found))) is int
    for several in ([3, np.int64(8)], np.array([8, 3]), (8, 3, 3), {8, 3}):
        both = simulate(NETWORK, PARAMS, BATCH, several)
        assert list(both) == [3, 8]
        np.testing.assert_array_equal(both[8][LAST], found[8][LAST])
    np.testing.assert_array_equal(
        equilibrium(NETWORK, PARAMS, BATCH, t_conv=np.int64(8)).rates[LAST],
        equilibrium(NETWORK, PARAMS, BATCH, t_conv=8).rates[LAST],
    )
    np.testing.assert_array_equal(
        simulate(NETWORK, PARAMS, BATCH, 8, block=np.int32(3), threads=np.int8(2))[8][LAST], found[8][LAST]
    )


@pytest.mark.parametrize(
    ("t_conv", "options", "said"),
    [
        ([0, 5], {}, "`t_conv` is 0"),
        ([], {}, r"`t_conv` is \[\], but rates are read after one step or more"),
        (0, {}, "at least one step"),
        (-3, {}, "at least one step"),
        (2.0, {}, "at least one step"),
        (True, {}, "at least one step"),
        ("8", {}, "at least one step"),
        ([2, None], {}, "at least one step"),
        (None, {}, "at least one step"),
        (2, {"block": 0}, "`block` is 0"),
        (2, {"block": 1.5}, "`block` is 1.5"),
        (2, {"rule": "runing"}, "`rule` is 'runing'"),
        (2, {"rule": None}, "`rule` is None"),
        (2, {"leak": 0}, "`leak` is 0"),
        (2, {"leak": 1.1}, "`leak` is 1.1"),
        (2, {"leak": "1"}, "`leak` is '1'"),
        (2, {"keep": ["encoder.9.output"]}, r"population 'encoder\.9\.output' is not known; there are embeddings"),
        (2, {"threads": 0}, "`threads` is 0"),
        (2, {"threads": 1.5}, "`threads` is 1.5"),
    ],
)
def test_simulations_that_cannot_be_are_refused(t_conv, options, said):
    with pytest.raises(InputError, match=said):
        simulate(NETWORK, PARAMS, BATCH, t_conv, **options)


def test_each_share_of_a_simulation_takes_its_own_dropout_masks(monkeypatch):
    batch = random_batch(SMALL, 3, size=5)
    params = PARAMS | dropout_masks(NETWORK, batch, 0.4, np.random.default_rng(0), np.float64)
    expected = simulate(NETWORK, params, batch, 6)[6]  # one share
    monkeypatch.setattr("refsnn.readings.simulate.SHARE", 5)
    found = simulate(NETWORK, params, batch, 6, threads=2)[6]
    for name, rate in expected.items():
        np.testing.assert_array_equal(found[name], rate, err_msg=name)


def test_the_derivative_at_the_edges_is_forwarded_with_feedback_or_without():
    """Values silent by a bias of exactly 0: their derivative there is what is asked for, and what follows scales so."""
    dead = {f"encoder.layer.0.attention.self.value.{part}" for part in ("weight", "bias")}
    for network, params in ((NETWORK, PARAMS), (LOOP, LOOPED)):
        params = {name: np.zeros_like(value) if name in dead else value for name, value in params.items()}
        name, g = "encoder.layer.0.attention.self.value.bias", {"encoder.0.value": np.ones((2, 5, 12))}
        for edge in (0, 0.25, 1.0):
            linearisation = equilibrium(network, params, BATCH, edge_derivative=edge).linearisation
            np.testing.assert_array_equal(refsnn.gradient(linearisation, g)[name], np.full(12, 10 * edge))
            found = sweep(network, params, BATCH, {LAST: np.zeros((2, 5, 12))}, edge_derivative=edge)[1]
            np.testing.assert_array_equal(found.substitute(g)[2][name], np.full(12, 10 * edge))
            if not network.fed_back:
                pullback = rate_map(network, params, BATCH, edge_derivative=edge)[1]
                np.testing.assert_array_equal(pullback(g)[name], np.full(12, 10 * edge))


def test_a_sweep_says_which_rates_it_lacks():
    with pytest.raises(InputError, match=r"the rates of encoder\.1\.output are missing"):
        sweep(LOOP, LOOPED, BATCH)
    with pytest.raises(InputError, match=r"the rates of .* are missing"):
        sweep(NETWORK, PARAMS, BATCH, at={LAST: ONES[LAST]})


# --- Neurons, networks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("advance", [fire, fire_loop])
def test_currents_are_numbers(advance):
    whole = np.array([[1, 0], [0, 1], [1, 0], [0, 0]])
    neuron = Neuron(vth=0.7, leak=0.5, u0=0.5)
    expected = advance(whole.astype(float), neuron)
    for current in (whole, whole.astype(np.uint8), whole.tolist()):
        for ours, right in zip(advance(current, neuron), expected, strict=True):
            assert ours.dtype == float
            np.testing.assert_array_equal(ours, right)
    with_charge = advance(whole, neuron, np.array([1, 0]))
    np.testing.assert_array_equal(with_charge[1], advance(whole.astype(float), neuron, np.array([1.0, 0]))[1])
    for current, said in (
        (whole > 0, "the current is bool"),
        (whole.astype(complex), "the current is complex128"),
        (whole.astype(object), "the current is object"),
        (0.5, r"the current is float64 \(\)"),
        (np.where(whole > 0, np.nan, 0.1), "NaN"),
        (np.where(whole > 0, np.inf, 0.1), "NaN or infinite"),
        (np.full((3, 1), 1e308), "overflow"),
    ):
        with pytest.raises(InputError, match=said):
            advance(current, neuron if "overflow" not in said else Neuron())
    for one in ("IF", None, {"vth": 1.0}):
        with pytest.raises(InputError, match="a Neuron was expected"):
            advance(whole, one)
    with pytest.raises(InputError, match="an array was expected"):
        advance([[1.0], [1.0, 2.0]], neuron)
    for charge in (np.zeros(3), np.zeros((1, 2)), np.array([True, False]), np.array(["a", "b"])):
        with pytest.raises(InputError, match="the charge is"):
            advance(whole, neuron, charge)
    with pytest.raises(InputError, match="NaN"):
        advance(whole, neuron, np.array([np.nan, 0]))


@pytest.mark.parametrize("name", ["vth", "leak", "u0", "tie"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 10**400, "0.5", True, [0.5], 1j])
def test_constants_of_neurons_are_numbers_in_their_range(name, value):
    with pytest.raises(InputError, match=f"{name} is"):
        Neuron(**{name: value})


def test_the_range_of_the_tie_rule_has_edges():
    for tie in (None, 0, 0.0999, np.float32(1e-3)):
        assert Neuron(tie=tie).tie == tie
    for tie in (0.1, 0.5, -1e-9):
        with pytest.raises(InputError, match="tie is"):
            Neuron(tie=tie)
    for edge in ({"leak": 1}, {"leak": 1e-9}, {"u0": 0}, {"u0": 0.999}, {"vth": 1e-9}):
        Neuron(**edge)
    for beyond in ({"leak": 1.0000001}, {"u0": 1.0}, {"vth": 0}):
        with pytest.raises(InputError):
            Neuron(**beyond)


def test_a_network_is_a_tuple_of_populations_that_know_each_other():
    key = NETWORK["encoder.0.key"]
    for populations, said in (
        ((), "each needs a name of its own"),
        ((*NETWORK.populations, key), "each needs a name of its own"),
        ((dataclasses.replace(key, name=INPUT, reads=()), *NETWORK.populations), "and not 'input'"),
        (
            tuple(dataclasses.replace(p, reads=("embedings",)) if p == key else p for p in NETWORK.populations),
            "embedings",
        ),
        (tuple(p for p in NETWORK.populations if p.name != LAST), "is to be observed"),
    ):
        with pytest.raises(InputError, match=said):
            dataclasses.replace(NETWORK, populations=populations)
    with pytest.raises(InputError, match=r"no population 'encoder\.9\.key'; there are embeddings"):
        NETWORK["encoder.9.key"]


def test_what_describes_is_frozen():
    """Whoever holds a description may share it: it stays as it is."""
    from refsnn.model.projections import AddNorm, Drive, Embeddings, FirstPosition, Gelu, Linear
    from refsnn.readings.solution import Solution

    drive = Drive()
    for value in (
        SMALL, Neuron(), NETWORK, NETWORK.populations[0], refsnn.StudentConfig(SMALL), Search(), Solve(), drive,
        Linear("a"), Attention("a", 1), AddNorm("a", "b", 1e-12), Gelu("a"), Embeddings(1e-12, 0),
        FirstPosition(drive, (True,)), equilibrium(NETWORK, PARAMS, BATCH), rate_map_linearisation(),
        Solution({}, np.zeros(0), [], 0, True, "gmres"), refsnn.Recipe("sst2", 2),
    ):  # fmt: skip
        fields = dataclasses.fields(value)
        for name in [field.name for field in fields] or ["anything"]:
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(value, name, None)
    assert Network.__hash__ and Population.__hash__


def rate_map_linearisation():
    return equilibrium(NETWORK, PARAMS, BATCH).linearisation


def test_single_precision_stays_single():
    low = initial_parameters({name: value.shape for name, value in PARAMS.items()}, np.random.default_rng(0), 0.3)
    rates, pullback = rate_map(NETWORK, low, BATCH)
    whole = pullback({LAST: np.ones((2, 5, 12), int)})  # integers take their rate's precision
    assert {rate.dtype for rate in rates.values()} == {value.dtype for value in whole.values()} == {np.dtype("f4")}


def test_operations_are_counted_of_rates_that_are_numbers():
    rates = {population.name: 0.25 for population in NETWORK.populations}
    for number in (np.float32(0.25), 1, 0):
        assert refsnn.count(NETWORK, rates | {"embeddings": number}, np.int64(4), 5).dense > 0
        assert refsnn.full_count(NETWORK, rates | {"embeddings": number}, 5.5, 2)
    for bad, said in (
        ({name: rate for name, rate in rates.items() if name != "embeddings"}, "rate of embeddings is None"),
        (rates | {"embeddings": np.nan}, "rate of embeddings is nan"),
        (rates | {"embeddings": -0.1}, r"rate of embeddings is -0\.1"),
        (rates | {"embeddings": "0.1"}, r"rate of embeddings is '0\.1'"),
        (rates | {"embeddings": True}, "rate of embeddings is True"),
        (rates | {"embedings": 0.1}, "'embedings' is not known"),
        ([0.1], "a dict of numbers"),
    ):
        with pytest.raises(InputError, match=said):
            refsnn.count(NETWORK, bad, 4, 5)
        with pytest.raises(InputError, match=said):
            refsnn.full_count(NETWORK, bad, 5, 2)
    for tokens in (0, -1, np.nan, np.inf, "5", None):
        with pytest.raises(InputError, match="`tokens` is"):
            refsnn.count(NETWORK, rates, 4, tokens)
        with pytest.raises(InputError, match="`tokens` is"):
            refsnn.full_count(NETWORK, rates, tokens, 2)
    for act, said in (
        (lambda: refsnn.count(NETWORK, rates, 0, 5), "t_conv"),
        (lambda: refsnn.count(NETWORK, rates, 4, 5, "instant"), "rule"),
        (lambda: refsnn.full_count(NETWORK, rates, 5, -1), "classes"),
        (lambda: refsnn.full_count(NETWORK, rates, 5, 2, "instant"), "rule"),
    ):
        with pytest.raises(InputError, match=said):
            act()


def test_descriptions_of_students_are_checked_when_they_are_made():
    config = refsnn.StudentConfig(SMALL, 8, 2, Neuron(0.5), True, {"embeddings": {"u0": 0.5}})
    assert config.network["embeddings"].neuron == Neuron(0.5, u0=0.5) and config.network.fed_back
    for change, said in (
        ({"bert": {"hidden_size": 12}}, "`config` is"),
        ({"teacher_width": -1}, "`teacher_width` is -1"),
        ({"teacher_width": 8.0}, r"`teacher_width` is 8\.0"),
        ({"classes": "2"}, "`classes` is '2'"),
        ({"classes": True}, "`classes` is True"),
        ({"neuron": {"vth": 1.0}}, "a Neuron was expected"),
        ({"feedback": "no"}, "`feedback` is 'no'"),
        ({"feedback": 0.1}, r"`feedback` is 0\.1"),
        ({"populations": ["embeddings"]}, "`populations` is"),
        ({"populations": {"embeddings": {"vht": 1.0}}}, "the key 'vht'"),
        ({"populations": {"embeddings": {"vth": "1"}}}, "vth in .* is '1'"),
        ({"populations": {"embeddings": {"vth": -1.0}}}, r"vth is -1\.0"),
        ({"populations": {"embedings": {"vth": 1.0}}}, "no such population"),
    ):
        with pytest.raises(InputError, match=said):
            dataclasses.replace(config, **change)
    for arguments, said in (
        ((SMALL.to_dict(),), "a BertConfig was expected"),
        ((SMALL, 0.5), "a Neuron was expected"),
        ((SMALL, Neuron(), "yes"), "`feedback` is 'yes'"),
        ((SMALL, Neuron(), False, {"embeddings": {"vth": 1.0}}), "a Neuron was expected"),
    ):
        with pytest.raises(InputError, match=said):
            spiking_bert(*arguments)


def test_parameters_that_are_known_to_be_finite_are_not_looked_at_again(monkeypatch):
    network, batch = spiking_bert(SMALL), random_batch(SMALL, 0)
    params = random_parameters(SMALL, 0)
    looked = []
    monkeypatch.setattr(inputs, "_check_finite", lambda name, value: looked.append(name))
    inputs.check_inputs(network, params, batch)
    assert sorted(looked) == sorted(params)
    known = inputs.Finite.of(params)
    looked.clear()
    masks = dropout_masks(network, batch, 0.5, np.random.default_rng(0))
    inputs.check_inputs(network, known | masks, batch)
    assert sorted(looked) == sorted(masks)
    with pytest.raises(InputError, match="shape"):
        inputs.check_inputs(network, known | {"embeddings.LayerNorm.bias": np.zeros(3)}, batch)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_parameter_that_is_not_finite_is_named_before_any_share_is_computed(value):
    params = {"good": np.ones(3), "bad": np.array([1.0, value])}
    objective = in_shares(lambda *_: pytest.fail("computed"))
    with pytest.raises(InputError, match="the parameter bad holds NaN or infinite values"):
        objective(params, random_batch(SMALL, 0), np.arange(2))
