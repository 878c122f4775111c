"""Corpora and sentence pairs: every source, and what packing promises about any text."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import BAD, GOOD, write_teacher

from refsnn.data import packing
from refsnn.data.packing import pack, pack_document, split_sentences
from refsnn.data.tokenizer import load_tokenizer
from refsnn.data.unlabelled import read_corpus
from refsnn.errors import InputError

CLS, SEP = 2, 3
WORDS = ["the", "film", "plot", "cast", "is", *GOOD, *BAD]  # ids 5 … 17 of write_teacher's vocabulary


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_teacher(tmp_path_factory.mktemp("bert")), 18, 6)  # cuts tasks' text at 6


def sequences(examples) -> list[tuple[list[int], list[int]]]:
    return [
        (examples.tokens[a:b].tolist(), examples.kinds[a:b].tolist()) for a, b in pairwise(examples.starts.tolist())
    ]


def test_a_small_text_is_packed_as_by_hand(tokenizer, monkeypatch):
    monkeypatch.setattr(packing, "SHORT", 0)
    text = ["the film is good? the plot is bad! fine. great cast", "dull.", "good bad good bad good bad good bad fine"]
    found = pack(text, tokenizer, 11, [0])
    # Sentences of 5, 5, 2, 2 tokens (marks are unknown tokens) and room for 8: the first alone, then two, then one.
    t = {word: 5 + i for i, word in enumerate(WORDS)}
    expected = [
        ([CLS, t["the"], t["film"], t["is"], t["good"], 1, SEP], [0] * 7),
        ([CLS, t["the"], t["plot"], t["is"], t["bad"], 1, SEP, t["fine"], 1, SEP], [0] * 7 + [1] * 3),
        ([CLS, t["great"], t["cast"], SEP], [0] * 4),
        ([CLS, t["dull"], 1, SEP], [0] * 4),
        ([CLS, *[t["good"], t["bad"]] * 4, SEP], [0] * 10),  # a sentence of 9 tokens, cut
        ([CLS, t["fine"], SEP], [0] * 3),
    ]
    assert sequences(found.examples) == expected
    assert (found.documents, found.sentences, found.cut) == (3, 6, 1)
    assert (found.examples.labels == -1).all() and len(found.examples) == 6


SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)
DOCUMENTS = st.lists(st.lists(SENTENCES, min_size=1, max_size=9).map(". ".join), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(DOCUMENTS, st.integers(4, 24), st.integers(0, 9))
def test_nothing_is_lost_repeated_or_taken_across_documents(tokenizer, documents, max_length, seed):
    found = pack(documents, tokenizer, max_length, [seed])
    plain = type(tokenizer).from_str(tokenizer.to_str())
    plain.no_truncation()
    whole = [[plain.encode(s, add_special_tokens=False).ids for s in split_sentences(d)] for d in documents]
    assert found.documents == len(documents)
    assert found.sentences == sum(map(len, whole))
    assert found.cut == sum(len(ids) > max_length - 3 for document in whole for ids in document)

    ends = set(np.cumsum([len(ids) for document in whole for ids in document]).tolist())
    document_ends = set(np.cumsum([sum(map(len, document)) for document in whole]).tolist())
    stream: list[int] = []
    for tokens, kinds in sequences(found.examples):
        assert len(tokens) <= max_length and len(kinds) == len(tokens)
        assert tokens[0] == CLS and tokens[-1] == SEP
        first = tokens.index(SEP)
        a, b = tokens[1:first], tokens[first + 1 : -1]
        assert a and kinds == [0] * (first + 1) + [1] * (len(tokens) - first - 1)
        assert not {CLS, SEP} & {*a, *b} and (bool(b) == (tokens.count(SEP) == 2))
        begin = len(stream)
        stream += a
        if b and not found.cut:
            assert len(stream) in ends, "segment A ends within a sentence"
        stream += b
        assert not document_ends & set(range(begin + 1, len(stream))), "a sequence crosses documents"
        if not found.cut:
            assert len(stream) in ends, "a sequence ends within a sentence"
    assert stream == [token for document in whole for ids in document for token in ids]

    again = pack(iter(documents), tokenizer, max_length, [seed]).examples
    assert sequences(again) == sequences(found.examples)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(9, 30), st.integers(0, 99))
def test_sequences_are_full_but_for_one_in_ten(lengths, room, seed):
    parts = list(pack_document(lengths, room, np.random.default_rng(seed)))
    assert [parts[0][0], *(end for _, _, end in parts)] == [0, *(start for start, _, _ in parts[1:]), len(lengths)]
    for start, middle, end in parts:
        assert start < middle <= end and (middle < end) == (end - start > 1)
        assert sum(lengths[start:end]) <= room
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "SHORT", 0)
        for _, _, end in list(pack_document(lengths, room, np.random.default_rng(seed)))[:-1]:
            start = next(s for s, _, e in pack_document(lengths, room, np.random.default_rng(seed)) if e == end)
            assert sum(lengths[start : end + 1]) > room, "another sentence would have fitted"


def test_the_share_of_short_sequences_is_as_stated(tokenizer):
    """With sentences of one token a sequence is as long as was aimed at: 0.1 · (1 − 1/room) of them are short."""
    room, many = 50, 4000
    lengths = [1] * (room * many)
    found = np.array([end - start for start, _, end in pack_document(lengths, room, np.random.default_rng(0))][:-1])
    expected = 0.1 * (1 - 1 / room)
    error = np.sqrt(expected * (1 - expected) / len(found))
    assert abs((found < room).mean() - expected) < 4 * error
    assert abs(found[found < room].mean() - 25) < 4 * np.sqrt((49**2 - 1) / 12 / (found < room).sum())


def test_the_seed_decides(tokenizer):
    text = [". ".join(["the film is good", "the plot is bad", "fine"] * 40)]
    first, second = (sequences(pack(text, tokenizer, 24, [seed, 6]).examples) for seed in (0, 1))
    assert first != second


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*"ab.!? \"')", "Mr", "U.S."]), max_size=30).map("".join))
def test_sentences_joined_are_the_document(text):
    document = " ".join(text.split())
    assert " ".join(split_sentences(document)) == document


def test_text_that_cannot_be_packed_is_refused(tokenizer):
    with pytest.raises(InputError, match="at least 4"):
        pack(["good"], tokenizer, 3, [0])
    with pytest.raises(InputError, match="nothing to learn"):
        pack(["\u200b"], tokenizer, 8, [0])


# ---------------------------------------------------------------------------------------------------------------------
# Sources


def test_every_kind_of_file_and_several_at_once(tmp_path):
    import datasets

    (tmp_path / "a.txt").write_text("\ufeffone\nline\n\n \n\nanother   paragraph", encoding="utf-8")
    table = datasets.Dataset.from_dict({"text": ["a\nrow", "", "1984"], "id": [1, 2, 3]})
    table.to_parquet(tmp_path / "b.parquet")
    table.to_json(tmp_path / "c.jsonl")
    table.to_csv(tmp_path / "d.csv")
    files = ["a.txt", "b.parquet", "c.jsonl"]
    found = list(read_corpus([tmp_path / name for name in files]))
    assert found == ["one line", "another paragraph", "a row", "1984", "a row", "1984"]
    assert list(read_corpus([str(tmp_path / "d.csv")])) == ["a row", "1984"]


def test_a_data_set_of_the_hub(monkeypatch):
    import datasets

    asked = []

    def load_dataset(*names, split):
        asked.append((*names, split))
        return datasets.Dataset.from_dict({"text": ["", " = A title = ", "Some text ."]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(read_corpus(["hub:someone/wikitext:wikitext-2-raw-v1"])) == ["= A title =", "Some text ."]
    assert list(read_corpus(["hub:books"])) == ["= A title =", "Some text ."]
    assert asked == [("someone/wikitext", "wikitext-2-raw-v1", "train"), ("books", "train")]

    def offline(*names, split):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(InputError, match=r"hub:books can neither be fetched.*no network.*name a file"):
        list(read_corpus(["hub:books"]))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"caf\xe9", "not UTF-8 text"),
        ("a.txt", b" \n\n", "nothing to learn"),
        ("a.jsonl", json.dumps({"body": "x"}).encode(), r"row 1: there are the columns \['body'\]"),
        ("a.jsonl", json.dumps({"text": 3}).encode(), "row 1: text is 3"),
        ("a.jsonl", b"{", "cannot be read as json"),
        ("a.parquet", b"no table", "cannot be read as parquet"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_one_sentence(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        list(read_corpus([tmp_path / name]))
    assert "\n" not in str(error.value) and name in str(error.value)


def test_a_missing_corpus_is_said_before_anything_is_read(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        read_corpus([tmp_path / "nowhere.txt"])
