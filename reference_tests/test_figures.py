"""The documents' figures are what their scripts draw, whole, small, and legible in light and dark."""

import importlib.util
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from refsnn.evaluation.observe import Observation

DOCS = Path(__file__).resolve().parents[1] / "docs"
FIGURES = sorted((DOCS / "_static").glob("*.svg"))
every_figure = pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)


def script(name):
    """Import a script of docs/figures, which is no package."""
    spec = importlib.util.spec_from_file_location(f"figure_{name}", DOCS / "figures" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


def luminance(colour):
    """Relative luminance of #rrggbb, as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


def test_architecture_is_what_its_script_draws():
    module = script("architecture")
    assert module.PLACE.read_text(encoding="utf-8") == module.architecture(), "run docs/figures/architecture.py"


@every_figure
def test_figure_is_whole_small_and_says_what_it_shows(path):
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert len(text) < 1_000_000 and not re.search(r"(href|src)=|https?://(?!www\.w3\.org/)|<script", text)
    assert len(root.find("{http://www.w3.org/2000/svg}title").text) > 40
    defined = set(re.findall(r"\.([a-z][\w-]*)(?=[{,:])", text))
    used = {word for found in re.findall(r'class="([^"]+)"', text) for word in found.split()}
    assert used <= defined, f"no style says what {used - defined} looks like"


@pytest.mark.parametrize("dark", [0, 1], ids=["light", "dark"])
def test_words_can_be_read_on_the_background(dark):
    colours = {name: both[dark] for name, both in script("drawing").COLOURS.items()}
    for name in ("ink", "soft", "blue", "vermillion", "green", "purple"):
        low, high = sorted(luminance(colours[which]) for which in (name, "paper"))
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{name} is too pale on {colours['paper']}"


def observation(steps, tokens, neurons, rng):
    names = ["embeddings", "encoder.0.context", "encoder.0.output"]
    answers = rng.dirichlet([1, 1], steps)
    return Observation(
        distance={name: 1 / np.arange(1, steps + 1) for name in names},
        firing={},
        settled={},
        spikes={name: rng.integers(-1, 2, (steps, tokens, neurons)) for name in names},
        rates={},
        answers=answers,
        limit=answers[-1],
        teacher=answers[-1],
        attention=[],
        teacher_attention=[],
        layers=[1],
    )


def test_animation_draws_every_spike_and_every_answer():
    seen = observation(16, 3, 6, np.random.default_rng(0))
    text = script("animation").animation(seen, ["[CLS]", "a <b>", "[SEP]"], ["no", "yes"], "a made-up sentence")
    ElementTree.fromstring(text)
    spikes = seen.spikes["encoder.0.output"]
    for kind, sign in (("spike", 1), ("back", -1)):
        (marks,) = re.findall(rf'<path class="{kind}" d="([^"]*)"', text)
        assert marks.count("M") == (spikes == sign).sum()
    said = re.findall(r"step (\d+): (\w+), (\d\.\d\d)", text)
    expected = [(str(t), ("no", "yes")[p.argmax()], f"{p.max():.2f}") for t, p in enumerate(seen.answers, 1)]
    assert said == expected
    assert "prefers-reduced-motion" in text and "a &lt;b&gt;" in text
