"""A GPT's text, losses, training, spiking student, evaluation and writing: `refsnn gpt` from end to end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from conftest import SMALL_GPT, random_gpt, random_texts
from test_network import complex_step

from refsnn import ops
from refsnn.commands.cli import main
from refsnn.data.corpora.writing import paragraphs
from refsnn.data.language import (
    END,
    documents,
    encoded,
    load_byte_tokenizer,
    sequences,
    split,
    train_byte_tokenizer,
    windows,
)
from refsnn.distillation import predict
from refsnn.distillation.gpt import distil_gpt, train_gpt
from refsnn.distillation.initialise_gpt import converted_gpt
from refsnn.distillation.language import (
    distillation_gradients,
    language_gradients,
    next_token_logits,
    surprisals,
    target,
)
from refsnn.errors import InputError
from refsnn.evaluation.generate import Choice, choose, generate, write_text
from refsnn.evaluation.ngrams import DISCOUNT, trigram_surprisals, unigram_surprisals
from refsnn.evaluation.perplexity import evaluate_gpt
from refsnn.files import read_json
from refsnn.model.batch import Batch
from refsnn.model.gpt import FINAL, GptConfig, SpikingGptConfig, gpt, spiking_gpt
from refsnn.model.neurons import Neuron
from refsnn.readings.rate_map import rate_map, scores
from refsnn.readings.simulate import simulate, spike_blocks
from refsnn.storage.language import DistilRecipe, LanguageRun, TrainRecipe
from refsnn.storage.records import certify_record

SIZES = {"vocab_size": 300, "positions": 24, "n_embd": 24, "n_layer": 2, "n_head": 3}
TRAIN = TrainRecipe(**SIZES, epochs=3, batch_size=16, lr=3e-3, initializer_range=0.1)
DISTIL = DistilRecipe(t_conv=4, fraction=0.3, batch_size=16)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Twenty short documents: a source each."""
    folder = tmp_path_factory.mktemp("text")
    files = [folder / f"{i:02d}.txt" for i in range(20)]
    for i, file in enumerate(files):
        file.write_text("\n\n".join(paragraphs(12, i)), encoding="utf-8")
    return files


@pytest.fixture(scope="module")
def runs(text, tmp_path_factory):
    """A GPT, and its student."""
    folder = tmp_path_factory.mktemp("runs")
    train_gpt(TRAIN, text, folder / "gpt")
    distil_gpt(DISTIL, folder / "gpt", [], folder / "spiking")
    (folder / "few.txt").write_text("One document is too few.", encoding="utf-8")
    return folder


# ---------------------------------------------------------------------------------------------------------------------
# Text


def test_speeches_begin_with_a_title_or_an_address(tmp_path):
    long = "So it goes on, and on. " * 100
    file = tmp_path / "speeches.txt"
    file.write_text(
        f"Fellow citizens, I begin.\n\n{long}\n\nPRESIDENT A. B.'S ANNUAL MESSAGE TO THE CONGRESS\n\nMr. Speaker:\n"
        f"{long}"
        f"\n\nMy fellow citizens, once more.\n\nMy fellow citizens, this is still the same speech.\n\n{long}",
        encoding="utf-8",
    )
    found = documents([file])
    assert [text.partition("\n")[0][:24] for text in found] == [
        "Fellow citizens, I begin",
        "PRESIDENT A. B.'S ANNUAL",
        "My fellow citizens, once",
    ]
    assert len(documents([file, file])) == 6
    assert " ".join(" ".join(found).split()) == " ".join(file.read_text(encoding="utf-8").split())


def test_splits_share_no_document_and_leave_none_out():
    texts = [str(i) for i in range(57)]
    parts = [split(texts, which) for which in ("train", "dev", "test")]
    assert sorted((text for part in parts for text in part), key=int) == texts
    assert [len(part) for part in parts] == [52, 3, 2]
    with pytest.raises(InputError, match="there are 19 documents, but 20 are needed"):
        split(texts[:19], "dev")


