"""Where a student starts: a converted student computes what its teacher computes, but for what is clipped."""

import json
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refsnn.data.examples import Examples
from refsnn.distillation import initialise
from refsnn.distillation.initialise import Affine, absorb, converted, copied, initial_student
from refsnn.distillation.stages import _sample
from refsnn.distillation.student import layer_pairs, logits
from refsnn.distillation.teacher import classify, encode
from refsnn.errors import InputError
from refsnn.model.batch import Batch, attention_mask
from refsnn.model.families import bert, spiking_bert
from refsnn.model.neurons import Neuron, fire
from refsnn.model.parameters import initial_parameters
from refsnn.model.shapes import BertConfig, teacher_shapes
from refsnn.model.student import StudentConfig
from refsnn.ops import softmax
from refsnn.readings.equilibrium import equilibrium
from refsnn.readings.rate_map import rate_map, scores
from refsnn.readings.simulate import currents, simulate, spike_blocks
from refsnn.storage.recipe import Recipe

CONFIG = BertConfig(
    hidden_size=12,
    num_hidden_layers=4,
    num_attention_heads=3,
    intermediate_size=20,
    vocab_size=50,
    max_position_embeddings=16,
)


def teacher(seed, config=CONFIG):
    """A BERT in float64 whose biases and LayerNorms are not the usual ones."""
    rng = np.random.default_rng(seed)
    params = initial_parameters(teacher_shapes(config, 3), rng, 0.3, np.float64)
    return {
        name: value + rng.normal(0, 0.2, value.shape) if value.ndim == 1 else value for name, value in params.items()
    }


def batches(seed, count=6):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        mask = (np.arange(9) < rng.integers(3, 10, (8, 1))).astype(int)
        made.append(Batch(rng.integers(1, 50, (8, 9)) * mask, rng.integers(0, 2, (8, 9)), mask))
    return made


def without_gelus_negative_part(monkeypatch):
    """Replace GELU by a function that a clip loses nothing of: its square, which is not homogeneous either."""
    from refsnn import ops

    def square(x):
        return x * x, lambda dy: 2 * x * dy

    monkeypatch.setattr(ops, "gelu", square)


@given(st.integers(0, 2**32 - 1))
def test_absorbed_maps_read_images_and_give_images(seed):
    rng = np.random.default_rng(seed)
    weight, bias, h = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=(5, 3))
    source, target = (Affine(rng.uniform(0.1, 3, n), rng.normal(size=n)) for n in (3, 4))
    w, b = absorb(weight, bias, source, target)
    expected = target.scale * (h @ weight.T + bias) + target.shift
    np.testing.assert_allclose((source.scale * h + source.shift) @ w.T + b, expected, rtol=1e-10, atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 0.1]), st.booleans())
def test_images_lie_in_the_unit_interval_but_for_the_fraction_given(seed, clipped, uniform):
    x = np.random.default_rng(seed).standard_t(3, (400, 5)) + np.arange(5)
    scale, shift = Affine.into_unit_interval(x, clipped, uniform)
    image = scale * x + shift
    outside = (image < -1e-12) | (image > 1 + 1e-12)
    assert outside.mean() <= clipped + 0.005
    if not uniform:
        assert outside.mean() >= clipped - 0.005
        assert (outside.mean(axis=0) <= clipped + 0.005).all()
    assert len(set(scale)) == 1 or not uniform


