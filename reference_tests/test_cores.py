"""Many cores: processes that share parameters give the numbers of one thread, to the bit, whatever their number."""

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import SMALL, random_batch, random_parameters

from refsnn import shared, workers
from refsnn.data.examples import Examples
from refsnn.distillation import predict
from refsnn.errors import InputError
from refsnn.model.dropout import dropout_masks
from refsnn.model.families import spiking_bert
from refsnn.model.neurons import Neuron
from refsnn.model.parameters import products_per_token
from refsnn.model.shapes import head_shapes, teacher_shapes
from refsnn.model.student import StudentConfig
from refsnn.readings import simulate as module
from refsnn.readings.simulate import rates_and_firing, simulate

pytestmark = pytest.mark.skipif(not shared.possible(), reason="only Linux has memory of this kind")


@pytest.fixture
def calls(monkeypatch):
    """Let any work be worth processes, and count what they are asked."""
    monkeypatch.setattr(workers, "WORTH", 0.0)
    found, call = [], workers._Process.call

    def counted(self, content):
        function = pickle.loads(content)[0]
        found.extend([self.popen.pid] if function is not shared.forget else [])
        return call(self, content)

    monkeypatch.setattr(workers._Process, "call", counted)
    return found


def same(one, other):
    assert one.keys() == other.keys()
    for t in one:
        assert one[t].keys() == other[t].keys()
        for name, value in one[t].items():
            found = other[t][name]
            assert found.dtype == value.dtype and found.shape == value.shape and found.tobytes() == value.tobytes()
            assert found.flags.writeable


@pytest.mark.parametrize("rule", ["inst", "running"])
@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rates_do_not_depend_on_the_number_of_processes(rule, feedback, dtype, calls, monkeypatch):
    monkeypatch.setattr(module, "SHARE", 4)  # many shares of a small batch
    network = spiking_bert(SMALL, feedback=feedback)
    params = {name: p.astype(dtype) for name, p in random_parameters(SMALL, 1, feedback).items()}
    batch = random_batch(SMALL, 2, 7)
    options = {"keep": ["encoder.1.output", "embeddings"], "leak": 0.9, "rule": rule}
    expected = simulate(network, params, batch, [3, 8], **options)
    assert simulate(network, params, batch, [3, 8], **options, threads=2) and not calls, "two threads are threads"
    for count in (3, 5, 50):
        del calls[:]
        same(expected, simulate(network, params, batch, [3, 8], **options, threads=count))
        assert len(calls) == 7 and 1 < len(set(calls)) <= min(count, 7)
    same(simulate(network, params, batch, 5), simulate(network, params, batch, 5, threads=3))


@pytest.mark.parametrize("polarity", ["unsigned", "ternary"])
def test_firing_does_not_depend_on_the_number_of_processes(polarity, calls, monkeypatch):
    monkeypatch.setattr(module, "SHARE", 4)
    network, batch = spiking_bert(SMALL, Neuron(0.5, polarity=polarity)), random_batch(SMALL, 2, 7)
    params = random_parameters(SMALL, 1)
    options = {"keep": ["encoder.1.output"], "counted": ["encoder.0.key", "encoder.1.output"]}
    expected = rates_and_firing(network, params, batch, [3, 8], **options)
    found = rates_and_firing(network, params, batch, [3, 8], **options, threads=3)
    for which in range(2):
        same(*({t: both[which] for t, both in results.items()} for results in (expected, found)))
    assert len(calls) == 7


def test_masks_of_sequences_go_with_them(calls, monkeypatch):
    monkeypatch.setattr(module, "SHARE", 4)
    network, batch = spiking_bert(SMALL), random_batch(SMALL, 2, 7)
    masks = dropout_masks(network, batch, 0.3, np.random.default_rng(0))
    params = random_parameters(SMALL, 1) | masks
    params = {name: np.asarray(value, np.float64) for name, value in params.items()}
    same(simulate(network, params, batch, 4), simulate(network, params, batch, 4, threads=4))
    assert calls


def test_networks_of_the_main_program_are_left_to_threads(calls, monkeypatch):
    """Another process does not know their classes."""
    monkeypatch.setattr(module, "SHARE", 4)
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 1), random_batch(SMALL, 2, 7)
    expected = simulate(network, params, batch, 4)

    class Local(type(network.populations[-1].projection)):
        pass

    last = network.populations[-1]
    mine = replace(last, projection=Local(**{n: getattr(last.projection, n) for n in last.projection.__match_args__}))
    own = replace(network, populations=(*network.populations[:-1], mine))
    same(expected, simulate(own, params, batch, 4, threads=3))
    assert not calls, "it cannot even be sent"
    Local.__qualname__, Local.__module__ = "Local", "__main__"
    monkeypatch.setattr(sys.modules["__main__"], "Local", Local, raising=False)
    same(expected, simulate(own, params, batch, 4, threads=3))
    assert len(calls) == 7


def test_errors_of_processes_are_those_of_threads(calls, monkeypatch):
    monkeypatch.setattr(module, "SHARE", 4)
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 1), random_batch(SMALL, 2, 7)
    params["embeddings.LayerNorm.weight"][:] = 1e308  # overflows
    said = []
    for count in (1, 3):
        with pytest.raises(InputError) as caught:
            simulate(network, params, batch, 4, threads=count)
        said.append(str(caught.value))
    assert said[0] == said[1] and calls


