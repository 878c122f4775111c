"""docs/examples/spikingbert.py: short, alone, and the same network as refsnn's."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import refsnn
from refsnn.conformance.requirements import REQUIREMENTS

PATH = Path(__file__).resolve().parents[1] / "docs" / "examples" / "spikingbert.py"
SOURCE = PATH.read_text(encoding="utf-8")


def program(source=SOURCE, **constants):
    """The program's names, its constants changed."""
    names = {}
    exec(compile(source, str(PATH), "exec"), names)
    names.update(constants)  # they are read when its functions run
    return names["spiking_bert"]


@pytest.fixture(scope="module")
def student():
    config = refsnn.BertConfig(
        vocab_size=30, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20
    )
    return refsnn.Student.random(refsnn.StudentConfig(config, teacher_width=12, classes=3), scale=0.5)


BATCH = refsnn.Batch.of([[3, 14, 15, 9, 2], [6, 5]])
READ = (BATCH.input_ids, BATCH.token_type_ids, BATCH.attention_mask)


def difference(student, run, t_conv, **neuron):
    """Largest difference of any rate from refsnn's, and of the class scores."""
    network = refsnn.spiking_bert(student.config.bert, refsnn.Neuron(**neuron))
    expected = refsnn.simulate(network, student.params, BATCH, t_conv)[t_conv]
    rates, scores = run(student.params, *READ, t_conv, 2, 3)
    assert rates.keys() == expected.keys()
    assert scores.shape == (2, 3)
    return max(np.abs(rates[name] - expected[name]).max() for name in rates), scores


@pytest.mark.parametrize("t_conv", [1, 7, 60])
def test_rates_and_scores_are_those_of_refsnn(student, t_conv):
    away, scores = difference(student, program(), t_conv)
    assert away == 0  # spike counts over T: the same spikes, or a whole spike apart
    np.testing.assert_allclose(scores, student.logits(BATCH, t_conv=t_conv), rtol=1e-12, atol=1e-12)


def test_its_constants_are_those_of_a_neuron(student):
    away, _ = difference(student, program(VTH=0.7, LEAK=0.9, U0=0.5), 40, vth=0.7, leak=0.9, u0=0.5)
    assert away == 0


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("LEAK * charge + current", "LEAK * (charge + current)"),
        ("u - VTH * spikes", "u * (1 - spikes)"),
        ("+ h  # (B", "# (B"),
        ("1e-12", "1e-2"),
        ("- 10000.0 * (1 - mask[:, None, None, :])", ""),
        ("split(key, H)", "split(value, H)"),
    ],
)
def test_a_mistake_in_it_is_seen(student, right, wrong):
    assert SOURCE.count(right) == 1
    away, _ = difference(student, program(SOURCE.replace(right, wrong), LEAK=0.9), 40, leak=0.9)
    assert away > 0.01


def test_it_has_eighty_lines_and_needs_numpy_alone():
    lines = SOURCE.splitlines()
    assert len(lines) <= 80 and max(map(len, lines)) <= 100
    imports = [node for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {getattr(node, "module", None) or node.names[0].name for node in imports} == {"math", "numpy"}


def test_its_lines_say_shapes_and_requirements_that_there_are():
    body = SOURCE[SOURCE.index("def ") :]
    computing = [line for line in body.splitlines() if re.match(r" +(return |\w[\w, ]* = )", line)]
    bare = [line for line in computing if "# " not in line or "(" not in line.partition("# ")[2]]
    names = ("return spikes", "at, name", "net.get(", "# S-5", "return rates")
    assert not [line for line in bare if not any(name in line for name in names)]
    cited = set(re.findall(r"S-\d+", SOURCE))
    assert cited <= set(REQUIREMENTS) and len(cited) > 15
