"""A run's folder as a type: what it remembers, what it reads, and folders that older versions wrote."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from test_training import write_task, write_teacher

from refsnn.data.tasks import Task
from refsnn.distillation.stages import distill
from refsnn.errors import InputError
from refsnn.files import load_tensors, save_tensors, write_json
from refsnn.storage.recipe import Recipe
from refsnn.storage.run import Run, run_settings

RECIPE = Recipe("sst2", 2, max_length=16, batch_size=8, epochs_teacher=1, epochs_general=0, epochs_internal=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    data, teacher = write_task(root / "data", 24), write_teacher(root / "bert")
    distill(RECIPE, data, teacher, root / "run")
    return root / "run"


def test_a_run_gives_all_that_it_was_made_from(folder):
    run = Run(folder)
    assert run.exists and run.finished and run.recipe == RECIPE and run.task.name == "sst2"
    config, params = run.student()
    assert config.classes == 2 and set(config.shapes) == set(params)
    bert, _ = run.teacher()
    assert bert.num_hidden_layers == 2
    ((dataset, examples),) = run.examples("dev", samples=5).values()
    assert len(dataset) == len(examples) == 5
    assert set(run.log()) == {"teacher", "internal", "prediction"} == set(run.timings())
    assert run.evaluated() == [] and run.results("inst") is None
    assert str(run) == str(folder) and Run(run).recipe == RECIPE  # a run is a path


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    run = Run(tmp_path / "nowhere")
    assert not run.exists and not run.finished
    for read in (lambda: run.recipe, run.student, run.teacher, lambda: run.split("dev")):
        with pytest.raises(InputError, match="nowhere does not exist"):
            read()


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ("null", "holds a JSON NoneType"),
        ("{}", "settings is missing"),
        ('{"settings": []}', r"settings is \[\], but a table was expected"),
        ('{"settings": {}}', "recipe in .settings. is missing"),
        ('{"settings": {"recipe": {"task": "sst2"}}}', "encoders in .recipe. is missing"),
        ('{"settings": {"recipe": {"task": 1, "encoders": 2}}}', "task in .recipe. is 1, but text in quotes"),
        ('{"settings": {"recipe": {"task": "sst3", "encoders": 2}}}', "the task is 'sst3'"),
        (
            '{"settings": {"recipe": {"task": "sst2", "encoders": 0}}}',
            "`encoders` is 0, but it must be a whole number of at least 1",
        ),
        ('{"settings": {"recipe": {"task": "sst2", "encoders": 2, "lr_teachr": 1}}}', "the key 'lr_teachr'"),
        ('{"settings": {"recipe": {"task": "x", "encoders": 2, "own": {"name": "x"}}}}', "labels in .recipe.own. is"),
    ],
)
def test_what_a_run_remembers_is_checked(tmp_path, contents, said):
    (tmp_path / "run.json").write_text(contents, encoding="utf-8")
    with pytest.raises(InputError, match=said) as error:
        Run(tmp_path).task  # noqa: B018
    assert "run.json" in str(error.value)


def test_a_recipe_survives_json(tmp_path):
    own = Task.own("moods", ["low", "middling", "high"], pair=True)
    for recipe in (RECIPE, Recipe("moods", 3, own=own, init="converted", u0=0.5)):
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def old(settings):
    """Settings as refsnn 0.1 wrote them."""
    recipe = {("labels" if name == "targets" else name): value for name, value in settings["recipe"].items()}
    recipe.pop("own")
    return settings | {"recipe": recipe}


def test_a_run_that_an_older_version_began_goes_on(tmp_path):
    settings = run_settings(RECIPE, "glue", "bert")
    write_json(tmp_path / "run.json", {"settings": old(settings), "versions": {"refsnn": "0.1.0"}})
    run = Run(tmp_path)
    assert run.recipe == RECIPE
    run.begin(settings)
    with pytest.raises(InputError, match="targets was 'soft' and is 'true'"):
        run.begin(run_settings(replace(RECIPE, targets="true"), "glue", "bert"))
    assert json.loads((tmp_path / "run.json").read_text())["versions"] == {"refsnn": "0.1.0"}  # as it was


def test_results_of_an_older_version_are_found_by_their_rule(tmp_path):
    write_json(tmp_path / "results.json", {"rule": "running", "spikes": []})
    assert Run(tmp_path).evaluated() == ["running"] and Run(tmp_path).results("inst") is None
    write_json(tmp_path / "results-inst.json", {"rule": "inst", "spikes": [1]})
    assert Run(tmp_path).evaluated() == ["inst", "running"]


def test_a_second_rule_leaves_the_first_ones_results(folder):
    from refsnn.evaluation.evaluate import evaluate_run
    from refsnn.pages.report import write_report

    found = {rule: evaluate_run(folder, None, [4], rule) for rule in ("inst", "running")}
    assert {rule: Run(folder).results(rule)["spikes"] for rule in found} == {
        rule: results["spikes"] for rule, results in found.items()
    }
    page = write_report(folder).read_text(encoding="utf-8")
    assert "rule inst" in page and "rule running" in page


def test_where_the_data_were(tmp_path):
    (tmp_path / "train.csv").write_text("sentence,label\na,1\n")
    for data, said in ((None, "does not remember any data"), (str(tmp_path / "train.csv"), "no split to evaluate")):
        (tmp_path / "run.json").unlink(missing_ok=True)
        write_json(tmp_path / "run.json", {"settings": run_settings(RECIPE, data, "bert"), "versions": {}})
        with pytest.raises(InputError, match=said):
            Run(tmp_path).data()
    assert Run(tmp_path).data("elsewhere") == "elsewhere"


def test_streams_of_chance_keep_their_numbers():
    from refsnn.storage.recipe import Stream

    assert {stream: int(number) for stream, number in Stream.__members__.items()} == {
        "UNTRAINED_TEACHER": 0,
        "STUDENT": 1,
        "TEACHER_STAGE": 1,
        "GENERAL_STAGE": 2,
        "INTERNAL_STAGE": 3,
        "PREDICTION_STAGE": 4,
        "TEACHER_HEAD": 5,
        "PACKING": 6,
        "MISSING_CLASSIFIER": 6,
        "AUTHORS_POOLER": 7,
        "CONVERSION_SAMPLE": 8,
    }
    assert asdict(RECIPE)["seed"] == 0


def changed_run(tmp_path, change):
    """Distil, kill in thought, change something that the run names, and start again."""
    data, teacher = write_task(tmp_path / "data", 24), write_teacher(tmp_path / "bert")
    corpus = tmp_path / "text.txt"
    corpus.write_text("a gripping film\n\nanother one\n" * 20, encoding="utf-8")
    recipe = replace(RECIPE, epochs_general=1)
    distill(recipe, data, teacher, tmp_path / "run", [corpus])
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    (tmp_path / "run" / "config.json").unlink()
    (tmp_path / "run" / "stages" / "prediction.safetensors").unlink()
    change(tmp_path)
    try:
        distill(recipe, data, teacher, tmp_path / "run", [corpus])
    finally:
        assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def reworded(path, old, new):
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def nudged(path):
    tensors, _ = load_tensors(path)
    save_tensors(path, {name: value + name.endswith("LayerNorm.bias") for name, value in tensors.items()}, {})


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("data", lambda root: reworded(root / "data" / "train.tsv", "\t1\n", "\t0\n")),
        ("vocabulary", lambda root: reworded(root / "bert" / "vocab.txt", "film\n", "movie\n")),
        ("corpus", lambda root: reworded(root / "text.txt", "gripping", "griping")),
        ("teacher", lambda root: nudged(root / "bert" / "model.safetensors")),
    ],
)
def test_a_run_does_not_go_on_with_other_contents_of_the_same_paths(tmp_path, what, change):
    with pytest.raises(InputError, match=f"the {what}.* is not what it was when .*run was begun"):
        changed_run(tmp_path, change)


def test_a_run_goes_on_where_nothing_changed(tmp_path):
    changed_run(tmp_path, lambda root: (root / "data" / "dev.tsv").touch())


def test_a_run_that_remembers_no_digests_goes_on(tmp_path):
    write_json(tmp_path / "run.json", {"settings": run_settings(RECIPE, "glue", "bert"), "versions": {}})
    Run(tmp_path).begin(run_settings(RECIPE, "glue", "bert"), {"data": "0"})


HOLD = """
import sys
from refsnn.storage.run import Run
with Run(sys.argv[1]).held():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_never_train_in_one_folder(tmp_path):
    data, teacher = write_task(tmp_path / "data", 24), write_teacher(tmp_path / "bert")
    out = tmp_path / "run"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdin=-1, stdout=-1, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        for _ in range(2):
            with pytest.raises(InputError, match=rf"run is in use by process {other.pid} on .* since 20"):
                distill(RECIPE, data, teacher, out)
        assert not (out / "run.json").exists()
    finally:
        other.kill()
        other.wait()
    distill(RECIPE, data, teacher, out)  # what a killed process held is free
    assert Run(out).finished and not (out / ".holder").exists()


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ('{"internal": "long"}', "internal is 'long', but a number was expected"),
        ("[]", "holds a JSON list"),
        ('{"internal": NaN}', "internal is nan, but a number was expected"),
    ],
)
def test_timings_are_checked(tmp_path, contents, said):
    (tmp_path / "timings.json").write_text(contents)
    with pytest.raises(InputError, match=said):
        Run(tmp_path).timings()


