"""The kit cannot be fooled: what a backend does to its arguments, its process or its answers is a failure by name."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from refsnn.commands.cli import main
from refsnn.conformance import reference
from refsnn.conformance.ask import ARGUMENTS, ask, plain_text
from refsnn.conformance.cases import cases
from refsnn.conformance.child import Child
from refsnn.conformance.judge import conform, judge
from refsnn.errors import InputError

CASES = {case.id: case for case in cases("tiny")}
FIRST = {function: next(c for c in CASES.values() if c.function == function) for function in ARGUMENTS}


def reference_with(**functions):
    return SimpleNamespace(**{**{name: getattr(reference, name) for name in reference.__all__}, **functions})


@pytest.fixture
def conformed(tmp_path, monkeypatch, capfd):
    """A function that writes an adapter and puts cases to it by the command: its status, report, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(source, only="neurons/ties", *more):
        (tmp_path / "wrong.py").write_text(textwrap.dedent(source), encoding="utf-8")
        arguments = ["--only", only, "--json", "out.json", "--html", "out.html", "--timeout", "20", *more]
        status = main(["conform", "wrong", *arguments])
        printed, errors = capfd.readouterr()
        report = json.loads(Path("out.json").read_text(encoding="utf-8")) if Path("out.json").exists() else None
        assert report is None or Path("out.html").exists()
        return status, report, printed, errors

    return run


def places(value, name):
    """Every array, dict and number in an argument: functions that change it, by name."""
    if isinstance(value, dict):
        yield name, lambda v: v.__setitem__("new", 1)
        for key, entry in value.items():
            for place, change in places(entry, f"{name}[{key!r}]"):
                yield place, lambda v, key=key, change=change: change(v[key])
            if isinstance(entry, (int, float)):
                yield f"{name}[{key!r}]", lambda v, key=key: v.__setitem__(key, v[key] + 1)
    elif isinstance(value, list):
        for i, entry in enumerate(value):
            for place, change in places(entry, f"{name}[{i}]"):
                yield place, lambda v, i=i, change=change: change(v[i])
    elif isinstance(value, np.ndarray):
        yield name, lambda v: np.add(v, 1, out=v)


@pytest.mark.parametrize("function", ARGUMENTS)
def test_whatever_an_adapter_changes_of_its_arguments_is_named(function):
    """All of them, one after the other; and the next case sees nothing of it."""
    case = FIRST[function]
    seen = {}

    def remember(*arguments):
        seen.update(zip(ARGUMENTS[function], arguments, strict=True))
        return getattr(reference, function)(*arguments)

    assert judge(reference_with(**{function: remember}), case, "float64").status == "passed"
    changes = [(at, name, change) for at, name in enumerate(seen) for name, change in places(seen[name], name)]
    assert len(changes) >= (1 if function == "asr" else 2)
    for at, place, change in changes:

        def meddle(*arguments, at=at, change=change):
            answer = getattr(reference, function)(*arguments)
            change(arguments[at])
            return answer

        result = judge(reference_with(**{function: meddle}), case, "float64")
        assert result.status == "failed", place
        assert f"{function} changes what it is given: {place} is not what it was" in result.message
    assert judge(reference, case, "float64").status == "passed"


def test_a_judge_is_not_shown_what_the_adapter_may_change():
    """With λ set to 1 and all padding unmasked, the right answer would be another."""

    def simulate(config, params, batch, t_conv, rule, dtype):
        config["leak"] = 1.0
        batch["attention_mask"][:] = 1
        return reference.simulate(config, params, batch, t_conv, rule, dtype)

    result = judge(reference_with(simulate=simulate), CASES["simulate/inst-leak"], "float64")
    assert result.status == "failed" and "config['leak']" in result.message
    assert CASES["simulate/inst-leak"].settings["config"]["leak"] == 0.9
    assert not CASES["simulate/inst-leak"].inputs["batch/attention_mask"].all()


