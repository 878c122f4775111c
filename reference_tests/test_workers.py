"""Workers: tasks come back whole, in any order; a worker that is lost is replaced; whoever cannot work says why."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from pathlib import Path

import pytest

import refsnn.workers
from refsnn.commands.cli import main
from refsnn.errors import InputError, NotConverged
from refsnn.model.batch import Batch
from refsnn.parallel import cores
from refsnn.progress import quiet
from refsnn.workers import Workers, carried, executor

# ---------------------------------------------------------------------------------------------------------------------
# What workers are asked: functions of this module, which they import


def seen(_=None):
    print("this is no answer")
    return {"pid": os.getpid(), "cores": cores(), "folder": os.getcwd(), "quiet": quiet.get()}


def ends(how):
    """End the worker: the first time, or always."""
    if how == "always":
        os.kill(os.getpid(), signal.SIGKILL)
    path = Path(how)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def fails(kind):
    if kind == "odd":
        raise type("Odd", (Exception,), {})("cannot be sent")  # a class that nobody can import
    if kind == "needy":
        raise UnicodeDecodeError("utf-8", b"x", 0, 1, "because")
    if kind == "solver":
        raise NotConverged("not yet", {"residual": 1.0})
    raise {"input": InputError, "memory": MemoryError, "exit": SystemExit, "plain": KeyError}[kind]("said")


def described(task):
    return type(task).__name__, repr(task)


def slow(seconds):
    time.sleep(seconds)
    return os.getpid()


# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_are_those_of_the_tasks(count):
    with Workers(count) as workers:
        found = sorted(carried(workers, abs, [*range(-9, 9)]))
        assert found == [(i, abs(i - 9)) for i in range(18)]
        assert list(workers.map(divmod, [7, 9], [4, 5])) == [(1, 3), (1, 4)]
        assert workers.submit(int, "11", base=2).result() == 3


def test_a_worker_shares_the_cores_and_works_where_it_is_asked_to(tmp_path, monkeypatch):
    count = 2 * cores()
    with Workers(count) as workers:
        ((_, before),) = carried(workers, seen, [0])
        monkeypatch.chdir(tmp_path)
        found = [answer for _, answer in carried(workers, seen, range(6))]
    assert before["cores"] == 1 and before["quiet"] and before["pid"] != os.getpid()
    assert {answer["folder"] for answer in found} == {str(tmp_path)} != {before["folder"]}
    with Workers(1) as workers:
        assert workers.submit(seen).result()["cores"] == cores()


@pytest.mark.parametrize("limit", ["0", "-1", "two", "1.5"])
def test_a_limit_of_cores_that_is_none_is_named(limit, monkeypatch):
    monkeypatch.delenv("REFSNN_CORES", raising=False)
    every = cores()
    monkeypatch.setenv("REFSNN_CORES", limit)
    with pytest.raises(InputError, match=f"REFSNN_CORES is '{limit}'"):
        cores()
    monkeypatch.setenv("REFSNN_CORES", "1")
    assert cores() == 1
    monkeypatch.setenv("REFSNN_CORES", "100000")
    assert cores() == every


def test_a_worker_that_is_lost_is_replaced_and_the_others_do_not_notice(tmp_path):
    with Workers(2) as workers:
        other = workers.submit(slow, 0.5)
        assert workers.submit(ends, str(tmp_path / "once")).result() == "done"
        pid = other.result()
        assert pid in {future.result() for future in [workers.submit(slow, 0.3) for _ in range(2)]}
        with pytest.raises(InputError, match=r"3 workers in a row were lost .*by SIGKILL.*run the same command again"):
            workers.submit(ends, "always").result()
        assert workers.submit(abs, -1).result() == 1


@pytest.mark.parametrize(("kind", "raised"), [
    ("input", InputError), ("memory", MemoryError), ("exit", SystemExit), ("plain", KeyError), ("odd", RuntimeError),
    ("needy", UnicodeDecodeError), ("solver", NotConverged),
])  # fmt: skip
def test_what_a_task_raises_is_raised_here(kind, raised):
    with Workers(1) as workers:
        with pytest.raises(raised) as caught:
            list(carried(workers, fails, [kind]))
        assert workers.submit(abs, -1).result() == 1
    if kind == "plain":
        assert "in fails" in "".join(caught.value.__notes__), "where it happened is lost"
    if kind == "solver":
        assert caught.value.solution == {"residual": 1.0}


ORPHAN = """
import time
from refsnn.workers import Workers
with Workers(1) as workers:
    print(workers.submit(__import__("os").getpid).result(), flush=True)
    workers.submit(time.sleep, 60).result()
