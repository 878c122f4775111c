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
    write_bundle(tmp_path, "tiny", version=1)
    assert [path.relative_to(tmp_path) for path in files(tmp_path)] == [path.relative_to(TINY) for path in files(TINY)]
    for case in cases("tiny", version=1):
        if "float64" in case.exact:
            name = f"{case.id}.safetensors"
            assert (tmp_path / name).read_bytes() == (TINY / name).read_bytes(), name


def test_gpts_have_a_bundle_of_their_own(tmp_path, capsys):
    folder = tmp_path / "gpt"
    assert main(["golden", "write", str(folder), "--suite", "gpt"]) == 0
    assert main(["golden", "verify", str(folder)]) == 0
    held = load_file(folder / "simulate" / "gpt-running-ternary.safetensors")
    assert held["output/final_norm"].dtype == np.int8 and "output/block.0.output" not in held
    assert held["constant/layer_norm_epsilon"] == 2.0**-6 and held["constant/n_head"] == 2


def test_signed_spikes_have_a_bundle_of_their_own(tmp_path, capsys):
    folder = tmp_path / "signed"
    assert main(["golden", "write", str(folder), "--suite", "signed"]) == 0
    assert main(["golden", "verify", str(folder)]) == 0
    kinds = {path.stem: load_file(path)["output/embeddings"].dtype for path in folder.glob("simulate/*.safetensors")}
    assert set(kinds.values()) == {np.dtype(np.int8)} and len(kinds) == 6

    def flip(train):
        train[3, 0, 0, 0] = -1 if train[3, 0, 0, 0] >= 0 else 1
        return train

    change(folder / "simulate" / "ternary-inst.safetensors", "output/encoder.0.key", flip)
    capsys.readouterr()
    assert main(["golden", "verify", str(folder)]) == 1
    assert "wrong" in capsys.readouterr().out


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


def rewrite(bundle, alter):
    path = bundle / "manifest.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    alter(said)
    path.write_text(json.dumps(said), encoding="utf-8")


def test_a_manifest_is_not_believed(bundle, capsys):
    """What it tells others, tolerances above all, must be what is computed; names too many or too few are errors."""

    def alter(said):
        case = said["cases"]["op/gelu"]
        case |= {"file": "op/relu.safetensors", "level": None}
        case["unique"]["float64"] = "exact"
        case["outputs"]["y"]["tolerance"] |= {"float64": 1e9, "float32": True, "float8": 1.0}
        case["outputs"]["y"]["scale"] = 1e9
        case["outputs"]["z"] = {}
        del said["cases"]["op/relu"]["outputs"]["y"], said["cases"]["op/tanh"]
        said["cases"]["op/glue"] = {}
        said["sizes"]["width"] = 7
        said["layout"]["real"] = "float32"
        said["seeds"] = [0]

    rewrite(bundle, alter)
    differences = verify_bundle(bundle)[2]
    assert {d.case for d in differences} == {"manifest"}
    assert {d.tensor.removeprefix("cases/") for d in differences} == {
        "op/gelu/file", "op/gelu/level", "op/gelu/unique/float64", "op/gelu/outputs/y/tolerance/float64",
        "op/gelu/outputs/y/tolerance/float32", "op/gelu/outputs/y/tolerance/float8", "op/gelu/outputs/y/scale",
        "op/gelu/outputs/z", "op/relu/outputs/y", "op/tanh", "op/glue", "sizes/width", "layout/real", "seeds",
    }  # fmt: skip
    assert main(["golden", "verify", str(bundle)]) == 1
    assert "op/gelu/outputs/y/tolerance/float64: is 1000000000.0, but" in capsys.readouterr().out


def test_who_made_a_bundle_and_how_its_solvers_fared_is_free(bundle):
    def alter(said):
        said["generator"] = {"by": "hand"}
        said["cases"]["gradients/internal-feedback"]["solver"].update(sweeps=99, products=7, residual=1e-13)
        said["cases"]["op/gelu"]["outputs"]["y"]["sensitivity"] *= 1.01  # its last digit

    rewrite(bundle, alter)
    assert verify_bundle(bundle)[2] == []


def test_files_of_no_case_and_of_another_one_are_differences(bundle):
    shutil.copy(bundle / "op" / "gelu.safetensors", bundle / "op" / "gelu-2.safetensors")
    tensors = load_file(bundle / "op" / "relu.safetensors")
    save_file(
        tensors, bundle / "op" / "relu.safetensors", {"refsnn": json.dumps({"schema": SCHEMA, "case": "op/gelu"})}
    )
    change(bundle / "op" / "linear-integers.safetensors", "output/y", lambda y: y)
    extra = load_file(bundle / "op" / "tanh.safetensors") | {"output/yy": np.zeros(1)}
    save_file(extra, bundle / "op" / "tanh.safetensors")
    path = bundle / "simulate" / "running.safetensors"
    spikes = load_file(path)
    spikes["output/encoder.9.key"] = spikes["output/encoder.1.key"]
    save_file(spikes, path)
    change(bundle / "simulate" / "inst.safetensors", "output/encoder.1.key", lambda s: s + 2)
    found = {(d.case, d.tensor) for d in verify_bundle(bundle)[2]}
    assert found == {
        ("op/gelu-2.safetensors", "file"), ("op/relu", "metadata"), ("op/tanh", "output/yy"),
        ("simulate/running", "output/encoder.9.key"), ("simulate/running", "spikes"), ("simulate/inst", "spikes"),
    }  # fmt: skip
    assert main(["golden", "verify", str(bundle)]) == 1


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda m: m.update(suite="huge"), "suite is 'huge'"),
        (lambda m: m.update(suite=["tiny"]), "suite is"),
        (lambda m: m.update(seed="0"), "seed is '0'"),
        (lambda m: m.update(seed=True), "seed is True"),
        (lambda m: m.update(seed=-1), "the seed is -1"),
        (lambda m: m.update(version=3), "the suite's version is 3"),
        (lambda m: m.update(version="2"), "the suite's version is '2'"),
        (lambda m: m.pop("seed"), "seed is missing"),
        (lambda m: m.update(cases=["op/gelu"]), "cases is"),
        (lambda m: m.update(cases={"op/gelu": 1}), "cases is"),
        (lambda m: m.pop("cases"), "cases is missing"),
        (lambda m: m.update(schema=["refsnn.golden/1"]), "holds a bundle of schema"),
    ],
)
def test_manifests_that_say_nothing_usable_get_one_sentence(bundle, alter, words, capsys):
    rewrite(bundle, alter)
    assert main(["golden", "verify", str(bundle)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err and captured.err.count("\n") == 1


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


def test_a_bundle_of_the_second_version_holds_the_cases_of_the_first_and_more(tmp_path):
    write_bundle(tmp_path, "tiny")
    said = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    old = json.loads((TINY / "manifest.json").read_text(encoding="utf-8"))
    assert said["version"] == 2 and "version" not in old
    assert set(said["cases"]) > set(old["cases"])
    assert verify_bundle(tmp_path)[2] == []
