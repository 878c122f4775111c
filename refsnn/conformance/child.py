"""An adapter in a process of its own, which may hang, exit or print without taking the judge with it.

Questions go to it and replies come back as frames on its standard input and output: eight bytes of length, then an
``npz`` whose first entry is a JSON header. What the adapter itself prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from ..errors import InputError
from ..ops import Array
from .ask import CONTRACT, Reply, ask, declared, plain_text
from .cases import Case

__all__ = ["TIMEOUT", "Child", "load_adapter"]

#: Seconds that an adapter may take to be imported, and for one case.
TIMEOUT = 120.0


def load_adapter(name: str, functions: Sequence[str] = CONTRACT) -> Any:
    """Import a backend's adapter by the name of its module.

    Parameters
    ----------
    name : str
        ``package.module``, or ``package.module:object``.
    functions : sequence of str
        It must have one of these.

    Returns
    -------
    adapter : module or object

    Raises
    ------
    InputError
        It cannot be imported, or has none of the functions.
    """
    module, _, attribute = name.partition(":")
    try:
        adapter = importlib.import_module(module)
        for part in filter(None, attribute.split(".")):
            adapter = getattr(adapter, part)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # it may raise anything, or exit
        words = plain_text(" ".join(f"{type(error).__name__}: {error}".split()))
        raise InputError(f"the adapter {name} cannot be imported ({words}); name a module on the Python path") from None
    if not any(callable(getattr(adapter, function, None)) for function in functions):
        raise InputError(
            f"{name} has none of the functions {', '.join(functions)}; docs/test-your-backend.md shows how"
        )
    return adapter


# ---------------------------------------------------------------------------------------------------------------------
# Frames


def _packed(said: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    header = json.dumps({**said, "names": list(arrays)}).encode()
    buffer = io.BytesIO()
    numbered = {str(i): np.asarray(value) for i, value in enumerate(arrays.values())}
    np.savez(buffer, allow_pickle=False, header=np.frombuffer(header, np.uint8), **numbered)
    return buffer.getvalue()


def _unpacked(frame: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    with np.load(io.BytesIO(frame), allow_pickle=False) as held:
        said = json.loads(held["header"].tobytes())
        return said, {name: held[str(i)] for i, name in enumerate(said.pop("names"))}


def _write(stream: IO[bytes], frame: bytes) -> None:
    stream.write(len(frame).to_bytes(8, "little") + frame)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes | None:
    size = stream.read(8)
    frame = stream.read(int.from_bytes(size, "little")) if len(size) == 8 else b""
    return frame or None


# ---------------------------------------------------------------------------------------------------------------------
# The judge's side


class Child:
    """An adapter in a process of its own; it is asked as `refsnn.conformance.ask.ask` asks one in this process.

    Parameters
    ----------
    adapter : str
        Name of its module.
    timeout : float
        Seconds for the import, and for each case.

    Raises
    ------
    InputError
        It cannot be imported, answers for no precision, or has none of the functions.
    """

    def __init__(self, adapter: str, timeout: float = TIMEOUT) -> None:
        self.adapter, self.timeout = adapter, timeout
        self.asked = 0
        self._start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        command = [sys.executable, "-P", "-c", "from refsnn.conformance.child import main; main()"]
        room = os.pathsep.join(filter(None, sys.path))
        self.process = subprocess.Popen(
            [*command, self.adapter], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env=os.environ | {"PYTHONPATH": room, "PYTHONIOENCODING": "utf-8:backslashreplace"},
        )  # fmt: skip
        self.replies: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(self.process.stdout, self.replies), daemon=True).start()
        hello, ended = self._next()
        if hello is None:
            self.close()
            raise InputError(f"the adapter {self.adapter} cannot be imported: its import {ended}")
        said, _ = _unpacked(hello)
        if said["error"]:
            self.close()
            raise InputError(said["error"])
        self.name, self.dtypes = said["name"], tuple(said["dtypes"])

    @staticmethod
    def _listen(stream: IO[bytes], replies: queue.SimpleQueue[bytes | None]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while frame := _read(stream):
                replies.put(frame)
        replies.put(None)

    def _next(self) -> tuple[bytes | None, str]:
        """Return the next frame or, where none comes, what happened."""
        try:
            frame = self.replies.get(timeout=self.timeout)
        except queue.Empty:
            return None, f"did not end within {self.timeout:g} s"
        if frame is not None:
            return frame, ""
        status = self.process.wait()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return None, f"ended the process ({how})"

    def ask(self, case: Case, dtype: str) -> Reply:
        """Put one case to the adapter.

        Parameters
        ----------
        case : Case
        dtype : str

        Returns
        -------
        reply : Reply
        """
        self.asked += 1
        about = {name: value for name, value in vars(case).items() if name != "inputs"}
        try:
            if self.process.poll() is not None:
                self._start()
            assert self.process.stdin is not None
            _write(self.process.stdin, _packed({"number": self.asked, "case": about, "dtype": dtype}, case.inputs))
        except InputError as error:  # it could be imported the first time
            return Reply(problem=str(error))
        except OSError:
            pass  # it has just ended: said below
        while True:
            frame, ended = self._next()
            if frame is None:
                self.close()
                return Reply(problem=f"{case.function} {ended}")
            said, answer = _unpacked(frame)
            if said.pop("number") == self.asked:  # a process that was forked may answer twice
                return Reply(answer, **said)

    def close(self) -> None:
        """End the process, and what it has started."""
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()


# ---------------------------------------------------------------------------------------------------------------------
# The adapter's side


def main() -> None:
    """Answer questions until there are no more, or nobody listens."""
    try:
        _answer()
    except BrokenPipeError:
        os._exit(0)  # without a traceback under the sentence of the judge, who has gone


def _answer() -> None:
    questions, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)  # what the adapter reads is at its end, what it prints is none of our frames
    os.dup2(2, 1)
    sys.path.insert(0, os.getcwd())  # an adapter in the folder one works in, as `python -m` would find it
    said: dict[str, Any] = {"error": ""}
    try:
        adapter = load_adapter(sys.argv[1])
        said |= {"name": plain_text(getattr(adapter, "name", sys.argv[1]), 100), "dtypes": declared(adapter)}
    except InputError as error:
        _write(replies, _packed({"error": str(error)}, {}))
        return
    _write(replies, _packed(said, {}))
    while (frame := _read(questions)) is not None:
        asked, inputs = _unpacked(frame)
        reply = ask(adapter, Case(**asked["case"], inputs=inputs), asked["dtype"])
        about = {name: value for name, value in vars(reply).items() if name != "answer"}
        _write(replies, _packed({"number": asked["number"], **about}, reply.answer))
    os._exit(0)  # whatever threads the adapter has left