def test_lines_of_a_log_that_are_none_are_left_out(tmp_path):
    run = Run(tmp_path)
    lines = [
        '{"stage": "internal", "step": 1, "loss": 2.0}',
        '{"stage": "internal", "step": "x"}',
        "[1]",
        '{"step": 3}',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, '{"stage": "int']))
    assert run.log() == {"internal": [{"step": 1.0, "loss": 2.0}]}
    run.forget_log_after("internal", 5)
    assert run.log() == {"internal": [{"step": 1.0, "loss": 2.0}]}
    run.forget_log_after("internal", 0)
    assert run.log() == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spikes": [{"t": "4"}]}, "t in .spikes. is '4'"),
        ({"spikes": None}, "spikes is None, but a list"),
        ({"metric": 3}, "metric is 3"),
        ({"ordinary": {}}, "picojoules in .ordinary. is missing"),
        ({"others": [{}]}, "split in .others. is missing"),
        ({"example": {"text": "a"}}, "label in .example. is missing"),
    ],
)
def test_results_are_checked(folder, change, said):
    from refsnn.evaluation.evaluate import evaluate_run
    from refsnn.pages.report import write_report

    results = evaluate_run(folder, None, [4], "inst")
    path = Run(folder).results_file("inst")
    assert Run(folder).results("inst") == json.loads(path.read_text())
    write_json(path, results | change)
    for read in (lambda: Run(folder).results("inst"), lambda: write_report(folder)):
        with pytest.raises(InputError, match=rf"results-inst.json: {said}.*evaluate the run again by rule inst"):
            read()
    path.unlink()
