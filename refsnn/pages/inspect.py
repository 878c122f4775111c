"""One sentence on one page: its tokens, its spikes, its rates settling, its attention, and the answer over time.

The page needs nothing else: no network, no other file. Without JavaScript, or printed, it is a page of figures and
tables; with it one can slide through time and point at tokens. The same run and sentence give the same bytes.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..data.tasks import Task
from ..errors import InputError
from ..evaluation.observe import RASTER_STEPS, RASTER_TOKENS, Observation, Sentence, Trace, observe, read_sentence
from ..files import existing, write_text
from ..model.network import kind_of
from ..model.student import StudentConfig
from ..ops import Array
from ..readings.simulate import Rule
from ..storage.run import Run
from .document import document, html_table, live, picture
from .figures.spikes import (
    WEIGHT_SCALE,
    attention_figure,
    convergence_figure,
    probability_figure,
    raster_figure,
    time_cursor,
)
from .figures.style import COLOUR, figure_legend
from .words import KINDS, population_title

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
    if t_conv < 1:
        raise InputError(f"`t_conv` is {t_conv}, but a simulation takes at least one step")
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
    steps = len(seen.answers)
    classes = task.classes or ("score",)
    sections = {
        "The answer": _answers(task, sentence, seen, classes),
        "Spikes": _raster(sentence, seen),
        "Do the rates settle?": _convergence(config, seen, rule),
        "Attention": _attention(sentence, seen),
        "Activity": _activity(seen, steps),
        "What the words mean": _meanings(config, rule),
    }
    encoders = config.bert.num_hidden_layers
    what = "a sentence" if len(sentence.texts) == 1 else "a pair of sentences"
    note = ""
    if sentence.left_out:
        note = (
            f'<p class="note">The text is longer than the {len(sentence.tokens)} tokens that the run was trained with: '
            f"{sentence.left_out} token{'s' * (sentence.left_out > 1)} at the end"
            f"{' of the longer sentence' * (len(sentence.texts) > 1)} are left out.</p>\n"
        )
    header = (
        f"<p>A spiking student of BERT, {encoders} encoder{'s' * (encoders != 1)} of width "
        f"{config.bert.hidden_size}, reads {what} of {escape(task.folder)} for {steps} time "
        f"step{'s' * (steps != 1)} (run <i>{escape(run)}</i>, integration rule <code>{rule}</code>).</p>\n"
        f"<blockquote>{'<br>'.join(map(escape, sentence.texts))}</blockquote>\n"
        f"{_tokens(sentence)}\n{note}{_verdict(task, sentence, seen, classes)}\n{CONTROLS.format(steps=steps)}"
    )
    page = document("One sentence, spike by spike", header, sections)
    files = resources.files("refsnn.pages")
    style, program = ((files / f"inspect.{ending}").read_text(encoding="utf-8") for ending in ("css", "js"))
    return live(page, style, _data(task, sentence, seen, classes), program)


#: What only a page that moves has. Its program puts it in front of the sections, where it stays in sight.
CONTROLS = """
<div class="live controls" role="group" aria-label="time">
<button type="button" id="play">Play</button>
<label><span>time step</span> <input type="range" id="time" min="1" max="{steps}" value="{steps}"></label>
<output id="clock" for="time" aria-live="off"></output>
<div id="now"></div>
</div>
""".strip()


def _tokens(sentence: Sentence) -> str:
    """Lay out the sentence as its tokens; a page that moves lets one choose them."""
    items = "\n".join(
        f'<li class="{"special" if token in ("[CLS]", "[SEP]") else "word"} sentence{kind}">'
        f'<button type="button" data-token="{i}">{escape(token)}</button></li>'
        for i, (token, kind) in enumerate(zip(sentence.tokens, sentence.kinds, strict=True))
    )
    return f'<ol class="tokens" aria-label="the sentence as {len(sentence.tokens)} tokens">\n{items}\n</ol>'


def _verdict(task: Task, sentence: Sentence, seen: Observation, classes: Sequence[str]) -> str:
    """Say in a few boxes and a sentence what each answers."""
    steps = len(seen.answers)
    answers = {"teacher (BERT)": seen.teacher, "student, rate map": seen.limit}
    answers[f"student, spikes, T = {steps}"] = seen.answers[-1]
    if task.labels:
        shown = {who: (escape(classes[int(p.argmax())]), f"{p.max():.3f}") for who, p in answers.items()}
    else:
        scale = f"of {task.scale[1]:g}" if task.scale else ""
        shown = {who: (f"{p[0]:.2f}", scale) for who, p in answers.items()}
    boxes = "\n".join(
        f"<div><dt>{who}</dt><dd>{word} <small>{number}</small></dd></div>" for who, (word, number) in shown.items()
    )
    said = [word for word, _ in shown.values()]
    if task.labels:
        words = f"All three answer <i>{said[0]}</i>."
        if len(set(said)) > 1:
            words = "The answers differ: <i>{}</i> by the teacher, <i>{}</i> by the rate map, <i>{}</i> by the spikes."
            words = words.format(*said)
        decided = seen.answers.argmax(axis=1)
        since = steps - int((decided[::-1] == decided[-1]).cumprod().sum()) + 1
        words += f" The spikes’ answer is the same from step {since} on."
    else:
        words = (
            f"Spikes and rate map differ by {abs(seen.answers[-1, 0] - seen.limit[0]):.2f}, rate map and teacher by "
            f"{abs(seen.limit[0] - seen.teacher[0]):.2f}."
        )
    if sentence.label is not None:
        truth = f"<i>{escape(classes[int(sentence.label)])}</i>" if task.labels else f"{sentence.label:.2f}"
        words += f" The {'label' if task.labels else 'true score'} is {truth}."
    return f'<dl class="numbers" aria-label="answers">\n{boxes}\n</dl>\n<p>{words}</p>'


def _trace(seen: Observation) -> Trace:
    """Numbers of the figures that the report has as well."""
    last = [name for name in seen.spikes if kind_of(name) == "output"][-1]
    shown = ("embeddings", last.replace("output", "context"), last)
    spikes = {name: seen.spikes[name][:RASTER_STEPS, :RASTER_TOKENS] for name in shown}
    return Trace(seen.distance, seen.answers, seen.limit, spikes)


def _see(word: str) -> str:
    return f'<a href="#meaning-{word}">What this means.</a>'


def _answers(task: Task, sentence: Sentence, seen: Observation, classes: Sequence[str]) -> str:
    steps, score = len(seen.answers), None
    if not task.labels:
        score = np.nan if sentence.label is None else sentence.label
    label = None if sentence.label is None or not task.labels else int(sentence.label)

    def draw():
        figure = probability_figure(_trace(seen), classes, label, [steps], score, top_score(task, seen))
        unused = {"evaluated T", "true score" if sentence.label is None else ""}
        for line in [line for line in figure.axes[0].lines if line.get_label() in unused]:
            line.remove()
        figure.legends[0].remove()
        figure_legend(figure, columns=5)
        return time_cursor(figure, steps)

    answers = {"teacher (BERT)": seen.teacher, "student, rate map": seen.limit}
    answers |= {
        f"student, T = {t}": seen.answers[t - 1] for t in (*(2**i for i in range(2, steps.bit_length())), steps)
    }
    if task.labels:
        head = ["", "answer", *map(escape, classes)]
        rows = [[who, escape(classes[int(p.argmax())]), *(f"{value:.3f}" for value in p)] for who, p in answers.items()]
        what = "Class probabilities"
    else:
        head, rows, what = ["", "score"], [[who, f"{p[0]:.3f}"] for who, p in answers.items()], "Scores"
    drawn = picture(
        1,
        "probabilities",
        f"{what} over {steps} time steps, with the rate map's as dashed lines.",
        f"What the student would answer if it were stopped after t steps. Dashed: by the rate map. {_see('answer')}",
        draw,
    )
    return f"{drawn}\n{html_table(what, head, rows)}"


def _raster(sentence: Sentence, seen: Observation) -> str:
    trace = _trace(seen)
    steps, tokens = len(seen.answers), len(sentence.tokens)
    count, first, neurons = next(iter(trace.spikes.values())).shape
    part = f", the first {count} of {steps} steps" * (count < steps)
    part += f", the first {first} of {tokens} tokens" * (first < tokens)
    common = (
        f"a row in it one of {neurons} neurons of the population, the same for every token, at evenly spaced ranks of "
        "their rate at equilibrium, the busiest on top; a mark is a spike"
    )
    still = picture(
        2,
        "raster",
        f"Raster of the spikes of each token over {count} time steps, in the embeddings, the last context and the last "
        "output population.",
        f"A band is a token, {common}{part}. {_see('raster')}",
        lambda: raster_figure(trace, sentence.tokens),
    )
    options = "\n".join(
        f'<option value="{name}"{" selected" * (name == list(trace.spikes)[-1])}>{population_title(name)}</option>'
        for name in seen.spikes
    )
    return (
        f'<div class="still">\n{still}\n</div>\n<figure class="live" id="raster-live">\n'
        f'<p class="choice"><label>population <select id="population">\n{options}\n</select></label></p>\n'
        '<canvas id="spikes" role="img" aria-label="Raster of the chosen population"></canvas>\n'
        '<p id="settling" class="note"></p>\n'
        f"<figcaption><b>Figure 2.</b> A band is a token, {common}. What comes after the chosen step is pale. Bars: "
        "each neuron’s rate up to that step; the black tick is its rate at equilibrium. Click or drag to choose a step "
        f"and a token. {_see('raster')}</figcaption>\n</figure>"
    )


def _convergence(config: StudentConfig, seen: Observation, rule: Rule) -> str:
    steps, last = len(seen.answers), config.network.readouts[-1]
    caption = (
        "Distance of the spiking rates from the rate map, mean over tokens and neurons. Dotted: 1/T, the smallest "
        "change of a rate that is counted over T steps; what settles at the rate map falls in parallel to it. "
    )
    if config.neuron.leak != 1:
        caption += "The neurons leak, so their rates keep a bias. "
    elif rule == "inst":
        caption += (
            "What levels off keeps a bias: under the rule <code>inst</code> softmax, LayerNorm and GELU act on single "
            "spikes, not on their mean. Under <code>running</code> every population settles. "
        )
    caption += f"At T\u00a0=\u00a0{steps} the last output is {seen.distance[last][-1]:.2g} away. {_see('equilibrium')}"
    return picture(
        3,
        "convergence",
        "Mean distance between spiking rates and rate map against the number of time steps, on logarithmic axes: one "
        "panel per encoder, one line per kind of population, and a line that falls like 1/T.",
        caption,
        lambda: time_cursor(convergence_figure(_trace(seen)), steps),
    )


def _attention(sentence: Sentence, seen: Observation) -> str:
    common = (
        "A row is the token that looks, a column the token looked at, both in the order of the sentence; a row adds up "
        "to 1. White is 0, the darkest the largest weight of the pair. "
    )
    still = picture(
        4,
        "attention",
        "Attention weights of every encoder and head as squares, each student beside the teacher's layer it is paired "
        "with.",
        f"{common}{_see('attention')}",
        lambda: attention_figure(seen.attention, seen.teacher_attention, seen.layers, sentence.tokens),
    )
    encoders = "\n".join(
        f'<option value="{i}"{" selected" * (i == len(seen.layers) - 1)}>{i + 1} (teacher’s layer {layer})</option>'
        for i, layer in enumerate(seen.layers)
    )
    heads = "\n".join(f'<option value="{i}">{i + 1}</option>' for i in range(len(seen.attention[0])))
    sides = "\n".join(
        f'<div><h3>{name}</h3><canvas id="weights-{side}" role="img" aria-label="attention weights, {name}"></canvas>\n'
        f'<ol class="tokens row" id="row-{side}"></ol></div>'
        for side, name in (("student", "student"), ("teacher", "teacher"))
    )
    return (
        f'<div class="still">\n{still}\n</div>\n<figure class="live" id="attention-live">\n'
        f'<p class="choice"><label>encoder <select id="encoder">\n{encoders}\n</select></label>\n'
        f'<label>head <select id="head">\n{heads}\n</select></label>\n'
        '<label>token <select id="token"></select></label></p>\n'
        f'<div class="sides">\n{sides}\n</div>\n<p id="looks" class="note"></p>\n'
        f"<figcaption><b>Figure 4.</b> {common}Below: the row of the chosen token, as percentages on the sentence. "
        f"Point at a token, here or at the top, or choose one. {_see('attention')}</figcaption>\n</figure>"
    )


def _activity(seen: Observation, steps: int) -> str:
    largest = max(1e-9, *(max(values.max(), seen.settled[name]) for name, values in seen.firing.items()))

    def bar(value: float, name: str) -> str:
        colour = KINDS[kind_of(name)][1]
        place = f'<u style="left:{100 * seen.settled[name] / largest:.1f}%"></u>'
        return f'<span class="bar"><i style="width:{100 * value / largest:.1f}%;background:{colour}"></i>{place}</span>'

    rows = [
        [
            f"{population_title(name)}",
            f"{bar(values[-1], name)}<span>{values[-1]:.3f}</span>",
            f"{seen.settled[name]:.3f}",
            f"{seen.distance[name][-1]:.3f}",
        ]
        for name, values in seen.firing.items()
    ]
    head = ["", "rate of the spikes", "rate map", "distance<small>mean |ASR − rate map|</small>"]
    caption = (
        f'Spikes per neuron and step, up to step <span id="until">{steps}</span>, mean over tokens and neurons. Tick: '
        f"rate map. {_see('rate')}"
    )
    return f'<div id="activity" data-largest="{largest:.6g}">\n{html_table(caption, head, rows)}\n</div>'


def _meanings(config: StudentConfig, rule: Rule) -> str:
    current = {
        "inst": "I[t] = f(s[t]): each map acts on the spikes of that step (rule <code>inst</code>, the paper’s)",
        "running": "I[t] = t·f(ā[t]) − (t−1)·f(ā[t−1]), with ā the running mean of the spikes read (rule "
        "<code>running</code>)",
    }[rule]
    leak = config.neuron.leak
    leaks = f" From step to step it leaks to {leak:g} of itself." if leak != 1 else ""
    driven = "a constant current and the feedback of the last output" if config.feedback else "a constant current"
    words = {
        "token": (
            "Token",
            "A word or a piece of one (## continues a word). [CLS] stands at the front, and the answer is read there; "
            "[SEP] ends a sentence. All neurons exist once for every token.",
        ),
        "raster": (
            "Spike, raster",
            "A neuron’s potential u adds up its input current I, and where it reaches the threshold V_th, the neuron "
            f"spikes (s = 1) and V_th is taken off.{leaks} Here {current}. A raster marks the spikes over time.",
        ),
        "rate": (
            "Rate (ASR)",
            "The average spiking rate a[T] = (s[1] + … + s[T]) / T: the share of the steps so far in which a neuron "
            "fired.",
        ),
        "equilibrium": (
            "Rate map, equilibrium",
            "The rates at which every population agrees with those it reads: a = σ(f(a)/V_th), where σ cuts to [0, 1]. "
            "Spiking rates should settle there.",
        ),
        "population": (
            "Population",
            "One layer of neurons. An encoder has six: key and value; context, which is attention; attention output; "
            f"intermediate; output. The embeddings are one more, driven by {driven}.",
        ),
        "attention": (
            "Attention",
            "softmax(q·kᵀ/√d): how much each token takes from every token. Keys of the student are rates at "
            "equilibrium, its queries a real-valued map of rates. Distillation compares each of its encoders with one "
            "layer of the teacher, before the softmax.",
        ),
        "answer": (
            "Answer",
            "softmax(W_c·a + b_c), where a are the rates of the last output at [CLS] up to then; of a regression the "
            "score itself. The teacher is the BERT that the student was distilled from.",
        ),
    }
    items = "\n".join(f'<dt id="meaning-{key}">{word}</dt>\n<dd>{text}</dd>' for key, (word, text) in words.items())
    return f'<dl class="meanings">\n{items}\n</dl>'


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
        "answers": _short(seen.answers),
        "limit": _short(seen.limit),
        "populations": [
            {
                "name": name,
                "title": population_title(name),
                "colour": KINDS[kind_of(name)][1],
                "neurons": spikes.shape[-1],
                "spikes": _base64(np.packbits(spikes, bitorder="little")),  # (T, tokens, neurons)
                "rates": _base64(np.round(255 * seen.rates[name]).astype(np.uint8)),  # (tokens, neurons)
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
