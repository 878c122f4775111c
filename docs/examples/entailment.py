"""Pairs of which the first text says the second or does not, made from GLUE's training files: a lesson before RTE.

    python docs/examples/entailment.py glue pairs    # reads RTE, MRPC and STS-B of glue, writes pairs/RTE/train.tsv

A passage is a premise of RTE, or one or two sentences of MRPC or STS-B. Its hypothesis is a clause or a run of words
from it, or from a paraphrase of it, some words left out. Every second hypothesis is then spoilt: words give way to
words of the same kind, two change places, a phrase from elsewhere comes in, or a similar passage takes this one's
place. To these come the pairs as they are: RTE's; MRPC's, both ways round; and STS-B's, of which a score of 4 or more
counts as entailment and one of 3 or less does not. No text of the three dev sets is in a pair that is taken as it is,
nor in what hypotheses are made from.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from refsnn.data.reading import read_task
from refsnn.data.tasks import TASKS
from refsnn.errors import InputError
from refsnn.files import new_folder, write_text

MADE, SEED = 40_000, 0
ENTAILMENT, NONE = TASKS["rte"].labels
STOP = set(
    "a an the of in on at to for by with from into over under than then and or but as if so that which who this it its "
    "is are was were be been has have had will would can could do does did not no he she they his her their we our you "
    "i".split()
)
BEGINNINGS = {"and", "but", "or", "that", "which", "who"}
CLAUSES = re.compile(r"(?<=[,;:])\s+|\s+(?=(?:and|but|which|who|that|while|because|after|when)\s)")
SENTENCES = re.compile(r"(?<=[.!?])\s+(?=[\"A-Z])")


def plain(text):
    return re.sub(r"[^a-z0-9]", "", text.lower())


def core(word):
    """A word without the punctuation around it."""
    return re.sub(r"^\W+|\W+$", "", word)


def kind(word):
    """What a word may give way to: words of one kind; None for words that carry little and stay."""
    bare = core(word)
    if not bare or bare.lower() in STOP:
        return None
    if bare[0].isdigit():
        return "number"
    if bare[0].isupper():
        return "name"
    return next((ending for ending in ("ed", "ing", "ly", "s") if bare.endswith(ending)), "word")


class Passages:
    """Texts, their words by kind, and which of them have a word."""

    def __init__(self, texts, rng):
        self.texts, self.rng = texts, rng
        self.words, self.having = defaultdict(list), defaultdict(list)
        for number, text in enumerate(texts):
            carried = {core(word) for word in text.split() if kind(word)}
            for word in sorted(carried):
                self.words[kind(word)].append(word)
                self.having[word].append(number)

    def one_of(self, sequence):
        return sequence[self.rng.integers(len(sequence))]

    def chance(self, probability):
        return self.rng.random() < probability

    def said(self, text):
        """A clause, or a run of up to 14 words, of a sentence of the text; some words left out."""
        sentence = self.one_of([part for part in SENTENCES.split(text) if len(part.split()) > 3] or [text])
        clauses = CLAUSES.split(sentence)
        if self.chance(0.6):
            first = self.rng.integers(len(clauses))
            clause = " ".join(clauses[first : first + self.rng.integers(1, 3)])
            sentence = clause if len(clause.split()) > 3 else sentence
        words = sentence.split()
        if len(words) > 14:
            length = self.rng.integers(6, 15)
            start = self.rng.integers(len(words) - length + 1)
            words = words[start : start + length]
        left_out = self.one_of([0, 0.08, 0.2])
        words = [word for word in words if not self.chance(left_out * (0.5 if kind(word) in ("name", "number") else 1))]
        while words and core(words[0]).lower() in BEGINNINGS:
            words = words[1:]
        return words

    def spoilt(self, words, passage):
        """The same words, so that the passage does not say them any more; None where that does not work out."""
        inside = {core(word).lower() for word in passage.split()}
        carrying = [place for place, word in enumerate(words) if kind(word)]
        if not carrying:
            return None
        words, how = list(words), self.rng.random()
        if how < 0.6:  # one to three words by others of their kind, from the passage or from anywhere
            chosen = self.rng.permutation(carrying)[: 1 + self.rng.binomial(2, 0.3)]
            named = [place for place in carrying if kind(words[place]) in ("name", "number")]
            if named and self.chance(0.5):
                chosen[0] = self.one_of(named)
            for place in np.unique(chosen):
                old = core(words[place])
                near = [core(word) for word in passage.split() if kind(word) == kind(old)]
                others = near if self.chance(0.35) else self.words[kind(old)]
                new = self.one_of(others or self.words[kind(old)])
                if new.lower() == old.lower() or (others is not near and new.lower() in inside):
                    return None
                words[place] = words[place].replace(old, new, 1)
        elif how < 0.7:  # two of a kind change places
            kinds = [kind(words[place]) for place in carrying]
            twins = [(a, b) for i, a in enumerate(carrying) for j, b in enumerate(carrying[:i]) if kinds[i] == kinds[j]]
            if not twins:
                return None
            a, b = self.one_of(twins)
            if core(words[a]).lower() == core(words[b]).lower():
                return None
            words[a], words[b] = words[b], words[a]
        elif how < 0.87:  # a phrase from elsewhere
            other = self.one_of(self.texts).split()
            start, place = self.rng.integers(len(other)), self.one_of([0, len(words), self.rng.integers(len(words))])
            phrase = other[start : start + self.rng.integers(2, 6)]
            if all(kind(word) is None or core(word).lower() in inside for word in phrase):
                return None
            words[place:place] = phrase
        else:  # a passage that shares a word
            shared = [core(word) for word in passage.split() if kind(word) and 1 < len(self.having[core(word)]) < 200]
            if not shared:
                return None
            words = self.said(self.texts[self.one_of(self.having[self.one_of(shared)])])
            new = [core(word).lower() not in inside for word in words if kind(word)]
            if sum(new) < 0.2 * len(new) + 1:
                return None
        return words

    def pair(self, passage, paraphrase):
        """A passage, a hypothesis from its paraphrase (or from itself), and whether the one says the other; or None."""
        words, true = self.said(paraphrase), self.chance(0.5)
        if len(words) > 3 and not true:
            words = self.spoilt(words, passage)
        if not words or len(words) < 4:
            return None
        hypothesis = " ".join(words).strip(' ,;:-"').rstrip(".")
        return passage, hypothesis[:1].upper() + hypothesis[1:] + ".", ENTAILMENT if true else NONE


def pairs(glue, made=MADE, seed=SEED):
    """All pairs, in a random order."""
    dev = {
        plain(row[column])
        for task in ("rte", "mrpc", "stsb")
        for row in read_task(glue, TASKS[task], "dev")
        for column in ("sentence1", "sentence2")
    }
    rte, mrpc, stsb = (
        [(a, b, row["label"]) for row in read_task(glue, TASKS[task], "train")
         for a, b in [(row["sentence1"], row["sentence2"])] if not {plain(a), plain(b)} & dev]
        for task in ("rte", "mrpc", "stsb")
    )  # fmt: skip
    found = [(a, b, TASKS["rte"].labels[label]) for a, b, label in rte]
    found += [pair for a, b, label in mrpc for y in [ENTAILMENT if label else NONE] for pair in ((a, b, y), (b, a, y))]
    found += [(a, b, ENTAILMENT if score >= 4 else NONE) for a, b, score in stsb if score >= 4 or score <= 3]

    rng = np.random.default_rng(seed)
    premises = [a for a, _, _ in rte]
    sentences = [text for a, b, _ in mrpc + stsb for text in (a, b) if len(text.split()) > 7]
    alike = [(a, b) for a, b, label in mrpc if label] + [(a, b) for a, b, score in stsb if score > 4.3 and len(b) > 40]
    passages = Passages(premises + sentences, rng)
    for _ in range(made):
        pair = None
        while pair is None:
            which = rng.random()
            if which < 0.4:
                passage = paraphrase = passages.one_of(premises)
            else:
                passage, paraphrase = passages.one_of(alike) if which < 0.7 else [passages.one_of(sentences)] * 2
                other = [passage, passages.one_of(sentences)][:: passages.one_of([1, -1])]
                passage = " ".join(other) if passages.chance(0.4) else passage
            pair = passages.pair(passage, paraphrase)
        found.append(pair)
    return [found[place] for place in rng.permutation(len(found))]


def main(glue, out):
    path = Path(out) / TASKS["rte"].folder / "train.tsv"
    if path.exists():
        raise InputError(f"{path} is there already; name another folder")
    lines = ["\t".join([str(index), *pair]) for index, pair in enumerate(pairs(glue))]
    new_folder(path.parent)
    write_text(path, "\n".join(["index\tsentence1\tsentence2\tlabel", *lines, ""]))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/examples/entailment.py GLUE OUT")
    try:
        main(*sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
