"""Sentence pairs of running text, packed as for BERT's pre-training: ``[CLS] A [SEP] B [SEP]``.

A document is cut into sentences, and whole sentences that follow each other are put together until they fill a
sequence. Somewhere between two of them A ends and B begins, whose token type is 1. Nothing crosses from one document to
the next, nothing is left out and nothing is repeated: the sequences of a document, one after the other, are its text.

BERT's data and the authors' program differ in two ways. They have tasks (masked words, next sentence) that distillation
of hidden states does not need, so here B is never from another document. And they cut what does not fit; here a
sequence ends before the sentence that would not fit, and only a sentence longer than a sequence is cut, in pieces.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..progress import progress
from .examples import Examples

__all__ = ["Packing", "pack", "pack_document", "split_sentences"]

#: Share of the sequences that aim at a length drawn at random instead of the whole, as inputs of tasks have.
SHORT = 0.1

#: Sentences that the tokenizer gets at once.
BLOCK = 10_000

#: What may end a sentence: marks, closing quotes and brackets, a space.
END = re.compile(r"""[.!?]+["'”’)\]]* """)

#: Words whose full stop ends no sentence. So do single letters and abbreviations like U.S. and e.g.
ABBREVIATIONS = frozenset("mr mrs ms dr st messrs gen col capt lt rev hon gov sen rep prof jr sr no vs viz cf".split())
INITIALS = re.compile(r"([^\W\d_]\.)*[^\W\d_]")


class Packing(NamedTuple):
    """A packed corpus.

    Attributes
    ----------
    examples : Examples
        Without labels.
    documents, sentences : int
        How many there were.
    cut : int
        How many of the sentences were longer than a sequence, and cut in pieces.
    """

    examples: Examples
    documents: int
    sentences: int
    cut: int


def split_sentences(document: str) -> list[str]:
    """Split a document into sentences: after a full stop, exclamation or question mark that a space follows.

    The full stop of initials and of some abbreviations ends none. The rule is plain on purpose: a wrong split only
    moves the place where a sequence, or its first segment, ends.

    Parameters
    ----------
    document : str
        On one line.

    Returns
    -------
    sentences : list of str
        Joined by spaces they are the document.

    Examples
    --------
    >>> split_sentences('Mr. Smith went to the U.S. embassy. "Why?" he asked. It cost 3.5 dollars')
    ['Mr. Smith went to the U.S. embassy.', '"Why?"', 'he asked.', 'It cost 3.5 dollars']
    """
    found, start = [], 0
    for end in END.finditer(document):
        word = document[start : end.start()].rpartition(" ")[2].lstrip("\"'“‘([")
        if end[0] == ". " and (word.lower() in ABBREVIATIONS or INITIALS.fullmatch(word)):
            continue
        found.append(document[start : end.end() - 1])
        start = end.end()
    return [*found, document[start:]] if start < len(document) else found


def pack_document(lengths: Sequence[int], room: int, rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """Pack the sentences of one document: each sequence takes as many as fit, or fewer where it should be short.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each sentence, from 1 to `room`.
    room : int
        Tokens of a sequence, special ones aside.
    rng : numpy.random.Generator

    Yields
    ------
    start, middle, end : int
        Segment A is the sentences from start to middle, B those from middle to end; where a sequence has one sentence,
        B is empty.

    Examples
    --------
    >>> list(pack_document([4, 3, 5, 9], 10, np.random.default_rng(0)))
    [(0, 1, 2), (2, 3, 3), (3, 4, 4)]
    """
    start = 0
    while start < len(lengths):
        target = int(rng.integers(1, room + 1)) if rng.random() < SHORT else room
        end, total = start, 0
        while end < len(lengths) and total < target and total + lengths[end] <= room:
            total += lengths[end]
            end += 1
        yield start, end if end == start + 1 else int(rng.integers(start + 1, end)), end
        start = end


def pack(documents: Iterable[str], tokenizer: Any, max_length: int, seed: Sequence[int]) -> Packing:
    """Tokenise documents and pack them into sentence pairs.

    Documents are read once, and kept as token ids only, five bytes a token.

    Parameters
    ----------
    documents : iterable of str
        As from `refsnn.data.unlabelled.read_corpus`.
    tokenizer : tokenizers.Tokenizer
        As from `refsnn.data.tokenizer.load_tokenizer`; its limit of length does not matter.
    max_length : int
        Limit of a sequence in tokens, [CLS] and both [SEP] included.
    seed : sequence of int
        Decides which sequences are short, and where A ends.

    Returns
    -------
    packing : Packing

    Raises
    ------
    InputError
        `max_length` leaves no room for text.
    """
    room = max_length - 3
    if room < 1:
        raise InputError(f"max_length is {max_length}, but [CLS] A [SEP] B [SEP] of a corpus takes at least 4 tokens")
    rng = np.random.default_rng(list(seed))
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokens, kinds, starts = array("i"), array("b"), array("q", [0])
    count = sentences = cut = 0
    for document in _tokenised(documents, tokenizer):
        count, sentences = count + 1, sentences + len(document)
        cut += sum(len(ids) > room for ids in document)
        pieces = [ids[i : i + room] for ids in document for i in range(0, len(ids), room)]
        for start, middle, end in pack_document([len(ids) for ids in pieces], room, rng):
            first = [cls, *(token for ids in pieces[start:middle] for token in ids), sep]
            second = [*(token for ids in pieces[middle:end] for token in ids), sep] if middle < end else []
            tokens.extend(first + second)
            kinds.extend([0] * len(first) + [1] * len(second))
            starts.append(len(tokens))
    if not tokens:
        raise InputError(
            "the corpus has no word that the tokenizer knows a token for, so there is nothing to learn from"
        )
    flat = np.frombuffer(tokens, np.intc), np.frombuffer(kinds, np.int8), np.frombuffer(starts, np.int64)
    examples = Examples(*flat, np.full(len(starts) - 1, -1))
    print(
        f"corpus: {count} documents with {sentences} sentences, {cut} of them longer than {room} tokens and cut in "
        f"pieces, packed into {len(examples)} sequences of {len(tokens) / len(examples):.0f} tokens on average",
        file=sys.stderr,
    )
    return Packing(examples, count, sentences, cut)


def _tokenised(documents: Iterable[str], tokenizer: Any) -> Iterator[list[list[int]]]:
    """Yield the token ids of each document's sentences, those without a token left out."""
    plain = type(tokenizer).from_str(tokenizer.to_str())  # a copy, that does not cut
    plain.no_truncation()

    def encoded(block: list[list[str]]) -> Iterator[list[list[int]]]:
        flat = [sentence for document in block for sentence in document]
        encodings = iter(plain.encode_batch(flat, add_special_tokens=False))
        for document in block:
            yield [ids for _ in document if (ids := next(encodings).ids)]

    block: list[list[str]] = []
    waiting = 0
    for document in progress("corpus", "document", items=documents):
        block.append(split_sentences(document))
        waiting += len(block[-1])
        if waiting >= BLOCK:
            yield from encoded(block)
            block, waiting = [], 0
    yield from encoded(block)
