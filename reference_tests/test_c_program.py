"""The example in C: it agrees with refsnn, says what is wrong with a file, and survives damaged ones."""

import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from refsnn.files import save_tensors
from refsnn.model.neurons import TIE_RULE, Neuron, fire

pytest.importorskip("safetensors")
SOURCE = Path(__file__).parent / "backends" / "integrate_and_fire.c"
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Werror"]


def build(folder, *options):
    if not (compiler := shutil.which("cc")):
        pytest.skip("there is no C compiler: no program called cc")
    program = folder / "integrate_and_fire"
    return program, subprocess.run(
        [compiler, *options, *WARNINGS, SOURCE, "-o", program], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    program, built = build(tmp_path_factory.mktemp("c"), "-O2")
    assert built.returncode == 0 and not built.stderr, built.stderr
    return program


@pytest.fixture(scope="module")
def checked_program(tmp_path_factory):
    """One that stops with exit code 99 wherever it touches memory or computes as C does not allow."""
    sanitizers = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program, built = build(tmp_path_factory.mktemp("c"), *sanitizers)
    return program if built.returncode == 0 else build(program.parent, "-O2")[0]  # no sanitizers on this machine


def run(program, *arguments):
    options = "exitcode=99:detect_leaks=0"
    run = subprocess.run(
        [program, *arguments], capture_output=True, timeout=20, env={"ASAN_OPTIONS": options, "UBSAN_OPTIONS": options}
    )
    return run.returncode, run.stdout.decode(), run.stderr.decode(errors="replace")


def golden(dtype="float64", shape=(40, 2, 64), **constants):
    """Tensors of a golden file, half of their currents exactly on a grid that meets the threshold."""
    rng = np.random.default_rng(3)
    normal, ties = rng.normal(0.4, 0.8, shape), rng.integers(-8, 17, shape) / 16
    current = np.where(rng.random(shape[1:]) < 0.5, normal, ties).astype(dtype)
    neuron = Neuron(**{"tie": TIE_RULE[dtype]} | constants)
    return {
        "input/current": current,
        "output/spikes": fire(current, neuron)[0],
        **{f"constant/{name}": np.float64(getattr(neuron, name)) for name in ("vth", "leak", "u0", "tie")},
    }


def save(path, tensors, metadata=None):
    save_tensors(path, tensors, metadata or {})
    return path


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "constants",
    [{}, {"leak": 0.5, "u0": 0.5}, {"vth": 0.3, "leak": 0.9, "u0": 0.2}, {"vth": 1.7, "tie": 0.0}],
    ids=str,
)
def test_the_program_computes_the_spikes_of_refsnn(program, tmp_path, dtype, constants):
    tensors = golden(dtype, **constants)
    fired = int(tensors["output/spikes"].sum())
    result = run(program, save(tmp_path / "golden.safetensors", tensors))
    assert result == (0, f"ok: 40 steps of 128 neurons, {fired} spikes, all equal\n", "")


@pytest.mark.parametrize("shape", [(40,), (1, 1), (0, 3), (3, 0), (5, 2, 2, 2)])
def test_records_of_any_shape_and_constants_of_shape_one(program, tmp_path, shape):
    tensors = {name: t.reshape(1 if name[0] == "c" else shape) for name, t in golden(shape=(*shape, 1)).items()}
    assert run(program, save(tmp_path / "golden.safetensors", tensors))[0] == 0


def test_a_flipped_spike_is_found_where_it_is(program, tmp_path):
    tensors = golden()
    tensors["output/spikes"][7, 1, 5] = 1 - (spike := tensors["output/spikes"][7, 1, 5])
    code, out, _ = run(program, save(tmp_path / "golden.safetensors", tensors))
    assert code == 1
    assert out.startswith("differs: step 8 of 40, neuron 69 (from 0): u = ")
    assert out.endswith(f"spike {spike:.0f}, file {1 - spike:.0f}\n")


