"""Training: the optimiser by its formula, resuming bit for bit, and a whole small distillation."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import SMALL, random_batch, random_parameters

from refsnn import ops
from refsnn.data.examples import Examples, epoch_batches, length_batches
from refsnn.distillation.initialise import initial_student
from refsnn.distillation.optim import BertAdam, linear_warmup
from refsnn.distillation.predict import predict_rates, predict_spikes, solve_rates
from refsnn.distillation.stages import FROZEN, _few_steps_objective, _scheme, _trained, distill
from refsnn.distillation.student import (
    Scheme,
    internal_gradients,
    layer_pairs,
    logits,
    prediction_gradients,
    true_loss,
)
from refsnn.distillation.teacher import classify, encode
from refsnn.distillation.training import in_shares, train
from refsnn.errors import InputError
from refsnn.evaluation.evaluate import evaluate_run
from refsnn.files import json_lines, save_tensors, write_json
from refsnn.model.families import spiking_bert
from refsnn.model.neurons import Neuron
from refsnn.model.parameters import initial_parameters, kept
from refsnn.model.shapes import BertConfig, network_shapes, teacher_shapes
from refsnn.model.student import StudentConfig
from refsnn.pages.tables import results_table
from refsnn.parallel import each
from refsnn.readings.equilibrium import equilibrium
from refsnn.readings.rate_map import sweep
from refsnn.readings.simulate import simulate
from refsnn.storage.checkpoints import load_student
from refsnn.storage.recipe import Recipe, Stage
from refsnn.storage.records import record
from refsnn.storage.run import Run

GOOD, BAD = "good fine great lovely".split(), "bad poor awful dull".split()


def test_bert_adam_follows_its_formula():
    rng = np.random.default_rng(0)
    params = {
        "a.weight": rng.normal(size=(300, 70)),
        "a.bias": rng.normal(size=70),
        "LayerNorm.weight": rng.normal(size=9),
    }
    expected = {k: v.copy() for k, v in params.items()}
    moments = {k: (0.0, 0.0) for k in params}
    optimiser = BertAdam()
    state = optimiser.initial(params)
    for step in range(5):
        gradients = {k: rng.normal(size=v.shape) * (3 if step % 2 else 1e-3) for k, v in params.items()}
        before = {k: g.copy() for k, g in gradients.items()}
        lr = 0.1 * linear_warmup(step / 5)
        optimiser.step(params, gradients, state, lr)
        for k, g in gradients.items():
            np.testing.assert_array_equal(g, before[k])  # the caller's gradients are left alone
            norm = np.sqrt((g**2).sum())
            g = g / (norm + 1e-6) if norm > 1 else g
            m, v = moments[k]
            moments[k] = m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            decay = 0.01 if k == "a.weight" else 0.0
            expected[k] = expected[k] - lr * (m / (np.sqrt(v) + 1e-6) + decay * expected[k])
            np.testing.assert_allclose(params[k], expected[k], rtol=1e-12, atol=1e-14, err_msg=f"{k}, step {step}")


def quadratic(params, batch, rows):
    """A loss whose value depends on which examples are seen when."""
    pull = params["w"] - np.sin(batch.input_ids.sum() + rows[0])
    return {"loss": (pull**2).sum()}, {"w": 2 * pull}, {}


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 6, 37)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Examples(rng.integers(1, 9, starts[-1]), np.zeros(starts[-1], int), starts, np.zeros(37, int))


@pytest.mark.parametrize(
    ("epochs", "fatal"), [(13, 1), (13, 2), (13, 13), (13, 50), (13, 99), (80, 101), (0.4, 3), (2.3, 18)]
)
def test_a_stage_interrupted_at_any_step_ends_with_the_same_bytes(tmp_path, examples, epochs, fatal):
    stage = Stage("some", epochs=epochs, batch_size=5, lr=0.1)  # 104 steps; or 640, and a line of the log every third
    start = {"w": np.zeros(3, np.float32)}
    ends = []
    for name in ("whole", "broken"):
        run = tmp_path / name
        run.mkdir()
        calls = 0

        def objective(params, batch, rows, name=name):
            nonlocal calls
            calls += 1
            if name == "broken" and calls == fatal:
                raise MemoryError
            return quadratic(params, batch, rows)

        if name == "broken":
            with pytest.raises(MemoryError):
                train(Run(run), stage, start, examples, objective, [7], save_every=0)
            with open(run / "log.jsonl", "a") as log:
                log.write('{"stage": "some", "st')  # killed while writing a line
        train(Run(run), stage, start, examples, objective, [7], save_every=0)
        ends.append({p.name: p.read_bytes() for p in (run / "log.jsonl", run / "stages" / "some.safetensors")})
    assert ends[0] == ends[1]
    assert not start["w"].any()  # the caller's parameters are left alone


@pytest.mark.parametrize(("epochs", "steps"), [(0.01, 1), (0.5, 4), (1, 8), (1.0, 8), (1.6, 13), (2, 16)])
def test_a_fraction_of_an_epoch_is_its_first_batches(tmp_path, examples, epochs, steps):
    """37 examples make eight batches of five; what two whole epochs see is what any part of them sees first."""
    stage = Stage("some", epochs=epochs, batch_size=5, lr=0.1)
    assert stage.steps(len(examples)) == steps
    seen = []

    def objective(params, batch, rows):
        seen.append(rows)
        return quadratic(params, batch, rows)

    train(Run(tmp_path), stage, {"w": np.zeros(3)}, examples, objective, [7])
    order = [rows for epoch in (0, 1) for rows in epoch_batches(examples.lengths, 5, [7, epoch])]
    # every step's batch comes in two shares, in any order
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.sort(np.concatenate(order[:steps])))


def test_another_seed_gives_another_result(tmp_path, examples):
    stage = Stage("some", epochs=2, batch_size=5, lr=0.1)
    found = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        found.append(train(Run(tmp_path / str(seed)), stage, {"w": np.zeros(3)}, examples, quadratic, [seed])["w"])
    assert np.abs(found[0] - found[1]).max() > 1e-6


def test_a_loss_that_explodes_is_reported_in_words(tmp_path, examples):
    def objective(params, batch, rows):
        return {"loss": np.float64(np.nan)}, {"w": params["w"]}, {}

    with pytest.raises(InputError, match=r"no longer finite.*learning rate"):
        train(Run(tmp_path), Stage("some", 1, 5, 0.1), {"w": np.zeros(3)}, examples, objective, [0])


def write_task(folder: Path, rows: int = 120) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", rows), ("dev", 40)):
        lines = ["sentence\tlabel"]
        for _ in range(count):
            label = int(rng.integers(2))
            word = (BAD, GOOD)[label][rng.integers(4)]
            lines.append(f"the {'film plot cast'.split()[rng.integers(3)]} is {word}\t{label}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def write_teacher(folder: Path, layers: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"the film plot cast is".split(), *GOOD, *BAD]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    params = initial_parameters(network_shapes(config), np.random.default_rng(1), 0.1)
    save_tensors(folder / "model.safetensors", params, {})
    write_json(folder / "config.json", config.to_dict())
    return folder


RECIPE = Recipe(
    task="sst2",
    encoders=1,
    max_length=16,
    batch_size=8,
    epochs_teacher=10,
    epochs_general=2,
    epochs_internal=6,
    epochs_prediction=6,
    lr_teacher=3e-3,
    lr_general=3e-3,
    lr_internal=3e-3,
    lr_prediction=3e-3,
)


def test_a_small_student_learns_the_task_and_its_folder_says_everything(tmp_path):
    data, teacher = write_task(tmp_path / "SST-2"), write_teacher(tmp_path / "bert")
    distill(RECIPE, data, teacher, tmp_path / "run")
    results = evaluate_run(tmp_path / "run", tmp_path, [8, 64])  # the folder above the task's will do as well
    assert results["teacher_accuracy"] == 1.0
    assert results["rate_accuracy"] >= 0.9
    assert results["spikes"][-1]["accuracy"] >= 0.8
    assert 0 < results["spikes"][-1]["firing_rate"] < 1
    assert json.loads((tmp_path / "run" / "results-inst.json").read_text()) == json.loads(json.dumps(results))
    assert f"{100 * results['rate_accuracy']:.1f}" in results_table(results)
    config, params = load_student(tmp_path / "run")
    assert config.bert.num_hidden_layers == 1
    assert set(params) == set(config.shapes)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["settings"]["recipe"]["seed"] == 0
    assert {"refsnn", "numpy", "scipy", "python"} <= set(record["versions"])
    stages = [json.loads(line)["stage"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(stages)) == ["teacher", "general", "internal", "prediction"]


@pytest.mark.parametrize("mode", ["quantised", "released", "simulated", "few-steps"])
def test_other_forward_values_and_true_labels(tmp_path, mode):
    data, teacher = write_task(tmp_path / "data", rows=24), write_teacher(tmp_path / "bert")
    recipe = replace(RECIPE, mode=mode, t_conv=8, targets="true", u0=0.5, epochs_internal=1, epochs_prediction=1)
    distill(recipe, data, teacher, tmp_path / "run")
    config, _ = load_student(tmp_path / "run")
    assert config.neuron.u0 == 0.5


@pytest.mark.parametrize("polarity", ["retractable", "ternary"])
def test_a_student_of_few_steps_leaves_its_embeddings_and_scales_alone_and_is_evaluated(tmp_path, polarity):
    data, teacher = write_task(tmp_path / "SST-2"), write_teacher(tmp_path / "bert")
    recipe = replace(RECIPE, encoders=2, init="converted", polarity=polarity, per_feature=True, u0=0.0, t_conv=6,
                     rule="running", epochs_general=0, epochs_internal=0, epochs_prediction=0, lr_internal=1e-4,
                     schedule_internal="linear", attention_weight=0.0, mode="few-steps")  # fmt: skip
    distill(recipe, data, teacher, tmp_path / "start")
    distill(replace(recipe, epochs_internal=1), data, teacher, tmp_path / "run")
    (config, start), (again, found) = (load_student(tmp_path / name) for name in ("start", "run"))
    assert config == again and config.per_feature and config.neuron.polarity == polarity
    assert json.loads((tmp_path / "run" / "config.json").read_text())["polarity"] == polarity
    still = {name for name, value in found.items() if np.array_equal(value, start[name])}
    tables = {f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")}
    assert still == tables | {"fit.weight", "fit.bias"} | {name for name in found if name.endswith("threshold")}
    losses = [entry for entry in json_lines(tmp_path / "run" / "log.jsonl") if entry["stage"] == "internal"]
    assert {"hidden", "attention", "prediction"} <= losses[0].keys()
    results = evaluate_run(tmp_path / "run", tmp_path, [4, 8], "running")
    assert results["rate_accuracy"] >= 0.8 and all(0 < row["firing_rate"] < 1 for row in results["spikes"])
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["recipe"]
    assert settings["polarity"] == polarity and settings["per_feature"]
    distill(replace(recipe, epochs_internal=1), data, teacher, tmp_path / "run")  # finished: it is the same run


def test_a_recipe_says_how_much_a_conversion_clips(tmp_path):
    """Thresholds after GELU are the activities that so many exceed: the more of them, the lower."""
    data, teacher = write_task(tmp_path / "SST-2"), write_teacher(tmp_path / "bert")
    recipe = replace(RECIPE, encoders=2, init="converted", epochs_general=0, epochs_internal=0, epochs_prediction=0)
    thresholds = []
    for clipped in (0.0, 0.01, 0.2):
        distill(replace(recipe, clipped=clipped), data, teacher, tmp_path / str(clipped))
        config, _ = load_student(tmp_path / str(clipped))
        thresholds.append(config.populations["encoder.1.intermediate"]["vth"])
    assert thresholds[0] > thresholds[1] > thresholds[2] > 0


def test_training_goes_on_with_the_thresholds_that_it_began_with(tmp_path, monkeypatch):
    """Whatever a conversion would choose by now; an older version's run, which does not say them, is refused."""
    data, teacher = write_task(tmp_path / "SST-2"), write_teacher(tmp_path / "bert")
    recipe = replace(RECIPE, encoders=2, init="converted", epochs_general=0, epochs_internal=1, epochs_prediction=1)
    distill(recipe, data, teacher, tmp_path / "whole")
    wanted = load_student(tmp_path / "whole")[0]
    run = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole", run)
    for name in ("stages/prediction.safetensors", "config.json", "model.safetensors"):
        (run / name).unlink()
    found = []

    def other(*args):
        student, params = initial_student(*args)
        found.append(replace(student, populations={name: {"vth": 9.0, "u0": 0.0} for name in student.populations}))
        return found[-1], params

    monkeypatch.setattr("refsnn.distillation.stages.initial_student", other)
    distill(recipe, data, teacher, run)
    assert found[0] != wanted == load_student(run)[0]
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    kept = run / "stages" / "constants.json"
    for contents, said in (("{}", "populations is missing"), ('{"populations": {"x": {}}}', "no such population")):
        kept.write_text(contents)
        with pytest.raises(InputError, match=said):
            distill(recipe, data, teacher, run)
    kept.unlink()
    before = (run / "config.json").read_bytes()
    with pytest.raises(InputError, match=r"an older version began to train.*constants.json is missing"):
        distill(recipe, data, teacher, run)
    assert (run / "config.json").read_bytes() == before


