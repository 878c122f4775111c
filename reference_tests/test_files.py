"""Files: what is replaced and what is not, JSON and tensors that are none, logs that a kill may have cut short."""

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import stat
import sys

import numpy as np
import pytest

from refsnn.data.examples import Examples
from refsnn.distillation.training import train
from refsnn.errors import InputError
from refsnn.files import (
    atomic,
    existing,
    json_lines,
    load_tensors,
    new_folder,
    read_json,
    require,
    save_tensors,
    write_json,
    write_text,
)
from refsnn.reproduction.progress import Progress
from refsnn.storage.convert import convert
from refsnn.storage.recipe import Stage
from refsnn.storage.run import Run

ENTRIES = [{"stage": "a", "step": 3, "lr": 1e-05, "loss": 0.1}, {"stage": "b", "step": 2, "lr": 0.1, "loss": 1 / 3}]
WHOLE = "".join(json.dumps(entry) + "\n" for entry in ENTRIES)


def test_lines_are_read_as_far_as_they_were_written(tmp_path):
    path = tmp_path / "log.jsonl"
    line = json.dumps(ENTRIES[1])
    for end in range(len(line)):  # a line cut anywhere
        path.write_text(WHOLE + line[:end])
        assert json_lines(path) == ENTRIES, line[:end]
    path.write_text(WHOLE + line)  # only the line's end is missing
    assert json_lines(str(path)) == [*ENTRIES, ENTRIES[1]]
    path.write_text(line[:9] + "\n\n" + WHOLE)  # half a line that others were written after
    assert json_lines(path) == ENTRIES


@pytest.mark.parametrize("content", [b"", b"\n", b"3\n", b"null\n[1]\n", b"\x00\x00\xff\n", b'{"stage": "\xc3'])
def test_what_is_no_entry_is_skipped(tmp_path, content):
    (tmp_path / "log.jsonl").write_bytes(content)
    assert json_lines(tmp_path / "log.jsonl") == []
    assert Run(tmp_path).log() == {}


def test_a_log_taken_up_again_keeps_its_bytes(tmp_path):
    path, later = tmp_path / "log.jsonl", json.dumps(ENTRIES[1] | {"step": 3}) + "\n"
    path.write_text(WHOLE + later + later[:20])
    Run(tmp_path).forget_log_after("b", 2)
    assert path.read_text() == WHOLE
    plan = json.dumps({"title": "SST-2, internal", "steps": 7, "work": 0.1}) + "\n"
    path.write_text(plan + plan[:20])
    Progress(tmp_path, [])
    assert path.read_text() == plan


def test_where_there_is_no_log(tmp_path):
    path = tmp_path / "log.jsonl"
    assert json_lines(path) == [] and Run(tmp_path).log() == {}

    def objective(params, batch, rows):
        raise MemoryError

    examples = Examples(np.array([1]), np.array([0]), np.array([0, 1]), np.array([0]))
    with pytest.raises(MemoryError):
        train(Run(tmp_path), Stage("a", 1, 1, 0.1), {"w": np.zeros(3)}, examples, objective, [0])
    assert not path.exists()  # training begins one with its first line
    Progress(tmp_path, [])
    assert path.read_bytes() == b""


# ---------------------------------------------------------------------------------------------------------------------
# What is replaced


def test_a_link_stays_and_its_target_becomes_new(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("old")
    (tmp_path / "link").symlink_to("real/a.txt")
    (tmp_path / "dangling").symlink_to("real/b.txt")
    for name, target in (("link", "a.txt"), ("dangling", "b.txt")):
        write_text(tmp_path / name, "new")
        assert (tmp_path / name).is_symlink() and (tmp_path / "real" / target).read_text() == "new"
    assert sorted(os.listdir(tmp_path / "real")) == ["a.txt", "b.txt"]
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(InputError, match=r"cannot write .*round"):
        write_text(tmp_path / "round", "new")
    assert (tmp_path / "round").is_symlink()


def special(folder, kind):
    path = folder / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(os.path.relpath(path))  # a socket's whole name must be short
    else:
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root may make a device")
    return path


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "device"])
@pytest.mark.parametrize("linked", [False, True])
def test_only_files_are_replaced(tmp_path, kind, linked):
    path = special(tmp_path, kind)
    before = path.lstat()
    if linked:
        (tmp_path / "link").symlink_to(path)
    with pytest.raises(InputError, match=f"cannot write {tmp_path}/{'link' if linked else kind}: it is a"):
        write_json(tmp_path / "link" if linked else path, {})
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)


