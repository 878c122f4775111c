"""The benchmark: contestants take turns and their ratios are printed; how fast they are is not tested."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from refsnn.commands.cli import main
from refsnn.conformance import bench, reference
from refsnn.conformance.bench import (
    WORKS,
    Outcome,
    Work,
    _floor,
    _floor_arrays,
    _model,
    _ours,
    _padded,
    _sentences,
    _targets,
    _theirs,
    bench_table,
    measure,
    plot_scaling,
)
from refsnn.distillation import stages
from refsnn.distillation.student import logits, true_loss
from refsnn.distillation.teacher import classify
from refsnn.errors import InputError
from refsnn.model.families import spiking_bert
from refsnn.model.parameters import initial_parameters
from refsnn.model.shapes import head_shapes
from refsnn.parallel import cores
from refsnn.readings.simulate import simulate


def test_contestants_take_turns_and_are_compared(tmp_path, capsys):
    path = tmp_path / "times.json"
    picture = tmp_path / "ratios.svg"
    arguments = ["bench", "neurons", "--against", "refsnn.conformance.reference", "--repetitions", "2"]
    assert main([*arguments, "--json", str(path), "--plot", str(picture)]) == 0
    assert "neurons: reference" in picture.read_text() and "peak memory" in picture.read_text()
    assert "refsnn.conformance.reference" in capsys.readouterr().out
    outcomes = json.loads(path.read_text())["outcomes"]
    assert [o["contestant"] for o in outcomes] == ["refsnn", "refsnn.conformance.reference"]  # no products, so no floor
    assert all(len(o["seconds"]) == 2 and min(o["seconds"]) > 0 and o["peak"] > 1e8 for o in outcomes)


def test_table_gives_ratios_of_medians():
    outcomes = [Outcome("step", "refsnn", [1.0, 2.0, 9.0], 100), Outcome("step", "other", [4.0, 1.0, 5.0], 400)]
    last = bench_table(outcomes).splitlines()[-1].split()
    assert last[0] == "other" and last[-2:] == ["0.50", "0.25"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["bench", "nothing"], "must be one of"), (["bench", "neurons", "--against", "no.module"], "could not be timed")],
)
def test_bad_names_get_one_sentence(arguments, words, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_an_adapter_that_lacks_the_function_takes_no_part():
    with pytest.raises(InputError, match="none of the functions"):
        measure(["neurons"], ["refsnn.errors"], 1)


def test_contestants_do_the_same_work():
    """The floor multiplies as the simulation does, and the step is the one that the adapter computes."""
    work = WORKS["simulate"]
    config, params, _ = _model(work)
    encoder = sum(p.size for n, p in params.items() if n.startswith("encoder.layer.0.") and n.endswith("dense.weight"))
    attention = sum(p.size for n, p in params.items() if n.startswith("encoder.layer.0.attention.self") and p.ndim == 2)
    assert encoder + attention == 12 * work.width**2  # the floor's shapes: four D × D, D × 4D and 4D × D
    assert _floor(WORKS["step"], 1) is None and _floor(work, 1) is not None and _floor(work, 3) is not None
    small = type(work)("small", "step", batch=2, positions=4, width=32, encoders=1)
    losses, gradients, _ = _ours(small)()
    config, params, batch = _model(small)
    described = {**config.to_dict(), "vth": 1.0, "leak": 1.0, "u0": 0.0, "tie": 1e-5}
    targets = _targets(small, config)
    theirs = reference.gradients({**described, "feedback": False}, params, batch._asdict(), targets, None, "float32")
    assert np.isclose(theirs["loss"], losses["hidden"] + losses["attention"])
    assert all(np.allclose(theirs[f"gradient/{name}"], value) for name, value in gradients.items())


@pytest.mark.parametrize("kind", ["evaluate", "teacher"])
def test_sets_of_sentences_give_the_logits_of_padded_batches(kind):
    """What refsnn is timed at, without padding and with [CLS] alone at the end, is what the padded loop computes."""
    work = type(WORKS["step"])("small", kind, t=5, batch=40, positions=64, width=32, encoders=2)
    config, params, _ = _model(work)
    params |= initial_parameters(head_shapes(config, 2), np.random.default_rng(3), 0.05)
    expected = []
    for batch in _padded(work):
        assert batch.input_ids.shape[1] == 64
        if kind == "teacher":
            expected.append(classify(config, params, batch)[0])
        else:
            network = spiking_bert(config)
            expected.append(logits(params, simulate(network, params, batch, 5)[5][network.readouts[-1]])[0])
    assert 20 < _sentences(work).lengths.mean() < 30
    np.testing.assert_allclose(_ours(work)(), np.concatenate(expected), atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3, 16, 100])
@pytest.mark.parametrize("name", ["simulate", "simulate-768", "running"])
def test_the_floor_multiplies_everything_once_however_many_cores_there_are(name, threads):
    work = WORKS[name]
    counted = 0
    for linear, heads, times in _floor_arrays(work, threads):
        products = sum(spikes.shape[0] * weight.size for spikes, weight in linear)
        counted += times * (products + 2 * heads.size * heads.shape[1])
    assert counted == bench.products(work)


def test_no_thread_of_the_floor_is_idle_while_another_multiplies_much():
    rows = [linear[0][0].shape[0] * times for linear, _, times in _floor_arrays(WORKS["simulate"], 16)]
    assert len(rows) == 16 and min(rows) == max(rows) > 0


SMALL = {"batch": 3, "positions": 4, "width": 32, "encoders": 1}


def test_a_step_with_feedback_is_that_of_the_adapter():
    work = Work("small", "step", feedback=True, **SMALL)
    losses, gradients, found = _ours(work)()
    config, params, batch = _model(work)
    described = {**config.to_dict(), "vth": 1.0, "leak": 1.0, "u0": 0.0, "tie": 1e-5, "feedback": True}
    targets = _targets(work, config)
    theirs = reference.gradients(described, params, batch._asdict(), targets, None, "float32")
    assert np.isclose(theirs["loss"], losses["hidden"] + losses["attention"])
    assert found["sweeps"] > 1 and gradients["feedback.weight"].any()
    assert all(np.allclose(theirs[f"gradient/{name}"], value, atol=1e-5) for name, value in gradients.items())


def test_backends_differentiate_the_same_step_with_feedback():
    pytest.importorskip("torch")
    from reference_tests.backends import torch_backend, torch_implicit, torch_unrolled

    work = Work("small", "step", feedback=True, **SMALL)
    _, gradients, _ = _ours(work)()
    for adapter in (torch_backend, torch_implicit, torch_unrolled):
        theirs = _theirs(work, adapter)()
        assert all(np.allclose(theirs[f"gradient/{name}"], value, atol=1e-5) for name, value in gradients.items())


def test_a_teachers_step_is_the_gradient_of_its_loss():
    work = Work("small", "teacher-step", **SMALL)
    losses, gradients, _ = _ours(work)()
    config, params, batch = _model(work)
    scores, pullback = classify(config, params, batch)
    loss, loss_pullback = true_loss(scores, bench._labels(work))
    expected = pullback(loss_pullback(1.0))
    assert np.isclose(losses["loss"], loss) and gradients.keys() == expected.keys()
    assert all(np.allclose(expected[name], value, atol=1e-6) for name, value in gradients.items())
    pytest.importorskip("transformers", reason="Hugging Face's BERT is not installed")
    from reference_tests.backends import transformers_bert

    theirs = _theirs(work, transformers_bert)()
    for name, value in gradients.items():
        other = theirs.get(name, theirs.get(f"bert.{name}"))
        assert other is not None and np.allclose(other, value, atol=1e-5), name


def test_certificates_are_timed_over_all_decisions():
    work = Work("small", "certify", t=5, **SMALL)
    verdicts = _ours(work)()
    assert sum(v.decisions for v in verdicts.values()) == bench.decisions(work)
    assert not any(v.wrong for v in verdicts.values())
    table = bench_table([Outcome("certify", "refsnn", [0.5, 2.0, 3.0], 100)])
    assert f"{bench.decisions(WORKS['certify']) / 2e6:.1f} million decisions a second" in table


def test_the_whole_of_distill_runs(monkeypatch):
    pytest.importorskip("tokenizers")
    seen = []
    monkeypatch.setattr(stages, "save_model", lambda folder, *rest: seen.append((folder, rest[1])))
    _ours(Work("small", "distill", 1, 40, 16, 32, 1))()
    assert [folder.name for folder, _ in seen] == ["teacher", "run"]
    assert not seen[0][0].exists(), "it leaves its folder behind"


def test_cores_are_compared_in_a_table():
    times = {("refsnn", 1): 4.0, ("refsnn", 4): 1.0, ("floor", 1): 3.0, ("floor", 4): 0.9, ("a.b", 1): 8.0}
    times |= {("floor, BLAS threads", 1): 5.0, ("floor, BLAS threads", 4): 0.5, ("a.b", 4): 2.0}
    outcomes = [Outcome("simulate", who, [s], 1.0, count) for (who, count), s in times.items()]
    lines = [line.split() for line in bench.cores_table(outcomes).splitlines()[1:]]
    assert lines[0] == ["cores", "1", "4"] and lines[1] == ["refsnn", "4", "1"] and lines[2][-2:] == ["1.00", "4.00"]
    assert lines[3] == ["floor", "3", "0.5"] and lines[4][-2:] == ["1.33", "2.00"]
    assert lines[5] == ["a.b", "8", "2"] and lines[6][-2:] == ["0.50", "0.50"]


def test_contestants_have_the_cores_that_are_asked_for(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)  # this module is a backend
    path = tmp_path / "times.json"
    words = ["bench", "neurons", "--repetitions", "1", "--against", "test_bench", "--json", str(path)]
    assert main([*words, "--cores", "100000", "1"]) == 0
    out, err = capsys.readouterr()
    assert "left out: 100000" in err and "times as fast" in out
    outcomes = json.loads(path.read_text())["outcomes"]
    assert {(o["contestant"], o["cores"]) for o in outcomes} == {("refsnn", 1), ("test_bench", 1)}
    assert main(["bench", "neurons", "--cores", "0"]) == 2 and "--cores is 0" in capsys.readouterr().err
    assert main(["bench", "neurons", "--cores", "1", "--plot", "x.svg"]) == 2
    assert "--cores makes a table" in capsys.readouterr().err


def neurons(current, neuron, dtype):
    """As an adapter, this module sees whether it was given one core."""
    assert cores() == 1
    if hasattr(os, "sched_getaffinity"):
        assert len(os.sched_getaffinity(0)) == 1


def test_scaling_is_drawn(tmp_path):
    plot_scaling(
        {axis: [(1, 0.1, 10.0), (2, 0.3, 20.0)] for axis in ("t", "batch", "positions", "width")}, tmp_path / "s.svg"
    )
    picture = (tmp_path / "s.svg").read_text()
    assert "timesteps T" in picture and "seconds of a simulation" in picture and ">0.1<" in picture
    assert "mathdefault" not in picture
