"""Text in: tasks, tokenizers, batches; and what may be imported without the optional packages."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import write_task, write_teacher

from refsnn.data.examples import Examples, epoch_batches, length_batches, tokenise
from refsnn.data.reading import read_task
from refsnn.data.tasks import TASKS
from refsnn.data.tokenizer import load_tokenizer
from refsnn.data.unlabelled import read_corpus
from refsnn.errors import InputError
from refsnn.model.batch import attention_mask


@pytest.fixture
def tokenizer(tmp_path):
    return load_tokenizer(write_teacher(tmp_path / "bert"), 18, 6)


def test_sst2_rows_become_token_ids(tmp_path, tokenizer):
    dataset = read_task(write_task(tmp_path / "data", 16), TASKS["sst2"], "train")
    assert dataset.column_names == ["sentence", "label"] and len(dataset) == 16
    examples = tokenise(dataset, ("sentence",), tokenizer)
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] the film plot cast is".split()
    first = examples.tokens[: examples.lengths[0]]
    assert [words[i] for i in first[:2]] == ["[CLS]", "the"] and words[first[-1]] == "[SEP]"
    assert examples.labels.tolist() == dataset["label"][:]
    assert not examples.kinds.any()


def test_pairs_get_token_types_and_the_longer_sentence_is_cut_first(tmp_path, tokenizer):
    lines = [
        "index\tsentence1\tsentence2\tlabel",
        '0\tthe film is "good\tbad\tnot_entailment',
        "1\tfine\tdull\tentailment",
    ]
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE" / "dev.tsv").write_text("\n".join(lines) + "\n")
    dataset = read_task(tmp_path, TASKS["rte"], "dev")
    assert dataset["sentence1"][0] == 'the film is "good'  # a lone quote is text, not a delimiter
    examples = tokenise(dataset, TASKS["rte"].sentences, tokenizer)
    assert examples.labels.tolist() == [1, 0]
    assert examples.lengths.tolist() == [6, 5]
    assert examples.kinds[:6].tolist() == [0, 0, 0, 0, 1, 1]


def test_official_glue_files_are_read_whole(data):
    sizes = {"sst2": (67349, 872), "rte": (2490, 277)}
    for name, counts in sizes.items():
        for split, count in zip(("train", "dev"), counts, strict=True):
            assert len(read_task(data / "glue", TASKS[name], split)) == count


def test_corpus_paragraphs(tmp_path):
    (tmp_path / "text").write_text("one\nline\n\n  \n\nanother   paragraph\n")
    assert list(read_corpus([tmp_path / "text"])) == ["one line", "another paragraph"]
    (tmp_path / "text").write_text(" \n\n")
    with pytest.raises(InputError, match="no text"):
        list(read_corpus([tmp_path / "text"]))


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=60).map(np.array)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(LENGTHS, st.integers(1, 12), st.integers(0, 5))
def test_batches_hold_every_example_once_in_an_order_the_seed_decides(lengths, size, seed):
    for batches in (list(epoch_batches(lengths, size, [seed])), length_batches(lengths, size)):
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        assert all(0 < len(rows) <= size for rows in batches)
    for rows in length_batches(lengths, size, tokens=12):
        assert len(rows) == 1 or (len(rows) <= size and len(rows) * lengths[rows].max() <= 12)
    assert np.array_equal(np.concatenate(length_batches(lengths, size, 12)), np.argsort(lengths, kind="stable"))
    again = list(epoch_batches(lengths, size, [seed]))
    assert all(np.array_equal(a, b) for a, b in zip(again, epoch_batches(lengths, size, [seed]), strict=True))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(LENGTHS, st.integers(0, 5))
def test_padding_is_masked_and_everything_else_is_kept(lengths, seed):
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    examples = Examples(rng.integers(1, 99, starts[-1]), rng.integers(0, 2, starts[-1]), starts, np.zeros(len(lengths)))
    rows = rng.permutation(len(lengths))[:4]
    batch = examples.batch(rows, pad_token_id=77)
    assert batch.input_ids.shape == (len(rows), lengths[rows].max())
    for i, row in enumerate(rows):
        n = lengths[row]
        np.testing.assert_array_equal(batch.input_ids[i, :n], examples.tokens[starts[row] : starts[row + 1]])
        np.testing.assert_array_equal(batch.token_type_ids[i, :n], examples.kinds[starts[row] : starts[row + 1]])
        assert (batch.input_ids[i, n:] == 77).all() and not batch.token_type_ids[i, n:].any()
    mask = attention_mask(batch, np.float32)
    assert mask.shape == (len(rows), 1, 1, batch.input_ids.shape[1]) and mask.dtype == np.float32
    np.testing.assert_array_equal(mask[:, 0, 0] == -10000, batch.attention_mask == 0)


def test_the_core_needs_numpy_and_scipy_only():
    program = """
import sys
for name in ("tokenizers", "datasets", "safetensors", "tqdm", "matplotlib"):
    sys.modules[name] = None  # importing it now fails
import refsnn
import importlib, pkgutil
for module in pkgutil.walk_packages(refsnn.__path__, "refsnn."):
    if not module.name.endswith(("__main__", "conftest", "test_backend")):
        importlib.import_module(module.name)
from refsnn.errors import InputError
from refsnn.files import require
assert not {"torch", "jax"} & set(sys.modules)
try:
    require("datasets")
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'refsnn[all]'" in done.stdout


def test_the_demonstration_in_small(tmp_path, monkeypatch, capsys):
    from dataclasses import replace

    from refsnn.reproduction import demo

    quick = {name: replace(corpus, train=40, dev=20, epochs_teacher=1) for name, corpus in demo.CORPORA.items()}
    monkeypatch.setattr(demo, "CORPORA", quick)
    monkeypatch.setattr(demo, "PARAGRAPHS", 60)
    monkeypatch.setattr(demo, "T_CONV", (2, 6))
    for task in quick:
        demo.demo(tmp_path / task, task, seed=1)
        out = capsys.readouterr().out
        assert "teacher (BERT)" in out and "T = 6" in out
        assert (tmp_path / task / "report.html").stat().st_size > 50_000


@pytest.mark.slow
def test_the_demonstration_teaches_its_student(tmp_path, capsys):
    import json

    from refsnn.reproduction.demo import demo

    demo(tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results-inst.json").read_text())
    assert results["teacher_accuracy"] > 0.8
    assert results["rate_accuracy"] > results["teacher_accuracy"] - 0.05