@pytest.mark.parametrize("targets", ["true", "soft"])
def test_few_steps_are_compared_after_half_and_after_all_of_them(targets):
    student = StudentConfig(SMALL, SMALL.hidden_size, 2, Neuron(polarity="ternary"), per_feature=True)
    rng = np.random.default_rng(0)
    params = {n: rng.normal(0, 0.5, s) if len(s) > 1 else rng.uniform(0.5, 1, s) for n, s in student.shapes.items()}
    batch, rows = random_batch(SMALL, 0), np.arange(2)
    teacher = {n: rng.normal(0, 0.3, s) for n, s in teacher_shapes(SMALL, 2).items()}
    recipe = Recipe("sst2", 2, mode="few-steps", t_conv=6, rule="running", targets=targets, attention_weight=0.0,
                    polarity="ternary", per_feature=True, temperature=2.0)  # fmt: skip
    labels, soft = np.array([0, 1]), classify(SMALL, teacher, batch)[0]

    def answers(z):
        if targets == "true":
            return true_loss(z, labels)
        value, pullback = ops.soft_cross_entropy(z, soft, 2.0)
        return value, lambda dvalue: pullback(dvalue)[0]

    objective = _few_steps_objective(recipe, student, SMALL, teacher, [0, 1, 2], SimpleNamespace(labels=labels))
    losses, gradients, _ = objective(params, batch, rows)
    target, parts = encode(SMALL, teacher, batch), []
    for t in (3, 6):
        rates = simulate(student.network, params, batch, t, "running")[t]
        scheme = Scheme("simulated")
        hidden = internal_gradients(student.network, params, batch, target.hidden, target.scores, rates, scheme, 0.0)
        answer = prediction_gradients(student.network, params, batch, answers, rates, scheme)
        parts.append((hidden, answer))
    assert losses["hidden"] == pytest.approx(np.mean([hidden[0]["hidden"] for hidden, _ in parts]))
    assert losses["prediction"] == pytest.approx(np.mean([answer[0]["prediction"] for _, answer in parts]))
    for name, gradient in gradients.items():
        wanted = sum(part[1].get(name, 0) for pair in parts for part in pair) / 2
        np.testing.assert_allclose(gradient, wanted, rtol=1e-9, atol=1e-12, err_msg=name)
    assert not any(name.endswith(FROZEN) for name in gradients)


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_the_learning_rate_of_the_internal_stage_follows_its_schedule(tmp_path, schedule):
    data, teacher = write_task(tmp_path / "data", rows=24), write_teacher(tmp_path / "bert")
    recipe = replace(RECIPE, schedule_internal=schedule, epochs_teacher=1, epochs_general=0, epochs_prediction=0)
    distill(recipe, data, teacher, tmp_path / "run")
    log = json_lines(tmp_path / "run" / "log.jsonl")
    rates = [entry["lr"] / recipe.lr_internal for entry in log if entry["stage"] == "internal"]
    steps = len(rates)
    wanted = [1.0] * steps if schedule == "constant" else [linear_warmup(step / steps) for step in range(steps)]
    assert rates == pytest.approx(wanted)


