"""The teacher against Hugging Face's BERT, from recorded values (made by `record_bert.py`)."""

import json
from pathlib import Path

import numpy as np
import pytest

from refsnn import ops
from refsnn.data.tokenizer import load_tokenizer
from refsnn.distillation.teacher import classify, encode
from refsnn.files import save_tensors, write_json
from refsnn.model.batch import Batch
from refsnn.model.parameters import check_parameters
from refsnn.model.shapes import BertConfig, teacher_shapes
from refsnn.storage.checkpoints import load_bert

RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture(scope="module")
def small():
    with np.load(RECORDED / "bert_small.npz") as file:
        record = dict(file)
    config = BertConfig.from_dict(json.loads(str(record["config"])))
    params = {k.removeprefix("param/").removeprefix("bert."): v for k, v in record.items() if k.startswith("param/")}
    params = check_parameters(params, teacher_shapes(config, 3), "record")
    return config, params, Batch(record["input_ids"], record["token_type_ids"], record["attention_mask"]), record


def relative(ours, recorded):
    return np.abs(ours - recorded).max() / np.abs(recorded).max()


def test_hidden_states_logits_and_loss(small):
    config, params, batch, record = small
    for i, hidden in enumerate(encode(config, params, batch).hidden):
        assert relative(hidden, record[f"hidden/{i}"]) < 1e-12
    logits, _ = classify(config, params, batch)
    assert relative(logits, record["logits"]) < 1e-12
    assert relative(ops.cross_entropy(logits, record["labels"])[0], record["loss"]) < 1e-12


def test_every_gradient(small):
    config, params, batch, record = small
    logits, pullback = classify(config, params, batch)
    gradients = pullback(ops.cross_entropy(logits, record["labels"])[1](1.0))
    assert set(gradients) == set(params)
    for name, gradient in gradients.items():
        theirs = record[f"grad/{name if name.startswith('classifier') else 'bert.' + name}"]
        if name == "embeddings.word_embeddings.weight":
            assert not theirs[0].any()  # the padding row
        # Some gradients vanish in exact arithmetic (a key's bias shifts all scores of a query alike).
        assert np.abs(gradient - theirs).max() <= 1e-12 * max(np.abs(theirs).max(), 1e-3), name


@pytest.mark.parametrize("name", ["bert-tiny", "all-MiniLM-L6-v2"])
def test_real_checkpoints_agree_with_hugging_face(data, name):
    # bert-tiny's parameter names begin with "bert.", MiniLM's do not.
    with np.load(RECORDED / f"{name}.npz") as file:
        record = dict(file)
    config, params = load_bert(data / "teachers" / name, np.float64)
    tokenizer = load_tokenizer(data / "teachers" / name, config.vocab_size, 64)
    for text, ids, mask in zip(record["sentences"], record["input_ids"], record["attention_mask"], strict=True):
        assert tokenizer.encode(str(text)).ids == ids[mask == 1].tolist()
    batch = Batch(record["input_ids"], record["token_type_ids"], record["attention_mask"])
    for i, hidden in enumerate(encode(config, params, batch).hidden):
        assert relative(hidden[..., :: int(record["every"])], record[f"hidden/{i}"]) < 1e-12
        assert relative(np.linalg.norm(hidden, axis=-1), record[f"norm/{i}"]) < 1e-12


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_names_with_and_without_prefix(tmp_path, small, prefix):
    config, params, batch, record = small
    encoder = {f"{prefix}{k}": v for k, v in params.items() if not k.startswith("classifier")}
    save_tensors(tmp_path / "model.safetensors", encoder, {})
    write_json(tmp_path / "config.json", config.to_dict())
    loaded_config, loaded = load_bert(tmp_path, np.float64)
    assert loaded_config == config
    assert relative(encode(config, loaded, batch).hidden[-1], record["hidden/2"]) < 1e-12