def raw(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture
def parts(tmp_path):
    """Header and data of a good file, to be put together otherwise."""
    content = save(tmp_path / "good.safetensors", golden(shape=(6, 4))).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def test_a_header_is_read_as_json_and_not_searched_for_names(program, tmp_path, parts):
    header, data = parts
    trap = '"input/current": {"dtype": "I8", "shape": [[{}]], "data_offsets": [0, 1]}'
    fine = {"__metadata__": {"input/current": trap, trap: "}]", "constant/vth": "\\"}} | header
    path = tmp_path / "golden.safetensors"
    for content in (
        json.dumps(fine),
        json.dumps(fine, indent=3) + "   ",  # writers pad headers with spaces
        json.dumps(fine).replace("/", "\\/"),  # a slash may be escaped
        json.dumps({"other": {"extra": [{"a": [1, -2.5e3, True, None]}], **header["constant/u0"]}} | fine),
        json.dumps({name: {"more": [{}], **entry} for name, entry in header.items() if name[0] != "_"}),
    ):
        path.write_bytes(raw(content.encode(), data))
        assert run(program, path) == (0, run(program, tmp_path / "good.safetensors")[1], "")


def change(name, **entry):
    return lambda header, data: raw(header | {name: header[name] | entry}, data)


DAMAGE = {
    "empty": (lambda header, data: b"", "too short for a safetensors file"),
    "header beyond the file": (lambda header, data: struct.pack("<Q", 2**63) + b"{}", "ends before its header does"),
    "truncated header": (lambda header, data: raw(json.dumps(header).encode()[:-9]), "damaged|too early|within"),
    "truncated data": (lambda header, data: raw(header, data[:-1]), "cut off or damaged"),
    "no tensors": (lambda header, data: raw({}, data), "header is damaged"),
    "no header": (lambda header, data: raw(b"[1, 2]", data), "header is damaged"),
    "deeply nested": (lambda header, data: raw(b'{"a":' + b"[" * 10**6, data), "too early"),
    "missing tensor": (
        lambda header, data: raw({name: entry for name, entry in header.items() if name != "constant/tie"}, data),
        "has no tensor constant/tie",
    ),
    "integers": (change("input/current", dtype="I64"), "input/current has dtype I64, not F64 or F32"),
    "other dtype": (change("output/spikes", dtype="F32"), "output/spikes does not have the bytes"),
    "float32 constant": (change("constant/vth", dtype="F32", shape=[2]), "constant/vth is not one F64 number"),
    "vector constant": (change("constant/vth", shape=[2]), "constant/vth does not have the bytes"),
    "no shape": (lambda header, data: raw(header | {"constant/u0": {"dtype": "F64"}}, data), "has no shape or no"),
    "no dtype": (
        lambda header, data: raw(header | {"constant/u0": {"shape": [], "data_offsets": [0, 8]}}, data),
        "has dtype ",
    ),
    "other shape": (change("input/current", shape=[4, 6]), "differ in shape"),
    "huge shape": (change("input/current", shape=[2**40, 2**40]), "too large a shape"),
    "huge number": (change("input/current", shape=[10**30]), "too large a number"),
    "too many axes": (change("input/current", shape=[1] * 9), "list of numbers"),
    "negative shape": (change("input/current", shape=[-6, 4]), "list of numbers"),
    "offsets out of range": (change("input/current", data_offsets=[8, 10**9]), "at bytes 8 to 1000000000 of "),
    "offsets swapped": (change("input/current", data_offsets=[8, 0]), "at bytes 8 to 0 of "),
    "one offset": (change("input/current", data_offsets=[8]), "no data_offsets"),
    "no time axis": (
        lambda header, data: raw(
            header | dict.fromkeys(("input/current", "output/spikes"), header["constant/vth"] | {"shape": []}), data
        ),
        "no time axis",
    ),
    "no constants": (
        lambda header, data: raw(header | {"constant/leak": header["constant/u0"]}, data),
        "leak 0, .* are not a neuron's constants",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_wrong_with_a_file_is_said_in_one_sentence(checked_program, tmp_path, parts, kind):
    make, message = DAMAGE[kind]
    path = tmp_path / "golden.safetensors"
    path.write_bytes(make(*parts))
    code, out, err = run(checked_program, path)
    assert (code, out) == (2, "")
    assert err.startswith(f"{path}: ") and err.count("\n") == 1
    assert re.search(message, err)


def test_files_that_are_not_there_and_calls_without_one(program, tmp_path):
    missing = tmp_path / "missing.safetensors"
    assert run(program, missing) == (2, "", f"{missing}: cannot be opened\n")
    assert run(program, tmp_path) == (2, "", f"{tmp_path}: cannot be read\n")
    code, _, err = run(program)
    assert code == 2 and "name one golden file" in err


def test_random_damage_never_crashes_it(checked_program, tmp_path, parts):
    rng = np.random.default_rng(11)
    content = np.frombuffer(raw(*parts), np.uint8)
    header = 8 + int.from_bytes(content[:8].tobytes(), "little")
    path = tmp_path / "golden.safetensors"
    codes = []
    for trial in range(60):
        damaged = content.copy()
        where = rng.integers(0, header if trial % 3 else len(content), rng.integers(1, 6))
        damaged[where] = rng.choice(np.frombuffer(b'0129"{}[]:,\\ \0\xff', np.uint8), len(where))
        if trial % 5 == 0:
            damaged = damaged[: rng.integers(0, len(content))]
        path.write_bytes(damaged.tobytes())
        code, _, err = run(checked_program, path)
        assert code in (0, 1, 2) and "Sanitizer" not in err, err
        codes.append(code)
    assert {0, 2} <= set(codes)  # some damage lies where nothing is read
