"""The page about a run: whole, self-contained, true to results.json, and never half written."""

import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from refsnn.distillation.stages import distill
from refsnn.errors import InputError
from refsnn.evaluation.evaluate import evaluate_run
from refsnn.evaluation.observe import Trace, follow
from refsnn.model.shapes import BertConfig
from refsnn.pages import document as pages
from refsnn.pages import report
from refsnn.pages.figures.accuracy import accuracy_figure
from refsnn.pages.figures.spikes import convergence_figure, probability_figure, raster_figure
from refsnn.pages.figures.style import STYLE, figure_style, new_figure
from refsnn.pages.figures.training import training_figure
from refsnn.pages.words import KINDS
from refsnn.storage.checkpoints import load_student
from refsnn.storage.recipe import Recipe
from refsnn.storage.run import Run

TIMES = [2, 8]
NOUNS = ["film", "story", "plot", "cast", "music"]
ADJECTIVES = {"1": ["good", "lovely", "clever"], "0": ["bad", "dull", "weak"]}
HOSTILE = "<script>alert('x')</script> & \"quotes\""
FIGURES = ["accuracy", "training", "convergence", "raster", "probability", "energy"]
IDS = [*FIGURES[:4], "probabilities", "energy"]


# ---------------------------------------------------------------------------------------------------------------------
# Helpers


def sentences(count, seed):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        label = str(rng.integers(2))
        yield f"the {rng.choice(NOUNS)} is {rng.choice(ADJECTIVES[label])}", label


def write_rows(path, rows):
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory):
    """An evaluated run, and its data folder beside it."""
    root = tmp_path_factory.mktemp("report")
    data = root / "data"
    data.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "is", *NOUNS, *ADJECTIVES["0"], *ADJECTIVES["1"]]
    (data / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    write_rows(data / "train.tsv", sentences(64, 0))
    write_rows(data / "dev.tsv", sentences(16, 1))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    epochs = {f"epochs_{stage}": 1 for stage in ("teacher", "general", "internal", "prediction")}
    distill(Recipe(task="sst2", encoders=2, batch_size=8, **epochs), data, (config, data), root / "run")
    evaluate_run(root / "run", data, TIMES)
    return root / "run"


@pytest.fixture
def run(evaluated, tmp_path):
    """A copy of the run that a test may spoil."""
    return shutil.copytree(evaluated, tmp_path / "run")


@pytest.fixture(scope="session")
def page(evaluated):
    """The page of the run, with hostile text in all that the page quotes."""
    folder = shutil.copytree(evaluated, evaluated.parent / "hostile")
    edit(folder / "results-inst.json", lambda values: values["example"].update(text=HOSTILE))
    edit(folder / "run.json", lambda values: values["settings"].update(data=f"/data/{HOSTILE}"))
    path = report.write_report(folder)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def edit(path, change):
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.fixture
def plain(monkeypatch):
    """Empty figures in place of the real ones, for what is not about figures."""
    for name in FIGURES:
        monkeypatch.setattr(report, f"{name}_figure", lambda *_: new_figure(1.0))


class Outline(HTMLParser):
    """Checks the nesting of tags and collects ids, links and the text of tables."""

    VOID = frozenset({"meta"})

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.ids, self.links, self.tables = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("src", "href", "xlink:href", "action", "data") if name in values]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, text):
        if self.open and {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += text


@pytest.fixture(scope="session")
def outline(page):
    return Outline(page)


# ---------------------------------------------------------------------------------------------------------------------
# The page


def test_tags_are_balanced_and_names_unique(outline):
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))


def test_references_stay_inside_the_page(page, outline):
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in outline.links)
    assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)
    clips = {name[5:-1] for name in re.findall(r"url\([^)]*\)", page)}
    assert clips and clips <= set(outline.ids)
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in outline.seen}
    assert "://" not in page and "@import" not in page
    assert len(page) < 2_000_000


def test_page_has_title_language_sections_and_figures(page, outline):
    assert ("html", {"lang": "en"}) in outline.seen
    assert "<title>A spiking student of BERT on SST-2</title>" in page
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", page)
    assert len(headings) == 7 and headings[0] == "Results" and headings[-1] == "Settings"
    assert [attributes["id"] for tag, attributes in outline.seen if tag == "figure"] == IDS
    pictures = [attributes for tag, attributes in outline.seen if tag == "svg"]
    assert len(pictures) == 6 and all(p["role"] == "img" and len(p["aria-label"]) > 20 for p in pictures)
    assert page.count("<figcaption>") == 6


