"""Dropout masks that stay the same through all timesteps."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .batch import Batch
from .network import Network
from .parameters import Params
from .projections import Add, AddNorm, Attention

__all__ = [
    "dropout_masks",
]


def dropout_masks(
    network: Network, batch: Batch, probability: float, rng: np.random.Generator, dtype: type = np.float32
) -> Params:
    """Draw dropout masks where BERT and GPT-2 have them: on embeddings, attention weights, both outputs of an encoder.

    Masks are 0 with the given probability and 1/(1 − probability) otherwise, one for each sequence of the batch. They
    are taken as parameters, and like these stay the same through all timesteps: a mask drawn anew at every step would
    leave no equilibrium to settle at.

    Parameters
    ----------
    network : Network
    batch : Batch
    probability : float
        In [0, 1).
    rng : numpy.random.Generator
    dtype : floating type

    Returns
    -------
    masks : dict
        To be given to a reading together with the parameters, ``params | masks``.

    Raises
    ------
    InputError
        The probability is not in [0, 1).

    Examples
    --------
    >>> from refsnn.model.shapes import BertConfig
    >>> from refsnn.model.families import spiking_bert
    >>> batch = Batch(*np.ones((3, 1, 4), int))
    >>> network = spiking_bert(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    >>> masks = dropout_masks(network, batch, 0.5, np.random.default_rng(0))
    >>> {name: mask.shape for name, mask in masks.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'embeddings.dropout': (1, 4, 8), 'encoder.layer.0.attention.self.query.dropout': (1, 2, 4, 4),
     'encoder.layer.0.attention.output.dense.dropout': (1, 4, 8), 'encoder.layer.0.output.dense.dropout': (1, 4, 8)}
    """
    if not 0 <= probability < 1:
        raise InputError(f"the dropout probability is {probability}, but it lies in [0, 1)")
    size, positions = batch.input_ids.shape
    shapes: dict[str, tuple[int, ...]] = {network.drive.dropout: (size, positions, network.populations[0].width)}
    for population in network.populations:
        projection = population.projection
        if isinstance(projection, Attention):
            shapes[projection.dropout] = (size, projection.heads, positions, positions)
        elif isinstance(projection, Add | AddNorm):
            shapes[projection.dropout] = (size, positions, population.width)
    kept = 1 / (1 - probability)
    return {name: (rng.random(shape) >= probability).astype(dtype) * dtype(kept) for name, shape in shapes.items()}
