"""The page that replays a sentence: what it says, that it needs nothing else, and that no token can harm it."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from conftest import random_gpt
from test_inspect import Outline

from refsnn.distillation.language import next_token_logits
from refsnn.errors import InputError
from refsnn.evaluation.generate import Choice, Story, generate
from refsnn.model.batch import Batch
from refsnn.model.gpt import FINAL, GptConfig, SpikingGptConfig
from refsnn.model.neurons import Neuron
from refsnn.pages import language
from refsnn.pages.language import write_page
from refsnn.readings.simulate import simulate

pytest.importorskip("jinja2", reason="pages are made with jinja2")

HOSTILE = [
    "</script>",
    "<script>alert(1)</script>",
    " & ",
    "&lt;",
    '"><img src=x>',
    "{{ 1 }}",
    "<!--",
    "\n",
    "�",
    " ok",
]
WORDS = [*HOSTILE, *(f" w{i}" for i in range(13))]
CONFIG = GptConfig(vocab_size=len(WORDS), n_positions=34, n_embd=24, n_layer=2, n_head=3)
PROMPT = [0, 1, 3, 4, 5, 6]
T = 8


def story(length=26, t_conv=T, polarity="ternary", keep_all=True, config=CONFIG):
    student, params = SpikingGptConfig(config, Neuron(polarity=polarity)), random_gpt(config, 3)
    arguments = (student.network, params, config, PROMPT, length, t_conv, "running", Choice(0.8), 1, keep_all)
    *_, written = generate(*arguments)
    text = [WORDS[token] for token in written.ids]
    guesses = [[WORDS[guess.token] for guess in row] for row in written.guesses]
    return Story(student, params, text, guesses, len(PROMPT), written, t_conv, "running")


@pytest.fixture(scope="module")
def told():
    return story()


@pytest.fixture(scope="module")
def page(told, tmp_path_factory):
    path = tmp_path_factory.mktemp("story") / "story.html"
    write_page(path, told)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outline(page):
    return Outline(page)


def test_guesses_are_those_of_the_rates_at_every_position(told):
    ids = told.written.ids
    batch = Batch.of([ids[:-1]])
    rates = simulate(told.config.network, told.params, batch, [T], "running")[T][FINAL]
    z = next_token_logits(told.params, rates)[0][0]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    assert len(told.written.guesses) == len(ids) - 1
    for row, wanted, followed in zip(told.written.guesses, p, ids[1:], strict=True):
        tokens = [guess.token for guess in row]
        assert tokens[:5] == np.argsort(-wanted, kind="stable")[:5].tolist()
        assert tokens[5:] == [] if followed in tokens[:5] else tokens[5:] == [followed]
        np.testing.assert_allclose([guess.probability for guess in row], wanted[tokens], rtol=1e-9)
    assert {len(row) for row in told.written.guesses} == {5, 6}


def test_without_keep_all_nothing_is_kept_for_a_page(told, tmp_path):
    other = story(keep_all=False)
    assert other.written.ids == told.written.ids and other.written.guesses == []
    with pytest.raises(InputError, match="were not kept; write it again with `keep_all`"):
        write_page(tmp_path / "page.html", other)
    assert not list(tmp_path.iterdir())


def test_tokens_are_text_and_nothing_else(page, outline):
    assert {WORDS[i] for i in PROMPT} <= set(json.loads(outline.scripts[0])["pieces"])
    assert [tag for tag, _ in outline.seen].count("script") == 2 == page.count("</script>")
    assert not {"img", "link", "iframe", "object", "embed"} & {tag for tag, _ in outline.seen}
    assert all(f">{WORDS[i]}</button>" in unescape(page) for i in PROMPT)  # braces of a template among them


def test_page_needs_nothing_else(page, outline):
    assert all(link.startswith("#") for link in outline.links)
    assert {link[1:] for link in outline.links} <= set(outline.ids) and len(outline.ids) == len(set(outline.ids))
    assert "://" not in page and "@import" not in page
    assert not re.search(r"\b(fetch|XMLHttpRequest|import|eval|innerHTML)\b", outline.scripts[1])
    assert set(re.findall(r'byId\("([\w-]+)"\)', outline.scripts[1])) <= set(outline.ids)


def test_numbers_of_the_page_are_those_of_the_spikes(told, outline):
    data = json.loads(outline.scripts[0])
    spikes = told.written.spikes
    for block in range(2):
        mine = [np.abs(train) for name, train in spikes.items() if name.startswith(f"block.{block}.")]
        count = sum(train.sum(axis=(0, 1, 3)) for train in mine)  # at every position
        wanted = count / (T * sum(train.shape[-1] for train in mine))
        np.testing.assert_allclose(data["firing"][f"block {block + 1}"], wanted, rtol=5e-3)
    assert list(data["firing"]) == ["block 1", "block 2", "final norm"] and data["steps"] == T
    after = [row for row in outline.rows if len(row) == 7][1:]
    assert len(after) == len(told.pieces) - 1
    for row, guesses, texts in zip(after, told.written.guesses, told.guesses, strict=True):
        for cell, guess, text in zip(row[1:], guesses, texts, strict=False):
            assert cell == f"{text.replace(chr(10), '⏎')} {guess.probability:.2f}"


def drawn(path, rows, columns):
    """The marks of a path, by reading it as a browser does."""
    found = np.zeros((rows, columns), int)
    x = y = 0
    for letter, numbers in re.findall(r"([Mmh])([^Mmh]*)", path):
        values = [float(number) for number in numbers.split()]
        if letter == "h":
            found[int(y), int(x) : int(x + values[0])] += 1
            x += values[0]
        else:
            x, y = values if letter == "M" else (x + values[0], y + values[1])
    return found


def test_raster_has_every_spike_of_its_neurons(told):
    for band, name in zip(language._bands(told, T), ("block.0.attention_norm", "block.1.context"), strict=False):
        train = told.written.spikes[name][:, 0]
        wanted = train.transpose(2, 1, 0).reshape(train.shape[-1], -1)
        marks = drawn(band.up, band.neurons, wanted.shape[1]) - drawn(band.down, band.neurons, wanted.shape[1])
        assert band.neurons == 24 == len(wanted)
        assert sorted(map(tuple, marks)) == sorted(map(tuple, wanted)) and {-1, 0, 1} == set(marks.ravel())
        busy = np.abs(marks).sum(axis=1)
        assert (np.diff(busy) <= 0).all()


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"polarity": "unsigned", "length": 1, "t_conv": 1}, 1),
        ({"t_conv": 40, "config": replace(CONFIG, n_layer=1)}, 32),
    ],
    ids=["one step", "more than are drawn"],
)
def test_other_stories(tmp_path, options, steps):
    write_page(tmp_path / "page.html", story(**options))
    found = Outline((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert json.loads(found.scripts[0])["steps"] == steps
    assert ("the first 32 of 40 time steps" in " ".join(found.text.split())) == (steps == 32)


def test_size_of_a_page_of_32_tokens_whatever_is_fired(told, tmp_path):
    """The worst case: every other step a spike."""
    busy = replace(told, t_conv=64)
    alternate = np.arange(64)[:, None, None, None] % 2
    spikes = {name: alternate + 0 * train[:1] for name, train in told.written.spikes.items()}
    busy = replace(busy, written=replace(told.written, spikes=spikes))
    write_page(tmp_path / "page.html", busy)
    assert len(busy.pieces) == 32 and (tmp_path / "page.html").stat().st_size < 1e6


def test_page_can_be_read_without_its_program(outline, told):
    """What is there before it runs: all tokens, all spikes, all guesses, mean activity."""
    tokens = [values for _, values in outline.seen if values.get("class", "").split()[:1] == ["token"]]
    assert len(tokens) == len(told.pieces) and not any("hidden" in values for values in tokens)
    assert sum("prompt" in values["class"] for values in tokens) == len(PROMPT)
    whole = [values for tag, values in outline.seen if tag == "svg" and values["viewbox"].startswith(f"0 0 {31 * T} ")]
    assert len(whole) == 4 and all(len(values["aria-label"]) > 20 for values in whole)
    assert [row[0] for row in outline.rows if len(row) == 2] == ["block 1", "block 2", "final norm"]


def test_program_is_javascript_and_asks_for_less_motion():
    path = Path(language.__file__).with_name("story.js")
    assert "prefers-reduced-motion" in path.read_text(encoding="utf-8")
    if not (node := shutil.which("node")):
        pytest.skip("node is not installed; it checks the syntax of the page's program")
    subprocess.run([node, "--check", path], check=True)


@pytest.mark.parametrize("dark", [False, True])
def test_page_fits_every_screen_in_a_browser(page, seen, dark):
    lacking, paper = seen(page, dark)
    assert lacking == [0, 0, 0]
    assert (paper == "rgb(25, 26, 28)") == dark


@pytest.mark.parametrize("calm", [False, True])
def test_sentence_appears_token_by_token_or_stands_still(page, tmp_path, calm):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no browser is installed; it shows the page")
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--force-prefers-reduced-motion"] if calm else []

    def hidden(milliseconds):
        command = [browser, *options, f"--virtual-time-budget={milliseconds}", "--dump-dom", path.as_uri()]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        return len(re.findall(r'<button[^>]* hidden="', shown))

    if calm:
        assert hidden(1000) == 0
    else:
        early, late = hidden(1000), hidden(10_000)
        assert 0 < late < early <= 26 and hidden(120_000) == 0


def test_same_story_gives_the_same_bytes(told, page, tmp_path):
    write_page(tmp_path / "again.html", told)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


# ---------------------------------------------------------------------------------------------------------------------
# The demonstration


def test_the_demonstration_in_small(tmp_path, monkeypatch, capsys):
    from refsnn.commands.cli import main
    from refsnn.reproduction import demo

    pytest.importorskip("tokenizers", reason="text is read with tokenizers")
    sizes = {"vocab_size": 300, "positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2, "epochs": 1, "batch_size": 32}
    monkeypatch.setattr(demo, "GPT", replace(demo.GPT, **sizes))
    monkeypatch.setattr(demo, "SPIKING_GPT", replace(demo.SPIKING_GPT, fraction=0.1))
    monkeypatch.setattr(demo, "PARAGRAPHS_EACH", 2)
    monkeypatch.setattr(demo, "GPT_T_CONV", (2, 6))
    monkeypatch.setattr(demo, "WRITTEN", 6)
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--gpt", "--seed", "1"]) == 0
    out = capsys.readouterr().out
    run = tmp_path / "runs" / "demo-gpt"
    assert "trigram" in out and "T = 6" in out and f"Now open {run.relative_to(tmp_path) / 'story.html'}" in out
    written = {name: (run / name).read_bytes() for name in ("model.safetensors", "story.html", "language-running.json")}
    assert Outline(written["story.html"].decode()).scripts
    assert main(["demo", "--gpt", "--seed", "1"]) == 0  # nothing is trained again
    assert capsys.readouterr().out == out
    assert {name: (run / name).read_bytes() for name in written} == written
    assert main(["demo", "--gpt", "--seed", "2"]) == 2
    assert "seed was 1 and is 2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["demo", "--gpt", "--task", "pairs"])
