"""Values and errors of the front door survive pickling and copying: a pool of processes may take and return them."""

import copy
import dataclasses
import importlib
import pickle
import pkgutil
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from conftest import SMALL, SMALL_GPT

import refsnn
from refsnn.readings.adjoint import Solve
from refsnn.readings.equilibrium import Search, equilibrium
from refsnn.readings.implicit import adjoint
from refsnn.readings.solution import Solution
from refsnn.storage.run import Run

STUDENT = refsnn.StudentConfig(SMALL, 8, 2, refsnn.Neuron(0.7, 0.9, 0.5), True, {"embeddings": {"u0": 0.0}})
BATCH = refsnn.Batch.of([[3, 14, 15], [9]])


def _student():
    return refsnn.Student.random(STUDENT)


def _teacher():
    from refsnn.model.shapes import teacher_shapes

    params = refsnn.initial_parameters(teacher_shapes(SMALL, 2), np.random.default_rng(0))
    return refsnn.Teacher(SMALL, params, ("no", "yes"))


def _not_converged():
    return refsnn.NotConverged(
        "it was not reached", Solution({"x": np.ones((1, 2))}, np.ones(1), [1.0], 3, False, "gmres")
    )


#: Every public name that is a class or makes values -> one of its values; the others are functions and modules.
VALUES = {
    "Batch": lambda: BATCH,
    "BertConfig": lambda: SMALL,
    "DistilRecipe": lambda: refsnn.DistilRecipe(polarity="unsigned", u0=0.5),
    "GptConfig": lambda: SMALL_GPT,
    "InputError": lambda: refsnn.InputError("one sentence"),
    "Network": lambda: refsnn.spiking_bert(SMALL, feedback=True),
    "Neuron": lambda: refsnn.Neuron(0.7, 0.9, 0.5, 0.0),
    "NotConverged": _not_converged,
    "Recipe": lambda: refsnn.Recipe("mine", 2, own=refsnn.Task.own("mine", ["no", "yes"], False)),
    "Run": lambda: Run("runs/sst2"),
    "SpikingGptConfig": lambda: refsnn.SpikingGptConfig(SMALL_GPT, refsnn.Neuron(polarity="ternary")),
    "Student": _student,
    "StudentConfig": lambda: STUDENT,
    "Task": lambda: refsnn.Task.own("mine", ["no", "yes"], True),
    "Teacher": _teacher,
    "TrainRecipe": lambda: refsnn.TrainRecipe(seed=3, n_embd=12),
    "bert": lambda: refsnn.bert(SMALL),
    "certify": lambda: refsnn.certify(*_spiking(), refsnn.record(*_spiking(), 3)),
    "count": lambda: refsnn.count(_spiking()[0], {p.name: 0.5 for p in _spiking()[0].populations}, 8, 5.0),
    "gpt": lambda: refsnn.gpt(SMALL_GPT),
    "initial_parameters": lambda: _spiking()[1],
    "network_shapes": lambda: refsnn.network_shapes(SMALL),
    "record": lambda: refsnn.record(*_spiking(), 3),
    "simulate": lambda: refsnn.simulate(*_spiking(), 3),
    "spiking_bert": lambda: refsnn.spiking_bert(SMALL),
    "spiking_gpt": lambda: refsnn.spiking_gpt(SMALL_GPT),
}
#: What gives functions (a pullback), writes folders or draws; what they return of values is above.
OTHERS = {
    "__version__",
    "demo",
    "distil_gpt",
    "distill",
    "equilibrium",
    "evaluate",
    "evaluate_gpt",
    "full_count",
    "generate",
    "gradient",
    "load",
    "neurons",
    "plot",
    "rate_map",
    "train_gpt",
    "write_text",
}


def _spiking():
    student = _student()
    return student.network, student.params, BATCH


def same(one, other) -> bool:
    """Whether two values are of one type and equal, arrays to the bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, BaseException):
        return one.args == other.args and same(vars(one), vars(other))
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    return one == other or same(vars(one), vars(other))


#: What is written while something is counted, or generated.
OPEN = {
    "refsnn.conformance.judge.Exemption",
    "refsnn.evaluation.generate.Written",
    "refsnn.readings.certify.Verdict",
}


def test_dataclasses_are_frozen_but_for_what_counts():
    """Configuration above all: whoever holds one may share it."""
    found = {}
    for module in pkgutil.walk_packages(refsnn.__path__, "refsnn."):
        if not re.search(r"\.(__main__|conftest|test_\w+)$", module.name):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and value.__module__ == module.name and dataclasses.is_dataclass(value):
                    found[f"{module.name}.{value.__qualname__}"] = value
    assert len(found) > 50 and {type(VALUES[name]()) for name in ("Neuron", "Recipe", "Task")} <= set(found.values())
    for name, kind in found.items():
        empty, fields = object.__new__(kind), dataclasses.fields(kind)
        if name in OPEN:
            setattr(empty, fields[0].name, 1)
        else:
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(empty, fields[0].name if fields else "anything", 1)
                pytest.fail(f"{name} is not frozen")


def test_every_public_name_is_looked_at():
    assert set(VALUES) | OTHERS == set(refsnn.__all__) and not set(VALUES) & OTHERS


@pytest.mark.parametrize("name", VALUES)
def test_values_survive_pickling_and_copying(name):
    value = VALUES[name]()
    assert not same(value, object())
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert same(pickle.loads(pickle.dumps(value, protocol)), value), protocol
    for again in (copy.copy(value), copy.deepcopy(value)):
        assert same(again, value)
        if hasattr(value, "__hash__") and value.__hash__ and isinstance(value, refsnn.Neuron | refsnn.BertConfig):
            assert hash(again) == hash(value) and again == value


@pytest.mark.parametrize("name", sorted(set(refsnn.__all__) - {"__version__", "neurons", "plot"}))
def test_names_are_pickled_by_name(name):
    found = getattr(refsnn, name)
    assert pickle.loads(pickle.dumps(found)) is found


def test_reports_of_solvers_survive():
    network, params, batch = _spiking()
    found = equilibrium(network, params | {"feedback.weight": 0.05 * np.eye(12)}, batch)
    g = {network.readouts[-1]: np.ones_like(found.rates[network.readouts[-1]])}
    for value in (found.solution, adjoint(found.linearisation, g)[2], found.rates, Search(), Solve("bicgstab")):
        for again in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
            assert same(again, value)


def fail(sentence: str):
    raise refsnn.NotConverged(sentence, _not_converged().solution)


def test_a_pool_of_processes_brings_an_error_back_whole():
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        error = pool.submit(fail, "beyond reach").exception(timeout=120)
    assert type(error) is refsnn.NotConverged and str(error) == "beyond reach"
    assert same(error.solution, _not_converged().solution)
