"""Checkpoints in and out: Hugging Face's layouts and names, the hub, and the authors' program's, both ways."""

import json
import os
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, random_batch, random_parameters
from test_training import write_task, write_teacher

from refsnn.commands.cli import main
from refsnn.conformance.parity import read_case
from refsnn.distillation.student import logits
from refsnn.errors import InputError
from refsnn.files import load_tensors, read_json, save_tensors, write_json
from refsnn.model.neurons import Neuron
from refsnn.model.parameters import initial_parameters
from refsnn.model.shapes import BertConfig, teacher_shapes
from refsnn.model.student import StudentConfig
from refsnn.readings.rate_map import rate_map
from refsnn.storage.checkpoints import bert_folder, load_bert, load_student, load_teacher, read_weights, save_model
from refsnn.storage.convert import authors_names, convert
from refsnn.storage.torch_files import read_torch, write_torch


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


# ---------------------------------------------------------------------------------------------------------------------
# BERT


@pytest.fixture
def bert(tmp_path):
    folder = tmp_path / "bert"
    folder.mkdir()
    write_json(folder / "config.json", SMALL.to_dict())
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    shapes = teacher_shapes(SMALL, 3)
    params = initial_parameters(shapes, np.random.default_rng(0), 0.3)
    return folder, {name: value for name, value in params.items() if not name.startswith("classifier.")}


def shards(folder, params, ending):
    write = write_torch if ending == "bin" else lambda path, part: save_tensors(path, part, {})
    stem = "pytorch_model" if ending == "bin" else "model"
    names = sorted(params)
    files = {}
    for i in range(3):
        file = f"{stem}-0000{i}-of-00003.{ending}"
        write(folder / file, {name: params[name] for name in names[i::3]})
        files |= dict.fromkeys(names[i::3], file)
    write_json(folder / f"{stem}.{ending}.index.json", {"metadata": {}, "weight_map": files})


LAYOUTS = {
    "safetensors": lambda folder, params: save_tensors(folder / "model.safetensors", params, {}),
    "bin": lambda folder, params: write_torch(folder / "pytorch_model.bin", params),
    "sharded safetensors": lambda folder, params: shards(folder, params, "safetensors"),
    "sharded bin": lambda folder, params: shards(folder, params, "bin"),
}


@pytest.mark.parametrize("prefix", ["", "bert.", "module.bert."])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_prefix(bert, layout, prefix):
    folder, params = bert
    LAYOUTS[layout](folder, {f"{prefix}{name}": value for name, value in params.items()})
    config, found = load_bert(folder)
    assert config == SMALL
    assert_same(found, params)
    assert all(value.flags.writeable for value in found.values())


def test_names_of_older_checkpoints_and_heads(bert):
    # As bert-base-uncased still has them: TensorFlow's names of LayerNorm, and the heads of pretraining.
    folder, params = bert
    old = {"weight": "gamma", "bias": "beta"}
    theirs = {
        f"bert.{n.replace('LayerNorm.' + k, 'LayerNorm.' + v)}": p for n, p in params.items() for k, v in old.items()
    }
    theirs = {n: p for n, p in theirs.items() if "LayerNorm.weight" not in n and "LayerNorm.bias" not in n}
    heads = {"cls.predictions.bias": np.ones(30, np.float32), "cls.predictions.transform.LayerNorm.gamma": np.ones(12)}
    heads |= {"bert.embeddings.position_ids": np.arange(9)[None], "classifier.weight": np.ones((7, 5))}
    write_torch(folder / "pytorch_model.bin", theirs | heads)
    assert_same(load_bert(folder)[1], params)
    write_torch(folder / "pytorch_model.bin", theirs | {"embeddings.LayerNorm.weight": np.ones(12)})
    with pytest.raises(InputError, match=r"embeddings\.LayerNorm\.weight twice"):
        load_bert(folder)


