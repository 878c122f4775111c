"""BERTs and what only looks like one: architectures, ranges of sizes, classifiers that are used as they are."""

import dataclasses
import shutil

import numpy as np
import pytest
from conftest import SMALL, random_batch
from test_training import BAD, GOOD, write_task, write_teacher

import refsnn
from refsnn.commands.cli import main
from refsnn.distillation.teacher import classify
from refsnn.errors import InputError
from refsnn.files import load_tensors, read_json, save_tensors, write_json
from refsnn.model.parameters import initial_parameters
from refsnn.model.shapes import LARGEST, BertConfig, head_shapes, teacher_shapes
from refsnn.model.student import StudentConfig
from refsnn.storage.checkpoints import load_bert, load_student, load_teacher, save_model
from refsnn.storage.convert import convert


def write_bert(folder, more=None, classes=0, **values):
    """Write a BERT without a prefix; `more` are parameters beside its own."""
    folder.mkdir(exist_ok=True)
    params = initial_parameters(teacher_shapes(SMALL, classes or 1), np.random.default_rng(0), 0.3)
    if not classes:
        params = {name: value for name, value in params.items() if not name.startswith("classifier.")}
    save_tensors(folder / "model.safetensors", params | (more or {}), {})
    write_json(folder / "config.json", SMALL.to_dict() | values)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n" + "\n".join("abcdefghij") + "\n")
    return folder


# ---------------------------------------------------------------------------------------------------------------------
# What config.json says


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"model_type": "bert"},
        {"model_type": "bert", "architectures": None},
        {"model_type": "bert", "architectures": ["BertModel"], "position_embedding_type": "absolute"},
        {"model_type": "bert", "architectures": ["BertForMaskedLM"], "is_decoder": False, "add_cross_attention": False},
        {"architectures": ["BertForPreTraining"], "pruned_heads": {}},
        # Chinese BERTs are called so for the way they were trained.
        {"model_type": "roberta", "architectures": ["BertForMaskedLM"], "pad_token_id": 0},
        {"model_type": "bert", "_name_or_path": "hfl/chinese-roberta-wwm-ext", "directionality": "bidi"},
    ],
)
def test_berts_are_read(tmp_path, values):
    assert load_bert(write_bert(tmp_path / "bert", **values))[0] == SMALL


KINDS = "roberta xlm-roberta camembert data2vec-text luke layoutlm ernie electra big_bird megatron-bert nezha mpnet"
OTHER = [
    *(({"model_type": kind}, f"model_type is '{kind}'") for kind in KINDS.split()),
    ({"model_type": "roberta", "architectures": ["RobertaModel"]}, "model_type is 'roberta'"),
    ({"model_type": "roberta", "architectures": ["BertModel"], "pad_token_id": 1}, "model_type is 'roberta'"),
    ({"model_type": "roberta", "architectures": ["BertModel", "RobertaModel"]}, "model_type is 'roberta'"),
    ({"model_type": ["bert"]}, r"model_type is \['bert'\]"),
    ({"architectures": ["RobertaForMaskedLM"]}, "architectures has 'RobertaForMaskedLM'"),
    ({"model_type": "bert", "architectures": ["JinaBertForMaskedLM"]}, "architectures has 'JinaBertForMaskedLM'"),
    ({"model_type": "bert", "architectures": ["BertModel", "LukeModel"]}, "architectures has 'LukeModel'"),
    ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, "architectures has 'BertLMHeadModel'"),
    ({"architectures": ["BertGenerationEncoder"]}, "architectures has 'BertGenerationEncoder'"),
    ({"architectures": "ErnieModel"}, "architectures has 'ErnieModel'"),
    ({"architectures": [7]}, "architectures has 7"),
    ({"is_decoder": True}, "is_decoder is True"),
    ({"add_cross_attention": True}, "add_cross_attention is True"),
    ({"use_task_id": True}, "use_task_id is True"),
    ({"embedding_size": 6}, "embedding_size is 6"),
    ({"pruned_heads": {"0": [1]}}, "pruned_heads is"),
    ({"quantization_config": {"bits": 4}}, "quantization_config is"),
    ({"position_embedding_type": "relative_key_query"}, "position_embedding_type is 'relative_key_query'"),
    *(({"hidden_act": act}, f"hidden_act is '{act}'") for act in ("relu", "gelu_new", "gelu_pytorch_tanh", "silu")),
]


