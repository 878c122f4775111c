"""The conformance kit catches the mistakes of real backends, and names them.

A wrong backend is put to the kit level by level, until it fails. There, what is wrong must be named by its requirement,
and nothing may fail that has nothing to do with it; above, everything that is built on the wrong part is wrong too.
"""

from functools import cache

import pytest

pytest.importorskip("torch", reason="the wrong backends are written in PyTorch, which is not installed")

from backends.torch_backend import Torch
from backends.torch_gpt import TorchGpt
from backends.wrong import WRONG

from refsnn.conformance.cases import cases
from refsnn.conformance.judge import conform, judge
from refsnn.conformance.requirements import REQUIREMENTS

#: Levels, from the parts to the whole. Neurons and operations do not build on each other.
LEVELS = (("neuron", "op"), ("population",), ("encoder",), ("network",), ("distillation",))


@cache
def cases_of(levels, suite):
    return [case for case in cases(suite, version=1) if case.level in levels]


@cache
def named_cases(suite):
    return {case.id: case for case in cases(suite)}


def failures(adapter, levels, wrong):
    results = conform(adapter, cases_of(levels, wrong.suite), [wrong.dtype])
    return [result for result in results if result.status == "failed"]


@pytest.mark.parametrize("name", [name for name, wrong in WRONG.items() if not wrong.case])
def test_mistakes_are_named_by_the_requirement_that_they_violate(name):
    wrong = WRONG[name]
    adapter = wrong.adapter()
    failed = next(found for levels in LEVELS if (found := failures(adapter, levels, wrong)))
    named = [result.message for result in failed if result.requirement == wrong.requirement]
    assert named, [(result.id, result.requirement) for result in failed]
    assert all(
        message.startswith(f"{wrong.requirement} ({REQUIREMENTS[wrong.requirement].title}): ") for message in named
    )
    assert {result.requirement for result in failed} == {wrong.requirement, *wrong.also}
    if wrong.sentence:
        assert any(f" where {wrong.sentence}" in message for message in named), named


@pytest.mark.parametrize("name", [name for name, wrong in WRONG.items() if wrong.case])
def test_mistakes_that_took_a_case_of_their_own_are_caught_by_it(name):
    wrong = WRONG[name]
    result = judge(wrong.adapter(), named_cases(wrong.suite)[wrong.case], wrong.dtype)
    assert result.status == "failed", result
    assert result.requirement == wrong.requirement, result.message
    assert not wrong.sentence or f" where {wrong.sentence}" in result.message


#: What is done wrong with δ, and the networks that show it: V_th is 1 in the first pair, and 0.8 in the second.
TIE_RULES = {
    "ResetByTheLowerLevel": ("tie-rule", "combined"),
    "ThresholdMinusDelta": ("combined",),
    "TieRuleOfSingleNeuronsOnly": ("tie-rule", "combined"),
}


@pytest.mark.parametrize("rule", ["inst", "running"])
@pytest.mark.parametrize("name", TIE_RULES)
def test_what_is_done_wrong_with_the_tie_rule_shows_in_networks_too(name, rule):
    for network in TIE_RULES[name]:
        result = judge(WRONG[name].adapter(), named_cases("tiny")[f"simulate/{rule}-{network}"], "float64")
        assert result.status == "failed" and "spike decisions are wrong" in result.message, result


@pytest.mark.parametrize(("suite", "adapter"), [("tiny", Torch), ("signed", Torch), ("gpt", TorchGpt)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_backend_that_they_spoil_is_right(dtype, suite, adapter):
    results = list(conform(adapter(), cases(suite), [dtype]))
    assert results and [result.message for result in results if result.status != "passed"] == []
