"""The benchmark: contestants take turns and their ratios are printed; how fast they are is not tested."""

import json

import numpy as np
import pytest

from refsnn.commands.cli import main
from refsnn.conformance import reference
from refsnn.conformance.bench import (
    WORKS,
    Outcome,
    _floor,
    _model,
    _ours,
    _padded,
    _sentences,
    _targets,
    bench_table,
    measure,
    plot_scaling,
)
from refsnn.distillation.student import logits
from refsnn.distillation.teacher import classify
from refsnn.errors import InputError
from refsnn.model.families import spiking_bert
from refsnn.model.parameters import initial_parameters
from refsnn.model.shapes import head_shapes
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
    assert _floor(WORKS["step"], 1) is None and _floor(work, 1) is not None
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


def test_scaling_is_drawn(tmp_path):
    plot_scaling(
        {axis: [(1, 0.1, 10.0), (2, 0.3, 20.0)] for axis in ("t", "batch", "positions", "width")}, tmp_path / "s.svg"
    )
    picture = (tmp_path / "s.svg").read_text()
    assert "timesteps T" in picture and "seconds of a simulation" in picture and ">0.1<" in picture
    assert "mathdefault" not in picture