def test_quantised_training_takes_values_and_gradient_at_the_quantised_rates():
    student = StudentConfig(SMALL, SMALL.hidden_size, 2, Neuron(u0=0.5))
    network, rng = student.network, np.random.default_rng(0)
    params = {name: rng.normal(0, 0.5, shape) for name, shape in student.shapes.items()}
    batch = random_batch(SMALL, 0)
    recipe = Recipe("sst2", 2, mode="quantised", t_conv=8, u0=0.5)
    tokens, layers = batch.input_ids.shape, SMALL.num_hidden_layers
    hidden = [rng.normal(size=(*tokens, SMALL.hidden_size)) for _ in range(layers + 1)]
    scores = [rng.normal(size=(tokens[0], SMALL.num_attention_heads, *2 * tokens[1:])) for _ in range(layers)]
    rates = sweep(network, params, batch, t_conv=8)[0]
    for name in network.readouts:
        np.testing.assert_allclose(8 * rates[name], np.rint(8 * rates[name]), atol=1e-12)
    ours = internal_gradients(network, params, batch, hidden, scores, scheme=_scheme(recipe))
    theirs = internal_gradients(network, params, batch, hidden, scores, rates, Scheme("simulated"))
    plain = internal_gradients(network, params, batch, hidden, scores)
    assert ours[0] == theirs[0] != plain[0]
    for name, gradient in theirs[1].items():
        np.testing.assert_allclose(ours[1][name], gradient, rtol=1e-12, atol=1e-14, err_msg=name)
    own = replace(student, populations={"encoder.0.intermediate": {"u0": 0.0}})
    assert _trained(recipe, own) == network != own.network == _trained(replace(recipe, mode="simulated"), own)
    with pytest.raises(InputError, match=r"`leak` is 0\.9"):
        Recipe("sst2", 2, mode="quantised", leak=0.9)


