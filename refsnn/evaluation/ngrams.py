"""How surprising a text is to counts of its training text: what a language model must be better than."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..ops import Array

__all__ = ["DISCOUNT", "trigram_surprisals", "unigram_surprisals"]

#: What is taken off every count, for what was never seen.
DISCOUNT = 0.75


def unigram_surprisals(train: Array, text: Array, vocab_size: int) -> Array:
    """Surprisal of every token by its frequency alone, each counted once more than it occurs.

    Parameters
    ----------
    train, text : (m,), (n,) arrays of int
    vocab_size : int

    Returns
    -------
    nats : (n,) array

    Examples
    --------
    >>> np.exp(-unigram_surprisals(np.array([0, 0, 1]), np.array([0, 1, 2]), 3)).round(3)
    array([0.5  , 0.333, 0.167])
    """
    counts = np.bincount(train, minlength=vocab_size) + 1.0
    nats: Array = np.log(counts.sum()) - np.log(counts[text])
    return nats


def trigram_surprisals(train: Array, text: Array, vocab_size: int) -> Array:
    """Surprisal of every token after the two before it, by interpolated Kneser–Ney smoothing.

    ``p(c|ab) = max(n(abc) − d, 0)/n(ab·) + d·N(ab·)/n(ab·)·p(c|b)``: n are counts, N numbers of different tokens.
    For ``p(c|b)`` and ``p(c)`` the counts are those of different tokens before, ``N(·bc)`` and ``N(·c)``, and below
    them all tokens are alike. Contexts that were never seen leave everything to the next shorter one.

    Parameters
    ----------
    train, text : (m,), (n,) arrays of int
    vocab_size : int

    Returns
    -------
    nats : (n,) array
        The first token has no context and the second a short one.

    References
    ----------
    Chen & Goodman, *An Empirical Study of Smoothing Techniques for Language Modeling*, 1999, section 3.

    Examples
    --------
    >>> train, text = np.array([0, 1, 2, 0, 1, 2, 0, 1, 3]), np.array([0, 1, 2])
    >>> round(float(np.exp(-trigram_surprisals(train, text, 4))[2]), 3)  # two of three, less what is kept for others
    0.573
    """
    if len(train) < 3:
        raise InputError(f"the training text has {len(train)} tokens, but counting trigrams takes three")
    a, b, c = (x.astype(np.int64) for x in (train[:-2], train[1:-1], train[2:]))
    seen = np.unique((a * vocab_size + b) * vocab_size + c, return_counts=True)
    pairs = np.unique(train[:-1].astype(np.int64) * vocab_size + train[1:])  # different bigrams, sorted
    before = np.unique(seen[0] % vocab_size**2, return_counts=True)  # N(·bc)
    one = np.bincount(pairs % vocab_size, minlength=vocab_size).astype(float)  # N(·c)

    first, second = _shifted(text, 2), _shifted(text, 1)
    uniform = np.full(len(text), 1 / vocab_size)
    p1 = (np.maximum(one[text] - DISCOUNT, 0) + DISCOUNT * np.count_nonzero(one) * uniform) / one.sum()
    p2 = _interpolated(before, second, text, vocab_size, p1)
    p3 = _interpolated(seen, first * vocab_size + second, text, vocab_size, p2)
    probability = np.where(np.arange(len(text)) >= 2, p3, np.where(np.arange(len(text)) >= 1, p2, p1))
    nats: Array = -np.log(probability)
    return nats


def _shifted(ids: Array, steps: int) -> Array:
    """Token so many steps before each; 0 where there is none."""
    return np.concatenate([np.zeros(steps, np.int64), ids[:-steps]]).astype(np.int64)[: len(ids)]


def _interpolated(table: tuple[Array, Array], context: Array, token: Array, vocab_size: int, shorter: Array) -> Array:
    """Probability of tokens in their contexts, from sorted keys ``context·V + token`` and their counts."""
    keys, counts = table
    contexts, starts = np.unique(keys // vocab_size, return_index=True)
    totals = np.add.reduceat(counts, starts)
    kinds = np.diff(np.append(starts, len(keys)))
    wanted = context * vocab_size + token
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    count = np.where(keys[place] == wanted, counts[place], 0)
    where = np.minimum(np.searchsorted(contexts, context), len(contexts) - 1)
    known = contexts[where] == context
    found = (np.maximum(count - DISCOUNT, 0) + DISCOUNT * kinds[where] * shorter) / totals[where]
    return np.where(known, found, shorter)
