"""What the made-up corpora share: drawing distinct rows from one source of chance."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

__all__ = []

# After so many draws without a new sentence the grammar counts as exhausted.
PATIENCE = 10_000

T = TypeVar("T")

Row = TypeVar("Row", tuple[str, int], tuple[str, str, str])


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """Choose one of the options, each as likely as any other."""
    return options[int(rng.random() * len(options))]


def with_articles(sentence: str) -> str:
    """Write "an" for "a" where a vowel follows."""
    return re.sub(r"\ba (?=[aeiou])", "an ", sentence)


def distinct(draw: Callable[[random.Random], Row], count: int, seed: int, exclude: Collection[str]) -> list[Row]:
    """Draw rows (one or two sentences and a label) until there are `count` different ones."""
    rng = random.Random(seed)
    exclude = frozenset(exclude)
    rows: dict[tuple[object, ...], Row] = {}
    drawn_in_vain = 0
    while len(rows) < count:
        row = draw(rng)
        sentences = row[:-1]
        if sentences in rows or not exclude.isdisjoint(sentences):
            drawn_in_vain += 1
        else:
            rows[sentences] = row
            drawn_in_vain = 0
        if drawn_in_vain == PATIENCE:
            raise ValueError(
                f"asked for {count} different examples, but after {len(rows)} of them {PATIENCE} draws in a row "
                f"brought nothing new; ask for at most {len(rows)}, or exclude fewer sentences"
            )
    return list(rows.values())
