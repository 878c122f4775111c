"""The kit itself: what it passes, what it fails and how it says so; and the real backends held to it."""

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from refsnn.commands.cli import main
from refsnn.conformance import reference
from refsnn.conformance.cases import SUITES, call, cases, eight_bits, fingerprint
from refsnn.conformance.judge import ROUNDINGS, Exemption, Result, conform, expectation, judge, read_exemptions
from refsnn.conformance.recognise import recognise
from refsnn.conformance.report import RESULTS, stale, status_counts, write_html_report
from refsnn.conformance.requirements import PAGE, REQUIREMENTS, SITE
from refsnn.conformance.run import mend_first
from refsnn.errors import InputError
from refsnn.ops.rounding import PRECISIONS

HERE = Path(__file__).parent
CASES = {case.id: case for suite in ("tiny", "signed", "gpt") for case in cases(suite)}


def adapter(**functions):
    """The reference with some functions replaced."""
    return SimpleNamespace(**{**{name: getattr(reference, name) for name in reference.__all__}, **functions})


# ---------------------------------------------------------------------------------------------------------------------
# Cases


def test_every_requirement_has_a_case():
    shown = {r for case in CASES.values() for r in (case.requirement, *case.named.values())}
    assert shown == set(REQUIREMENTS)


@pytest.mark.parametrize("suite", SUITES)
def test_inputs_are_numbers_that_every_precision_has(suite):
    for case in cases(suite):
        for name, value in case.inputs.items():
            if value.dtype.kind == "f" and "bfloat16" in case.dtypes and name != "mask":
                assert np.array_equal(value, eight_bits(value)), f"{case.id}, {name}"


#: Cases that hold no random number.
FIXED = [f"neurons/{kind}" for kind in ("ties", "one-spike", "impulse", "tie-rule")]
FIXED += [f"neurons/{polarity}-{kind}" for polarity in ("retractable", "ternary") for kind in ("ties", "tie-rule")]
FIXED += ["op/gelu", "op/rate", "op/rate-ternary", "op/gelu_tanh"]


def test_one_seed_fixes_every_number_and_another_changes_them():
    again, other = ([case for suite in ("tiny", "signed", "gpt") for case in cases(suite, seed)] for seed in (0, 1))
    assert [case.id for case in again] == [case.id for case in other] == list(CASES)
    for case, new in zip(again, other, strict=True):
        assert all(np.array_equal(value, CASES[case.id].inputs[name]) for name, value in case.inputs.items())
        if case.id not in FIXED:
            assert any(not np.array_equal(value, case.inputs[name]) for name, value in new.inputs.items()), case.id


@pytest.mark.parametrize("seed", [1, 3, 5, 7])
def test_every_seed_has_its_equilibria_and_the_reference_passes(seed):
    """With seeds 1, 3 and 5 of the tiny suite the feedback as it is drawn does not contract."""
    solved = [case for case in cases("tiny", seed) if "feedback" in case.id or "combined" in case.id]
    assert len(solved) >= 8
    assert {result.status for result in conform(reference, solved)} == {"passed"}


def test_feedback_that_contracts_is_left_as_it_is_drawn():
    drawn = [c.inputs["param/feedback.weight"] for c in cases("tiny", version=1) if c.id == "rate_map/feedback"]
    assert 0.29 < np.linalg.norm(drawn[0], 2) < 0.31
    halved = [c.inputs["param/feedback.weight"] for c in cases("tiny", 3, 1) if c.id == "rate_map/feedback"]
    assert np.linalg.norm(halved[0], 2) < 0.16


def test_a_later_version_adds_cases_and_changes_none():
    for seed in (0, 1):
        first, second = cases("tiny", seed, 1), {case.id: case for case in cases("tiny", seed)}
        assert len(second) >= len(first) + 30
        assert fingerprint(first) == fingerprint([second[case.id] for case in first]) != fingerprint(second.values())
    order = [case.level for case in cases("tiny")]
    assert order == sorted(order, key=["neuron", "op", "population", "encoder", "network", "distillation"].index)


