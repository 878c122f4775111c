"""Plans: read, carried out, killed, interrupted and taken up again; the estimate of time; what a page says."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from test_training import BAD, GOOD, write_task, write_teacher

from refsnn.commands.cli import main
from refsnn.distillation.stages import distill
from refsnn.errors import InputError
from refsnn.evaluation.published import GLUE
from refsnn.files import new_folder, read_json
from refsnn.reproduction.plan import read_plan
from refsnn.reproduction.progress import duration, time_left
from refsnn.reproduction.reproduce import reproduce
from refsnn.reproduction.summary import _over_seeds, plan_page, text_table
from refsnn.storage.checkpoints import load_student
from refsnn.storage.recipe import Recipe
from refsnn.storage.run import Run
from refsnn.workers import Workers

PLAN = """
tasks = ["sst2", "rte"]
seeds = [0, 3]

[recipe]
encoders = 1
max_length = 12
batch_size = 4
epochs_teacher = 2
epochs_general = 2
epochs_internal = 1.75
batch_size_internal = 6
epochs_prediction = 1
lr_internal = 3e-3

[general]
max_length = 16
batch_size = 8

[task.rte]
epochs_prediction = 2

[evaluation]
t_conv = [4, 2]
rules = ["inst", "running"]
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict[str, Path]:
    """A plan, data of two tasks, a teacher and two corpora."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "plan.toml").write_text(PLAN)
    write_task(folder / "SST-2", 24)
    (folder / "RTE").mkdir()
    rng = random.Random(0)
    for split in ("train", "dev"):
        rows = ["index\tsentence1\tsentence2\tlabel"]
        for i in range(16):
            first, second = rng.choice(GOOD), rng.choice(GOOD + BAD)
            label = "entailment" if second in GOOD else "not_entailment"
            rows.append(f"{i}\tthe film is {first}\tthe plot is {second}\t{label}")
        (folder / "RTE" / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    for name in ("first.txt", "second.txt"):
        text = [" ".join(f"the {x} is {rng.choice(GOOD)}." for x in ("film", "plot", "cast")) for _ in range(12)]
        (folder / name).write_text("\n\n".join(text))
    return {"folder": folder, "teacher": write_teacher(folder / "bert")}


def arguments(given, out: Path, *, save_every: float = 0.0) -> dict:
    folder = given["folder"]
    corpora = [folder / "first.txt", folder / "second.txt"]
    return {
        "config": folder / "plan.toml",
        "out": out,
        "data": folder,
        "teacher": given["teacher"],
        "corpus": corpora,
        "save_every": save_every,
    }


def start(given, out: Path, *others: str) -> subprocess.Popen:
    words = ["-m", "refsnn", "reproduce"]
    for name, value in arguments(given, out).items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    words += others
    return subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    reproduce(**arguments(given, out))
    return out


def models(run: Path) -> dict[str, bytes]:
    """Everything that must not depend on when a run was interrupted."""
    files = [*run.rglob("*.safetensors"), *run.rglob("seed-*/log.jsonl"), run / "general" / "log.jsonl"]
    assert len(files) == 2 + 4 * 5 + 5
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def timeless(value):
    """Results without what a clock or a process says."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if "seconds" not in k and k != "peak_memory_mb"}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def test_the_table_is_what_the_runs_found(whole):
    results = read_json(whole / "results.json")
    assert [row["task"] for row in results["tasks"]] == ["sst2", "rte"]
    for row in results["tasks"]:
        assert row["published"] == GLUE[row["task"]] and row["seeds"] == [0, 3]
        runs = [whole / row["task"] / f"seed-{seed}" for seed in (0, 3)]
        first = [Run(run).results("inst") for run in runs]
        assert [r["rule"] for r in first] == ["inst", "inst"]
        for who in ("teacher", "rate"):
            values = [r["metrics"][who]["accuracy"] for r in first]
            spread = {"mean": sum(values) / 2, "least": min(values), "greatest": max(values), "values": values}
            assert row[who] == spread
        assert [(s["rule"], s["t"]) for s in row["spikes"]] == [
            ("inst", 2),
            ("inst", 4),
            ("running", 2),
            ("running", 4),
        ]
        for rule in ("inst", "running"):
            for i, t in enumerate((2, 4)):
                values = [read_json(run / f"results-{rule}.json")["spikes"][i]["accuracy"] for run in runs]
                (found,) = (s for s in row["spikes"] if (s["rule"], s["t"]) == (rule, t))
                assert found["values"] == values and found["least"] == min(values)
                gains = [read_json(run / f"results-{rule}.json")["spikes"][i]["full"]["gain"] for run in runs]
                assert found["full_gain"] == pytest.approx(sum(gains) / 2, rel=1e-12)
    page = (whole / "report.html").read_text()
    assert page.count("report.html") == 8 and f"{GLUE['rte']:.1f}" in page
    assert "on unlabelled text once" in page
    figure = page[page.index('<figure id="tasks"') : page.index("</figure>")]
    words = re.findall(r"<text[^>]*>\s*([^<]*?)\s*</text>", figure)
    assert {"SST-2", "RTE", "teacher", "rate map", "published", "spikes, inst", "spikes, running"} <= set(words)
    (gain,) = (s["full_gain"] for s in results["tasks"][0]["spikes"] if (s["rule"], s["t"]) == ("running", 4))
    assert f"<td>{gain:.2f}×</td>" in page
    results["recipes"]["general"]["epochs_general"] = 0
    other = " ".join(plan_page(results, whole / "elsewhere").split())
    assert "on unlabelled text once" not in other and "a spiking student was distilled from it" in other
    assert "report.html" not in other  # links lead to pages that exist
    links = re.findall(r'href="([^#"]+)"', page)
    assert len(links) == 8
    for link in links:
        assert (whole / link).stat().st_size > 10_000
    assert f"{100 * results['tasks'][0]['rate']['mean']:.1f}" in text_table(results)


