"""A wrong gradient is traced to the population whose derivative is wrong, by the cotangents of the rates."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from refsnn.conformance import reference
from refsnn.conformance.ask import ask
from refsnn.conformance.backwards import COTANGENT, first_astray, inside
from refsnn.conformance.cases import call, cases
from refsnn.conformance.judge import expectation, judge

CASES = {case.id: case for case in cases("tiny") if case.function == "gradients"}


def changed(change):
    """The reference, with its answer changed afterwards."""

    def gradients(*given):
        answer = dict(reference.gradients(*given))
        change(answer)
        return answer

    return SimpleNamespace(gradients=gradients, dtypes=("float64",))


def test_cotangents_are_the_derivatives_by_the_rates_also_with_feedback():
    """Against a difference: the current of one population is shifted by its bias, the loss moves by λ·σ′·shift."""
    for name, bias in (
        ("gradients/internal", "encoder.layer.0.attention.self.key.bias"),
        ("gradients/prediction-feedback", "encoder.layer.1.output.LayerNorm.bias"),
    ):
        case = CASES[name]
        kind = {"key": "encoder.0.key", "LayerNorm": "encoder.1.output"}[bias.split(".")[-2]]
        answer = call(reference, case, case.inputs, "float64")
        within = inside(case)[COTANGENT + kind]
        slope = np.where(within, answer[COTANGENT + kind], 0) / case.settings["config"]["vth"]
        step = 1e-6
        for feature in range(3):
            losses = []
            for sign in (1, -1):
                moved = case.inputs[f"param/{bias}"].copy()
                moved[feature] += sign * step
                losses.append(call(reference, case, case.inputs | {f"param/{bias}": moved}, "float64")["loss"])
            wanted = (losses[0] - losses[1]) / (2 * step)
            # A key's bias moves all scores of a query alike, and so the attention loss, but not the softmax.
            assert abs(slope[..., feature].sum() - wanted) <= 1e-6 * max(1, abs(wanted))


def test_cotangents_are_optional_and_are_no_part_of_bundles():
    case = CASES["gradients/internal"]
    assert not any(name.startswith(COTANGENT) for name in expectation(case).values)
    assert next(iter(expectation(case).optional)) == COTANGENT + "encoder.1.output"

    def without(answer):
        for name in expectation(case).optional:
            del answer[name]

    assert judge(changed(without), case, "float64").status == "passed"
    assert judge(changed(lambda answer: answer.pop(COTANGENT + "embeddings")), case, "float64").status == "passed"
    assert judge(changed(lambda answer: None), case, "float64").status == "passed"


def test_a_wrong_cotangent_alone_fails_and_one_of_a_saturated_neuron_does_not():
    case, name = CASES["gradients/internal"], COTANGENT + "encoder.0.value"
    within = inside(case)[name]
    assert 0 < within.mean() < 1
    for place in (within, ~within):

        def shifted(answer, place=place):
            answer[name] = np.where(place, answer[name] + 1, answer[name])

        result = judge(changed(shifted), case, "float64")
        assert (result.status == "failed") == (place is within), result
        assert place is not within or (result.requirement == "S-34" and f"{name}[" in result.message)


def test_malformed_cotangents_are_said_to_be_and_give_no_place():
    case = CASES["gradients/internal"]
    for value, words in ((np.zeros((2, 5)), "has shape (2, 5)"), (np.full((2, 5, 6), np.nan), "is nan")):
        result = judge(changed(lambda answer, v=value: answer.update({COTANGENT + "embeddings": v})), case, "float64")
        assert result.status == "failed" and words in result.message and "walking back" not in result.message


def test_a_parameter_whose_gradient_alone_is_wrong_is_named():
    case, name = CASES["gradients/internal"], "encoder.layer.0.attention.output.dense.weight"

    def doubled(answer):
        answer[f"gradient/{name}"] = 2 * answer[f"gradient/{name}"]

    message = judge(changed(doubled), case, "float64").message
    assert "the cotangents of all rates agree with each other" in message
    assert f"but the gradient of {name} not with that of encoder.0.attention_output" in message


def located(adapter, case, dtype):
    """The place alone, without the search for known mistakes that `judge` makes as well."""
    expected = expectation(case)
    allowed = {name: 4 * expected.tolerance(name, dtype) * scale for name, scale in expected.scales.items()}
    return first_astray(case, ask(adapter, case, dtype).answer, allowed, expected.compared)


KINDS = ("key", "value", "context", "attention_output", "intermediate", "output")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["gradients/internal", "gradients/prediction-feedback"])
def test_the_population_whose_derivative_is_wrong_is_named(name, dtype):
    pytest.importorskip("torch", reason="the wrong backends are written in PyTorch, which is not installed")
    from backends.wrong import OnePopulationSteeper

    assert located(OnePopulationSteeper(), CASES[name], dtype) == ""  # of no population: it is right
    for population in ["embeddings", *(f"encoder.{e}.{kind}" for e in range(2) for kind in KINDS)]:
        adapter = type("Steeper", (OnePopulationSteeper,), {"population": population})()
        message = located(adapter, CASES[name], dtype)
        if population == "embeddings" and "feedback" not in name:
            assert message.endswith("not with that of embeddings")
        else:
            assert message.endswith(f"look at the derivative of {population}"), message


def test_the_message_of_a_failure_names_the_population():
    pytest.importorskip("torch", reason="the wrong backends are written in PyTorch, which is not installed")
    from backends.wrong import IntermediateSteeper

    message = judge(IntermediateSteeper(), CASES["gradients/internal"], "float64").message
    assert message.startswith("S-34") and "first goes wrong at encoder.0.attention_output, read by " in message
    assert "look at the derivative of encoder.0.intermediate;" in message


def test_the_place_is_told_beside_the_name_of_a_known_mistake():
    pytest.importorskip("torch", reason="the wrong backends are written in PyTorch, which is not installed")
    from backends.wrong import AveragedAdjoint, StraightThroughClip

    told = judge(AveragedAdjoint(), CASES["gradients/internal-feedback"], "float64").message
    assert "first goes wrong at encoder.1.output, read by embeddings and the loss" in told and "(2I − Jᵀ)" in told
    told = judge(StraightThroughClip(), CASES["gradients/internal"], "float64").message
    assert "walking back from the loss" in told


def test_a_case_of_another_suite_has_cotangents_too():
    case = next(case for case in cases("signed") if case.id == "gradients/prediction-ternary-feedback")
    assert judge(reference, case, "float64").status == "passed"
    tampered = replace(case, inputs=case.inputs | {"logits": 2 * case.inputs["logits"]})
    answer = call(reference, tampered, tampered.inputs, "float64")
    adapter = SimpleNamespace(gradients=lambda *_: answer, dtypes=("float64",))
    assert "read by embeddings and the loss: look at the derivative of" in judge(adapter, case, "float64").message
