"""The front door's values: students and teachers answer what the readings say, and come back from their folders."""

import json
import subprocess
import sys

import numpy as np
import pytest
from test_training import write_task, write_teacher

import refsnn
from refsnn.commands.cli import main
from refsnn.data.examples import encode_texts
from refsnn.distillation.predict import predict_rates, predict_spikes, predict_teacher
from refsnn.readings.equilibrium import equilibrium
from refsnn.readings.simulate import spike_steps

TEXTS = ["good film", "the bad film", "film"]
RECIPE = refsnn.Recipe("sst2", 2, max_length=16, batch_size=8, epochs_teacher=2, epochs_general=0, epochs_internal=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    refsnn.distill(RECIPE, write_task(root / "data", 32), write_teacher(root / "bert"), root / "run")
    return root / "run"


@pytest.fixture
def student(run):
    return refsnn.load(run)


def test_a_student_answers_what_the_readings_say(run, student):
    config, params = refsnn.Run(run).student()
    examples = encode_texts(TEXTS, refsnn.Run(run).tokenizer())
    np.testing.assert_array_equal(student.logits(TEXTS), predict_rates(config, params, examples))
    for rule in ("inst", "running"):
        spikes = predict_spikes(config, params, examples, [6], rule)[6].logits
        np.testing.assert_array_equal(student.logits(TEXTS, t_conv=6, rule=rule), spikes)
    shares = student.predict_proba(TEXTS)
    np.testing.assert_allclose(shares, np.exp(z := student.logits(TEXTS)) / np.exp(z).sum(axis=1, keepdims=True), 1e-6)
    assert student.predict(TEXTS) == [("negative", "positive")[i] for i in shares.argmax(axis=1)]


def test_texts_and_their_batch_are_answered_alike(student):
    batch = student.batch(TEXTS)
    assert batch.attention_mask.sum(axis=1).tolist() == [4, 5, 3]
    for options in ({}, {"t_conv": 5}, {"t_conv": 5, "rule": "running"}):
        np.testing.assert_allclose(student.logits(batch, **options), student.logits(TEXTS, **options), 1e-5, 1e-6)


def test_rates_and_rasters_are_the_networks_own(student):
    batch = student.batch(TEXTS[1:2])
    rates = equilibrium(student.network, student.params, batch).rates
    found = student.rates(TEXTS[1:2])
    for population in student.network.populations:
        np.testing.assert_array_equal(found[population.name], rates[population.name])
    spikes, tokens = student.raster(TEXTS[1], "encoder.1.value", t_conv=7, rule="running")
    steps = [s["encoder.1.value"][0] for _, s, _ in spike_steps(student.network, student.params, batch, 7, "running")]
    np.testing.assert_array_equal(spikes, steps)
    assert tokens == ["[CLS]", "the", "bad", "film", "[SEP]"]
    asr = student.simulate(batch, [3, 7], rule="running")
    np.testing.assert_allclose(asr[7]["encoder.1.value"][0], spikes.mean(axis=0), atol=1e-6)


def test_gradients_are_those_of_finite_differences():
    config = refsnn.BertConfig(
        vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=6
    )
    student = refsnn.Student.random(refsnn.StudentConfig(config, 4, 3), seed=5)
    batch, labels = refsnn.Batch.of([[1, 2, 3], [4]]), np.array([2, 0])
    loss, gradients = student.value_and_grad(batch, labels)
    z = student.logits(batch)
    assert loss == pytest.approx(-np.log(np.exp(z)[[0, 1], labels] / np.exp(z).sum(axis=1)).mean(), rel=1e-12)
    rng = np.random.default_rng(0)
    for name in ("classifier.weight", "encoder.layer.0.output.dense.weight", "embeddings.LayerNorm.bias"):
        direction = rng.normal(size=student.params[name].shape)
        ahead, behind = (
            refsnn.Student(student.config, student.params | {name: student.params[name] + e * direction})
            for e in (1e-6, -1e-6)
        )
        slope = (ahead.value_and_grad(batch, labels)[0] - behind.value_and_grad(batch, labels)[0]) / 2e-6
        assert slope == pytest.approx(np.sum(gradients[name] * direction), rel=1e-5, abs=1e-9)


def test_a_saved_student_comes_back(student, tmp_path):
    student.save(tmp_path / "mine")
    again = refsnn.load(tmp_path / "mine")
    assert again.config == student.config and again.classes == student.classes
    np.testing.assert_array_equal(again.logits(TEXTS), student.logits(TEXTS))
    long = ["good film " * 40]
    assert again.batch(long).input_ids.shape == student.batch(long).input_ids.shape == (1, 16)  # cut alike


def test_a_teacher_answers_and_comes_back(run, tmp_path):
    teacher = refsnn.load(run / "teacher")
    assert isinstance(teacher, refsnn.Teacher) and "2 encoders" in repr(teacher)
    config, params = refsnn.Run(run).teacher()
    examples = encode_texts(TEXTS, teacher.tokenizer)
    np.testing.assert_array_equal(teacher.logits(TEXTS), predict_teacher(config, params, examples))
    np.testing.assert_allclose(teacher.logits(teacher.batch(TEXTS)), teacher.logits(TEXTS), 1e-5, 1e-6)
    assert teacher.predict(TEXTS) == teacher.logits(TEXTS).argmax(axis=1).tolist()  # its classes have no names
    loss, gradients = teacher.value_and_grad(teacher.batch(TEXTS), np.array([1, 0, 1]))
    assert np.isfinite(loss) and gradients["pooler.dense.weight"].any()
    teacher.save(tmp_path / "bert")
    np.testing.assert_array_equal(refsnn.load(tmp_path / "bert").logits(TEXTS), teacher.logits(TEXTS))
    hidden = teacher.encode(TEXTS).hidden
    assert len(hidden) == 3 and hidden[0].shape[:2] == teacher.batch(TEXTS).input_ids.shape


def test_what_cannot_be_answered_is_said(run, student, tmp_path):
    for act, said in (
        (lambda: student.predict("good film"), "is the one text"),
        (lambda: student.predict([]), "is empty"),
        (lambda: student.predict([("a", "b", "c")]), "a text or a pair of texts was expected"),
        (lambda: student.predict([1]), "a text or a pair of texts was expected"),
        (
            lambda: student.raster("good", "encoder.9.output", t_conv=2),
            "no population 'encoder.9.output'; there are",
        ),
        (lambda: student.logits(TEXTS, t_conv=0), "at least one step|one step or more"),
        (lambda: refsnn.load(tmp_path / "nowhere"), "nowhere"),
        (lambda: refsnn.load(tmp_path), "config.json"),
        (lambda: refsnn.Student(student.config, {}), "the student lacks the parameter"),
        (lambda: refsnn.Student(student.config, student.params).predict(TEXTS), "there is no tokenizer"),
    ):
        with pytest.raises(refsnn.InputError, match=said):
            act()
    unknown = refsnn.Batch.of([[3, 10**6]])
    with pytest.raises(refsnn.InputError, match="input_ids must hold integers"):
        student.logits(unknown)


# ---------------------------------------------------------------------------------------------------------------------
# refsnn predict


def test_the_command_answers_texts(run, student, capsys):
    assert main(["predict", str(run), *TEXTS]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, text, name, share in zip(lines, TEXTS, student.predict(TEXTS), student.predict_proba(TEXTS), strict=True):
        assert line.split(maxsplit=2) == [name, f"{share.max():.3f}", text]


def test_the_command_reads_files_and_writes_json(run, student, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("good film\n\nthe bad film\n" + json.dumps({"text": "film"}) + "\n")
    assert main(["predict", str(run), "--file", str(tmp_path / "texts.txt"), "--json", "--t-conv", "6"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["text"] for entry in found] == TEXTS
    assert [entry["answer"] for entry in found] == student.predict(TEXTS, t_conv=6)
    shares = [list(entry["probabilities"].values()) for entry in found]
    np.testing.assert_allclose(shares, student.predict_proba(TEXTS, t_conv=6), rtol=1e-6)


def test_what_ends_a_line_elsewhere_is_part_of_a_text(run, tmp_path, capsys):
    texts = ["good\u2028film", "bad\x0bfilm", "film\x85"]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    assert main(["predict", str(run), "--file", str(tmp_path / "texts.txt"), "--json"]) == 0
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.split("\n")[:-1]] == texts


def test_the_command_reads_standard_input(run, student):
    words = [sys.executable, "-m", "refsnn", "predict", str(run), "--file", "-", "--json"]
    done = subprocess.run(words, input="\n".join(TEXTS), capture_output=True, text=True, check=True)
    assert [json.loads(line)["answer"] for line in done.stdout.splitlines()] == student.predict(TEXTS)


@pytest.mark.parametrize(
    ("words", "contents", "said"),
    [
        ([], None, "give texts, or --file"),
        (["a", "--file", "FILE"], "b", "and not both"),
        (["--file", "FILE"], "\n \n", "has no text"),
        (["--file", "FILE"], '{"txt": 1}\n', "line 1: a JSON object with text"),
        (["--file", "FILE"], b"\xff\xfe", "not UTF-8"),
        (["--file", "nowhere"], None, "nowhere does not exist"),
    ],
)
def test_what_the_command_cannot_answer(run, tmp_path, capsys, words, contents, said):
    if contents is not None:
        data = contents if isinstance(contents, bytes) else contents.encode()
        (tmp_path / "f.txt").write_bytes(data)
    words = [str(tmp_path / "f.txt") if word == "FILE" else word for word in words]
    assert main(["predict", str(run), *words]) == 2
    assert said in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# Tasks of one's own, from the command line


def write_moods(folder, rng, rows, regression=False):
    words = {"neg": "bad", "neu": "film", "pos": "good"}
    for split, count in rows.items():
        lines = ["text,mood"]
        for _ in range(count):
            mood = rng.choice(list(words))
            label = f"{list(words).index(mood) * 10.5 - 3}" if regression else mood
            lines.append(f"the film is {words[mood]},{label}")
        folder.mkdir(exist_ok=True)
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


OPTIONS = "--encoders 1 --max-length 12 --batch-size 8 --epochs-teacher 12 --epochs-general 0 --epochs-internal 6 "
OPTIONS += "--epochs-prediction 6 --lr-teacher 3e-3 --lr-internal 3e-3 --lr-prediction 3e-3"


def test_three_classes_need_no_code(tmp_path, capsys):
    write_moods(tmp_path / "moods", np.random.default_rng(0), {"train": 150, "dev": 24})
    teacher, run = write_teacher(tmp_path / "bert"), str(tmp_path / "run")
    words = ["distill", "--labels", "neg", "neu", "pos", "--data", str(tmp_path / "moods"), "--teacher", str(teacher)]
    words += ["--columns", "sentence=text", "label=mood", "--out", run, *OPTIONS.split()]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "teacher: dev accuracy" in said and "prediction: dev accuracy" in said and "; always " in said
    assert "internal:" not in said  # its classifier is not trained yet
    assert main(["evaluate", run, "--t-conv", "4", "64"]) == 0  # data, columns and labels are remembered
    table = capsys.readouterr().out
    assert "own dev, 24 examples" in table and "always " in table
    student = refsnn.load(run)
    assert student.classes == ("neg", "neu", "pos") and set(student.predict(["good film"])) <= set(student.classes)
    results = refsnn.Run(run).results("inst")
    assert results["metrics"]["teacher"]["accuracy"] > results["majority"]["share"]
    assert main(["inspect", run, "--text", "the film is good", "--t-conv", "4"]) == 0
    assert main(["sweep", run, "--t-conv", "2", "4", "--samples", "6"]) == 0
    assert main(words) == 0  # finished: nothing happens
    assert main([*words[:2], "pos", "neu", "neg", *words[5:]]) == 2  # other labels are another run
    assert "own was" in capsys.readouterr().err


def test_a_regression_of_ones_own(tmp_path, capsys):
    write_moods(tmp_path / "moods", np.random.default_rng(1), {"train": 60, "dev": 20}, regression=True)
    teacher, run = write_teacher(tmp_path / "bert"), str(tmp_path / "run")
    words = ["distill", "--task", "warmth", "--scores", "--data", str(tmp_path / "moods"), "--teacher", str(teacher)]
    words += ["--columns", "sentence=text", "label=mood", "--out", run, *OPTIONS.split()]
    assert main(words) == 0
    assert main(["evaluate", run, "--t-conv", "8"]) == 0
    assert "warmth dev, 20 examples" in capsys.readouterr().out
    (score,) = refsnn.load(run).predict(["the film is good"])
    assert isinstance(score, float)
    assert main(["inspect", run, "--text", "the film is good", "--t-conv", "4"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "there is no task; give --task, or --labels or --scores"),
        (["--labels", "one"], "two different ones or more"),
        (["--labels", "a", "a"], "two different ones or more"),
        (["--labels", "true"], "say --targets true"),
        (["--task", "sst2", "--labels", "a", "b"], "sst2 is one of GLUE's tasks"),
        (["--task", "sst2", "--pairs"], "--pairs is for a task of your own"),
        (["--task", "moods"], "say what a task of your own is by its labels"),
    ],
)
def test_tasks_that_are_not_said_whole(tmp_path, capsys, words, said):
    rest = ["--data", "nowhere", "--teacher", "nowhere", "--encoders", "1", "--out", str(tmp_path / "run")]
    assert main(["distill", *words, *rest]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()
