"""GLUE's nine tasks: their official files with all their quirks, files of one's own, the hub, whole small runs."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_training import BAD, GOOD, RECIPE, write_task, write_teacher

from refsnn.commands.cli import main
from refsnn.data.metrics import METRICS
from refsnn.data.reading import read_task
from refsnn.data.tasks import HUB, TASKS, Task, column_names, splits
from refsnn.distillation.stages import distill
from refsnn.distillation.student import true_loss
from refsnn.errors import InputError
from refsnn.evaluation.evaluate import evaluate_run
from refsnn.evaluation.submit import submit
from refsnn.files import load_tensors, save_tensors
from refsnn.pages.report import write_report
from refsnn.pages.tables import results_table
from refsnn.storage.checkpoints import load_student
from refsnn.storage.run import Run

# ---------------------------------------------------------------------------------------------------------------------
# Official files

MNLI = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
MNLI += " sentence1 sentence2"
#: Task and split -> rows as the archive has them (fields by |), and the texts and labels that are meant.
OFFICIAL = {
    ("cola", "train"): (
        ["gj04|1||Our friends won't buy this.", 'gj04|0|*|He said "so.', "gj04|1||0"],
        [("Our friends won't buy this.", 1), ('He said "so.', 0), ("0", 1)],
    ),
    ("cola", "test"): (["index|sentence", "0|Bill fell.", "1|sentence"], [("Bill fell.", "0"), ("sentence", "1")]),
    ("sst2", "dev"): (["sentence|label", "it 's \"good|1", "bad |0"], [("it 's \"good", 1), ("bad ", 0)]),
    ("sst2", "test"): (["index|sentence", "0|good"], [("good", "0")]),
    ("mrpc", "train"): (
        ["\ufeffQuality|#1 ID|#2 ID|#1 String|#2 String", '1|70|71|"Yes|He said "yes', "0|3|4|a|b"],
        [('"Yes', 'He said "yes', 1), ("a", "b", 0)],
    ),
    ("mrpc", "test"): (["\ufeffindex|#1 ID|#2 ID|#1 String|#2 String", "0|7|8|a|b"], [("a", "b", "0")]),
    ("stsb", "dev"): (
        [
            "index|genre|filename|year|old_index|source1|source2|sentence1|sentence2|score",
            "0|main|MSRvid|2012test|0000|none|none|a|b|5.000",
            "1|main|MSRvid|2012test|0001|none|none|c|d|0.25",
        ],
        [("a", "b", 5.0), ("c", "d", 0.25)],
    ),
    ("stsb", "test"): (
        [
            "index|genre|filename|year|old_index|source1|source2|sentence1|sentence2",
            "0|main|MSRvid|2012test|0000|none|none|a|b",
        ],
        [("a", "b", "0")],
    ),
    ("qqp", "train"): (
        [
            "id|qid1|qid2|question1|question2|is_duplicate",
            "133273|213221|213222|How is \"it\" done?|How?|1",
            "402555|536040|536041|How do I control my",  # a line end within the question
            "emotions?|How?|0",
            "5|6|7|Who?|What?|",
            "1|2|3|Where?||0",
        ],
        [('How is "it" done?', "How?", 1), ("Where?", "", 0)],
    ),
    ("qqp", "test"): (["id|question1|question2", "0|Why?|How?", "1|a|b"], [("Why?", "How?", "0"), ("a", "b", "1")]),
    ("mnli", "train"): (
        [
            f"{MNLI} label1 gold_label".replace(" ", "|"),
            "0|1|1n|fiction|( a )|( b )|(ROOT a)|(ROOT b)|a|b|neutral|neutral",
            "1|2|2e|fiction|( a )|( b )|(ROOT a)|(ROOT b)|c|d|entailment|entailment",
            "2|3|3c|fiction|( a )|( b )|(ROOT a)|(ROOT b)|e|f|neutral|contradiction",
        ],
        [("a", "b", 1), ("c", "d", 0), ("e", "f", 2)],
    ),
    ("mnli", "dev_mismatched"): (
        [
            f"{MNLI} label1 label2 label3 label4 label5 gold_label".replace(" ", "|"),
            "0|1|1n|fiction|( a )|( b )|(ROOT a)|(ROOT b)|a|b|neutral|neutral|entailment|entailment|contradiction|-",
            "1|2|2e|fiction|( a )|( b )|(ROOT a)|(ROOT b)|c|d|neutral|neutral|neutral|neutral|entailment|neutral",
        ],
        [("c", "d", 1)],
    ),
    ("mnli", "test_matched"): (
        [MNLI.replace(" ", "|"), "9|1|1n|fiction|( a )|( b )|(ROOT a)|(ROOT b)|a|b"],
        [("a", "b", "9")],
    ),
    ("qnli", "dev"): (
        ["index|question|sentence|label", "0|Who?|He.|entailment", "1|What?|It.|not_entailment"],
        [("Who?", "He.", 0), ("What?", "It.", 1)],
    ),
    ("qnli", "test"): (["index|question|sentence", "0|Who?|He."], [("Who?", "He.", "0")]),
    ("rte", "train"): (["index|sentence1|sentence2|label", "0|a|b|not_entailment"], [("a", "b", 1)]),
    ("wnli", "train"): (["index|sentence1|sentence2|label", "0|a|b|1", "1|c|d|0"], [("a", "b", 1), ("c", "d", 0)]),
}  # fmt: skip


def write_tsv(path: Path, rows: list[str], end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(row.replace("|", "\t") + end for row in rows).encode())
    return path


def rows_of(dataset) -> list[tuple]:
    return list(zip(*(dataset[name][:] for name in dataset.column_names), strict=True))


@pytest.mark.parametrize(("name", "split"), OFFICIAL)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_official_files_are_read_quirks_and_all(tmp_path, capsys, name, split, end):
    lines, expected = OFFICIAL[name, split]
    task = TASKS[name]
    path = write_tsv(tmp_path / task.folder / f"{split}.tsv", lines, end)
    for data in (tmp_path, path.parent, path):
        dataset = read_task(data, task, split)
        assert dataset.column_names == [*task.sentences, "index" if "test" in split else "label"]
        assert rows_of(dataset) == expected
    left_out = {("qqp", "train"): 3, ("mnli", "dev_mismatched"): 1}.get((name, split), 0)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"{path}: left out {left_out} rows that are broken or have no label"] * 3 * bool(left_out)


def test_official_files_that_are_at_hand_are_read_whole(data):
    scores = {}
    for split, count in {"train": 5749, "dev": 1500}.items():
        dataset = read_task(data / "glue", TASKS["stsb"], split)
        scores[split] = np.array(dataset["label"])
        assert len(dataset) == count and scores[split].dtype == float
    assert scores["train"].min() == 0 and scores["train"].max() == 5


def test_tasks_are_glue_s():
    assert list(TASKS) == ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]
    assert {name: task.max_length for name, task in TASKS.items() if task.max_length != 128} == {"cola": 64, "sst2": 64}
    assert {metric for task in TASKS.values() for metric in task.metrics} == set(METRICS)
    assert [TASKS[name].outputs for name in ("stsb", "sst2", "mnli")] == [1, 2, 3]


def test_classes_are_called_as_the_hub_calls_them():
    assert {name: task.classes for name, task in TASKS.items()} == {
        "cola": ("unacceptable", "acceptable"),
        "sst2": ("negative", "positive"),
        "mrpc": ("not_equivalent", "equivalent"),
        "stsb": (),
        "qqp": ("not_duplicate", "duplicate"),
        "mnli": ("entailment", "neutral", "contradiction"),
        "qnli": ("entailment", "not_entailment"),
        "rte": ("entailment", "not_entailment"),
        "wnli": ("not_entailment", "entailment"),
    }
    assert Task("Mine").classes == ("class 0", "class 1")
    assert Task("News", labels=("world", "sport")).classes == ("world", "sport")


BROKEN = {
    "no column for labels": ("mrpc", ["#1 String|#2 String", "a|b"], "label was expected; say .*`columns` label="),
    "a row too short": ("mnli", ["sentence1|sentence2|gold_label", "a|b"], "line 2 has 2 fields, but the header has 3"),
    "a label of another task": ("mnli", ["sentence1|sentence2|gold_label", "a|b|maybe"], "line 2: label 'maybe'"),
    "a score beyond the scale": ("stsb", ["sentence1|sentence2|score", "a|b|5.5"], r"score '5.5' is not .* 0 to 5$"),
    "a score that is none": ("stsb", ["sentence1|sentence2|score", "a|b|nan"], "line 2: score 'nan'"),
    "a score in words": ("stsb", ["sentence1|sentence2|score", "a|b|much"], "line 2: score 'much'"),
    "a column too few for CoLA": ("cola", ["gj04|1|a"], r"columns \['gj04', '1', 'a'\], but sentence, label"),
    "only rows without labels": ("mnli", ["sentence1|sentence2|gold_label", "a|b|-"], "has no rows"),
    "an empty file": ("cola", [], r"columns \[\]"),
    "a column twice": ("sst2", ["sentence|label|label", "a|0|1"], "two columns called 'label'"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_broken_files_are_refused_in_words(tmp_path, what):
    name, rows, words = BROKEN[what]
    write_tsv(tmp_path / "train.tsv", rows)
    with pytest.raises(InputError, match=words):
        read_task(tmp_path, TASKS[name], "train")


def test_a_row_of_a_test_set_is_never_left_out(tmp_path):
    write_tsv(tmp_path / "test.tsv", ["id|question1|question2", "0|a"])
    with pytest.raises(InputError, match="line 2 has 2 fields"):
        read_task(tmp_path, TASKS["qqp"], "test")


# ---------------------------------------------------------------------------------------------------------------------
# Files of one's own


OWN = [
    {"sentence1": 'say, "hm', "sentence2": "NA", "label": "neutral"},
    {"sentence1": "1984", "sentence2": "", "label": "contradiction"},
]
MEANT = [('say, "hm', "NA", 1), ("1984", "", 2)]


def write_own(path: Path, rows: list[dict]) -> Path:
    from datasets import Dataset

    dataset = Dataset.from_list(rows)
    if path.suffix == ".parquet":
        dataset.to_parquet(path)
    elif path.suffix == ".csv":
        dataset.to_csv(path)
    else:
        text = json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows))
        path.write_text(text + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
@pytest.mark.parametrize("form", ["as GLUE's", "as the hub's", "class indices", "names of one's own"])
def test_files_of_one_s_own(tmp_path, kind, form):
    rows, columns = OWN, {}
    if form == "as the hub's":
        rows = [{"premise": r["sentence1"], "hypothesis": r["sentence2"], "label": r["label"], "idx": 3} for r in OWN]
    elif form == "class indices":
        rows = [row | {"label": TASKS["mnli"].labels.index(row["label"])} for row in OWN]
    elif form == "names of one's own":
        rows = [
            {"a": r["sentence1"], "label": "x", "sentence1": "x", "b": r["sentence2"], "gold": r["label"]} for r in OWN
        ]
        columns = column_names(TASKS["mnli"], ["sentence1=a", "sentence2=b", "label=gold"])
    path = write_own(tmp_path / f"train.{kind}", rows)
    for data in (tmp_path, path):
        assert rows_of(read_task(data, TASKS["mnli"], "train", columns)) == MEANT


def test_labels_may_be_true_or_have_gaps_or_a_byte_order_mark_before_them(tmp_path):
    path = write_own(tmp_path / "train.jsonl", [{"sentence": "a", "label": True}, {"sentence": "b", "label": False}])
    assert rows_of(read_task(path, TASKS["cola"], "train")) == [("a", 1), ("b", 0)]
    path = write_own(
        tmp_path / "train.json", [{"question1": "a", "question2": "b", "is_duplicate": x} for x in (1, None, 0)]
    )
    assert rows_of(read_task(path, TASKS["qqp"], "train")) == [("a", "b", 1), ("a", "b", 0)]
    path = tmp_path / "train.csv"
    path.write_text("\ufefflabel,sentence\n1,a\n", encoding="utf-8")
    assert rows_of(read_task(path, TASKS["sst2"], "train")) == [("a", 1)]


def test_named_classes_in_another_order_keep_their_meaning(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features(
        {"sentence1": Value("string"), "sentence2": Value("string"), "label": ClassLabel(names=["x", "y"])}
    )
    for names, task, expected in (
        (["not_entailment", "entailment"], "rte", [1, 0]),
        (["entailment", "not_entailment"], "wnli", [1, 0]),  # the hub's words for 1 and 0
        (["0", "1"], "rte", [0, 1]),
        (["no", "yes"], "rte", "row 1: label 'no' is none of"),  # which of the two is entailment, nobody knows
    ):
        features["label"] = ClassLabel(names=names)
        columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1]}
        Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "train.parquet")
        if isinstance(expected, str):
            with pytest.raises(InputError, match=expected):
                read_task(tmp_path, TASKS[task], "train")
        else:
            assert read_task(tmp_path, TASKS[task], "train")["label"][:] == expected


def test_examples_without_numbers_are_counted(tmp_path):
    path = write_own(tmp_path / "mine.csv", [{"sentence": "a"}, {"sentence": "b"}])
    assert rows_of(read_task(path, TASKS["sst2"], "test")) == [("a", "0"), ("b", "1")]
    path = write_own(tmp_path / "mine.jsonl", [{"sentence": "a", "nr": 7}])
    assert rows_of(read_task(path, TASKS["sst2"], "test", {"index": "nr"})) == [("a", "7")]


def test_tsv_files_come_before_others_and_the_task_s_folder_before_the_one_above(tmp_path):
    write_own(tmp_path / "train.csv", [{"sentence": "above", "label": 1}])
    assert read_task(tmp_path, TASKS["sst2"], "train")["sentence"][:] == ["above"]
    write_tsv(tmp_path / "train.tsv", ["sentence|label", "tsv|1"])
    assert read_task(tmp_path, TASKS["sst2"], "train")["sentence"][:] == ["tsv"]
    write_tsv(tmp_path / "SST-2" / "train.tsv", ["sentence|label", "official|1"])
    assert read_task(tmp_path, TASKS["sst2"], "train")["sentence"][:] == ["official"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "train.csv",
            "text,label\na,1\n",
            r"columns \['text', 'label'\], but sentence was expected.*`columns` sentence=",
        ),
        ("train.csv", "sentence,label\na,1\nb,1,2\n", "row 2 has 3 fields, but the header has 2"),
        ("train.csv", "sentence,label\na,1\nb\n", "row 2 has 1 field, but the header has 2"),
        ("train.csv", "sentence,label\n", "train.csv has no rows"),
        ("train.csv", "", r"has the columns \[\]"),
        ("train.csv", "sentence,label\n\xff,1\n", "cannot be read as csv"),
        ("train.jsonl", '{"sentence": "a", "label": 1}\n{"sentence": "b", "la', "cannot be read as jsonl"),
        ("train.jsonl", '{"sentence": "a", "label": 2}\n', "row 1: label 2 is none of"),
        ("train.jsonl", '{"sentence": "a", "label": null}\n', "row 1: label None is none of"),
        ("train.jsonl", '{"sentence": 3, "label": 1}\n', "row 1: sentence is 3, but text was expected"),
        ("train.json", '{"a": ', "cannot be read as json"),
        ("train.json", "[]", "cannot be read as json"),
        ("train.parquet", "nonsense", "cannot be read as parquet"),
        ("train.txt", "a 1\n", r"has train.tsv \(or train.csv"),
    ],
)
def test_files_of_one_s_own_that_cannot_be_used(tmp_path, name, text, words):
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=words):
        read_task(tmp_path, TASKS["sst2"], "train")


def test_names_and_places_that_cannot_be_used(tmp_path):
    (tmp_path / "data.txt").write_text("a")
    with pytest.raises(InputError, match=r"ends in '.txt', but one of .tsv, .csv"):
        read_task(tmp_path / "data.txt", TASKS["sst2"], "train")
    for pair in ("label", "label=", "sentence1=a"):
        with pytest.raises(InputError, match=r"NAME=COLUMN was expected, where NAME is one of sentence, label, index"):
            column_names(TASKS["sst2"], [pair])
    write_tsv(tmp_path / "dev_matched.tsv", OFFICIAL["mnli", "train"][0])
    assert splits(TASKS["mnli"], tmp_path, "dev") == ["dev_matched", "dev_mismatched"]
    assert splits(TASKS["mnli"], tmp_path / "dev_matched.tsv", "dev") == ["dev"]
    assert splits(TASKS["sst2"], tmp_path, "dev") == ["dev"]


# ---------------------------------------------------------------------------------------------------------------------
# The hub


def test_the_hub_s_columns_and_splits(monkeypatch):
    import datasets

    asked = []

    def load_dataset(*names, split):
        asked.append((*names, split))
        features = {name: datasets.Value("string") for name in ("premise", "hypothesis")}
        features |= {"label": datasets.ClassLabel(names=list(TASKS["mnli"].labels)), "idx": datasets.Value("int32")}
        rows = {"premise": ["a"], "hypothesis": ["b"], "label": [-1 if "test" in split else 2], "idx": [5]}
        return datasets.Dataset.from_dict(rows, features=datasets.Features(features))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert rows_of(read_task(HUB, TASKS["mnli"], "train")) == [("a", "b", 2)]
    assert rows_of(read_task(HUB, TASKS["mnli"], "dev_mismatched")) == [("a", "b", 2)]
    assert rows_of(read_task(HUB, TASKS["mnli"], "test_matched")) == [("a", "b", "5")]
    glue = ("nyu-mll/glue", "mnli")
    assert asked == [(*glue, "train"), (*glue, "validation_mismatched"), (*glue, "test_matched")]


def test_without_a_network_the_hub_is_one_sentence(tmp_path):
    words = f"-m refsnn distill --task qnli --data hub --encoders 1 --max-length 16 --out {tmp_path / 'run'} --teacher"
    teacher = write_teacher(tmp_path / "bert")
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, *words.split(), teacher], capture_output=True, text=True, env=offline)
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert said.startswith("refsnn: GLUE's qnli can neither be fetched") and "--data" in said


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs


SHORT = replace(RECIPE, epochs_teacher=1, epochs_general=0, epochs_internal=1, epochs_prediction=1)


def write_pairs(folder: Path, task: str, split: str, count: int, seed: int = 0) -> None:
    """Pairs whose praise or blame says the score (STS-B) or the class (MNLI), in the official columns."""
    rng = np.random.default_rng(seed)
    label = {"stsb": "score", "mnli": "gold_label"}[task]
    rows = ["index|sentence1|sentence2" + f"|{label}" * ("test" not in split)]
    for i in range(count):
        good = rng.integers(2)
        words = rng.choice((BAD, GOOD)[good], 2)
        answer = f"{1 + 3 * good + rng.random():.3f}" if task == "stsb" else TASKS["mnli"].labels[2 * good]
        rows.append(f"{i}|the film is {words[0]}|the plot is {words[1]}" + f"|{answer}" * ("test" not in split))
    write_tsv(folder / TASKS[task].folder / f"{split}.tsv", rows)


@pytest.fixture(scope="module")
def stsb(tmp_path_factory):
    """A run on made-up similarities, distilled and evaluated by the command."""
    root = tmp_path_factory.mktemp("stsb")
    for split, count in {"train": 120, "dev": 30, "test": 30}.items():
        write_pairs(root, "stsb", split, count)
    teacher, run = write_teacher(root / "bert"), root / "run"
    options = "--encoders 1 --max-length 16 --batch-size 8 --epochs-teacher 10 --epochs-general 0 --epochs-internal 8 "
    options += "--epochs-prediction 8 --lr-teacher 3e-3 --lr-internal 3e-3 --lr-prediction 3e-3"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("refsnn.ops.soft_cross_entropy", None)  # true scores are learned, not the teacher's
        words = ["distill", "--task", "stsb", "--data", root, "--teacher", teacher, "--out", run, *options.split()]
        assert main([*map(str, words)]) == 0
    assert main(["evaluate", str(run), "--data", str(root), "--t-conv", "64", "8"]) == 0
    return run


def complaints(capsys) -> list[str]:
    """What was said to people on standard error, progress bars aside."""
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return [line for line in said.splitlines() if line.startswith("refsnn: ")]


def strict_json(path: Path) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_a_student_learns_scores(stsb):
    results = strict_json(stsb / "results-inst.json")
    assert results["metric"] == "pearson" and results["split"] == "dev" and results["others"] == []
    assert list(results["metrics"]["teacher"]) == ["pearson", "spearman"]
    assert results["metrics"]["teacher"]["pearson"] > 0.9
    assert results["metrics"]["rate"]["pearson"] > 0.9 and results["metrics"]["rate"]["spearman"] > 0.5
    assert [row["t"] for row in results["spikes"]] == [8, 64]
    assert all(list(row["metrics"]) == ["pearson", "spearman"] for row in results["spikes"])
    assert results["spikes"][-1]["metrics"]["pearson"] > 0.8
    assert results["teacher_accuracy"] is None and results["spikes"][0]["accuracy"] is None
    assert isinstance(results["example"]["label"], float)
    config, params = load_student(stsb)
    assert config.classes == 1 and params["classifier.weight"].shape == (1, 16)
    assert {value.dtype for value in params.values()} == {np.dtype(np.float32)}
    examples, _ = Run(stsb).sample(3, stsb.parent)
    assert examples.labels.dtype == float


def test_the_table_and_the_page_of_a_regression(stsb):
    results = strict_json(stsb / "results-inst.json")
    lines = results_table(results).splitlines()
    assert lines[0] == "STS-B dev, 30 examples, integration rule inst"
    assert lines[2].split()[:3] == ["Pearson", "Spearman", "agrees"]
    assert lines[4].split() == [
        "teacher",
        "(BERT)",
        *(f"{100 * v:.1f}" for v in results["metrics"]["teacher"].values()),
    ]
    page = (stsb / "report.html").read_text(encoding="utf-8")
    assert "reaches a Pearson correlation" in page and "true score" in page and "right class" not in page
    assert page.count("<figure ") == 6 and "mean squared error" in page and ">nan" not in page


def test_predictions_that_are_all_the_same_are_readable(stsb, tmp_path):
    import shutil

    run = shutil.copytree(stsb, tmp_path / "run")
    params, metadata = load_tensors(run / "model.safetensors")
    params["classifier.weight"][:] = 0
    save_tensors(run / "model.safetensors", params, metadata)
    results = evaluate_run(run, stsb.parent, [4])
    assert strict_json(run / "results-inst.json")["metrics"]["rate"] == {"pearson": None, "spearman": None}
    assert results["spikes"][0]["agreement"] is None
    lines = results_table(results).splitlines()
    assert lines[5].split() == ["student,", "rate", "map", "-", "-"] and any("undefined" in line for line in lines)
    page = write_report(run).read_text(encoding="utf-8")
    assert "<td>–</td>" in page and ">nan<" not in page


def test_submitted_scores_stay_on_the_scale(stsb, tmp_path, capsys):
    data = stsb.parent
    words = ["submit", str(stsb), "--data", str(data), "--out"]
    assert main([*words, str(tmp_path / "glue")]) == 0
    assert main([*words, str(tmp_path / "spikes.tsv"), "--t-conv", "8", "--rule", "running"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {tmp_path / 'glue' / 'STS-B.tsv'}",
        f"wrote {tmp_path / 'spikes.tsv'}",
    ]
    found = []
    for path in (tmp_path / "glue" / "STS-B.tsv", tmp_path / "spikes.tsv"):
        head, *rows = [line.split("\t") for line in path.read_text().splitlines()]
        assert head == ["index", "prediction"] and [row[0] for row in rows] == [str(i) for i in range(30)]
        found.append(np.array([float(row[1]) for row in rows]))
    assert all(scores.min() >= 0 and scores.max() <= 5 for scores in found)
    assert not np.array_equal(*found)
    truth = np.array(read_task(data, TASKS["stsb"], "dev")["label"])  # made with the same seed as the test split
    results = strict_json(stsb / "results-inst.json")
    assert METRICS["pearson"](found[0], truth) == pytest.approx(results["metrics"]["rate"]["pearson"], abs=1e-3)


@pytest.fixture(scope="module")
def mnli(tmp_path_factory):
    root = tmp_path_factory.mktemp("mnli")
    for seed, split in enumerate(("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched")):
        write_pairs(root, "mnli", split, 20 + seed, seed)
    distill(replace(SHORT, task="mnli"), root, write_teacher(root / "bert"), root / "run")
    return root / "run"


def test_both_dev_sets_of_mnli(mnli, capsys):
    assert main(["evaluate", str(mnli), "--data", str(mnli.parent), "--t-conv", "4"]) == 0
    results = strict_json(mnli / "results-inst.json")
    (other,) = results["others"]
    assert (results["split"], other["split"]) == ("dev_matched", "dev_mismatched")
    assert (results["examples"], other["examples"]) == (21, 22)
    out = capsys.readouterr().out
    assert "MNLI dev_matched, 21 examples" in out and "MNLI dev_mismatched, 22 examples" in out
    page = (mnli / "report.html").read_text(encoding="utf-8")
    assert "MNLI dev_matched" in page and "MNLI dev_mismatched" in page
    alone = evaluate_run(mnli, mnli.parent / "MNLI" / "dev_mismatched.tsv", [4])
    assert alone["split"] == "dev" and alone["others"] == []
    assert alone["spikes"] == other["spikes"] and alone["metrics"] == other["metrics"]


def test_both_submissions_of_mnli(mnli, tmp_path, capsys):
    paths = submit(mnli, mnli.parent, tmp_path)
    assert [path.name for path in paths] == ["MNLI-m.tsv", "MNLI-mm.tsv"]
    for path, count in zip(paths, (23, 24), strict=True):
        _, *rows = [line.split("\t") for line in path.read_text().splitlines()]
        assert len(rows) == count and {row[1] for row in rows} <= set(TASKS["mnli"].labels)
    one = mnli.parent / "MNLI" / "test_mismatched.tsv"
    submit(mnli, one, tmp_path / "mine.tsv")
    assert (tmp_path / "mine.tsv").read_bytes() == paths[1].read_bytes()
    for data, out, words in (
        (mnli.parent, tmp_path / "one.tsv", "has 2 test sets; name a folder"),
        (one, tmp_path, "MNLI-m.tsv or MNLI-mm.tsv"),
        (mnli.parent / "nowhere", tmp_path, "nowhere does not exist"),
        (mnli.parent / "bert", tmp_path, "test_matched.tsv"),
        (one, tmp_path / "mine.tsv" / "under.tsv", "cannot write"),
    ):
        assert main(["submit", str(mnli), "--data", str(data), "--out", str(out)]) == 2
        (said,) = complaints(capsys)
        assert words in said
    assert main(["submit", str(mnli), "--data", str(one), "--out", str(tmp_path / "a.tsv"), "--t-conv", "0"]) == 2
    assert "at least one step" in capsys.readouterr().err


def test_cola_by_its_correlation_from_files_of_one_s_own(tmp_path, capsys):
    """The run remembers how the columns are called; predictions on the dev texts are those that were evaluated.

    A record of other files takes their columns' names.
    """
    sst2 = write_task(tmp_path / "sst2", 16)
    for split in ("train", "dev"):
        texts = read_task(sst2, TASKS["sst2"], split)
        rows = [{"review": text, "fine": label} for text, label in rows_of(texts)]
        write_own(tmp_path / f"{split}.jsonl", rows)
    write_own(tmp_path / "others.jsonl", [{"opinion": row["review"], "good": row["fine"]} for row in rows])
    run, train, dev = tmp_path / "run", tmp_path / "train.jsonl", tmp_path / "dev.jsonl"
    options = "--encoders 1 --max-length 16 --epochs-teacher 1 --epochs-general 0 --epochs-internal 1".split()
    words = ["distill", "--task", "cola", "--data", str(train), "--teacher", str(write_teacher(tmp_path / "bert"))]
    words += ["--out", str(run), *options, "--columns"]
    assert main([*words, "sentence=review", "label=stars"]) == 2
    assert "has the columns ['review', 'fine'], but label was expected" in capsys.readouterr().err
    assert main([*words, "sentence=review", "label=fine"]) == 0
    assert "evaluate" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--data", str(dev), "--t-conv", "4"]) == 0
    results = strict_json(run / "results-inst.json")
    assert results["metric"] == "matthews" and -1 <= results["metrics"]["rate"]["matthews"] <= 1
    assert "Matthews" in capsys.readouterr().out
    assert "reaches a Matthews correlation" in (run / "report.html").read_text(encoding="utf-8")
    (path,) = submit(run, dev, tmp_path / "out")
    assert path.name == "CoLA.tsv"
    predicted = np.array([int(line.split("\t")[1]) for line in path.read_text().splitlines()[1:]])
    truth = np.array(read_task(dev, TASKS["cola"], "dev", {"sentence": "review", "label": "fine"})["label"])
    assert METRICS["matthews"](predicted, truth) == results["metrics"]["rate"]["matthews"]
    assert METRICS["accuracy"](predicted, truth) == results["rate_accuracy"]
    assert main([*words, "sentence=review"]) == 2  # another reading is another run
    assert main(["evaluate", str(run), "--data", str(dev), "--columns", "label=stars", "sentence=review"]) == 2
    said = complaints(capsys)
    assert len(said) == 2 and all("label was expected" in line for line in said)
    record = ["record", str(run), "--samples", "3", "--t-conv", "2", "--data"]
    columns = ["--columns", "sentence=opinion", "label=good"]
    assert main([*record, str(dev), "--out", str(tmp_path / "a.safetensors")]) == 0
    assert main([*record, str(tmp_path / "others.jsonl"), *columns, "--out", str(tmp_path / "b.safetensors")]) == 0
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert len(load_tensors(tmp_path / "a.safetensors")[0]["input_ids"]) == 3
    assert main([*record, str(tmp_path / "others.jsonl"), "--out", str(tmp_path / "c.safetensors")]) == 2
    assert main([*record, str(dev), "--out", str(tmp_path / "c.safetensors"), "--samples", "0"]) == 2
    said = complaints(capsys)
    assert "sentence, label was expected" in said[0] and "at least one sentence" in said[1]


def test_the_loss_against_the_truth_keeps_the_precision_of_the_scores():
    z = np.array([[1.0], [4.0]], np.float32)
    loss, pullback = true_loss(z, np.array([2.0, 4.5]))
    assert float(loss) == pytest.approx((1 + 0.25) / 2)
    assert pullback(1.0).dtype == np.float32 and pullback(1.0).shape == (2, 1)
    np.testing.assert_allclose(pullback(2.0)[:, 0], [-2.0, -1.0])


def test_a_run_that_is_not_finished_submits_nothing(tmp_path, capsys):
    assert main(["submit", str(tmp_path), "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "no finished student" in capsys.readouterr().err and not (tmp_path / "out").exists()