def test_a_bert_that_pytorch_saved(bert):
    torch = pytest.importorskip("torch")
    folder, params = bert
    state = {f"bert.{name}": torch.tensor(value) for name, value in params.items()}
    for form in (True, False):
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=form)
        assert_same(load_bert(folder)[1], params)
    torch.save({name: value.half() for name, value in state.items()}, folder / "pytorch_model.bin")
    assert_same(load_bert(folder)[1], {n: p.astype(np.float16).astype(np.float32) for n, p in params.items()})


def test_safetensors_are_preferred_and_the_pooler_may_be_absent(bert):
    folder, params = bert
    params = {name: value for name, value in params.items() if not name.startswith("pooler.")}
    LAYOUTS["safetensors"](folder, params)
    (folder / "pytorch_model.bin").write_bytes(b"not looked at")
    assert_same(load_bert(folder, np.float64)[1], {name: value.astype(float) for name, value in params.items()})


def test_indices_that_are_not_in_order(bert):
    folder, params = bert
    shards(folder, params, "safetensors")
    index = folder / "model.safetensors.index.json"
    files = read_json(index)["weight_map"]
    name, file = next(iter(files.items()))
    for broken, words in (
        ({name: "../" + file}, "own folder"),
        ({name: "/etc/passwd"}, "own folder"),
        ({name: ".."}, "own folder"),
        ({name: "absent.safetensors"}, "absent.safetensors"),
        ({"embeddings.x": file}, "embeddings.x"),
        ({name: index.name}, "own folder"),
        ({name: 7}, "own folder"),
    ):
        write_json(index, {"weight_map": files | broken})
        with pytest.raises(InputError, match=words):
            load_bert(folder)
    write_json(index, {"weight_map": []})
    with pytest.raises(InputError, match="weight_map"):
        load_bert(folder)


def test_a_folder_without_weights_says_what_was_expected(bert):
    with pytest.raises(InputError, match=r"model\.safetensors or pytorch_model\.bin"):
        load_bert(bert[0])


def hub(monkeypatch, download):
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=download))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_teacher_from_the_hub(bert, tmp_path, monkeypatch, layout):
    folder, params = bert
    LAYOUTS[layout](folder, params)
    (folder / "tf_model.h5").write_text("of no use")
    cache = tmp_path / "cache"
    monkeypatch.chdir(tmp_path)

    def download(name, allow_patterns):
        assert name == "google/some-bert"
        for path in folder.iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                cache.mkdir(exist_ok=True)
                shutil.copyfile(path, cache / path.name)
        return str(cache)

    hub(monkeypatch, download)
    assert bert_folder("google/some-bert") == cache
    assert_same(load_bert("google/some-bert")[1], params)
    assert {p.name for p in cache.iterdir()} == {p.name for p in folder.iterdir()} - {"tf_model.h5"}
    assert bert_folder(folder) == folder


def test_a_teacher_that_cannot_be_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = []

    def download(name, allow_patterns):
        asked.append(name)
        raise OSError("no route to host.\nmore that is of no use")

    hub(monkeypatch, download)
    words = "distill --task sst2 --data data --encoders 1 --out run --teacher google/some-bert".split()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "google/some-bert is neither a folder nor could it be fetched from the hub (no route to host); give" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
    for name in ("/no/such/folder", "a/b/c", "../x", "has space"):
        with pytest.raises(InputError, match="does not exist"):
            bert_folder(name)
    with pytest.raises(InputError, match="the teacher missing is neither a folder nor could it be fetched"):
        bert_folder(Path("missing"))  # a path may look like the name of a model as well
    assert asked == ["google/some-bert", "missing"]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="pip install"):
        bert_folder("some-bert")


