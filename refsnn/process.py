"""Settings of the whole process that make refsnn fast; nothing that it computes depends on them."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["peak_memory", "prepare"]

#: Parameters of glibc's malloc, by the numbers of its malloc.h, and what they are set to: from what size on memory is
#: mapped anew for every array; how much unused memory is kept instead of given back; how many pools threads have.
MMAP_THRESHOLD, TRIM_THRESHOLD, ARENA_MAX = (-3, 1 << 25), (-1, 1 << 30), (-8, 1)

#: What the usual libraries of matrix products read when they are loaded.
PRODUCT_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def prepare() -> None:
    """Leave matrix products one thread each, and let freed memory be used again; to be called before NumPy is loaded.

    Sequences are shared among the cores (`refsnn.parallel`), so products that want all cores would only wait for each
    other: OpenBLAS, MKL, BLIS and Accelerate get one thread, where the environment does not say otherwise. And every
    operation makes new arrays, of megabytes: by default glibc gives such memory back as soon as it is free, and the
    system clears it page by page when it is asked for again, a tenth of the time of a simulation; and what one thread
    frees, another does not get. Other C libraries are left as they are.

    Examples
    --------
    >>> prepare()
    >>> os.environ["OPENBLAS_NUM_THREADS"] != ""
    True
    """
    for variable in PRODUCT_THREADS:
        os.environ.setdefault(variable, "1")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    for name, value in (MMAP_THRESHOLD, TRIM_THRESHOLD, ARENA_MAX):
        mallopt(name, value)


def peak_memory() -> int | None:
    """Ask the system for the most memory that this process has had so far.

    Returns
    -------
    bytes : int or None
        None where the system does not say it, as on Windows.
    """
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
