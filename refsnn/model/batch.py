"""Batches of token ids, checked, masked, and shared among the cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError, shown, whole
from ..ops import MASKED, Array
from ..parallel import each
from .shapes import BertConfig

__all__ = [
    "Batch",
    "attention_mask",
    "check_batch",
    "check_ids",
    "checked_batch",
    "in_shares",
    "map_shares",
]


class Batch(NamedTuple):
    """Token ids of B sequences padded to N positions; three (B, N) integer arrays."""

    input_ids: Array
    token_type_ids: Array
    attention_mask: Array  # 1 on tokens, 0 on padding

    @classmethod
    def of(
        cls, input_ids: Sequence[Sequence[int]], *, token_type_ids: Sequence[Sequence[int]] | None = None, pad: int = 0
    ) -> Batch:
        """Pad lists of token ids to the longest, and fill in token types and mask.

        Parameters
        ----------
        input_ids : sequence of sequences of int
            The token ids of each sequence.
        token_type_ids : sequence of sequences of int, optional
            Their types, as many of them; by default 0.
        pad : int
            The id of padding, ``pad_token_id`` of the configuration.

        Returns
        -------
        batch : Batch

        Raises
        ------
        InputError
            There is no sequence, one is empty, or something is not an integer of at least 0.

        Examples
        --------
        >>> batch = Batch.of([[3, 14, 15], [9]])
        >>> batch.input_ids, batch.attention_mask
        (array([[ 3, 14, 15],
               [ 9,  0,  0]]), array([[1, 1, 1],
               [1, 0, 0]]))
        """
        rows = _rows("input_ids", input_ids)
        kinds = [[0] * len(row) for row in rows] if token_type_ids is None else _rows("token_type_ids", token_type_ids)
        if (given := [len(row) for row in kinds]) != (wanted := [len(row) for row in rows]):
            raise InputError(
                f"`token_type_ids` has sequences of lengths {given}, but those of `input_ids` are {wanted}"
            )
        shape = len(rows), max(wanted)
        batch = cls(np.full(shape, _id("pad", pad)), np.zeros(shape, int), np.zeros(shape, int))
        for i, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
            batch.input_ids[i, : len(row)] = row
            batch.token_type_ids[i, : len(row)] = kind
            batch.attention_mask[i, : len(row)] = 1
        return batch


def _rows(name: str, given: Any) -> list[list[int]]:
    """Return sequences of integers as lists, or say what else they are."""
    try:
        rows = [list(row) for row in given]
    except TypeError:
        raise InputError(
            f"`{name}` is {shown(given)}, but a list of lists of ids, one per sequence, was expected"
        ) from None
    if not rows or not all(rows):
        raise InputError(f"`{name}` is {shown(given)}, but it must hold at least one sequence, and none may be empty")
    return [[_id(f"{name}[{i}][{j}]", one) for j, one in enumerate(row)] for i, row in enumerate(rows)]


def _id(name: str, given: Any) -> int:
    """Return an id that fits NumPy's integers."""
    if (one := whole(name, given, 0)) > np.iinfo(int).max:
        raise InputError(f"`{name}` is {shown(one)}, but no vocabulary has an id like that")
    return one


def attention_mask(batch: Batch, dtype: np.dtype) -> Array:
    """Return what is added to attention scores: 0 on tokens, −10000 on padded keys.

    Parameters
    ----------
    batch : Batch
    dtype : dtype

    Returns
    -------
    mask : (B, 1, 1, N) array
        Broadcasts over heads and queries.
    """
    return ((1 - batch.attention_mask[:, None, None, :]) * MASKED).astype(dtype)


def check_batch(batch: Batch) -> None:
    """Make sure that a batch is one: three arrays of integers of one shape, and a mask of 0 and 1.

    Parameters
    ----------
    batch : Batch

    Raises
    ------
    InputError
        It is not.
    """
    if not isinstance(batch, Batch):
        raise InputError(
            f"the batch is a {type(batch).__name__}, but a Batch was expected; `Batch.of` makes one of lists"
        )
    for name, ids in zip(Batch._fields, batch, strict=True):
        if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu":
            kind = f"of type {ids.dtype}" if isinstance(ids, np.ndarray) else f"a {type(ids).__name__}"
            raise InputError(f"{name} must hold integers in an array, but it is {kind}; `Batch.of` makes one of lists")
    if len({a.shape for a in batch}) != 1 or batch.input_ids.ndim != 2:
        raise InputError(f"input_ids, token_type_ids and attention_mask have shapes {[a.shape for a in batch]}, "
                         "but one shape (batch, positions) was expected")  # fmt: skip
    if not ((batch.attention_mask == 0) | (batch.attention_mask == 1)).all():
        raise InputError("attention_mask holds other values than 1, on tokens, and 0, on padding")


def checked_batch(batch: Batch, config: BertConfig) -> Batch:
    """Return a batch whose shapes and ids fit a configuration, or say what does not.

    Parameters
    ----------
    batch : Batch
    config : BertConfig

    Returns
    -------
    batch : Batch

    Raises
    ------
    InputError
        They do not.
    """
    check_ids(batch, config.vocab_size, config.type_vocab_size, config.max_position_embeddings)
    return batch


def check_ids(batch: Batch, vocabulary: int, kinds: int, positions: int) -> None:
    """Make sure that a batch has shapes and ids that a network embeds.

    Parameters
    ----------
    batch : Batch
    vocabulary, kinds, positions : int
        How many token ids, token types and positions are embedded.

    Raises
    ------
    InputError
        It has others.
    """
    check_batch(batch)
    if not batch.input_ids.size:
        raise InputError(f"the batch has shape {batch.input_ids.shape}, but at least one token was expected")
    for name, ids, limit in zip(Batch._fields, batch, (vocabulary, kinds, 2), strict=True):
        if ids.min() < 0 or ids.max() >= limit:
            raise InputError(f"{name} must hold integers in [0, {limit}), but it holds {ids.min()} … {ids.max()}")
    if batch.input_ids.shape[1] > positions:
        raise InputError(f"there are {batch.input_ids.shape[1]} positions, but only {positions} are embedded")


def in_shares(batch: Batch, shares: int) -> list[tuple[Batch, Array]]:
    """Divide a batch by its sequences.

    Parameters
    ----------
    batch : Batch
    shares : int
        Fewer where there are fewer sequences.

    Returns
    -------
    shares : list of (Batch, array)
        Each share, and where its sequences are in the batch.
    """
    places = np.array_split(np.arange(len(batch.input_ids)), max(min(shares, len(batch.input_ids)), 1))
    return [(Batch(*(ids[rows] for ids in batch)), rows) for rows in places]


def map_shares(function: Callable[[Batch, Array], Any], batch: Batch, shares: int, workers: int) -> list[Any]:
    """Apply a function to shares of a batch's sequences, several at once.

    Parameters
    ----------
    function : callable
        ``function(share, places)``: the share, and where its sequences are in the batch.
    batch : Batch
    shares, workers : int
        Fewer where there are fewer sequences.

    Returns
    -------
    results : list
        One for each share, in their order.
    """
    parts = in_shares(batch, shares)
    return each(lambda part: function(*part), parts, min(workers, len(parts)))
