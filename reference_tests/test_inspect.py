"""The page about one sentence: true to the equilibrium, the simulation and the teacher, self-contained, and safe."""

import json
import re
import shutil
import subprocess
from base64 import b64decode
from dataclasses import asdict, replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax

from refsnn.commands.cli import main
from refsnn.data.tasks import TASKS
from refsnn.distillation.teacher import encode
from refsnn.errors import InputError
from refsnn.evaluation.observe import Sentence
from refsnn.files import read_json, write_json
from refsnn.model.batch import Batch
from refsnn.model.neurons import Neuron
from refsnn.model.parameters import initial_parameters
from refsnn.model.shapes import BertConfig, teacher_shapes
from refsnn.model.student import StudentConfig
from refsnn.pages import inspect as inspection
from refsnn.pages.inspect import inspect_run
from refsnn.pages.words import population_title
from refsnn.readings.equilibrium import equilibrium
from refsnn.readings.rate_map import scores
from refsnn.readings.simulate import simulate, spike_blocks
from refsnn.storage.checkpoints import load_student, save_model
from refsnn.storage.recipe import Recipe
from refsnn.storage.run import Run

T = 9
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"a film is good dull script > < / & ' alert ( )".split()]
HOSTILE = "a <script>alert('x')</script> & film"
VOID = {"meta", "br", "input"}


# ---------------------------------------------------------------------------------------------------------------------
# Helpers


def make_run(folder, task, encoders=2, layers=4, max_length=None, feedback=False, **options):
    """Write what a finished run holds, untrained: parameters are random and far from 0."""
    rng = np.random.default_rng(3)
    sizes = {"vocab_size": len(WORDS), "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
    bert = BertConfig(num_hidden_layers=encoders, max_position_embeddings=32, **sizes)
    teacher = BertConfig(num_hidden_layers=layers, max_position_embeddings=32, **sizes)
    outputs = TASKS[task].outputs
    student = StudentConfig(bert, 16, outputs, feedback=feedback, **options)
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    params = initial_parameters(student.shapes, rng, 0.6, np.float32)
    if feedback:
        params["feedback.weight"] = params["feedback.weight"] * np.float32(0.02)
    save_model(folder, student.to_dict(), params, folder)
    taught = initial_parameters(teacher_shapes(teacher, outputs), rng, 0.4, np.float32)
    save_model(folder / "teacher", teacher.to_dict() | {"num_labels": outputs}, taught, folder)
    recipe = asdict(Recipe(task=task, encoders=encoders, max_length=max_length))
    write_json(folder / "run.json", {"settings": {"recipe": recipe, "columns": None}})
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("inspect") / "a<b>&run", "sst2")


@pytest.fixture(scope="module")
def page(run):
    path, _ = inspect_run(run, HOSTILE, t_conv=T)
    assert path == run / "inspect.html"
    return path.read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Checks the nesting of tags and collects ids, links, texts of scripts and cells."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.ids, self.links, self.scripts, self.rows, self.text = [], [], [], [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.seen.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("src", "href", "xlink:href", "action", "data") if name in values]
        assert not [name for name in values if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, text):
        if "script" in self.open:
            self.scripts[-1] += text
        elif {"td", "th"} & set(self.open):
            self.rows[-1][-1] += text
        else:
            self.text += text


@pytest.fixture(scope="module")
def outline(page):
    return Outline(page)


def numbers(page):
    return json.loads(Outline(page).scripts[0])


def whole(run, ids, kinds, rule):
    """Everything computed by other routes: all rates at once, all spikes kept."""
    config, params = load_student(run)
    teacher, taught = Run(run).teacher()
    batch = Batch(np.array([ids]), np.array([kinds]), np.ones((1, len(ids)), int))
    network = config.network
    rates = equilibrium(network, params, batch).rates
    blocks = [{n: s.copy() for n, s in b.items()} for _, b in spike_blocks(network, params, batch, T, rule, 1)]
    spikes = {name: np.concatenate([block[name] for block in blocks])[:, 0] for name in blocks[0]}
    return config, params, teacher, taught, batch, rates, spikes


def head(params, cls):
    """Class scores, written out."""
    return np.maximum(cls, 0) @ params["classifier.weight"].T + params["classifier.bias"]


# ---------------------------------------------------------------------------------------------------------------------
# The numbers