@pytest.mark.parametrize(("values", "words"), OTHER)
def test_what_is_no_bert_is_refused_by_name(tmp_path, values, words):
    folder = write_bert(tmp_path / "bert", classes=2, **values)
    for use in (
        load_bert,
        load_teacher,
        refsnn.load,
        lambda source: convert(source, tmp_path / "out", "bert"),
    ):
        with pytest.raises(InputError, match=rf"config\.json: {words}"):
            use(folder)
    assert not (tmp_path / "out").exists()


D = SMALL.hidden_size
MORE = {
    "embeddings.task_type_embeddings.weight": (3, D),  # ERNIE
    "embeddings.x_position_embeddings.weight": (9, D),  # LayoutLM
    "encoder.layer.0.crossattention.self.query.weight": (D, D),
    "encoder.layer.1.attention.self.distance_embedding.weight": (17, 4),
    "encoder.layer.0.attention.self.w2e_query.weight": (D, D),  # LUKE
    "encoder.layer.2.output.dense.weight": (D, 20),  # one layer more than config.json says
    "encoder.layer.0.adapter.down.weight": (2, D),
}


@pytest.mark.parametrize("name", MORE)
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_parameters_that_no_bert_has_are_not_left_out(tmp_path, name, prefix):
    folder = write_bert(tmp_path / "bert", {prefix + name: np.ones(MORE[name], np.float32)}, classes=2)
    for use in (load_bert, load_teacher, lambda source: convert(source, tmp_path / "out", "bert")):
        with pytest.raises(InputError, match=f"holds {name}, which a BERT of 2 layers does not have"):
            use(folder)
    assert not (tmp_path / "out").exists()


def test_what_is_no_parameter_is_left_out(tmp_path):
    more = {"embeddings.position_ids": np.arange(9)[None], "bert.embeddings.token_type_ids": np.zeros((1, 9), int)}
    more |= {"cls.predictions.bias": np.ones(30), "lstm.weight": np.ones(3)}
    assert not set(more) & set(load_bert(write_bert(tmp_path / "bert", more))[1])


def test_a_student_is_no_teacher(tmp_path, capsys):
    config = StudentConfig(SMALL, 12, 2)
    params = initial_parameters(config.shapes, np.random.default_rng(0), 0.3)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    save_model(tmp_path / "run", config.to_dict(), params, tmp_path)
    with pytest.raises(InputError, match=r"is a run's student, which is no BERT; its teacher is in .*run/teacher"):
        load_bert(tmp_path / "run")
    words = f"distill --task sst2 --data {write_task(tmp_path / 'data', 8)} --encoders 1 --out {tmp_path / 'out'}"
    assert main([*words.split(), "--teacher", str(tmp_path / "run")]) == 2
    assert "is a run's student" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", LARGEST)
def test_sizes_that_nobody_believes(tmp_path, name):
    for size in (10**9, 10**30):
        with pytest.raises(InputError, match=f"{name} is 10+, but at most"):
            BertConfig(**{name: size})
        with pytest.raises(InputError, match=rf"config\.json: {name} is 10+, but at most"):
            load_bert(write_bert(tmp_path / "bert", **{name: size}))
        student = StudentConfig(SMALL, 12, 2).to_dict() | {name: size}
        write_json(tmp_path / "config.json", student)
        with pytest.raises(InputError, match=rf"config\.json: {name} is 10+, but at most"):
            load_student(tmp_path)
    BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "2", None, [2]], ids=repr)
def test_sizes_are_positive_integers(size):
    names = {field.name for field in dataclasses.fields(BertConfig) if field.type == "int"} - {"pad_token_id"}
    assert names == LARGEST.keys()
    for name in names:
        with pytest.raises(InputError, match=f"{name} is .*, but it must be a positive integer"):
            BertConfig(**{"hidden_size": 4, "num_attention_heads": 2} | {name: size})


def test_the_largest_sizes_are_powers_of_two_that_are_still_believed():
    powers = {"hidden_size": 16, "num_hidden_layers": 10, "num_attention_heads": 12, "intermediate_size": 20,
              "vocab_size": 24, "max_position_embeddings": 20, "type_vocab_size": 16}  # fmt: skip
    assert {name: 2**power for name, power in powers.items()} == LARGEST
    for name, most in LARGEST.items():
        heads = most if name == "num_attention_heads" else 2
        given = {"hidden_size": 2**16, "num_attention_heads": heads} | {name: most}
        assert getattr(BertConfig(**given), name) == most
        with pytest.raises(InputError, match=f"{name} is {most + 1}, but at most {most} is believed"):
            BertConfig(**given | {name: most + 1})