def test_permissions_are_respected_and_kept(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    path.chmod(0o444)
    with pytest.raises(InputError, match=r"a\.json: it is read-only"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    path.chmod(0o640)
    write_json(path, {"a": 3})
    assert read_json(path) == {"a": 3} and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_an_earlier_kill_left_is_in_nobodys_way(tmp_path):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / ".a.txt.part").symlink_to("elsewhere")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new" and (tmp_path / "elsewhere").read_text() == "mine"
    os.mkfifo(tmp_path / ".a.txt.part")  # writing into it would wait for ever
    write_text(tmp_path / "a.txt", "newer")
    assert (tmp_path / "a.txt").read_text() == "newer" and not (tmp_path / "a.txt").is_symlink()


@contextlib.contextmanager
def full_disk():
    """Let no file grow beyond a kilobyte; not around a whole test, whose own log may be longer."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_names_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})
    for write in (
        lambda: write_json(path, {"a": "b" * 2000}),
        lambda: save_tensors(path, {"a": np.zeros(999)}, {}),
    ):
        with full_disk(), pytest.raises(InputError, match=f"^cannot write {path} .*kept$") as said:
            write()
        assert ".part" not in str(said.value)
    assert read_json(path) == {"a": 1} and os.listdir(tmp_path) == ["results.json"]


def test_a_disk_that_fails_at_the_last_moment(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"a\.txt \(No space left on device\)"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_other_files_keep_their_names_in_messages(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"), atomic(tmp_path / "a.txt"):
        (tmp_path / "absent").read_text()
    with pytest.raises(InputError, match=r"cannot write .*/absent/a\.txt \(No such file"):
        write_text(tmp_path / "absent" / "a.txt", "new")
    with pytest.raises(InputError, match="too long"):
        write_text(tmp_path / ("a" * 300), "new")


def test_an_empty_name_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writes = (new_folder, lambda name: write_text(name, ""), lambda name: convert("a", name, "bert"))
    for use in (*writes, Run, lambda name: existing(name, "the data folder")):
        with pytest.raises(InputError, match="empty"):
            use("")
    assert os.listdir(tmp_path) == []


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "file/under", "dangling"):
        with pytest.raises(InputError, match=f"cannot write into {tmp_path}/{name}"):
            new_folder(tmp_path / name)
    (tmp_path / "closed").mkdir(mode=0o555)  # even where root writes
    with pytest.raises(InputError, match=r"cannot write into .*closed \(Permission denied\)"):
        new_folder(tmp_path / "closed")
    with pytest.raises(InputError, match=r"cannot write .*closed/a\.txt \(Permission denied\)"):
        write_text(tmp_path / "closed" / "a.txt", "new")
    assert not os.listdir(tmp_path / "closed")
    assert new_folder(tmp_path / "a" / "b") == new_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not os.listdir(tmp_path / "a" / "b")


# ---------------------------------------------------------------------------------------------------------------------
# What is read

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"null", "a JSON NoneType"),
        (b"[]", "a JSON list"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON .*digits"),
        (b'{"a": "\xff"}', "not UTF-8 text"),
        (POINTER.encode(), "Git LFS pointer"),
    ],
)
def test_json_that_is_none(tmp_path, content, words):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=words) as said:
        read_json(tmp_path / "a.json")
    assert "a.json" in str(said.value) and len(str(said.value)) < 400
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        read_json(tmp_path)


def test_a_byte_order_mark_before_json_is_no_part_of_it(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_entries_that_are_nested_or_long_are_skipped(tmp_path):
    (tmp_path / "log.jsonl").write_text("[" * 100_000 + '\n{"a": ' + "9" * 5000 + "}\n" + WHOLE)
    assert json_lines(tmp_path / "log.jsonl") == ENTRIES


def safetensors_file(path, kind, size, metadata="{}"):
    header = {"__metadata__": {"refsnn": metadata}, "a": {"dtype": kind, "shape": [4], "data_offsets": [0, 4 * size]}}
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(4 * size))
    return path


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_types_that_numpy_lacks_are_named(tmp_path, kind):
    with pytest.raises(InputError, match=f"a.safetensors: a is of type {kind}, .*float32"):
        load_tensors(safetensors_file(tmp_path / "a.safetensors", kind, 1))


def test_what_is_no_safetensors_file(tmp_path):
    for metadata in ("[1]", "{", "[" * 100_000, "9" * 5000):
        with pytest.raises(InputError, match=r"a\.safetensors cannot be read as safetensors"):
            load_tensors(safetensors_file(tmp_path / "a.safetensors", "F32", 4, metadata))
    (tmp_path / "a.safetensors").write_text(POINTER)
    with pytest.raises(InputError, match=r"a\.safetensors is a Git LFS pointer"):
        load_tensors(tmp_path / "a.safetensors")
    tensors, metadata = load_tensors(safetensors_file(tmp_path / "a.safetensors", "BF16", 2))
    assert tensors["a"].dtype == np.float32 and metadata == {}


# ---------------------------------------------------------------------------------------------------------------------
# Packages

BROKEN = {
    "needs_another": (
        "import refsnn_absent_dependency",
        r"cannot be imported \(ModuleNotFoundError: .*absent_dependency",
    ),
    "old_library": ("raise ImportError('libfoo.so.1: cannot open')", r"cannot be imported \(ImportError: libfoo"),
    "lacks_a_name": ("from json import nothing_like_it", "cannot be imported"),
    "wrong_numpy": ("raise ValueError('numpy.dtype size changed\\nand more')", "size changed\\)"),
    "does_not_parse": ("def", "SyntaxError"),
    "leaves": ("raise SystemExit(3)", "SystemExit: 3"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_package_that_is_there_and_fails_is_not_called_missing(tmp_path, monkeypatch, name):
    code, words = BROKEN[name]
    (tmp_path / f"refsnn_{name}.py").write_text(code + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=words) as said:
        require(f"refsnn_{name}")
    assert f"refsnn_{name}, which is installed but" in str(said.value) and "not installed" not in str(said.value)


def test_a_package_that_is_missing_is_said_to_be(monkeypatch):
    monkeypatch.setitem(sys.modules, "refsnn_hidden", None)
    for name in ("refsnn_absent", "refsnn_absent.part", "refsnn_hidden"):
        with pytest.raises(InputError, match=f"{name.partition('.')[0]}, which is not installed; .*pip install"):
            require(name)
    with pytest.raises(InputError, match="json, which is installed but"):
        require("json.absent")
