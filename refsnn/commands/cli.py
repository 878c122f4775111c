"""The `refsnn` command: its groups of commands, its exit status, and how it fails."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from .._version import __version__
from ..errors import InputError
from ..process import prepare
from . import check, convert, explore, train

__all__ = ["main", "parser"]

#: The commands, in groups, as ``refsnn --help`` lists them.
GROUPS = {
    "train": train.COMMANDS,
    "look at a finished run": explore.COMMANDS,
    "check numbers and spikes": check.COMMANDS,
    "convert": convert.COMMANDS,
}
EPILOG = "`refsnn COMMAND --help` explains each; docs/architecture.md shows how the parts fit together."


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
        one = commands.add_parser(command.name, description=command.description, epilog=command.epilog)
        one.set_defaults(run=command.run)
        if command.name in arguments:
            command.options(one)
    return top


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
        self.stream = stream
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
        except (BrokenPipeError, ValueError):  # the reader, `head` say, has had enough; or the stream is closed
            if self.stream is sys.__stdout__ or self.stream is sys.__stderr__:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 1 if self.stream is sys.__stdout__ else 2)
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        ``sys.argv[1:]`` by default.

    Returns
    -------
    status : int
        0; 1 where a check failed; 2 where the input cannot be used, after one sentence on standard error.
    """
    prepare()
    arguments = sys.argv[1:] if arguments is None else arguments
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Tolerant(out), _Tolerant(err)
    try:
        options: Any = parser(arguments).parse_args(arguments)
        return _run(options)
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = out, err


def _run(options: Any) -> int:
    status = 2
    try:
        return options.run(options)
    except InputError as error:
        print(f"refsnn: {_in_flags(str(error), options)}", file=sys.stderr)
    except OSError as error:
        print(f"refsnn: {_shortened(str(error.filename or 'a file'))}: {error.strerror or error}", file=sys.stderr)
    except (MemoryError, RuntimeError) as error:
        # NumPy and Python raise what the system refused: memory, or another thread.
        if isinstance(error, RuntimeError) and "start new thread" not in str(error):
            raise
        what = "not enough memory" if isinstance(error, MemoryError) else "no room for another thread"
        print(
            f"refsnn: there is {what} for this; take fewer or shorter examples at a time, or raise the limit. What is "
            "written is whole: run the same command again to resume",
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        status = 130  # said below, when the exception is gone and has let go of progress bars, which then end
    if status == 130:
        print("refsnn: interrupted; run the same command again to resume", file=sys.stderr)
    return status
