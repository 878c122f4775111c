"""What the command line says of itself: columns are explained where they are printed, and time left is honest."""

import io
import re
import sys

import pytest

from refsnn.commands import cli
from refsnn.commands.command import progress_bar
from refsnn.conformance.parity import parity_table
from refsnn.conformance.report import STATUSES
from refsnn.evaluation.solvers import Solved
from refsnn.pages.tables import results_table, solvers_table, verdict_table
from refsnn.readings.certify import Verdict
from refsnn.reproduction.progress import _left
from refsnn.reproduction.summary import _head

COMMANDS = {command.name: command for found in cli.GROUPS.values() for command in found}


def help_of(name, capsys):
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    return capsys.readouterr().out


def results():
    """Results of the least evaluation, for their table."""
    row = {"t": 4, "metrics": {"accuracy": 0.5}, "agreement": 0.5, "firing_rate": 0.1, "norm_ops": 1.0}
    row |= {"energy_gain": 2.0, "break_even": 8.0, "full": {"gain": 1.0, "break_even": 4.0}}
    part = {"split": "dev", "examples": 1, "metrics": {"teacher": {"accuracy": 1.0}, "rate": {"accuracy": 1.0}}}
    part |= {"spikes": [row], "equilibrium": None}
    whole = {"task": "SST-2", "rule": "inst", "teacher_accuracy": 1.0, "others": [], "memory": False, "seconds": 1}
    return part | whole | {"peak_memory_mb": 0}


PLAN = {"tasks": [{"spikes": [{"t": 64}], "published": 88.2}]}
SOLVED = [Solved(method="gmres", products=1, seconds=0.1, solution=None, error=1e-9)]


def evaluated():
    """The head of an evaluation's table, whose names stand on two lines."""
    above, below = results_table(results()).splitlines()[2:4]
    ends = [match.end() for match in re.finditer(r"\S(?=\s{2,}|$)", above)]
    return " ".join(f"{above[:end].split('  ')[-1]} {below[end - 8 : end]}" for end in ends)


@pytest.mark.parametrize(
    ("name", "head", "also"),
    [
        ("certify", lambda: verdict_table({"key": Verdict()}).splitlines()[0], "population"),
        ("solvers", lambda: solvers_table(SOLVED).splitlines()[0], "method"),
        ("parity", lambda: parity_table([]).splitlines()[0] + " unexplained", ""),
        ("conform", lambda: " ".join(["level", *STATUSES]), ""),
        ("reproduce", lambda: " ".join(_head(PLAN)), "task metric rule seeds"),
        ("evaluate", evaluated, "% %"),
    ],
)
def test_every_column_is_explained_in_the_help_of_its_command(name, head, also, capsys):
    text, left = help_of(name, capsys), f" {head()} "
    assert COMMANDS[name].columns
    for column in sorted(COMMANDS[name].columns, key=len, reverse=True):
        assert re.search(rf"^  {re.escape(column)}\s{{2,}}\S", text, re.MULTILINE)
        words = r"\s+".join(map(re.escape, column.split()))
        left, times = re.subn(rf"\s{words}(?=\s)", " ", left)
        assert times == 1, f"refsnn {name} prints no column {column!r}, which its help explains"
    assert left.split() == also.split(), f"the help of refsnn {name} does not explain {left.split()}"


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_said_of_a_command_and_its_columns_fits_a_terminal(name):
    (choices,) = (a.choices for a in cli.parser()._actions if a.choices)
    said = f"{choices[name].description}\n{choices[name].epilog}"
    assert max(map(len, said.splitlines())) <= 80


def test_certify_says_what_undecidable_means_once(capsys):
    assert help_of("certify", capsys).count("rounding alone") == 1


@pytest.mark.parametrize(
    ("seconds", "unknown", "said"),
    [
        (0.0, ["teacher"], "time left not known yet"),
        (180.0, [], "about 3 min left"),
        (180.0, ["internal", "internal"], "at least 3 min left; 2 stages not timed yet (internal)"),
        (90.0, ["evaluation inst"], "at least 90 s left; 1 stage not timed yet (evaluation inst)"),
    ],
)
def test_time_left_is_a_lower_bound_where_stages_were_never_timed(seconds, unknown, said):
    assert _left(seconds, unknown) == said


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_bars_have_a_name_and_are_quiet_off_a_terminal(monkeypatch):
    pytest.importorskip("tqdm")
    for stream, words in ((Terminal(), ("counting", "0/3")), (io.StringIO(), ())):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_bar("counting", 3, "number") as update:
            update(3)
        said = stream.getvalue()
        assert all(word in said for word in words) and bool(said) == bool(words)
