"""Tasks that do not depend on each other, carried out by other processes, here or on other machines.

Whatever has the interface of `concurrent.futures.Executor` may carry them. `Workers` are processes of this machine; a
Dask scheduler has processes of many. A task is a function of a module and arguments that say where large arrays are
found. It may be begun again, on another worker, when the first one is lost: its results are files that are written
whole, and it goes on from its last checkpoint.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import IO, Any

from ._version import __version__
from .errors import InputError, whole
from .parallel import CORES, cores, each
from .process import PRODUCT_THREADS
from .progress import quiet
from .shared import forget, possible

__all__ = ["Workers", "carried", "each_process", "executor", "serve", "worth_processes"]

#: Workers that may be lost over one task: whatever ends them again and again is the task.
TRIES = 3


def carried(executor: Executor, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Carry out tasks, and yield what they give as soon as one is finished.

    Parameters
    ----------
    executor : concurrent.futures.Executor
    function : callable
        Of one task; relative paths in it are those of this process. It must be importable on every worker.
    tasks : sequence

    Yields
    ------
    number : int
        Of the task.
    result

    Raises
    ------
    InputError
        A task raised it, or workers were lost for good. Tasks that have not begun are given up then.

    Examples
    --------
    >>> with ThreadPoolExecutor(2) as pool:
    ...     sorted(carried(pool, abs, [3, -2]))
    [(0, 3), (1, 2)]
    """
    folder = os.getcwd()
    # The task goes within the function: of arguments, Dask looks into tuples and lists, and takes some for its own.
    calls = [partial(_carry_out, __version__, folder, function, task) for task in tasks]
    futures = {executor.submit(call): number for number, call in enumerate(calls)}
    try:
        for future in as_completed(futures):
            yield futures[future], _result(future)
    finally:
        for future in futures:
            future.cancel()


def _result(future: Future) -> Any:
    """Return a task's result; whatever is wrong with the workers, and not with the task, becomes one sentence."""
    again = "what is written is whole: run the same command again to resume"
    try:
        return future.result()
    except (BrokenExecutor, CancelledError) as error:
        raise InputError(f"the workers were lost ({str(error) or type(error).__name__}); {again}") from None
    except ModuleNotFoundError as error:
        raise InputError(f"a worker lacks the package {error.name}; install there what is installed here") from None
    except Exception as error:
        if not type(error).__module__.startswith("distributed"):
            raise
        said = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"the cluster could not carry out a task ({said}); {again}") from None


def _carry_out(version: str, folder: str, function: Callable[[Any], Any], task: Any) -> Any:
    """Carry out one task where it was asked for, quietly."""
    if version != __version__:
        raise InputError(
            f"a worker has refsnn {__version__}, but its task comes from {version}; install one everywhere"
        )
    if os.getcwd() != folder:
        try:
            os.chdir(folder)
        except OSError:
            node = os.uname().nodename if hasattr(os, "uname") else "a worker"
            raise InputError(f"{node} does not see the folder {folder}; workers need the same file system") from None
    token = quiet.set(True)
    try:
        return function(task)
    finally:
        quiet.reset(token)


@contextmanager
def executor(workers: int | None = None, cluster: str | None = None) -> Iterator[Executor | None]:
    """Open what carries tasks, as the command line asks for it.

    Parameters
    ----------
    workers : int, optional
        So many processes here.
    cluster : str, optional
        Address of a Dask scheduler.

    Yields
    ------
    executor : concurrent.futures.Executor or None
        None where nothing is asked for: tasks are then carried out one after the other in this process.

    Raises
    ------
    InputError
        Both are asked for, there are no such workers, or the scheduler does not answer.
    """
    if workers is not None and cluster is not None:
        raise InputError("`workers` are processes here and `cluster` has its own; give one of the two")
    if workers is not None:
        with Workers(workers) as pool:
            yield pool
    elif cluster is not None:
        with _client(cluster) as client:
            yield client.get_executor(pure=False)
    else:
        yield None


def _client(address: str) -> Any:
    """Connect to a Dask scheduler."""
    from .files import require

    distributed = require("distributed", "cluster")
    try:
        client = distributed.Client(address, timeout=10, set_as_default=False)
    except Exception as error:  # each of its transports has errors of its own
        said = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"no Dask scheduler answers at {address!r} ({said}); start one with: dask scheduler") from None
    if not client.scheduler_info()["workers"]:
        print(f"{address} has no workers yet; waiting for them", file=sys.stderr)
    return client


