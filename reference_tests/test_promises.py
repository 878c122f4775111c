"""Nothing nearly right passes in silence: public functions fed with such values answer right, or raise `InputError`.

Arguments are drawn from what fits and from what nearly does. Whatever a function returns is checked against the
equations or for being numbers at all; whatever it raises must be `InputError`.
"""

import dataclasses
import json

import numpy as np
from conftest import SMALL, random_batch, random_parameters
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refsnn
from refsnn.errors import InputError
from refsnn.model.neurons import fire, fire_loop
from refsnn.readings.certify import certify_neurons
from refsnn.readings.implicit import within_spectral_norm

PROMISES = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

SIZES = dataclasses.replace(SMALL, hidden_size=6, num_hidden_layers=1, num_attention_heads=2, intermediate_size=7)
NETWORKS = refsnn.spiking_bert(SIZES), refsnn.spiking_bert(SIZES, feedback=True)
BATCH = random_batch(SIZES, 0, positions=3)
PARAMS = random_parameters(SIZES, 0, feedback=True)
PARAMS["feedback.weight"] = within_spectral_norm(PARAMS["feedback.weight"], 0.05)
LAST = "encoder.0.output"
SHAPE = (2, 3, 6)

#: What is no number, or hardly one.
ODD = st.sampled_from(
    [
        np.nan,
        np.inf,
        -np.inf,
        None,
        True,
        "1",
        [],
        [1],
        {},
        1j,
        10**400,
        10**5000,
        -1,
        0,
        0.5,
        2.0,
        np.float32(0.25),
        np.int64(3),
        np.arange(99),
        object(),
    ]
)


def odd(array):
    """Arrays that are nearly this one: spoilt, of another type, of another shape, or no array at all."""

    def spoilt(what):
        value = np.array(array, float)
        value.reshape(-1)[value.size // 2] = what
        return value

    return st.one_of(
        st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-320]).map(spoilt),
        st.sampled_from(["f4", "f2", "i8", "u1", "?", "O", "U9", "c16"]).map(np.asarray(array).astype),
        st.sampled_from(
            [
                array[..., None],
                array[:0],
                array[None],
                array[..., :1],
                array.T,
                array.tolist(),
                [[1], [1, 2]],
                None,
                "x",
            ]
        ),
    )


def or_refused(act):
    """Return what a function gives, or None where it refuses with one sentence."""
    try:
        return act()
    except InputError as error:
        sentence = str(error)
        assert sentence and "\n" not in sentence.strip() and len(sentence) < 2000
        return None


def numbers(values) -> None:
    for name, value in values.items():
        assert isinstance(value, np.ndarray) and np.isfinite(value).all(), name


@st.composite
def inputs(draw):
    """A network, parameters and a batch, of which at most one part does not fit."""
    network = draw(st.sampled_from(NETWORKS))
    params, batch = dict(PARAMS), BATCH
    what = draw(st.sampled_from(["nothing", "params", "missing", "surplus", "batch", "no batch", "no network"]))
    if what in ("params", "missing", "surplus"):
        name = draw(st.sampled_from(sorted(params)))
        value = params.pop(name)
        if what == "params":
            params[name] = draw(odd(value))
        if what == "surplus":
            params |= {name: value, name + draw(st.sampled_from(["s", ".dropout"])): value}
    if what == "batch":
        field = draw(st.sampled_from(batch._fields))
        batch = batch._replace(**{field: draw(odd(getattr(batch, field)))})
    if what == "no batch":
        batch = draw(st.sampled_from([None, [[1, 2]], tuple(BATCH), BATCH.input_ids, BATCH._asdict()]))
    if what == "no network":
        network = draw(st.sampled_from([None, "bert", SIZES, network.populations]))
    return network, params, batch


CHOICES = st.one_of(ODD, st.sampled_from(["inst", "running", "Inst", "simple", "warn"]))


@PROMISES
@given(inputs(), st.one_of(ODD, st.sampled_from([4, [2, 4], [0, 5], [2, "4"], (3,)])), CHOICES, ODD, st.booleans())
def test_simulate(given_inputs, t_conv, rule, block, plain):
    options = {} if plain else {"rule": rule, "block": block}
    found = or_refused(lambda: refsnn.simulate(*given_inputs, t_conv, **options))
    for t, rates in (found or {}).items():
        assert isinstance(t, int) and t >= 1
        numbers(rates)
        for name, rate in rates.items():
            counts = rate.astype(float) * t
            assert rate.shape[:2] == given_inputs[2].input_ids.shape, name
            assert np.abs(counts - counts.round()).max(initial=0) < 0.01 * t and 0 <= rate.min(initial=0) <= 1


