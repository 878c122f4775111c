"""Tokenised examples, and batches of them for training and for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..model.batch import Batch
from ..ops import Array
from ..progress import progress

__all__ = [
    "Examples",
    "encode_texts",
    "epoch_batches",
    "evenly",
    "length_batches",
    "tokenise",
]


@dataclass(frozen=True)
class Examples:
    """Tokenised examples of differing lengths, end to end.

    Attributes
    ----------
    tokens, kinds : (total,) integer arrays
        Token ids and token types of all examples.
    starts : (n + 1,) integer array
        Example i is ``tokens[starts[i]:starts[i+1]]``.
    labels : (n,) array
        Class indices, integers, −1 where there is none; or scores, floats.
    """

    tokens: Array
    kinds: Array
    starts: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Array:
        """Number of tokens of each example."""
        return np.diff(self.starts)

    def batch(self, rows: Array, pad_token_id: int = 0) -> Batch:
        """Pad some examples to the longest of them.

        Parameters
        ----------
        rows : (B,) integer array
        pad_token_id : int

        Returns
        -------
        batch : Batch
        """
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max())
        mask = columns < lengths[:, None]  # (B, N)
        places = np.where(mask, self.starts[rows][:, None] + columns, 0)
        return Batch(
            np.where(mask, self.tokens[places], pad_token_id), np.where(mask, self.kinds[places], 0), mask.astype(int)
        )


def evenly(dataset: Any, samples: int | None) -> Any:
    """Take some examples of a dataset, evenly spaced.

    Parameters
    ----------
    dataset : datasets.Dataset
    samples : int or None
        All, where None.

    Returns
    -------
    dataset : datasets.Dataset
    """
    if samples is not None and samples < 1:
        raise InputError(f"`samples` is {samples}, but at least one example is needed")
    if samples is None or samples >= len(dataset):
        return dataset
    return dataset.select([i * len(dataset) // samples for i in range(samples)])


#: Examples that are tokenised at once.
CHUNK = 1000


def tokenise(dataset: Any, columns: Sequence[str], tokenizer: Any) -> Examples:
    """Turn the text columns of a dataset into token ids.

    Parameters
    ----------
    dataset : datasets.Dataset
    columns : sequence of str
        One or two text columns.
    tokenizer : tokenizers.Tokenizer

    Returns
    -------
    examples : Examples
        Labels are −1 where the dataset has none.
    """
    labels = np.array(dataset["label"]) if "label" in dataset.column_names else np.full(len(dataset), -1)
    texts = [list(dataset[name]) for name in columns]
    rows = texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))
    parts = []
    with progress("tokenise", "example", len(rows), leave=False) as bar:
        for start in range(0, len(rows), CHUNK):
            parts.append(_arrays(tokenizer.encode_batch(rows[start : start + CHUNK])))
            bar.update(len(parts[-1][2]))
    return _examples(parts, labels)


def _arrays(encodings: Sequence[Any]) -> tuple[Array, Array, Array]:
    """Token ids, token types and lengths: what is wanted of encodings, which are many times larger."""
    ids, kinds = (np.concatenate([getattr(e, what) for e in encodings]) for what in ("ids", "type_ids"))
    return ids, kinds, np.array([len(e.ids) for e in encodings])


def _examples(parts: Sequence[tuple[Array, Array, Array]], labels: Array) -> Examples:
    ids, kinds, lengths = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Examples(ids, kinds, np.concatenate([[0], np.cumsum(lengths)]), labels)


def encode_texts(texts: Sequence[str | tuple[str, str]], tokenizer: Any) -> Examples:
    """Turn texts, or pairs of texts, into token ids.

    Parameters
    ----------
    texts : sequence of str, or of pairs of str
    tokenizer : tokenizers.Tokenizer

    Returns
    -------
    examples : Examples
        Without labels: −1.

    Raises
    ------
    InputError
        There are no texts, or one is neither a text nor a pair of texts.
    """
    if isinstance(texts, str):
        raise InputError(f"`texts` is the one text {texts[:60]!r}, but a list of texts was expected")
    pairs = [list(text) if isinstance(text, tuple | list) else [text] for text in texts]
    for pair in pairs:
        if len(pair) not in (1, 2) or not all(isinstance(text, str) for text in pair):
            raise InputError(f"a text is {pair!r}, but a text or a pair of texts was expected")
    if not pairs:
        raise InputError("`texts` is empty, so there is nothing to read")
    encodings = [tokenizer.encode(*pair) for pair in pairs]
    return _examples([_arrays(encodings)], np.full(len(pairs), -1))


def length_batches(lengths: Array, size: int, tokens: int | None = None) -> list[Array]:
    """Cut examples into batches of like lengths, for evaluation: little padding, no randomness.

    Parameters
    ----------
    lengths : (n,) array
    size : int
        Examples in a batch at most.
    tokens : int, optional
        Positions in a batch at most, padding included; an example that is longer is a batch by itself.

    Returns
    -------
    batches : list of integer arrays

    Examples
    --------
    >>> length_batches(np.array([9, 2, 3, 3]), 3), length_batches(np.array([9, 2, 3, 3]), 3, tokens=6)
    ([array([1, 2, 3]), array([0])], [array([1, 2]), array([3]), array([0])])
    """
    order = np.argsort(lengths, kind="stable")
    starts = [0]
    for i, row in enumerate(order):
        held = i - starts[-1]
        if held == size or (held and tokens is not None and (held + 1) * lengths[row] > tokens):
            starts.append(i)
    return np.split(order, starts[1:]) if len(order) else []


def epoch_batches(lengths: Array, size: int, seed: Sequence[int]) -> Iterator[Array]:
    """Shuffle examples into the batches of one epoch; each batch holds examples of like lengths.

    The order is a function of the seed alone, so that an interrupted epoch can be taken up again.

    Parameters
    ----------
    lengths : (n,) array
    size : int
        The last batch may be smaller.
    seed : sequence of int
        Seed, stage and epoch.

    Yields
    ------
    rows : integer array

    Examples
    --------
    >>> sorted(np.concatenate(list(epoch_batches(np.arange(10), 4, [0, 1]))).tolist()) == list(range(10))
    True
    """
    rng = np.random.default_rng(list(seed))
    order = rng.permutation(len(lengths))
    pool = size * 50  # sorted within pools, so that batches stay random but little is padded
    for i in range(0, len(order), pool):
        part = order[i : i + pool]
        order[i : i + pool] = part[np.argsort(lengths[part], kind="stable")]
    starts = rng.permutation(range(0, len(order), size))
    for start in starts:
        yield order[start : start + size]