def test_seeds_are_ranges_and_results_name_theirs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "skips").write_text("neurons/subtract # not today\n")
    arguments = ["conform", "refsnn.conformance.reference", "--only", "neurons/[rs]*", "--dtype", "float64"]
    assert main([*arguments, "--seeds", "2-4", "--json", "out.json", "--skips", "skips"]) == 0
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert report["seed"] == "2-4" and report["version"] == 2 and len(report["cases_hash"]) == 12
    assert [r["status"] for r in report["results"] if r["case"].startswith("neurons/subtract@")] == ["skipped"] * 3
    assert "neurons/random@3" in {r["case"] for r in report["results"]}
    for wrong in ("4-2", "x", "1-", "-1", "0-9-"):
        assert main([*arguments, f"--seeds={wrong}"]) == 2
        assert "two numbers that rise" in capsys.readouterr().err


def test_exact_cases_do_not_round():
    """The same answers in longer and shorter arithmetic, and with every sum taken in another order."""
    rng = np.random.default_rng(0)
    for case in CASES.values():
        if not case.exact:
            continue
        shorter = np.float64 if case.exact == ("float64",) else np.float32
        for kind in (np.longdouble, shorter):
            inputs = {k: v.astype(kind) if v.dtype.kind == "f" else v for k, v in case.inputs.items()}
            if case.function in ("neurons", "asr") or kind is shorter:  # SciPy's erf has no long double
                answer = call(reference, case, inputs, "float64")
                for name, value in expectation(case).values.items():
                    assert np.array_equal(np.asarray(answer[name], float), value), f"{case.id}, {name}, {kind}"
    case = CASES["op/linear-integers"]
    order = rng.permutation(case.inputs["x"].shape[1])
    x, weight, bias = (case.inputs[name] for name in ("x", "weight", "bias"))
    assert np.array_equal(x[:, order] @ weight[:, order].T + bias, expectation(case).values["y"])


def test_exact_neurons_fit_bfloat16():
    """No potential has more than eight bits, so the loop does not round in bfloat16 either."""
    for case in CASES.values():
        if case.function == "neurons" and "bfloat16" in case.exact:
            vth, u0 = case.settings["neuron"]["vth"], case.settings["neuron"]["u0"]
            u = np.full(case.inputs["current"].shape[1:], u0 * vth)
            for now, spikes in zip(case.inputs["current"], expectation(case).values["spikes"], strict=True):
                u = u + now
                assert np.array_equal(u, eight_bits(u)), case.id
                u = u - vth * spikes
                assert np.array_equal(u, eight_bits(u)), case.id


# ---------------------------------------------------------------------------------------------------------------------
# Judgements


def test_the_reference_passes():
    assert {result.status for result in conform(reference, list(CASES.values()))} == {"passed"}


@pytest.mark.parametrize("case", [c for c in CASES.values() if c.function not in ("neurons", "simulate")],
                         ids=lambda case: case.id)  # fmt: skip