def test_a_metric_that_a_seed_lacks_has_no_mean():
    assert _over_seeds([0.5, None]) == {"mean": None, "least": None, "greatest": None, "values": [0.5, None]}
    assert _over_seeds([0.5, 0.25]) == {"mean": 0.375, "least": 0.25, "greatest": 0.5, "values": [0.5, 0.25]}


def test_the_stages_are_counted_and_logged(whole):
    entries = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [entry["number"] for entry in entries] == list(range(1, 22)) and entries[0]["of"] == 21
    assert entries[0]["title"] == "general distillation" and entries[0]["steps"] > 0
    assert entries[1]["title"] == "SST-2, seed 0, teacher" and entries[1]["steps"] == 24 / 4 * 2
    assert entries[2]["title"] == "SST-2, seed 0, internal" and entries[2]["steps"] == 24 / 6 * 1.75
    assert entries[-1]["title"] == "RTE, seed 3, evaluation by rule running" and not entries[-1]["unknown"]
    for entry in entries:
        name = re.match(r"(SST-2|RTE), seed (\d), (teacher|internal|prediction)", entry["title"])
        if name:
            run = whole / {"SST-2": "sst2", "RTE": "rte"}[name[1]] / f"seed-{name[2]}"
            steps = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
            assert max(s["step"] for s in steps if s["stage"] == name[3]) == entry["steps"]


def test_the_student_starts_as_if_its_run_had_a_general_stage(given, whole, tmp_path):
    """General distillation apart, and within `refsnn distill --corpus`, are the same."""
    plan = read_plan(given["folder"] / "plan.toml")
    a = arguments(given, tmp_path)
    recipe = replace(plan.general, epochs_teacher=1, epochs_internal=0, epochs_prediction=0)
    distill(recipe, a["data"], a["teacher"], tmp_path / "one", corpus=a["corpus"])
    _, one = load_student(tmp_path / "one")
    config, apart = load_student(whole / "general")
    assert config.bert.num_hidden_layers == 1
    for name, value in apart.items():
        assert name.startswith("classifier.") or value.tobytes() == one[name].tobytes(), name
    recipe = replace(plan.tasks["sst2"], epochs_teacher=0, epochs_internal=0, epochs_prediction=0)
    distill(recipe, a["data"], a["teacher"], tmp_path / "two", general=whole / "general")
    _, two = load_student(tmp_path / "two")
    assert all(n.startswith("classifier.") or v.tobytes() == two[n].tobytes() for n, v in apart.items())
    with pytest.raises(InputError, match=r"general student .* vth 1\.0 instead of 0\.5.*again"):
        distill(replace(recipe, vth=0.5), a["data"], a["teacher"], tmp_path / "three", general=whole / "general")