def test_table_holds_the_numbers_of_the_results(evaluated, outline):
    results = json.loads((evaluated / "results-inst.json").read_text(encoding="utf-8"))
    head, majority, teacher, rates, *spikes = outline.tables[0]
    assert majority[0] == f"always {results['majority']['label']}"
    assert majority[1] == f"{100 * results['majority']['share']:.1f}"
    assert [cell.removesuffix(" %") for cell in head[1:3]] == ["accuracy", "agrees"]
    assert teacher[1] == f"{100 * results['teacher_accuracy']:.1f}"
    assert rates[1] == f"{100 * results['rate_accuracy']:.1f}"
    assert [row[0] for row in spikes] == [f"student, T = {t}" for t in TIMES]
    for cells, row in zip(spikes, results["spikes"], strict=True):
        shown = [float(cell.rstrip("×")) for cell in cells[1:]]
        true = [100 * row["accuracy"], 100 * row["agreement"], row["firing_rate"], row["norm_ops"], row["energy_gain"]]
        true.append(row["full"]["gain"])
        decimals = [1, 1, 3, 2, 2, 2]
        assert shown == [float(f"{value:.{places}f}") for value, places in zip(true, decimals, strict=True)]


def test_settings_show_recipe_stages_and_versions(evaluated, outline):
    record = json.loads((evaluated / "run.json").read_text(encoding="utf-8"))
    rows = {row[0]: row[1:] for table in outline.tables for row in table if row}
    assert rows["seed"] == ["0"] and rows["batch_size"] == ["8"]
    assert rows["internal"][:3] == ["1", "0.0003", "8"] and rows["internal"][3].endswith("s")
    assert rows["numpy"] == [record["versions"]["numpy"]] * 2


def test_text_of_the_run_is_escaped(page):
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2
    assert HOSTILE in unescape(page)


def test_tokens_are_spelled_in_the_raster(page):
    raster = page[page.index('<figure id="raster">') : page.index('<figure id="probabilities">')]
    assert all(f">{token}</text>" in raster for token in ("[CLS]", "the", "is", "[SEP]"))


def test_classes_go_by_their_names(evaluated, page):
    label = json.loads((evaluated / "results-inst.json").read_text(encoding="utf-8"))["example"]["label"]
    true, other = ("positive", "negative") if label == "1" else ("negative", "positive")
    answer = page[page.index('<figure id="probabilities">') : page.index('<figure id="energy">')]
    assert f">{true} (true)</text>" in answer and f">{other}</text>" in answer
    assert f"the label is <i>{true}</i>." in answer and "class 0" not in page and "class 1" not in page


@pytest.mark.usefixtures("plain")
def test_headline_is_the_best_of_the_times_that_save_energy(run):
    def said(gains, values):
        def change(results):
            for row, gain, value in zip(results["spikes"], gains, values, strict=True):
                row["energy_gain"], row["metrics"]["accuracy"] = gain, value

        edit(run / "results-inst.json", change)
        page = report.write_report(run).read_text(encoding="utf-8")
        cards = page[page.index('<dl class="numbers"') :]
        return " ".join(cards[: cards.index("</dl>")].split())

    best = said([4.0, 1.5], [0.5, 0.75])
    assert (
        "T = 8</dt><dd>75.0" in best and "the best T that saves energy by the paper’s count (energy gain 1.50×)" in best
    )
    assert "by the full count the gain is" in best
    assert "T = 2</dt><dd>50.0" in said([4.0, 0.5], [0.5, 0.75])  # more steps are better, and cost more
    assert "T = 2</dt><dd>75.0" in said([4.0, 1.5], [0.75, 0.75])  # as good, and cheaper
    assert "no evaluated T saves energy by the paper’s count (energy gain 0.25×)" in said([0.5, 0.25], [0.5, 0.75])
    assert "T = 8</dt><dd>50.0" in said([None, 1.5], [0.75, 0.5])  # without a spike there is no answer


@pytest.mark.usefixtures("plain")
def test_a_student_that_never_fires_has_a_page(run):
    def silence(results):
        for row in results["spikes"]:
            row.update(firing_rate=0.0, energy_gain=None, norm_ops=0.0)

    edit(run / "results-inst.json", silence)
    page = report.write_report(run).read_text(encoding="utf-8")
    assert "No spike reaches a synapse in these steps." in page
    assert "no evaluated T saves energy by the paper’s count (energy gain –)" in page