def check_numbers(run, data, ids, kinds, rule):
    config, params, teacher, taught, batch, rates, spikes = whole(run, ids, kinds, rule)
    last, n = config.network.readouts[-1], len(ids)
    asr = simulate(config.network, params, batch, range(1, T + 1), rule)
    assert [p["name"] for p in data["populations"]] == [p.name for p in config.network.populations]
    for p in data["populations"]:
        name, neurons = p["name"], p["neurons"]
        away = [np.abs(asr[t][name] - rates[name]).mean() for t in range(1, T + 1)]
        assert p["distance"] == pytest.approx(away, rel=1e-4, abs=1e-6)
        assert p["firing"] == pytest.approx([asr[t][name].mean() for t in range(1, T + 1)], rel=1e-4, abs=1e-6)
        assert p["settled"] == pytest.approx(rates[name].mean(), rel=1e-4)
        bits = np.unpackbits(np.frombuffer(b64decode(p["spikes"]), np.uint8), bitorder="little")
        shown = bits[: T * n * neurons].reshape(T, n, neurons)
        order = sorted(range(rates[name].shape[-1]), key=lambda i: (-rates[name][0, :, i].mean(), i))
        chosen = [order[len(order) * k // neurons] for k in range(neurons)]
        assert np.array_equal(shown, spikes[name][..., chosen])
        settled = np.frombuffer(b64decode(p["rates"]), np.uint8).reshape(n, neurons) / 255
        assert np.abs(settled - rates[name][0][:, chosen]).max() <= 0.5 / 255 + 1e-6
    assert 0.05 < np.mean([s.mean() for s in spikes.values()]) < 0.95  # something to see

    def answer(cls):
        z = head(params, cls)
        return softmax(z, axis=-1) if config.classes > 1 else z

    found = np.array([answer(asr[t][last][0, 0]) for t in range(1, T + 1)])
    assert np.array(data["answers"]) == pytest.approx(found, rel=1e-4, abs=1e-6)
    assert data["limit"] == pytest.approx(answer(rates[last][0, 0]), rel=1e-4, abs=1e-6)

    pairs = teacher.num_hidden_layers // config.bert.num_hidden_layers
    assert data["layers"] == [pairs * (e + 1) for e in range(config.bert.num_hidden_layers)]
    theirs = encode(teacher, taught, batch).scores
    for side, matrices in (
        ("student", scores(config.network, params, rates, batch)[0]),
        ("teacher", [theirs[layer - 1] for layer in data["layers"]]),
    ):
        for text, score in zip(data[side], matrices, strict=True):
            weights = np.frombuffer(b64decode(text), "<u2").reshape(data["heads"], n, n) / 65535
            assert np.abs(weights - softmax(score[0], axis=-1)).max() < 1e-5
            assert weights.sum(axis=-1) == pytest.approx(1, abs=n / 65535)


@pytest.mark.parametrize("rule", ["inst", "running"])
def test_numbers_are_those_of_the_readings(run, tmp_path, rule):
    path, sentence = inspect_run(run, "a film is good", t_conv=T, rule=rule, out=tmp_path / "page.html")
    assert sentence.tokens == ["[CLS]", "a", "film", "is", "good", "[SEP]"]
    data = numbers(path.read_text(encoding="utf-8"))
    assert data["tokens"] == sentence.tokens and data["steps"] == T
    check_numbers(run, data, [2, 5, 6, 7, 8, 3], [0] * 6, rule)


def test_numbers_of_a_network_with_feedback(tmp_path):
    run = make_run(tmp_path / "run", "sst2", feedback=True)
    path, _ = inspect_run(run, "a film", t_conv=T)
    page = path.read_text(encoding="utf-8")
    check_numbers(run, numbers(page), [2, 5, 6, 3], [0] * 4, "inst")
    assert "and the feedback of the last output" in page


def test_tables_and_boxes_hold_the_same_numbers(page, outline):
    data = numbers(page)
    rows = {row[0]: row[1:] for row in outline.rows if row}
    for p in data["populations"]:
        title = population_title(p["name"])
        shown = [f"{p['firing'][-1]:.3f}", f"{p['settled']:.3f}", f"{p['distance'][-1]:.3f}"]
        assert [float(cell) for cell in rows[title]] == pytest.approx([float(x) for x in shown], abs=1.01e-3)
    for who, answer in (("student, rate map", data["limit"]), (f"student, T = {T}", data["answers"][-1])):
        best = ("negative", "positive")[int(np.argmax(answer))]
        assert rows[who][0] == best
        assert [float(cell) for cell in rows[who][1:]] == pytest.approx(answer, abs=6e-4)
        assert f"{best} <small>{rows[who][1 + int(np.argmax(answer))]}</small>" in page


def test_words_say_who_agrees_and_since_when():
    answers = np.array([[0.6, 0.4], [0.4, 0.6], [0.7, 0.3], [0.8, 0.2]])
    sentence = Sentence(("a",), ["a"], [1], [0], 0, 1)
    seen = SimpleNamespace(answers=answers, teacher=np.array([0.1, 0.9]), limit=np.array([0.8, 0.2]))
    found = inspection._verdict(TASKS["sst2"], sentence, seen, ["negative", "positive"])
    assert found == {"answers": ["positive", "negative", "negative"], "since": 3, "truth": "positive"}


def test_page_says_in_words_who_agrees(run, tmp_path, monkeypatch):
    def words(teacher):
        observe = inspection.observe

        def other(*arguments):
            seen = observe(*arguments)
            return replace(seen, teacher=seen.answers[-1] if teacher == "as spikes" else 1 - seen.answers[-1])

        with monkeypatch.context() as patched:
            patched.setattr(inspection, "observe", other)
            path, _ = inspect_run(run, "a film", t_conv=T, out=tmp_path / "page.html")
        return " ".join(path.read_text(encoding="utf-8").split())

    same, differ = words("as spikes"), words("otherwise")
    assert re.search(r"All three answer <i>(\w+)</i>\. The spikes’ answer is the same from step \d+ on\.", same)
    found = re.search(r"differ: <i>(\w+)</i> by the teacher, <i>(\w+)</i> by the rate map, <i>(\w+)</i> by", differ)
    assert found and found[1] != found[3]
    assert "The label is" not in same


def test_teacher_answers_as_hugging_faces_bert_does(run, outline):
    """Its class scores, computed from its hidden state by hand."""
    teacher, taught = Run(run).teacher()
    data = json.loads(outline.scripts[0])
    ids = [WORDS.index(token) for token in data["tokens"]]
    batch = Batch(np.array([ids]), np.zeros((1, len(ids)), int), np.ones((1, len(ids)), int))
    cls = encode(teacher, taught, batch).hidden[-1][0, 0]
    pooled = np.tanh(cls @ taught["pooler.dense.weight"].T + taught["pooler.dense.bias"])
    expected = softmax(pooled @ taught["classifier.weight"].T + taught["classifier.bias"])
    row = next(row for row in outline.rows if row and row[0] == "teacher (BERT)")
    assert [float(cell) for cell in row[2:]] == pytest.approx(expected, abs=6e-4)


# ---------------------------------------------------------------------------------------------------------------------
# The page


def test_text_of_the_user_and_of_the_run_is_escaped(page, outline):
    assert [tag for tag, _ in outline.seen].count("script") == 2
    assert "script" in json.loads(outline.scripts[0])["tokens"] and "<" in json.loads(outline.scripts[0])["tokens"]
    assert HOSTILE in outline.text and "a<b>&run" in outline.text
    assert HOSTILE not in page and HOSTILE in unescape(page)
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in outline.seen}


def test_page_needs_nothing_else(page, outline):
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in outline.links)
    assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))
    assert "://" not in page and "@import" not in page
    clips = {name[5:-1] for name in re.findall(r"url\([^)]*\)", page)}
    assert clips and clips <= set(outline.ids)
    assert not re.search(r"\b(fetch|XMLHttpRequest|import|eval|innerHTML)\b", outline.scripts[1])