def test_a_finished_plan_is_left_alone(given, whole, monkeypatch):
    from refsnn.distillation import training

    before = {path: path.stat().st_mtime_ns for path in whole.rglob("seed-*/*") if path.is_file()}
    assert before
    monkeypatch.setattr(training, "in_shares", lambda objective: pytest.fail("something is trained again"))
    reproduce(**arguments(given, whole))
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("seed-*/*") if path.is_file()}
    changed = given["folder"] / "changed.toml"
    changed.write_text(PLAN.replace("epochs_prediction = 2", "epochs_prediction = 3"))
    with pytest.raises(InputError, match="epochs_prediction was 2 and is 3"):
        reproduce(**arguments(given, whole) | {"config": changed})


def test_a_finished_plan_notices_that_its_data_changed(given, whole, tmp_path):
    out, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(whole, out)
    shutil.copytree(given["folder"], data)
    for path in out.rglob("run.json"):
        said = path.read_text().replace(f'"data": "{given["folder"]}"', f'"data": "{data}"')
        path.write_text(said.replace(f'"general": "{whole}', f'"general": "{out}'))
    reproduce(**arguments(given, out) | {"data": data})  # a copy is as good
    train = data / "SST-2" / "train.tsv"
    train.write_text(train.read_text(encoding="utf-8").replace("\t1\n", "\t0\n", 1), encoding="utf-8")
    with pytest.raises(InputError, match=f"the data, {data}, is not what it was"):
        reproduce(**arguments(given, out) | {"data": data})


def test_killed_at_random_moments_it_ends_with_the_same_bytes(given, whole, tmp_path):
    out, rng = tmp_path / "run", random.Random(time.time_ns())
    for target in ("general/stages", "sst2/seed-0/stages/internal.safetensors", "rte/seed-0/results-running.json"):
        process = start(given, out)
        while not (out / target).exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    process = start(given, out)
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "stage 21 of 21" in said and "SST-2" in said
    assert models(out) == models(whole)
    assert not list(out.rglob("*.part")), "temporary files are left behind"
    found, expected = (timeless(read_json(run / "results.json")) for run in (out, whole))
    assert found == expected


def test_workers_end_with_the_same_bytes(given, whole, tmp_path, capsys):
    """Whatever their number; one of the counts is of the command line, from another folder."""
    for count in (1, 2, 5):
        out = tmp_path / f"run{count}"
        with Workers(count) as workers:
            results = reproduce(**arguments(given, out), executor=workers)
        assert models(out) == models(whole)
        assert timeless(results) == timeless(read_json(whole / "results.json"))
        said = capsys.readouterr().out
        assert "finished 1 of 4: " in said and "left" in said and "finished 4 of 4: " in said
        assert not list(out.rglob("*.part")) and not list(out.rglob(".holder*"))


def processes_of(parent: int) -> list[int]:
    """Children of a process, as Linux tells of them."""
    if not Path("/proc/self/task").exists():
        pytest.skip("only Linux says which processes a process has")
    path = Path(f"/proc/{parent}/task")
    return [int(pid) for task in path.iterdir() for pid in (task / "children").read_text().split()]


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(what, process) -> None:
    while not what() and process.poll() is None:
        time.sleep(0.005)


