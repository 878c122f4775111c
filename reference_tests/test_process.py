"""Settings of the process: they are made where they can be, and change nothing where they cannot."""

import ctypes
import mmap
import os
import platform
import subprocess
import sys

import pytest

from refsnn import parallel, process
from refsnn.errors import InputError
from refsnn.parallel import cores, threads

FAULTS = """
import ctypes, resource, sys
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: all pages are small ones, so their number says it all
from refsnn.process import prepare
if "prepared" in sys.argv:
    prepare()
import numpy as np
from threading import Thread
def work():
    for _ in range(200):
        arrays = [np.ones(1 << 19) for _ in range(4)]; del arrays  # 4 MB each
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
work()
between = faults()
thread = Thread(target=work)
thread.start()
thread.join()
print(between - before, faults() - between)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_freed_memory_is_used_again():
    """Pages that a thread asks for: those of four arrays once, and none for what another thread has freed."""

    def faults(*arguments):
        run = subprocess.run([sys.executable, "-c", FAULTS, *arguments], capture_output=True, text=True, check=True)
        return [int(count) for count in run.stdout.split()]

    once = 4 * 2**22 / mmap.PAGESIZE
    (first, second), plain = faults("prepared"), faults()
    assert first < 1.25 * once and second < 0.25 * once
    assert min(plain) > 4 * once


def test_threads_of_the_products_are_left_as_they_were_set(monkeypatch):
    for variable in process.PRODUCT_THREADS:
        monkeypatch.setenv(variable, "3")
        process.prepare()
        assert os.environ[variable] == "3"
        monkeypatch.delenv(variable)
        process.prepare()
        assert os.environ[variable] == "1"


@pytest.mark.skipif(cores() == 1, reason="one core only")
def test_sequences_are_shared_out_where_products_have_one_thread():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1, "blas"):
        assert threads() == cores()
    with threadpoolctl.threadpool_limits(2, "blas"):
        assert threads() == 1


def test_cores_are_those_that_the_system_gives_this_process(monkeypatch):
    monkeypatch.delenv(parallel.CORES, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 5} if pid == 0 else set(), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert cores() == 3  # not what the machine has
    for limit, count in (("1", 1), ("2", 2), ("3", 3), ("4", 3), ("", 3)):  # fewer by the variable, never more
        monkeypatch.setenv(parallel.CORES, limit)
        assert cores() == count
    for limit in ("0", "-1", "1.5", "two", "²", "٣"):  # the last two are digits to `isdigit`
        monkeypatch.setenv(parallel.CORES, limit)
        with pytest.raises(InputError, match=f"^REFSNN_CORES is '{limit}'.* whole number of at least 1"):
            cores()
    monkeypatch.delenv(parallel.CORES)
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert cores() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


@pytest.mark.parametrize(
    ("pools", "count"),
    [(None, 1), ([], 3), ([1], 3), ([1, 1], 3), ([2], 1), ([1, 2], 1), ([2, 1], 1)],
    ids=str,
)
def test_threads_are_the_cores_where_every_library_has_one(pools, count, monkeypatch):
    """Where no one can tell, or one library of products has several threads, there is one thread for sequences."""

    class Found:
        def info(self):
            return [{"num_threads": number} for number in pools]

    monkeypatch.setattr(parallel, "cores", lambda: 3)
    monkeypatch.setattr(parallel, "_pools", lambda: None if pools is None else Found())
    assert threads() == count


def test_without_threadpoolctl_nobody_can_tell(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert parallel._pools.__wrapped__() is None


WITHOUT = """
import importlib, pkgutil, sys
for name in ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "readline", "syslog"):
    sys.modules[name] = None
import refsnn
for module in pkgutil.walk_packages(refsnn.__path__, "refsnn."):
    if not module.name.endswith(("__main__", "conftest", "plugin", "test_backend")):
        importlib.import_module(module.name)
from refsnn.process import peak_memory
print(peak_memory())
"""


def test_no_module_of_unix_alone_is_needed():
    run = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "None\n"), run.stderr


def test_peak_memory_is_what_arrays_take():
    script = "import numpy as np; from refsnn.process import peak_memory; a = np.ones(1 << 26); print(peak_memory())"
    peak = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert 2**29 < peak < 2**36  # of the parent, too: a process begins with what its parent had


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_other_c_libraries_are_left_alone(error, monkeypatch):
    def missing(_):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    process.prepare()