@pytest.mark.parametrize("vth", [1.0, 1.5, 3.0])
def test_a_converted_student_is_its_teacher_where_nothing_is_clipped(vth, monkeypatch):
    """Rates are images of the activities, `fit` gives the hidden states back, attention is the same."""
    without_gelus_negative_part(monkeypatch)
    params, text = teacher(0), batches(1)
    student = StudentConfig(CONFIG, 12, 3, Neuron(vth=vth))
    layers = copied(student, params, layer_pairs(4, 4))
    # Nothing at all is clipped if a little room is left around what the text showed. (A threshold below 1 would clip
    # the context population, whose current is a mean of values' rates.)
    monkeypatch.setattr(Affine, "into_unit_interval", classmethod(lambda *a, **k: roomy(*a, **k)))
    student, found = converted(student, layers, text, clipped=0.0)
    network = student.network
    for batch in text:
        real = batch.attention_mask.astype(bool)
        rates, target = equilibrium(network, found, batch).rates, encode(CONFIG, params, batch)
        for name, hidden in zip(network.readouts, target.hidden, strict=True):
            fitted = rates[name] @ found["fit.weight"].T + found["fit.bias"]
            np.testing.assert_allclose(fitted[real], hidden[real], atol=1e-9)
        ours, _ = scores(network, found, rates, batch)
        for mine, theirs in zip(ours, target.scores, strict=True):
            attends = np.broadcast_to(real[:, None, :, None], mine.shape)
            np.testing.assert_allclose(softmax(mine)[0][attends], softmax(theirs)[0][attends], atol=1e-10)


def roomy(cls, activity, clipped, uniform=False):
    low, high = activity.min(axis=0) - 0.1, activity.max(axis=0) + 0.1
    half = (high - low) / 2
    half = np.full_like(half, np.abs(activity - (low + high) / 2).max() * 1.1) if uniform else half
    return cls(0.5 / half, 0.5 - 0.5 / half * (low + high) / 2)


def test_less_clipping_brings_a_converted_student_nearer_to_its_teacher():
    params, text = teacher(2), batches(3, 20)
    student = StudentConfig(CONFIG, 12, 3)
    errors = []
    for clipped in (0.2, 0.05, 0.003):
        config, found = converted(student, copied(student, params, layer_pairs(4, 4)), text, clipped)
        rates = [equilibrium(config.network, found, batch).rates for batch in text]
        hidden = [encode(CONFIG, params, batch).hidden[-1] for batch in text]
        fitted = [r[config.network.readouts[-1]] @ found["fit.weight"].T + found["fit.bias"] for r in rates]
        errors.append(np.mean([((a - b) ** 2).mean() for a, b in zip(fitted, hidden, strict=True)]))
    copy = initial_student(student, CONFIG, params, "teacher", 0, [])[1]
    rates = [equilibrium(student.network, copy, batch).rates[student.network.readouts[-1]] for batch in text]
    copied_error = np.mean([((a - b) ** 2).mean() for a, b in zip(rates, hidden, strict=True)])
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.2 * copied_error


def test_fitted_classifier_gives_the_teachers_classes():
    """A teacher that gives every class often; a classifier as it is drawn, without the fit, hardly agrees."""
    params, text = teacher(5), batches(5, 40)
    scores = np.concatenate([classify(CONFIG, params, batch)[0] for batch in text])
    params["classifier.bias"] = params["classifier.bias"] - scores.mean(axis=0)
    student = StudentConfig(CONFIG, 12, 3)
    config, found = initial_student(student, CONFIG, params, "converted", 0, iter(text))
    assert set(found) == set(student.shapes)
    new = batches(6, 20)
    theirs = np.concatenate([classify(CONFIG, params, batch)[0] for batch in new])
    assert 0.2 < np.bincount(theirs.argmax(1), minlength=3).min() / len(theirs), "a class that is hardly ever given"

    def answers(params):
        rates = [equilibrium(config.network, params, batch).rates[config.network.readouts[-1]] for batch in new]
        return np.concatenate([logits(params, rate)[0] for rate in rates])

    ours, drawn = answers(found), initial_student(student, CONFIG, {}, "random", 0, [])[1]
    unfitted = answers(found | {name: value for name, value in drawn.items() if name.startswith("classifier")})
    assert np.mean(ours.argmax(1) == theirs.argmax(1)) > 0.8
    assert np.mean(unfitted.argmax(1) == theirs.argmax(1)) < 0.6
    assert ((ours - theirs) ** 2).sum() < 0.15 * ((theirs - theirs.mean(axis=0)) ** 2).sum()  # the scores, too