@PROMISES
@given(inputs(), st.one_of(ODD, st.just(0.5)), st.booleans())
def test_rate_map(given_inputs, edge, plain):
    options = {} if plain else {"edge_derivative": edge}
    found = or_refused(lambda: refsnn.rate_map(*given_inputs, **options))
    if found:
        numbers(found[0])
        numbers(or_refused(lambda: found[1]({LAST: np.ones_like(found[0][LAST].real)})) or {})


@PROMISES
@given(
    inputs(),
    st.sampled_from(["nothing", "edge_derivative", "t_conv", "search", "start"]),
    st.one_of(ODD, st.sampled_from([{LAST: 0}, {LAST: np.zeros(SHAPE)}, {"encoder.0.outputt": np.zeros(SHAPE)}])),
)
def test_equilibrium(given_inputs, option, value):
    options = {} if option == "nothing" else {option: value}
    found = or_refused(lambda: refsnn.equilibrium(*given_inputs, **options))
    if found:
        numbers(found.rates)
        assert found.solution.converged and np.isfinite(found.solution.residual).all()


@PROMISES
@given(
    st.booleans(), st.one_of(st.just(np.ones(SHAPE)), odd(np.ones(SHAPE)), ODD), st.sampled_from([LAST, "outputt", 3])
)
def test_gradient(looped, cotangent, name):
    network = NETWORKS[looped]
    linearisation = refsnn.equilibrium(network, PARAMS, BATCH).linearisation
    found = or_refused(lambda: refsnn.gradient(linearisation, {name: cotangent}))
    if found is not None:
        numbers(found)
        exact = refsnn.gradient(linearisation, {LAST: np.asarray(cotangent, float)})
        for parameter, value in exact.items():
            np.testing.assert_allclose(
                found[parameter], value, rtol=1e-3, atol=1e-3 * np.abs(value).max(initial=1e-300)
            )
    for pointless in (cotangent, [cotangent]):
        assert or_refused(lambda pointless=pointless: refsnn.gradient(linearisation, pointless)) in (None, {})


CURRENT = np.random.default_rng(0).normal(0.4, 0.8, (9, 4))
NEURON = refsnn.Neuron(0.7, 0.9, 0.5)
SPIKES = fire(CURRENT, NEURON)[0]


@PROMISES
@given(st.one_of(st.just(CURRENT), odd(CURRENT)), st.one_of(st.none(), odd(CURRENT[0])))
def test_fire(current, charge):
    found = or_refused(lambda: fire(current, NEURON, charge))
    twin = or_refused(lambda: fire_loop(current, NEURON, charge))
    assert (found is None) == (twin is None)
    if found:
        assert np.isin(found[0], (0, 1)).all() and np.isfinite(found[1]).all()
        for ours, plain in zip(found, twin, strict=True):
            np.testing.assert_array_equal(ours, plain)
        # The charge is what the currents brought, less what leaked and what the spikes took.
        u = 0.35 if charge is None else np.asarray(charge, float)
        for step, spikes in zip(np.asarray(current, float), found[0].astype(float), strict=True):
            u = 0.9 * u + step - 0.7 * spikes
        np.testing.assert_allclose(found[1].astype(float), u, rtol=1e-2, atol=2e-2)


@PROMISES
@given(
    st.one_of(st.just(CURRENT), odd(CURRENT)), st.one_of(st.just(SPIKES), odd(SPIKES), st.just(1 - SPIKES)),
    st.one_of(st.just("float64"), ODD),
)  # fmt: skip
def test_certify_neurons(current, spikes, precision):
    verdict = or_refused(lambda: certify_neurons(current, spikes, NEURON, precision))
    if verdict:
        assert precision == "float64" and verdict.decisions == np.size(current) == np.size(spikes)
        if np.array_equal(np.asarray(current), CURRENT):
            assert (verdict.wrong > 0) == (not np.array_equal(np.asarray(spikes), SPIKES))


IDS = st.one_of(ODD, st.integers(0, 29), st.lists(st.one_of(ODD, st.integers(0, 29)), max_size=3))