def test_a_run_with_other_settings_is_not_overwritten(tmp_path):
    data, teacher = write_task(tmp_path / "data", rows=16), write_teacher(tmp_path / "bert")
    short = replace(RECIPE, epochs_teacher=1, epochs_general=0, epochs_internal=1, epochs_prediction=1)
    distill(short, data, teacher, tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"seed was 0 and is 1"):
        distill(replace(short, seed=1), data, teacher, tmp_path / "run")
    distill(short, data, teacher, tmp_path / "run")  # finished: nothing to do
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_killed_and_started_again_the_command_ends_with_the_same_bytes(tmp_path):
    data, teacher = write_task(tmp_path / "data", rows=64), write_teacher(tmp_path / "bert")

    def start(out: str) -> subprocess.Popen:
        words = (
            "-m refsnn distill --task sst2 --encoders 2 --max-length 16 --batch-size 4 --epochs-teacher 3 "
            "--init converted --dropout-teacher 0.1 --dropout-student 0.1 "
            f"--save-every 0 --data {data} --teacher {teacher} --out {tmp_path / out}"
        )
        return subprocess.Popen([sys.executable, *words.split()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start("whole").wait() == 0
    # Kill at the start of the teacher, somewhere in the general stage, and in the last.
    for stage in ("teacher", "general", "prediction"):
        process = start("killed")
        target = tmp_path / "killed" / "stages" / f"{stage}.safetensors"
        while not target.exists() and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert start("killed").wait() == 0
    for name in ("model.safetensors", "config.json", "teacher/model.safetensors", "log.jsonl", "vocab.txt"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list((tmp_path / "killed").rglob("*.part")), "temporary files are left behind"


def test_a_student_of_another_width_learns_under_dropout_and_is_evaluated(tmp_path):
    data, teacher = write_task(tmp_path / "data", rows=64), write_teacher(tmp_path / "bert")
    short = replace(RECIPE, epochs_general=0, init="random", hidden_size=12, intermediate_size=20)
    for name, dropout in (("without", 0.0), ("with", 0.2)):
        distill(replace(short, dropout_student=dropout), data, teacher, tmp_path / name)
    (config, params), (_, dropped) = (load_student(tmp_path / name) for name in ("without", "with"))
    assert (config.bert.hidden_size, config.bert.intermediate_size, config.teacher_width) == (12, 20, 16)
    assert params["fit.weight"].shape == (16, 12)
    assert params.keys() == dropped.keys()
    assert np.abs(params["fit.weight"] - dropped["fit.weight"]).max() > 1e-5
    assert evaluate_run(tmp_path / "with", data, [4])["examples"] > 0
    with pytest.raises(InputError, match=r"hidden_size 12 and the teacher 16.*init = random"):
        distill(replace(short, init="teacher"), data, teacher, tmp_path / "other")


def test_layers_that_do_not_divide_are_refused_with_what_would():
    assert layer_pairs(4, 12) == [0, 3, 6, 9, 12]
    with pytest.raises(InputError, match=r"must divide.*\[1, 2, 3, 6\]"):
        layer_pairs(4, 6)


def test_a_student_with_feedback_and_its_solvers(tmp_path, capsys):
    from refsnn.commands.cli import main

    data, teacher = write_task(tmp_path / "data", rows=40), write_teacher(tmp_path / "bert")
    short = replace(RECIPE, epochs_general=0, epochs_internal=2, epochs_prediction=2, feedback=0.1)
    distill(short, data, teacher, tmp_path / "run")
    _, params = load_student(tmp_path / "run")
    assert 0 < np.linalg.norm(params["feedback.weight"], 2) <= 0.1 * (1 + 1e-5)
    entry = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert entry["sweeps"] >= 1 and entry["products"] >= 1 and entry["residual"] < 1e-4
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(data), "--rule", "running", "--t-conv", "8"]) == 0
    assert (tmp_path / "run" / "report.html").exists()
    results = json.loads((tmp_path / "run" / "results-running.json").read_text())
    assert results["rule"] == "running" and 0 <= results["rate_accuracy"] <= 1
    solved = results["equilibrium"]
    assert 0 < solved["residual"] <= 1e-5 and solved["sweeps"] >= 2
    said = f"rate map: residual up to {solved['residual']:.1e}, {solved['sweeps']:.1f} sweeps on average\n"
    assert said in capsys.readouterr().out
    assert main(["solvers", str(tmp_path / "run"), "--data", str(data)]) == 0
    out = capsys.readouterr().out
    for method in ("gmres", "lgmres", "gcrotmk", "bicgstab", "tfqmr", "neumann", "one-step", "dense", "unrolled"):
        assert method in out
    assert (tmp_path / "run" / "solvers.svg").stat().st_size > 1000

    distill(replace(short, feedback=0.0), data, teacher, tmp_path / "plain")
    assert main(["solvers", str(tmp_path / "plain"), "--data", str(data)]) == 2
    assert "no feedback" in capsys.readouterr().err
    results = evaluate_run(tmp_path / "plain", data, [2])
    assert results["equilibrium"] is None and "sweeps" not in results_table(results)


def test_rates_are_solved_as_well_as_is_said(examples):
    """Residuals computed anew at the rates found, sweeps counted, of every batch by itself."""
    config = StudentConfig(SMALL, 7, 3, feedback=True)
    params = random_parameters(SMALL, 5, True, extra={"classifier.weight": (3, 12), "classifier.bias": (3,)})
    params["feedback.weight"] *= 0.2
    z, solved = solve_rates(config, params, examples, tokens=40)
    residuals, sweeps, (last,) = [], [], config.network.fed_back
    for rows in length_batches(examples.lengths, len(examples), tokens=40):
        batch = examples.batch(rows)
        found = equilibrium(config.network, params, batch)
        at = found.solution.state[last]
        again = sweep(config.network, params, batch, {last: at})[0][last]
        residuals += [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(at, again, strict=True)]
        sweeps += [found.solution.evaluations] * len(rows)
        np.testing.assert_array_equal(z[rows], logits(params, found.rates[last])[0])
    assert len(set(sweeps)) > 1 and min(residuals) < max(residuals)
    assert solved == {
        "residual": pytest.approx(max(residuals), rel=1e-6, abs=0),
        "sweeps": pytest.approx(np.mean(sweeps)),
    }
    np.testing.assert_array_equal(predict_rates(config, params, examples, tokens=40), z)


def test_predictions_do_not_depend_on_the_number_of_cores(examples, monkeypatch):
    config = StudentConfig(SMALL, 7, 3)
    params = random_parameters(SMALL, 5, extra={"classifier.weight": (3, 12), "classifier.bias": (3,)})
    params = {name: value.astype(np.float32) for name, value in params.items()}
    found = []
    for count in (1, 3):
        monkeypatch.setattr("refsnn.distillation.predict.threads", lambda count=count: count)
        spikes = predict_spikes(config, params, examples, [3, 9], tokens=40)
        found.append((spikes, predict_rates(config, params, examples, tokens=40)))
    np.testing.assert_array_equal(found[0][1], found[1][1])
    for t in (3, 9):
        np.testing.assert_array_equal(found[0][0][t].logits, found[1][0][t].logits)
        assert found[0][0][t].firing_rates == found[1][0][t].firing_rates


@pytest.mark.parametrize("polarity", ["unsigned", "retractable", "ternary"])
def test_firing_rates_are_those_of_the_spikes_of_real_tokens(examples, polarity):
    """A spike of −1 counts like any other, and class scores are read of the net rates."""
    config = StudentConfig(SMALL, 7, 3, Neuron(polarity=polarity))
    params = random_parameters(SMALL, 5, extra={"classifier.weight": (3, 12), "classifier.bias": (3,)})
    found = predict_spikes(config, params, examples, [4, 7], "running", tokens=40)
    batch = examples.batch(np.arange(len(examples)))
    real = batch.attention_mask.astype(bool)
    trains = record(config.network, params, batch, 7, "running")
    for t, rates in simulate(config.network, params, batch, [4, 7], "running").items():
        wanted = {name: np.abs(train[:t, real].astype(float)).mean() for name, train in trains.items()}
        assert found[t].firing_rates == pytest.approx(wanted, rel=1e-12)
        z = logits(params, rates["encoder.1.output"], polarity != "ternary")[0]
        np.testing.assert_allclose(found[t].logits, z, rtol=1e-12)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_each_item_is_taken_once_and_none_is_begun_after_an_error(workers):
    seen = []

    def square(item):
        seen.append(item)
        if item == 30:
            raise InputError("thirty")
        time.sleep(0.001)
        return item * item

    assert each(square, range(20), workers) == [item * item for item in range(20)]
    assert sorted(seen) == list(range(20))
    seen.clear()
    with pytest.raises(InputError, match="thirty"):
        each(square, range(30, 200), workers)
    assert len(seen) < 2 * workers + 2


def test_an_error_in_one_thread_stops_the_others():
    seen = []

    def fail_in_other_threads_than_the_first(item):
        seen.append(threading.get_ident())
        time.sleep(0.005)
        if threading.get_ident() != seen[0]:
            raise InputError("not the first")

    with pytest.raises(InputError, match="not the first"):
        each(fail_in_other_threads_than_the_first, range(100), 2)
    assert len(seen) < 20


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals are not sent to threads here")
@pytest.mark.parametrize("workers", [2, 3])
def test_ctrl_c_ends_what_threads_do_with_the_items_begun(workers):
    """It comes to the main thread, which waits for the others: what they have not begun is not begun any more."""
    seen = []

    def interrupt(item):
        seen.append(item)
        if item == 5:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.02)

    with pytest.raises(KeyboardInterrupt):
        each(interrupt, range(200), workers)
    assert 5 in seen and len(seen) < 100
    assert each(abs, [-1, 2, -3], workers) == [1, 2, 3]