def test_an_answer_a_hundred_tolerances_off_fails_and_half_a_tolerance_passes(case, monkeypatch):
    """Every single quantity is looked at: each is moved alone, in one random entry."""
    monkeypatch.setattr("refsnn.conformance.judge.recognise", lambda *_: None)  # hints have tests of their own
    rng = np.random.default_rng(0)
    expected = expectation(case)
    dtype = case.dtypes[0]
    right = []  # the reference's answer, computed once

    for quantity, value in expected.values.items():
        if quantity == "padding row" or not value.size:
            continue
        at = tuple(int(rng.integers(n)) for n in value.shape)
        for factor, status in ((100, "failed"), (0.5, "passed")):
            off = factor * expected.tolerance(quantity, dtype) * expected.scales[quantity]
            if value[at] < -1000 and (quantity == "y" or quantity.startswith("scores/")):
                off = factor * ROUNDINGS * PRECISIONS[dtype].unit * -value[at]  # a masked score
            if dtype in case.exact and status == "passed":
                continue

            def moved(*arguments, off=off, quantity=quantity, at=at, case=case):
                name = quantity.removeprefix("d") if case.function == "pullback" else quantity
                if not right:
                    right.append(getattr(reference, case.function)(*arguments))
                (answer,) = right
                if case.function in ("op", "asr", "current"):
                    answer = np.array(answer, float)
                    answer[at] += off
                    return answer
                answer = {key: np.array(entry, float) for key, entry in answer.items()}
                answer[name][at] += off
                return answer

            result = judge(adapter(**{case.function: moved}), case, dtype)
            assert result.status == status, f"{quantity}{at} {factor}: {result.message}"
            if status == "failed":
                assert result.requirement in (case.requirement_of(quantity), "S-10")
                assert result.requirement in result.message and REQUIREMENTS[result.requirement].link in result.message


@pytest.mark.parametrize("case", [c for c in CASES.values() if c.function in ("neurons", "simulate")],
                         ids=lambda case: case.id)  # fmt: skip
def test_a_flipped_spike_fails(case):
    rng = np.random.default_rng(0)

    def flipped(*arguments):
        answer = getattr(reference, case.function)(*arguments)
        trains = {"spikes": answer} if case.function == "neurons" else answer
        name = list(trains)[int(rng.integers(len(trains)))]
        trains[name] = trains[name].copy()
        at = tuple(int(rng.integers(n)) for n in trains[name].shape)
        trains[name][at] = 1 - abs(trains[name][at])
        return trains["spikes"] if case.function == "neurons" else trains

    result = judge(adapter(**{case.function: flipped}), case, "float64")
    assert result.status == "failed"
    assert "the first is of" in result.message or "exactly" in result.message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda y: y[..., :-1], "shape"),
        (lambda y: np.full_like(y, np.nan), "nan"),
        (lambda y: None, "missing"),
        (lambda y: "spikes", "no array of real numbers"),
        (lambda y: y + 0.25, "times the tolerance"),
    ],
)
def test_malformed_answers_fail_with_a_sentence(answer, words):
    wrong = adapter(op=lambda *arguments: answer(reference.op(*arguments)))
    result = judge(wrong, CASES["op/gelu"], "float64")
    assert result.status == "failed" and words in result.message and "S-13" in result.message


def test_a_backend_that_raises_fails_and_the_others_go_on():
    def broken(name, arrays, constants, dtype):
        raise RuntimeError("out of memory")

    results = list(conform(adapter(op=broken), [CASES["op/gelu"], CASES["pullback/gelu"]], ["float64"]))
    assert [r.status for r in results] == ["failed", "passed"]
    assert "RuntimeError: out of memory" in results[0].message


def test_the_likely_mistake_is_named_and_so_is_a_constant_factor():
    def doubled(name, arrays, constants, dtype):
        return 2 * reference.op(name, arrays, constants, dtype)

    assert "multiplied by 2" in judge(adapter(op=doubled), CASES["op/gelu"], "float64").message
    single = judge(adapter(op=doubled), CASES["op/soft_cross_entropy"], "float64")
    assert (
        single.status == "failed" and "everything is multiplied" not in single.message
    )  # any number is a multiple of another
    tanh = adapter(
        op=lambda name, a, c, dtype: a["x"] / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a["x"] + 0.044715 * a["x"] ** 3)))
    )
    assert "tanh approximation" in judge(tanh, CASES["op/gelu"], "float64").message


# ---------------------------------------------------------------------------------------------------------------------
# Partial backends and rules