def test_a_worker_that_is_killed_and_a_parent_that_is_killed_cost_no_bytes(given, whole, tmp_path):
    out = tmp_path / "run"
    process = start(given, out, "--workers", "3")
    wait_for(lambda: len(list(out.glob("*/seed-*/stages/teacher.safetensors"))) > 1, process)
    first = processes_of(process.pid)
    assert len(first) == 3
    os.kill(first[1], signal.SIGKILL)
    wait_for(lambda: set(processes_of(process.pid)) - set(first), process)
    time.sleep(random.random())
    assert process.poll() is None
    second = processes_of(process.pid)
    assert len(second) == 3 and len(set(first) & set(second)) == 2, "the others do not notice"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10
    while not all(map(ended, second)):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.01)
    process = start(given, out, "--workers", "3")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert models(out) == models(whole) and not list(out.rglob("*.part"))
    found, expected = (timeless(read_json(run / "results.json")) for run in (out, whole))
    assert found == expected


@pytest.mark.slow
def test_a_cluster_of_which_a_worker_is_killed_ends_with_the_same_bytes(given, whole, tmp_path, dask):
    address, workers = dask
    out = tmp_path / "run"
    process = start(given, out, "--cluster", address)
    wait_for(lambda: list(out.glob("*/seed-*/stages/teacher.safetensors")), process)
    workers[0].kill()
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "finished 4 of 4" in said
    assert models(out) == models(whole) and not list(out.rglob("*.part"))
    found, expected = (timeless(read_json(run / "results.json")) for run in (out, whole))
    assert found == expected


