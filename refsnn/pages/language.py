"""What `refsnn gpt` shows: a table of how well text is predicted, and a page of a sentence and its spikes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..evaluation.generate import Story
from ..files import write_text
from ..model.gpt import FINAL
from ..model.network import encoder_of
from ..ops import Array
from .document import render
from .words import population_title

__all__ = ["text_table", "write_page"]

#: Neurons of a population, and timesteps, that a raster shows at most.
NEURONS, STEPS = 24, 32


def text_table(results: Mapping[str, Any]) -> str:
    """Lay out the results of `refsnn.evaluation.perplexity.evaluate_gpt` for a terminal.

    Parameters
    ----------
    results : dict

    Returns
    -------
    text : str
    """
    where = f"the {results['split']} split" if results["split"] else "the text given"
    lines = [
        f"{where}: {results['tokens']:,} tokens, {results['characters']:,} characters; rule {results['rule']}",
        "",
        f"{'':<14}{'perplexity':>12}{'bits/char':>12}{'as teacher':>12}{'firing':>9}{'gain':>8}{'full':>8}",
    ]
    rows = [
        (name.replace("_", " "), results[name])
        for name in ("unigram", "trigram", "teacher", "rate_map")
        if name in results
    ]
    rows += [(f"T = {t}", found) for t, found in results.get("spikes", {}).items()]
    for name, found in rows:
        line = f"{name:<14}{found['perplexity']:>12.2f}{found['bits_per_character']:>12.3f}"
        line += f"{100 * found['agreement']:>11.1f}%" if "agreement" in found else ""
        line += f"{found['firing']:>9.2f}{found['gain']:>8.2f}{found['full_gain']:>8.2f}" if "firing" in found else ""
        lines.append(line)
    return "\n".join(lines)


class Band(NamedTuple):
    """The raster of one population, all positions in a row.

    Attributes
    ----------
    title : str
    neurons : int
    up, down : str
        Paths in units of timesteps and neurons, a line for each row of spikes of 1, and of −1.
    """

    title: str
    neurons: int
    up: str
    down: str


def write_page(path: str | os.PathLike, story: Story) -> None:
    """Write a page that replays a text with its spikes; it needs no other file, and no network.

    Parameters
    ----------
    path : path
    story : Story
        Written with `keep_all`.

    Raises
    ------
    InputError
        Its spikes were not kept.
    """
    written = story.written
    if len(written.guesses) != len(written.ids) - 1:
        raise InputError("the spikes of this text were not kept; write it again with `keep_all`")
    pieces = [_visible(piece) for piece in story.pieces]
    said = [
        [(_visible(text), guess.probability, guess.token == followed) for guess, text in zip(row, texts, strict=True)]
        for row, texts, followed in zip(written.guesses, story.guesses, written.ids[1:], strict=True)
    ]
    firing = _firing(story)
    steps = min(story.t_conv, STEPS)
    page = render(
        "story.html",
        story=story,
        pieces=pieces,
        said=said,
        steps=steps,
        bands=_bands(story, steps),
        firing={name: values.mean() for name, values in firing.items()},
        most=max(1e-9, *(float(values.max()) for values in firing.values())),
        data={
            "steps": steps,
            "prompt": story.prompt,
            "pieces": pieces,
            "said": [[(text, float(f"{p:.3g}"), came) for text, p, came in row] for row in said],
            "firing": {name: [float(f"{value:.3g}") for value in values] for name, values in firing.items()},
        },
    )
    write_text(path, page)


def _visible(piece: str) -> str:
    """Text of a token with its line breaks as a sign."""
    return piece.replace("\r", "").replace("\n", "⏎")


def _firing(story: Story) -> dict[str, Array]:
    """Spikes per neuron and step at every position, of each block and of the last population."""
    groups: dict[str, list[Array]] = {}
    for name, train in story.written.spikes.items():
        block = encoder_of(name)
        group = population_title(name) if block is None else f"block {block + 1}"
        groups.setdefault(group, []).append(np.abs(train[:, 0]).mean(axis=0))  # (N, width)
    found = {group: np.concatenate(parts, axis=-1).mean(axis=-1) for group, parts in groups.items()}
    return {group: found[group] for group in sorted(found, key=lambda g: (g == population_title(FINAL), len(g), g))}


def _bands(story: Story, steps: int) -> list[Band]:
    """Draw what the first block reads, what the last one attends to and thinks, and what is read off."""
    last = f"block.{story.config.gpt.n_layer - 1}"
    shown = ("block.0.attention_norm", f"{last}.context", f"{last}.intermediate", FINAL)
    bands = []
    for name in shown:
        train = story.written.spikes[name][:, 0]  # (T, N, width)
        ranked = np.argsort(-np.abs(train).sum(axis=(0, 1)), kind="stable")
        chosen = ranked[np.linspace(0, len(ranked) - 1, min(NEURONS, len(ranked))).astype(int)]
        rows = train[:steps, :, chosen].transpose(2, 1, 0).reshape(len(chosen), -1)  # (neurons, N · steps)
        bands.append(Band(population_title(name), len(chosen), _lines(rows > 0), _lines(rows < 0)))
    return bands


def _lines(marks: Array) -> str:
    """Write the marks of each row as lines of a path; a row is one unit high.

    Examples
    --------
    >>> _lines(np.array([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0]], bool))
    'M1 .5h2m1 0h1'
    """
    parts = []
    for row, places in enumerate(marks):
        edges = np.flatnonzero(np.diff(places.astype(np.int8), prepend=0, append=0))
        end = None
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            move = f"M{start} {row or ''}.5" if end is None else f"m{start - end} 0"
            parts.append(f"{move}h{stop - start}")
            end = stop
    return "".join(parts)
