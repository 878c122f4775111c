"""Draw student and teacher: ``python docs/figures/architecture.py`` writes docs/_static/architecture.svg."""

import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from drawing import arrow, drawing, rect, text

PLACE = Path(__file__).parents[1] / "_static" / "architecture.svg"

STYLE = """
.paper{fill:var(--paper)}
.analogue{fill:var(--band);stroke:var(--rule)}
.spiking{fill:var(--blue-pale);stroke:var(--blue);stroke-width:1.4}
.frame{fill:none;stroke:var(--rule);stroke-dasharray:2 3}
.line{fill:none;stroke:var(--soft);stroke-width:1.4}
.teach{fill:none;stroke:var(--vermillion);stroke-width:1.6}
.back{fill:none;stroke:var(--green);stroke-width:1.5;stroke-dasharray:5 3}
.tick{stroke:var(--blue);stroke-width:1.8}
.head{font-weight:600;font-size:16px}
.soft{fill:var(--soft);font-size:12.5px}
.small{font-size:12.5px}
.taught{fill:var(--vermillion);font-size:12.5px}
.fed{fill:var(--green);font-size:12.5px}
"""

TITLE = (
    "A BERT teacher of four encoders beside a spiking student of two. Hidden states and attention scores of every "
    "second encoder, and soft labels, are what the student is taught. A spiking encoder has six populations of "
    "neurons: key, value, context, attention output, intermediate and output."
)


def spikes(x: float, y: float) -> str:
    """Draw a small spike train."""
    return "".join(
        f'<line class="tick" x1="{x + d:g}" x2="{x + d:g}" y1="{y:g}" y2="{y + 10:g}"/>' for d in (0, 4, 12, 20, 24)
    )


def box(x: float, y: float, width: float, words: str, spiking: bool = False, height: float = 30) -> list[str]:
    """Draw a named box; one of neurons is blue and has a spike train."""
    if not spiking:
        return [
            rect(x, y, width, height, "analogue"),
            text(x + width / 2, y + height / 2 + 5, words, "small", "middle"),
        ]
    return [
        rect(x, y, width, height, "spiking"),
        text(x + 8, y + height / 2 + 5, words, "small"),
        spikes(x + width - 33, y + height / 2 - 5),
    ]


def teacher() -> list[str]:
    """Draw the left column: a BERT."""
    parts = [text(86, 34, "Teacher: BERT", "head", "middle"), text(86, 52, "real numbers, one pass", "soft", "middle")]
    rows = [("embeddings", 76), *((f"encoder {i + 1}", 136 + 50 * i) for i in range(4)), ("classifier", 356)]
    for name, y in rows:
        parts += box(20, y, 132, name)
    for (_, y), (_, below) in pairwise(rows):
        parts.append(arrow([(86, y + 30), (86, below - 1)]))
    return parts


def student() -> list[str]:
    """Draw the middle column: the student, beside the layers that teach it."""
    parts = [text(352, 34, "Student: spikes", "head", "middle"), text(352, 52, "T time steps", "soft", "middle")]
    rows = [("embeddings", 76, True), ("encoder 1", 186, True), ("encoder 2", 286, True), ("classifier", 356, False)]
    for name, y, spiking in rows:
        parts += box(280, y, 144, name, spiking)
    for (_, y, _), (_, below, _) in pairwise(rows):
        parts.append(arrow([(352, y + 30), (352, below - 1)]))
    for y, words in ((91, "hidden states"), (201, "hidden states"), (301, "hidden states"), (371, "soft labels")):
        parts += [arrow([(154, y), (278, y)], "teach", "head-teach"), text(215, y - 6, words, "taught", "middle")]
        if y in (201, 301):
            parts.append(text(215, y + 15, "attention scores", "taught", "middle"))
    parts.append(arrow([(425, 308), (440, 308), (440, 91), (426, 91)], "back", "head-back"))
    parts += [text(447, 244, "feedback", "fed"), text(447, 259, "(optional)", "fed")]
    return parts


def encoder() -> list[str]:
    """Draw the lower half: what is in one spiking encoder, from left to right."""
    parts = [
        rect(20, 424, 660, 196, "frame", 8),
        text(34, 448, "One spiking encoder: six populations of integrate-and-fire neurons", "head"),
        arrow([(424, 301), (560, 301), (560, 423)], "frame", None),
    ]
    parts += [text(34, 537, "h", "head")]
    parts += box(74, 470, 98, "key", True)
    parts += box(74, 517, 98, "value", True)
    parts += box(74, 564, 98, "query")
    parts += box(216, 517, 104, "context", True)
    parts += box(346, 517, 114, "attn. out", True)
    parts += box(480, 470, 134, "intermediate", True)
    parts += box(566, 517, 100, "output", True)
    for y in (485, 532, 579):
        parts.append(arrow([(48, 532), (58, 532), (58, y), (73, y)]))
    for y, end in ((485, 524), (532, 532), (579, 540)):
        parts.append(arrow([(172, y), (194, y), (194, end), (215, end)]))
    parts += [
        arrow([(320, 532), (345, 532)]),
        arrow([(460, 526), (470, 526), (470, 485), (479, 485)]),
        arrow([(614, 485), (630, 485), (630, 516)]),
        arrow([(460, 538), (565, 538)]),
        arrow([(41, 542), (41, 608), (402, 608), (402, 548)]),
        text(268, 566, "softmax(q·kᵀ)·v", "soft", "middle"),
        text(402, 510, "LayerNorm", "soft", "middle"),
        text(545, 463, "GELU", "soft", "middle"),
        text(616, 566, "LayerNorm", "soft", "middle"),
        text(210, 602, "residual", "soft", "middle"),
        text(515, 554, "residual", "soft", "middle"),
    ]
    return parts


def legend() -> list[str]:
    """Say what blue means, and what is read out."""
    return [
        *box(500, 166, 64, "", True, 24),
        text(574, 183, "neurons", "small"),
        *box(500, 198, 64, "", False, 24),
        text(574, 215, "real numbers", "small"),
        text(500, 80, "Read-out: the average", "soft"),
        text(500, 96, "spiking rate, whose limit", "soft"),
        text(500, 112, "is the equilibrium", "soft"),
        text(500, 136, "a = σ( f(a) / V_th )"),
    ]


def architecture() -> str:
    """Draw all of it."""
    return drawing(700, 640, TITLE, STYLE, [*teacher(), *student(), *legend(), *encoder()])


if __name__ == "__main__":
    PLACE.write_text(architecture(), encoding="utf-8")
