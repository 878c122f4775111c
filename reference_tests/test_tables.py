"""Files of one's own: the file that was named, all of its text, or one sentence about why not."""

import csv
import json

import pytest

from refsnn.data.reading import read_task
from refsnn.data.tasks import TASKS, Task, column_names
from refsnn.data.unlabelled import read_corpus
from refsnn.errors import InputError

SST2 = TASKS["sst2"]


def rows_of(dataset) -> list[tuple]:
    return list(zip(*(dataset[name][:] for name in dataset.column_names), strict=True))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def table(path, rows):
    """Write rows of texts and labels as a file of the kind that its name says."""
    from datasets import Dataset

    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(rows[0])
    if path.suffix == ".parquet":
        with open(path, "wb") as file:
            Dataset.from_list(rows).to_parquet(file)
    elif path.suffix in (".csv", ".tsv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, names, delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)))
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Names


@pytest.mark.parametrize("kind", ["tsv", "csv", "json", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("name", "others"),
    [("run[1]", ["run1"]), ("a*b", ["aXb", "ab"]), ("what?", ["whats"]), ("{a,b}", ["a", "b"]), ("[!x]", ["y"])],
)
def test_names_are_no_patterns(tmp_path, kind, name, others):
    for other in others:
        table(tmp_path / other / f"train.{kind}", [{"sentence": "another", "label": 0, "text": "another"}] * 2)
    path = table(tmp_path / name / f"train.{kind}", [{"sentence": "mine", "label": 1, "text": "my text"}])
    for data in (path, path.parent):
        assert rows_of(read_task(data, SST2, "train")) == [("mine", 1)]
    assert list(read_corpus([path])) == ["my text"]


@pytest.mark.parametrize("name", ["file:mine", "hub.csv", "a%20b", "s3:", "a::b", "~", "$HOME"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_names_are_no_addresses(tmp_path, monkeypatch, name, kind):
    path = table(tmp_path / name / f"{name}.{kind}", [{"sentence": "mine", "label": 1, "text": "my text"}])
    monkeypatch.chdir(path.parent)
    assert rows_of(read_task(path.name, SST2, "train")) == [("mine", 1)]
    assert list(read_corpus([path.name])) == ["my text"]


def test_endings_in_capitals(tmp_path):
    write(tmp_path / "TRAIN.CSV", "sentence,label,text\na,1,mine\n")
    assert rows_of(read_task(tmp_path / "TRAIN.CSV", SST2, "train")) == [("a", 1)]
    assert list(read_corpus([tmp_path / "TRAIN.CSV"])) == ["mine"]


def test_the_hub_s_own_names(tmp_path):
    def piece(name, text):
        table(tmp_path / f"{name}.parquet", [{"sentence": text, "label": 1, "idx": 4}])

    piece("sst2/validation-00000-of-00001", "dev")
    piece("sst2/test-00000-of-00001", "test")
    for i in range(3):
        piece(f"sst2/train-0000{i}-of-00003", f"train {i}")
    for folder in (tmp_path, tmp_path / "sst2"):
        assert rows_of(read_task(folder, SST2, "dev")) == [("dev", 1)]
        assert rows_of(read_task(folder, SST2, "test")) == [("test", "4")]
        assert rows_of(read_task(folder, SST2, "train")) == [(f"train {i}", 1) for i in range(3)]
    (tmp_path / "sst2" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(InputError, match=r"2 of the 3 pieces of train; train-00001-of-00003.parquet"):
        read_task(tmp_path, SST2, "train")
    table(tmp_path / "sst2" / "train-00001-of-00003.parquet", [{"sentence": "a", "score": 1}])
    with pytest.raises(InputError, match=r"train-00001.* has the columns .*, but the piece before it"):
        read_task(tmp_path, SST2, "train")
    write(tmp_path / "mnli" / "validation_matched.csv", "premise,hypothesis,label\na,b,neutral\n")
    assert rows_of(read_task(tmp_path, TASKS["mnli"], "dev_matched")) == [("a", "b", 1)]
    with pytest.raises(InputError, match=r"dev_mismatched.tsv .* or validation_mismatched-00000-of-00001.parquet"):
        read_task(tmp_path, TASKS["mnli"], "dev_mismatched")


# ---------------------------------------------------------------------------------------------------------------------
# Fields


@pytest.mark.parametrize("rows", ["well, a good movie,1\nwell, a bad film,0\n", "a,1\nwell, a bad film,0\n", "a,1,\n"])
def test_a_field_too_many_is_counted(tmp_path, rows):
    path = write(tmp_path / "train.csv", "sentence,label\n" + rows)
    at = 2 if rows.startswith("a,1\n") else 1
    with pytest.raises(InputError, match=rf"train.csv, row {at} has 3 fields, but the header has 2"):
        read_task(path, SST2, "train")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text\nhello, world\ngood, day\n", "row 1 has 2 fields, but the header has 1"),
        ("id,text\n1,a\n2,hello, world\n", "row 2 has 3 fields, but the header has 2"),
        ("id,text\n1\n", "row 1 has 1 field, but the header has 2"),
        ("text,text\na,b\n", r"has the columns \['text', 'text'\], but one column text"),
        ("sentence\na\n", r"has the columns \['sentence'\], but one column text"),
        ("", r"has the columns \[\]"),
    ],
)
def test_corpora_are_counted_too(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        list(read_corpus([write(tmp_path / "c.csv", text)]))


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_long_texts_are_texts(tmp_path, kind):
    csv.field_size_limit(131_072)
    path = table(tmp_path / f"train.{kind}", [{"sentence": "a" * 300_000, "label": 1, "text": "b" * 300_000}])
    assert rows_of(read_task(path, SST2, "train")) == [("a" * 300_000, 1)]
    assert list(read_corpus([path])) == ["b" * 300_000]
    assert csv.field_size_limit() == 131_072  # it is the whole process's


def test_csv_values_stand_as_they_are(tmp_path):
    texts = [
        "NA",
        "1984",
        "1e5",
        "",
        " ",
        "true",
        "2020-01-01",
        '"',
        'say "hm", or\nnot',
        "a\tb",
        "null",
        "\u2028",
        "007",
    ]
    path = table(tmp_path / "train.csv", [{"sentence": text, "label": i % 2} for i, text in enumerate(texts)])
    assert rows_of(read_task(path, SST2, "train")) == [(text, i % 2) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('sentence,label\n"a,1\nb,0\n', "line 3: unexpected end of data; it is not a CSV file"),
        ('sentence,label\n"a"b,1\n', "line 2: .* expected after"),
        ("sentence;label\na;1\n", r"columns \['sentence;label'\], but sentence, label was expected"),
        ("sentence,label\na,\n", "label '' is none of"),
        ("sentence,label\na," + "9" * 5000 + "\n", r"row 1: label '9{70,}\.\.\. is none of"),
        ("sentence\na\n\nb\n", "row 2: a blank line stands before it"),
    ],
)
def test_csv_that_is_none(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as said:
        read_task(write(tmp_path / "a.csv", text), SST2, "test" if text.startswith("sentence\n") else "train")
    assert len(str(said.value)) < 300


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_blank_lines_are_no_rows(tmp_path, kind):
    text = "\n\r\nsentence,label\n\na,1\n\n\nb,0\n\n".replace(",", "," if kind == "csv" else "\t")
    assert rows_of(read_task(write(tmp_path / f"a.{kind}", text), SST2, "train")) == [("a", 1), ("b", 0)]
    lines = "\ngj04\t1\t\tA.\n\ngj04\t0\t*\tB\n"
    assert rows_of(read_task(write(tmp_path / "cola.tsv", lines), TASKS["cola"], "train")) == [("A.", 1), ("B", 0)]
    alone = write(tmp_path / "alone.csv", 'sentence\na\n""\nb\n\n')
    assert rows_of(read_task(alone, SST2, "test")) == [("a", "0"), ("", "1"), ("b", "2")]


# ---------------------------------------------------------------------------------------------------------------------
# JSON

COLUMNS = [
    '{"sentence": ["a", "b"], "label": [1, 0]}',
    '{"sentence": {"0": "a", "7": "b"}, "label": {"0": 1, "7": 0}}',  # as pandas writes it
    '[{"sentence": "a", "label": 1}, {"label": 0, "sentence": "b"}]',
    '[{"sentence": "a", "label": 1, "more": [1]}, {"sentence": "b", "label": 0}]',
    '\n{"sentence": "a", "label": 1}\n\n{"sentence": "b", "label": 0}\n',
]


@pytest.mark.parametrize("text", COLUMNS)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_forms_of_json(tmp_path, text, mark):
    path = write(tmp_path / "train.json", mark + text)
    assert rows_of(read_task(path, SST2, "train")) == [("a", 1), ("b", 0)]
    write(path, (mark + text).replace('"sentence"', '"text"'))
    assert list(read_corpus([path])) == ["a", "b"]


def test_json_values_stand_as_they_are(tmp_path):
    texts = ["NA", "2020-01-01", "null", "", "\u2028x", "\x00"]
    path = write(tmp_path / "a.jsonl", "\n".join(json.dumps({"sentence": text, "label": "1"}) for text in texts))
    assert rows_of(read_task(path, SST2, "train")) == [(text, 1) for text in texts]
    one = write(tmp_path / "one.json", '{"sentence": "a", "label": true}')
    assert rows_of(read_task(one, SST2, "train")) == [("a", 1)]


DEEP = "[" * 100_000
LONG = "9" * 5000


@pytest.mark.parametrize("kind", ["json", "jsonl"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        (" \n \n", "it is empty"),
        ("null", "null"),
        ("true", "true or false"),
        ("3", "a number"),
        ('"a"', "a text"),
        ("[]", "empty|a list"),
        ("{}", "empty|sentence, label was expected"),
        ("[null]", "row 1 is (null|a list), but an object"),
        ('{"sentence": "a", "label": 1}\nnull\n', "row 2 is null"),
        ('{"sentence": "a", "label": 1}\n{"sentence": ', "line 2"),
        (DEEP, "nested too deeply"),
        ('{"sentence": "a", "label": ' + DEEP, "nested too deeply"),
        ('{"sentence": "a", "label": ' + LONG + "}", "digits"),
        ('{"sentence": "a", "sentence": "b", "label": 1}', "'sentence' twice"),
        ('{"sentence": "\\ud800", "label": 1}', "half of a surrogate pair"),
        ('{"sentence": "a", "label": NaN}', "label nan is none"),
        ('{"sentence": "a", "label": [1, 2]}', r"label \[1, 2\] is none|lists of one length"),
        ('{"version": 1, "data": [{"sentence": "a", "label": 1}]}', r"version \(no list\), data \(1\)|label was"),
        ('{"sentence": ["a", "b"], "label": [1]}', r"sentence \(2\), label \(1\)|sentence is \['a', 'b'\]"),
        ('{"sentence": {"0": "a"}, "label": {"1": 1}}', "not the same rows|sentence is {'0'"),
        (b'{"sentence": "\xff", "label": 1}', "not UTF-8"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    ],
)
def test_json_that_is_no_table(tmp_path, kind, text, words):
    with pytest.raises(InputError, match=words) as said:
        read_task(write(tmp_path / f"train.{kind}", text), SST2, "train")
    assert f"train.{kind}" in str(said.value) and len(str(said.value)) < 400
    corpus = text if isinstance(text, bytes) else text.replace("sentence", "text")
    if not any(f"label{end}" in words for end in (" nan", r" \[", " was")):
        with pytest.raises(InputError, match=f"c.{kind}"):
            list(read_corpus([write(tmp_path / f"c.{kind}", corpus)]))


def test_numbers_that_are_no_scores(tmp_path):
    task = Task.own("stars", [])
    for label in ("9" * 400, "1e999", "NaN", '"much"', "null", "[1]", "{}"):
        path = write(tmp_path / "a.jsonl", f'{{"sentence": "a", "label": {label}}}')
        with pytest.raises(InputError, match=r"row 1: score .* is not a number") as said:
            read_task(path, task, "train")
        assert len(str(said.value)) < 300


def test_numbers_of_a_test_set_are_all_there(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"sentence": "a", "index": 4}\n{"sentence": "b"}\n')
    with pytest.raises(InputError, match="row 2: index is missing"):
        read_task(path, SST2, "test")


# ---------------------------------------------------------------------------------------------------------------------
# Parquet, folders, pointers, columns


def test_parquet_that_is_none(tmp_path):
    whole = table(tmp_path / "whole.parquet", [{"sentence": "a", "label": 1, "text": "b"}]).read_bytes()
    for content in (b"", b"PAR1", whole[:-9], whole[:40] + whole[-40:], b"\x00" * 99):
        path = write(tmp_path / "a.parquet", content)
        for use in (lambda path: read_task(path, SST2, "train"), lambda path: list(read_corpus([path]))):
            with pytest.raises(InputError, match=r"a\.parquet cannot be read as parquet"):
                use(path)
    with pytest.raises(InputError, match=r"row 1: there are the columns \['b'\]"):
        list(read_corpus([table(tmp_path / "b.parquet", [{"b": "a"}])]))
    with pytest.raises(InputError, match="row 2: text is None"):
        list(read_corpus([table(tmp_path / "c.parquet", [{"text": "a"}, {"text": None}])]))
    many = [{"text": f"row {i}"} for i in range(2500)]
    assert list(read_corpus([table(tmp_path / "d.parquet", many)])) == [row["text"] for row in many]


@pytest.mark.parametrize("kind", ["tsv", "csv", "json", "jsonl", "parquet", "txt"])
def test_folders_and_pointers_are_no_files(tmp_path, kind):
    (tmp_path / f"train.{kind}").mkdir()
    pointer = write(tmp_path / f"pointer.{kind}", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(InputError, match=rf"train\.{kind}.*directory"):
        list(read_corpus([tmp_path / f"train.{kind}"]))
    with pytest.raises(InputError, match="Git LFS pointer"):
        list(read_corpus([pointer]))
    if kind != "txt":
        with pytest.raises(InputError, match=rf"train\.{kind}.*directory"):
            read_task(tmp_path, SST2, "train")
        with pytest.raises(InputError, match="Git LFS pointer"):
            read_task(pointer, SST2, "train")


def test_columns_that_are_remembered_and_not_there_are_named(tmp_path):
    columns = column_names(SST2, ["sentence=review", "label=stars"])
    path = write(tmp_path / "dev.tsv", "sentence\tlabel\na\t1\n")
    words = (
        r"\['sentence', 'label'\], but sentence, label was .*`columns` said sentence=review label=stars, .*run was made"
    )
    with pytest.raises(InputError, match=words):
        read_task(path, SST2, "dev", columns)
    with pytest.raises(InputError, match=r"index was expected .*index=nr"):
        read_task(path, SST2, "test", {"index": "nr"})


@pytest.mark.parametrize("name", ["c.txt", "c.tsv", "c.csv"])
def test_a_corpus_of_a_table_is_its_column(tmp_path, name):
    text = {"c.txt": "one\nline\n\ntwo\n", "c.tsv": "id\ttext\n1\tone line\n2\ttwo\n", "c.csv": "text\none line\ntwo\n"}
    assert list(read_corpus([write(tmp_path / name, text[name])])) == ["one line", "two"]