WORDS = "embeddings.word_embeddings.weight"


@pytest.mark.parametrize("share", [8, 256])  # eight shares and two, where there are so many sequences
@pytest.mark.parametrize("size", [1, 5, 11, 16])
@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("stage", ["internal", "prediction"])
def test_shares_of_a_batch_add_up_to_the_whole(size, feedback, stage, share, monkeypatch):
    """Loss, gradient and statistics; with one thread, two and five, bit for bit."""
    monkeypatch.setattr("refsnn.distillation.training.SHARE", share)
    heads = {"fit.weight": (7, 12), "fit.bias": (7,), "classifier.weight": (3, 12), "classifier.bias": (3,)}
    params, batch = random_parameters(SMALL, 5, feedback, extra=heads), random_batch(SMALL, 6, size)
    if feedback:
        params["feedback.weight"] *= 0.1
    network, rng, n = spiking_bert(SMALL, feedback=feedback), np.random.default_rng(0), batch.input_ids.shape[1]
    hidden, scores = rng.normal(size=(3, size, n, 7)), rng.normal(size=(2, size, 3, n, n))
    labels = rng.integers(0, 3, size)

    def objective(params, batch, rows):
        if stage == "internal":
            return internal_gradients(network, params, batch, hidden[:, rows], scores[:, rows])
        return prediction_gradients(network, params, batch, lambda z: ops.cross_entropy(z, labels[rows]))

    losses, gradients, _ = objective(params, batch, np.arange(size))
    found = {}
    for threads in ("1", "2", "5"):
        monkeypatch.setattr("refsnn.distillation.training.threads", lambda count=int(threads): count)
        found[threads] = in_shares(objective)(params, batch, np.arange(size))
        assert isinstance(kept(found[threads][1])[WORDS], ops.Rows)  # nobody has made a table of it
    for several in (found["2"], found["5"]):
        assert found["1"][0] == several[0]
        assert all(np.array_equal(several[1][name], value) for name, value in found["1"][1].items())
    assert all(np.isclose(found["1"][0][name], value, rtol=1e-12) for name, value in losses.items())
    assert gradients.keys() == found["1"][1].keys()
    scale = max(np.abs(g).max() for g in gradients.values())
    for name, value in gradients.items():
        np.testing.assert_allclose(found["1"][1][name], value, rtol=1e-9, atol=1e-11 * scale, err_msg=name)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_kept_as_rows_train_as_tables_do_bit_for_bit(dtype, threads, monkeypatch):
    """Two programs of the same training step, one of which adds up whole tables: clipped, decayed, several steps."""
    monkeypatch.setattr("refsnn.distillation.training.SHARE", 8)
    monkeypatch.setattr("refsnn.distillation.training.threads", lambda: threads)
    params = random_parameters(SMALL, 5, extra={"classifier.weight": (3, 12), "classifier.bias": (3,)})
    params = {name: value.astype(dtype) for name, value in params.items()}
    network, labels = spiking_bert(SMALL), np.random.default_rng(0).integers(0, 3, 11)

    def objective(params, batch, rows):
        return prediction_gradients(network, params, batch, lambda z: ops.cross_entropy(z, labels[rows]))

    def tables(*inputs):
        losses, gradients, statistics = objective(*inputs)
        return losses, dict(gradients), statistics

    optimiser, results = BertAdam(max_norm=0.01), []
    for step in (in_shares(objective), in_shares(tables)):
        own = {name: value.copy() for name, value in params.items()}
        moments = optimiser.initial(own)
        for number in range(3):
            _, gradients, _ = step(own, random_batch(SMALL, number, 11), np.arange(11))
            assert isinstance(kept(gradients)[WORDS], ops.Rows if not results else np.ndarray)
            assert np.linalg.norm(gradients[WORDS]) > optimiser.max_norm
            optimiser.step(own, gradients, moments, 1e-2)
        results.append((own, moments))
    for ours, theirs in zip(*results, strict=True):
        assert all(np.array_equal(ours[name], value) and ours[name].dtype == dtype for name, value in theirs.items())
    pad = SMALL.pad_token_id
    assert not results[0][1][f"m/{WORDS}"][pad].any() and (results[0][1][f"m/{WORDS}"].any(axis=1)).sum() > 3


