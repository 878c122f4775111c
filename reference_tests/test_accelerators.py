"""Precisions of accelerators: float32, but for what enters matrix products, which is shorter."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the backends are written in PyTorch, which is not installed")

import on_a_gpu
import torch
from backends.torch_backend import Torch

from refsnn.conformance.cases import cases
from refsnn.conformance.child import Child
from refsnn.conformance.judge import certified, conform, expectation, first_wrong, judge
from refsnn.errors import InputError
from refsnn.ops.rounding import MIXED, PRECISIONS, Enclosed, Precision, cut, linear

CASES = {case.id: case for case in cases("tiny")}
ASKED = [case for case in CASES.values() if case.function not in ("gradients", "update", "pullback")]


class Short(Torch):
    """PyTorch in float32 whose matrix products round what enters them, as tensor cores do."""

    def __init__(self, unit):
        self.unit = unit

    dtypes = ("float32", *MIXED)

    def entering(self, x):
        return x + (torch.as_tensor(cut(x.detach().numpy(), self.unit), dtype=x.dtype) - x).detach()

    def linear(self, x, weight, bias=None):
        return super().linear(self.entering(x), self.entering(weight), bias)

    def attention_scores(self, query, key, mask, heads):
        return super().attention_scores(self.entering(query), self.entering(key), mask, heads)

    def attention(self, query, key, value, mask, heads):
        weights = self.softmax(self.attention_scores(query, key, mask, heads))
        return self.merge_heads(self.entering(weights) @ self.split_heads(self.entering(value), heads))


@pytest.mark.parametrize("dtype", MIXED)
def test_products_of_short_inputs_pass_under_their_own_name(dtype):
    backend = Short(PRECISIONS[dtype].product)
    results = list(conform(backend, ASKED, [dtype]))
    assert len(results) >= 70 and [r.message for r in results if r.status != "passed"] == []


def test_tf32_under_the_name_of_float32_fails_and_is_named_with_the_line_that_turns_it_off():
    results = list(conform(Short(2.0**-11), ASKED, ["float32"]))
    failed = {r.case: r.message for r in results if r.status == "failed"}
    assert "op/linear-wide-float32" in failed and "op/attention" in failed and "rate_map/network" in failed
    assert "TF32 was used" in failed["op/linear-wide-float32"]
    for case in ("op/linear-wide-float32", "op/attention", "rate_map/network"):
        assert "torch.set_float32_matmul_precision('highest')" in failed[case]
        assert "jax_default_matmul_precision" in failed[case]
    assert not any("division by V_th" in message for message in failed.values())


def test_bfloat16_products_under_the_name_of_float32_are_not_called_tf32():
    message = judge(Short(2.0**-8), CASES["op/linear-wide-float32"], "float32").message
    assert "rounded to bfloat16" in message and "TF32" not in message


@pytest.mark.parametrize("name", ["op/gelu", "op/layer_norm", "op/softmax", "neurons/random", "op/linear-integers"])
def test_what_takes_no_products_is_asked_as_precisely_as_in_float32(name):
    case = CASES[name]
    if case.function == "neurons" or case.exact:
        assert case.exact_in("tf32") == case.exact_in("bfloat16")
        return
    expected = expectation(case)
    for quantity in expected.values:
        assert expected.tolerance(quantity, "tf32") == expected.tolerance(quantity, "float32")
    sharper, plain = CASES["op/attention"], expectation(CASES["op/attention"])
    assert sharper.multiplies and plain.tolerance("y", "tf32") == 2.0**13 * plain.tolerance("y", "float32")


@pytest.mark.parametrize("dtype", MIXED)
def test_records_are_certified_in_these_precisions_and_wrong_ones_found(dtype):
    case = CASES["simulate/inst"]
    backend = Short(PRECISIONS[dtype].product)
    given = case.settings, {k.partition("/")[2]: v for k, v in case.inputs.items() if k.startswith("param/")}
    batch = {k.partition("/")[2]: v for k, v in case.inputs.items() if k.startswith("batch/")}
    spikes = backend.simulate(given[0]["config"], given[1], batch, 16, "inst", dtype)
    verdicts = certified(case, spikes, dtype)
    assert first_wrong(verdicts) == ""
    finer = certified(case, spikes, "float32")
    for name, verdict in verdicts.items():
        assert verdict.undecidable >= finer[name].undecidable and verdict.largest_bound >= finer[name].largest_bound
    spikes["encoder.0.key"] = 1 - spikes["encoder.0.key"]
    assert first_wrong(certified(case, spikes, dtype))


@pytest.mark.parametrize("dtype", MIXED)
def test_bounds_hold_and_spikes_that_meet_short_weights_are_exact(dtype):
    rng = np.random.default_rng(0)
    precision, unit = Precision.named(dtype), PRECISIONS[dtype].product
    weight, spikes = rng.normal(size=(20, 64)), (rng.random((9, 64)) < 0.4).astype(float)
    x = rng.normal(size=(9, 64))
    for read in (spikes, x):
        found = cut(read, unit) @ cut(weight.astype(np.float32), unit).T
        bound = linear(Enclosed.exact(read), weight, None, precision)
        assert (np.abs(found - bound.value) <= bound.error).all()
        assert np.abs(found - bound.value).max() >= 2e-3 * bound.error.max()  # and not by orders of magnitude
    short = linear(Enclosed.exact(spikes), cut(weight, unit), None, precision)
    plain = linear(Enclosed.exact(spikes), cut(weight, unit), None, Precision.named("float32"))
    assert np.array_equal(short.error, plain.error)
    once, twice = (linear(Enclosed.exact(read), weight, None, precision).error.max() for read in (spikes, x))
    assert once < unit * 1.1 * np.abs(weight).sum(axis=1).max() and twice > once


def test_the_adapters_pass_on_a_gpu_where_there_is_one(tmp_path):
    """Everything but what claims float32 with TF32 left on, which must fail."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU; python reference_tests/on_a_gpu.py runs the same by hand")
    script = Path(__file__).with_name("on_a_gpu.py")
    found = subprocess.run([sys.executable, script, "--out", tmp_path], capture_output=True, text=True, check=True)
    lines = [line.split("|") for line in found.stdout.splitlines() if re.search(r"\d+ of \d+", line)]
    assert len(lines) >= 9 and len(list(tmp_path.iterdir())) <= 8
    for _, backend, _, dtype, passed, failed, *_ in lines:
        assert bool(failed.strip()) == ("left on" in backend), (backend, dtype, passed, failed)


