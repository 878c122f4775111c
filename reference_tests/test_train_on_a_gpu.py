"""The trainings that a GPU may take over have refsnn's losses, gradients and updates."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import SMALL, random_batch
from test_training import RECIPE, write_task, write_teacher

from refsnn.distillation import stages, training
from refsnn.distillation.optim import BertAdam
from refsnn.distillation.stages import distill
from refsnn.files import json_lines
from refsnn.model.neurons import Neuron
from refsnn.model.shapes import teacher_shapes
from refsnn.model.student import StudentConfig
from refsnn.storage.checkpoints import load_student, load_teacher
from refsnn.storage.recipe import Recipe
from refsnn.storage.run import Run

torch = pytest.importorskip("torch")
on_a_gpu = pytest.importorskip("train_on_a_gpu")

ROWS = np.array([2, 0])


def tensor_batch(batch):
    return {name: torch.tensor(ids) for name, ids in zip(batch._fields, batch, strict=True)}


def same(found, wanted):
    losses, gradients = found
    for name, loss in wanted[0].items():
        assert float(torch.as_tensor(losses[name]).detach()) == pytest.approx(float(loss), rel=1e-10, abs=1e-14), name
    assert gradients.keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        np.testing.assert_allclose(gradients[name].numpy(), gradient, rtol=1e-8, atol=1e-12, err_msg=name)


def drawn(shapes, scale=0.3):
    rng = np.random.default_rng(0)
    return {n: rng.normal(0, scale, s) if len(s) > 1 else rng.uniform(0.5, 1, s) for n, s in shapes.items()}


@pytest.mark.parametrize("labels", [np.array([1, 0, 1]), np.array([0.5, 2.0, 4.5])])
def test_the_teachers_loss_and_gradient(labels):
    params, batch = drawn(teacher_shapes(SMALL, 1 if labels.dtype == float else 2)), random_batch(SMALL, 0)
    objective = stages._teacher_objective(SMALL, SimpleNamespace(labels=labels))
    taught = on_a_gpu.teacher_objective(SMALL, SimpleNamespace(labels=labels))
    found = on_a_gpu.differentiated(taught, on_a_gpu.tensors(params), tensor_batch(batch), torch.tensor(ROWS))
    same(found, objective(params, batch, ROWS))


@pytest.mark.parametrize("targets", ["true", "soft"])
@pytest.mark.parametrize("weight", [0.0, 0.7])
@pytest.mark.parametrize("neuron", [Neuron(polarity="ternary"), Neuron(u0=0.5, polarity="retractable"), Neuron(u0=0.5)])
def test_the_loss_and_gradient_of_few_steps(neuron, weight, targets):
    student = StudentConfig(SMALL, SMALL.hidden_size, 2, neuron, per_feature=True)
    params, teacher = drawn(student.shapes, 0.5), drawn(teacher_shapes(SMALL, 2))
    batch, examples = random_batch(SMALL, 0), SimpleNamespace(labels=np.array([0, 1, 1]))
    recipe = Recipe("sst2", 2, mode="few-steps", t_conv=6, rule="running", targets=targets, attention_weight=weight,
                    polarity=neuron.polarity, u0=neuron.u0, per_feature=True, temperature=3.0)  # fmt: skip
    given = (recipe, student, SMALL, teacher, [0, 1, 2], examples)
    losses, gradients, _ = stages._few_steps_objective(*given)(params, batch, ROWS)
    objective = on_a_gpu.few_steps_objective(*given)
    found = on_a_gpu.differentiated(objective, on_a_gpu.tensors(params), tensor_batch(batch), torch.tensor(ROWS))
    losses = losses | {"attention": weight * losses["attention"]}  # refsnn weighs its gradient, and shows it as it is
    same(found, (losses, gradients))


def test_an_update_is_refsnns():
    rng, optimiser = np.random.default_rng(0), BertAdam()
    shapes = {"a.weight": (3, 4), "a.bias": (3,), "LayerNorm.weight": (4,), "small.weight": (2,)}
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    theirs, moments = on_a_gpu.tensors(params), optimiser.initial(params)
    state = {kind: {name: torch.zeros_like(value) for name, value in theirs.items()} for kind in "mv"}
    for scale in (3.0, 0.01):  # clipped, and not
        gradients = {name: rng.normal(size=shape) * scale for name, shape in shapes.items()}
        optimiser.step(params, gradients, moments, 0.1)
        on_a_gpu.step(theirs, on_a_gpu.tensors(gradients), state, 0.1, optimiser)
    for name, value in params.items():
        np.testing.assert_allclose(theirs[name].numpy(), value, rtol=1e-12, atol=1e-14, err_msg=name)


def test_a_whole_distillation_gives_nearly_refsnns_teacher_and_is_a_run_like_any_other(tmp_path, monkeypatch):
    data, bert = write_task(tmp_path / "SST-2", rows=24), write_teacher(tmp_path / "bert")
    recipe = replace(RECIPE, encoders=2, init="converted", polarity="ternary", per_feature=True, u0=0.0, t_conv=6,
                     rule="running", epochs_teacher=2, epochs_general=0, epochs_internal=1, epochs_prediction=0,
                     dropout_teacher=0.0, mode="few-steps")  # fmt: skip
    distill(recipe, data, bert, tmp_path / "own")
    for name, value in (
        ("train", on_a_gpu.train),
        ("_with_dropout", on_a_gpu.with_dropout),
        ("_teacher_objective", on_a_gpu.teacher_objective),
        ("_few_steps_objective", on_a_gpu.few_steps_objective),
    ):
        monkeypatch.setattr(stages, name, value)
    distill(recipe, data, bert, tmp_path / "gpu")
    (_, own), (_, found) = (load_teacher(tmp_path / name / "teacher") for name in ("own", "gpu"))
    for name, value in own.items():
        np.testing.assert_allclose(found[name], value, atol=2e-5, err_msg=name)
    first, second = (
        [line["step"] for line in json_lines(tmp_path / name / "log.jsonl") if line["stage"] == "internal"]
        for name in ("own", "gpu")
    )
    assert first == second and first
    student, params = load_student(tmp_path / "gpu")
    assert student.per_feature and all(np.isfinite(value).all() for value in params.values())
    assert training.finished(Run(tmp_path / "gpu"), recipe.stage("internal")) is not None
    distill(replace(recipe, dropout_teacher=0.0), data, bert, tmp_path / "gpu")  # finished: nothing is trained again
