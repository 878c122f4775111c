"""Draw one sentence's spikes as they arrive, from a real run: an SVG that moves.

    python docs/figures/animation.py RUN "no wit, no charm, no story"

simulates the student of a finished run and writes docs/_static/spikes.svg: the raster of the last population, the
answer that could be read so far, and the distance of the rates from their equilibrium. Readers who asked their system
for less motion see the last step.
"""

import sys
from pathlib import Path

import numpy as np

import refsnn
from refsnn.evaluation.observe import Observation, observe, read_sentence

sys.path.insert(0, str(Path(__file__).parent))

from drawing import arrow, drawing, number, rect, text

PLACE = Path(__file__).parents[1] / "_static" / "spikes.svg"

WIDTH, HEIGHT = 720, 404
SECONDS, MOVING = 11, 75  # of one turn, and the per cent of it in which something moves

STYLE = """
.paper{fill:var(--paper)}
.band{fill:var(--band)}
.cover{fill:var(--paper);transform-box:fill-box;transform-origin:100% 0;transform:scaleX(0)}
.axis{fill:none;stroke:var(--rule)}
.spike{fill:none;stroke:var(--blue);stroke-width:2}
.back{fill:none;stroke:var(--vermillion);stroke-width:2}
.answer{fill:none;stroke:var(--vermillion);stroke-width:2.4;stroke-linejoin:round}
.limit{fill:none;stroke:var(--vermillion);stroke-width:1.4;stroke-dasharray:6 4}
.near{fill:none;stroke:var(--ink);stroke-width:2}
.deep{fill:none;stroke:var(--purple);stroke-width:2}
.middle{fill:none;stroke:var(--green);stroke-width:2}
.dots{fill:none;stroke:var(--soft);stroke-width:1.3;stroke-dasharray:1.5 3}
.head{font-weight:600;font-size:15px}
.said{font-weight:600;font-size:15.5px}
.soft{fill:var(--soft);font-size:12.5px}
.token{font-size:13px}
.c-deep{fill:var(--purple);font-size:12.5px}
.c-middle{fill:var(--green);font-size:12.5px}
.c-limit{fill:var(--vermillion);font-size:12.5px}
"""


def motion(steps: int) -> str:
    """Write the style of what moves: covers that shrink to the right, and a strip of lines that is pulled up."""
    end = f"translateY({-24 * (steps - 1)}px)"
    turn = f"{SECONDS}s infinite"
    return f"""
.strip{{transform:{end}}}
@media (prefers-reduced-motion:no-preference){{
.cover{{animation:uncover {turn} linear}}
.strip{{animation:pull {turn} steps({steps - 1})}}
@keyframes uncover{{0%{{transform:scaleX(1)}}{MOVING}%,to{{transform:scaleX(0)}}}}
@keyframes pull{{0%{{transform:none}}{MOVING}%,to{{transform:{end}}}}}
}}
"""


def raster(x: float, y: float, width: float, height: float, spikes: np.ndarray, tokens: list[str]) -> list[str]:
    """Draw spikes (T, N, D) in a box: bands of tokens, rows of neurons, a mark for each spike."""
    steps, count, neurons = spikes.shape
    band = height / count
    parts = [rect(x, y + i * band, width, band, "band", 0) for i in range(0, count, 2)]
    for sign, kind in ((1, "spike"), (-1, "back")):
        marks = []
        row = 0.84 * band / neurons
        for t, token, neuron in np.argwhere(spikes == sign):
            left = x + width * (t + 0.5) / steps
            marks.append(f"M{number(left)} {number(y + token * band + 0.08 * band + neuron * row)}v{number(0.8 * row)}")
        if marks:
            parts.append(f'<path class="{kind}" d="{"".join(marks)}"/>')
    parts.append(rect(x, y - 1, width + 1, height + 2, "cover", 0))
    parts += [text(x - 8, y + (i + 0.5) * band + 4.5, token, "token", "end") for i, token in enumerate(tokens)]
    return [*parts, time_ticks(x, y + height, width, steps)]


