"""A packed student: it loads, also by a hub's id, answers as the run does, and its card says what was measured."""

import json
import re
import shutil
import sys
import types

import numpy as np
import pytest

import refsnn
from refsnn.commands.cli import main
from refsnn.distillation.stages import distill
from refsnn.errors import InputError
from refsnn.evaluation.evaluate import evaluate_run
from refsnn.pages.card import pack_run
from refsnn.storage.recipe import Recipe

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "is", "film", "plot", "good", "clever", "bad", "dull"]
TEXTS = ["the film is good", "the plot is dull", "bad"]


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory):
    """A run of a minute BERT, evaluated by both rules."""
    for module in ("tokenizers", "datasets", "safetensors"):
        pytest.importorskip(module)
    root = tmp_path_factory.mktemp("card")
    data = root / "data"
    data.mkdir()
    (data / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    rng = np.random.default_rng(0)
    for split, count in (("train", 64), ("dev", 16)):
        labels = rng.integers(2, size=count)
        chosen = [rng.choice(("bad", "dull") if label == 0 else ("good", "clever")) for label in labels]
        lines = [
            f"the {rng.choice(('film', 'plot'))} is {word}\t{label}" for word, label in zip(chosen, labels, strict=True)
        ]
        (data / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *lines, ""]), encoding="utf-8")
    config = refsnn.BertConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    epochs = {f"epochs_{stage}": 1 for stage in ("teacher", "internal", "prediction")}
    recipe = Recipe(task="sst2", encoders=1, batch_size=8, epochs_general=0, u0=0.5, seed=3, **epochs)
    distill(recipe, data, (config, data), root / "run")
    evaluate_run(root / "run", None, [2, 8])
    evaluate_run(root / "run", None, [4], rule="running")
    return root / "run"


@pytest.fixture(scope="session")
def packed(evaluated):
    return pack_run(evaluated, evaluated.parent / "packed", licence="apache-2.0", samples=2, t_conv=6)


def front_matter(card):
    lines = card.split("---\n")[1].splitlines()
    return {name: json.loads(value) for name, _, value in (line.partition(": ") for line in lines)}


def test_a_packed_student_answers_as_the_run_does(evaluated, packed):
    ours, theirs = refsnn.load(evaluated), refsnn.load(packed)
    assert theirs.classes == ours.classes == ("negative", "positive")
    for options in ({}, {"t_conv": 7}, {"t_conv": 5, "rule": "running"}):
        np.testing.assert_array_equal(theirs.logits(TEXTS, **options), ours.logits(TEXTS, **options))
    long = ["good " * 100]
    assert theirs.batch(long).input_ids.shape == ours.batch(long).input_ids.shape


def test_nothing_else_is_packed_and_no_path_is_told(evaluated, packed):
    assert sorted(p.name for p in packed.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    told = "".join(
        (packed / name).read_text(encoding="utf-8") for name in ("README.md", "config.json", "tokenizer.json")
    )
    assert str(evaluated.parent) not in told and "/tmp" not in told


def test_it_loads_by_the_id_of_a_hub(packed, tmp_path, monkeypatch):
    """The hub's client fetches what the patterns name, no more: that must be enough."""

    def download(name, allow_patterns):
        for path in packed.iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copy(path, tmp_path)
        return str(tmp_path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=download))
    student = refsnn.load("somebody/spiking-bert-tiny-sst2")
    assert student.predict(TEXTS, t_conv=8) == refsnn.load(packed).predict(TEXTS, t_conv=8)


def test_the_card_says_what_was_measured(evaluated, packed):
    card = (packed / "README.md").read_text(encoding="utf-8")
    run, rows = refsnn.Run(evaluated), []
    for rule in ("inst", "running"):
        for row in run.results(rule)["spikes"]:
            gains = f"{row['energy_gain']:.2f}×" if row["energy_gain"] else "–", f"{row['full']['gain']:.2f}×"
            shares = f"{100 * row['metrics']['accuracy']:.1f}", f"{100 * row['agreement']:.1f}"
            rows.append(
                f"| {rule} | {row['t']} | {' | '.join(shares)} | {row['firing_rate']:.3f} | {' | '.join(gains)} |"
            )
    assert len(rows) == 3 and all(row in card for row in rows)
    for word in (
        "negative, positive",
        "seed | 3",
        "first charge 0.5",
        "teacher 1, internal 1, prediction 1",
        "16 examples",
    ):
        assert word in card, word
    front = front_matter(card)
    assert front["license"] == "apache-2.0" and front["library_name"] == "refsnn" and "base_model" not in front
    values = [metric["value"] for metric in front["model-index"][0]["results"][0]["metrics"]]
    assert values == [
        round(r["metrics"]["accuracy"], 4) for rule in ("inst", "running") for r in run.results(rule)["spikes"]
    ]


def test_the_certificate_on_the_card_is_of_so_many_decisions(evaluated, packed):
    card = (packed / "README.md").read_text(encoding="utf-8")
    student = refsnn.load(evaluated)
    _, batch = refsnn.Run(evaluated).sample(2)
    tokens, neurons = batch.input_ids.size, 1 * 8 + 5 * 8 + 16  # embeddings; five populations of 8, one of 16
    assert len(student.network.populations) == 7
    assert f"of {6 * tokens * neurons:,} decisions 0 are wrong" in card


def test_a_student_with_a_wrong_spike_is_not_packed(evaluated, tmp_path, monkeypatch):
    record = refsnn.record

    def flipped(*args, **options):
        spikes = record(*args, **options)
        spikes["encoder.0.output"][0, 0, 0, 0] ^= 1
        return spikes

    monkeypatch.setattr("refsnn.evaluation.record.record", flipped)
    with pytest.raises(InputError, match=r"^1 spike decision.* wrong"):
        pack_run(evaluated, tmp_path / "packed", licence="mit", samples=1, t_conv=4)
    assert not (tmp_path / "packed").exists()


def test_what_cannot_be_packed_is_said(evaluated, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        pack_run(evaluated, tmp_path, licence="mit", samples=1, t_conv=2)
    bare = shutil.copytree(evaluated, tmp_path / "bare")
    for path in bare.glob("results*"):
        path.unlink()
    with pytest.raises(InputError, match="was not evaluated"):
        pack_run(bare, tmp_path / "packed", licence="mit")


def test_the_command_packs_and_says_what_next(evaluated, tmp_path, capsys):
    out = tmp_path / "packed"
    assert main(["pack", str(evaluated), str(out), "--licence", "mit", "--samples", "1", "--t-conv", "2"]) == 0
    assert re.search(r"^wrote .*; next: hf upload \S+ ", capsys.readouterr().out)
    assert 'license: "mit"' in (out / "README.md").read_text(encoding="utf-8")