def test_a_bert_for_other_programs(bert, tmp_path):
    folder, params = bert
    head = {"classifier.weight": np.ones((3, 12), np.float32), "classifier.bias": np.zeros(3, np.float32)}
    LAYOUTS["bin"](folder, params | head)
    assert main(["convert", str(folder), str(tmp_path / "out"), "--to", "bert"]) == 0
    expected = {f"bert.{name}": value for name, value in params.items()} | head
    assert_same(read_torch(tmp_path / "out" / "pytorch_model.bin"), expected)
    assert_same(load_tensors(tmp_path / "out" / "model.safetensors")[0], expected)
    assert (tmp_path / "out" / "vocab.txt").exists()
    about = read_json(tmp_path / "out" / "config.json")
    assert about["num_labels"] == 3 and about["architectures"] == ["BertForSequenceClassification"]
    shutil.copytree(tmp_path / "out", tmp_path / "run" / "teacher")
    assert_same(
        load_teacher(tmp_path / "run" / "teacher")[1], params | head
    )  # so a run's teacher may come from elsewhere
    LAYOUTS["bin"](folder, params)
    convert(folder / "pytorch_model.bin", tmp_path / "other", "bert")
    assert read_json(tmp_path / "other" / "config.json")["architectures"] == ["BertModel"]
    with pytest.raises(InputError, match="as it is"):
        convert(folder, tmp_path / "third", "bert", task="sst2")


