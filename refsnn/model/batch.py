"""Batches of token ids, checked, masked, and shared among the cores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..ops import Array
from ..parallel import each
from .shapes import BertConfig

__all__ = [
    "Batch",
    "attention_mask",
    "checked_batch",
    "map_shares",
]


class Batch(NamedTuple):
    """Token ids of B sequences padded to N positions; three (B, N) integer arrays."""

    input_ids: Array
    token_type_ids: Array
    attention_mask: Array  # 1 on tokens, 0 on padding


def attention_mask(batch: Batch, dtype: np.dtype) -> Array:
    """Give what is added to attention scores: 0 on tokens, −10000 on padded keys.

    Parameters
    ----------
    batch : Batch
    dtype : dtype

    Returns
    -------
    mask : (B, 1, 1, N) array
        Broadcasts over heads and queries.
    """
    return ((1 - batch.attention_mask[:, None, None, :]) * -10000.0).astype(dtype)


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
    if len({a.shape for a in batch}) != 1 or batch.input_ids.ndim != 2 or not batch.input_ids.size:
        raise InputError(f"input_ids, token_type_ids and attention_mask have shapes {[a.shape for a in batch]}, "
                         "but one shape (batch, positions) was expected")  # fmt: skip
    limits = (config.vocab_size, config.type_vocab_size, 2)
    for name, ids, limit in zip(Batch._fields, batch, limits, strict=True):
        if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= limit:
            raise InputError(f"{name} must hold integers in [0, {limit}), but it holds {ids.min()} … {ids.max()}")
    if batch.input_ids.shape[1] > config.max_position_embeddings:
        raise InputError(f"there are {batch.input_ids.shape[1]} positions, but only "
                         f"{config.max_position_embeddings} are embedded")  # fmt: skip
    return batch


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
    places = np.array_split(np.arange(len(batch.input_ids)), max(min(shares, len(batch.input_ids)), 1))
    return each(lambda rows: function(Batch(*(ids[rows] for ids in batch)), rows), places, min(workers, len(places)))