"""


def test_a_worker_ends_with_its_parent_in_the_middle_of_a_task():
    """However the parent ends: or else the same command finds its folders locked."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("only Linux says how a process of another one is")
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    path, deadline = Path(f"/proc/{int(parent.stdout.readline())}/stat"), time.monotonic() + 20
    time.sleep(0.2)
    parent.kill()
    parent.communicate()
    while path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the worker outlives its parent"
        time.sleep(0.02)


def test_workers_do_without_standard_error():
    program = "import os; os.close(2)\nfrom refsnn.workers import Workers\n"
    program += "with Workers(2) as w: print(*w.map(abs, [-1, 2]))"
    run = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    assert run.stdout == "1 2\n"


def test_an_error_gives_up_what_has_not_begun_and_ends_what_has():
    started = time.monotonic()
    with pytest.raises(InputError, match="said"), Workers(2) as workers:
        workers.submit(slow, 60)
        list(carried(workers, fails, ["input", *["plain"] * 50]))
    assert time.monotonic() - started < 30
    assert all(process.popen.poll() is not None for process in workers._all)


def test_tasks_run_on_anything_with_the_interface(tmp_path):
    with ThreadPoolExecutor(3) as threads:
        found = [answer for _, answer in carried(threads, seen, range(5))]
    assert {answer["pid"] for answer in found} == {os.getpid()} and all(answer["quiet"] for answer in found)
    assert not quiet.get()


class Broken:
    def __init__(self, error):
        self.error = error

    def submit(self, *_):
        future = Future()
        future.set_exception(self.error)
        return future


@pytest.mark.parametrize(("error", "words"), [
    (BrokenExecutor("a process died"), r"the workers were lost \(a process died\); .*run the same command again"),
    (ModuleNotFoundError("no", name="refsnn"), "a worker lacks the package refsnn"),
    (type("KilledWorker", (Exception,), {"__module__": "distributed.scheduler"})("four\nlines"),
     r"the cluster could not carry out a task \(four\); "),
])  # fmt: skip
def test_what_is_wrong_with_the_workers_is_one_sentence(error, words):
    with pytest.raises(InputError, match=words):
        list(carried(Broken(error), abs, [1]))


def test_a_worker_elsewhere_must_have_the_same_version_and_folders():
    with pytest.raises(InputError, match=r"a worker has refsnn .*, but its task comes from 0\.0"):
        refsnn.workers._carry_out("0.0", os.getcwd(), abs, 1)
    with pytest.raises(InputError, match="does not see the folder /nowhere"):
        refsnn.workers._carry_out(refsnn.__version__, "/nowhere", abs, 1)


@pytest.mark.parametrize(("asked", "words"), [
    ({"workers": 0}, "`workers` is 0"), ({"workers": 2, "cluster": "tcp://x:1"}, "give one of the two"),
])  # fmt: skip
def test_workers_that_cannot_be_are_refused(asked, words):
    with pytest.raises(InputError, match=words), executor(**asked):
        pass


def test_nothing_asked_for_is_this_process():
    with executor() as carrier:
        assert carrier is None


def test_without_dask_a_cluster_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    plan = ["reproduce", "--config", "tiny", "--out", str(tmp_path / "run")]
    assert main([*plan, "--cluster", "tcp://localhost:1"]) == 2
    assert "package distributed" in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert main([*plan, "--workers", "0"]) == 2
    assert "--workers is 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*plan, "--workers", "2", "--cluster", "tcp://localhost:1"])
    assert "not allowed with" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# A real scheduler


def test_a_cluster_carries_tasks_and_loses_a_worker(dask):
    address, workers = dask
    with executor(cluster=address) as carrier:
        found = dict(carried(carrier, seen, range(6)))
        assert len(found) == 6 and os.getpid() not in {answer["pid"] for answer in found.values()}
        threading.Timer(1.0, workers[0].kill).start()
        assert len(dict(carried(carrier, slow, [0.5] * 12))) == 12
        tasks = [Batch.of([[1, 2], [3]]), (abs, -1), [Batch.of([[1]])], {"a": (max, 1, 2)}]
        assert dict(carried(carrier, described, tasks)) == {
            number: described(task) for number, task in enumerate(tasks)
        }
        with pytest.raises(InputError, match="said"):
            list(carried(carrier, fails, ["input"]))


def test_a_scheduler_that_does_not_answer_is_one_sentence():
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'refsnn[cluster]'")
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(InputError, match="no Dask scheduler answers"), executor(cluster=address):
            pass
