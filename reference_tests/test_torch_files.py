"""PyTorch's files read without PyTorch: what torch.save writes comes back, and nothing that a file asks for is run."""

import collections
import os
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refsnn.errors import InputError
from refsnn.storage import torch_files
from refsnn.storage.torch_files import LEGACY, read_torch, write_torch

# ---------------------------------------------------------------------------------------------------------------------
# Files that PyTorch wrote

FORMATS = {
    "zip": {},
    "legacy": {"_use_new_zipfile_serialization": False},
    "protocol 3": {"pickle_protocol": 3},
    "protocol 4": {"pickle_protocol": 4},
    "protocol 5": {"pickle_protocol": 5},
}
TYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()


def many_tensors(torch):
    """Tensors of every type and shape of memory, and what each should be read as."""
    torch.manual_seed(0)
    base = torch.randn(6, 5)
    shared = torch.arange(24, dtype=torch.float64)
    tensors = {
        "matrix": base,
        "transposed": base.T,
        "every other": base[1::2, ::2],
        "column": base[:, 3],
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "expanded": torch.randn(1, 4).expand(3, 4),
        "first half": shared[:12],
        "second half": shared[12:].reshape(3, 4),
        "diagonal": torch.randn(4, 4).diagonal(),
        "scalar": torch.tensor(2.5),
        "no rows": torch.zeros(0, 3),
        "nothing": torch.zeros(0),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "frozen": torch.nn.Parameter(torch.randn(3), requires_grad=False),
        "with gradient": torch.randn(2, requires_grad=True),
        "not finite": torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0]),
    }
    tensors |= {kind: (torch.randn(3, 4) * 50).to(getattr(torch, kind)) for kind in TYPES}
    tensors |= {f"{kind} transposed": (torch.randn(3, 4) * 50).to(getattr(torch, kind)).T for kind in TYPES}
    return tensors


def as_numpy(torch, tensor):
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).numpy()


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("container", [dict, collections.OrderedDict])
def test_every_type_and_layout(tmp_path, form, container):
    torch = pytest.importorskip("torch")
    tensors = many_tensors(torch)
    torch.save(container(tensors), tmp_path / "some.bin", **FORMATS[form])
    found = read_torch(tmp_path / "some.bin")
    assert_same(found, {name: as_numpy(torch, tensor) for name, tensor in tensors.items()})
    assert np.shares_memory(found["matrix"], found["transposed"])
    assert not any(value.flags.writeable for value in found.values() if value.size)