@pytest.mark.parametrize("name", ["classes", "teacher_width"])
def test_heads_that_nobody_believes(tmp_path, name):
    write_json(tmp_path / "config.json", StudentConfig(SMALL, 12, 2).to_dict() | {name: 10**12})
    with pytest.raises(InputError, match=f"{name}.* 10+.*but sizes are from 0 to"):
        load_student(tmp_path)
    with pytest.raises(InputError, match=r"number of classes is 10+, but it must be"):
        convert(tmp_path, tmp_path / "out", "refsnn", classes=10**12)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Token types


def test_a_bert_of_one_token_type_reads_no_pairs(tmp_path, capsys):
    teacher = write_teacher(tmp_path / "bert")
    params, _ = load_tensors(teacher / "model.safetensors")
    name = "embeddings.token_type_embeddings.weight"
    save_tensors(teacher / "model.safetensors", params | {name: params[name][:1]}, {})
    write_json(teacher / "config.json", read_json(teacher / "config.json") | {"type_vocab_size": 1})
    (tmp_path / "rte.tsv").write_text("sentence1\tsentence2\tlabel\nthe film\tis dull\tentailment\n")
    (tmp_path / "text").write_text("the film is good\n")
    data, out = write_task(tmp_path / "data", 8), tmp_path / "out"
    quick = "--encoders 1 --max-length 16 --epochs-teacher 1 --epochs-internal 0 --epochs-prediction 0"
    words = ["distill", *quick.split(), "--teacher", str(teacher), "--out", str(out)]
    said = "type_vocab_size), but the second text of a pair has the type 1"
    assert main([*words, "--task", "rte", "--data", str(tmp_path / "rte.tsv")]) == 2
    assert said in capsys.readouterr().err and not out.exists()
    assert main([*words, "--task", "sst2", "--data", str(data), "--corpus", str(tmp_path / "text")]) == 2
    assert said in capsys.readouterr().err and not out.exists()
    assert main([*words, "--task", "sst2", "--data", str(data), "--epochs-general", "0"]) == 0
    model = refsnn.load(out)
    assert len(model.predict(["the film"])) == 1
    with pytest.raises(InputError, match="token type 1, but type_vocab_size is 1"):
        model.predict([("the film", "is dull")])


# ---------------------------------------------------------------------------------------------------------------------
# A classifier that is there already


def with_head(folder, classes=2, seed=5, **values):
    """Give the teacher of the tests a pooler and a classifier."""
    write_teacher(folder)
    config = BertConfig.from_dict(read_json(folder / "config.json"))
    params, _ = load_tensors(folder / "model.safetensors")
    head = initial_parameters(head_shapes(config, classes), np.random.default_rng(seed), 0.5)
    head["classifier.bias"] = np.arange(classes, dtype=np.float32) / 7
    save_tensors(folder / "model.safetensors", {f"bert.{n}": p for n, p in params.items()} | rename(head), {})
    write_json(folder / "config.json", config.to_dict() | {"model_type": "bert"} | values)
    return folder


def rename(head):
    return {name if name.startswith("classifier") else f"bert.{name}": value for name, value in head.items()}


def distil(tmp_path, teacher, *more, out="run", task="sst2", data=None):
    quick = "--encoders 1 --max-length 16 --epochs-general 0 --epochs-internal 0 --epochs-prediction 1"
    words = ["distill", "--task", task, *quick.split(), "--teacher", str(teacher), "--out", str(tmp_path / out)]
    return main(
        [*words, "--data", str(data or write_task(tmp_path / "data", 16)), *(more or ["--epochs-teacher", "0"])]
    )


NAMED = {
    "in order": ({"0": "NEGATIVE", "1": "Positive"}, [0, 1]),
    "turned round": ({"0": "positive", "1": "negative"}, [1, 0]),
    "keys turned round": ({"1": "positive", "0": "negative"}, [0, 1]),
    "the files' labels": ({"0": "1", "1": "0"}, [1, 0]),
    "no names": ({}, [0, 1]),
    "names that say nothing": ({"0": "LABEL_0", "1": "LABEL_1"}, [0, 1]),
}