def test_page_can_be_read_without_its_program(outline):
    figures = [values["id"] for tag, values in outline.seen if tag == "figure"]
    assert figures == ["probabilities", "raster", "raster-live", "convergence", "attention", "attention-live"]
    pictures = [values for tag, values in outline.seen if tag == "svg"]
    assert len(pictures) == 4 and all(len(values["aria-label"]) > 20 for values in pictures)
    assert all(word in outline.text for word in ("encoder 2, head 2", "teacher’s layer 4", "output of encoder 2"))


def test_program_finds_what_it_looks_for(outline):
    wanted = set(re.findall(r'byId\("([\w-]+)"\)', outline.scripts[1]))
    wanted |= {f"{name}-{side}" for name in ("weights", "row") for side in ("student", "teacher")}
    assert len(wanted) > 10 and wanted <= set(outline.ids)
    moved = [name for name in outline.ids if "-now-" in name]
    assert moved == ["probabilities-now-0", "convergence-now-0", "convergence-now-1"]
    assert {name.replace("-now-", "-first-") for name in moved} <= set(outline.ids)


def test_program_is_javascript():
    if not (node := shutil.which("node")):
        pytest.skip("node is not installed; it checks the syntax of the page's program")
    path = Path(inspection.__file__).with_suffix(".js")
    subprocess.run([node, "--check", path], check=True)


