"""One sentence on one page: its tokens, its spikes, its rates settling, its attention, and the answer over time.

The page needs nothing else: no network, no other file. Without JavaScript, or printed, it is a page of figures and
tables; with it one can slide through time and point at tokens. The same run and sentence give the same bytes.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.tasks import Task
from ..errors import InputError
from ..evaluation.observe import RASTER_STEPS, RASTER_TOKENS, Observation, Sentence, Trace, observe, read_sentence
from ..files import existing, write_text
from ..model.network import kind_of
from ..model.student import StudentConfig
from ..ops import Array
from ..readings.simulate import Rule, timesteps
from ..storage.run import Run
from .document import Drawing, drawings, render
from .figures.spikes import (
    NEGATIVE,
    WEIGHT_SCALE,
    attention_figure,
    convergence_figure,
    probability_figure,
    raster_figure,
    time_cursor,
)
from .figures.style import COLOUR, figure_legend
from .words import KINDS, population_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "inspect_run",
]


def inspect_run(
    run: str | os.PathLike,
    text: str | None = None,
    second: str | None = None,
    index: int | None = None,
    data: str | os.PathLike | None = None,
    t_conv: int = 64,
    rule: Rule = "inst",
    out: str | os.PathLike | None = None,
) -> tuple[Path, Sentence]:
    """Write the page about one sentence.

    Parameters
    ----------
    run : path
        A finished run, with its teacher.
    text, second : str, optional
        A sentence; of a task of pairs also the second one.
    index : int, optional
        Instead of a text: the number of an example of the dev split, counted from 0.
    data : path, optional
        Where that split is.
    t_conv : int
        T, the number of time steps.
    rule : {"inst", "running"}
    out : path, optional
        The page; ``inspect.html`` in the run's folder by default.

    Returns
    -------
    path : Path
    sentence : Sentence

    Raises
    ------
    InputError
        The run is not finished or has no teacher, there is no sentence or one too few, or the page cannot be there.
    """
    t_conv = timesteps("t_conv", t_conv)
    opened = Run(run)
    path = Path(out) if out else opened.folder / "inspect.html"
    existing(path.parent, "the folder for the page")
    if path.is_dir():
        raise InputError(f"`out` is the folder {path}, but the name of a page was expected, such as {path}/page.html")
    config, params = opened.student()
    if not opened.teacher_folder.exists():
        raise InputError(
            f"{run} has no folder teacher to compare the student with; write the BERT that it was distilled from "
            f"into {opened.teacher_folder} with `refsnn convert`"
        )
    teacher_config, teacher_params = opened.teacher()
    heads = config.bert.num_attention_heads, teacher_config.num_attention_heads
    if heads[0] != heads[1]:
        raise InputError(
            f"the student of {run} has {heads[0]} heads and the teacher {heads[1]}, so this is not the teacher that it "
            "was distilled from; put that one into the folder teacher"
        )
    task, sentence = read_sentence(opened, text, second, index, data)
    seen = observe(config, params, teacher_config, teacher_params, sentence.ids, sentence.kinds, t_conv, rule)
    write_text(path, _page(opened.folder.resolve().name, config, task, sentence, seen, rule))
    return path, sentence


def _page(run: str, config: StudentConfig, task: Task, sentence: Sentence, seen: Observation, rule: Rule) -> str:
    trace, steps, last = _trace(seen), len(seen.answers), config.network.readouts[-1]
    classes = task.classes or ("score",)
    shown, tokens, neurons = next(iter(trace.spikes.values())).shape
    return render(
        "inspect.html",
        run=run,
        config=config,
        task=task,
        sentence=sentence,
        rule=rule,
        steps=steps,
        cards=_cards(task, seen, classes),
        verdict=_verdict(task, sentence, seen, classes),
        answers=_answers_table(task, seen, classes),
        raster={"steps": shown, "tokens": tokens, "neurons": neurons},
        populations=list(seen.spikes),
        chosen=list(trace.spikes)[-1],
        away=seen.distance[last][-1],
        layers=seen.layers,
        heads=len(seen.attention[0]),
        activity=_activity(seen),
        drawn=_drawn(task, sentence, seen, trace, classes),
        data=_data(task, sentence, seen, classes),
    )


def _drawn(
    task: Task, sentence: Sentence, seen: Observation, trace: Trace, classes: Sequence[str]
) -> dict[str, Drawing]:
    steps, label, score = len(seen.answers), None, None
    if not task.labels:
        score = np.nan if sentence.label is None else sentence.label
    elif sentence.label is not None:
        label = int(sentence.label)

    def probabilities() -> Figure:
        figure = probability_figure(trace, classes, label, [steps], score, top_score(task, seen))
        unused = {"evaluated T", "true score" if sentence.label is None else ""}
        for line in [line for line in figure.axes[0].lines if line.get_label() in unused]:
            line.remove()
        figure.legends[0].remove()
        figure_legend(figure, columns=5)
        return time_cursor(figure, steps)

    return drawings(
        {
            "probabilities": probabilities,
            "raster": lambda: raster_figure(trace, sentence.tokens),
            "convergence": lambda: time_cursor(convergence_figure(trace), steps),
            "attention": lambda: attention_figure(seen.attention, seen.teacher_attention, seen.layers, sentence.tokens),
        }
    )


def _said(seen: Observation) -> dict[str, Array]:
    """Gather what each answers: scores of the classes."""
    return {
        "teacher (BERT)": seen.teacher,
        "student, rate map": seen.limit,
        f"student, spikes, T = {len(seen.answers)}": seen.answers[-1],
    }


def _cards(task: Task, seen: Observation, classes: Sequence[str]) -> list[tuple[str, tuple[str, str], str]]:
    """Write what each answers, and how sure it is, or where on the scale."""
    if task.labels:
        return [(who, (classes[int(p.argmax())], f"{p.max():.3f}"), "") for who, p in _said(seen).items()]
    scale = f"of {task.scale[1]:g}" if task.scale else ""
    return [(who, (f"{p[0]:.2f}", scale), "") for who, p in _said(seen).items()]


def _verdict(task: Task, sentence: Sentence, seen: Observation, classes: Sequence[str]) -> dict[str, Any]:
    """Say whether the three agree, since when the spikes do, and what is true."""
    if not task.labels:
        gaps = abs(seen.answers[-1, 0] - seen.limit[0]), abs(seen.limit[0] - seen.teacher[0])
        return {"gaps": gaps, "truth": None if sentence.label is None else f"{sentence.label:.2f}"}
    decided = seen.answers.argmax(axis=1)
    return {
        "answers": [classes[int(p.argmax())] for p in _said(seen).values()],
        "since": len(decided) - int((decided[::-1] == decided[-1]).cumprod().sum()) + 1,
        "truth": None if sentence.label is None else classes[int(sentence.label)],
    }


def _trace(seen: Observation) -> Trace:
    """Numbers of the figures that the report has as well."""
    last = [name for name in seen.spikes if kind_of(name) == "output"][-1]
    shown = ("embeddings", last.replace("output", "context"), last)
    spikes = {name: seen.spikes[name][:RASTER_STEPS, :RASTER_TOKENS] for name in shown}
    return Trace(seen.distance, seen.answers, seen.limit, spikes)


def _answers_table(task: Task, seen: Observation, classes: Sequence[str]) -> tuple[Any, ...]:
    steps = len(seen.answers)
    answers = {"teacher (BERT)": seen.teacher, "student, rate map": seen.limit}
    answers |= {
        f"student, T = {t}": seen.answers[t - 1] for t in (*(2**i for i in range(2, steps.bit_length())), steps)
    }
    if not task.labels:
        return "Scores", ["", "score"], [[who, f"{p[0]:.3f}"] for who, p in answers.items()]
    rows = [[who, classes[int(p.argmax())], *(f"{value:.3f}" for value in p)] for who, p in answers.items()]
    return "Class probabilities", ["", "answer", *classes], rows


def _activity(seen: Observation) -> dict[str, Any]:
    """Gather firing rates at the last step and at equilibrium, and the largest, which the bars are scaled by."""
    largest = max(1e-9, *(max(values.max(), seen.settled[name]) for name, values in seen.firing.items()))
    rows = [
        {
            "name": name,
            "colour": KINDS[kind_of(name)][1],
            "rate": values[-1],
            "settled": seen.settled[name],
            "distance": seen.distance[name][-1],
        }
        for name, values in seen.firing.items()
    ]
    return {"largest": largest, "rows": rows}


def top_score(task: Task, seen: Observation) -> float:
    """Greatest score of the scale, or of those shown where there is no scale."""
    return task.scale[1] if task.scale else float(max(seen.teacher.max(), seen.limit.max(), seen.answers.max()))


def _base64(values: Array) -> str:
    return b64encode(values.tobytes()).decode("ascii")


def _short(values: Array) -> list[Any]:
    """Write numbers with five digits: more cannot be seen."""
    return [_short(value) if np.ndim(value) else float(f"{value:.5g}") for value in values]


def _data(task: Task, sentence: Sentence, seen: Observation, classes: Sequence[str]) -> dict[str, Any]:
    """Numbers for the page's program, compactly: spikes as bits, weights in 65535ths, shown rates in 255ths."""

    def weights(matrices: Sequence[Array]) -> list[str]:
        return [_base64(np.round(65535.0 * matrix).astype("<u2")) for matrix in matrices]

    return {
        "steps": len(seen.answers),
        "tokens": sentence.tokens,
        "classes": list(classes),
        "largestScore": top_score(task, seen) if len(classes) == 1 else None,
        "colours": [COLOUR[name] for name in ("vermillion", "blue", "green")],
        "scale": WEIGHT_SCALE,
        "negative": NEGATIVE,
        "answers": _short(seen.answers),
        "limit": _short(seen.limit),
        "populations": [
            {
                "name": name,
                "title": population_title(name),
                "colour": KINDS[kind_of(name)][1],
                "neurons": spikes.shape[-1],
                "spikes": _base64(np.packbits(spikes > 0, bitorder="little")),  # (T, tokens, neurons)
                **({"negative": _base64(np.packbits(spikes < 0, bitorder="little"))} if (spikes < 0).any() else {}),
                "rates": _base64(np.round(255 * np.abs(seen.rates[name])).astype(np.uint8)),  # (tokens, neurons)
                "firing": _short(seen.firing[name]),
                "distance": _short(seen.distance[name]),
                "settled": float(f"{seen.settled[name]:.5g}"),
            }
            for name, spikes in seen.spikes.items()
        ],
        "heads": len(seen.attention[0]),
        "student": weights(seen.attention),  # (heads, N, N) of every encoder
        "teacher": weights(seen.teacher_attention),
        "layers": seen.layers,
    }
