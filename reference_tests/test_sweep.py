"""Sweeps, early stopping, and several runs side by side."""

import json
import os
import pickle
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from test_training import RECIPE, write_task, write_teacher

from refsnn.commands.cli import main
from refsnn.data.metrics import spread
from refsnn.data.tasks import TASKS
from refsnn.distillation.predict import predict_rates, predict_spikes
from refsnn.distillation.stages import distill
from refsnn.errors import InputError, NotConverged
from refsnn.evaluation import anytime, sweep
from refsnn.evaluation import published as paper
from refsnn.evaluation.evaluate import evaluate_run
from refsnn.files import write_json
from refsnn.model.neurons import Neuron
from refsnn.model.shapes import BertConfig
from refsnn.model.student import StudentConfig
from refsnn.pages import report, tables
from refsnn.pages.sweep import write_sweep
from refsnn.storage.checkpoints import load_student
from refsnn.storage.run import Run, Stored, _stored
from refsnn.workers import Workers

TIMES = [1, 2, 4, 8]
QUICK = replace(
    RECIPE,
    batch_size=16,
    epochs_teacher=2,
    epochs_general=0,
    epochs_internal=1,
    epochs_prediction=2,
    lr_prediction=0.01,
)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """Three runs, two of them alike but for the seed, and their data."""
    root = tmp_path_factory.mktemp("sweep")
    data, teacher = write_task(root / "data", rows=48), write_teacher(root / "bert")
    recipes = {"first": QUICK, "second": replace(QUICK, seed=1), "plain": replace(QUICK, epochs_internal=0)}
    for name, recipe in recipes.items():
        distill(recipe, data, teacher, root / name)
    return root


@pytest.fixture
def folders(root, tmp_path):
    """Copies of the runs that a test may spoil."""
    for name in ("first", "second", "plain", "data"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("sweep*"))
    return tmp_path


@pytest.fixture(scope="session")
def swept(root):
    return sweep.sweep_run(root / "first", root / "data", ["rule", "vth"], TIMES)


# ---------------------------------------------------------------------------------------------------------------------
# Early stopping, against a loop over sentences and check points


def stopped(logits, times, settled):
    """Answers, times: each sentence by itself, each check point in turn."""
    answers, steps = [], []
    for row in range(logits.shape[1]):
        for i in range(len(times)):
            if settled(logits[:, row], i) or i == len(times) - 1:
                z = logits[i, row]
                answers.append(z[0] if len(z) == 1 else int(np.argmax(z)))
                steps.append(times[i])
                break
    return np.array(answers), np.array(steps)


def lead(level, times):
    def settled(z, i):
        best, second = sorted(z[i], reverse=True)[:2]
        return best - second >= level / times[i]

    return settled


def same(level):
    def settled(z, i):
        count = 1
        while i - count >= 0 and np.argmax(z[i - count]) == np.argmax(z[i]):
            count += 1
        return count >= level

    return settled


def steady(level):
    return lambda z, i: i > 0 and -abs(z[i, 0] - z[i - 1, 0]) >= level


@pytest.fixture(params=[2, 3])
def logits(request):
    walk = np.random.default_rng(request.param).normal(size=(9, 60, request.param))
    return np.cumsum(walk, axis=0) / np.arange(1, 10)[:, None, None]


CHECKS = [1, 2, 3, 4, 6, 8, 11, 16, 23]


@pytest.mark.parametrize("rule", ["margin", "streak"])
def test_early_stopping_of_classes_is_that_of_a_plain_loop(logits, rule):
    truth = np.random.default_rng(1).integers(0, 2, logits.shape[1])
    confidence = anytime.confidences(logits, CHECKS)[rule]
    points = anytime.curve(logits, CHECKS, truth, "accuracy", confidence)
    assert len(points) > 5
    for point in points:
        loop = lead(point.level, CHECKS) if rule == "margin" else same(point.level)
        answers, steps = stopped(logits, CHECKS, loop)
        assert point.mean_t == pytest.approx(steps.mean(), rel=1e-12)
        assert point.value == pytest.approx((answers == truth).mean(), rel=1e-12)
        assert np.array_equal(np.array(CHECKS)[anytime.stops(confidence, point.level)], steps)