@pytest.mark.parametrize("dark", [False, True])
def test_page_fits_every_screen_in_a_browser(page, seen, dark):
    assert seen(page, dark)[0] == [0, 0, 0]


def test_same_sentence_gives_the_same_bytes(run, page, tmp_path):
    path, _ = inspect_run(run, HOSTILE, t_conv=T, out=tmp_path / "again.html")
    assert path.read_text(encoding="utf-8") == page
    assert [p.name for p in tmp_path.iterdir()] == ["again.html"]


def test_a_single_step_and_a_single_head_position(run, tmp_path):
    path, _ = inspect_run(run, "a", t_conv=1, out=tmp_path / "page.html")
    data = numbers(path.read_text(encoding="utf-8"))
    assert data["steps"] == 1 and len(data["tokens"]) == 3


def test_tokens_cannot_end_their_element(run, tmp_path, monkeypatch):
    odd = ["</script><!-- & \u2028 é", "<b>", "&amp;", "\"'\n{{ x }}", "]]>"]  # a vocabulary may have any
    read = inspection.read_sentence

    def other(*arguments):
        task, sentence = read(*arguments)
        return task, replace(sentence, tokens=odd, texts=("\n".join(odd),))

    monkeypatch.setattr(inspection, "read_sentence", other)
    path, _ = inspect_run(run, "a film is", t_conv=T, out=tmp_path / "page.html")
    found = Outline(path.read_text(encoding="utf-8"))
    assert json.loads(found.scripts[0])["tokens"] == odd and len(found.scripts) == 2
    assert "\n".join(odd) in found.text and "<b>" in found.text


# ---------------------------------------------------------------------------------------------------------------------
# Other tasks, and what may be wrong


def test_a_pair_with_its_label_from_the_dev_split(tmp_path):
    run = make_run(tmp_path / "run", "rte", encoders=1, layers=1)
    rows = "index\tsentence1\tsentence2\tlabel\n0\ta\tfilm\tentailment\n1\tgood film\tdull film\tnot_entailment\n"
    (tmp_path / "dev.tsv").write_text(rows, encoding="utf-8")
    path, sentence = inspect_run(run, index=1, data=tmp_path, t_conv=T)
    assert sentence.texts == ("good film", "dull film") and sentence.label == 1
    assert sentence.tokens == ["[CLS]", "good", "film", "[SEP]", "dull", "film", "[SEP]"]
    page = path.read_text(encoding="utf-8")
    check_numbers(run, numbers(page), [2, 8, 6, 3, 9, 6, 3], [0, 0, 0, 0, 1, 1, 1], "inst")
    assert "The label is <i>not_entailment</i>." in page and "not_entailment (true)" in page
    typed, _ = inspect_run(run, "good film", "dull film", t_conv=T, out=tmp_path / "typed.html")
    assert numbers(typed.read_text(encoding="utf-8")) == numbers(page)
    with pytest.raises(InputError, match="the dev split has the examples 0 to 1"):
        inspect_run(run, index=2, data=tmp_path)


@pytest.mark.parametrize("label", [None, 3.25])
def test_a_regression_has_scores(tmp_path, label):
    run = make_run(tmp_path / "run", "stsb")
    (tmp_path / "dev.tsv").write_text(f"sentence1\tsentence2\tscore\na film\ta\t{label}\n", encoding="utf-8")
    what = {"text": "a film", "second": "a"} if label is None else {"index": 0, "data": tmp_path}
    path, _ = inspect_run(run, **what, t_conv=T)
    page = path.read_text(encoding="utf-8")
    data = numbers(page)
    check_numbers(run, data, [2, 5, 6, 3, 5, 3], [0, 0, 0, 0, 1, 1], "inst")
    assert data["classes"] == ["score"] and data["largestScore"] == 5
    assert (">true score</text>" in page) == ("The true score is 3.25." in page) == (label is not None)
    assert ">evaluated T</text>" not in page