def time_ticks(x: float, y: float, width: float, steps: int) -> str:
    """Draw the time axis below a box."""
    ticks = sorted({1, steps // 4, steps // 2, steps})
    return "".join(
        [
            arrow([(x, y + 2), (x + width, y + 2)], "axis", None),
            *(text(x + width * (t - 0.5) / steps, y + 18, str(t), "soft", "middle") for t in ticks),
        ]
    )


def curve(x: float, y: float, width: float, height: float, values: np.ndarray, kind: str) -> str:
    """Draw a line over time of values between 0 (bottom) and 1 (top)."""
    steps = len(values)
    points = [(x + width * (t + 0.5) / steps, y + height * (1 - v)) for t, v in enumerate(np.clip(values, 0, 1))]
    return arrow(points, kind, None)


def level(x: float, y: float, width: float, height: float, value: float, kind: str) -> str:
    """Draw a horizontal line."""
    return arrow([(x, y + height * (1 - value)), (x + width, y + height * (1 - value))], kind, None)


def animation(seen: Observation, tokens: list[str], classes: list[str], about: str) -> str:
    """Draw all there is of one sentence."""
    steps = len(seen.answers)
    last = list(seen.spikes)[-1]
    context = last.replace("output", "context")
    right = int(seen.limit.argmax())
    limit = float(seen.limit[right])
    said = [f"step {t}: {classes[int(p.argmax())]}, {p.max():.2f}" for t, p in enumerate(seen.answers, 1)]
    strip = "".join(f'<text x="0" y="{24 * t + 18}" class="said">{line}</text>' for t, line in enumerate(said))
    x, wide, other, narrow = 104, 300, 470, 226
    parts = [
        text(20, 34, "Spikes arrive", "head"),
        text(20, 52, f"one mark each, {seen.spikes[last].shape[-1]} neurons a token, the last population", "soft"),
        *raster(x, 68, wide, 286, seen.spikes[last], tokens),
        text(x + wide / 2, 391, "time step", "soft", "middle"),
        f'<svg x="{other - 26}" y="16" width="270" height="24" viewBox="0 0 270 24"><g class="strip">{strip}</g></svg>',
        text(other - 26, 52, "the answer, if it were read now", "soft"),
    ]
    box = (other, 68, narrow, 110)
    parts += [
        level(*box, 0, "axis"),
        level(*box, 1, "axis"),
        level(*box, limit, "limit"),
        curve(*box, seen.answers[:, right], "answer"),
        rect(other, 60, narrow + 2, 124, "cover", 0),
        level(*box, limit, "limit"),
        text(other - 8, 73, "1", "soft", "end"),
        text(other - 8, 182, "0", "soft", "end"),
        text(other + narrow, 200, f"dashed: {classes[right]} at equilibrium, {limit:.2f}", "c-limit", "end"),
        text(other - 26, 232, "Rates settle", "head"),
        text(other - 26, 250, "distance from equilibrium, like 1/T", "soft"),
    ]
    box = (other, 260, narrow, 94)

    span = 8 * steps  # the axis ends at an eighth of 1/T

    def scaled(distance: np.ndarray) -> np.ndarray:  # logarithmic, from 1 down
        return 1 + np.log(np.maximum(distance, 1e-9)) / np.log(span)

    parts += [
        level(*box, 0, "axis"),
        curve(*box, scaled(1 / np.arange(1, steps + 1)), "dots"),
        curve(*box, scaled(seen.distance["embeddings"]), "near"),
        curve(*box, scaled(seen.distance[context]), "middle"),
        curve(*box, scaled(seen.distance[last]), "deep"),
        rect(other, 255, narrow + 2, 104, "cover", 0),
        text(other - 8, 265, "1", "soft", "end"),
        text(other - 8, 260 + 94 * np.log(10) / np.log(span) + 4, "0.1", "soft", "end"),
        text(other - 8, 260 + 94 * np.log(100) / np.log(span) + 4, "0.01", "soft", "end"),
        time_ticks(other, 354, narrow, steps),
        text(other + narrow - 4, 274, "last output", "c-deep", "end"),
        text(other + narrow - 4, 290, "last context", "c-middle", "end"),
        text(other + narrow - 4, 306, "embeddings", "token", "end"),
        text(other + narrow / 2, 391, "time step", "soft", "middle"),
    ]
    return drawing(WIDTH, HEIGHT, about, STYLE + motion(steps), parts)


def main(folder: str, sentence: str, t_conv: int = 64) -> None:
    """Simulate, and write the file."""
    run = refsnn.Run(folder)
    task, read = read_sentence(run, sentence)
    seen = observe(*run.student(), *run.teacher(), read.ids, read.kinds, t_conv, "running")
    about = (
        f"Spikes of a student with {run.student()[0].bert.num_hidden_layers} encoders that reads “{sentence}” "
        f"({task.folder}) for {t_conv} time steps, its answer so far, and its rates' distance from equilibrium."
    )
    PLACE.write_text(animation(seen, read.tokens, list(task.classes), about), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