def test_early_stopping_of_scores_is_that_of_a_plain_loop():
    walk = np.random.default_rng(0).normal(size=(9, 60, 1))
    logits = 2.5 + np.cumsum(walk, axis=0) / np.arange(1, 10)[:, None, None] ** 2
    truth = logits[-1, :, 0] + 0.1 * walk[0, :, 0]
    (rule, confidence), *others = anytime.confidences(logits, CHECKS).items()
    assert rule == "steadiness" and not others
    points = anytime.curve(logits, CHECKS, truth, "pearson", confidence)
    for point in points:
        answers, steps = stopped(logits, CHECKS, steady(point.level))
        assert point.mean_t == pytest.approx(steps.mean(), rel=1e-12)
        assert point.value == pytest.approx(np.corrcoef(answers, truth)[0, 1], rel=1e-9)
    assert points[0].mean_t >= CHECKS[1]  # a change needs two check points


def test_the_curve_rises_in_time_and_ends_where_nothing_stops_early(logits):
    truth = logits[-1].argmax(axis=-1)
    for confidence in anytime.confidences(logits, CHECKS).values():
        points = anytime.curve(logits, CHECKS, truth, "accuracy", confidence)
        means = [point.mean_t for point in points]
        assert means == sorted(set(means)) and means[0] == CHECKS[0] and means[-1] == CHECKS[-1]
        assert [p.level for p in points] == sorted(p.level for p in points)
        assert points[-1].value == points[-1].fixed == 1.0


def test_the_fixed_time_beside_a_point_is_interpolated_between_its_neighbours(logits):
    truth = np.random.default_rng(2).integers(0, 2, logits.shape[1])
    right = [float((z.argmax(axis=-1) == truth).mean()) for z in logits]
    for point in anytime.curve(logits, CHECKS, truth, "accuracy", anytime.margin(logits, CHECKS)):
        after = next(i for i, t in enumerate(CHECKS) if t >= point.mean_t)
        before = max(after - 1, 0)
        part = (point.mean_t - CHECKS[before]) / max(CHECKS[after] - CHECKS[before], 1)
        assert point.fixed == pytest.approx((1 - part) * right[before] + part * right[after], rel=1e-12)


def test_a_single_check_point_leaves_nothing_to_choose(logits):
    for z in (logits[:1], logits[:1, :, :1]):
        truth = np.arange(z.shape[1]) % 2
        for confidence in anytime.confidences(z, [5]).values():
            (point,) = anytime.curve(z, [5], truth, "pearson" if z.shape[-1] == 1 else "accuracy", confidence)
            assert point.mean_t == 5 and point.value == point.fixed


# ---------------------------------------------------------------------------------------------------------------------
# One run


def test_numbers_of_a_sweep_are_those_of_the_simulation(root, swept):
    """Each setting: metrics, agreement and firing rate, by other code than the sweep's."""
    config, params = load_student(root / "first")
    _, examples = Run(root / "first").examples("dev", root / "data")["dev"]
    assert [s["rule"] for s in swept["settings"][:2]] == ["inst", "running"]
    assert [s["vth"] for s in swept["settings"][2:]] == [0.5, 0.7, 0.85, 1.2, 1.5, 2.0]
    for setting in (swept["settings"][1], swept["settings"][2]):
        other = StudentConfig(config.bert, config.teacher_width, 2, Neuron(setting["vth"]), config.feedback)
        spikes = predict_spikes(other, params, examples, TIMES, setting["rule"])
        rates = predict_rates(other, params, examples).argmax(axis=-1)
        assert setting["rate"]["accuracy"] == pytest.approx((rates == examples.labels).mean())
        assert [row["t"] for row in setting["rows"]] == TIMES
        for row in setting["rows"]:
            answers = spikes[row["t"]].logits.argmax(axis=-1)
            assert row["metrics"]["accuracy"] == pytest.approx((answers == examples.labels).mean())
            assert row["agreement"] == pytest.approx((answers == rates).mean())
            assert row["firing_rates"] == pytest.approx(spikes[row["t"]].firing_rates)
            widths = {p.name: p.width for p in other.network.populations}
            fired = sum(widths[name] * rate for name, rate in row["firing_rates"].items())
            assert row["firing_rate"] == pytest.approx(fired / sum(widths.values()))
        last = setting["early"]["margin"][-1]
        assert last["mean_t"] == TIMES[-1] and last["value"] == setting["rows"][-1]["metrics"]["accuracy"]


