"""Batches made from lists of token ids."""

import numpy as np
import pytest

from refsnn.errors import InputError
from refsnn.model.batch import Batch, attention_mask, checked_batch, in_shares, map_shares
from refsnn.model.shapes import BertConfig


def test_lists_are_padded_typed_and_masked():
    batch = Batch.of([[3, 14, 15], [9]], token_type_ids=[[0, 1, 1], [1]], pad=7)
    assert batch.input_ids.tolist() == [[3, 14, 15], [9, 7, 7]]
    assert batch.token_type_ids.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert all(part.dtype == int for part in batch)
    plain = Batch.of(np.array([[2, 3], [4, 5]], np.uint8))
    assert plain.input_ids.tolist() == [[2, 3], [4, 5]] and not plain.token_type_ids.any()


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ([], {}, "`input_ids` .* at least one sequence"),
        ([[3], []], {}, "none may be empty"),
        ([3, 4], {}, "a list of lists of ids"),
        (3, {}, "a list of lists of ids"),
        ("ab", {}, r"`input_ids\[0\]\[0\]` is 'a'"),
        ([[3, -1]], {}, r"`input_ids\[0\]\[1\]` is -1"),
        ([[3.0]], {}, r"`input_ids\[0\]\[0\]` is 3.0"),
        ([[True]], {}, r"`input_ids\[0\]\[0\]` is True"),
        ([[10**30]], {}, r"`input_ids\[0\]\[0\]` is 10{30}, but"),
        ([[3]], {"pad": -1}, "`pad` is -1"),
        ([[3]], {"pad": 0.5}, "`pad` is 0.5"),
        ([[3, 4]], {"token_type_ids": [[0]]}, r"`token_type_ids` has sequences of lengths \[1\]"),
        ([[3, 4]], {"token_type_ids": [[0, 0], [0]]}, r"those of `input_ids` are \[2\]"),
        ([[3]], {"token_type_ids": [[-2]]}, r"`token_type_ids\[0\]\[0\]` is -2"),
    ],
)
def test_what_makes_no_batch_is_said(given, options, said):
    with pytest.raises(InputError, match=said):
        Batch.of(given, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_padded_keys_have_minus_ten_thousand_and_tokens_exactly_nothing(dtype):
    mask = attention_mask(Batch.of([[3, 14, 15], [9]]), np.dtype(dtype))
    assert mask.dtype == dtype and mask.shape == (2, 1, 1, 3)
    assert mask.tolist() == [[[[0, 0, 0]]], [[[0, -10000, -10000]]]]


def test_ids_have_edges():
    config = BertConfig(hidden_size=2, num_attention_heads=1, vocab_size=5, max_position_embeddings=3)
    batch = Batch.of([[4, 0, 1]], token_type_ids=[[1, 0, 1]])
    assert checked_batch(batch, config) is batch
    for changed, said in (
        (Batch.of([[5]]), r"input_ids must hold integers in \[0, 5\), but it holds 5 … 5"),
        (batch._replace(input_ids=batch.input_ids - 1), r"input_ids must .* -1 … 3"),
        (batch._replace(token_type_ids=batch.token_type_ids + 1), r"token_type_ids must .* \[0, 2\), .* 1 … 2"),
        (Batch.of([[1, 1, 1, 1]]), "there are 4 positions, but only 3 are embedded"),
        (Batch(*(ids[:0] for ids in batch)), r"shape \(0, 3\), but at least one token"),
        (batch._replace(attention_mask=batch.attention_mask * 2), "other values than 1, on tokens, and 0"),
        (Batch(*(ids[0] for ids in batch)), r"shapes .*, but one shape \(batch, positions\)"),
        (batch._replace(token_type_ids=batch.token_type_ids[:, :2]), r"shapes .*, but one shape \(batch, positions\)"),
    ):
        with pytest.raises(InputError, match=said):
            checked_batch(changed, config)


@pytest.mark.parametrize("shares", [0, 1, 2, 3, 5, 9])
def test_shares_hold_every_sequence_once_in_order(shares):
    batch = Batch.of([[i + 1, i] for i in range(5)])
    found = in_shares(batch, shares)
    assert len(found) == min(max(shares, 1), 5)
    assert np.concatenate([places for _, places in found]).tolist() == list(range(5))
    for share, places in found:
        assert all(np.array_equal(part, whole[places]) for part, whole in zip(share, batch, strict=True))
    sizes = [len(places) for _, places in found]
    assert max(sizes) - min(sizes) <= 1
    first = map_shares(lambda share, places: (int(share.input_ids[0, 0]), int(places[0])), batch, shares, 2)
    assert first == [(int(places[0]) + 1, int(places[0])) for _, places in found]


def test_options_are_named():
    with pytest.raises(TypeError):
        Batch.of([[3]], [[0]])