def test_a_tokenizer_gives_any_text_back_and_is_the_same_every_time(tmp_path):
    text = ["Ein Häuschen, ein naïver Σ-Schluss 🙂\n\tund   so weiter. " * 5, "spikes " * 30]
    tokenizer = train_byte_tokenizer(text, 320)
    assert tokenizer.to_str() == train_byte_tokenizer(text, 320).to_str() and tokenizer.get_vocab_size() <= 320
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    loaded = load_byte_tokenizer(tmp_path, 320)
    for one in [*text, "\x00 never seen: 漢字"]:
        assert loaded.decode(loaded.encode(one).ids) == one
    found = encoded(text, loaded)
    assert (found.ids == loaded.token_to_id(END)).sum() == 2 and found.characters == sum(map(len, text)) + 2
    with pytest.raises(InputError, match="embeds only 300: it is another model's"):
        load_byte_tokenizer(tmp_path, 300)


def test_gpt2s_two_files_are_a_tokenizer_too(tmp_path):
    tokenizer = train_byte_tokenizer(["the spike and the spikes " * 9], 280)
    tokenizer.model.save(str(tmp_path))
    vocabulary = read_json(tmp_path / "vocab.json")
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary | {END: vocabulary.get(END, len(vocabulary))}))
    assert load_byte_tokenizer(tmp_path, 300).encode("the spikes").ids == tokenizer.encode("the spikes").ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has neither tokenizer.json nor vocab.json"),
        ("{}", "is no tokenizer"),
        ('{"a": ', "is no tokenizer"),
    ],
)
def test_what_is_no_byte_level_tokenizer_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_byte_tokenizer(tmp_path, 300)


def test_a_wordpiece_tokenizer_is_refused(data):
    with pytest.raises(InputError, match="endoftext"):
        load_byte_tokenizer(data / "teachers" / "all-MiniLM-L6-v2", 10**6)


@pytest.mark.parametrize("length", [2, 5, 8])
@pytest.mark.parametrize("tokens", [9, 16, 23, 40])
def test_every_token_is_predicted_once(tokens, length):
    ids = np.arange(tokens)
    found = windows(ids, length)
    np.testing.assert_array_equal(found.tokens[found.kinds == 1], ids[1:])
    rows = [found.batch(np.array([i])) for i in range(len(found))]
    assert all((np.diff(row.input_ids) == 1).all() for row in rows)
    for row in rows[1:]:
        assert row.token_type_ids[0].argmax() >= length // 2  # so many tokens are there for their context
    whole = sequences(ids, length)
    assert set(whole.lengths) == {length}
    last = [whole.tokens[end - 1] for end in whole.starts[1:]]
    np.testing.assert_array_equal(last, np.arange(length - 1, length - 1 + len(last) * (length - 1), length - 1))
    assert tokens - 1 - last[-1] < length - 1 or tokens - 1 == last[-1]


# ---------------------------------------------------------------------------------------------------------------------
# Counts of n-grams


def kneser_ney(train, context, token, vocab_size):
    """The recursion, in plain dicts."""
    d = DISCOUNT
    pairs, triples = set(pairwise(train)), Counter(zip(train[:-2], train[1:-1], train[2:], strict=True))
    different = set(triples)
    ends = Counter(b for _, b in pairs)
    p1 = (max(ends[token] - d, 0) + d * len(ends) / vocab_size) / sum(ends.values())
    if not context:
        return p1
    middle = Counter((b, c) for _, b, c in different)
    b = context[-1]
    total = sum(n for (x, _), n in middle.items() if x == b)
    kinds = sum(1 for x, _ in middle if x == b)
    p2 = (max(middle[b, token] - d, 0) + d * kinds * p1) / total if total else p1
    if len(context) == 1:
        return p2
    a = context[-2]
    total = sum(n for (x, y, _), n in triples.items() if (x, y) == (a, b))
    kinds = sum(1 for x, y, _ in triples if (x, y) == (a, b))
    return (max(triples[a, b, token] - d, 0) + d * kinds * p2) / total if total else p2