def ridge_regression(x, y, ridge, counts):
    """Weight and bias of least ``Σ c|W x + b − y|² + ridge·|W|²``, from one stacked system instead of centred sums."""
    width, root = x.shape[1], np.sqrt(counts)[:, None]
    left = np.block([[root * x, root], [np.sqrt(ridge) * np.eye(width), np.zeros((width, 1))]])
    found = np.linalg.lstsq(left, np.concatenate([root * y, np.zeros((width, y.shape[1]))]))[0]
    return found[:-1].T, found[-1]


@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_a_map_is_moved_by_ridge_regression_on_all_samples(ridge, monkeypatch):
    """Samples of several sizes, far from 0; the ridge is relative to the variance of what is read, and spares b."""
    monkeypatch.setattr(initialise, "RIDGE", ridge)
    rng = np.random.default_rng(2)
    params = {"m.weight": rng.normal(size=(3, 4)), "m.bias": rng.normal(size=3), "other": np.ones(2)}
    reads = [rng.normal(size=shape) * [1, 2, 0.5, 3] + [5, -3, 0, 9] for shape in ((6, 4), (2, 9, 4), (1, 4))]
    errors = [2 + x @ rng.normal(size=(4, 3)) + rng.normal(size=(*x.shape[:-1], 3)) for x in reads]
    # A sample's rows may count alike, or each as it says, or by its leading axis alone.
    weights = [np.full(1, 0.5), np.array([[3.0], [0.2]]), np.array([2.0])]
    samples = list(zip(["m"] * 3, reads, errors, weights, strict=True))
    found = initialise._least_squares(params, lambda sample: sample, samples)
    x, y = (np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts]) for parts in (reads, errors))
    counts = np.concatenate([np.full(6, 0.5), np.repeat([3.0, 0.2], 9), [2.0]])
    variance = np.cov(x, rowvar=False, ddof=0, aweights=counts).trace() / 4
    weight, bias = ridge_regression(x, y, ridge * variance * counts.sum(), counts)
    assert found.keys() == {"m.weight", "m.bias"}
    np.testing.assert_allclose(found["m.weight"], params["m.weight"] + weight, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found["m.bias"], params["m.bias"] + bias, rtol=1e-9, atol=1e-11)
    same = [(name, np.ones_like(x), error, np.ones(1)) for name, x, error, _ in samples]
    single = {name: value.astype(np.float32) for name, value in params.items()}
    still = initialise._least_squares(single, lambda sample: sample, same)
    np.testing.assert_array_equal(still["m.weight"], params["m.weight"].astype(np.float32))  # nothing to learn from
    np.testing.assert_allclose(still["m.bias"], params["m.bias"] + y.mean(axis=0), rtol=1e-6)
    assert still["m.weight"].dtype == still["m.bias"].dtype == np.float32


