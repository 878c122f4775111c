"""Bad input: one clear sentence on standard error, exit status 2, no traceback, nothing half-written."""

import json
import struct

import numpy as np
import pytest
from test_training import write_task, write_teacher

from refsnn.commands.cli import main
from refsnn.files import load_tensors, save_tensors

QUICK = "--max-length 16 --epochs-teacher 1 --epochs-general 0 --epochs-internal 1 --epochs-prediction 1".split()


@pytest.fixture
def folders(tmp_path):
    return {
        "data": write_task(tmp_path / "data", 16),
        "teacher": write_teacher(tmp_path / "bert"),
        "out": tmp_path / "run",
    }


def complaint(capsys, folders, *changes: str, encoders: str = "2") -> str:
    """Run `refsnn distill` with words that cannot work and return the one sentence it says."""
    words = ["distill", "--task", "sst2", "--encoders", encoders, *QUICK]
    for name, path in folders.items():
        words += [f"--{name}", str(path)]
    assert main([*words, *changes]) == 2
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if line.startswith("refsnn: ")]
    assert len(said) == 1, captured.err
    assert "Traceback" not in captured.err
    assert not (folders["out"] / "model.safetensors").exists()
    return said[0]


def edit(path, **changes):
    path.write_text(json.dumps({k: v for k, v in (json.loads(path.read_text()) | changes).items() if v is not ...}))


def test_missing_files_are_named(capsys, folders):
    for name in ("data", "teacher"):
        assert "nowhere" in complaint(capsys, folders | {name: folders[name] / "nowhere"})
    (folders["data"] / "train.tsv").rename(folders["data"] / "other.tsv")
    assert "train.tsv" in complaint(capsys, folders)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_each_missing_file_of_a_teacher_is_named(capsys, folders, name):
    (folders["teacher"] / name).unlink()
    assert name in complaint(capsys, folders)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_attention_heads": 3}, "not divisible"),
        ({"hidden_size": "wide"}, "positive integer"),
        ({"hidden_size": ...}, "lacks hidden_size"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"intermediate_size": 99}, "shape"),
        ({"num_hidden_layers": 3}, "layer.2"),
        ({"layer_norm_eps": None}, "layer_norm_eps"),
    ],
)
def test_configurations_that_do_not_fit(capsys, folders, changes, words):
    edit(folders["teacher"] / "config.json", **changes)
    assert words in complaint(capsys, folders, encoders="1")


def test_malformed_json(capsys, folders):
    (folders["teacher"] / "config.json").write_text('{"hidden_size": 16,')
    assert "not valid JSON" in complaint(capsys, folders)
    (folders["teacher"] / "config.json").write_text("[1]")
    assert "object" in complaint(capsys, folders)


def test_layers_that_do_not_divide(capsys, folders):
    assert "must divide" in complaint(capsys, folders, encoders="3")
    assert "encoders is 0" in complaint(capsys, folders, encoders="0")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(capsys, folders, value):
    path = folders["teacher"] / "model.safetensors"
    params, _ = load_tensors(path)
    params["encoder.layer.1.output.dense.weight"][3, 4] = value
    save_tensors(path, params, {})
    assert "encoder.layer.1.output.dense.weight" in complaint(capsys, folders)


def header(contents: dict | bytes, size: int | None = None, body: bytes = b"") -> bytes:
    raw = contents if isinstance(contents, bytes) else json.dumps(contents).encode()
    return struct.pack("<Q", len(raw) if size is None else size) + raw + body


