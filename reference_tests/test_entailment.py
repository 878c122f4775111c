"""docs/examples/entailment.py: what a pair of it says is so, and no text of a dev set is in it."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refsnn.data.reading import read_task
from refsnn.data.tasks import TASKS

PATH = Path(__file__).resolve().parents[1] / "docs" / "examples" / "entailment.py"
PROGRAM = runpy.run_path(str(PATH))
core, plain, ENTAILMENT = PROGRAM["core"], PROGRAM["plain"], PROGRAM["ENTAILMENT"]

TEXTS = [
    "Mary Smith sold 25 houses in Boston last year, because prices were rising quickly. Two banks closed in Maine.",
    "The company of John Brown, which builds small ships in Norway, lost 300 workers after the storms.",
    "Three houses in Norway were painted red, and the workers of Boston bought them for $4,000 each.",
]


def words(text):
    return [core(word).lower() for word in text.split() if core(word)]


def is_in_order(some, many):
    """Whether all of some are among many, in this order."""
    rest = iter(many)
    return all(word in rest for word in some)


@pytest.fixture
def passages():
    return PROGRAM["Passages"](TEXTS, np.random.default_rng(3))


def test_what_is_said_is_in_the_text_in_its_order(passages):
    for _ in range(300):
        text = passages.one_of(TEXTS)
        assert is_in_order(words(" ".join(passages.said(text))), words(text))


def test_what_is_spoilt_is_not(passages):
    found = set()
    for _ in range(3000):
        text = passages.one_of(TEXTS)
        said = passages.said(text)
        spoilt = passages.spoilt(said, text)
        if spoilt is None or len(said) < 4:
            continue
        before, after, there = words(" ".join(said)), words(" ".join(spoilt)), words(text)
        assert before != after
        new = sum(word not in there for word in after)
        found.add(("longer" if len(after) > len(before) else "shorter", bool(new)))
        # A word of the text in another's place may happen to stand where the text has it, too; hardly ever.
        found.add(is_in_order(after, there))
    assert {("longer", True), ("shorter", True), ("shorter", False), False} <= found


def test_spoilt_words_are_of_the_same_kind(passages):
    kind = PROGRAM["kind"]
    assert [kind(word) for word in ("Boston,", "$4,000", "the", "--", "rising", "quickly", "houses.", "year")] == [
        "name", "number", None, None, "ing", "ly", "s", "word",
    ]  # fmt: skip
    said = "Mary Smith sold 25 houses".split()
    for _ in range(500):
        spoilt = passages.spoilt(said, TEXTS[0])
        if spoilt and len(spoilt) == len(said) and spoilt[:1] != said[:1] and spoilt[1:] == said[1:]:
            assert kind(spoilt[0]) == "name"
            break
    else:
        pytest.fail("no first word was replaced alone")


@pytest.fixture(scope="module")
def made(data):
    return PROGRAM["pairs"](data / "glue", made=2000)


def test_no_text_of_a_dev_set_is_in_a_pair(made, data, monkeypatch):
    dev = {
        plain(row[column])
        for task in ("rte", "mrpc", "stsb")
        for row in read_task(data / "glue", TASKS[task], "dev")
        for column in ("sentence1", "sentence2")
    }
    assert not dev & {plain(text) for pair in made for text in pair[:2]}

    class Watched(PROGRAM["Passages"]):
        def pair(self, passage, paraphrase):
            used.update(plain(text) for text in (passage, paraphrase))
            return super().pair(passage, paraphrase)

    used = set()
    monkeypatch.setitem(PROGRAM["pairs"].__globals__, "Passages", Watched)
    assert PROGRAM["pairs"](data / "glue", made=2000) == made
    assert len(used) > 1500 and not dev & used


def test_half_of_the_made_pairs_are_entailment(made, data):
    again = PROGRAM["pairs"](data / "glue", made=2000)
    assert again == made != PROGRAM["pairs"](data / "glue", made=2000, seed=1)
    natural = PROGRAM["pairs"](data / "glue", made=0)
    share = sum(label == ENTAILMENT for _, _, label in made) - sum(label == ENTAILMENT for _, _, label in natural)
    assert len(made) == len(natural) + 2000 and 900 < share < 1100


def test_the_program_writes_what_distill_reads(data, tmp_path):
    def run(*arguments):
        return subprocess.run([sys.executable, PATH, *arguments], capture_output=True, text=True)

    assert run(data / "glue").returncode == 1
    missing = run(tmp_path / "none", tmp_path / "pairs")
    assert missing.returncode == 1 and missing.stderr.startswith("error: ") and not (tmp_path / "pairs").exists()
    assert run(data / "glue", tmp_path / "pairs").returncode == 0
    rows = read_task(tmp_path / "pairs", TASKS["rte"], "train")
    natural = {(a, b) for a, b, _ in PROGRAM["pairs"](data / "glue", made=0)}
    assert len(rows) > 40_000 and not natural - set(zip(rows["sentence1"], rows["sentence2"], strict=True))
    again = run(data / "glue", tmp_path / "pairs")
    assert again.returncode == 1 and "is there already" in again.stderr