RIGHT = "from refsnn.conformance.reference import *\nfrom refsnn.conformance import reference\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import sys; sys.exit(0)", "neurons raised SystemExit: 0"),
        ("import os; os._exit(0)", "neurons ended the process (exit status 0)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended the process (signal SIGSEGV)"),
        ("import time; time.sleep(1000)", "neurons did not end within 2 s"),
        ("raise ValueError('\\ud800')", "ValueError: \\ud800"),
        ("raise type('E', (Exception,), {'__str__': lambda self: 1 / 0})", "without words"),
        ("raise ValueError('x' * 10**6)", "[…]"),
        ("print('\\ud800', flush=True); raise KeyError('spikes')", "KeyError: 'spikes'"),
        ("import sys; sys.stdin.read(); return reference.neurons(*given) + 0j", "its type is complex128"),
        ("return reference.neurons(*given).astype(object)", "its type is object"),
        ("return reference.neurons(*given).astype(str)", "its type is <U"),
        ("return reference.neurons(*given).astype('M8[s]')", "its type is datetime64"),
        ("return np.ma.masked_array(reference.neurons(*given), False)", "masked array"),
        ("return None", "missing from the answer"),
        ("return {'spikes': reference.neurons(*given)}", "its type is object"),
        ("return reference.neurons(*given)[..., :-1]", "shape"),
        ("return np.nan * reference.neurons(*given)", "is nan"),
    ],
)
def test_one_bad_case_is_named_and_the_others_are_judged(body, words, conformed):
    source = f"""
        import numpy as np
        from refsnn.conformance import reference
        dtypes = ("float64",)
        def neurons(*given):
            if given[1]["vth"] != 2.0:
                return reference.neurons(*given)
            {body}
        def supports(feature, dtype):
            return feature == "neurons"
    """
    status, report, printed, errors = conformed(source, "neurons/*", "--timeout", "2")
    assert status == 1, errors
    failed = [r for r in report["results"] if r["status"] == "failed"]
    assert [r["case"] for r in failed] == ["neurons/threshold"] and words in failed[0]["message"]
    assert sum(r["status"] == "passed" for r in report["results"]) >= 7
    assert "often" not in failed[0]["message"] and "answers where" not in failed[0]["message"]
    assert "neurons/threshold[float64]" in printed


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os; os._exit(0)", "its import ended the process (exit status 0)"),
        ("raise RuntimeError('no device')", "RuntimeError: no device"),
        ("def (", "SyntaxError"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("x = 1", "none of the functions"),
        (RIGHT + "dtypes = ()", "the adapter's dtypes are empty"),
        (RIGHT + "dtypes = 'float32'", "a tuple of names was expected"),
        (RIGHT + "dtypes = ('float33',)", "the precision is 'float33'"),
        (RIGHT + "dtypes = (32,)", "the precision is 32"),
    ],
)
def test_an_adapter_that_cannot_be_asked_is_status_2_and_a_sentence(source, words, conformed):
    status, report, printed, errors = conformed(source)
    assert status == 2 and report is None and printed == ""
    assert words in errors.splitlines()[-1]


def test_an_import_that_hangs_is_over_in_time(conformed):
    status, _, _, errors = conformed("import time; time.sleep(1000)", "neurons/ties", "--timeout", "1.5")
    assert status == 2 and "its import did not end within 1.5 s" in errors


@pytest.mark.parametrize(
    ("source", "status", "words"),
    [
        (RIGHT + "def supports(*given): return False", 2, "nothing was tested: 2 unsupported"),
        (RIGHT + "dtypes = ('bfloat16',)\nneurons = None", 2, "nothing was tested: 1 unsupported"),
        (RIGHT + "def supports(*given): raise OSError('licence')", 1, "supports raised OSError: licence"),
        (RIGHT + "def supports(*given): return None", 1, "supports('neurons', 'float64') is None"),
        (RIGHT + "def supports(*given): return 'no'", 1, "but True or False was expected"),
    ],
)
def test_what_was_not_tested_has_not_passed(source, status, words, conformed):
    found, report, printed, errors = conformed(source)
    assert found == status and report["passed"] == 0
    assert words in " ".join((printed + errors).split())


def test_precisions_that_no_case_has_are_status_2(conformed):
    status, report, _, errors = conformed(RIGHT + "dtypes = ('bfloat16',)", "gradients/*")
    assert status == 2 and report["cases"] == 0 and "no case has a precision that was asked for" in errors