def test_trigrams_are_those_of_the_recursion_and_their_probabilities_sum_to_one():
    rng = np.random.default_rng(0)
    train, text, v = rng.integers(0, 6, 80) ** 2 % 7, rng.integers(0, 7, 30), 7
    found = np.exp(-trigram_surprisals(train, text, v))
    wanted = [kneser_ney(train.tolist(), text[max(i - 2, 0) : i].tolist(), text[i], v) for i in range(len(text))]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    for a in range(v):
        for b in range(v):
            rows = [np.exp(-trigram_surprisals(train, np.array([a, b, c]), v))[2] for c in range(v)]
            assert abs(sum(rows) - 1) < 1e-12
    assert abs(np.exp(-unigram_surprisals(train, np.arange(v), v)).sum() - 1) < 1e-12


# ---------------------------------------------------------------------------------------------------------------------
# Losses and gradients


def check_gradient(loss, params, gradients, seed=0):
    """Every gradient against the complex step in a random direction; on a parameter without one nothing depends."""
    rng = np.random.default_rng(seed)
    assert set(gradients) <= set(params)
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, value in params.items():
        direction = rng.normal(size=value.shape)
        derivative = complex_step(loss, params, {name: direction})
        found = (gradients[name] * direction).sum() if name in gradients else 0.0
        assert abs(found - derivative) < 1e-11 * max(abs(derivative), largest), name


def random_student(seed, neuron=Neuron(polarity="ternary")):
    """A network of neurons with parameters and text."""
    return spiking_gpt(SMALL_GPT, neuron), random_gpt(SMALL_GPT, seed), random_texts(SMALL_GPT, seed)


def test_scores_of_a_student_are_read_through_its_scale():
    _, params, batch = random_student(0)
    rng = np.random.default_rng(1)
    final = rng.normal(size=(*batch.input_ids.shape, SMALL_GPT.n_embd))
    logits, pullback = next_token_logits(params, final)
    wanted = (final * params["readout.weight"] + params["readout.bias"]) @ params["wte.weight"].T
    np.testing.assert_allclose(logits, wanted, rtol=1e-13)
    dlogits = rng.normal(size=logits.shape)
    dfinal, dparams = pullback(dlogits)
    step = 1e-30
    for name, gradient in {**dparams, "final": dfinal}.items():
        direction = rng.normal(size=gradient.shape)
        moved = {n: v + 1j * step * direction if n == name else v for n, v in {**params, "final": final}.items()}
        derivative = (next_token_logits(moved, moved["final"])[0].imag / step * dlogits).sum()
        assert abs((gradient * direction).sum() - derivative) < 1e-10 * max(abs(derivative), 1), name


def test_surprisals_are_those_of_the_tokens_that_follow():
    _, _, batch = random_student(2)
    logits = np.random.default_rng(0).normal(size=(*batch.input_ids.shape, SMALL_GPT.vocab_size))
    found = surprisals(logits, batch)
    for b, row in enumerate(batch.input_ids):
        for n, token in enumerate(row):
            real = n > 0 and batch.attention_mask[b, n]
            wanted = -ops.log_softmax(logits[b, n - 1])[token] if real else 0
            assert abs(found[b, n] - wanted) < 1e-12


@pytest.mark.parametrize("spiking", [False, True])
def test_the_gradient_of_the_next_token_by_the_complex_step(spiking):
    network, params, batch = random_student(3)
    if not spiking:
        network = gpt(SMALL_GPT)
        params = {name: value for name, value in params.items() if not name.startswith("readout")}
    losses, gradients, _ = language_gradients(network, params, batch)
    rates, _ = rate_map(network, params, batch)
    logits, _ = next_token_logits(params, rates[FINAL])
    size, length = batch.input_ids.shape
    assert abs(losses["loss"] - surprisals(logits, batch).sum() / (size * (length - 1))) < 1e-12

    def loss(moved):
        final = rate_map(network, moved, batch)[0][FINAL]
        z = next_token_logits(moved, final)[0]
        rows = np.nonzero(batch.attention_mask[:, 1:])
        log_p = z[:, :-1][rows] - np.log(np.exp(z[:, :-1][rows]).sum(axis=-1, keepdims=True))
        chosen = log_p[np.arange(len(log_p)), batch.input_ids[:, 1:][rows]]
        return -chosen.sum() / (size * (length - 1))

    check_gradient(loss, params, gradients)


