"""Bounds of every operation's rounding errors, and the table of docs/accuracy.md.

The bounds come from counting roundings, not from measuring: see `accuracy`, which also says what a scale is.
"""

import accuracy
import numpy as np
import pytest
from accuracy import CASES, DTYPES, FEW, FUNCTION, cases, measure

from refsnn import ops

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def test_every_op_is_measured():
    assert set(CASES) == set(ops.__all__) - {"Array", "MASKED", "Rows", "causal_mask", "split_heads"} | {"rate"}


@every_dtype
@pytest.mark.parametrize(("op", "condition"), list(cases()))
def test_errors_stay_below_the_count_of_roundings(op, condition, dtype):
    for quantity, _, of_scale, bound in measure(op, condition, dtype):
        assert of_scale <= bound, f"{op}, {condition}: {quantity} is off by {of_scale:.3g} units of its scale"


# Where nothing cancels, the entries themselves keep their digits: with a scale of at most c times the entry, n
# roundings of u = eps/2 are at most cn ulp, because an ulp is at least u times the entry.
#   rate, tanh, mse  c = 1: no sum, or one of squares of differences, each difference rounded once.
#   softmax          c = 2(1 + max |t|): numerator and denominator are both uncertain by |t|. Where e^t is a normal
#                    number, |t| < 709 in float64 and 88 in float32.
#   gelu             c = 2 + x², since φ(x)|x|/Φ(x) < 1 + x² in the lower tail. Its slope there is Φ − |x|φ, of scale
#                    Φ + |x|φ(2 + x²), and Φ < |x|φ/2 for x < −3: c = 2(3 + x²). In float32 Φ is right absolutely, and
#                    no digits are promised.
#   cross_entropy    c = 2 where the true class is improbable: the gaps of the logits are most of the loss.
ENTRYWISE = [  # operation, result, conditions, bound in float64, bound in float32
    ("rate", "a", CASES["rate"][2], FEW, FEW),
    ("rate", "dI", CASES["rate"][2], FEW, FEW),
    ("tanh", "y", CASES["tanh"][2], FUNCTION, FUNCTION),
    ("mse", "L", CASES["mse"][2], 240 + FEW, 240 + FEW),
    ("mse", "dp", CASES["mse"][2], FEW, FEW),
    ("softmax", "p", CASES["softmax"][2], 2 * 710 * (12 + FUNCTION), 2 * 89 * (12 + FUNCTION)),
    ("gelu", "y", ["lower tail"], (2 + 37**2) * FUNCTION, np.inf),
    ("gelu", "dx", ["lower tail"], 2 * (3 + 37**2) * FUNCTION, np.inf),
    ("cross_entropy", "L", ["saturated, wrong"], 2 * (30 + FUNCTION), 2 * (30 + FUNCTION)),
]


@pytest.mark.parametrize(("op", "quantity", "conditions", "double", "single"), ENTRYWISE)
def test_entries_that_cannot_cancel_keep_their_digits(op, quantity, conditions, double, single):
    for condition in conditions:
        for dtype, bound in zip(DTYPES, (double, single), strict=True):
            (ulp,) = (m.ulp for m in measure(op, condition, dtype) if m.quantity == quantity)
            assert ulp <= bound, f"{op}, {condition}, {dtype.__name__}: {quantity} is off by {ulp:.3g} ulp"


@pytest.fixture(scope="module")
def documented():
    """The rows of the table as it stands in the docs."""
    made = accuracy.PAGE.read_text(encoding="utf-8").split(accuracy.BEGIN)[1].split(accuracy.END)[0]
    lines = [line.strip("|").split("|") for line in made.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line) for line in lines[2:]]


def test_the_documented_table_has_the_rows_that_are_measured(documented):
    def kept(rows):
        return [(*row[:3], row[-1]) for row in rows]

    assert kept(documented) == kept(accuracy.table()), "run python reference_tests/accuracy.py --write"


def test_the_documented_errors_are_those_of_this_machine(documented):
    """Other builds of NumPy and BLAS round differently, but not four times as badly."""
    for old, new in zip(documented, accuracy.table(), strict=True):
        for before, now in zip(old[3:-1], new[3:-1], strict=True):
            then, today = (np.inf if cell == "all" else float(cell) for cell in (before, now))
            assert today <= max(4 * then, 1), f"{' '.join(old[:3])}: {now} units, but docs/accuracy.md says {before}"
