"""Losses of distillation and their gradients, against plain arithmetic and differences of the whole loss."""

import numpy as np
import pytest
from conftest import SMALL, random_batch, random_parameters

from refsnn.distillation.student import (
    Scheme,
    internal_gradients,
    internal_loss,
    logits,
    prediction_gradients,
    true_loss,
)
from refsnn.errors import InputError
from refsnn.model.network import INPUT
from refsnn.model.neurons import Neuron
from refsnn.model.student import StudentConfig
from refsnn.readings.equilibrium import equilibrium
from refsnn.readings.implicit import within_spectral_norm
from refsnn.readings.rate_map import scores as attention_scores
from refsnn.readings.simulate import simulate

WIDTH, CLASSES = 7, 3  # of the teacher
BATCH = random_batch(SMALL, 2, size=3)
LABELS = np.array([2, 0, 1])


def setting(feedback=False, neuron=Neuron()):
    """A network with heads, its parameters, and a teacher's hidden states and scores, some of them masked."""
    student = StudentConfig(SMALL, WIDTH, CLASSES, neuron, feedback=feedback)
    params = random_parameters(SMALL, 5, feedback, extra=student.shapes)
    if feedback:
        params["feedback.weight"] = within_spectral_norm(params["feedback.weight"], 0.1)
    rng, (size, positions) = np.random.default_rng(8), BATCH.input_ids.shape
    hidden = rng.normal(size=(3, size, positions, WIDTH))
    scores = rng.normal(size=(2, size, SMALL.num_attention_heads, positions, positions))
    scores = np.where(BATCH.attention_mask[:, None, None, :] > 0, scores, -10000.0)
    scores[0, :, 0, 0, 0] = -150.0  # masked on the teacher's side alone: compared with 0
    return student.network, params, list(hidden), list(scores)


def plain_losses(network, params, hidden, scores):
    """Hidden-state loss, attention loss and cross-entropy at the equilibrium, as they are written down."""
    rates = equilibrium(network, params, BATCH).rates
    weight, bias = params["fit.weight"], params["fit.bias"]
    first = sum(
        (((rates[name] @ weight.T + bias) - target) ** 2).sum() / target.size
        for name, target in zip(network.readouts, hidden, strict=True)
    )
    observed, _ = attention_scores(network, params, rates, BATCH)
    second = sum(
        ((np.where(ours.real > -100, ours, 0) - np.where(target > -100, target, 0)) ** 2).sum() / target.size
        for ours, target in zip(observed, scores, strict=True)
    )
    active = rates[network.readouts[-1]][:, 0]
    z = active * (active.real > 0) @ params["classifier.weight"].T + params["classifier.bias"]
    third = np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(z, LABELS, strict=True)])
    return np.array([first, second, third])


@pytest.mark.parametrize(("weight", "feedback"), [(0.0, False), (2.5, False), (0.3, True)])
def test_the_gradient_is_that_of_the_weighted_sum(weight, feedback):
    """Along a random direction of every parameter, by differences: the attention loss counts as its weight says."""
    network, params, hidden, scores = setting(feedback)
    losses, gradients, statistics = internal_gradients(
        network, params, BATCH, hidden, scores, attention_weight=weight, loss=lambda z: true_loss(z, LABELS)
    )
    plain = plain_losses(network, params, hidden, scores)
    found = [losses[name] for name in ("hidden", "attention", "prediction")]
    np.testing.assert_allclose(found, plain, rtol=1e-12)
    assert plain.min() > 0.05 and gradients.keys() == params.keys()
    assert statistics.keys() == ({"sweeps", "products", "residual"} if feedback else set())
    rng, step = np.random.default_rng(1), 1e-6
    for name, value in list(params.items())[:: 5 if feedback else 1]:
        direction = rng.normal(size=value.shape)
        direction[:1] *= name != "embeddings.word_embeddings.weight"  # the padding's row has no gradient
        moved = [plain_losses(network, params | {name: value + s * direction}, hidden, scores) for s in (step, -step)]
        each = (moved[0] - moved[1]) / (2 * step)
        expected = each @ [1, weight, 1]
        assert (gradients[name] * direction).sum() == pytest.approx(expected, rel=1e-5, abs=1e-7), name
        if "query" in name and name.endswith("weight"):
            assert abs(each[1]) > 1e-3, "the attention loss moves with this parameter, or the test could not fail"


def test_the_prediction_alone_and_the_sum_agree():
    network, params, hidden, scores = setting(True)

    def loss(z):
        return true_loss(z, LABELS)

    losses, alone, statistics = prediction_gradients(network, params, BATCH, loss)
    both, together, _ = internal_gradients(network, params, BATCH, hidden, scores, loss=loss)
    _, inner, _ = internal_gradients(network, params, BATCH, hidden, scores)
    assert losses.keys() == {"prediction"} and losses["prediction"] == both["prediction"]
    assert statistics.keys() == {"sweeps", "products", "residual"}
    for name, value in together.items():
        expected = alone.get(name, 0) + inner.get(name, 0)
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-11, err_msg=name)