@pytest.mark.slow
def test_a_run_that_fails_or_hangs_is_one_line_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "hangs.py").write_text("def asr(*given):\n    import time\n    time.sleep(600)\n")
    (tmp_path / "backends" / "answers.py").write_text("from refsnn.conformance.reference import asr, dtypes\n")
    monkeypatch.setattr(on_a_gpu, "HERE", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    names = ("nowhere", "hangs", "answers")
    runs = [on_a_gpu.Run(name, name, ("float64",), only="asr/*") for name in names]
    monkeypatch.setattr(on_a_gpu, "RUNS", runs)
    monkeypatch.setattr(on_a_gpu, "LAST", 2.0)
    monkeypatch.setattr(sys, "argv", ["on_a_gpu.py", "--device", "cpu", "--out", str(tmp_path / "out"), "--each", "25"])
    assert on_a_gpu.main() == 0
    nowhere, hangs, answers = capsys.readouterr().out.splitlines()[-3:]
    assert "| nowhere | tiny | float64 | not run: " in nowhere and "cannot be imported" in nowhere
    assert "not run: " in hangs and "stopped" in hangs
    assert "5 of 5" in answers and "stopped" not in answers
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8").splitlines()
    assert table[0] == "Device: CPU" and table[-3:] == [nowhere, hangs, answers]


@pytest.mark.parametrize("backend", ["torch_backend", "jax_backend"])
def test_adapters_refuse_a_device_that_is_not_there(backend, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    pytest.importorskip(backend.partition("_")[0], reason="the backend's package is not installed")
    monkeypatch.setenv("REFSNN_DEVICE", "cuda")
    with pytest.raises(InputError, match=r"REFSNN_DEVICE is cuda, but (PyTorch|JAX) sees") as error:
        Child(f"backends.{backend}")
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "only"), [("torch_backend", "neurons/subtract"), ("torch_backend", "rate_map/encoder"),
                          ("jax_backend", "rate_map/network"), ("jax_backend", "gradients/internal-combined")]
)  # fmt: skip
def test_compiled_adapters_pass(backend, only, monkeypatch):
    pytest.importorskip(backend.partition("_")[0], reason="the backend's package is not installed")
    monkeypatch.setenv("REFSNN_COMPILE", "1")
    with Child(f"backends.{backend}", timeout=600) as child:
        result = judge(child, CASES[only], "float32")
        assert result.status == "passed", result.message
