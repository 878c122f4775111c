"""Spikes of other libraries as records, by the page's own example; layers as NIR graphs, there and back."""

import re
from pathlib import Path

import numpy as np
import pytest

from refsnn.commands.cli import main
from refsnn.errors import InputError
from refsnn.model.neurons import Neuron, fire
from refsnn.storage.nir import Layer, from_graph, read_graph, to_graph, write_graph

PAGE = Path(__file__).resolve().parents[1] / "docs" / "howto" / "other-libraries.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
SETUP, SNNTORCH, SPIKINGJELLY, LOOP, LAYER = [block for block in BLOCKS if ">>>" not in block]

# ---------------------------------------------------------------------------------------------------------------------
# Records


@pytest.mark.parametrize(
    ("package", "cells"), [("snntorch", SNNTORCH), ("spikingjelly", SPIKINGJELLY)], ids=["snntorch", "spikingjelly"]
)
def test_the_page_writes_a_record_that_is_certified(package, cells, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch", reason="the example is written in PyTorch, which is not installed")
    pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(SETUP + cells + LOOP, names)
    fired = {name: train.mean() for name, train in names["spikes"].items()}
    assert min(fired.values()) > 0.01 and max(fired.values()) < 0.99, fired  # a silent network would prove nothing
    assert main(["certify", "spikes.safetensors"]) == 0
    assert "embeddings" in capsys.readouterr().out
    names["spikes"]["encoder.0.key"] = 1 - names["spikes"]["encoder.0.key"]
    exec(LOOP.splitlines()[-1], names)
    assert main(["certify", "spikes.safetensors"]) == 1


def test_a_leak_before_the_reset_is_found_as_the_page_says(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="the example is written in PyTorch, which is not installed")
    pytest.importorskip("snntorch", reason="snnTorch is not installed")
    monkeypatch.chdir(tmp_path)
    leaky = SETUP.replace("Neuron(tie=0.0)", "Neuron(leak=0.9, tie=0.0)")
    exec(leaky + SNNTORCH.replace("beta=1.0", "beta=0.9") + LOOP, {})
    assert main(["certify", "spikes.safetensors"]) == 1


def test_one_layer_needs_no_file(capsys):
    pytest.importorskip("torch", reason="the example is written in PyTorch, which is not installed")
    pytest.importorskip("snntorch", reason="snnTorch is not installed")
    exec(
        "\n".join(line for line in SETUP.splitlines() if line.startswith("import")) + "\nimport snntorch\n" + LAYER, {}
    )
    assert capsys.readouterr().out == "0 of 1024 decisions are wrong\n"


# ---------------------------------------------------------------------------------------------------------------------
# NIR


@pytest.fixture
def nir():
    return pytest.importorskip("nir", reason="nir is not installed; pip install 'refsnn[nir]'")


CONVENTIONS = {"dt": 1.0, "leak": "euler", "reset": "subtract", "fires": ">="}


@pytest.mark.parametrize("leak", ["euler", "exact"])
@pytest.mark.parametrize("dt", [1.0, 1e-3, 0.7])
def test_layers_come_back_from_a_file(leak, dt, nir, tmp_path):
    rng = np.random.default_rng(0)
    layers = [
        Layer(5, Neuron(vth=2.0, leak=0.9, tie=0.0), rng.normal(size=(5, 3)), rng.normal(size=5)),
        Layer(4, Neuron(vth=0.5, tie=0.0), rng.normal(size=(4, 5)).astype(np.float32)),
        Layer(4, Neuron(leak=0.5, tie=0.0)),
        Layer(2, None, rng.normal(size=(2, 4)), rng.normal(size=2)),
    ]
    write_graph(tmp_path / "layers.nir", layers, dt, leak)
    again = read_graph(tmp_path / "layers.nir")
    assert len(again) == len(layers)
    for one, other in zip(layers, again, strict=True):
        assert one.width == other.width and (one.neuron is None) == (other.neuron is None)
        if one.neuron is not None:
            assert abs(one.neuron.leak - other.neuron.leak) <= 4e-16 and other.neuron.leak <= 1
            assert (one.neuron.vth, one.neuron.u0, one.neuron.tie) == (other.neuron.vth, other.neuron.u0, 0.0)
        for a, b in ((one.weight, other.weight), (one.bias, other.bias)):
            assert (a is None) == (b is None) and (a is None or (a.dtype == b.dtype and np.array_equal(a, b)))


def by_euler(node, weight, bias, inputs, dt):
    """NIR's own equation in steps of dt, reset by subtraction, one neuron and step after the other."""
    spikes = np.zeros((len(inputs), len(weight)))
    for i in range(len(weight)):
        v = 0.0
        for t, x in enumerate(inputs):
            current = sum(weight[i, j] * x[j] for j in range(len(x))) + bias[i]
            if hasattr(node, "tau"):
                v += dt / node.tau[i] * ((node.v_leak[i] - v) + node.r[i] * current)
            else:
                v += dt * node.r[i] * current
            spikes[t, i] = v >= node.v_threshold[i]
            v -= node.v_threshold[i] * spikes[t, i]
    return spikes


@pytest.mark.parametrize("kind", ["IF", "LIF"])
def test_neurons_read_fire_as_a_plain_loop_over_nir_s_equation(kind, nir):
    """Constants of another program: R is no inverse of dt/τ, and differs from neuron to neuron."""
    rng = np.random.default_rng(1)
    weight, bias, inputs, dt = rng.normal(0, 1, (6, 4)), rng.normal(0.2, 0.1, 6), rng.normal(0.5, 1, (200, 4)), 0.25
    r, one = rng.uniform(1, 4, 6), np.ones(6)
    node = nir.IF(r=r, v_threshold=0.8 * one)
    if kind == "LIF":
        node = nir.LIF(tau=2 * one, r=2 * r, v_leak=0 * one, v_threshold=0.8 * one)
    graph = nir.NIRGraph.from_list(nir.Affine(weight, bias), node)
    (layer,) = from_graph(graph, CONVENTIONS | {"dt": dt})
    assert layer.neuron == Neuron(0.8, 1.0 if kind == "IF" else 0.875, tie=0.0)
    spikes, _ = fire(inputs @ layer.weight.T + layer.bias, layer.neuron)
    expected = by_euler(node, weight, bias, inputs, dt)
    assert 0.05 < expected.mean() < 0.95 and np.array_equal(spikes, expected)


def test_an_exact_leak_is_the_solution_of_nir_s_equation(nir):
    """The neuron written, integrated in ten thousand small steps between two spikes' times, has the same potential."""
    neuron, current = Neuron(vth=5.0, leak=0.6, tie=0.0), 0.7
    node = to_graph([Layer(1, neuron)], dt=2.0, leak="exact").nodes["lif"]
    v, u, small = 0.0, 0.0, 1e-4
    for _ in range(3):
        for _ in range(int(2.0 / small)):  # Euler with small steps; the current is constant over a step
            v += small / node.tau[0] * ((node.v_leak[0] - v) + node.r[0] * current)
        u = neuron.leak * u + current
    assert abs(v - u) < 2e-4


@pytest.mark.parametrize(
    ("neuron", "words"),
    [
        (Neuron(), "tie is None"),
        (Neuron(tie=1e-9), "tie is 1e-09, but NIR has no field"),
        (Neuron(tie=0.0, u0=0.5), "u0 is 0.5, but NIR has no field"),
        (Neuron(tie=0.0, polarity="ternary"), "polarity is 'ternary', but NIR has no field"),
    ],
)
def test_what_nir_cannot_say_is_refused_by_name(neuron, words, nir):
    with pytest.raises(InputError, match=words):
        to_graph([Layer(3, neuron)])


def graphs(nir):
    """Graphs that refsnn does not read, and the words that say so."""
    one, weight = np.ones(2), np.eye(2)
    stated = dict(CONVENTIONS)

    def chain(*nodes):
        return nir.NIRGraph.from_list(*nodes)

    def lif(**changes):
        return nir.LIF(
            **{"tau": 4 * one, "r": one, "v_leak": 0 * one, "v_threshold": one, "metadata": stated} | changes
        )

    synapses = nir.CubaLIF(tau_syn=one, tau_mem=4 * one, r=one, v_leak=0 * one, v_threshold=one)
    yield chain(nir.Linear(weight), lif(metadata={})), "lif does not state dt, leak, reset, fires"
    yield chain(nir.Linear(weight), lif(metadata={"dt": 1.0})), "lif does not state leak, reset, fires"
    yield chain(nir.Linear(weight), lif(metadata=stated | {"reset": "zero"})), "reset is 'zero', but refsnn"
    yield chain(nir.Linear(weight), lif(metadata=stated | {"fires": ">"})), "fires is '>', but refsnn"
    yield chain(nir.Linear(weight), lif(metadata=stated | {"leak": "heun"})), "`leak` is 'heun'"
    yield chain(nir.Linear(weight), lif(metadata=stated | {"dt": -1.0})), "dt is -1"
    yield chain(nir.Linear(weight), lif(v_leak=0.1 * one)), "v_leak is not 0"
    yield chain(nir.Linear(weight), lif(v_reset=0.1 * one)), "v_reset is not 0"
    yield chain(nir.Linear(weight), lif(v_threshold=np.array([1.0, 2.0]))), "v_threshold differs within the layer"
    yield chain(nir.Linear(weight), lif(tau=0.5 * one)), "tau is 0.5"
    yield chain(lif()), "takes 0.25 of its current"
    yield chain(nir.Linear(weight), synapses), "is a CubaLIF, but refsnn reads"
    yield chain(nir.Linear(weight), nir.Threshold(one)), "is a Threshold, but refsnn reads"
    loop = chain(nir.Linear(weight), nir.IF(r=one, v_threshold=one, metadata=stated))
    loop.edges.append(("if", "linear"))
    yield loop, "the graph is no chain"


def test_graphs_that_refsnn_does_not_read_are_refused_by_name(nir):
    for graph, words in graphs(nir):
        with pytest.raises(InputError) as error:
            from_graph(graph)
        assert words in str(error.value)


def test_bad_arguments_and_files_get_one_sentence(nir, tmp_path):
    (tmp_path / "text.nir").write_text("no graph")
    layer = Layer(2, Neuron(tie=0.0), np.eye(2))
    for call, words in (
        (lambda: read_graph(tmp_path / "text.nir"), "cannot be read as a NIR graph"),
        (lambda: read_graph(tmp_path / "none.nir"), "does not exist"),
        (lambda: from_graph("graph"), "a nir.NIRGraph was expected"),
        (lambda: from_graph(to_graph([layer]), {"tau": 1}), "`stated` has 'tau'"),
        (lambda: to_graph([]), "no layer"),
        (lambda: to_graph([layer], dt=0), "dt is 0"),
        (lambda: to_graph([layer], leak="heun"), "`leak` is 'heun'"),
        (lambda: to_graph([layer, Layer(2, None, np.ones((2, 3)))]), "do not fit each other"),
        (lambda: Layer(2), "neither neurons nor a weight"),
        (lambda: Layer(2, None, np.eye(2), np.ones(3)), "the bias is (3,)"),
        (lambda: Layer(2, Neuron(), bias=np.ones(2)), "given without a weight"),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert words in str(error.value) and "\n" not in str(error.value)
