"""Golden bundles: written, verified, damaged; and the one in the repository, on other threads and kernels."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from refsnn.commands.cli import main
from refsnn.conformance.cases import cases
from refsnn.conformance.golden import SCHEMA, verify_bundle, write_bundle
from refsnn.errors import InputError

TINY = Path(__file__).parent / "golden" / "tiny"


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def change(path, name, alter):
    tensors = load_file(path)
    tensors[name] = np.asarray(alter(tensors[name]))
    save_file(tensors, path)


@pytest.fixture
def bundle(tmp_path):
    shutil.copytree(TINY, tmp_path / "tiny")
    return tmp_path / "tiny"


def test_the_repositorys_bundle_is_what_is_computed_today(capsys):
    assert main(["golden", "verify", str(TINY)]) == 0
    assert "the same" in capsys.readouterr().out
    assert sum(path.stat().st_size for path in files(TINY)) <= 1_000_000


def test_writing_gives_the_same_bytes(tmp_path):
    """All but the manifest, which names the versions that wrote it; cases whose sums round may differ in a last bit."""
    write_bundle(tmp_path, "tiny")
    assert [path.relative_to(tmp_path) for path in files(tmp_path)] == [path.relative_to(TINY) for path in files(TINY)]
    for case in cases("tiny"):
        if "float64" in case.exact:
            name = f"{case.id}.safetensors"
            assert (tmp_path / name).read_bytes() == (TINY / name).read_bytes(), name


@pytest.mark.parametrize(
    "machine",
    [
        {"OPENBLAS_NUM_THREADS": "1"},
        {"OPENBLAS_NUM_THREADS": "2"},
        {"OPENBLAS_CORETYPE": "Prescott"},
        {"OPENBLAS_CORETYPE": "Haswell"},
    ],
    ids=lambda machine: "=".join(*machine.items()),
)
def test_other_threads_and_kernels_give_the_same_numbers(machine):
    command = [sys.executable, "-m", "refsnn", "golden", "verify", str(TINY)]
    found = subprocess.run(command, capture_output=True, text=True, env=os.environ | machine)
    assert found.returncode == 0, found.stdout + found.stderr


def test_manifest_says_what_a_reader_needs():
    said = json.loads((TINY / "manifest.json").read_text(encoding="utf-8"))
    assert said["schema"] == SCHEMA
    assert {"refsnn", "commit", "numpy", "scipy", "blas", "python"} <= set(said["generator"])
    for name, case in said["cases"].items():
        tensors = load_file(TINY / case["file"])
        assert {f"output/{output}" for output in case["outputs"]} == {t for t in tensors if t.startswith("output/")}
        for about in case["outputs"].values():
            assert about["requirement"].startswith("S-")
            kinds = set(case["unique"].values())
            assert kinds <= {"exact", "tolerance", "certificate"}
            by_value = case["function"] not in ("neurons", "simulate")
            assert set(about["tolerance"]) == (set(case["unique"]) if by_value else set()), name
    solver = said["cases"]["gradients/internal-feedback"]["solver"]
    assert solver["residual"] <= 10 * solver["adjoint_tolerance"] and solver["sweeps"] > 2 and solver["products"] > 2
    levels = {case["level"] for case in said["cases"].values()}
    assert levels == {"neuron", "op", "population", "encoder", "network", "distillation"}


@pytest.mark.parametrize(
    ("name", "tensor", "alter", "words"),
    [
        ("op/gelu", "output/y", lambda y: y * (1 + 1e-12), "times the tolerance"),
        ("op/gelu", "output/y", lambda y: np.where(y == y.max(), np.nan, y), "times the tolerance"),
        ("op/linear-integers", "output/y", lambda y: y + 1e-15 * np.abs(y), "differ"),
        ("op/gelu", "input/x", lambda x: np.nextafter(x, 9), "entries differ"),
        ("neurons/ties", "output/spikes", lambda s: 1 - s, "entries differ"),
        ("neurons/ties", "constant/vth", lambda v: 2 * v, "entries differ"),
        ("simulate/running", "output/encoder.1.key", lambda s: 1 - s, "wrong"),
        ("gradients/internal", "output/loss", lambda x: x + 1e-9, "times the tolerance"),
        ("op/relu", "output/y", lambda y: y[:-1], "expected"),
    ],
)
def test_a_changed_number_is_found(bundle, name, tensor, alter, words):
    change(bundle / f"{name}.safetensors", tensor, alter)
    _, _, differences = verify_bundle(bundle)
    assert len(differences) == 1
    assert differences[0].case == name and words in differences[0].message
    assert main(["golden", "verify", str(bundle)]) == 1


def test_damaged_bundles_get_one_sentence(bundle, capsys):
    path = bundle / "op" / "gelu.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert main(["golden", "verify", str(bundle)]) == 2
    assert "truncated" in capsys.readouterr().err
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        verify_bundle(bundle)
    (bundle / "manifest.json").write_text('{"schema": "other/9"}')
    with pytest.raises(InputError, match="other/9"):
        verify_bundle(bundle)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")
def test_the_c_program_agrees_with_every_golden_neuron(tmp_path):
    source = Path(__file__).parent / "backends" / "integrate_and_fire.c"
    program = tmp_path / "integrate_and_fire"
    subprocess.run(["cc", "-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    paths = sorted((TINY / "neurons").glob("*.safetensors"))
    assert len(paths) >= 10
    for path in paths:
        found = subprocess.run([program, path], capture_output=True, text=True)
        assert found.returncode == 0, f"{path.name}: {found.stdout}{found.stderr}"