def test_what_is_unsupported_stays_in_the_denominator():
    partial = SimpleNamespace(neurons=reference.neurons, dtypes=("float64",), supports=lambda f, d: f != "neurons:lif")
    results = list(conform(partial, list(CASES.values())))
    assert len(results) == sum("float64" in case.dtypes for case in CASES.values())
    assert {r.status for r in results} == {"passed", "unsupported"}
    lif = [r for r in results if r.case == "neurons/random-leak"]
    assert lif[0].status == "unsupported" and "neurons:lif" in lif[0].message
    assert sum(status_counts(results)["neuron"].values()) == sum(c.level == "neuron" for c in CASES.values())


def test_skips_and_xfails_carry_reasons_and_stale_ones_are_told(tmp_path):
    path = tmp_path / "xfails"
    path.write_text(
        "# comment\nop/gelu[float64]  # fast tanh form\nop/relu # stale\nnothing/* # gone\n", encoding="utf-8"
    )
    wrong = adapter(op=lambda name, a, c, d: reference.op(name, a, c, d) + (name == "gelu"))
    xfails, skips = read_exemptions(path), [Exemption("op/tanh", "slow")]
    chosen = [CASES[name] for name in ("op/gelu", "op/relu", "op/tanh")]
    results = {r.id: r for r in conform(wrong, chosen, ["float64", "float32"], skips, xfails)}
    assert results["op/gelu[float64]"].status == "xfailed" and "fast tanh form" in results["op/gelu[float64]"].message
    assert results["op/gelu[float32]"].status == "failed"
    assert results["op/relu[float64]"].status == "xpassed"
    assert results["op/tanh[float32]"].status == "skipped"
    warnings = stale(list(results.values()), skips, xfails)
    assert len(warnings) == 3 and "nothing/*" in warnings[0] and "op/relu" in warnings[1]


def test_a_rule_without_a_reason_is_refused(tmp_path):
    (tmp_path / "skips").write_text("op/gelu\n")
    with pytest.raises(InputError, match=r"line 1.*reason"):
        read_exemptions(tmp_path / "skips")


# ---------------------------------------------------------------------------------------------------------------------
# Commands


def test_conform_command_writes_both_reports(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "name = 'mine <1>'\n"
        "def neurons(current, neuron, dtype):\n"
        "    u, spikes = np.zeros_like(current[0]), np.zeros_like(current)\n"
        "    for t, now in enumerate(current):\n"
        "        u = u + now\n"
        "        spikes[t] = u > neuron['vth']\n"
        "        u = u - neuron['vth'] * spikes[t]\n"
        "    return spikes\n"
        "def supports(feature, dtype):\n"
        "    return feature == 'neurons'\n"
    )
    status = main(["conform", "mine", "--only", "neurons/*", "--json", "out.json", "--html", "out.html"])
    printed = capsys.readouterr().out
    assert status == 1 and "u > V_th" in " ".join(printed.split()) and "neurons/ties[float64]" in printed
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    failed = {r["case"] for r in report["results"] if r["status"] == "failed"}
    assert failed == {"neurons/ties"} and report["backend"] == "mine <1>"
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "mine &lt;1&gt;" in page and "u &gt; V_th" in page and "mine <1>" not in page