def test_text_that_looks_like_part_of_a_drawing_is_left_alone():
    odd = 'id="x" href="#y" url(#z)'
    with figure_style():
        figure = new_figure(1.0)
        figure.text(0, 0, odd)
        drawn = svg(figure)
    assert odd in unescape(drawn) and 'id="name-figure_1"' in drawn


@pytest.mark.usefixtures("plain")
def test_hostile_names_stay_text_everywhere(run):
    odd = "<script>alert(1)</script>\n\"'&amp;{{ 7 * 7 }}</td>"
    edit(run / "run.json", lambda values: values["settings"].update(corpus=odd, teacher=odd, data=odd))
    edit(run / "run.json", lambda values: values.update(versions={odd: odd}))
    edit(run / "results-inst.json", lambda values: values.update(task=odd, split=odd, energies={odd: 1.0}))
    edit(run / "results-inst.json", lambda values: values["example"].update(text=odd))
    page = report.write_report(run).read_text(encoding="utf-8")
    outline = Outline(page)
    assert outline.open == [] and not {"script"} & {tag for tag, _ in outline.seen}
    assert unescape(page).count(odd) >= 8 and "49" not in re.sub(r"<[^>]*>", "", page[: page.index("</h1>")])


def test_page_reads_on_a_telephone_in_the_dark_and_on_paper(page):
    """Colours are the style sheet's variables, which the dark has values for; what is wide scrolls by itself."""
    style = page[page.index("<style>") : page.index("</style>")]
    assert "prefers-color-scheme: dark" in style and "@media print" in style
    light, dark = re.findall(r":root \{([^}]*)\}", style)
    names = [set(re.findall(r"(--[\w-]+):", part)) for part in (light, dark)]
    assert names[0] - names[1] == {"--plain"} and names[1] < names[0]
    used = set(re.findall(r"var\((--[\w-]+)\)", style))
    assert used and used <= names[0]
    assert page.count("<table") == page.count('<div class="scroll"><table')
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page


@pytest.mark.parametrize(("dark", "paper"), [(False, "rgb(253, 253, 251)"), (True, "rgb(25, 26, 28)")])
def test_page_fits_every_screen_in_a_browser(page, seen, dark, paper):
    assert seen(page, dark) == ([0, 0, 0], paper)


def test_long_tables_are_folded(page):
    recipe = page[page.index("<summary>Recipe</summary>") :]
    assert recipe.index("batch_size") < recipe.index("</details>")
    assert "<summary>Stages" not in page


def test_a_page_that_lacks_a_value_is_not_written():
    import jinja2

    with pytest.raises(jinja2.UndefinedError):
        pages.render("report.html", results={"task": "x"})


# ---------------------------------------------------------------------------------------------------------------------
# What may be missing or fail


def test_run_without_results_says_to_evaluate(run):
    (run / "results-inst.json").unlink()
    with pytest.raises(InputError, match="refsnn evaluate"):
        report.write_report(run)
    assert not (run / "report.html").exists()


def test_results_of_another_format_say_to_evaluate_again(run):
    edit(run / "results-inst.json", lambda values: values.pop("example"))
    with pytest.raises(InputError, match=r"example is missing, but a table was expected; evaluate the run again"):
        report.write_report(run)


@pytest.mark.usefixtures("plain")
def test_run_without_log_timings_or_tokenizer_still_has_a_page(run):
    for name in ("log.jsonl", "timings.json", "vocab.txt"):
        (run / name).unlink()
    page = report.write_report(run).read_text(encoding="utf-8")
    assert "has no training log" in page
    assert page.count("<figure ") == 5
    config, _ = load_student(run)
    assert report._tokens(run, config, [2, 5]) == ["2", "5"]


@pytest.mark.usefixtures("plain")
def test_page_is_replaced_whole_or_not_at_all(run, monkeypatch):
    path = report.write_report(run)
    before = path.read_bytes()
    assert report.write_report(run).read_bytes() == before

    def broken(*_):
        raise RuntimeError("no picture")

    monkeypatch.setattr(report, "energy_figure", broken)
    with pytest.raises(RuntimeError, match="no picture"):
        report.write_report(run)
    assert path.read_bytes() == before
    assert [p.name for p in run.iterdir() if p.name.endswith(".part")] == []