@PROMISES
@given(
    st.one_of(
        IDS, st.lists(IDS, max_size=3), st.lists(st.lists(st.integers(0, 29), min_size=1, max_size=4), min_size=1)
    ),
    st.one_of(st.none(), st.lists(IDS, max_size=3)),
    st.one_of(st.just(0), ODD),
)
def test_batch_of(ids, kinds, pad):
    batch = or_refused(lambda: refsnn.Batch.of(ids, token_type_ids=kinds, pad=pad))
    if batch:
        assert len({part.shape for part in batch}) == 1 and all(part.dtype == int for part in batch)
        for i, row in enumerate(ids):
            assert batch.input_ids[i].tolist() == [*row, *[pad] * (batch.input_ids.shape[1] - len(row))]
            assert batch.attention_mask[i].sum() == len(row) and batch.attention_mask[i, : len(row)].all()
            assert kinds is None or batch.token_type_ids[i, : len(row)].tolist() == list(kinds[i])
            assert not any(isinstance(one, bool | float) for one in row)


@PROMISES
@given(st.dictionaries(st.sampled_from(["vth", "leak", "u0", "tie"]), ODD))
def test_neuron(constants):
    neuron = or_refused(lambda: refsnn.Neuron(**constants))
    if neuron:
        assert (
            neuron.vth > 0 and 0 < neuron.leak <= 1 and 0 <= neuron.u0 < 1 and (neuron.tie is None or neuron.tie < 0.1)
        )
        assert all(isinstance(getattr(neuron, name), type(value)) for name, value in constants.items())
        assert not any(isinstance(value, bool) for value in constants.values())


#: What a JSON file may hold.
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 99), st.floats(), st.text(max_size=3), st.just(10**400)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=5), inner, max_size=2)),
    max_leaves=4,
)


def tables(right):
    """Tables that nearly are this one: some values are others, some keys are missing or misspelt."""
    names = st.sampled_from(
        [*right, *(name + "s" for name in right), "own", "populations", "thresholds", "neuron", "labels"]
    )
    changes = st.dictionaries(names, JSON, max_size=2)
    missing = st.sets(st.sampled_from(sorted(right)), max_size=1)
    return st.builds(lambda new, gone: {k: v for k, v in (right | new).items() if k not in gone}, changes, missing)


@PROMISES
@given(st.dictionaries(st.sampled_from([field.name for field in dataclasses.fields(SIZES)]), st.one_of(ODD, JSON)))
def test_bert_config(values):
    config = or_refused(lambda: refsnn.BertConfig(**values))
    if config:
        assert json.loads(json.dumps(config.to_dict())) == dataclasses.asdict(config)
        assert or_refused(lambda: refsnn.network_shapes(config)) or config.num_hidden_layers > 10


STUDENT = refsnn.StudentConfig(SIZES, 8, 2, NEURON, True, {"embeddings": {"u0": 0.0}})


@PROMISES
@given(st.one_of(tables(STUDENT.to_dict()), JSON))
def test_student_config(values):
    config = or_refused(lambda: refsnn.StudentConfig.from_dict(values))
    if config:
        assert refsnn.StudentConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        assert config.network and config.shapes


@PROMISES
@given(st.one_of(tables(refsnn.Recipe("sst2", 2).to_dict()), JSON))
def test_recipe(values):
    recipe = or_refused(lambda: refsnn.Recipe.from_dict(values))
    if recipe:
        assert refsnn.Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
        assert all(value is not True and value == value for value in recipe.to_dict().values())


def test_the_strategies_reach_both_ends():
    """Some draws are answered and some refused; otherwise the promises above would promise nothing."""
    for strategy, act in (
        (inputs(), lambda drawn: refsnn.simulate(*drawn, 2)),
        (odd(CURRENT), lambda drawn: fire(drawn, NEURON)),
        (tables(STUDENT.to_dict()), refsnn.StudentConfig.from_dict),
        (tables(refsnn.Recipe("sst2", 2).to_dict()), refsnn.Recipe.from_dict),
    ):
        answered = set()

        @settings(max_examples=40, deadline=None, derandomize=True, database=None)
        @given(strategy)
        def draw(drawn):
            answered.add(or_refused(lambda: act(drawn)) is not None)  # noqa: B023

        draw()
        assert answered == {True, False}