@pytest.mark.parametrize("form", FORMATS)
def test_state_dicts_of_modules_and_of_training_programs(tmp_path, form):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.BatchNorm1d(4))
    model[0].weight.grad = torch.ones(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.step()
    expected = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    about = {"epoch": 3, "optimizer": optimizer.state_dict(), "best": 0.5, "names": ["a", ("b", None)], "large": 2**40}
    for value in (
        model.state_dict(),
        {"state_dict": model.state_dict(), **about},
        {**about, "model_state_dict": dict(model.state_dict())},
        {"model": {"state_dict": model.state_dict()}},
    ):
        torch.save(value, tmp_path / "some.pt", **FORMATS[form])
        assert_same(read_torch(tmp_path / "some.pt"), expected)


def test_whole_models_and_other_objects_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "some.pt"
    for value, words in (
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"a": torch.ones(2), "loss": np.float64(1)}, "numpy"),
        ({"a": torch.ones(2), "seen": {1, 2}}, "__builtin__.set"),
        ({"a": torch.ones(2), "at": os.path.join}, "join"),
        ([torch.ones(2)], "no names"),
        (torch.ones(2), "no names"),
        ({"epoch": 3}, "no names"),
        ({1: torch.ones(2)}, "no names"),
        ({"a": torch.ones(2), "z": torch.zeros(2, dtype=torch.complex64)}, "ComplexFloatStorage"),
        ({"a": torch.eye(2).to_sparse()}, "sparse"),
    ):
        for form in ("zip", "legacy"):
            torch.save(value, path, **FORMATS[form])
            with pytest.raises(InputError, match=words) as error:
                read_torch(path)
            assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_compressed_and_big_endian_archives(tmp_path):
    torch = pytest.importorskip("torch")
    expected = {"a": np.arange(300.0).reshape(20, 15), "b": np.arange(5, dtype=np.float32), "c": np.arange(4) > 2}
    torch.save({name: torch.tensor(value) for name, value in expected.items()}, tmp_path / "stored.bin")
    with zipfile.ZipFile(tmp_path / "stored.bin") as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(tmp_path / "deflated.bin", "w", zipfile.ZIP_DEFLATED) as new:
        for name, value in entries.items():
            new.writestr(name, value)
    assert_same(read_torch(tmp_path / "deflated.bin"), expected)
    folder = next(iter(entries)).partition("/")[0]
    for key, value in zip("012", expected.values(), strict=True):
        entries[f"{folder}/data/{key}"] = value.astype(value.dtype.newbyteorder(">")).tobytes()
    entries[f"{folder}/byteorder"] = b"big"
    write_zip(tmp_path / "big.bin", entries)
    assert_same(read_torch(tmp_path / "big.bin"), expected)
    write_zip(tmp_path / "odd.bin", entries | {f"{folder}/byteorder": b"middle"})
    with pytest.raises(InputError, match="byte order"):
        read_torch(tmp_path / "odd.bin")


@pytest.mark.parametrize("options", [{"weights_only": True}, {"weights_only": False}, {"mmap": True}])
def test_pytorch_reads_what_is_written(tmp_path, options):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    arrays = {kind: (50 * rng.normal(size=(3, 4))).astype(kind) for kind in TYPES if kind != "bfloat16"}
    arrays |= {"transposed": arrays["float32"].T, "part": arrays["float64"][1:, ::2], "scalar": np.array(1.5)}
    arrays |= {"no rows": np.zeros((0, 3)), "é ü": np.ones(2), "again": arrays["float64"]}
    write_torch(tmp_path / "some.bin", arrays)
    found = torch.load(tmp_path / "some.bin", **options)
    assert type(found) is collections.OrderedDict
    assert_same({name: tensor.numpy() for name, tensor in found.items()}, arrays)
    assert found["again"].data_ptr() == found["float64"].data_ptr()
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in found.values())