def test_log_lines_cut_by_a_kill_are_skipped(run):
    path = run / "log.jsonl"
    whole = Run(run).log()
    path.write_text(path.read_text(encoding="utf-8") + '{"stage": "prediction", "st', encoding="utf-8")
    assert Run(run).log() == whole
    assert list(whole) == ["teacher", "general", "internal", "prediction"]
    assert set(whole["internal"][0]) == {"step", "lr", "hidden", "attention"}


# ---------------------------------------------------------------------------------------------------------------------
# Figures


def trace(steps, encoders, tokens):
    rng = np.random.default_rng(0)
    kinds = [kind for kind in KINDS if kind != "embeddings"]
    names = ["embeddings"] + [f"encoder.{e}.{kind}" for e in range(encoders) for kind in kinds]
    shown = ("embeddings", names[-4], names[-1])
    distance = {name: rng.random(steps) / np.arange(1, steps + 1) for name in names}
    distance[names[1]][:] = 0  # exact from the start
    spikes = {name: rng.random((steps, tokens, 3)) < 0.3 for name in shown}
    spikes[shown[1]][:] = False  # silent
    return Trace(distance, np.full((steps, 2), 0.5), np.array([0.4, 0.6]), spikes)


def svg(figure):
    return pages.svg(figure, "name").parts


@pytest.mark.filterwarnings("error")
def test_a_single_step_and_odd_numbers_of_encoders_can_be_drawn():
    tokens = ["$x^2$", "<b>", "映画"]
    with figure_style():
        many = convergence_figure(trace(40, 5, 3))
        one = trace(1, 1, 3)
        convergence = svg(convergence_figure(one))
        raster = svg(raster_figure(one, tokens))
        probability = svg(probability_figure(one, ["class 0", "class 1"], 1, [1]))
    assert [axes.get_title("left") for axes in many.axes] == [f"encoder {e}" for e in range(1, 6)]
    assert [bool(axes.get_xlabel()) for axes in many.axes] == [False, False, True, True, True]
    assert ">encoder 1</text>" in convergence and ">1/T</text>" in convergence
    assert all(text in raster for text in (">$x^2$</text>", ">&lt;b&gt;</text>", ">映画</text>", ">no spikes</text>"))
    assert ">class 1 (true)</text>" in probability


@pytest.mark.filterwarnings("error")
def test_losses_on_linear_and_logarithmic_axes():
    flat = [{"step": float(i), "lr": 0.1, "loss": 0.7} for i in range(1, 101)]
    steep = [{"step": float(i), "lr": 0.1, "hidden": 10.0 / i**2, "attention": 0.0} for i in range(1, 101)]
    with figure_style():
        figure = training_figure({"teacher": flat, "general": steep, "unheard of": flat[:1]}, True)
        drawn = svg(figure)
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", "log", "linear"]
    assert ">unheard of</text>" in drawn


def test_drawing_is_reproducible_and_leaves_the_settings_alone(evaluated):
    import matplotlib

    before = {name: matplotlib.rcParams[name] for name in STYLE}
    results = report._results(Run(evaluated), "inst")
    drawings = []
    for _ in range(2):
        with figure_style():
            drawings.append(svg(accuracy_figure(results)))
    assert drawings[0] == drawings[1]
    assert {name: matplotlib.rcParams[name] for name in STYLE} == before


def test_distances_and_probabilities_are_those_of_the_simulation(evaluated):
    from refsnn.distillation.student import logits
    from refsnn.model.batch import Batch
    from refsnn.ops import softmax
    from refsnn.readings.rate_map import rate_map
    from refsnn.readings.simulate import simulate

    config, params = load_student(evaluated)
    ids, kinds = [2, 5, 7, 3], [0, 0, 0, 0]
    network, batch = config.network, Batch(np.array([ids]), np.array([kinds]), np.ones((1, 4), int))
    found = follow(config, params, ids, kinds, 20, "inst")
    rates, _ = rate_map(network, params, batch)
    last = network.readouts[-1]
    for t, asr in simulate(network, params, batch, [3, 20]).items():
        for name, distance in found.distance.items():
            assert distance[t - 1] == pytest.approx(np.abs(asr[name] - rates[name]).mean(), abs=1e-6)
        assert found.probabilities[t - 1] == pytest.approx(softmax(logits(params, asr[last])[0])[0][0], abs=1e-6)
    assert found.limit == pytest.approx(softmax(logits(params, rates[last])[0])[0][0], abs=1e-6)
    assert {spikes.shape for spikes in found.spikes.values()} == {(20, 4, 12)}