def test_axes_are_combined_or_varied_one_at_a_time():
    own = Neuron(vth=2.0, leak=0.9, u0=0.25)
    assert [str(s) for s in sweep.grid_settings(own, ["t"])] == ["inst, V_th 2, leak 0.9, u0 0.25"]
    both = sweep.grid_settings(own, ["rule", "u0"])
    assert {(s.rule, s.u0) for s in both} == {(r, u) for r in ("inst", "running") for u in (0.25, 0.0, 0.5)}
    assert all((s.vth, s.leak) == (2.0, 0.9) for s in both)
    assert [str(s) for s in sweep.grid_settings(own, ["t"], "running")] == ["running, V_th 2, leak 0.9, u0 0.25"]
    assert [s.rule for s in sweep.grid_settings(own, ["rule"], "running")] == ["running", "inst"]
    assert {s.rule for s in sweep.grid_settings(own, ["vth", "leak"], "running")} == {"running"}
    everything = sweep.grid_settings(own, sweep.AXES)
    assert len(set(everything)) == len(everything)
    assert {s.vth for s in everything} == {1.0, 1.4, 1.7, 2.0, 2.4, 3.0, 4.0}
    assert {s.leak for s in everything} == {0.9, 0.95, 0.99, 1.0}
    assert sum((s.vth, s.leak) != (2.0, 0.9) for s in everything) == 6 + 3
    with pytest.raises(InputError, match="`over` has dt, but t, rule"):
        sweep.grid_settings(own, ["t", "dt"])


@pytest.fixture
def simulations(monkeypatch):
    """Every simulation that is made, as (rule, T)."""
    made = []

    def counted(config, params, examples, times, rule):
        made.append((rule, tuple(times), len(examples), config.neuron.vth))
        return predict_spikes(config, params, examples, times, rule)

    monkeypatch.setattr(sweep, "predict_spikes", counted)
    return made


def test_what_is_finished_is_not_simulated_again(folders, simulations, monkeypatch):
    run, data = folders / "first", folders / "data"
    first = sweep.sweep_run(run, data, ["rule"], TIMES)
    assert [rule for rule, *_ in simulations] == ["inst", "running"]
    before = (run / "sweep.json").read_bytes()
    monkeypatch.setattr(sweep, "predict_teacher", None)  # nor is the teacher asked again
    assert sweep.sweep_run(run, data, ["rule"], TIMES) == first
    assert len(simulations) == 2 and (run / "sweep.json").read_bytes() == before
    sweep.sweep_run(run, data, ["rule", "leak"], TIMES)
    assert len(simulations) == 2 + 3
    sweep.sweep_run(run, data, ["t"], [1, 2])
    assert simulations[-1] == ("inst", (1, 2), 40, 1.0)


def test_a_rule_is_known_before_anything_is_computed(folders, simulations, monkeypatch):
    monkeypatch.setattr(sweep, "predict_teacher", None)
    with pytest.raises(InputError, match="`rule` is 'instant', but it must be one of inst, running"):
        sweep.sweep_run(folders / "first", folders / "data", ["t"], TIMES, rule="instant")
    assert not simulations and not (folders / "first" / "sweep.json").exists()


def timeless(text):
    """What was found, without the clock's part."""
    entries = json.loads(text)["entries"]
    return [{**entry, "found": {k: v for k, v in entry["found"].items() if k != "seconds"}} for entry in entries]


