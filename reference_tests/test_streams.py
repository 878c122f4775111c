"""A check's status is its verdict, and its files are there, whatever becomes of what it prints."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, random_batch, random_parameters

from refsnn.commands.cli import main
from refsnn.model.student import StudentConfig
from refsnn.storage.records import record, write_record

pytestmark = pytest.mark.skipif(os.name != "posix", reason="streams are closed and broken as a POSIX shell does it")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A right record -> 0, and a wrong one -> 1: their files by the status that they deserve."""
    folder = tmp_path_factory.mktemp("records")
    config, batch, params = StudentConfig(SMALL), random_batch(SMALL, 0), random_parameters(SMALL, 0)
    spikes = record(config.network, params, batch, 6)
    wrong = spikes | {"encoder.1.key": 1 - spikes["encoder.1.key"]}
    found = folder / "right", folder / "wrong"
    for path, trains in zip(found, (spikes, wrong), strict=True):
        write_record(path, config, batch, trains, "inst", "float64", params)
    return found


def shell(command: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | environment,
    )


REFSNN = shlex.join([sys.executable, "-m", "refsnn"])

#: How the output is spoilt: what follows the command in a shell, and the environment.
SPOILT = {
    "ASCII": ("", {"PYTHONIOENCODING": "ascii:strict"}),
    "Latin-1": ("", {"PYTHONIOENCODING": "latin-1"}),
    "no locale": ("", {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
    "a reader that is gone": ("| true; exit ${PIPESTATUS[0]}", {}),
    "closed output": (">&-", {}),
    "closed errors": ("2>&-", {}),
    "everything closed": ("<&- >&- 2>&-", {}),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("status", [0, 1])
def test_a_verdict_is_the_status_whatever_the_output_is(records, tmp_path, how, status):
    after, environment = SPOILT[how]
    path = tmp_path / "verdicts.json"
    done = shell(f"{REFSNN} certify {records[status]} --json {path} {after}", **environment)
    assert (done.returncode, done.stderr) == (status, b"")
    populations = json.loads(path.read_text(encoding="utf-8"))["populations"]
    assert any(verdict["wrong"] for verdict in populations.values()) == bool(status)
    if environment:
        assert b"V_th" in done.stdout and (b"WRONG" in done.stdout) == bool(status)


def test_what_cannot_be_judged_is_no_verdict(records, tmp_path):
    for after in ("2>&-", "2>/dev/full", "| true; exit ${PIPESTATUS[0]}"):
        assert shell(f"{REFSNN} certify {tmp_path / 'nowhere'} {after}").returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_output_that_is_lost_on_a_full_disk_is_said(records):
    for status, path in enumerate(records):
        done = shell(f"{REFSNN} certify {path} > /dev/full")
        assert done.returncode == (status or 2)  # a wrong record stays wrong; a right one has not been seen
        assert (b"standard output could not be written" in done.stderr) == (not status)


def test_a_backend_that_prints_is_judged_by_its_numbers(tmp_path):
    (tmp_path / "chatty.py").write_text(
        "import os, sys\nfrom refsnn.conformance.reference import op as right\nprint('ready', file=sys.stderr)\n"
        "def op(*arguments):\n    print('at work \u2026', file=sys.stderr)\n    print('at work \u2026', flush=True)\n"
        "    os.write(2, b'as native code does')\n"
        "    return right(*arguments)\n",
        encoding="utf-8",
    )
    for after in (">&-", "2>&-", "<&- >&- 2>&-", "| true; exit ${PIPESTATUS[0]}"):
        path = tmp_path / "report.json"
        command = f"cd {tmp_path} && {REFSNN} conform chatty --only op/relu --json {path} {after}"
        assert shell(command).returncode == 0, after
        path.unlink()


@pytest.mark.parametrize(
    "source", ["raise SystemExit(1)", "1 +", "{}['x']", "raise RuntimeError('a\\nb')", "import nil"]
)
def test_a_backend_that_cannot_be_imported_has_not_failed(tmp_path, source, capsys, monkeypatch):
    name = f"broken_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["conform", name, "--only", "op/relu"]) == 2
    said = capsys.readouterr().err
    assert "cannot be imported" in said and said.count("\n") == 1


def test_a_mistake_of_our_own_is_no_verdict(records, monkeypatch, capsys):
    def fail(*arguments):
        raise ZeroDivisionError("by mistake")

    monkeypatch.setattr("refsnn.storage.records.certify_record", fail)
    assert main(["certify", str(records[0])]) == 70
    assert "ZeroDivisionError: by mistake" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1"])
def test_no_repetitions_are_refused(number, capsys):
    assert main(["bench", "neurons", "--repetitions", number]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"refsnn: --repetitions is {number}, but") and captured.err.count("\n") == 1
    assert captured.out == ""