@pytest.mark.parametrize("steps", [1, 12])
def test_an_update_that_overflows_ends_the_stage_by_name(tmp_path, steps):
    run, stage = Run(tmp_path), Stage("internal", 1, 8, 1e30, "constant")
    examples = tokenless(8 * steps)
    huge = np.array([np.float32(3e38)])

    def objective(params, batch, rows):
        return {"loss": 1.0}, {"w": np.full(1, -1.0, np.float32)}, {}  # the loss stays finite, the parameter does not

    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(InputError, match="parameter w of stage internal"):
        train(run, stage, {"w": huge}, examples, objective, [0, 1])
    assert not run.stage_checkpoint("internal").exists()


def tokenless(count):
    """Examples that an objective does not look at."""
    starts = np.arange(count + 1) * 2
    return Examples(np.ones(2 * count, int), np.zeros(2 * count, int), starts, np.zeros(count, int))


def test_a_schedule_of_one_step_trains(tmp_path):
    def objective(params, batch, rows):
        return {"loss": 1.0}, {"w": np.ones(1, np.float32)}, {}

    start = {"w": np.ones(1, np.float32)}
    after = train(Run(tmp_path), Stage("internal", 1, 8, 0.1), start, tokenless(8), objective, [0, 1])
    assert after["w"] < 1 and Run(tmp_path).log()["internal"][0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        ({"w": np.ones(1, np.float32)}, {}, "stage in .metadata. is missing"),
        ({"w": np.ones(31, np.float32)}, {"stage": "internal", "step": 1, "done": True}, r"w has shape \(31,\)"),
        (
            {"v": np.ones(1, np.float32)},
            {"stage": "internal", "step": 1, "done": True},
            "holds v, which the stage does",
        ),
        ({}, {"stage": "internal", "step": 1, "done": True}, "lacks the parameter w"),
        ({"w": np.full(1, np.nan, np.float32)}, {"stage": "internal", "step": 1, "done": True}, "w holds NaN"),
        ({"w": np.ones(1, int)}, {"stage": "internal", "step": 1, "done": True}, "w is of type int64"),
        ({"w": np.ones(1, np.float32)}, {"stage": "internal", "step": 1, "done": False}, "lacks the parameter m/w"),
        ({"w": np.ones(1, np.float32)}, {"stage": "teacher", "step": 1, "done": True}, "checkpoint of stage teacher"),
        (
            {name: np.ones(1, np.float32) for name in ("w", "m/w", "v/w")},
            {"stage": "internal", "step": 9, "done": False},
            "is at step 9, but the stage has 1",
        ),
    ],
)
def test_a_damaged_checkpoint_of_a_stage_is_refused(tmp_path, tensors, metadata, said):
    run = Run(tmp_path)
    run.stage_checkpoint("internal").parent.mkdir()
    save_tensors(run.stage_checkpoint("internal"), tensors, metadata)

    def objective(params, batch, rows):
        return {"loss": 1.0}, {"w": np.ones(1, np.float32)}, {}

    with pytest.raises(InputError, match=said):
        train(run, Stage("internal", 1, 8, 0.1), {"w": np.ones(1, np.float32)}, tokenless(8), objective, [0, 1])
