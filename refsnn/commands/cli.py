"""The `refsnn` command: its groups of commands, its exit status, and how it fails."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from .._version import __version__
from ..errors import InputError
from ..process import prepare
from . import check, convert, explore, gpt, train
from .command import Command

__all__ = ["main", "parser"]

#: The commands, in groups, as ``refsnn --help`` lists them.
GROUPS = {
    "train": train.COMMANDS + gpt.COMMANDS,
    "look at a finished run": explore.COMMANDS,
    "check numbers and spikes": check.COMMANDS,
    "convert and publish": convert.COMMANDS,
}

#: Options that name what is written.
OUTPUTS = ("out", "html", "json", "plot", "scaling")

#: Columns of a line of help.
WIDTH = 78

EPILOG = """\
`refsnn COMMAND --help` explains each; docs/architecture.md shows how the parts fit together.
docs/ is in the source, and on the net: https://refsnn.readthedocs.io"""


def parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Build the command's argument parser.

    Parameters
    ----------
    arguments : sequence of str
        What will be parsed: only the command that is named gets its options, since some are made from what takes NumPy
        to import, and ``refsnn --help`` need not wait for that.

    Returns
    -------
    parser : argparse.ArgumentParser
    """
    lines = ["refsnn: the reference implementation of SpikingBERT in NumPy and SciPy."]
    for group, found in GROUPS.items():
        lines += ["", f"{group}:", *(f"  {command.name:<12}{command.line}" for command in found)]
    formatter = argparse.RawDescriptionHelpFormatter
    top = _Parser(
        "refsnn", description="\n".join(lines), epilog=EPILOG, formatter_class=formatter, usage="refsnn COMMAND ..."
    )
    top.add_argument("--version", action="version", version=f"refsnn {__version__}")
    commands = top.add_subparsers(
        prog="refsnn", metavar="COMMAND", required=True, title="commands", help=argparse.SUPPRESS
    )
    for command in (command for found in GROUPS.values() for command in found):
        one = commands.add_parser(
            command.name,
            description=textwrap.fill(command.description, WIDTH),
            epilog=_epilog(command),
            formatter_class=formatter,
        )
        one.set_defaults(run=command.run)
        if command.name in arguments:
            command.options(one)
    return top


def _epilog(command: Command) -> str:
    """Write what a command's help ends with: the columns of its table, where to read on, an example."""
    wide = max(map(len, command.columns), default=0) + 4
    columns = [
        textwrap.fill(f"  {name:<{wide - 2}}{meaning}", WIDTH, subsequent_indent=" " * wide)
        for name, meaning in command.columns.items()
    ]
    parts = [
        *(["\n".join(["columns of the table:", *columns])] if columns else []),
        textwrap.fill(command.epilog, WIDTH),
    ]
    return "\n\n".join(filter(None, parts))


class _Parser(argparse.ArgumentParser):
    """Says in a sentence of bearable length what is wrong with the words that were given."""

    def error(self, message: str) -> NoReturn:
        super().error(_shortened(message))


def _shortened(sentence: str) -> str:
    """Cut what nobody reads out of very long words: a number of a thousand digits, a name that is a whole text."""
    return re.sub(r"\S{300,}", lambda found: f"{found[0][:100]}[…]{found[0][-40:]}", sentence)


def _in_flags(sentence: str, options: argparse.Namespace) -> str:
    """Name options as the command line does: the library, which speaks of its arguments, writes `t_conv`."""

    def flag(found: re.Match[str]) -> str:
        return f"--{found[1].replace('_', '-')}" if found[1] in vars(options) else found[0]

    return _shortened(re.sub(r"`(\w+)`", flag, sentence))


class _Tolerant:
    """A stream that lets what is printed go where nobody reads on, and writes what its encoding lacks as ``?``."""

    def __init__(self, stream: Any) -> None:
        self.stream = open(os.devnull, "w", encoding="utf-8") if stream is None else stream  # None: it was closed
        self.full = False
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, act: Any) -> None:
        try:
            act()
        except (OSError, ValueError) as error:  # the reader, `head` say, has had enough; or the stream is closed
            self.full = self.full or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
            if self.stream is sys.__stdout__ or self.stream is sys.__stderr__:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 1 if self.stream is sys.__stdout__ else 2)
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _open_standard_streams() -> None:
    """Open standard streams that are closed onto nothing: else the next file that is opened takes their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, that is this one
            os.set_inheritable(nowhere, True)  # as standard streams are: processes of ours would find it closed again


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        ``sys.argv[1:]`` by default.

    Returns
    -------
    status : int
        0; 1 where a check failed, and for nothing else; 2 where the input cannot be used or the output not be written,
        after one sentence on standard error; 70 after a traceback, a mistake of refsnn's own.
    """
    prepare()
    _open_standard_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Tolerant(out), _Tolerant(err)
    try:
        options: Any = parser(arguments).parse_args(arguments)
        status = _run(options)
        sys.stdout.flush()
        if sys.stdout.full and not status:
            print("refsnn: standard output could not be written: the disk is full", file=sys.stderr)
            status = 2
        return status
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = out, err


def _run(options: Any) -> int:
    status = 2
    try:
        for name in OUTPUTS:
            if getattr(options, name, None) == "":
                raise InputError(f'`{name}` is empty (""); name a file or folder to write')
        return options.run(options)
    except KeyboardInterrupt:
        sentence, status = "interrupted; run the same command again to resume", 130
    except Exception as error:
        if not (sentence := _sentence(error, options)):
            traceback.print_exc()
            return 70  # not 1, which is the verdict of a check
    # The exception is gone and has let go of progress bars, which then end.
    print(f"refsnn: {sentence}", file=sys.stderr)
    return status


def _sentence(error: Exception, options: Any) -> str:
    """Say what a person can do about an error; empty where it is a mistake of refsnn's own."""
    if isinstance(error, InputError):
        return _in_flags(str(error), options)
    if isinstance(error, OSError):
        return f"{_shortened(str(error.filename or 'a file'))}: {error.strerror or error}"
    # NumPy and Python raise what the system refused: memory, or another thread.
    threads = isinstance(error, RuntimeError) and "start new thread" in str(error)
    if not threads and not isinstance(error, MemoryError):
        return ""
    what = "no room for another thread" if threads else "not enough memory"
    return (
        f"there is {what} for this; take fewer or shorter examples at a time, or raise the limit. What is written is "
        "whole: run the same command again to resume"
    )