def test_a_process_that_is_lost_changes_nothing(calls, monkeypatch):
    monkeypatch.setattr(module, "SHARE", 4)
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 1), random_batch(SMALL, 2, 7)
    expected = simulate(network, params, batch, 4, threads=3)
    for process in workers._idle:
        os.kill(process.popen.pid, signal.SIGKILL)
    same(expected, simulate(network, params, batch, 4, threads=3))


def held(_):
    return shared._attached.cache_info().currsize


def test_memory_is_given_back(calls):
    handles = len(os.listdir("/proc/self/fd"))
    before = len(workers._idle)
    with shared.copied({"a": np.arange(5.0), "b": np.zeros((0, 3)), "c": np.array(7)}) as kept:
        assert all(array.ctypes.data % shared.ALIGNED == 0 for array in kept.values())
        again = pickle.loads(pickle.dumps(kept))  # here as elsewhere
        assert again["a"].tolist() == [0, 1, 2, 3, 4] and again["b"].shape == (0, 3) and again["c"] == 7
        again["a"][0] = 9
        assert kept["a"][0] == 9
    shared.forget()
    assert kept["a"][0] == 9, "arrays outlive the block here"
    assert workers.each_process(held, range(6), 3) == [0] * 6
    assert len(os.listdir("/proc/self/fd")) - handles <= 2 * (len(workers._idle) - before)
    with pytest.raises(OSError):
        pickle.loads(pickle.dumps(kept))


def test_elsewhere_threads_do_it(calls, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 1), random_batch(SMALL, 2, 7)
    assert simulate(network, params, batch, 4, threads=3) and not calls


def test_small_work_is_not_worth_processes(calls, monkeypatch):
    monkeypatch.setattr(workers, "WORTH", 3e10)
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 1), random_batch(SMALL, 2, 7)
    assert simulate(network, params, batch, 4, threads=3) and not calls
    width, inner = SMALL.hidden_size, SMALL.intermediate_size
    assert products_per_token(params) == 2 * (4 * width**2 + 2 * width * inner)


STARTS = np.array([0, 4, 9, 11, 20, 26, 33, 34, 41, 50, 60])
SENTENCES = Examples(np.random.default_rng(0).integers(1, 30, 60), np.zeros(60, int), STARTS, np.zeros(10, int))


def test_class_scores_do_not_depend_on_the_number_of_processes(calls, monkeypatch):
    student = StudentConfig(replace(SMALL, max_position_embeddings=10), 12, 2)
    params = random_parameters(student.bert, 1, extra=student.shapes)
    heads = teacher_shapes(student.bert, 2) | head_shapes(student.bert, 2)
    teacher = random_parameters(student.bert, 3, extra=heads)
    expected = None
    for count in (1, 2, 3, 5):
        del calls[:]
        monkeypatch.setattr(predict, "threads", lambda count=count: count)
        found = [
            predict.predict_teacher(student.bert, teacher, SENTENCES, tokens=20),
            predict.predict_rates(student, params, SENTENCES, tokens=20),
        ]
        for rule in ("inst", "running"):
            results = predict.predict_spikes(student, params, SENTENCES, [2, 5], rule, tokens=20)
            found += [result.logits for result in results.values()]
            found += [np.array(list(result.firing_rates.values())) for result in results.values()]
        expected = found if expected is None else expected
        assert [value.tobytes() for value in found] == [value.tobytes() for value in expected]
        assert bool(calls) == (count > 2)


def test_a_forked_program_has_processes_of_its_own(calls):
    assert workers.each_process(abs, [-1] * 3, 3) == [1, 1, 1] and len(workers._idle) > 2
    pid = os.fork()
    if not pid:
        os._exit(len(workers._idle))
    assert os.waitpid(pid, 0)[1] == 0
    assert workers.each_process(abs, [-1] * 3, 3) == [1, 1, 1]


def test_a_frozen_program_is_not_started_again(monkeypatch):
    assert workers.worth_processes(3, 1e12)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert not workers.worth_processes(3, 1e12)


SCRIPT = """
import numpy as np
from refsnn import workers
workers.WORTH = 0.0
import refsnn
from conftest import SMALL, random_batch, random_parameters
refsnn.simulate(refsnn.spiking_bert(SMALL), random_parameters(SMALL, 1), random_batch(SMALL, 2, 60), 4, threads=3)
print(*(process.popen.pid for process in workers._idle))
"""


def test_a_program_needs_no_guard_and_leaves_no_process(tmp_path):
    """Its text is not run again by the processes, and they end with it."""
    (tmp_path / "script.py").write_text(SCRIPT)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, env=env, timeout=60)
    assert run.returncode == 0 and not run.stderr, run.stderr
    pids = [int(pid) for pid in run.stdout.split()]
    assert len(pids) == 3
    for pid in pids:
        for _ in range(500):
            if not os.path.exists(f"/proc/{pid}/stat"):
                break
            if open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "Z":
                break
            signal.sigtimedwait([], 0.01)
        else:
            pytest.fail("a process outlives its program")
