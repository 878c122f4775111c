"""Batches made from lists of token ids."""

import numpy as np
import pytest

from refsnn.errors import InputError
from refsnn.model.batch import Batch


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


def test_options_are_named():
    with pytest.raises(TypeError):
        Batch.of([[3]], [[0]])