def test_what_is_written_is_read_and_always_the_same(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32([1, 2]), "h": np.float16([0.5, np.inf])}
    for name in "xy":
        write_torch(tmp_path / name, arrays)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert_same(read_torch(tmp_path / "x"), arrays | {"h": np.float32([0.5, np.inf])})
    with pytest.raises(InputError, match="complex128"):
        write_torch(tmp_path / "z", {"z": np.ones(2, complex)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]


# ---------------------------------------------------------------------------------------------------------------------
# Files that mean harm. Each shows what it is for where it is harmless to show it: pickle itself would run it.

FRAME = b"\x80\x02"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED = b"ccollections\nOrderedDict\n)R"
FIRED: list[str] = []  # what a file has run


def fire(*words):
    FIRED.append(" ".join(map(str, words)))


class Trigger:
    """Runs when unpickled in one of the ways a class can ask for it."""

    def __setstate__(self, state):
        fire("setstate")

    def __setitem__(self, key, value):
        fire("setitem")

    def extend(self, items):
        fire("extend")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(values) -> bytes:
    return b"(" + b"".join(integer(value) for value in values) + b"t"


def storage(key: str = "0", kind: str = "Float", count: int = 4) -> bytes:
    return (
        b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu") + integer(count) + b"tQ"
    )


def tensor(offset=0, shape=(4,), strides=(1,), **about) -> bytes:
    return (
        TENSOR
        + b"("
        + storage(**about)
        + integer(offset)
        + numbers(shape)
        + numbers(strides)
        + b"\x89"
        + ORDERED
        + b"tR"
    )


def state(*values: bytes) -> bytes:
    """Pickle of a dict with the given values, pushed by instructions."""
    return FRAME + b"}(" + b"".join(text(f"t{i}") + value for i, value in enumerate(values)) + b"u."


def write_zip(path, entries: dict[str, bytes]):
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in entries.items():
            archive.writestr(name, value)
    return path


def archive(path, described: bytes, **more: bytes):
    entries = {"archive/data.pkl": described, "archive/version": b"3\n", "archive/data/0": np.ones(4, "<f4").tobytes()}
    return write_zip(path, entries | more)


def legacy(path, described: bytes, data: bytes = struct.pack("<q", 4) + np.ones(4, "<f4").tobytes()):
    system = FRAME + b"}(" + text("little_endian") + b"\x88u."
    path.write_bytes(LEGACY + FRAME + b"M\xe9\x03." + system + described + FRAME + b"](" + text("0") + b"e." + data)
    return path


def refusal(path) -> str:
    try:
        read_torch(path)
    except InputError as error:
        message = str(error)
    else:
        pytest.fail(f"{path} was read")
    assert str(path) in message and "\n" not in message and len(message) < 600
    return message


def test_the_parts_of_hand_made_files_are_in_order(tmp_path):
    for write in (archive, legacy):
        found = read_torch(write(tmp_path / "some.bin", state(tensor(), tensor(1, (3,)), b"N")))
        assert_same(found, {"t0": np.ones(4, np.float32), "t1": np.ones(3, np.float32)})


def test_pytorch_takes_the_hand_made_files_too(tmp_path):
    torch = pytest.importorskip("torch")
    assert torch.load(archive(tmp_path / "some.bin", state(tensor())), weights_only=True)["t0"].tolist() == [1] * 4


HERE = __name__
CALL = f"c{HERE}\nfire\n".encode()
TRIGGER = f"c{HERE}\nTrigger\n".encode()
SYSTEM = text("touch /tmp/refsnn-was-here")
HARMFUL = {
    # A name is imported, and called.
    "GLOBAL and REDUCE": CALL + b"(" + text("x") + b"tR",
    "os.system": b"cos\nsystem\n" + SYSTEM + b"\x85R",
    "posix.system": b"cposix\nsystem\n" + SYSTEM + b"\x85R",
    "builtins.eval": b"cbuiltins\neval\n" + text("__import__('os').system('true')") + b"\x85R",
    "__builtin__.exec": b"c__builtin__\nexec\n" + text("1/0") + b"\x85R",
    "subprocess.Popen": b"csubprocess\nPopen\n" + SYSTEM + b"\x85R",
    "STACK_GLOBAL": text(HERE) + text("fire") + b"\x93" + text("x") + b"\x85R",
    "STACK_GLOBAL of a dotted name": text(HERE) + text("Trigger.extend") + b"\x93",
    "STACK_GLOBAL of numbers": b"K\x01K\x02\x93",
    "getattr chain": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n" + text("os") + b"\x85R" + text("system") + b"tR",
    "a name in an admitted module": b"ctorch\nload\n" + text("other.pt") + b"\x85R",
    "a private name of torch": b"ctorch._utils\n_import_dotted_name\n" + text("os.system") + b"\x85R",
    "an admitted name with a path": b"ccollections\nOrderedDict.fromkeys\n)R",
    "numpy's reconstruct": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR",
    "codecs.encode": b"c_codecs\nencode\n(" + text("a" * 10) + text("utf-16") + b"tR",
    "copyreg._reconstructor": b"ccopyreg\n_reconstructor\n(" + TRIGGER + b"cbuiltins\nobject\nNtR",
    "operator.attrgetter": b"coperator\nattrgetter\n" + text("system") + b"\x85R",
    "functools.partial": b"cfunctools\npartial\n(" + CALL + text("x") + b"tR",
    # An instance is made, or given attributes.
    "BUILD with __setstate__": TRIGGER + b")\x81}b",
    "BUILD on a function": CALL + b"}(" + text("__code__") + b"Nub",
    "BUILD on an admitted name": b"ccollections\nOrderedDict\n}(" + text("move_to_end") + b"Nub",
    "BUILD on a tensor": tensor() + b"}(" + text("data") + b"Nub",
    "BUILD on a list": b"]}b",
    "INST": b"(" + text("x") + f"i{HERE}\nfire\n".encode(),
    "OBJ": b"(" + CALL + text("x") + b"o",
    "NEWOBJ": TRIGGER + b")\x81",
    "NEWOBJ of an admitted name": b"ccollections\nOrderedDict\n)\x81",
    "NEWOBJ_EX": TRIGGER + b")}\x92",
    "SETITEM on an instance": TRIGGER + b")\x81" + text("a") + b"Ns",
    "APPENDS on an instance": TRIGGER + b")\x81(Ne",
    "SETITEM on an admitted name": b"ctorch\nSize\n" + text("a") + b"Ns",
    # The registry of extensions, which has codes for names.
    "EXT1": b"\x82\xf0",
    "EXT2": b"\x83\xf0\xf0",
    "EXT4": b"\x84\xf0\xf0\xf0\x00",
    # Persistent ids that are not storages.
    "PERSID": b"Pstorage\n",
    "a persistent id that is a string": text("0") + b"Q",
    "a persistent id of a module": b"(" + text("module") + CALL + text("file.py") + text("source") + b"tQ",
    "a persistent id of another class": b"(" + text("storage") + ORDERED + text("0") + text("cpu") + b"K\x04tQ",
    "a persistent id of a function": b"(" + text("storage") + b"ctorch\nSize\n" + text("0") + text("cpu") + b"K\x04tQ",
    "a storage with a path": tensor(key="../../../../etc/passwd"),
    "a storage that is the pickle": tensor(key="../data.pkl"),
    "a storage that is absent": tensor(key="1"),
    "a storage of negative size": tensor(count=-4),
    "a storage of another size": tensor(count=5),
    "a storage of a huge size": tensor(count=2**62),
    "one storage in two ways": tensor() + text("other") + tensor(kind="Double", count=2),
    "a view of a storage": storage().replace(b"tQ", numbers((1, 2, 3)) + b"tQ"),
    # Tensors that reach for memory that is not theirs, or for far too much.
    "beyond the end": tensor(1),
    "strides beyond the end": tensor(shape=(2, 2), strides=(3, 1)),
    "a huge shape": tensor(shape=(2**40,)),
    "a shape that overflows": tensor(shape=(2**61, 2**61, 2**61), strides=(0, 0, 0)),
    "a shape that wraps around": tensor(shape=(2**33, 2**33), strides=(2**33, 1)),
    "strides that wrap around": tensor(shape=(3,), strides=(2**61,)),
    "huge integers": tensor(shape=(2**200,)),
    "an empty tensor of a huge shape": tensor(shape=(0, 2**61, 2**61), strides=(1, 1, 1)),
    "expanded without end": tensor(shape=(2**40,), strides=(0,)),
    "negative strides": tensor(3, (4,), (-1,)),
    "a negative offset": tensor(-1, (1,)),
    "a negative shape": tensor(shape=(-1,)),
    "a shape of truth values": TENSOR + b"(" + storage() + b"K\x00\x88\x85\x88\x85\x89N" + b"tR",
    "a shape of text": TENSOR + b"(" + storage() + b"K\x00" + text("4") + b"\x85K\x01\x85\x89NtR",
    "more strides than shape": tensor(shape=(4,), strides=(1, 1)),
    "a thousand axes": tensor(shape=[1] * 1000, strides=[1] * 1000),
    # Admitted names called with other things than they are for.
    "a dict of something": b"ccollections\nOrderedDict\nK\x07\x85R",
    "a call of no name": text("collections OrderedDict") + b")R",
    "a tensor of a list": TENSOR + b"](K\x01eR",
    "a tensor of no storage": TENSOR + b"(NK\x00)))tR",
    "a parameter of no tensor": b"ctorch._utils\n_rebuild_parameter\n(N\x88NtR",
    "a size of a number": b"ctorch\nSize\nK\x07\x85R",
    # Instructions that need not be there.
    "POP": b"N0",
    "DUP": b"N2",
    "POP_MARK": b"(1",
    "LONG4": b"\x8b" + struct.pack("<i", 4) + b"\0\0\0\1",
    "LONG of digits": b"L" + b"9" * 5000 + b"L\n",
    "INT": b"I7\n",
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", 2**60),
    "BINBYTES8": b"\x8e" + struct.pack("<Q", 2**60) + b"x",
    "BINUNICODE8": b"\x8d" + struct.pack("<Q", 2**62) + b"x",
    "BINUNICODE of a huge length": b"X\xff\xff\xff\xff",
    "NEXT_BUFFER": b"\x97",
    "FROZENSET": b"(\x91",
    "an unknown instruction": b"\xff",
    # A stack or memory that is not in order.
    "nothing on the stack": b"\x87" * 9,
    "no mark": b"t",
    "a mark of the past": b"(\x87t",
    "a place of the memory that was not set": b"h\x07",
    "a place of the memory far away": b"Nr\xff\xff\xff\xff" + b"j\xfe\xff\xff\xff",
    "an odd number of items": b"}(" + text("a") + b"u",
    "a key that is a list": b"}]Ns",
    "a key that is a tuple": b"})Ns",
    "a key that is huge": b"}" + integer(2**61 - 1) + b"Ns",
    "a name without end": b"ctorch",
    "a name that is not ASCII": "ctörch\nSize\n".encode(),
    "text that is not UTF-8": b"X\x02\0\0\0\xff\xfe",
}


@pytest.mark.parametrize("kind", HARMFUL)
@pytest.mark.parametrize("write", [archive, legacy])
def test_what_is_harmful_is_refused_and_not_run(tmp_path, kind, write):
    FIRED.clear()
    tracemalloc.start()
    refusal(write(tmp_path / "some.bin", state(tensor(), HARMFUL[kind])))
    refusal(write(tmp_path / "some.bin", state(HARMFUL[kind])))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6
    assert FIRED == []
    assert not os.path.exists("/tmp/refsnn-was-here")


@pytest.mark.parametrize("kind", ["GLOBAL and REDUCE", "STACK_GLOBAL", "BUILD with __setstate__", "INST", "OBJ"])
def test_pickle_itself_would_have_run_them(kind):
    FIRED.clear()
    pickle.loads(FRAME + HARMFUL[kind] + b".")
    assert len(FIRED) == 1
    FIRED.clear()


def test_a_registered_extension_is_not_called(tmp_path):
    import copyreg

    copyreg.add_extension(HERE, "fire", 0xF0)
    try:
        FIRED.clear()
        pickle.loads(FRAME + b"\x82\xf0)R.")
        assert len(FIRED) == 1
        FIRED.clear()
        assert "EXT1" in refusal(archive(tmp_path / "some.bin", state(b"\x82\xf0)R")))
        assert FIRED == []
    finally:
        copyreg.remove_extension(HERE, "fire", 0xF0)


def test_nothing_is_imported_or_called():
    # An audit hook cannot be removed, so this is another process: it sees every import, compilation and execution.
    program = f"""
import sys, zipfile, encodings.cp437, numpy
from pathlib import Path
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_torch_files import FRAME, HARMFUL, archive, state, tensor
from refsnn.storage.torch_files import read_torch
from refsnn.errors import InputError
import tempfile
folder = Path(tempfile.mkdtemp())
paths = [archive(folder / str(i), state(tensor(), harm)) for i, harm in enumerate(HARMFUL.values())]
seen = []
def listen(event, arguments):
    if event.split(".")[0] in ("import", "compile", "exec", "os", "subprocess", "pickle", "socket", "ctypes"):
        seen.append((event, str(arguments)[:80]))
sys.addaudithook(listen)
for path in paths:
    try:
        read_torch(path)
        print("was read")
    except InputError:
        pass
print(seen)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def seconds(path) -> tuple[str, float]:
    started = time.process_time()
    return refusal(path), time.process_time() - started


@contextmanager
def little_memory(limit: float):
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < limit


def test_deep_nesting(tmp_path):
    for opening in (b"]" * 100_000, b"}" * 100_000, b"(" * 100_000, b")" + b"\x85" * 100_000):
        for closing in (b"", b"a" * 99_999):
            refusal(archive(tmp_path / "some.bin", FRAME + opening + closing + b"."))
    chain = b")" + (b"q\x00(" + storage() + b"K\x00h\x00)tR").join([b""] * 2)  # tensors within tensors' shapes
    refusal(archive(tmp_path / "some.bin", state(TENSOR + chain)))
    value = b"".join(b"q\x00" + TENSOR + b"(" + storage() + b"K\x00h\x00\x85)tR" for _ in range(2000))
    refusal(archive(tmp_path / "some.bin", state(tensor() + value)))


def test_structures_that_double_or_hold_themselves(tmp_path):
    steps = (b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(200))
    laughs = b"()q\x00" + b"".join(steps) + b"t"  # each a pair of the one before, twice
    nested = FRAME + b"}q\x00" + text("state_dict") + b"h\x00s."
    twice = FRAME + b"}q\x00(" + text("state_dict") + b"}q\x01" + text("model") + b"h\x00s" + text("model") + b"h\x01u."
    for described in (nested, twice):
        refusal(archive(tmp_path / "some.bin", described))
    with little_memory(4e6):  # shared, not copied: 2^200 items if they were
        found = read_torch(archive(tmp_path / "some.bin", state(tensor(), laughs)))
    assert list(found) == ["t0"]


def test_work_that_grows_with_the_square(tmp_path):
    many = b"(" + b"N" * 300_000 + b"tq\x00"
    pairs = b"ccollections\nOrderedDict\nq\x01](" + b"N" * 300_000 + b"eq\x02](" + b"h\x02" * 300_000 + b"e\x85R"
    for described in (
        state(many, b"".join(b"h\x00Q" for _ in range(1))),
        state(many, b"(" + b"h\x00" * 300_000 + b"t", b"".join([TENSOR + b"(" + storage() + b"K\x00h\x00h\x00tR"] * 2)),
        state(pairs),
    ):
        _, taken = seconds(archive(tmp_path / "some.bin", described))
        assert taken < 5


def test_numbers_shown_too_often(tmp_path):
    often = [tensor(shape=(2**18,), strides=(0,))] * 5
    with little_memory(4e6):
        assert "repeat" in refusal(archive(tmp_path / "some.bin", state(*often)))
    assert len(read_torch(archive(tmp_path / "some.bin", state(*often[:3])))) == 3


def test_pickles_that_are_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_files, "MAX_PICKLE", 5000)
    large = state(tensor(), text("x" * 6000))
    assert "far larger" in refusal(archive(tmp_path / "some.bin", large))
    refusal(legacy(tmp_path / "some.bin", large))


def test_archives_that_are_not_in_order(tmp_path):
    path = tmp_path / "some.bin"
    good = state(tensor())
    assert "2 entries data.pkl" in refusal(archive(path, good, **{"other/data.pkl": good}))
    assert "0 entries data.pkl" in refusal(write_zip(path, {"archive/data/0": b"1234"}))
    assert "stated size" in refusal(archive(path, good, **{"archive/data/0": b"123"}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns of names that come twice
        with zipfile.ZipFile(archive(path, good), "a") as twice:
            twice.writestr("archive/data/0", b"other bytes here")
    assert "two entries of one name" in refusal(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as other:
        other.writestr("archive/data.pkl", good)
    assert "PyTorch does not use" in refusal(path)
    # A flag that says that an entry is encrypted, which would ask for a password.
    raw = bytearray(archive(path, good).read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    assert "encrypted" in refusal(path)


def test_archives_that_unpack_to_far_more(tmp_path, monkeypatch):
    path = tmp_path / "some.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", state(tensor(count=2**24)))
        bomb.writestr("archive/data/0", bytes(2**26))
    with little_memory(4e6):
        assert "unpacks" in refusal(path)
    # Entries that overlap: a directory that names one entry's bytes many times.
    raw = archive(path, state(tensor()), **{"archive/data/0": bytes(4096)}).read_bytes()
    at, end = raw.index(b"PK\x01\x02"), raw.index(b"PK\x05\x06")
    last = raw.rindex(b"PK\x01\x02")
    copies = b"".join(raw[last:end].replace(b"data/0", b"data/" + bytes([65 + i])) for i in range(26))
    count = raw[at:end].count(b"PK\x01\x02") + 26
    tail = raw[end : end + 8] + struct.pack("<HHII", count, count, end - at + len(copies), at) + raw[end + 20 :]
    path.write_bytes(raw[:end] + copies + tail)
    assert "overlap" in refusal(path)
    # A size that is declared smaller than it is.
    monkeypatch.setattr(torch_files, "MAX_UNPACKED", 4096)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", state(tensor()))
        bomb.writestr("archive/data/0", bytes(2**20))
    raw = path.read_bytes()
    lying = raw.replace(struct.pack("<I", 2**20), struct.pack("<I", 16))
    assert lying != raw
    path.write_bytes(lying)
    with little_memory(4e6):
        refusal(path)


def test_other_files(tmp_path):
    path = tmp_path / "some.bin"
    for content, words in (
        (b"", "does not begin"),
        (b"PK", "does not begin"),
        (b"PK\x03\x04", "truncated"),
        (pickle.dumps({"a": 1}), "does not begin"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x93NUMPY\x01\x00", "does not begin"),
        (LEGACY, "truncated"),
        (LEGACY + FRAME + b"K\x07.", "truncated"),
        (LEGACY + (FRAME + b"K\x07.") * 4, "unknown version"),
    ):
        path.write_bytes(content)
        assert words in refusal(path), content
    assert "does not exist" in refusal(tmp_path / "absent.bin")
    (tmp_path / "folder").mkdir()
    refusal(tmp_path / "folder")


def test_older_files_that_are_not_in_order(tmp_path):
    path = tmp_path / "some.bin"
    good = state(tensor())
    ones = np.ones(4, "<f4").tobytes()
    for data in (b"", b"123", struct.pack("<q", 4), struct.pack("<q", 4) + ones[:-1], struct.pack("<q", -1) + ones):
        assert "truncated" in refusal(legacy(path, good, data))
    assert "stated size" in refusal(legacy(path, good, struct.pack("<q", 2**62) + ones))
    assert "does not fit" in refusal(legacy(path, state(tensor(key="1"))))
    big = legacy(path, good).read_bytes().replace(b"\x88u.", b"\x89u.")
    path.write_bytes(big)
    assert "big-endian" in refusal(path)


# ---------------------------------------------------------------------------------------------------------------------
# Files with random damage


def sound_pickle() -> bytes:
    return state(
        tensor(),
        tensor(1, (3,)),
        tensor(0, (2, 2), (1, 2)),
        b"ctorch._utils\n_rebuild_parameter\n(" + tensor() + b"\x88" + ORDERED + b"tR",
        ORDERED + b"}(" + text("_metadata") + ORDERED + b"ub",
        b"(K\x01M\x02\x03J\x04\x05\x06\x07G?\xf0\0\0\0\0\0\0t",
        b"](N\x88\x89e",
        b"ctorch\nSize\n" + numbers((2, 3)) + b"\x85R",
    )


#: Bytes that mean something to a pickle: damage of a kind that random bytes seldom are.
INSTRUCTIONS = [ord(opcode.code) for opcode in pickletools.opcodes]


def damage(data: bytes, seed: int) -> bytes:
    """Change, insert, delete, repeat or swap some bytes."""
    rng = random.Random(seed)
    raw = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(raw))
        length = rng.choice((1, 2, 4, 16))
        match rng.randrange(6):
            case 0:
                raw[at] = rng.randrange(256)
            case 1:
                raw[at] = rng.choice(INSTRUCTIONS)
            case 2:
                raw[at:at] = bytes([rng.choice(INSTRUCTIONS)])
            case 3:
                del raw[at : at + length]
            case 4:
                raw[at:at] = raw[at : at + length]
            case 5:
                raw[at : at + 4] = struct.pack("<I", rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1)))
        if not raw:
            return b"\0"
    return bytes(raw)


def sound_or_refused(path) -> bool:
    try:
        found = read_torch(path)
    except InputError as error:
        assert "\n" not in str(error)
        return False
    for value in found.values():
        value.sum()  # reads every number
    return True


@pytest.mark.parametrize("write", [archive, legacy])
def test_damaged_pickles_are_read_or_refused(tmp_path, write):
    FIRED.clear()
    outcomes = collections.Counter(
        sound_or_refused(write(tmp_path / "some.bin", damage(sound_pickle(), seed))) for seed in range(500)
    )
    assert outcomes[False] > 400 and outcomes[True]
    assert FIRED == []


@pytest.mark.parametrize("write", [archive, legacy])
def test_damaged_files_are_read_or_refused(tmp_path, write):
    raw = write(tmp_path / "some.bin", sound_pickle()).read_bytes()
    path = tmp_path / "damaged.bin"
    for seed in range(500):
        path.write_bytes(damage(raw, seed))
        sound_or_refused(path)


@pytest.mark.parametrize("write", [archive, legacy])
def test_truncated_files_are_refused(tmp_path, write):
    raw = write(tmp_path / "some.bin", sound_pickle()).read_bytes()
    path = tmp_path / "cut.bin"
    for size in (*range(0, len(raw), 3), len(raw) - 1):
        path.write_bytes(raw[:size])
        assert not sound_or_refused(path), size


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instructions=st.lists(st.sampled_from(INSTRUCTIONS), max_size=60), rest=st.binary(max_size=40))
def test_random_programs_are_read_or_refused(tmp_path, instructions, rest):
    for described in (FRAME + bytes(instructions) + rest, state(tensor(), bytes(instructions)), state(tensor(), rest)):
        sound_or_refused(archive(tmp_path / "some.bin", described))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(-9, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(value=VALUES, protocol=st.integers(2, 5))
def test_plain_data_is_what_pickle_makes_of_it(value, protocol):
    found, size = torch_files._interpret(pickle.dumps(value, protocol) + b"rest", {})
    assert found == value and size == len(pickle.dumps(value, protocol))
    assert list(map(type, found)) == list(map(type, value)) if isinstance(value, (list, tuple)) else True


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    strides=st.lists(st.integers(0, 6), max_size=4),
    offset=st.integers(0, 30),
)
def test_views_lie_inside_their_storage(tmp_path, shape, strides, offset):
    strides = (strides + [1] * 4)[: len(shape)]
    data = np.arange(24, dtype="<f4")
    described = state(tensor(offset, shape, strides, count=24))
    path = archive(tmp_path / "some.bin", described, **{"archive/data/0": data.tobytes()})
    places = offset + sum(np.indices(shape)[axis] * step for axis, step in enumerate(strides))
    if np.size(places) and np.prod(shape) and np.max(places) >= 24:
        assert "beyond" in refusal(path)
    else:
        expected = data[np.broadcast_to(places, shape)] if np.prod(shape) else np.zeros(shape, np.float32)
        np.testing.assert_array_equal(read_torch(path)["t0"], expected)