def test_the_page_s_first_adapter_fails_as_the_page_says_and_then_passes(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch", reason="the page's adapter is written in PyTorch, which is not installed")
    page = (HERE.parent / "docs" / "test-your-backend.md").read_text(encoding="utf-8")
    source = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapter.py").write_text(source, encoding="utf-8")
    assert main(["conform", "adapter"]) == 1
    printed = capsys.readouterr().out
    shown = page.partition("    $ refsnn conform adapter\n")[2].partition("\nWith `>=`")[0]
    assert shown.split() == printed.split()
    assert source.count(" > ") == 1
    (tmp_path / "adapter.py").write_text(source.replace(" > ", " >= "), encoding="utf-8")
    assert main(["conform", "adapter"]) == 0


def test_page_is_whole_hides_nothing_and_greys_out_what_is_not_supported(tmp_path):
    odd = "<script>alert(1)</script>\n\"'{{ 7 * 7 }}"
    results = [
        Result("neurons/<ties>", "float64", "S-2", "failed", odd, 3.0, "neuron"),
        Result("neurons/random", "float64", "S-1", "passed", "", 0.5, "neuron"),
        Result("op/gelu", "float64", "S-7", "unsupported", "", 0.0, "op"),
        Result("op/gelu", "float32", "S-7", "skipped", odd, 0.0, "op"),
    ]
    write_html_report(tmp_path / "page.html", odd, results, [odd], {"suite": odd})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page and unescape(page).count(odd) == 5  # title, heading, warning, suite, finding
    rows = re.findall(r'<tr( class="without")?><th scope="row"><a [^>]*>(S-\d+)</a></th>.*?</tr>', page, re.DOTALL)
    assert rows == [("", "S-1"), ("", "S-2"), (' class="without"', "S-7")]
    assert "0.50 of the tolerance" in page and page.count("not supported") == 1
    assert "1 of 4 cases passed" in page
    links = re.findall(r'(?:href|src)="([^#][^"]*)"', page)  # to the site, which is there without a checkout
    assert links == [f"{SITE}#s-{number}" for number in (2, 1, 2, 7)]


def test_a_failure_leads_to_its_requirement_on_the_site_and_not_into_a_checkout(tmp_path):
    message = f"too late. See {REQUIREMENTS['S-3'].link}"
    result = Result("neurons/time", "float64", "S-3", "failed", message, 3.0, "neuron")
    write_html_report(tmp_path / "page.html", "mine", [result], [], {})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f'too late. <a href="{SITE}#s-3">Requirement S-3</a>' in page and PAGE not in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["conform", "no.such.module"], "cannot be imported"),
        (["conform", "json"], "none of the functions"),
        (["conform", "refsnn.conformance.reference", "--only", "nothing"], "no case"),
        (["conform", "refsnn.conformance.reference", "--skips", "no-file"], "does not exist"),
        (["golden", "verify", "no-folder"], "does not exist"),
    ],
)
def test_bad_commands_get_one_sentence(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_pytest_runs_the_kit(tmp_path):
    (tmp_path / "partial.py").write_text(
        "from refsnn.conformance.reference import asr, name\n"
        "def neurons(current, neuron, dtype):\n"
        "    return 0 * current\n"
    )
    (tmp_path / "xfails").write_text("asr/10-leak-1 # to see a stale rule\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "refsnn.conformance"]
    command += ["--backend", "partial", "--backend-dtype", "float64", "--backend-xfails", "xfails"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_path(tmp_path))
    assert found.returncode == 1, found.stdout + found.stderr
    assert "neurons/ties-float64" in found.stdout and "S-2" in found.stdout
    assert "WARNING asr/10-leak-1[float64] passes" in found.stdout
    total = sum("float64" in case.dtypes for case in cases("tiny"))
    assert f"of {total} cases passed" in found.stdout


def test_pytest_of_a_backend_that_was_asked_nothing_is_no_success(tmp_path):
    (tmp_path / "partial.py").write_text("def neurons(*given): ...\ndef supports(*given): return False\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "refsnn.conformance"]
    command += ["--backend", "partial", "--backend-dtype", "float64", "-k", "ties or linear"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_path(tmp_path))
    assert found.returncode == 5 and "nothing was tested" in found.stdout, found.stdout + found.stderr


def test_ids_of_pytest_may_stand_in_a_file_of_xfails():
    for pattern in ("op/gelu-float32", "op/gelu[float32]", "op/gelu", "op/*-float32", "*"):
        assert Exemption(pattern, "why").matches("op/gelu[float32]")
    for pattern in ("op/gelu-float64", "op/gelu[float64]", "op/relu", "gelu"):
        assert not Exemption(pattern, "why").matches("op/gelu[float32]")


def test_what_is_built_on_a_wrong_part_says_what_to_mend_first():
    def op(name, arrays, constants, dtype):
        return reference.op(name, arrays, constants, dtype) + (0.25 if name in ("gelu", "tanh") else 0)

    def rate_map(*given):
        return {name: value + 0.25 for name, value in reference.rate_map(*given).items()}

    chosen = [CASES[name] for name in ("op/gelu", "op/tanh", "op/relu", "rate_map/network")]
    results = {r.case: r for r in mend_first(list(conform(adapter(op=op, rate_map=rate_map), chosen, ["float64"])))}
    assert "often" in results["op/gelu"].message
    assert "mend these first: op/gelu[float64]" in results["rate_map/network"].message
    assert "often" not in results["rate_map/network"].message and "tanh" not in results["rate_map/network"].message
    alone = mend_first(list(conform(adapter(rate_map=rate_map), chosen, ["float64"])))
    assert "mend these first" not in alone[-1].message and alone[-1].status == "failed"


def test_mistakes_that_cannot_be_told_apart_are_all_named():
    """With one position the softmax over queries is that over keys, and so on: names of equal answers are joined."""
    case = CASES["simulate/inst"]
    answer = call(reference, replace(case, settings={**case.settings, "rule": "running"}), case.inputs, "float64")
    assert "the rule is running" in recognise(case, answer, expectation(case).values, "float64")
    case = CASES["simulate/inst-leak"]  # where the neurons do not leak and V_th is 1, spikes are those of neither
    case = replace(case, settings={**case.settings, "config": {**case.settings["config"], "vth": 1.0}})
    expected = {"asr": np.array([0.5])}
    halves = replace(CASES["asr/16-leak-1"], inputs={"spikes": np.ones((2, 1))})
    found = recognise(halves, {"asr": np.array([2.0])}, expected, "float64")
    assert found == "divided by T − 1"
    with_two = replace(halves, settings={"leak": 0.5}, inputs={"spikes": np.array([[1.0], [1.0], [1.0]])})
    found = recognise(with_two, {"asr": np.array([1.0])}, expected, "float64")
    assert found and found.count(", or where ") >= 1 and "the plain mean" in found and "in reverse" in found


def test_results_are_of_a_schema_and_a_badge_counts_them(tmp_path, monkeypatch):
    jsonschema = pytest.importorskip("jsonschema")
    monkeypatch.chdir(tmp_path)
    assert main(["conform", "--new", "begun.py"]) == 0
    assert main(["conform", "--new", "begun.py"]) == 2 and main(["conform", "--new", "no-name.py"]) == 2
    assert main(["conform"]) == 2 and main(["conform", "begun", "--new", "other.py"]) == 2
    status = main(["conform", "begun", "--only", "neurons/*", "--json", "out.json", "--badge", "badge.svg"])
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert status == 1 and report["backend"] == "my backend 0.1"
    assert any("put your neurons here" in r["message"] for r in report["results"])
    for suite in SUITES:
        jsonschema.validate(report | {"suite": suite}, RESULTS)
    for change in ({"schema": "x"}, {"cases": "1"}, {"results": [{}]}, {"surplus": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(report | change, RESULTS)
    badge = (tmp_path / "badge.svg").read_text(encoding="utf-8")
    assert f">0/{report['cases']}<" in badge and "refsnn tiny v2" in badge


def _path(folder):
    import os

    before = filter(None, [os.environ.get("PYTHONPATH")])
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(HERE), *before])}


# ---------------------------------------------------------------------------------------------------------------------
# Real backends

#: Backend -> package, and the cases that it fails for reasons of its own, each with words of the explanation.
BACKENDS = {
    "torch_backend": ("torch", {}),
    "jax_backend": ("jax", {}),
    "snntorch_backend": (
        "snntorch",
        {
            "neurons/ties": "u > V_th",
            "neurons/tie-rule": "u > V_th",
            "neurons/wide-tie": "u > V_th",
            "neurons/leak-half": "leaks before the reset",
            "neurons/leak-charge": "leaks before the reset",
            "neurons/random-leak": "leaks before the reset",
        },
    ),
    "spikingjelly_backend": ("spikingjelly", {"neurons/tie-rule": "δ = 0", "neurons/wide-tie": "δ = 0"}),
    "norse_backend": (
        "norse",
        {"neurons/ties": "u > V_th", "neurons/tie-rule": "u > V_th", "neurons/wide-tie": "u > V_th"},
    ),
}


#: JAX compiles every case anew: those that version 2 of the suite added, and signed spikes, take it minutes.
REAL = [(name, 1 if name == "jax_backend" else 2) for name in BACKENDS]


@pytest.mark.parametrize(("name", "version"), [*REAL, pytest.param("jax_backend", 2, marks=pytest.mark.slow)])
def test_real_backend(name, version, monkeypatch):
    package, known = BACKENDS[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; pip install 'refsnn[backends]'")
    monkeypatch.syspath_prepend(str(HERE))
    backend = importlib.import_module(f"backends.{name}")
    results = list(conform(backend, cases("tiny", version=version) + (cases("signed") if version == 2 else [])))
    failed = {r.case: r.message for r in results if r.status == "failed"}
    assert set(failed) == set(known), "\n".join(f"{k}: {v}" for k, v in failed.items() if k not in known)
    for case, words in known.items():
        assert words in failed[case]
    assert sum(r.status == "passed" for r in results) >= 8


def test_what_is_answered_of_analogue_units_is_not_looked_at():
    """Their currents follow from the spikes, whatever a backend takes them for."""
    case = CASES["simulate/gpt-running"]

    def simulate(*arguments):
        found = reference.simulate(*arguments)
        return found | {"block.0.output": 7.5 * np.ones_like(found["final_norm"], float), "embeddings": np.zeros(3)}

    assert judge(adapter(simulate=simulate), case, "float64").status == "passed"


def test_a_real_backend_of_gpts_and_one_that_has_none(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed; pip install 'refsnn[backends]'")
    monkeypatch.syspath_prepend(str(HERE))
    gpt, bert = (importlib.import_module(f"backends.{name}") for name in ("torch_gpt", "torch_backend"))
    results = list(conform(gpt, cases("gpt")))
    assert [r.message for r in results if r.status != "passed"] == [] and {r.dtype for r in results} > {"bfloat16"}
    for case in cases("gpt"):
        if case.function in ("rate_map", "gradients"):
            answer, expected = call(gpt, case, case.inputs, "float64"), expectation(case)
            for name, value in expected.values.items():
                assert np.abs(answer[name] - value).max() <= 1e-12 * expected.scales[name], f"{case.id}, {name}"
    assert {r.status for r in conform(bert, cases("gpt"))} == {"unsupported"}


@pytest.mark.parametrize("name", ["torch_backend", "jax_backend"])
def test_independent_network_agrees_to_1e_12(name, monkeypatch):
    """Rates, losses and gradients of whole students, in float64: every quantity relative to its largest entry."""
    if importlib.util.find_spec(BACKENDS[name][0]) is None:
        pytest.skip(f"{BACKENDS[name][0]} is not installed; pip install 'refsnn[backends]'")
    monkeypatch.syspath_prepend(str(HERE))
    backend = importlib.import_module(f"backends.{name}")
    for case in cases("tiny", version=dict(REAL)[name]):
        if case.function in ("rate_map", "gradients"):
            answer = call(backend, case, case.inputs, "float64")
            expected = expectation(case)
            for quantity, value in expected.values.items():
                if quantity not in answer:
                    assert not value.any(), f"{case.id}, {quantity} is missing"
                    continue
                off = np.abs(np.asarray(answer[quantity], float) - value).max(initial=0) / expected.scales[quantity]
                assert off <= 1e-12, f"{case.id}, {quantity}: {off:.1e}"