@pytest.mark.parametrize("case", NAMED)
@pytest.mark.parametrize("seed", ["0", "3"])
def test_a_fine_tuned_classifier_is_used_as_it_is(tmp_path, case, seed):
    named, order = NAMED[case]
    teacher = with_head(tmp_path / "bert", **({"id2label": named} if named else {}))
    config, before = load_teacher(teacher)
    assert distil(tmp_path, teacher, "--epochs-teacher", "0", "--seed", seed) == 0
    _, after = load_teacher(tmp_path / "run" / "teacher")
    for name, value in before.items():
        expected = value[order] if name.startswith("classifier.") else value
        np.testing.assert_array_equal(after[name], expected, err_msg=name)
    batch = random_batch(config, 0)
    np.testing.assert_array_equal(classify(config, after, batch)[0], classify(config, before, batch)[0][:, order])


def test_classes_of_three_are_put_in_the_task_s_order(tmp_path):
    named = {"0": "CONTRADICTION", "1": "NEUTRAL", "2": "ENTAILMENT"}
    teacher = with_head(tmp_path / "bert", 3, id2label=named)
    data = tmp_path / "mnli.tsv"
    data.write_text("sentence1\tsentence2\tgold_label\n" + "the film\tis dull\tneutral\n" * 4)
    assert distil(tmp_path, teacher, task="mnli", data=data) == 0
    before, after = load_teacher(teacher)[1], load_teacher(tmp_path / "run" / "teacher")[1]
    np.testing.assert_array_equal(after["classifier.weight"], before["classifier.weight"][[2, 1, 0]])
    assert after["classifier.bias"].tolist() == before["classifier.bias"].tolist()[::-1]


def test_a_teacher_that_is_trained_anew_gets_a_new_classifier(tmp_path):
    plain, headed = write_teacher(tmp_path / "plain"), with_head(tmp_path / "bert", 5)
    params, _ = load_tensors(headed / "model.safetensors")
    pooler = {name: value for name, value in params.items() if not name.startswith("classifier.")}
    save_tensors(plain / "model.safetensors", pooler, {})
    for teacher, out in ((plain, "a"), (headed, "b")):
        assert distil(tmp_path, teacher, "--epochs-teacher", "1", out=out) == 0
    ours, theirs = (load_teacher(tmp_path / out / "teacher")[1] for out in "ab")
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


UNFIT = {
    "three classes": ({"classes": 3}, "has 3 outputs, but sst2 takes 2"),
    "one score": ({"classes": 1}, "has 1 outputs, but sst2 takes 2"),
    "other words": (
        {"id2label": {"0": "spam", "1": "ham"}},
        "called spam, ham, but those of sst2 are negative, positive",
    ),
    "one name": ({"id2label": {"0": "negative"}}, "id2label does not name the classes 0 to 1"),
    "three names": ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "id2label does not name the classes 0 to 1"),
    "no numbers": ({"id2label": {"a": "negative", "b": "positive"}}, "id2label does not name"),
    "a list": ({"id2label": ["negative", "positive"]}, "id2label does not name"),
    "twice": ({"id2label": {"0": "negative", "1": "negative"}}, "id2label names two classes alike"),
    "several at once": ({"problem_type": "multi_label_classification"}, "problem_type is 'multi_label_classification'"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_classifier_of_another_task_is_refused(tmp_path, capsys, case):
    values, words = UNFIT[case]
    assert distil(tmp_path, with_head(tmp_path / "bert", **values)) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_classifier_without_a_pooler_is_refused(tmp_path, capsys):
    teacher = with_head(tmp_path / "bert")
    params, _ = load_tensors(teacher / "model.safetensors")
    save_tensors(teacher / "model.safetensors", {n: p for n, p in params.items() if "pooler" not in n}, {})
    assert distil(tmp_path, teacher) == 2
    assert "has a classifier but no pooler" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_another_classifier_is_another_run(tmp_path, capsys):
    teacher = with_head(tmp_path / "bert")
    assert distil(tmp_path, teacher) == 0 and distil(tmp_path, teacher) == 0
    params, _ = load_tensors(teacher / "model.safetensors")
    params["classifier.weight"] += 1
    save_tensors(teacher / "model.safetensors", params, {})
    assert distil(tmp_path, teacher) == 2
    assert "teacher" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# A BERT alone


@pytest.fixture
def dev(tmp_path):
    path = tmp_path / "dev.tsv"
    rows = [(f"the {noun} is {word}", 1) for noun in ("film", "plot", "cast") for word in GOOD]
    rows += [(f"the film is {word}", 0) for word in BAD]
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return path


def test_a_bert_is_evaluated_alone(tmp_path, dev, capsys):
    texts = [line.split("\t")[0] for line in dev.read_text().splitlines()[1:]]
    right = []
    for named in ({"0": "negative", "1": "positive"}, {"0": "positive", "1": "negative"}):
        folder = with_head(tmp_path / "bert", id2label=named)
        params, _ = load_tensors(folder / "model.safetensors")
        params["classifier.bias"] -= refsnn.load(folder).logits(texts).mean(axis=0)  # so that its answers differ
        save_tensors(folder / "model.safetensors", params, {})
        for more in (["--task", "sst2"], []):
            if not more:  # with the words of its own
                text = dev.read_text().replace("\t1\n", "\tpositive\n").replace("\t0\n", "\tnegative\n")
                (tmp_path / "own.tsv").write_text(text)
            data = dev if more else tmp_path / "own.tsv"
            assert main(["evaluate", str(folder), "--data", str(data), *more]) == 0
            said = capsys.readouterr().out
            right.append(float(said.partition("dev accuracy ")[2].partition(" ")[0]))
        labels = [line.split("\t")[1] for line in dev.read_text().splitlines()[1:]]
        answers = [str(int(name == "positive")) for name in refsnn.load(folder).predict(texts)]
        assert len(set(answers)) == 2
        assert right[-1] == right[-2] == pytest.approx(100 * np.mean(np.array(answers) == labels), abs=0.06)
    assert right[0] + right[2] == pytest.approx(100, abs=0.11) and right[0] != right[2]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "vocab.txt"]