def test_masked_scores_are_zero_on_both_sides():
    """At −100 a score is masked, above it is not; what is masked passes nothing back."""
    params = {"fit.weight": np.eye(2), "fit.bias": np.zeros(2)}
    readout = np.array([[[0.5, 0.25]]])
    ours, theirs = np.array([[[[-100.0, -99.0, 3.0, 2.0]]]]), np.array([[[[5.0, -99.5, -100.0, -1e4]]]])
    losses, pullback = internal_loss(params, [readout], [ours], [readout - 1], [theirs], attention_weight=3.0)
    assert losses["hidden"] == 1.0
    assert losses["attention"] == (5.0**2 + 0.5**2 + 3.0**2 + 2.0**2) / 4
    (dreadout,), (dscores,), dparams = pullback(2.0)
    np.testing.assert_array_equal(dreadout, np.full((1, 1, 2), 2.0))  # 2 · 2(a − h)/2
    np.testing.assert_array_equal(dscores, 3 * 2 * 2 / 4 * np.array([[[[0, 0.5, 3.0, 2.0]]]]))
    np.testing.assert_array_equal(dparams["fit.weight"], np.array([[1.0, 0.5], [1.0, 0.5]]))


@pytest.mark.parametrize("rectified", [True, False])
def test_class_scores_read_the_first_position(rectified):
    rng = np.random.default_rng(0)
    params = {"classifier.weight": rng.normal(size=(3, 4)), "classifier.bias": rng.normal(size=3)}
    readout = rng.normal(size=(2, 5, 4))
    z, pullback = logits(params, readout, rectified)
    first = np.maximum(readout[:, 0], 0) if rectified else readout[:, 0]
    np.testing.assert_allclose(z, first @ params["classifier.weight"].T + params["classifier.bias"], rtol=1e-14)
    dz = rng.normal(size=z.shape)
    dreadout, dparams = pullback(dz)
    back = dz @ params["classifier.weight"]
    np.testing.assert_allclose(dreadout[:, 0], back * (readout[:, 0] > 0) if rectified else back, rtol=1e-14)
    assert not dreadout[:, 1:].any() and dreadout.shape == readout.shape
    np.testing.assert_allclose(dparams["classifier.weight"], dz.T @ first, rtol=1e-14)
    np.testing.assert_allclose(dparams["classifier.bias"], dz.sum(axis=0), rtol=1e-14)


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("at", ["equilibrium", "simulated"])
def test_a_scheme_says_what_the_derivative_at_the_edges_is(at, feedback):
    """Values silent by a bias of exactly 0: the gradient there is in proportion to the derivative at the edge."""
    network, params, hidden, scores = setting(feedback)
    names = [f"encoder.layer.0.attention.self.value.{part}" for part in ("weight", "bias")]
    params |= {name: np.zeros_like(params[name]) for name in names}
    simulated = simulate(network, params, BATCH, 20)[20] if at == "simulated" else None
    found = {}
    for edge in (0.0, 0.25, 1.0):
        scheme = Scheme(at, edge_derivative=edge)
        options = {"simulated": simulated, "scheme": scheme}
        inner = internal_gradients(network, params, BATCH, hidden, scores, **options)[1]
        answer = prediction_gradients(network, params, BATCH, lambda z: true_loss(z, LABELS), **options)[1]
        found[edge] = [g[names[1]] for g in (inner, answer)]
    for none, quarter, one in zip(*found.values(), strict=True):
        assert not none.any() and np.abs(one).max() > 1e-4
        # Contexts of silent values are silent as well: the derivative enters twice.
        np.testing.assert_allclose(quarter, one / 16, rtol=1e-6, atol=1e-12)


def test_simulated_rates_are_the_forward_values():
    """The read-outs' values are the simulation's; the derivative is taken at the equilibrium, or there as well."""
    network, params, hidden, scores = setting(neuron=Neuron(u0=0.5))
    simulated = simulate(network, params, BATCH, 9)[9]
    weight, bias = params["fit.weight"], params["fit.bias"]
    expected = sum(
        ((simulated[name] @ weight.T + bias - target) ** 2).mean()
        for name, target in zip(network.readouts, hidden, strict=True)
    )
    rates = equilibrium(network, params, BATCH).rates
    for at in ("equilibrium", "simulated"):
        losses, gradients, _ = internal_gradients(network, params, BATCH, hidden, scores, simulated, Scheme(at))
        assert losses["hidden"] == pytest.approx(expected, rel=1e-12)
        where = rates if at == "equilibrium" else simulated | {INPUT: rates[INPUT]}
        observed, _ = attention_scores(network, params, where, BATCH)
        seen = [np.where(s > -100, s, 0) - np.where(t > -100, t, 0) for s, t in zip(observed, scores, strict=True)]
        assert losses["attention"] == pytest.approx(sum((d**2).mean() for d in seen), rel=1e-12)
        dfit = sum(
            2 * (simulated[name] @ weight.T + bias - target).sum(axis=(0, 1)) / target.size
            for name, target in zip(network.readouts, hidden, strict=True)
        )
        np.testing.assert_allclose(gradients["fit.bias"], dfit, rtol=1e-10)
    with pytest.raises(InputError, match="need simulated rates"):
        prediction_gradients(network, params, BATCH, lambda z: true_loss(z, LABELS), scheme=Scheme("simulated"))