HOSTILE = {
    "empty": b"",
    "short": b"\x08\x00",
    "huge header": header({}, size=2**62),
    "header beyond the file": header({}, size=500),
    "not json": header(b"[[[["),
    "offsets beyond the file": header({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
    "offsets that disagree with the shape": header(
        {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, body=b"1234"
    ),
    "negative offsets": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, body=b"1234"),
    "overlapping": header({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, body=b"12345678"),
    "unknown type": header({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, body=b"1234"),
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93.",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_or_damaged_safetensors(capsys, folders, kind):
    (folders["teacher"] / "model.safetensors").write_bytes(HOSTILE[kind])
    assert "model.safetensors" in complaint(capsys, folders)


def test_truncated_safetensors(capsys, folders):
    path = folders["teacher"] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated" in complaint(capsys, folders)


def test_wrong_vocabulary(capsys, folders):
    vocabulary = folders["teacher"] / "vocab.txt"
    words = vocabulary.read_text()
    vocabulary.write_text(words + "\n".join(f"word{i}" for i in range(50)) + "\n")
    assert "another model's vocabulary" in complaint(capsys, folders)
    vocabulary.write_text(words.replace("[CLS]", "start"))
    assert "special tokens [CLS]" in complaint(capsys, folders)
    (folders["teacher"] / "tokenizer.json").write_text('{"version": "1.0"}')
    assert "tokenizer.json" in complaint(capsys, folders)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sentence\tlabel\n", "no rows"),
        ("", "columns"),
        ("phrase\tlabel\nx\t0\n", "sentence"),
        ("sentence\tlabel\nfine\t0\nbad\t2\n", "line 3: label '2'"),
        ("sentence\tlabel\nfine 0\n", "line 2 has 1 field"),
        ("sentence\tlabel\n\xff\xfe\t0\n", "UTF-8"),
    ],
)
def test_data_that_cannot_be_used(capsys, folders, text, words):
    (folders["data"] / "train.tsv").write_bytes(text.encode("latin-1"))
    assert words in complaint(capsys, folders)


def test_unwritable_output(capsys, folders, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot write" in complaint(capsys, folders | {"out": tmp_path / "file" / "run"})
    assert "cannot write" in complaint(capsys, folders | {"out": tmp_path / "file"})


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--lr-teacher", "nan", "--lr-teacher is nan"),
        ("--batch-size", "0", "--batch-size is 0"),
        ("--batch-size", "9" * 22, "--batch-size is far greater, but it must be at most 1000000"),
        ("--t-conv", "1000000000", "--t-conv is 1000000000, but it must be at most"),
        ("--epochs-teacher", "-1", "--epochs-teacher is -1"),
        ("--attention-weight", "nan", "--attention-weight is nan"),
        ("--vth", "-1", "threshold"),
        ("--leak", "2", "leak"),
        ("--max-length", "99", "positions"),
        ("--max-length", "1", "--max-length is 1"),
        ("--corpus", "absent.txt", "absent.txt"),
        ("--task", "cola2", "sst2"),
    ],
)
def test_options_out_of_range(capsys, folders, option, value, words):
    extra = ["--epochs-general", "1"] if option == "--corpus" else []
    assert words in complaint(capsys, folders, option, value, *extra)


def test_evaluating_what_is_not_a_finished_run(capsys, folders, tmp_path):
    for run, words in ((tmp_path / "absent", "absent"), (folders["data"], "no finished student")):
        assert main(["evaluate", str(run), "--data", str(folders["data"])]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "demo --out",
        "distill --task sst2 --data absent --teacher absent --encoders 1 --out",
        "reproduce --config tiny --out",
        "inspect absent --text a --out",
        "submit absent --out",
        "record absent --out",
        "certify absent --json",
        "conform absent --html",
        "bench --scaling",
    ],
)
def test_an_empty_name_writes_nothing(capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    assert main([*words.split(), ""]) == 2
    assert f'{words.split()[-1]} is empty ("")' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_and_version_teach(capsys):
    for words in (["--help"], ["distill", "--help"], ["evaluate", "--help"], ["demo", "--help"], ["parity", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
        assert len(capsys.readouterr().out.splitlines()) > 5
    with pytest.raises(SystemExit) as stop:
        main(["nonsense"])
    assert stop.value.code == 2
