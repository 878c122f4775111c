"""What a command is, and the options that several have."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

__all__ = [
    "Command",
    "add_columns",
    "add_corpus",
    "add_data",
    "add_fields",
    "add_rule",
    "add_run",
    "add_samples",
    "add_save_every",
    "add_seed",
    "add_workers",
    "progress_bar",
]


@dataclass(frozen=True)
class Command:
    """One subcommand of `refsnn`.

    Attributes
    ----------
    name : str
    line : str
        What ``refsnn --help`` says of it.
    description : str
        What its own help says first.
    options : callable
        Adds its options to its parser; called only for the command that was asked for.
    run : callable
        Takes the options and returns the exit status.
    epilog : str
        What its own help says last.
    columns : dict
        Column of the table that it prints -> what stands there.
    """

    name: str
    line: str
    description: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Any], int]
    epilog: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


def add_run(parser: argparse.ArgumentParser, help: str = "folder that `refsnn distill --out` filled") -> None:
    """Add the run's folder.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    help : str
    """
    parser.add_argument("run_folder", metavar="RUN", help=help)


def add_data(parser: argparse.ArgumentParser, split: str, remembered: bool = True) -> None:
    """Add the place of the data, and their columns.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    split : str
    remembered : bool
        Whether a run's own data are the default.
    """
    parser.add_argument(
        "--data",
        required=not remembered,
        metavar="DATA",
        help=f"folder with {split}.tsv as GLUE has it (or .csv, .json, .jsonl, .parquet), the folder above, a file, or "
        "hub for the Hugging Face hub" + (" (default: where the run's data were)" if remembered else ""),
    )
    add_columns(parser)


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the names of columns.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="NAME=COLUMN",
        help="columns of your own files, as label=stars; docs/tasks.md has each task's names",
    )


def add_corpus(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the unlabelled text.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    default : str
    """
    parser.add_argument(
        "--corpus",
        nargs="+",
        default=[],
        metavar="FILE",
        help="unlabelled text for the general stage: .txt with blank lines between documents; .csv, .jsonl or "
        f".parquet with a column text; or hub:NAME[:CONFIG] for a data set of the hub (default: {default})",
    )


def add_rule(parser: argparse.ArgumentParser, note: str = "the paper's", default: str = "inst") -> None:
    """Add the integration rule of spikes.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    note : str
        What is said of inst.
    default : {"inst", "running"}
    """
    said = f"inst, {note}" if default == "inst" else default
    parser.add_argument(
        "--rule", choices=("inst", "running"), default=default, help=f"integration rule (default: {said})"
    )


def add_samples(parser: argparse.ArgumentParser, default: int | None = None) -> None:
    """Add the number of examples.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    default : int, optional
        All examples, or so many of the first.
    """
    text = "examples, evenly spaced over the split (default: all)" if default is None else "sentences (default: 4)"
    text = text.replace("4", str(default))
    parser.add_argument("--samples", type=int, default=default, metavar="N", help=text)


def add_save_every(parser: argparse.ArgumentParser) -> None:
    """Add the seconds between checkpoints.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument(
        "--save-every", type=float, default=20.0, metavar="S", help="seconds between checkpoints (default: %(default)s)"
    )


def add_workers(parser: argparse.ArgumentParser, what: str) -> None:
    """Add what carries out tasks.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    what : str
        The tasks.
    """
    workers = parser.add_mutually_exclusive_group()
    workers.add_argument("--workers", type=int, metavar="N", help=f"N processes share {what}, and the cores")
    workers.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help=f"the workers of a Dask scheduler share {what}, such as tcp://10.0.0.1:8786 (docs/machines.md)",
    )


def add_seed(parser: argparse.ArgumentParser, help: str = "one seed fixes everything") -> None:
    """Add the seed.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    help : str
    """
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help=f"{help} (default: 0)")


def seed(text: str) -> int:
    """Read a seed: a whole number from 0 on.

    Parameters
    ----------
    text : str

    Returns
    -------
    seed : int
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no seed: a whole number from 0 on was expected")
    return int(text)


def real(text: str) -> float:
    """Read a number; a whole one stays whole, and is written down as it was said.

    Parameters
    ----------
    text : str

    Returns
    -------
    number : float or int

    Examples
    --------
    >>> real("3"), real("0.25")
    (3, 0.25)
    """
    try:
        return int(text) if text.isascii() and text.isdigit() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number") from None


@contextmanager
def progress_bar(label: str, total: int, unit: str) -> Iterator[Callable[[int], Any]]:
    """Show progress to a person who is looking; nobody else needs tqdm for it.

    Parameters
    ----------
    label : str
        What is done.
    total : int
    unit : str

    Yields
    ------
    update : callable
        Called with a number of units that are done.
    """
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from ..progress import progress

    with progress(label, unit, total, leave=False) as bar:
        yield bar.update


def add_fields(parser: Any, kind: type, help: Mapping[str, str], leave_out: Collection[str] = ()) -> None:
    """Make an option of every field of a recipe that has a default.

    Parameters
    ----------
    parser : argparse.ArgumentParser or group
    kind : type
        A dataclass.
    help : mapping
        Field -> what it is.
    leave_out : collection of str
        Fields that get none.
    """
    types = get_type_hints(kind)
    for one in fields(kind):
        if one.default is MISSING or one.name in leave_out:
            continue
        name, hint, text = "--" + one.name.replace("_", "-"), types[one.name], help[one.name]
        if hint is bool:
            parser.add_argument(name, action="store_true", help=text)
            continue
        choices = get_args(hint) if get_origin(hint) is Literal else None
        parse = seed if one.name == "seed" else real if hint is float else int
        parser.add_argument(
            name,
            type=str if choices else parse,
            default=one.default,
            choices=choices,
            metavar=None if choices else "X" if hint is float else "N",
            help=text if one.default is None else f"{text} (default: %(default)s)",
        )