def test_hugging_face_reads_a_converted_teacher(bert, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder, params = bert
    head = {"classifier.weight": np.ones((3, 12), np.float32), "classifier.bias": np.zeros(3, np.float32)}
    LAYOUTS["safetensors"](folder, params | head)
    convert(folder, tmp_path / "out", "bert")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", local_files_only=True)
    state = model.state_dict()
    assert all(np.array_equal(state[f"bert.{name}"].numpy(), value) for name, value in params.items())
    assert model.config.num_labels == 3


# ---------------------------------------------------------------------------------------------------------------------
# The authors' program


def authors_model(torch, config, classes=None, width=None):
    """Modules nested and named as in the authors' program: a task's model, or the general one without `classes`."""
    nn, d = torch.nn, config.hidden_size

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))

    def holder(**parts):
        module = nn.Module()
        for name, part in parts.items():
            module.add_module(name, part)
        return module

    def spiking(populations, embeddings):
        return holder(network_s_list=nn.ModuleList(populations), network_x=embeddings)

    model = nn.Module()
    model.network_x = holder(
        word_embeddings=nn.Embedding(config.vocab_size, d, padding_idx=0),
        position_embeddings=nn.Embedding(config.max_position_embeddings, d),
        token_type_embeddings=nn.Embedding(config.type_vocab_size, d),
        LayerNorm=Norm(),
    )
    populations = []
    for _ in range(config.num_hidden_layers):
        populations += [holder(dense=nn.Linear(d, d)), holder(dense=nn.Linear(d, d)), holder(query=nn.Linear(d, d))]
        populations.append(holder(dense=nn.Linear(d, d), LayerNorm=Norm()))
        populations.append(holder(dense=nn.Linear(d, config.intermediate_size)))
        populations.append(holder(dense=nn.Linear(config.intermediate_size, d), LayerNorm=Norm()))
    populations.append(holder(fc=nn.Linear(d, d, bias=False)))
    for number, population in enumerate(populations, 1):
        model.add_module(f"network_s{number}", population)
    model.snn_func = spiking(populations, model.network_x)
    import copy

    model.snn_func_copy = copy.deepcopy(model.snn_func)
    model.snn_ide_conv = holder(snn_func=model.snn_func, snn_func_copy=model.snn_func_copy)
    model.fit_dense = nn.Linear(d, width or d)
    if classes:
        model.pooler_layer = holder(dense=nn.Linear(d, d))
        model.classification = nn.Linear(d, classes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def authors_folder(folder, state, config):
    """As their program leaves it, and the `config.json` that the user copies there."""
    folder.mkdir(parents=True)
    write_torch(folder / "pytorch_model.bin", state)
    keys = "hidden_size num_attention_heads intermediate_size max_position_embeddings type_vocab_size vocab_size"
    known = {key: value for key, value in config.to_dict().items() if key in keys.split()}
    write_json(
        folder / "config.json", known | {"num_hidden_layers": 4, "hidden_dropout_prob": 0.1, "hidden_act": "gelu"}
    )
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    return folder


def student(encoders=2, classes=3, dtype=np.float64, **about):
    bert = BertConfig(**(SMALL.to_dict() | {"num_hidden_layers": encoders}))
    config = StudentConfig(bert, bert.hidden_size, classes, **about)
    heads = {name: shape for name, shape in config.shapes.items() if name.startswith(("fit.", "classifier."))}
    params = random_parameters(bert, 1, config.feedback, extra=heads)
    return config, {name: params[name].astype(dtype) for name in config.shapes}


def write_run(folder, config, params, task=None):
    folder.mkdir(parents=True)
    (folder / "source").mkdir()
    (folder / "source" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    save_model(folder, config.to_dict(), params, folder / "source")
    if task:
        write_json(folder / "run.json", {"settings": {"recipe": {"task": task, "encoders": 2, "max_length": None}}})
    return folder


@pytest.mark.parametrize("encoders", [2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("feedback", [False, True])
def test_a_student_goes_to_the_authors_and_comes_back(tmp_path, encoders, dtype, feedback):
    config, params = student(encoders, dtype=dtype, feedback=feedback)
    run = write_run(tmp_path / "run", config, params)
    notes = convert(run, tmp_path / "theirs", "authors")
    assert any("feedback" in note for note in notes) == feedback
    state = read_torch(tmp_path / "theirs" / "pytorch_model.bin")
    last = f"network_s{6 * encoders + 1}.fc.weight"
    expected = {theirs: params[ours] for theirs, ours in authors_names(encoders).items() if ours in params}
    expected |= {} if feedback else {last: np.zeros((12, 12), dtype)}
    assert_same({name: state[name] for name in expected}, expected)
    assert (tmp_path / "theirs" / "vocab.txt").exists()
    convert(tmp_path / "theirs", tmp_path / "back", "refsnn", vth=1.0, leak=1.0, feedback=feedback)
    found, back = load_student(tmp_path / "back")
    assert found == config
    assert_same(back, params)


@pytest.mark.parametrize("encoders", [2, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_their_strict_loader_takes_what_is_written(tmp_path, encoders, dtype):
    torch = pytest.importorskip("torch")
    config, params = student(encoders, dtype=dtype)
    run = write_run(tmp_path / "run", config, params)
    for to, classes in (("authors", 3), ("authors-general", None)):
        convert(run, tmp_path / to, to)
        state = torch.load(tmp_path / to / "pytorch_model.bin", map_location="cpu")
        model = authors_model(torch, config.bert, classes).to(getattr(torch, dtype))
        model.load_state_dict(state)  # complains of any name, missing or not expected, and any shape
        loaded = {name: value.detach().numpy() for name, value in model.named_parameters()}
        for theirs, ours in authors_names(encoders).items():
            if ours in params and (classes or "classifier" not in ours):
                np.testing.assert_array_equal(loaded[theirs], params[ours], err_msg=theirs)
        copied = model.snn_func_copy.network_s_list[3].dense.weight
        np.testing.assert_array_equal(copied.detach().numpy(), params["encoder.layer.0.attention.output.dense.weight"])


@pytest.mark.parametrize("encoders", [2, 4])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_what_their_program_saves_becomes_a_run(tmp_path, encoders, legacy, parallel):
    torch = pytest.importorskip("torch")
    config = BertConfig(**(SMALL.to_dict() | {"num_hidden_layers": encoders}))
    model = authors_model(torch, config, classes=2)
    state = model.state_dict()
    assert len(state) > 5 * 16 * encoders  # the same parameters under five names
    folder = authors_folder(tmp_path / "theirs", {}, config)
    saved = {f"module.{name}": value for name, value in state.items()} if parallel else state
    torch.save(saved, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    words = ["convert", str(folder / "pytorch_model.bin"), str(tmp_path / "run"), "--to", "refsnn", "--task", "sst2"]
    assert main([*words, "--vth", "0.8", "--leak", "0.9", "--feedback"]) == 0
    found, params = load_student(tmp_path / "run")
    assert found == StudentConfig(config, 12, 2, Neuron(0.8, 0.9), feedback=True)
    expected = {ours: state[theirs].numpy() for theirs, ours in authors_names(encoders).items()}
    assert_same(params, expected)
    assert read_json(tmp_path / "run" / "run.json")["settings"]["recipe"]["task"] == "sst2"


def test_a_general_student_is_handed_over_to_a_task(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    config = BertConfig(**(SMALL.to_dict() | {"num_hidden_layers": 4}))
    general = authors_model(torch, config)
    folder = authors_folder(tmp_path / "general", {}, config)
    torch.save(general.state_dict(), folder / "pytorch_model.bin")
    task_model = authors_model(torch, config, classes=3)
    with pytest.raises(RuntimeError, match="pooler_layer"):  # what their program says of its own checkpoint
        task_model.load_state_dict(torch.load(folder / "pytorch_model.bin"))

    words = ["convert", str(folder), str(tmp_path / "task"), "--to", "authors"]
    assert main(words) == 2
    assert "--task or --classes" in capsys.readouterr().err
    assert not (tmp_path / "task").exists()
    assert main([*words, "--task", "mnli", "--seed", "5"]) == 0
    said = capsys.readouterr().out
    assert "one of 3 classes was made with the seed 5" in said and "feedback" in said
    state = torch.load(tmp_path / "task" / "pytorch_model.bin")
    task_model.load_state_dict(state)
    expected, found = general.state_dict(), task_model.state_dict()
    for name in authors_names(4):
        if name in expected and "network_s25" not in name:
            assert torch.equal(found[name], expected[name]), name
    weight = found["classification.weight"].numpy()
    assert weight.dtype == np.float32 and 0.005 < weight.std() < 0.04 and not found["classification.bias"].any()
    for seed, same in ((5, True), (6, False)):
        convert(folder, tmp_path / f"again{seed}", "authors", classes=3, seed=seed)
        again = read_torch(tmp_path / f"again{seed}" / "pytorch_model.bin")
        assert np.array_equal(np.sort(again["classification.weight"], 0), np.sort(weight, 0)) == same


def test_classes_are_put_in_our_order(tmp_path):
    # Their MNLI: contradiction, entailment, neutral; GLUE's and ours: entailment, neutral, contradiction.
    config, params = student(4)
    state = {theirs: params[ours] for theirs, ours in authors_names(4).items() if ours in params}
    folder = authors_folder(tmp_path / "theirs", state, config.bert)
    convert(folder, tmp_path / "run", "refsnn", task="mnli")
    _, found = load_student(tmp_path / "run")
    np.testing.assert_array_equal(found["classifier.weight"], state["classification.weight"][[1, 2, 0]])
    np.testing.assert_array_equal(found["classifier.bias"], state["classification.bias"][[1, 2, 0]])
    convert(tmp_path / "run", tmp_path / "back", "authors")  # the run remembers its task
    back = read_torch(tmp_path / "back" / "pytorch_model.bin")
    assert_same({name: back[name] for name in state}, state)
    convert(folder, tmp_path / "through", "authors", task="mnli")
    through = read_torch(tmp_path / "through" / "pytorch_model.bin")
    assert_same({name: through[name] for name in state}, state)


@pytest.mark.parametrize("container", ["npz to bin", "npz to PyTorch's bin", "npz to safetensors"])
def test_imported_cases_have_the_recorded_rates(cases, tmp_path, container):
    for path in cases:
        case = read_case(path)
        folder = tmp_path / path.stem
        folder.mkdir()
        state = {key.removeprefix("param/"): case[key] for key in case if key.startswith("param/")}
        if container == "npz to bin":
            write_torch(folder / "pytorch_model.bin", state)
        elif container == "npz to safetensors":
            save_tensors(folder / "model.safetensors", state, {})
        else:
            torch = pytest.importorskip("torch")
            torch.save({name: torch.tensor(value) for name, value in state.items()}, folder / "pytorch_model.bin")
        (folder / "config.json").write_text(str(case["config"]))
        general = "classification.weight" not in state
        convert(folder, tmp_path / f"{path.stem}-run", "refsnn", classes=2 if general else None)
        config, params = load_student(tmp_path / f"{path.stem}-run")
        assert config.bert.num_hidden_layers == 4 and params["fit.weight"].dtype == np.float64
        batch = random_batch(config.bert, 0)._replace(
            **{name: case[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
        )
        rates, _ = rate_map(config.network, params, batch)
        for i, population in enumerate(config.network.populations):
            np.testing.assert_allclose(rates[population.name], case[f"rate/{i:02d}"], rtol=0, atol=1e-12)
        if not general:
            found, _ = logits(params, case["asr/24"])
            np.testing.assert_allclose(found, case["logits"], rtol=0, atol=1e-12)


def test_an_imported_student_is_evaluated_like_the_one_it_was(tmp_path, capsys):
    data, bert = write_task(tmp_path / "data", rows=16), write_teacher(tmp_path / "bert")
    config, params = load_bert(bert)
    head = {"classifier.weight": (2, 16), "classifier.bias": (2,)}
    pooler = {"pooler.dense.weight": (16, 16), "pooler.dense.bias": (16,)}
    params |= initial_parameters(head | pooler, np.random.default_rng(2), 0.5)
    described = StudentConfig(config, 16, 2, Neuron(0.9))
    student_params = initial_parameters(described.shapes, np.random.default_rng(3), 0.5)
    run = tmp_path / "run"
    run.mkdir()
    save_model(run, described.to_dict(), student_params, bert)
    save_model(run / "teacher", config.to_dict() | {"num_labels": 2}, params, bert)
    write_json(
        run / "run.json", {"settings": {"recipe": {"task": "sst2", "encoders": 2, "max_length": None}}, "versions": {}}
    )

    convert(run, tmp_path / "theirs", "authors")
    convert(run / "teacher", tmp_path / "teacher", "bert")
    convert(tmp_path / "theirs", tmp_path / "imported", "refsnn", task="sst2", vth=0.9, leak=1.0)
    convert(tmp_path / "teacher" / "pytorch_model.bin", tmp_path / "imported" / "teacher", "bert")
    results = []
    for folder in (run, tmp_path / "imported"):
        (folder / "run.json").write_text(
            (folder / "run.json").read_text().replace('"max_length": null', '"max_length": 16')
        )
        assert main(["evaluate", str(folder), "--data", str(data), "--t-conv", "8"]) == 0
        found = read_json(folder / "results-inst.json")
        results.append({key: found[key] for key in ("teacher_accuracy", "rate_accuracy", "spikes", "example")})
        assert (folder / "report.html").exists()
    assert results[0] == results[1]


def test_what_the_other_program_has_to_be_told(tmp_path):
    config, params = student(3, neuron=Neuron(0.5, 0.9, 0.5))
    notes = " ".join(convert(write_run(tmp_path / "run", config, params), tmp_path / "theirs", "authors"))
    for word in ("--vth 0.5", "self.leaky = 0.9", "membranes start at 0", "2 or 4 encoders"):
        assert word in notes
    bert = BertConfig(**(SMALL.to_dict() | {"layer_norm_eps": 1e-5}))
    config = StudentConfig(bert, 16, 2, populations={"encoder.0.intermediate": {"vth": 0.5, "u0": 0.5}})
    params = initial_parameters(config.shapes, np.random.default_rng(0))
    notes = " ".join(convert(write_run(tmp_path / "run2", config, params), tmp_path / "theirs2", "authors"))
    assert "fit_dense is 12 wide" in notes and "layer_norm_eps = 1e-12" in notes
    assert "share one threshold" in notes and "share one initial potential" in notes
    config = StudentConfig(SMALL, 12, 2, Neuron(polarity="retractable"), per_feature=True)
    params = initial_parameters(config.shapes, np.random.default_rng(0))
    notes = " ".join(convert(write_run(tmp_path / "run4", config, params), tmp_path / "theirs4", "authors"))
    assert "their spikes are 0 and 1" in notes and "their residuals have no synapses" in notes
    params = {theirs: value for theirs, value in read_torch(tmp_path / "theirs" / "pytorch_model.bin").items()}
    folder = authors_folder(tmp_path / "without vocabulary", params, SMALL)
    (folder / "vocab.txt").unlink()
    notes = " ".join(convert(folder, tmp_path / "run3", "refsnn"))
    for word in ("taken to be 1", "without `task`", "pooler_layer", "`feedback`"):
        assert word in notes
    assert "vocab.txt" in " ".join(convert(tmp_path / "run3", tmp_path / "theirs3", "authors"))


def complaint(capsys, *words) -> str:
    assert main(["convert", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("refsnn: ") and captured.err.count("\n") == 1
    return captured.err


def test_what_cannot_be_converted_is_said_in_one_sentence(tmp_path, bert, capsys):
    config, params = student(2)
    run = write_run(tmp_path / "run", config, params, task="sst2")
    state = {theirs: params[ours] for theirs, ours in authors_names(2).items() if ours in params}
    theirs, out = authors_folder(tmp_path / "theirs", state, config.bert), tmp_path / "out"
    LAYOUTS["safetensors"](*bert)
    convert(theirs, tmp_path / "taken", "refsnn")
    before = (tmp_path / "taken" / "model.safetensors").read_bytes()
    for words, said in (
        ((tmp_path / "absent", out, "--to", "refsnn"), "absent"),
        ((theirs, tmp_path / "taken", "--to", "refsnn"), "nothing is overwritten"),
        ((theirs, out, "--to", "refsnn", "--task", "nonsense"), "nonsense"),
        ((theirs, out, "--to", "refsnn", "--task", "sst2"), "3 classes apart, but sst2 has 2"),
        ((theirs, out, "--to", "refsnn", "--classes", "0"), "from 1 to"),
        ((theirs, out, "--to", "refsnn", "--vth", "-1"), "vth"),
        ((theirs, out, "--to", "bert"), "embeddings.word_embeddings.weight"),
        ((run, out, "--to", "refsnn"), "run of refsnn"),
        ((run, out, "--to", "authors", "--vth", "1"), "as it is"),
        ((run, out, "--to", "authors"), "3 classes apart, but sst2 has 2"),
        ((run, out, "--to", "bert"), "no BERT"),
        ((bert[0], out, "--to", "refsnn"), "--to bert"),
    ):
        assert said in complaint(capsys, *words), words
        assert not out.exists()
    assert (tmp_path / "taken" / "model.safetensors").read_bytes() == before

    def broken(**changes):
        write_torch(theirs / "pytorch_model.bin", {k: v for k, v in (state | changes).items() if v is not None})
        return complaint(capsys, theirs, out, "--to", "refsnn")

    assert "network_s9.query.bias" in broken(**{"network_s9.query.bias": None})
    assert "fit_dense.weight" in broken(**{"fit_dense.weight": None})
    assert "network_s5.dense.weight has shape" in broken(**{"network_s5.dense.weight": np.ones((3, 3))})
    assert "classification.weight has shape" in broken(**{"classification.weight": np.ones(3)})
    assert "NaN" in broken(**{"network_x.LayerNorm.bias": np.full(12, np.nan)})
    assert "int64" in broken(**{"network_x.LayerNorm.bias": np.zeros(12, int)})
    (theirs / "pytorch_model.bin").write_bytes(b"\x80\x02cos\nsystem\n.")
    assert "pytorch_model.bin" in complaint(capsys, theirs, out, "--to", "refsnn")
    (theirs / "config.json").write_text(json.dumps({"hidden_size": 12}))
    write_torch(theirs / "pytorch_model.bin", state)
    assert "config.json: the configuration lacks" in complaint(capsys, theirs, out, "--to", "refsnn")
    (theirs / "config.json").unlink()
    assert "copy the one it was given" in complaint(capsys, theirs, out, "--to", "refsnn")


def test_weights_are_read_from_files_and_folders(tmp_path):
    arrays = {"a": np.ones(3), "h": np.float16([1, 2])}
    write_torch(tmp_path / "some.pt", arrays)
    save_tensors(tmp_path / "some.safetensors", arrays, {})
    for name in ("some.pt", "some.safetensors"):
        path, found = read_weights(tmp_path / name)
        assert path == tmp_path / name
        assert_same(found, {"a": np.ones(3), "h": np.float32([1, 2])})


# ---------------------------------------------------------------------------------------------------------------------
# Whole or not at all


class Killed(BaseException):
    """As a signal would end it: nothing but `finally` runs, and not even that where it is SIGKILL."""


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def conversions(tmp_path, bert):
    LAYOUTS["safetensors"](*bert)
    config, params = student()
    run = write_run(tmp_path / "run", config, params)
    convert(run, tmp_path / "state", "authors")
    theirs = authors_folder(tmp_path / "theirs", read_torch(tmp_path / "state" / "pytorch_model.bin"), config.bert)
    return {"bert": (bert[0], "bert"), "theirs": (run, "authors"), "ours": (theirs, "refsnn")}


@pytest.mark.parametrize("kind", ["bert", "theirs", "ours"])
def test_a_conversion_appears_whole_or_not_at_all(tmp_path, bert, monkeypatch, kind):
    source, to = conversions(tmp_path, bert)[kind]
    convert(source, tmp_path / "whole", to)
    expected, rename, out = files_of(tmp_path / "whole"), os.replace, tmp_path / "out"
    done = 0
    for last in range(len(expected) + 1):
        count = 0

        def killed(*paths, last=last):
            nonlocal count
            count += 1
            if count > last:
                raise Killed
            rename(*paths)

        monkeypatch.setattr(os, "replace", killed)
        try:
            convert(source, out, to)
            done += 1
        except Killed:
            assert not out.exists()
            (tmp_path / ".out.part").mkdir(exist_ok=True)  # as SIGKILL leaves it
            (tmp_path / ".out.part" / "config.json").write_text("half")
    assert done == 1 and files_of(out) == expected
    assert not (tmp_path / ".out.part").exists()
    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises(InputError, match=r"out already holds config\.json; .*nothing is overwritten"):
        convert(source, out, to)


def test_where_a_conversion_may_be_written(tmp_path, bert, monkeypatch):
    source, to = conversions(tmp_path, bert)["bert"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for place in ("empty", "link", "deep/er", tmp_path / "new"):
        convert(source, place, to)
        assert (tmp_path / place / "config.json").exists()
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place, words in (("notes", "already holds mine.txt"), ("file", "cannot write into file"), ("", "empty")):
        with pytest.raises(InputError, match=words):
            convert(source, place, to)
    assert (tmp_path / "file").read_text() == "mine" and os.listdir(tmp_path / "notes") == ["mine.txt"]

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write out2/model\.safetensors \(No space left"):
        convert(source, "out2", to)
    assert not (tmp_path / "out2").exists() and not list(tmp_path.glob(".*"))


def test_a_student_of_one_token_type_is_of_no_task_of_pairs(tmp_path):
    config, params = student(classes=2)
    params[TYPES] = params[TYPES][:1]
    config = replace(config, bert=replace(config.bert, type_vocab_size=1))
    convert(write_run(tmp_path / "run", config, params), tmp_path / "state", "authors")
    theirs = authors_folder(tmp_path / "theirs", read_torch(tmp_path / "state" / "pytorch_model.bin"), config.bert)
    with pytest.raises(InputError, match=r"type_vocab_size of .* is 1, but the second text of a pair of rte"):
        convert(theirs, tmp_path / "out", "refsnn", task="rte")
    assert not (tmp_path / "out").exists()
    convert(theirs, tmp_path / "out", "refsnn", task="sst2")


TYPES = "embeddings.token_type_embeddings.weight"