def test_text_that_is_too_long_is_cut_and_the_page_says_so(tmp_path, capsys):
    run = make_run(tmp_path / "run", "sst2", max_length=5)
    assert main(["inspect", str(run), "--text", "a film is good film", "--t-conv", "2"]) == 0
    said = capsys.readouterr().out
    assert "cut to the 5 tokens that the run was trained with; 2 are left out" in said and "inspect.html" in said
    page = (run / "inspect.html").read_text(encoding="utf-8")
    assert "longer than the 5 tokens that the run was trained with: 2 tokens at the end are left out" in " ".join(
        page.split()
    )
    assert numbers(page)["tokens"] == ["[CLS]", "a", "film", "is", "[SEP]"]


WRONG = {
    "`text` is empty": {"text": "  "},
    "has no tokens": {"text": "\u200b"},
    "not valid UTF-8": {"text": "a \udcff"},
    "there is no sentence": {},
    "SST-2 has one sentence": {"text": "a", "second": "film"},
    "`data`": {"index": 0},
    "leave out `text`": {"text": "a", "index": 0, "data": "."},
    "at least one step": {"text": "a", "t_conv": 0},
    "the folder for the page": {"text": "a", "out": "nowhere/page.html"},
    "the name of a page was expected": {"text": "a", "out": "."},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_shown_is_said(run, page, message):
    before = (run / "inspect.html").read_bytes()
    with pytest.raises(InputError, match=re.escape(message)):
        inspect_run(run, **WRONG[message])
    assert (run / "inspect.html").read_bytes() == before


def test_pairs_need_the_second_sentence(tmp_path):
    run = make_run(tmp_path / "run", "rte")
    with pytest.raises(InputError, match="RTE compares two sentences; give the other one with `second`"):
        inspect_run(run, "a film")
    with pytest.raises(InputError, match="`second` is empty"):
        inspect_run(run, "a film", "")


def test_another_teacher_is_recognised(tmp_path):
    run = make_run(tmp_path / "run", "sst2")
    write_json(run / "teacher" / "config.json", read_json(run / "teacher" / "config.json") | {"num_attention_heads": 4})
    with pytest.raises(InputError, match="has 2 heads and the teacher 4"):
        inspect_run(run, "a film")


def test_unfinished_runs_and_missing_teachers_say_what_to_do(tmp_path, capsys):
    run = make_run(tmp_path / "run", "sst2")
    shutil.rmtree(run / "teacher")
    assert main(["inspect", str(run), "--text", "a film"]) == 2
    said = capsys.readouterr().err
    assert "has no folder teacher" in said and "refsnn convert" in said and said.count("\n") == 1
    (run / "config.json").unlink()
    with pytest.raises(InputError, match="no finished student; run `refsnn distill"):
        inspect_run(run, "a film")
    with pytest.raises(InputError, match="does not exist"):
        inspect_run(tmp_path / "none", "a film")
    assert not (run / "inspect.html").exists()


@pytest.mark.parametrize("polarity", ["retractable", "ternary"])
def test_spikes_of_minus_one_are_marked_as_such(tmp_path, polarity):
    run = make_run(tmp_path / "run", "sst2", neuron=Neuron(polarity=polarity), per_feature=True)
    path, sentence = inspect_run(run, "a good film", t_conv=T)
    data = json.loads(Outline(path.read_text(encoding="utf-8")).scripts[0])
    config, params = load_student(run)
    batch = Batch(np.array([sentence.ids]), np.array([sentence.kinds]), np.ones((1, len(sentence.ids)), int))
    trains = next(spikes for _, spikes in spike_blocks(config.network, params, batch, T, "inst", block=T))
    negative = False
    for shown in data["populations"]:
        size = (T, len(sentence.ids), shown["neurons"])

        def unpacked(name, shown=shown, size=size):
            bits = np.frombuffer(b64decode(shown[name]), np.uint8)
            return np.unpackbits(bits, count=np.prod(size), bitorder="little").reshape(size).astype(int)

        drawn = unpacked("spikes") - (unpacked("negative") if "negative" in shown else 0)
        negative |= (drawn < 0).any()
        train = trains[shown["name"]][:, 0]
        columns = {tuple(column) for column in train.reshape(-1, train.shape[-1]).T.astype(int)}
        assert {tuple(column) for column in drawn.reshape(-1, shown["neurons"]).T} <= columns
    assert negative and data["negative"]