def test_a_task_waits_for_a_worker_that_is_still_ending(given, whole, tmp_path, monkeypatch):
    """A scheduler may take a worker for lost, and give its task to another, while it still writes."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    folder = out / "rte" / "seed-3"
    for path in (folder / "report.html", folder / "results-inst.json"):
        path.unlink()
    for path in out.rglob("run.json"):
        path.write_text(path.read_text().replace(f'"general": "{whole}', f'"general": "{out}'))
    for what in ("", "results-inst"):
        monkeypatch.setattr("refsnn.reproduction.reproduce.ENDING", 0.1)
        with (
            Run(folder).held(what),
            pytest.raises(InputError, match=r"seed-3.* is in use by process"),
            ThreadPoolExecutor(1) as threads,
        ):
            reproduce(**arguments(given, out), executor=threads)
    monkeypatch.setattr("refsnn.reproduction.reproduce.ENDING", 30.0)
    taken, freed = threading.Event(), time.monotonic() + 1.0

    def hold():
        with Run(folder).held():
            taken.set()
            time.sleep(max(freed - time.monotonic(), 0.0))

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    with ThreadPoolExecutor(1) as threads:
        reproduce(**arguments(given, out), executor=threads)
    thread.join()
    assert time.monotonic() > freed and models(out) == models(whole)


def test_ctrl_c_ends_the_workers_too(given, tmp_path):
    process = start(given, tmp_path / "run", "--workers", "2")
    wait_for(lambda: list(tmp_path.glob("run/*/seed-*/stages/teacher.safetensors")), process)
    workers = processes_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130 and "Traceback" not in errors
    assert errors.splitlines()[-1] == "refsnn: interrupted; run the same command again to resume"
    assert len(workers) == 2 and all(map(ended, workers))


def test_an_error_of_a_task_names_it(given, tmp_path):
    out = tmp_path / "run"
    Run(new_folder(out / "rte" / "seed-3")).begin({"recipe": {}})
    with pytest.raises(InputError, match=r"seed-3: .* holds a run with other settings"), Workers(2) as workers:
        reproduce(**arguments(given, out), executor=workers)


def test_an_interruption_is_one_sentence_and_status_130(given, tmp_path):
    process = start(given, tmp_path / "run")
    while not (tmp_path / "run" / "sst2" / "seed-0" / "stages" / "teacher.safetensors").exists():
        time.sleep(0.005)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in errors
    (said,) = (line for line in errors.splitlines() if "refsnn: " in line)
    assert said.startswith("refsnn: ") and "run the same command again to resume" in said, "not on a line of its own"


def test_without_data_text_and_teacher_are_made(tmp_path, capsys):
    plan = tmp_path / "made.toml"
    plan.write_text(
        'tasks = ["sst2", "rte"]\n'
        "[made]\ntrain = 40\ndev = 12\npretraining = 50\nparagraphs = 30\nvocabulary = 400\nepochs = 1\n"
        "width = 16\nheads = 2\nlayers = 1\n[recipe]\nencoders = 1\nmax_length = 32\nepochs_internal = 1\n"
        'epochs_prediction = 1\nepochs_teacher = 1\n[evaluation]\nt_conv = [3]\nrules = ["inst"]\n'
    )
    assert main(["reproduce", "--config", str(plan), "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "stage 1 of 10: pretraining; time left not known yet" in said
    assert "made-up SST-2" in said and "published" not in said and "Now open" in said
    lines = (tmp_path / "run" / "made" / "SST-2" / "dev.tsv").read_text().splitlines()[1:]
    dev = {line.split("\t")[0] for line in lines}
    seen = {line.split("\t")[0] for line in (tmp_path / "run" / "made" / "pretraining.tsv").read_text().splitlines()}
    assert len(dev) == 12 and not dev & seen, "pretraining has seen the dev split"
    assert "made up" in (tmp_path / "run" / "report.html").read_text()
    assert main(["reproduce", "--config", str(plan), "--out", str(tmp_path / "x"), "--tasks", "cola"]) == 2
    assert "not for cola" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# Plans


@pytest.mark.parametrize("name", ["paper", "small", "converted", "deep", "few-steps", "tiny"])
def test_the_plans_that_come_along(name, tmp_path, monkeypatch):
    plan = read_plan(name)
    assert replace(plan, source="") == replace(read_plan(f"{name}.toml"), source="")
    assert plan.made is not None or (plan.data and plan.teacher)
    assert plan.made is not None or bool(plan.corpus) == bool(plan.general.epochs_general)
    if name == "paper":
        assert set(plan.tasks) == set(GLUE)
        assert {r.encoders for r in plan.tasks.values()} == {4} and {r.vth for r in plan.tasks.values()} == {1.0}
        assert {n: r.epochs_internal for n, r in plan.tasks.items()} == {
            "qqp": 5, "mnli": 5, "sst2": 10, "qnli": 10, "rte": 20, "mrpc": 20, "stsb": 20
        }  # fmt: skip
        assert plan.tasks["sst2"].max_length == 64 and plan.tasks["qqp"].max_length == 128
        assert (plan.general.batch_size, plan.general.lr_general, plan.general.epochs_general) == (128, 5e-5, 3)
        assert {(r.batch_size, r.lr_internal, r.lr_prediction) for r in plan.tasks.values()} == {(32, 5e-5, 3e-5)}
    if name in ("deep", "few-steps"):
        recipe = plan.tasks["sst2"]
        assert (recipe.polarity, recipe.per_feature, recipe.init) == ("ternary", True, "converted")
        assert recipe.t_conv == {"deep": 8, "few-steps": 12}[name]
        assert recipe.epochs_teacher and not recipe.epochs_internal and not recipe.epochs_prediction


def test_what_a_recipe_has_only_since_later_is_written_only_where_it_is_used():
    """Files from before polarities, scales per feature and another batch size stay as they are, byte for byte."""
    later = {"polarity": "ternary", "per_feature": True, "batch_size_internal": 64, "clipped": 0.003}
    plain = Recipe("sst2", 2)
    assert not later.keys() & plain.to_dict().keys()
    recipe = Recipe("sst2", 2, **later)
    assert {name: recipe.to_dict()[name] for name in later} == later
    assert Recipe.from_dict(recipe.to_dict()) == recipe and Recipe.from_dict(plain.to_dict()) == plain
    wrong = {"polarity": "both", "per_feature": 1, "batch_size_internal": 0, "clipped": 0.6, "u0": 0.5}
    for name, value in wrong.items():
        with pytest.raises(InputError, match=f"`?{name}`? is {value!r}"):
            Recipe("sst2", 2, **later | {name: value})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds = [0, 3]", "seed = 0", r"the key 'seed' is not known; there are tasks, seeds"),
        ("seeds = [0, 3]", 'seeds = ["a"]', r"seeds is \['a'\], but a list, each entry a whole number, was expected"),
        ("seeds = [0, 3]", "seeds = [true]", "a whole number"),
        ("seeds = [0, 3]", "seeds = []", "no seeds"),
        ("seeds = [0, 3]", "seeds = [-1]", "0 or more"),
        ('"rte"]', '"rtf"]', "'rtf' is none of cola, sst2"),
        ('tasks = ["sst2", "rte"]', "", "no tasks"),
        ("encoders = 1", "encoder = 1", r"'encoder' in \[recipe\] is not known; there are encoders"),
        ("encoders = 1", "encoders = 1.5", r"encoders in \[recipe\] is 1.5, but a whole number was expected"),
        ("encoders = 1", "encoders = 0", "`encoders` is 0, but it must be a whole number of at least 1"),
        ("encoders = 1", "", r"\[recipe\] has no encoders"),
        ("epochs_prediction = 2", "epochs_prediction = -0.5", "task rte: `epochs_prediction` is -0.5"),
        ("max_length = 16", 'mode = "simulate"', r"mode in \[general\] is 'simulate', but one of 'equilibrium'"),
        ("[task.rte]", "[task.rtf]", r"'rtf' in \[task\] is not known"),
        ("[task.rte]", "[tasks.rte]", "not valid TOML"),
        ("epochs_prediction = 2", "lr_internal = -1", "task rte: `lr_internal` is -1"),
        ("t_conv = [4, 2]", "", r"\[evaluation\] has no t_conv"),
        ("t_conv = [4, 2]", "t_conv = [0]", r"t_conv in \[evaluation\] is \[0\]"),
        ('rules = ["inst", "running"]', 'rules = ["exact"]', r"rules in \[evaluation\] is \['exact'\], but a list"),
        ("[evaluation]", "[made]\nlr = 0\n[evaluation]", r"lr in \[made\] is 0"),
    ],
)
def test_a_plan_that_cannot_be_used_is_one_sentence_with_file_and_key(tmp_path, capsys, old, new, words):
    path = tmp_path / "mine.toml"
    assert PLAN.count(old) == 1
    path.write_text(PLAN.replace(old, new))
    assert main(["reproduce", "--config", str(path), "--out", str(tmp_path / "run"), "--data", "x"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert re.search(words, said) and "mine.toml" in said, said
    assert not (tmp_path / "run").exists()


def test_what_a_plan_leaves_open_must_be_given(tmp_path, given):
    with pytest.raises(InputError, match=r"nowhere\.toml; name .* paper\.toml, small\.toml, tiny\.toml"):
        read_plan(tmp_path / "nowhere.toml")
    with pytest.raises(InputError, match="give `teacher`, `corpus` too"):
        reproduce(given["folder"] / "plan.toml", tmp_path / "run", data=given["folder"])
    with pytest.raises(InputError, match=r"QNLI.* has train.tsv"):
        reproduce(**arguments(given, tmp_path / "run") | {"tasks": ["sst2", "qnli"]})
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {".lock"}, "a task that is not there is said before anything is trained"


def test_the_estimate_is_what_like_stages_took():
    states = [("general", 10, 1, 20), ("internal", 5, 0, 0), ("internal", 4, 0, 0)]
    assert time_left(states) == (18.0, [])  # like the general stage, until one is measured
    assert time_left([*states, ("internal", 2, 0.5, 3)]) == ((5 + 4 + 1) * 3.0, [])
    assert time_left([("teacher", 1, 0, 0), ("general", 1, 0, 0)]) == (0.0, ["teacher", "general"])
    assert duration(time_left([("teacher", 100, 0.25, 50)])[0]) == "2 min"


@pytest.mark.slow
def test_the_tiny_plan_teaches_its_student(tmp_path):
    results = reproduce("tiny", tmp_path / "run")
    (row,) = results["tasks"]
    assert row["teacher"]["least"] > 0.8
    assert row["rate"]["mean"] > row["teacher"]["mean"] - 0.1
    assert row["spikes"][-1]["mean"] > row["rate"]["mean"] - 0.05