@pytest.mark.parametrize("times", [(), (3, 6)])
def test_the_classifier_is_fitted_by_ridge_regression(times, monkeypatch):
    """From the [CLS] rates of the rate map; or these, twice as heavy, and those of two batches after some steps."""
    monkeypatch.setattr(initialise, "SIMULATED", 9)  # of 24 sequences, in batches of 8
    params, text = teacher(5), batches(5, 3)
    config, found = converted(
        StudentConfig(CONFIG, 12, 3, Neuron(u0=0.5)), copied(StudentConfig(CONFIG, 12, 3), params, range(5)), text
    )
    last = config.network.readouts[-1]
    targets = np.random.default_rng(0).normal(size=(24, 3)) + [4, 0, -2]
    fitted = initialise._fitted_classifier(config, found, text, targets, times)
    parts = [np.concatenate([equilibrium(config.network, found, batch).rates[last][:, 0] for batch in text])]
    for t in times:
        rates = [simulate(config.network, found, batch, t, "running")[t] for batch in text[:2]]
        parts.append(np.concatenate([rate[last][:, 0] for rate in rates]))
        assert np.abs(parts[-1] - parts[0][:16]).max() > 0.1
    counts = np.concatenate([np.full(24, 2 * 16 / 24 if times else 1.0), np.ones(16 * len(times))])
    wanted = np.concatenate([targets] + [targets[:16]] * len(times))
    weight, bias = ridge_regression(np.concatenate(parts), wanted, 1e-3 * counts.sum(), counts)
    np.testing.assert_allclose(fitted["classifier.weight"], weight, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(fitted["classifier.bias"], bias, rtol=1e-6, atol=1e-8)


def test_fewer_encoders_take_the_paired_layers():
    params, text = teacher(7), batches(8)
    student = StudentConfig(replace(CONFIG, num_hidden_layers=2), 12, 3)
    layers = copied(student, params, layer_pairs(2, 4))
    for ours, theirs in ((0, 1), (1, 3)):
        name = "encoder.layer.{}.output.dense.weight"
        np.testing.assert_array_equal(layers[name.format(ours)], params[name.format(theirs)])
    config, _ = initial_student(student, CONFIG, params, "converted", 0, text)
    assert set(config.populations) == {"encoder.0.intermediate", "encoder.1.intermediate"}
    assert config.network["encoder.1.intermediate"].neuron.vth == config.populations["encoder.1.intermediate"]["vth"]


def test_membranes_of_sparse_populations_start_at_0_whatever_the_others_do():
    params, text = teacher(7), batches(8)
    student = StudentConfig(CONFIG, 12, 3, Neuron(u0=0.5))
    config, _ = initial_student(student, CONFIG, params, "converted", 0, text)
    starts = {population.name: population.neuron.u0 for population in config.network.populations}
    assert {name for name, u0 in starts.items() if u0 == 0} == {f"encoder.{e}.intermediate" for e in range(4)}
    assert set(starts.values()) == {0.0, 0.5}


def test_what_populations_have_of_their_own_survives_the_configuration_file():
    own = {"encoder.2.intermediate": {"vth": 5.0, "u0": 0.0}, "embeddings": {"u0": 0.25}}
    student = StudentConfig(CONFIG, 12, 3, Neuron(vth=2.0, u0=0.5), populations=own)
    again = StudentConfig.from_dict(json.loads(json.dumps(student.to_dict())))
    assert again == student
    assert again.network["encoder.2.intermediate"].neuron == Neuron(vth=5.0, u0=0.0)
    assert again.network["embeddings"].neuron == Neuron(vth=2.0, u0=0.25)
    assert again.network["encoder.1.intermediate"].neuron == Neuron(vth=2.0, u0=0.5)
    other = again.varied(1.0, 0.9, 0.0)
    assert other.network["encoder.2.intermediate"].neuron == Neuron(vth=2.5, leak=0.9, u0=0.0)
    assert other.network["embeddings"].neuron == Neuron(leak=0.9, u0=0.25)
    assert other.network["encoder.1.intermediate"].neuron == Neuron(leak=0.9)
    with pytest.raises(InputError, match=r"constants for encoder\.9\.output, but the network has no such population"):
        spiking_bert(CONFIG, own={"encoder.9.output": Neuron()})
    with pytest.raises(InputError, match=r"u0 is 1\.0"):
        StudentConfig.from_dict(student.to_dict() | {"populations": {"embeddings": {"u0": 1.0}}})


def test_sizes_of_heads_have_edges_and_may_be_absent():
    assert StudentConfig.from_dict(StudentConfig(CONFIG).to_dict()) == StudentConfig(CONFIG)
    values = StudentConfig(CONFIG, 12, 3).to_dict()
    for name in ("teacher_width", "classes"):
        for size in (0, 1, 2**16):
            assert getattr(StudentConfig.from_dict(values | {name: size}), name) == size
        for size in (-1, 2**16 + 1):
            with pytest.raises(InputError, match=f"{name}.* {size}.*, but sizes are from 0 to 65536"):
                StudentConfig.from_dict(values | {name: size})


def test_keys_that_are_a_students_but_for_a_letter_are_refused():
    """Any other key may be a BERT's, and is left alone."""
    values = StudentConfig(CONFIG, 12, 3).to_dict()
    for key, meant in (("feedbak", "feedback"), ("feedbacks", "feedback"), ("clases", "classes"), ("leek", "leak")):
        with pytest.raises(InputError, match=f"the key '{key}' is not known; '{meant}' is"):
            StudentConfig.from_dict(values | {key: 1})
    for key in ("feedbackss", "dropout", "transformers_version"):
        assert StudentConfig.from_dict(values | {key: 1}) == StudentConfig.from_dict(values)


def test_configurations_that_older_versions_wrote_are_read():
    """refsnn 0.1 wrote neurons as a table, and thresholds in units of theirs."""
    old = {"model_type": "spiking_bert", **CONFIG.to_dict(), "teacher_width": 12, "classes": 3, "feedback": True}
    old["neuron"] = {"vth": 2.0, "leak": 0.9, "u0": 0.5, "tie": None}
    old["thresholds"] = {"encoder.2.intermediate": 2.5, "embeddings": 0.5}
    old["initial_potentials"] = {"encoder.2.intermediate": 0.0}
    student = StudentConfig.from_dict(old)
    assert student.network["encoder.2.intermediate"].neuron == Neuron(5.0, 0.9, 0.0)
    assert student.network["embeddings"].neuron == Neuron(1.0, 0.9, 0.5)
    assert student.network["encoder.1.value"].neuron == Neuron(2.0, 0.9, 0.5)
    assert (student.feedback, student.classes, student.teacher_width) == (True, 3, 12)


def test_running_spikes_reach_a_converted_students_rates():
    params, text = teacher(9), batches(10, 12)
    student = StudentConfig(CONFIG, 12, 3, Neuron(u0=0.5))
    config, found = initial_student(student, CONFIG, params, "converted", 0, text)
    network, batch = config.network, text[0]
    real = batch.attention_mask.astype(bool)
    rates = equilibrium(network, found, batch).rates
    simulated = simulate(network, found, batch, [32, 512], "running")
    for name in network.readouts:
        near, far = (np.abs(simulated[t][name] - rates[name])[real].mean() for t in (512, 32))
        assert near < far / 8 and near < 4e-3


def test_refitted_layers_make_up_for_what_is_clipped(monkeypatch):
    """On new text, too: the sums before every LayerNorm come nearer to the teacher's, and so do the hidden states."""
    params, text, new = teacher(11), batches(12, 60), batches(13, 10)
    student, errors = StudentConfig(CONFIG, 12, 3), []
    layers = copied(student, params, layer_pairs(4, 4))
    for refit in (True, False):
        if not refit:
            monkeypatch.setattr(initialise, "refitted", lambda student, found, *_: found)
        config, found = converted(student, layers, text, clipped=0.05)
        last = config.network.readouts[-1]
        fitted = [
            equilibrium(config.network, found, b).rates[last] @ found["fit.weight"].T + found["fit.bias"] for b in new
        ]
        hidden = [encode(CONFIG, params, batch).hidden[-1] for batch in new]
        real = [batch.attention_mask.astype(bool) for batch in new]
        errors.append(np.mean([((a - b)[m] ** 2).mean() for a, b, m in zip(fitted, hidden, real, strict=True)]))
    assert errors[0] < 0.7 * errors[1]


def test_a_student_with_feedback_is_converted_without_it():
    params, text = teacher(14), batches(15)
    plain, fed_back = (
        initial_student(StudentConfig(CONFIG, 12, 3, feedback=feedback), CONFIG, params, "converted", 0, text)[1]
        for feedback in (False, True)
    )
    assert fed_back.keys() - plain.keys() == {"feedback.weight"}
    for name, value in plain.items():
        if not name.startswith("classifier"):
            np.testing.assert_array_equal(fed_back[name], value)


POLARITIES = [Neuron(u0=0.5), Neuron(u0=0.5, polarity="retractable"), Neuron(polarity="ternary")]


@pytest.mark.parametrize("vth", [1.0, 1.5])
@pytest.mark.parametrize("neuron", POLARITIES, ids=lambda neuron: neuron.polarity)
def test_a_student_converted_per_feature_is_its_teacher_where_nothing_is_clipped(neuron, vth, monkeypatch):
    if neuron.polarity != "ternary":  # whose rates have room for GELU's negative part
        without_gelus_negative_part(monkeypatch)
    params, text = teacher(0), batches(1)
    student = StudentConfig(CONFIG, 12, 3, replace(neuron, vth=vth), per_feature=True)
    student, found = converted(student, copied(student, params, layer_pairs(4, 4)), text, clipped=0.0)
    network = student.network
    for batch in text[:3]:
        real = batch.attention_mask.astype(bool)
        rates, target = equilibrium(network, found, batch).rates, encode(CONFIG, params, batch)
        for name, hidden in zip(network.readouts, target.hidden, strict=True):
            fitted = rates[name] @ found["fit.weight"].T + found["fit.bias"]
            np.testing.assert_allclose(fitted[real], hidden[real], atol=1e-6)
        ours, _ = scores(network, found, rates, batch)
        for mine, theirs in zip(ours, target.scores, strict=True):
            attends = np.broadcast_to(real[:, None, :, None], mine.shape)
            np.testing.assert_allclose(softmax(mine)[0][attends], softmax(theirs)[0][attends], atol=1e-6)


def test_every_feature_uses_its_whole_range():
    params, text = teacher(2), batches(3, 20)
    params["encoder.layer.2.output.LayerNorm.weight"][4] *= 15  # one feature fifteen times as wide as the others
    widest = {}
    for per_feature in (False, True):
        student = StudentConfig(CONFIG, 12, 3, Neuron(polarity="ternary"), per_feature=per_feature)
        config, found = converted(student, copied(student, params, layer_pairs(4, 4)), text)
        rates = np.concatenate([
            equilibrium(config.network, found, b).rates["encoder.2.output"][b.attention_mask.astype(bool)] for b in text
        ])  # fmt: skip
        widest[per_feature] = np.abs(rates).max(axis=0)
        assert (config.populations != {}) == (not per_feature)  # thresholds are parameters, or constants
    assert (widest[True] > 0.5).all() and np.median(widest[False]) < 0.3


@pytest.mark.parametrize("neuron", POLARITIES, ids=lambda neuron: neuron.polarity)
def test_currents_of_one_population_are_those_of_the_simulation(neuron):
    """From the spikes that it reads, by the rule running: what it fires is what it fired."""
    params, batch = teacher(0), batches(1)[0]
    student = StudentConfig(CONFIG, 12, 3, neuron, per_feature=True)
    student, found = converted(student, copied(student, params, layer_pairs(4, 4)), batches(1))
    blocks = [spikes for _, spikes in spike_blocks(student.network, found, batch, 8, "running")]
    trains = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    trains["input"], mask = student.network.drive(found, batch)[0], attention_mask(batch, np.dtype(float))
    for p in student.network.populations:
        reads = tuple(trains[name].astype(np.int8) if name != "input" else trains[name] for name in p.reads)
        np.testing.assert_array_equal(fire(currents(p, found, reads, mask, 8), p.neuron)[0], trains[p.name], p.name)


@pytest.mark.parametrize("neuron", POLARITIES, ids=lambda neuron: neuron.polarity)
def test_maps_that_are_fitted_to_few_steps_answer_earlier(neuron):
    """On new text, after T steps, hidden states come nearer to the teacher's.

    Their rate map, which the toy has nearly right without the fit, pays for it: fitted to the first steps alone, it
    would be off by 1.5 times as much.
    """
    params, text, new = teacher(11), batches(12, 60), batches(13, 10)
    student, errors = StudentConfig(CONFIG, 12, 3, neuron, per_feature=True), []
    layers = copied(student, params, layer_pairs(4, 4))
    for t_conv in (None, 8):
        config, found = converted(student, layers, text, t_conv=t_conv)
        last = config.network.readouts[-1]
        off = []
        for batch in new:
            rates = simulate(config.network, found, batch, [4, 8], "running", keep=[last])
            settled = rate_map(config.network, found, batch)[0]
            real, hidden = batch.attention_mask.astype(bool), encode(CONFIG, params, batch).hidden[-1]
            fitted = [x[last] @ found["fit.weight"].T + found["fit.bias"] for x in (rates[4], rates[8], settled)]
            off.append([((x - hidden)[real] ** 2).mean() for x in fitted])
        errors.append(np.mean(off, axis=0))
    few, at_rest = errors[1][:2] / errors[0][:2], errors[1][2] / errors[0][2]
    assert (few < 0.9).all(), errors
    assert at_rest < (6 if neuron.polarity == "ternary" else 14), errors


def test_what_a_first_map_is_fitted_to(monkeypatch):
    """Spikes' rates of the first text after T/2, 3T/4 and T steps, and rates at rest of all of it, twice as heavy."""
    monkeypatch.setattr(initialise, "SIMULATED", 9)  # of 24 sequences, in batches of 8
    params, text = teacher(5), batches(5, 3)
    student = StudentConfig(CONFIG, 12, 3, Neuron(polarity="ternary"), per_feature=True)
    layers = copied(student, params, layer_pairs(4, 4))
    (config, before), (_, after) = (converted(student, layers, text, clipped=0.1, t_conv=t) for t in (None, 8))
    scale, bias = np.diag(before["fit.weight"]), before["fit.bias"]
    simulated, at_rest, wanted = {4: [], 6: [], 8: []}, [], []
    for number, batch in enumerate(text):
        real = batch.attention_mask.astype(bool)
        at_rest.append(rate_map(config.network, before, batch)[0]["embeddings"][real])
        wanted.append(((encode(CONFIG, params, batch).hidden[0] - bias) / scale)[real])  # as if nothing were clipped
        if number < 2:
            for t, rates in simulate(config.network, before, batch, [4, 6, 8], "running").items():
                simulated[t].append(rates["embeddings"][real])
    few, many = (sum(map(len, part)) for part in (wanted[:2], wanted))
    assert np.abs(np.concatenate(at_rest) - np.concatenate(wanted)).max() > 0.1  # something is clipped
    x = np.concatenate([*at_rest, *chain(*simulated.values())])
    change = np.concatenate([*wanted, *wanted[:2] * 3]) - x
    counts = np.concatenate([np.full(many, 2 * few / many), np.ones(3 * few)])
    name = "encoder.layer.0.attention.self.key"
    ridge = initialise.RIDGE * np.cov(x, rowvar=False, ddof=0, aweights=counts).trace() / 12 * counts.sum()
    weight, constant = ridge_regression(x, change @ before[f"{name}.weight"].T, ridge, counts)
    np.testing.assert_allclose(after[f"{name}.weight"], before[f"{name}.weight"] + weight, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(after[f"{name}.bias"], before[f"{name}.bias"] + constant, rtol=1e-9, atol=1e-9)
    assert np.abs(weight).max() > 1e-3


def test_the_last_encoder_is_fitted_to_cls_above_all(monkeypatch):
    """The more [CLS] counts, the nearer is its last hidden state, at the cost of the others'; nothing before moves."""
    params, text = teacher(11), batches(12, 30)
    student, found, off = StudentConfig(CONFIG, 12, 3, Neuron(polarity="ternary"), per_feature=True), {}, {}
    for first in (0, 1):
        monkeypatch.setattr(initialise, "CLS", first)
        config, found[first] = converted(student, copied(student, params, layer_pairs(4, 4)), text, t_conv=8)
        errors = []
        for batch in text:
            rates = simulate(config.network, found[first], batch, [8], "running")[8][config.network.readouts[-1]]
            fitted = rates @ found[first]["fit.weight"].T + found[first]["fit.bias"]
            error = ((fitted - encode(CONFIG, params, batch).hidden[-1]) ** 2).mean(axis=-1)
            errors.append([error[:, 0].mean(), error[:, 1:][batch.attention_mask[:, 1:] == 1].mean()])
        off[first] = np.mean(errors, axis=0)
    assert off[0][0] > off[1][0], off
    assert off[0][1] < off[1][1], off
    moved = {name for name, value in found[0].items() if not np.array_equal(value, found[1][name])}
    maps = ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense")
    assert moved == {f"encoder.layer.3.{name}.{part}" for name in maps for part in ("weight", "bias")}


def test_a_conversion_looks_at_a_random_sample_with_little_padding():
    """Texts of 20 and of 60 tokens in turn: batches of like lengths have next to no padding, mixed ones a third.

    Long ones are thrice as likely.
    """
    rng = np.random.default_rng(0)
    lengths = np.where(np.arange(20 * initialise.SEQUENCES) % 2, 20, 60)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.repeat(np.arange(len(lengths)), lengths) + 1  # every text is its own number, repeated
    examples = Examples(tokens, np.zeros_like(tokens), starts, rng.integers(0, 2, len(lengths)))
    sample = partial(_sample, examples, Recipe("sst2", 2, seed=3), BertConfig())
    batches = list(sample())
    texts = np.concatenate([batch.input_ids[:, 0] for batch in batches])
    assert len(np.unique(texts)) == len(texts) == initialise.SEQUENCES
    assert 0.7 < (texts % 2).mean() < 0.8  # as often as it is long: 60/80
    assert np.concatenate([batch.attention_mask.ravel() for batch in batches]).mean() > 0.95
    widths = [batch.input_ids.shape[1] for batch in batches]
    assert len(set(widths[: len(widths) // 3])) == 2  # whoever looks at the first ones only sees both
    for again, batch in zip(sample(), batches, strict=True):
        np.testing.assert_array_equal(again.input_ids, batch.input_ids)


@pytest.mark.parametrize(
    ("sequences", "tokens", "batches"),
    [(12, 10**6, 3), (13, 10**6, 4), (10**6, 28, 1), (10**6, 29, 2), (10**6, 10**6, 5)],
)
def test_maps_are_fitted_to_enough_text_and_no_more(sequences, tokens, batches):
    """Five batches of four sequences of seven tokens and three of padding."""
    real = np.broadcast_to(np.arange(10) < 7, (4, 10)).astype(int)
    text = [Batch(real, real, real) for _ in range(5)]
    assert len(list(initialise._first(iter(text), tokens, sequences))) == batches


def test_a_student_of_another_width_starts_at_random():
    student = StudentConfig(replace(CONFIG, hidden_size=6, intermediate_size=10), 12, 3)
    _, params = initial_student(student, CONFIG, teacher(0), "random", 0, [])
    assert {name: value.shape for name, value in params.items()} == student.shapes
    rates, _ = rate_map(student.network, params, batches(0)[0])
    assert rates["encoder.3.output"].shape == (8, 9, 6)
    for method in ("teacher", "converted"):
        with pytest.raises(InputError, match="hidden_size 6 and the teacher 12"):
            initial_student(student, CONFIG, teacher(0), method, 0, [])
    assert bert(CONFIG)["embeddings"].width == 12
