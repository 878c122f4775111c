"""Running text for a language model: documents, a byte-level vocabulary, sequences of token ids.

Documents are divided into three splits by turns, and what a model is judged by is whole documents that it has not seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ..errors import InputError, whole
from ..files import existing, require
from ..ops import Array
from .examples import Examples
from .unlabelled import read_corpus

__all__ = [
    "END",
    "Text",
    "documents",
    "encoded",
    "load_byte_tokenizer",
    "sequences",
    "split",
    "train_byte_tokenizer",
    "windows",
]

#: The token that ends a document, as GPT-2 spells it.
END = "<|endoftext|>"

#: How a speech begins: with a title in capitals, or by addressing its audience.
OPENING = re.compile(r"[^a-z]*\b(ADDRESS|MESSAGE)\b[^a-z]*$|([Mm]y )?[Ff]ellow[- ]?([Cc]itizens|[Cc]ountrymen)\b")

#: A document that is shorter, in characters, goes on with the next one.
SHORTEST = 2000

#: Of so many documents one is held out, for `dev` and for `test` by turns.
HELD_OUT = 10

Split = Literal["train", "dev", "test"]


def documents(sources: Sequence[str | os.PathLike]) -> list[str]:
    """Read texts and divide them into documents: speeches, where titles or addresses tell them apart.

    Parameters
    ----------
    sources : sequence of path or str
        As for `refsnn.data.unlabelled.read_corpus`: paragraphs between blank lines, rows of tables, data sets of the
        hub. A new source begins a new document, and so does a paragraph that is a speech's title in capitals or its
        address to its audience.

    Returns
    -------
    documents : list of str
        Paragraphs are joined by a line break.

    Raises
    ------
    InputError
        There is no text.
    """
    found: list[list[str]] = []
    for source in sources:
        found.append([])
        for paragraph in read_corpus([source]):
            if found[-1] and OPENING.match(paragraph) and sum(map(len, found[-1])) >= SHORTEST:
                found.append([])
            found[-1].append(paragraph)
    return ["\n".join(paragraphs) for paragraphs in found]


def split(texts: Sequence[str], which: Split) -> list[str]:
    """Take the documents of one split: of ten, the last is held out, for `dev` and for `test` by turns.

    Parameters
    ----------
    texts : sequence of str
    which : {"train", "dev", "test"}

    Returns
    -------
    texts : list of str

    Raises
    ------
    InputError
        There are too few documents to hold one out for each.

    Examples
    --------
    >>> numbers = [str(i) for i in range(20)]
    >>> split(numbers, "dev"), split(numbers, "test"), len(split(numbers, "train"))
    (['9'], ['19'], 18)
    """
    if len(texts) < 2 * HELD_OUT:
        raise InputError(
            f"there are {len(texts)} documents, but {2 * HELD_OUT} are needed to hold some out; give more text, or "
            "more files: each begins a document"
        )

    def place(i: int) -> Split:
        if i % HELD_OUT != HELD_OUT - 1:
            return "train"
        return "dev" if i // HELD_OUT % 2 == 0 else "test"

    return [text for i, text in enumerate(texts) if place(i) == which]


def train_byte_tokenizer(texts: Iterable[str], size: int) -> Any:
    """Learn a byte-level BPE vocabulary, as GPT-2's: every text has tokens, and they give it back byte for byte.

    Parameters
    ----------
    texts : iterable of str
    size : int
        Tokens, the 256 bytes and `END` among them.

    Returns
    -------
    tokenizer : tokenizers.Tokenizer

    Examples
    --------
    >>> tokenizer = train_byte_tokenizer(["the spike, the spikes"], 262)
    >>> tokenizer.decode(tokenizer.encode("the brain").ids)
    'the brain'
    """
    require("tokenizers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    whole("vocab_size", size, 257, 10**6)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, min_frequency=1, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_byte_tokenizer(folder: str | os.PathLike, vocab_size: int) -> Any:
    """Load a byte-level BPE tokenizer: `tokenizer.json`, or GPT-2's `vocab.json` and `merges.txt`.

    Parameters
    ----------
    folder : path
    vocab_size : int
        Rows of the token embedding; every token id must have one.

    Returns
    -------
    tokenizer : tokenizers.Tokenizer

    Raises
    ------
    InputError
        There is none, it cannot be read, or it is another model's.
    """
    tokenizers = require("tokenizers")
    from tokenizers import decoders, models, pre_tokenizers

    folder = existing(folder, "the tokenizer's folder")
    path = folder / "tokenizer.json"
    try:
        if path.exists():
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        elif (path := folder / "vocab.json").exists() and (folder / "merges.txt").exists():
            tokenizer = tokenizers.Tokenizer(models.BPE.from_file(str(path), str(folder / "merges.txt")))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            tokenizer.add_special_tokens([END])
        else:
            raise InputError(
                f"{folder} has neither tokenizer.json nor vocab.json and merges.txt; copy the checkpoint's there"
            )
    except InputError:
        raise
    except Exception as error:  # tokenizers raises plain Exceptions
        raise InputError(f"{path} is no tokenizer ({str(error).splitlines()[0]})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if tokenizer.token_to_id(END) is None:
        raise InputError(f"{path} lacks {END}, which ends a document; it is not a GPT-2 vocabulary")
    if tokenizer.decode(tokenizer.encode(PROBE, add_special_tokens=False).ids) != PROBE:
        raise InputError(f"{path} is not byte-level: it does not give {PROBE!r} back; it is not a GPT-2 vocabulary")
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= vocab_size:
        raise InputError(
            f"{path} has token ids up to {largest}, but the checkpoint embeds only {vocab_size}: it is another model's"
        )
    return tokenizer


#: A text that a byte-level tokenizer gives back as it is, and others do not.
PROBE = "A  naïve\n\t«Σ» café 🙂."


class Text(NamedTuple):
    """Documents as one stream of token ids, each ended by `END`.

    Attributes
    ----------
    ids : (n,) array of int
    characters : int
        Of the documents; each end counts as one.
    """

    ids: Array
    characters: int


def encoded(texts: Sequence[str], tokenizer: Any) -> Text:
    """Turn documents into one stream of token ids.

    Parameters
    ----------
    texts : sequence of str
    tokenizer : tokenizers.Tokenizer

    Returns
    -------
    text : Text
    """
    end = tokenizer.token_to_id(END)
    rows = [np.array([*e.ids, end]) for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    if not rows:
        raise InputError("there are no documents, so there is no text")
    return Text(np.concatenate(rows), sum(len(text) + 1 for text in texts))


def sequences(ids: Array, length: int) -> Examples:
    """Cut a stream into sequences for training, in which every token but the first is predicted once.

    Parameters
    ----------
    ids : (n,) array of int
    length : int
        Tokens of a sequence; it begins with the last token of the one before. What does not fill one is left out.

    Returns
    -------
    examples : Examples
    """
    return _cut(ids, length, length - 1, whole_only=True)


def windows(ids: Array, length: int) -> Examples:
    """Cut a stream into overlapping sequences to be judged by: each token counts once, after half a sequence or more.

    Parameters
    ----------
    ids : (n,) array of int
    length : int
        Tokens of a sequence.

    Returns
    -------
    examples : Examples
        ``kinds`` is 1 on tokens that are scored and 0 on those that are there for their context alone; of the stream,
        only the first token is never scored.

    Examples
    --------
    >>> found = windows(np.arange(7), 4)
    >>> [found.batch(np.array([i])).input_ids[0].tolist() for i in range(len(found))]
    [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6]]
    >>> found.tokens[found.kinds == 1]
    array([1, 2, 3, 4, 5, 6])
    """
    return _cut(ids, length, max(length // 2, 1), whole_only=False)


def _cut(ids: Array, length: int, step: int, whole_only: bool) -> Examples:
    whole("length", length, 2)
    if len(ids) < (length if whole_only else 2):
        raise InputError(f"the text has {len(ids)} tokens, but a sequence has {length}; give more text")
    starts = [0]
    while starts[-1] + length < len(ids) and (not whole_only or starts[-1] + step + length <= len(ids)):
        starts.append(starts[-1] + step)
    parts = [ids[start : start + length] for start in starts]
    kinds = [np.arange(len(part)) >= (1 if i == 0 else length - step) for i, part in enumerate(parts)]
    bounds = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return Examples(np.concatenate(parts), np.concatenate(kinds).astype(int), bounds, np.full(len(parts), -1))


def tokenizer_files(folder: Path) -> list[str]:
    """Name the tokenizer's files that a folder has."""
    return [name for name in ("tokenizer.json", "vocab.json", "merges.txt") if (folder / name).exists()]