def test_workers_find_the_same(folders, root):
    names, data = ("first", "second", "plain"), folders / "data"
    expected = sweep.sweep([folders / name for name in names], data, ["rule", "u0"], [1, 2])
    kept = {name: (folders / name / "sweep.json").read_text() for name in names}
    for count in (1, 2, 5):
        for name in names:
            (folders / name / "sweep.json").unlink()
        with Workers(count) as workers:
            found = sweep.sweep([folders / name for name in names], data, ["rule", "u0"], [1, 2], executor=workers)
        for one, other in zip(found, expected, strict=True):
            assert [s["rows"] for s in one["settings"]] == [s["rows"] for s in other["settings"]]
        for name in names:
            assert timeless((folders / name / "sweep.json").read_text()) == timeless(kept[name])


def test_workers_evaluate_to_the_same_bytes(folders):
    run, data = folders / "first", folders / "data"
    clock = r'"(seconds|peak_memory_mb)": [\d.]+'

    def evaluated(rule, executor):
        evaluate_run(run, data, TIMES, rule, executor=executor)
        return re.sub(clock, "", Run(run).results_file(rule).read_text())

    for rule in ("inst", "running"):
        expected = evaluated(rule, None)
        for count in (1, 2, 5):
            with Workers(count) as workers:
                assert evaluated(rule, workers) == expected
    words = ["evaluate", str(run), "--data", str(data), "--t-conv", *map(str, TIMES), "--workers", "2"]
    assert main([*words, "--rule", "running"]) == 0
    assert re.sub(clock, "", Run(run).results_file("running").read_text()) == expected


def test_the_commands_take_workers_where_there_are_tasks(folders, capsys):
    run, data = folders / "first", folders / "data"
    words = ["--data", str(data), "--t-conv", "1", "2", "--over", "rule"]
    assert main(["sweep", str(run), *words]) == 0
    expected = timeless((run / "sweep.json").read_text())
    table = capsys.readouterr().out
    (run / "sweep.json").unlink()
    assert main(["sweep", str(run), *words, "--workers", "2"]) == 0
    out, err = capsys.readouterr()
    assert timeless((run / "sweep.json").read_text()) == expected and out == table
    assert "finished 3 of 3" in err
    assert main(["evaluate", str(run / "teacher"), "--data", str(data), "--workers", "2"]) == 2
    assert "--workers and --cluster share out a run" in capsys.readouterr().err


def test_a_model_travels_as_the_name_of_its_folder_and_is_not_another(folders):
    run = Run(folders / "first")
    params = Stored(run, "student")
    sent = pickle.dumps(params)
    assert len(sent) < 1000 < sum(value.nbytes for value in params.values())
    found = pickle.loads(sent)
    assert all(np.array_equal(found[name], value) for name, value in params.items()) and len(found) == len(params)
    assert pickle.loads(sent) is found  # read once
    os.utime(run.folder / "model.safetensors")
    assert pickle.loads(pickle.dumps(Stored(run, "student"))) is not found
    _stored.cache_clear()  # as in a worker that has not read it yet
    with pytest.raises(InputError, match="was written again while it was being evaluated"):
        pickle.loads(sent)


@pytest.mark.parametrize("what", ["sweep", "results-inst"])
def test_two_processes_never_write_the_same_results(folders, what):
    run, data = Run(folders / "first"), folders / "data"
    with run.held(what):
        with pytest.raises(InputError, match=rf"the {what} of .*first is in use by process {os.getpid()} on .* since"):
            sweep.sweep_run(run, data, ["t"], [1]) if what == "sweep" else evaluate_run(run, data, [1])
        evaluate_run(run, data, [1], "running")  # other results
        assert not (run.folder / "sweep.json").exists() and not run.results_file("inst").exists()


