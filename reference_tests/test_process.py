"""Settings of the process: they are made where they can be, and change nothing where they cannot."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from refsnn import process

FAULTS = """
import sys, resource
from refsnn.process import prepare
if "prepared" in sys.argv:
    prepare()
import numpy as np
from threading import Thread
def work():
    for _ in range(200):
        arrays = [np.ones(1 << 19) for _ in range(4)]; del arrays  # 4 MB each
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
threads = [Thread(target=work) for _ in range(2)]
[t.start() for t in threads]
[t.join() for t in threads]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_freed_memory_is_used_again():
    def faults(*arguments):
        run = subprocess.run([sys.executable, "-c", FAULTS, *arguments], capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert faults("prepared") < 2 * 2**24 / 4096 + 2000  # four arrays in each thread, once
    assert faults() > 4 * faults("prepared")


def test_threads_of_the_products_are_left_as_they_were_set(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    process.prepare()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    process.prepare()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_other_c_libraries_are_left_alone(error, monkeypatch):
    def missing(_):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    process.prepare()