def test_samples_of_a_bert_s_dev_split(tmp_path, dev, capsys):
    folder = with_head(tmp_path / "bert")
    assert main(["evaluate", str(folder), "--data", str(dev), "--task", "sst2", "--samples", "0"]) == 2
    assert "`samples`" not in capsys.readouterr().err
    assert main(["evaluate", str(folder), "--data", str(dev), "--task", "sst2", "--samples", "1"]) == 0
    assert "always positive 100.0 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--task", "sst2"], "remembers no data; say where they are with --data"),
        (["--task", "mnli", "--data", "dev.tsv"], "has 2 outputs, but mnli takes 3"),
        (["--task", "sst", "--data", "dev.tsv"], "the task is 'sst', but refsnn knows"),
        (["--data", "absent.tsv"], "absent.tsv does not exist"),
    ],
)
def test_a_bert_that_cannot_be_evaluated(tmp_path, dev, capsys, monkeypatch, more, words):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(with_head(tmp_path / "bert")), *more]) == 2
    assert words in capsys.readouterr().err
    assert main(["evaluate", str(write_teacher(tmp_path / "plain")), "--data", str(dev)]) == 2
    assert "has no classifier" in capsys.readouterr().err


def test_a_run_remembers_its_task(tmp_path, dev, capsys):
    assert distil(tmp_path, with_head(tmp_path / "bert")) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(dev), "--task", "sst2"]) == 2
    assert "--task is for a BERT alone" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "run" / "teacher"), "--data", str(dev), "--task", "sst2"]) == 0
    with pytest.raises(InputError, match="empty"):
        refsnn.load("")


@pytest.mark.parametrize("name", ["LABEL_0", "score"])
def test_a_regression_s_head_has_no_class_names(tmp_path, name):
    folder = with_head(tmp_path / "bert", 1, id2label={"0": name})
    (score,) = refsnn.load(folder).predict(["the film"])
    assert isinstance(score, float)
    data = tmp_path / "stsb.tsv"
    data.write_text("sentence1\tsentence2\tscore\n" + "the film\tis dull\t2.5\nthe plot\tis good\t1\n" * 4)
    before = load_teacher(folder)[1]["classifier.bias"]
    assert distil(tmp_path, folder, task="stsb", data=data) == 0
    assert load_teacher(tmp_path / "run" / "teacher")[1]["classifier.bias"] == before  # not moved to the mean


def test_git_lfs_pointers_of_checkpoints(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    for name in ("config.json", "model.safetensors", "pytorch_model.bin"):
        folder = write_bert(tmp_path / name)
        if name == "pytorch_model.bin":
            (folder / "model.safetensors").unlink()
        (folder / name).write_text(pointer)
        with pytest.raises(InputError, match=rf"{name.replace('.', '[.]')}.*Git LFS pointer"):
            load_bert(folder)
        shutil.rmtree(folder)