# ---------------------------------------------------------------------------------------------------------------------
# Processes here

#: What a worker runs. Ctrl-C is for its parent, who ends it; settings of the process come before NumPy.
START = (
    "import pickle, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "sys.path[:] = pickle.load(sys.stdin.buffer); from refsnn.process import prepare; prepare(); "
    "from refsnn.workers import serve; serve()"
)


class Workers(Executor):
    """Processes of this machine, each of which takes the next task as soon as it is free.

    Each starts as a new interpreter, on every system, and shares the cores with the others. It ends with this process,
    however that ends. A worker that is lost in the middle of a task, killed for its memory, say, is replaced, and the
    task begins again; the others do not notice.

    Parameters
    ----------
    count : int

    Examples
    --------
    >>> with Workers(2) as workers:
    ...     list(workers.map(abs, [3, -2]))
    [3, 2]
    """

    def __init__(self, count: int) -> None:
        self.count = whole("workers", count)
        self._cores = max(cores() // self.count, 1)
        self._threads = ThreadPoolExecutor(self.count)
        self._own = threading.local()
        self._all: list[_Process] = []
        self._ended, self._lock = False, threading.Lock()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future:
        """See `concurrent.futures.Executor.submit`.

        Parameters
        ----------
        function : callable
            Of a module.
        *arguments, **options

        Returns
        -------
        future : concurrent.futures.Future
        """
        return self._threads.submit(self._call, function, arguments, options)

    def _call(self, function: Callable[..., Any], arguments: Any, options: Any) -> Any:
        call = pickle.dumps((function, arguments, options))
        status: int | None = None
        for _ in range(TRIES):
            process = self._process()
            try:
                return process.call(call)
            except _UnknownError as error:
                assert error.__cause__ is not None
                raise error.__cause__ from None
            except _LostError:
                status = process.end()
                self._own.process = None
        raise InputError(
            f"{TRIES} workers in a row were lost over one task ({_said(status)}); perhaps memory ran out: take fewer "
            "`workers`. What is written is whole: run the same command again to resume"
        )

    def _process(self) -> _Process:
        """Return the process of this thread."""
        if getattr(self._own, "process", None) is None:
            with self._lock:
                if self._ended:
                    raise CancelledError
                self._own.process = _Process(self._cores)
                self._all.append(self._own.process)
        return self._own.process

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `concurrent.futures.Executor.shutdown`.

        Parameters
        ----------
        wait, cancel_futures : bool
        """
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            for process in self._all:
                process.end()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Wait for all tasks; after an error, give them up."""
        if kind is not None:
            with self._lock:
                self._ended = True
            for process in self._all:
                process.end()
        self.shutdown(cancel_futures=kind is not None)


def _said(status: int | None) -> str:
    if status is None or status >= 0:
        return f"exit status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"


class _LostError(Exception):
    """The other process is gone."""


class _UnknownError(Exception):
    """The other process does not know what it is asked: functions and classes of the main program, for example."""


class _Process:
    """Another interpreter that answers calls, one at a time."""

    def __init__(self, cores: int, **variables: str) -> None:
        env = os.environ | {CORES: str(cores)} | variables
        self.popen = subprocess.Popen([sys.executable, "-c", START], stdin=-1, stdout=-1, env=env)
        self.begun = False

    def call(self, call: bytes) -> Any:
        """Send a call and wait for the answer: what it returns, or raises."""
        assert self.popen.stdin is not None and self.popen.stdout is not None
        try:
            if not self.begun:
                self.popen.stdin.write(pickle.dumps(sys.path))
                self.begun = True
            _send(self.popen.stdin, call)
            received = _receive(self.popen.stdout)
        except (OSError, EOFError, ValueError):  # a pipe that is closed, by the other end or by `end`
            raise _LostError from None
        how, answer = pickle.loads(received)
        if how == "unknown":
            raise _UnknownError from answer
        if how == "error":
            raise answer
        return answer

    def end(self) -> int:
        """End the process, and say how it ended."""
        self.popen.kill()
        return self.popen.wait()


def _send(stream: IO[bytes], content: bytes) -> None:
    stream.write(len(content).to_bytes(8, "little"))
    stream.write(content)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes:
    size = stream.read(8)
    content = stream.read(int.from_bytes(size, "little")) if len(size) == 8 else b""
    if len(size) < 8 or len(content) < int.from_bytes(size, "little"):
        raise EOFError
    return content


def serve() -> None:
    """Answer the calls that come in by standard input. When it ends, as with the parent, so does this process."""
    answers = os.fdopen(os.dup(1), "wb")
    try:
        os.dup2(2, 1)  # nothing that a task prints may be taken for an answer
    except OSError:  # standard error is closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    calls: SimpleQueue[bytes] = SimpleQueue()

    def listen() -> None:
        try:
            while True:
                calls.put(_receive(sys.stdin.buffer))
        except (EOFError, OSError):
            os._exit(1)  # at once, in the middle of a task too, as if killed: a resumed task finds its folder free

    threading.Thread(target=listen, daemon=True).start()
    while True:
        answer = _answer(calls.get())
        try:
            _send(answers, answer)
        except OSError:
            os._exit(1)


def _answer(call: bytes) -> bytes:
    how = "unknown"
    try:
        function, arguments, options = pickle.loads(call)
        how = "error"
        return pickle.dumps(("result", function(*arguments, **options)))
    except BaseException as error:
        if not isinstance(error, InputError):
            error.add_note("In a worker:\n" + traceback.format_exc())
        try:
            answer = pickle.dumps((how, error))
            pickle.loads(answer)  # some errors can be sent and not received
            return answer
        except Exception:
            return pickle.dumps((how, RuntimeError(traceback.format_exc())))


# ---------------------------------------------------------------------------------------------------------------------
# Cores

#: Processes that wait for work, from one call to the next: it takes longer to start one than many an item lasts.
_idle: list[_Process] = []


#: Multiply-accumulates, a second of a core or so, from which on processes are worth their start.
WORTH = 3e10


def worth_processes(workers: int, products: float) -> bool:
    """Whether processes do some work sooner than threads: there are more than two cores, and it lasts.

    Parameters
    ----------
    workers : int
        Threads or processes.
    products : float
        Multiply-accumulates of the work, roughly.

    Returns
    -------
    yes : bool
    """
    frozen = getattr(sys, "frozen", False)  # then the interpreter is not Python's, but a program of its own
    return workers > 2 and products >= WORTH and possible() and not frozen


def each_process(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int, done: Callable[[], Any] = lambda: None
) -> list[Any]:
    """Apply a function to every item, as `refsnn.parallel.each` does, by processes with one core each.

    Threads share one interpreter, and many short operations of NumPy wait for it. Large arrays should be
    `refsnn.shared.Shared`. What another process cannot do, since it does not know the function or cannot be started,
    is done by the threads here.

    Parameters
    ----------
    function : callable
        Of one item.
    items : sequence
    workers : int
    done : callable
        Called here after each item.

    Returns
    -------
    results : list
        One for each item, in their order.

    Examples
    --------
    >>> each_process(abs, [1, -2, 3], 2)
    [1, 2, 3]
    """
    free: SimpleQueue[_Process | None] = SimpleQueue()
    for _ in range(workers):
        free.put(_borrowed())

    def one(item: Any) -> Any:
        result = answer(item)
        done()
        return result

    def answer(item: Any) -> Any:
        try:
            call = pickle.dumps((function, (item,), {}))
        except Exception:  # each kind of object refuses in its own way
            return function(item)
        process = free.get()
        try:
            if process is not None:
                return process.call(call)
        except _UnknownError:
            pass
        except _LostError:
            assert process is not None
            process.end()
            process = _one_core()
        finally:
            free.put(process)
        return function(item)

    try:
        return each(one, items, workers)
    finally:
        for process in (free.get() for _ in range(workers)):
            if process is not None:
                _retire(process)


def _borrowed() -> _Process | None:
    try:
        return _idle.pop()
    except IndexError:
        return _one_core()


def _one_core() -> _Process | None:
    try:
        return _Process(1, **dict.fromkeys(PRODUCT_THREADS, "1"))
    except OSError:
        return None


def _retire(process: _Process) -> None:
    """Keep a process for the next call, without the arrays of this one."""
    try:
        process.call(pickle.dumps((forget, (), {})))
        _idle.append(process)
    except _LostError:
        process.end()


def _end_idle() -> None:
    while _idle:
        _idle.pop().end()


atexit.register(_end_idle)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # they answer one process only