def test_an_interrupted_sweep_goes_on_where_it_was(folders, simulations, monkeypatch):
    run, data = folders / "first", folders / "data"
    counted = sweep.predict_spikes

    def killed(*arguments):
        if len(simulations) == 1:
            raise KeyboardInterrupt
        return counted(*arguments)

    monkeypatch.setattr(sweep, "predict_spikes", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep_run(run, data, ["rule"], TIMES)
    monkeypatch.setattr(sweep, "predict_spikes", counted)
    sweep.sweep_run(run, data, ["rule"], TIMES)
    assert [rule for rule, *_ in simulations] == ["inst", "running"]
    assert not list(run.glob(".*.part"))


def test_changed_inputs_are_noticed(folders, simulations, capsys):
    run, data = folders / "first", folders / "data"
    sweep.sweep_run(run, data, ["t"], TIMES)
    lines = (data / "dev.tsv").read_text().splitlines()
    (data / "dev.tsv").write_text("\n".join(lines[:-1]) + "\n")  # other examples
    sweep.sweep_run(run, data, ["t"], TIMES)
    assert [count for *_, count, _ in simulations] == [40, 39]
    shutil.copy(folders / "second" / "model.safetensors", run / "model.safetensors")  # another student
    capsys.readouterr()
    sweep.sweep_run(run, data, ["t"], TIMES)
    assert len(simulations) == 3 and "left out 2 results of other weights" in capsys.readouterr().err


def test_a_part_of_the_examples_is_spread_over_all(folders, simulations):
    lines = (folders / "data" / "dev.tsv").read_text().splitlines()
    ordered = [lines[0], *sorted(lines[1:], key=lambda line: line[-1])]  # all of one class before the other
    (folders / "data" / "dev.tsv").write_text("\n".join(ordered) + "\n")
    result = sweep.sweep_run(folders / "first", folders / "data", ["t"], [2], samples=10)
    assert result["examples"] == 10 and simulations[-1][2] == 10
    share = np.mean([line[-1] == "1" for line in ordered[1:]])
    picked = [ordered[1:][i * 40 // 10][-1] == "1" for i in range(10)]
    assert abs(np.mean(picked) - share) <= 0.1


def test_a_student_with_feedback_that_has_no_equilibrium_is_still_simulated(folders, monkeypatch):
    def nowhere(*_):
        raise NotConverged("no equilibrium", None)

    monkeypatch.setattr(sweep, "predict_rates", nowhere)
    result = sweep.sweep_run(folders / "first", folders / "data", ["t", "vth"], TIMES)
    assert all(s["rate"] is None and s["rows"][-1]["agreement"] is None for s in result["settings"])
    assert "no rate map with inst: no equilibrium" in tables.sweep_table(result)
    assert "–" in write_sweep(result).read_text()


def test_a_regression_is_swept_by_its_correlation(tmp_path, capsys):
    data, teacher = tmp_path / "data", write_teacher(tmp_path / "bert")
    data.mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "dev"):
        rows = ["sentence1\tsentence2\tscore"]
        for _ in range(24):
            words = rng.choice("film plot cast good bad fine poor".split(), 4)
            rows.append(f"{words[0]} is {words[1]}\t{words[2]} is {words[3]}\t{rng.uniform(0, 5):.2f}")
        (data / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    distill(replace(QUICK, task="stsb"), data, teacher, tmp_path / "run")
    assert main(["sweep", str(tmp_path / "run"), "--data", str(data), "--t-conv", "2", "4", "8"]) == 0
    out = capsys.readouterr().out
    assert "Pearson after T steps" in out and "inst, steadiness" in out
    (teacher_entry, *entries) = json.loads((tmp_path / "run" / "sweep.json").read_text())["entries"]
    assert set(teacher_entry["found"]) == {"pearson", "spearman"}
    assert list(entries[0]["found"]["early"]) == ["steadiness"]


# ---------------------------------------------------------------------------------------------------------------------
# Several runs


def invented(seed, rate, spikes, **recipe):
    """The result of a run, with made-up numbers."""
    rows = [{"t": t, "metrics": {"accuracy": v}, "agreement": v} for t, v in spikes.items()]
    setting = {"rule": "inst", "vth": 1.0, "leak": 1.0, "u0": 0.0, "rate": {"accuracy": rate}, "rows": rows}
    trained = {"recipe": {"task": "sst2", "seed": seed, **recipe}, "data": "somewhere/glue"}
    return {
        "run": f"run{seed}",
        "task": "SST-2",
        "metric": "accuracy",
        "teacher": {"accuracy": 0.9},
        "trained": trained,
        "settings": [setting, setting | {"rule": "running"}],
    }


def test_runs_that_differ_by_their_seed_are_put_together():
    runs = [
        invented(0, 0.80, {4: 0.70, 8: 0.75}, feedback=0.0),
        invented(1, 0.84, {4: 0.60, 8: 0.85}, feedback=0.0),
        invented(2, 0.82, {4: 0.68, 8: 0.80}, feedback=0.0),
        invented(0, 0.50, {4: 0.40, 8: 0.45}, feedback=0.1),
    ]
    runs[1]["trained"]["data"] = "elsewhere/glue"
    groups = sweep.group(runs)
    assert {label: [run["run"] for run in of] for label, of in groups.items()} == {
        "feedback 0.0": ["run0", "run1", "run2"],
        "feedback 0.1": ["run0"],
    }
    found = sweep.spreads(groups["feedback 0.0"])
    assert found["teacher"] == pytest.approx((0.9, 0.9, 0.9))
    assert found["rate"] == pytest.approx((0.82, 0.80, 0.84))
    for rule in ("inst", "running"):
        assert found["spikes"][rule] == {4: pytest.approx((0.66, 0.60, 0.70)), 8: pytest.approx((0.80, 0.75, 0.85))}
    text = tables.comparison_table(runs)
    assert "feedback 0.0: 3 runs, seeds 0, 1, 2" in text
    assert "66.0 (60.0 to 70.0)" in text and "82.0 (80.0 to 84.0)" in text
    assert "feedback 0.1: 1 run, seed 0" in text


def test_a_number_that_a_run_lacks_is_not_averaged():
    assert np.isnan(spread([0.5, None])).all()
    runs = [invented(0, 0.8, {4: 0.7}), invented(1, 0.8, {4: 0.7})]
    runs[1]["teacher"] = None
    assert np.isnan(sweep.spreads(runs)["teacher"].mean)


class Tables(HTMLParser):
    """Collects ids, links within the page, and the figures."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.figures, self.headings = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"][1:]] if values.get("href", "").startswith("#") else []
        self.figures += [values["id"]] if tag == "figure" else []
        self.headings += tag == "h2"


def test_the_command_prints_and_writes_pages(folders, capsys):
    runs = [str(folders / name) for name in ("first", "second", "plain")]
    words = ["--data", str(folders / "data"), "--t-conv", "1", "2", "4", "--over", *sweep.AXES, "--samples", "12"]
    assert main(["sweep", *runs, *words]) == 0
    out = capsys.readouterr().out
    assert "epochs_internal 1: 2 runs, seeds 0, 1" in out and "epochs_internal 0: 1 run, seed 0" in out
    for name in ("inst, V_th = 0.5", "inst, leak = 0.99", "running, u0 = 0.5", "inst, margin", "running, streak"):
        assert name in out
    page = Tables((folders / "first" / "sweep.html").read_text())
    assert page.figures == ["rules", "thresholds", "leaks", "stopping"] and page.headings == 6
    compared = Tables((folders / "first" / "compare.html").read_text())
    assert compared.figures == ["runs", "agreement"]
    for found in (page, compared):
        assert len(set(found.ids)) == len(found.ids) and set(found.links) <= set(found.ids)
    for name in ("sweep-rules", "sweep-stopping", "compare-runs"):
        assert (folders / "first" / f"{name}.svg").read_text().rstrip().endswith("</svg>")
    assert not list(folders.rglob("*.part"))


def test_a_student_made_for_the_other_rule_is_swept_by_that_alone(folders, simulations, capsys):
    run, data = str(folders / "first"), str(folders / "data")
    words = ["--t-conv", "2", "4", "--over", "t", "vth", "leak", "--rule", "running"]
    assert main(["sweep", run, "--data", data, *words]) == 0
    out = capsys.readouterr().out
    assert {rule for rule, *_ in simulations} == {"running"} and "running, leak = 0.9" in out and "inst" not in out
    assert {"thresholds", "leaks", "stopping"} <= set(Tables((folders / "first" / "sweep.html").read_text()).figures)


# ---------------------------------------------------------------------------------------------------------------------
# What cannot be


def complaint(capsys, *words):
    assert main(["sweep", *map(str, words)]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("refsnn: ")]
    assert len(said) == 1
    return said[0]


def test_errors_are_one_sentence_before_anything_is_simulated(folders, simulations, capsys):
    first, data = folders / "first", folders / "data"
    assert "nowhere" in complaint(capsys, folders / "nowhere", "--data", data)
    (folders / "begun").mkdir()
    shutil.copy(first / "run.json", folders / "begun" / "run.json")
    assert "no finished student" in complaint(capsys, first, folders / "begun", "--data", data)
    assert "nowhere" in complaint(capsys, first, "--data", folders / "nowhere")
    assert "at least one step" in complaint(capsys, first, "--data", data, "--t-conv", "4", "0")
    assert "--samples is 0" in complaint(capsys, first, "--data", data, "--samples", "0")
    assert "depth" in complaint(capsys, first, "--data", data, "--over", "t", "depth")
    record = json.loads((folders / "second" / "run.json").read_text())
    record["settings"]["recipe"]["task"] = "rte"
    write_json(folders / "second" / "run.json", record)
    said = complaint(capsys, first, folders / "second", "--data", data)
    assert "different tasks" in said and "SST-2" in said and "RTE" in said
    write_json(first / "sweep.json", {"something": "else"})
    assert "move it away" in complaint(capsys, first, "--data", data)
    (first / "sweep.json").write_text('{"entries": [')
    assert "not valid JSON" in complaint(capsys, first, "--data", data)
    assert not simulations


# ---------------------------------------------------------------------------------------------------------------------
# Beside the paper


def test_published_figures_hold_together():
    assert set(paper.GLUE) < set(TASKS)
    assert np.mean(list(paper.GLUE.values())) == pytest.approx(paper.MEAN, abs=0.02)
    assert max(paper.RELEASED_LOG) == paper.GLUE["sst2"]
    gain = (4.6 / 0.9) / (paper.ENERGY["t"] * paper.ENERGY["firing_rate"])
    assert gain == pytest.approx(paper.ENERGY["gain"], abs=0.05)


def results(task):
    rows = [
        {"t": t, "metrics": {"accuracy": v}, "firing_rate": 0.2, "energy_gain": 1.6} for t, v in ((16, 0.7), (64, 0.8))
    ]
    metrics = {"teacher": {"accuracy": 0.95}, "rate": {"accuracy": 0.85}}
    return {"task": task, "metric": "accuracy", "metrics": metrics, "spikes": rows, "teacher_accuracy": 0.95}


def a_run(folder, **recipe):
    write_json(folder / "run.json", {"settings": {"recipe": {"encoders": 1, **recipe}}})
    return Run(folder)


def test_a_report_shows_the_published_figure_of_its_own_task_only(tmp_path):
    bert = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    config = StudentConfig(bert, 4, 2)
    for recipe in ({"task": "rte"}, {"task": "rte", "mode": "equilibrium", "epochs_general": 1}):
        found = report._beside_the_paper(a_run(tmp_path, **recipe), results("RTE"), config)
        cells = [cell for name in ("rows", "every", "setting") for row in found[name] for cell in row]
        assert cells.count("66.06") == 2 and cells.count(("80.0", "T\u202f=\u202f64")) == 2 and "1.60×" in cells
        assert found["log"] is None  # the log is of SST-2
    assert report._beside_the_paper(a_run(tmp_path, task="rte"), results("made-up"), config) is None
    assert report._beside_the_paper(a_run(tmp_path, task="wnli"), results("WNLI"), config) is None