def test_losses_of_shares_add_up_to_those_of_the_batch():
    network, params, _ = random_student(5)
    batch = random_texts(SMALL_GPT, 5, size=4)
    whole, gradients, _ = language_gradients(network, params, batch)
    halves = [language_gradients(network, params, Batch(*(ids[rows] for ids in batch))) for rows in ([0, 1], [2, 3])]
    assert abs(whole["loss"] - np.mean([losses["loss"] for losses, _, _ in halves])) < 1e-12
    for name in gradients:
        np.testing.assert_allclose(gradients[name], (halves[0][1][name] + halves[1][1][name]) / 2, atol=1e-12)


def test_the_gradient_of_distillation_by_the_complex_step():
    """At rates of the rate map itself, where the sweep is the derivative of all that the losses see."""
    network, params, batch = random_student(4)
    teacher = {name: value for name, value in random_gpt(SMALL_GPT, 11).items() if "threshold" not in name}
    wanted = target(SMALL_GPT, {n: v for n, v in teacher.items() if not n.startswith("readout")}, batch)
    weights = 0.7, 0.3, 1.1
    rates, _ = rate_map(network, params, batch)
    losses, gradients, _ = distillation_gradients(network, params, batch, wanted, rates, weights)
    assert set(losses) == {"hidden", "attention", "prediction"}
    seen = [there > -100 for there in wanted.encoding.scores]
    size, length = batch.input_ids.shape
    rows = np.nonzero(batch.attention_mask[:, 1:])
    p = np.exp(ops.log_softmax(wanted.logits[:, :-1][rows]))

    def loss(moved):
        found, _ = rate_map(network, moved, batch)
        hidden = [
            ((found[name] - h) ** 2).mean() / (h**2).mean()
            for name, h in zip(network.readouts[1:], wanted.encoding.hidden[1:], strict=True)
        ]
        observed, _ = scores(network, moved, found, batch)
        attention = [
            (np.where(mask, one - there, 0) ** 2).mean() / (np.where(mask, there, 0) ** 2).mean()
            for one, there, mask in zip(observed, wanted.encoding.scores, seen, strict=True)
        ]
        z = next_token_logits(moved, found[FINAL])[0][:, :-1][rows]
        log_q = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
        prediction = -(p * log_q).sum() / (size * (length - 1))
        return weights[0] * np.mean(hidden) + weights[1] * np.mean(attention) + weights[2] * prediction

    total = sum(w * losses[name] for w, name in zip(weights, ("hidden", "attention", "prediction"), strict=True))
    assert abs(total - loss(params)) < 1e-10
    check_gradient(loss, params, gradients)


# ---------------------------------------------------------------------------------------------------------------------
# Conversion


@pytest.mark.parametrize(
    ("polarity", "vth"), [("ternary", 1.0), ("ternary", 0.7), ("unsigned", 1.0), ("retractable", 1.3)]
)
def test_a_converted_student_computes_what_its_teacher_computes(polarity, vth):
    """Nothing is clipped here, and GELU's negative part is there in ternary rates only."""
    config = replace(SMALL_GPT, n_embd=12)
    teacher = {n: v for n, v in random_gpt(config, 6).items() if "threshold" not in n and "readout" not in n}
    batch = random_texts(config, 6, size=6)
    student, params = converted_gpt(SpikingGptConfig(config, Neuron(vth=vth, polarity=polarity)), teacher, [batch], 0.0)
    wanted = target(config, teacher, batch)
    rates, _ = rate_map(student.network, params, batch)
    real = batch.attention_mask.astype(bool)
    logits, _ = next_token_logits(params, rates[FINAL])
    error = np.abs(logits - wanted.logits)[real].max() / np.abs(wanted.logits).max()
    first = np.abs(
        rates["block.0.attention_output"] - rate_map(gpt(config), teacher, batch)[0]["block.0.attention_output"]
    )
    assert first[real].max() < 1e-10  # up to the first GELU every polarity is exact
    assert error < 1e-10 if polarity == "ternary" else error > 1e-3


# ---------------------------------------------------------------------------------------------------------------------
# Runs