def test_a_tensor_that_needs_a_gradient_is_a_failure_by_name():
    torch = pytest.importorskip("torch")
    wrong = reference_with(op=lambda name, a, c, d: torch.tensor(a["x"], requires_grad=True) * 1.0)
    results = list(conform(wrong, [CASES["op/gelu"], CASES["pullback/gelu"]], ["float64"]))
    assert [r.status for r in results] == ["failed", "passed"] and "detach()" in results[0].message


@pytest.mark.parametrize("found", [[1, 2], None, 3.0, "spikes"])
def test_an_answer_that_is_no_dict_is_a_failure_by_name(found):
    for function in ("pullback", "rate_map", "simulate", "gradients", "update"):
        result = judge(reference_with(**{function: lambda *given: found}), FIRST[function], "float64")
        assert result.status == "failed" and "but a dict of arrays was expected" in result.message
    wrong = reference_with(simulate=lambda *given: {1: "spikes", **reference.simulate(*given)})
    assert "1 is no array of real numbers" in judge(wrong, FIRST["simulate"], "float64").message


def test_a_child_answers_as_the_module_does_and_starts_again_after_a_death(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "fragile.py").write_text(
        RIGHT + "import os\ndef asr(*given): os._exit(3)\nname = 'fragile \\ud800'\n", encoding="utf-8"
    )
    with Child("fragile", 30) as child:
        assert child.name == "fragile \\ud800" and child.dtypes == ("float64", "float32")
        for case in FIRST.values():
            reply = child.ask(case, "float32")
            if case.function == "asr":
                assert reply.problem == "asr ended the process (exit status 3)"
                continue
            here = ask(reference, case, "float32")
            assert list(reply.answer) == list(here.answer) and not reply.problem
            for name, value in here.answer.items():
                assert reply.answer[name].dtype == value.dtype and np.array_equal(reply.answer[name], value)
        process = child.process
    assert process.poll() is not None


def test_a_process_that_answers_twice_is_heard_once(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    source = RIGHT + "import os, time\n"
    source += "def neurons(*given):\n    os.fork() or time.sleep(0.5)\n    return reference.neurons(*given)\n"
    (tmp_path / "forks.py").write_text(source, encoding="utf-8")
    with Child("forks", 30) as child:
        assert not child.ask(CASES["neurons/ties"], "float64").problem
        assert set(child.ask(CASES["asr/16-leak-1"], "float64").answer) == {"asr"}


def test_options_stop_at_the_first_failure_show_tracebacks_and_share_the_work(conformed):
    source = RIGHT + "def asr(*given):\n    return deeper()\ndef deeper():\n    return 1 / 0\n"
    status, report, printed, _ = conformed(source, "asr/*", "-x", "--traceback", "--dtype", "float64")
    assert status == 1 and report["cases"] == 1 and "1 of 5 cases were put" in printed
    assert "Traceback (most recent call last)" in printed
    message = report["results"][0]["message"]
    assert "wrong.py:4 in asr: return deeper(); then wrong.py:6 in deeper: return 1 / 0" in message
    _, one, _, _ = conformed(source, "asr/*")
    _, two, _, _ = conformed(source, "asr/*", "--jobs", "2")
    assert one["results"] == two["results"] and len(one["results"]) == 10


def test_a_run_that_is_interrupted_writes_what_was_judged(tmp_path):
    (tmp_path / "slow.py").write_text(
        RIGHT + "import time\ndef pullback(*given):\n    time.sleep(100)\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "refsnn", "conform", "slow", "--only", "*/linear", "--json", "out.json"]
    command += ["--dtype", "float64"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(6)
        process.send_signal(2)
        printed, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [r["case"] for r in report["results"]] == ["op/linear"] and "1 of 2 cases were put" in printed


def test_reports_that_cannot_be_written_are_refused_before_the_cases_run(conformed, tmp_path):
    status, _, printed, errors = conformed(RIGHT, "neurons/ties", "--json", "no/such/folder.json")
    assert status == 2 and printed == "" and "cannot write no/such/folder.json" in errors


def test_text_of_any_kind_can_be_written():
    assert plain_text("a\ud800b\0", 10) == "a\\ud800b\\0"
    with pytest.raises(InputError, match="cannot be imported"):
        Child("no.such.module", 30)
