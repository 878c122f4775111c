"""The gradient of a table of embeddings: a batch reads few of its rows, and the others have none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rows"]


@dataclass(frozen=True, eq=False)
class Rows:
    """A table that is 0 but for some rows: ``table[numbers[i]] = values[i]``.

    Sums are those of the tables, rounded in the same order: what is left out are additions of 0.

    Attributes
    ----------
    numbers : (R,) integers
        Of the rows, sorted, each once.
    values : (R, D) array
    length : int
        Rows of the whole table.

    Examples
    --------
    >>> rows = Rows(np.array([0, 2]), np.array([[1.0], [2.0]]), 4) + Rows(np.array([2]), np.array([[0.5]]), 4)
    >>> rows.numbers, (rows * 2).dense().ravel()
    (array([0, 2]), array([2., 0., 5., 0.]))
    """

    numbers: NDArray[Any]
    values: NDArray[Any]
    length: int

    __array_ufunc__ = None  # so that array + rows is asked of the rows

    def dense(self) -> NDArray[Any]:
        """Return the table.

        Returns
        -------
        table : (V, D) array
        """
        table = np.zeros((self.length, *self.values.shape[1:]), self.values.dtype)
        table[self.numbers] = self.values
        return table

    def __add__(self, other: Any) -> Any:
        """Add other rows of the same table, which gives rows, or an array, which gives an array."""
        if not isinstance(other, Rows):
            return self.dense() + other
        numbers = np.union1d(self.numbers, other.numbers)
        values = np.zeros((len(numbers), *self.values.shape[1:]), np.result_type(self.values, other.values))
        for rows in (self, other):
            values[np.searchsorted(numbers, rows.numbers)] += rows.values
        return Rows(numbers, values, self.length)

    __radd__ = __add__

    def __mul__(self, factor: float) -> Rows:
        """Multiply all by a number."""
        return Rows(self.numbers, self.values * factor, self.length)

    __rmul__ = __mul__