def test_a_run_is_trained_distilled_and_evaluated(runs):
    found = evaluate_gpt(runs / "spiking", [2, 8, 32])
    assert found["teacher"]["perplexity"] < found["unigram"]["perplexity"] / 3
    assert abs(found["rate_map"]["perplexity"] / found["teacher"]["perplexity"] - 1) < 0.1
    spikes = found["spikes"]
    assert abs(spikes["32"]["perplexity"] / found["rate_map"]["perplexity"] - 1) < 0.05
    assert spikes["2"]["agreement"] < spikes["32"]["agreement"] <= 1
    assert spikes["2"]["gain"] > spikes["8"]["gain"] > spikes["32"]["gain"] > 0
    assert spikes["2"]["full_gain"] > spikes["8"]["full_gain"]
    per_token = np.log(found["teacher"]["perplexity"]) * found["tokens"]
    assert abs(found["teacher"]["bits_per_character"] - per_token / np.log(2) / found["characters"]) < 1e-12
    kept = read_json(runs / "spiking" / "language-running.json")
    assert {name: kept[name] for name in found} == json.loads(json.dumps(found))
    assert set(evaluate_gpt(runs / "gpt")) == set(found) - {"rate_map", "spikes"}


def test_an_evaluation_is_the_mean_surprisal_of_the_text(runs):
    """By whole sequences and by hand: what windows, batches and shares must not change."""
    run = LanguageRun(runs / "spiking")
    config, params = run.gpt()
    ids = run.text("dev").ids[:60]
    total, scored = 0.0, 0
    for example in range(len(found := windows(ids, config.n_positions))):
        batch = found.batch(np.array([example]))
        logits, _ = next_token_logits(params, rate_map(gpt(config), params, batch)[0][FINAL])
        marks = batch.token_type_ids.astype(bool)
        total, scored = total + surprisals(logits, batch)[marks].sum(), scored + marks.sum()
    assert scored == len(ids) - 1
    samples = (len(ids) - config.n_positions // 2) // (config.n_positions // 2)
    results = evaluate_gpt(runs / "spiking", [2], which="dev", samples=samples)
    assert results["tokens"] == scored
    assert abs(results["teacher"]["perplexity"] / np.exp(total / scored) - 1) < 1e-5


def test_an_evaluation_by_processes_is_the_same_to_the_bit(runs, monkeypatch):
    by_threads = evaluate_gpt(runs / "spiking", [3], which="dev", samples=6)
    monkeypatch.setattr(predict, "threads", lambda: 2)
    monkeypatch.setattr(predict, "worth_processes", lambda workers, products: True)
    assert evaluate_gpt(runs / "spiking", [3], which="dev", samples=6) == by_threads


def test_the_same_command_again_changes_nothing_and_other_settings_are_refused(runs, text):
    before = {path: path.read_bytes() for path in (runs / "spiking").rglob("*.safetensors")}
    distil_gpt(DISTIL, runs / "gpt", [], runs / "spiking")
    assert before == {path: path.read_bytes() for path in (runs / "spiking").rglob("*.safetensors")}
    with pytest.raises(InputError, match=r"holds a run with other settings \(lr was 0.0002 and is 0.01"):
        distil_gpt(replace(DISTIL, lr=0.01), runs / "gpt", [], runs / "spiking")
    with pytest.raises(InputError, match="holds a run with other settings"):
        train_gpt(replace(TRAIN, seed=1), text, runs / "gpt")
    with pytest.raises(InputError, match="positions` is 99, but the teacher embeds 24 only"):
        distil_gpt(replace(DISTIL, positions=99), runs / "gpt", [], runs / "other")


def test_a_text_that_has_changed_is_noticed(runs, text, tmp_path):
    copies = [tmp_path / file.name for file in text]
    for file, copy in zip(text, copies, strict=True):
        copy.write_bytes(file.read_bytes())
    quick = replace(TRAIN, epochs=1, n_layer=1)
    train_gpt(quick, copies, tmp_path / "run")
    copies[3].write_text("Another text altogether.", encoding="utf-8")
    with pytest.raises(InputError, match=r"the text.* is not what it was when"):
        train_gpt(quick, copies, tmp_path / "run")


def test_a_teacher_that_has_changed_is_noticed(runs, tmp_path):
    teacher = shutil.copytree(runs / "gpt", tmp_path / "gpt")
    distil_gpt(replace(DISTIL, epochs=0), teacher, [], tmp_path / "run")
    config, params = LanguageRun(teacher).gpt()
    LanguageRun(teacher).save_gpt(config, params | {"ln_f.bias": params["ln_f.bias"] + 1})
    with pytest.raises(InputError, match=r"the teacher.* is not what it was when"):
        distil_gpt(replace(DISTIL, epochs=0), teacher, [], tmp_path / "run")


def test_killed_and_started_again_it_ends_with_the_same_bytes(runs, text, tmp_path):
    names = [str(file) for file in text]
    sizes = "--vocab-size 300 --positions 24 --n-embd 24 --n-layer 2 --n-head 3 --epochs 3 --batch-size 16 --lr 3e-3"
    sizes += " --initializer-range 0.1"
    commands = {
        "gpt": ["train", *names, *sizes.split()],
        "spiking": ["distil", str(runs / "gpt"), *"--t-conv 4 --fraction 0.3 --batch-size 16".split()],
    }
    for run, words in commands.items():
        command = [sys.executable, "-m", "refsnn", "gpt", *words, "--save-every", "0", "--out", str(tmp_path / run)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(tmp_path.glob(f"{run}/stages/*.safetensors")) and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for name in ("model.safetensors", "config.json", "log.jsonl", "tokenizer.json"):
            assert (tmp_path / run / name).read_bytes() == (runs / run / name).read_bytes(), (run, name)
        assert not list(tmp_path.rglob("*.part"))


def test_a_run_of_another_family_and_a_model_without_spikes_are_refused(runs, tmp_path):
    (tmp_path / "run.json").write_text('{"settings": {"recipe": {"task": "sst2", "encoders": 2}}}')
    with pytest.raises(InputError, match="holds a run of another family"):
        LanguageRun(tmp_path)
    with pytest.raises(InputError, match="holds an ordinary GPT, which has no spikes"):
        write_text(runs / "gpt", "A dull", 2, 4)
    with pytest.raises(InputError, match="does not exist"):
        evaluate_gpt(tmp_path / "nowhere")


@pytest.mark.parametrize("command", ["evaluate", "predict", "sweep", "record"])
def test_other_commands_send_a_gpts_run_to_its_own(runs, tmp_path, capsys, command):
    words = {"predict": ["hello"], "record": ["--out", str(tmp_path / "x")], "evaluate": ["--t-conv", "4"]}
    assert main([command, str(runs / "spiking"), *words.get(command, [])]) == 2
    said = capsys.readouterr().err
    assert "`refsnn gpt` reads" in said and said.count("\n") == 1, said


# ---------------------------------------------------------------------------------------------------------------------
# Writing


@pytest.mark.parametrize("rule", ["inst", "running"])
@pytest.mark.parametrize("polarity", ["unsigned", "retractable", "ternary"])
def test_one_position_at_a_time_fires_what_the_whole_sequence_fires(rule, polarity):
    network, params, _ = random_student(7, Neuron(polarity=polarity))
    *_, written = generate(network, params, SMALL_GPT, [3, 4], 5, 9, rule, Choice(0.9), seed=1, keep_all=True)
    batch = Batch.of([written.ids[:-1]])
    whole = {}
    for _, block in spike_blocks(network, params, batch, 9, rule, block=4):
        for name, spikes in block.items():
            whole.setdefault(name, []).append(spikes)
    assert set(written.spikes) == {p.name for p in network.populations if p.neuron is not None}
    for name, spikes in written.spikes.items():
        np.testing.assert_array_equal(spikes, np.concatenate(whole[name]), name)
    rates = simulate(network, params, batch, 9, rule, keep=[FINAL])[9][FINAL]
    greedy = next(generate(network, params, SMALL_GPT, written.ids[:-1], 1, 9, rule, Choice(0))).ids[-1]
    assert greedy == next_token_logits(params, rates)[0][0, -1].argmax()
    few = list(generate(network, params, SMALL_GPT, [3, 4], 5, 9, rule, Choice(0.9), seed=1))[-1]
    assert few.ids == written.ids
    assert {name.rpartition(".")[2] for name in few.spikes} == {"key", "value"}  # all that is read later


def test_choices():
    rng = np.random.default_rng(0)
    logits = np.log(np.array([0.1, 0.5, 0.4]))
    drawn = Counter(choose(logits, Choice(1.0), rng) for _ in range(4000))
    assert abs(drawn[1] / 4000 - 0.5) < 0.04 and abs(drawn[0] / 4000 - 0.1) < 0.03
    assert {choose(logits, Choice(5.0, top_k=2), rng) for _ in range(200)} == {1, 2}
    assert {choose(logits, Choice(0.0), rng) for _ in range(5)} == {1}
    colder = Counter(choose(logits, Choice(0.2), rng) for _ in range(4000))
    assert colder[1] > drawn[1]
    for wrong in ({"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": 0}):
        with pytest.raises(InputError):
            Choice(**wrong)


def test_a_story_is_written_and_its_spikes_certify(runs, tmp_path):
    pieces = []
    story = write_text(runs / "spiking", "The film", 6, 6, seed=3, keep_all=True, show=pieces.append)
    again = write_text(runs / "spiking", "The film", 6, 6, seed=3)
    assert story.written.ids == again.written.ids and "".join(pieces).startswith("The film")
    assert len(story.written.spikes) == 13 and len(again.written.spikes) == 4  # keys and values of two blocks
    story.record(tmp_path / "spikes.safetensors")
    _, verdicts = certify_record(tmp_path / "spikes.safetensors")
    assert sum(v.decisions for v in verdicts.values()) > 1000
    assert sum(v.wrong for v in verdicts.values()) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("evaluate {runs}/nothing", "does not exist"),
        ("generate {runs}/gpt", "holds an ordinary GPT"),
        ("generate {runs}/spiking --length 500", "positions are embedded; ask for fewer"),
        ("generate {runs}/spiking --t-conv 0", "at least one step"),
        ("generate {runs}/spiking --temperature -1", "--temperature"),
        ("distil {runs}/nothing --out {runs}/x", "does not exist"),
        ("distil {runs}/gpt --out {runs}/y --t-conv 0", "--t-conv"),
        ("train {runs}/few.txt --out {runs}/z", "20 are needed to hold some out"),
        ("train {runs}/none.txt --out {runs}/z", "does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(runs, capsys, words, sentence):
    assert main(["gpt", *words.format(runs=runs).split()]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and sentence in said.err, said.err


def test_the_command_prints_a_table_and_a_text(runs, capsys):
    assert main(["gpt", "evaluate", str(runs / "spiking"), "--t-conv", "4", "--split", "dev"]) == 0
    table = capsys.readouterr().out
    assert [line.split("  ")[0] for line in table.splitlines()[3:]] == [
        "unigram",
        "trigram",
        "teacher",
        "rate map",
        "T = 4",
    ]
    assert (
        main(["gpt", "generate", str(runs / "spiking"), "--prompt", "The film", "--length", "3", "--t-conv", "4"]) == 0
    )
    assert capsys.readouterr().out.startswith("The film")


def test_configurations_are_read_as_written_or_refused():
    config = SpikingGptConfig(SMALL_GPT, Neuron(polarity="ternary"), {"block.0.key": {"vth": 2.0}})
    assert SpikingGptConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert GptConfig.from_dict(SMALL_GPT.to_dict() | {"n_ctx": 8, "transformers_version": "9"}) == SMALL_GPT
    for changed, message in (
        ({"polarty": "ternary"}, "the key 'polarty' is not known"),
        ({"populations": {"embeddings": {"vth": 2.0}}}, "no such population of neurons"),
        ({"model_type": "gpt2"}, "'spiking_gpt' was expected"),
        ({"n_head": 5}, "not divisible by n_head 5"),
        ({"vocab_size": -1}, "vocab_size is -1"),
    ):
        with pytest.raises(InputError, match=message):
            SpikingGptConfig.from_dict(config.to_dict() | changed)
    for changed, message in (
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"model_type": "llama"}, "a GPT-2 was expected"),
    ):
        with pytest.raises(InputError, match=message):
            GptConfig.from_dict(SMALL_GPT.to_dict() | changed)
