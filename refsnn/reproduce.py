"""A whole reproduction by one plan: general distillation once, then every task, and one page of results.

    general                                      a student of the pretrained teacher, on unlabelled text
    for every task and seed:
        teacher, internal, prediction            `refsnn.distillation.stages`, starting from the general student
        evaluation                               by rate map and by spikes, by every rule asked for

A plan is a TOML file; `refsnn/recipes` has some. Everything is kept in one folder, so that the same command, after a
kill or an interruption, goes on where it was.
"""

from __future__ import annotations

import json
import os
import time
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from .data.corpora.reviews import sentiment
from .data.corpora.writing import paragraphs, train_vocabulary, write_corpus, write_glue_layout
from .data.examples import Examples
from .data.metrics import defined, metric_name, spread
from .data.reading import read_task
from .data.tasks import TASKS, splits
from .distillation.stages import Announce, distill, distill_general
from .errors import InputError
from .evaluation.evaluate import evaluate_run
from .evaluation.published import GLUE
from .files import json_lines, new_folder, read_json, write_json, write_text
from .model.shapes import BertConfig
from .pages.document import document, html_table
from .pages.report import read_log, write_report
from .readings.simulate import Rule
from .storage.checkpoints import bert_folder
from .storage.recipe import Recipe, Stage
from .storage.run import run_settings, versions

__all__ = ["Made", "Plan", "Step", "read_plan", "reproduce", "summarise", "time_left"]

# ---------------------------------------------------------------------------------------------------------------------
# The plan


@dataclass(frozen=True)
class Made:
    """Text, and a BERT trained from scratch on some of it, for a plan that is given none.

    Attributes
    ----------
    train, dev : int
        Labelled examples of each task.
    paragraphs : int
        Of unlabelled text, for the vocabulary and the general stage.
    vocabulary : int
        Tokens at most.
    pretraining, epochs : int
        What stands for pretraining: labelled sentences of the same kind, none of them in a dev split.
    lr : float
    width, layers, heads : int
        Of the teacher.
    """

    train: int = 4000
    dev: int = 400
    paragraphs: int = 1000
    vocabulary: int = 900
    pretraining: int = 8000
    epochs: int = 5
    lr: float = 3e-4
    width: int = 64
    layers: int = 2
    heads: int = 4


@dataclass(frozen=True)
class Evaluation:
    """How every student is evaluated.

    Attributes
    ----------
    t_conv : list of int
        Timesteps after which the spikes are read.
    rules : list of {"inst", "running"}
        Integration rules; the pages of single runs show the first.
    """

    t_conv: list[int]
    rules: list[Rule]


@dataclass(frozen=True)
class Plan:
    """What `refsnn reproduce` does.

    Attributes
    ----------
    source : str
        The file, for messages.
    tasks : dict
        Task -> its recipe, for the first seed.
    seeds : list of int
    general : Recipe
        Of the general stage.
    evaluation : Evaluation
    data, teacher : str or None
    corpus : list of str
    made : Made or None
    """

    source: str
    tasks: dict[str, Recipe]
    seeds: list[int]
    general: Recipe
    evaluation: Evaluation
    data: str | None
    teacher: str | None
    corpus: list[str]
    made: Made | None


#: Keys of a plan's file and the types of their values; tables are looked into further down.
KEYS = {
    "tasks": list[str],
    "seeds": list[int],
    "data": str,
    "teacher": str,
    "corpus": list[str],
    "recipe": dict,
    "general": dict,
    "task": dict,
    "evaluation": dict,
    "made": dict,
}

#: Tasks that text can be made for, and what `refsnn.data.corpora` calls them.
MADE = {"sst2": "sentiment", "rte": "pairs"}


def read_plan(config: str | os.PathLike, tasks: Sequence[str] = ()) -> Plan:
    """Read a plan.

    Parameters
    ----------
    config : path or str
        A TOML file; or ``paper``, ``small``, ``converted``, ``deep`` or ``tiny``, which come with the package.
    tasks : sequence of str
        Instead of the plan's.

    Returns
    -------
    plan : Plan

    Raises
    ------
    InputError
        The file is missing or no TOML, or a key or value in it cannot be used.

    Examples
    --------
    >>> plan = read_plan("paper")
    >>> plan.general.encoders, plan.general.batch_size, plan.tasks["sst2"].vth
    (4, 128, 1.0)
    """
    source, text = _plan_text(config)
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is not valid TOML ({error})") from None
    _check(source, "", given, KEYS)
    recipe_types = {name: kind for name, kind in get_type_hints(Recipe).items() if name not in ("task", "seed")}
    shared = _check(source, "recipe", given.get("recipe", {}), recipe_types)
    general = _check(source, "general", given.get("general", {}), recipe_types)
    _check(source, "task", given.get("task", {}), dict.fromkeys(TASKS, dict))
    own = {name: _check(source, f"task.{name}", values, recipe_types) for name, values in given.get("task", {}).items()}
    evaluation = _fill(source, "evaluation", given.get("evaluation", {}), Evaluation)
    if not evaluation.t_conv or min(evaluation.t_conv) < 1:
        raise InputError(f"{source}: t_conv in [evaluation] is {evaluation.t_conv}, but a simulation takes a step")
    if not evaluation.rules:
        raise InputError(f"{source}: rules in [evaluation] is empty, but at least one rule is needed")
    names, seeds = list(dict.fromkeys(tasks or given.get("tasks", []))), list(dict.fromkeys(given.get("seeds", [0])))
    if not names or not seeds:
        raise InputError(f"{source} has no {'seeds' if names else 'tasks'}; name at least one")
    if unknown := [name for name in names if name not in TASKS]:
        raise InputError(f"{source}: the task {unknown[0]!r} is none of {', '.join(TASKS)}")
    if min(seeds) < 0:
        raise InputError(f"{source}: seeds is {seeds}, but a seed is 0 or more")
    if "encoders" not in shared:
        raise InputError(f"{source}: [recipe] has no encoders; say how many the student shall have")

    def recipe(where: str, task: str, values: Mapping[str, Any]) -> Recipe:
        try:
            return Recipe(**{"task": task, "seed": seeds[0], **shared, **values})
        except InputError as error:
            raise InputError(f"{source}, {where}: {error}") from None

    return Plan(
        source,
        {name: recipe(f"task {name}", name, own.get(name, {})) for name in names},
        seeds,
        recipe("general stage", names[0], {"max_length": shared.get("max_length", 128), **general}),
        evaluation,
        given.get("data"),
        given.get("teacher"),
        given.get("corpus", []),
        _fill(source, "made", given["made"], Made) if "made" in given else None,
    )


def _plan_text(config: str | os.PathLike) -> tuple[str, str]:
    path = Path(config)
    known = sorted(file.name for file in resources.files("refsnn.recipes").iterdir() if file.name.endswith(".toml"))
    name = f"{str(config).removesuffix('.toml')}.toml"
    if not path.is_file() and name in known:
        return name, (resources.files("refsnn.recipes") / name).read_text(encoding="utf-8")
    if not path.is_file():
        raise InputError(f"there is no plan {path}; name a TOML file, or one of {', '.join(known)}")
    try:
        return str(path), path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None


def _check(source: str, where: str, given: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Make sure that a table has known keys with values of their types."""
    place = f" in [{where}]" if where else ""
    for key, value in given.items():
        if key not in kinds:
            raise InputError(f"{source}: the key {key!r}{place} is not known; there are {', '.join(kinds)}")
        if not _fits(value, kinds[key]):
            raise InputError(f"{source}: {key}{place} is {value!r}, but {_words(kinds[key])} was expected")
    return dict(given)


def _fill(source: str, where: str, given: Mapping[str, Any], into: type) -> Any:
    values = _check(source, where, given, get_type_hints(into))
    missing = [field.name for field in fields(into) if field.default is MISSING and field.name not in values]
    if missing:
        raise InputError(f"{source}: [{where}] has no {missing[0]}")
    for name, value in values.items():
        if isinstance(value, int | float) and value <= 0:
            raise InputError(f"{source}: {name} in [{where}] is {value}, but it must be more than 0")
    return into(**values)


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(item, get_args(kind)[0]) for item in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType):
        return _words(next(one for one in get_args(kind) if one is not type(None)))
    if get_origin(kind) is list:
        return f"a list, each entry {_words(get_args(kind)[0])},"
    return {int: "a whole number", float: "a number", str: "text in quotes", dict: "a table"}.get(kind, str(kind))


# ---------------------------------------------------------------------------------------------------------------------
# Time


class Step(NamedTuple):
    """One stage of the plan.

    Attributes
    ----------
    run : Path
    stage : str
        What the run's log and timings call it; of an evaluation ``"evaluation RULE"``.
    title : str
    steps : int
        Training steps; 1 for an evaluation. 0 while it is not known.
    work : float
        What the time should be proportional to: words of text times epochs, or times timesteps.
    """

    run: Path
    stage: str
    title: str
    steps: int
    work: float


#: Stages that cost about the same for a word of text: what is known of one serves for another until it is measured.
ALIKE = {
    "internal": ("general",),
    "prediction": ("internal", "general"),
    "teacher": ("pretraining",),
    "evaluation inst": ("evaluation running",),
    "evaluation running": ("evaluation inst",),
}


def time_left(states: Sequence[tuple[str, float, float, float]]) -> tuple[float, list[str]]:
    """Estimate the seconds that a plan still takes, from what its finished parts took.

    Parameters
    ----------
    states : sequence of (str, float, float, float)
        Of each stage: its kind, its work, the fraction of it that is done, the seconds that this took.

    Returns
    -------
    seconds : float
        Of all that is left and of a kind that was measured, or of one much like it.
    unknown : list of str
        Other kinds of stage that are left.

    Examples
    --------
    >>> time_left([("general", 100, 1, 50), ("internal", 30, 0.5, 9), ("internal", 40, 0, 0), ("evaluation", 5, 0, 0)])
    (33.0, ['evaluation'])
    """
    rates: dict[str, float] = {}
    for kind in dict.fromkeys(state[0] for state in states):
        done = sum(work * fraction for other, work, fraction, _ in states if other == kind)
        if done:
            rates[kind] = sum(spent for other, _, _, spent in states if other == kind) / done
    seconds, unknown = 0.0, []
    for kind, work, fraction, _ in states:
        known = [rates[other] for other in (kind, *ALIKE.get(kind, ())) if other in rates]
        if known:
            seconds += work * (1 - fraction) * known[0]
        elif fraction < 1 and kind not in unknown:
            unknown.append(kind)
    return seconds, unknown


def duration(seconds: float) -> str:
    """Write a duration as one would say it.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    words : str

    Examples
    --------
    >>> [duration(x) for x in (0.4, 75, 1000, 10_000, 1e6)]
    ['1 s', '75 s', '17 min', '2.8 h', '11.6 days']
    """
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < limit:
            return f"{max(1, seconds / unit):.0f} {name}"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"


class Progress:
    """Say which stage of the plan begins, and what is left; keep that as ``log.jsonl``."""

    def __init__(self, out: Path, steps: Sequence[Step]) -> None:
        self.log, self.steps = out / "log.jsonl", list(steps)
        entries = json_lines(self.log)
        write_text(self.log, "".join(json.dumps(entry) + "\n" for entry in entries))  # without half a line
        for entry in entries:
            self._learn(entry["title"], entry["steps"], entry["work"])

    def _learn(self, title: str, steps: int, work: float) -> None:
        """Take up what only reading the text tells: how much there is of the general stage."""
        self.steps = [
            step._replace(steps=steps, work=work) if step.title == title and not step.steps else step
            for step in self.steps
        ]

    def state(self, step: Step) -> tuple[str, float, float, float]:
        """Tell what `time_left` wants to know."""
        kind = "pretraining" if step.run.name == "pretrained" else step.stage
        if kind.startswith("evaluation"):
            path = _results(step.run, kind.split()[1])
            return kind, step.work, float(path.exists()), read_json(path)["seconds"] if path.exists() else 0.0
        logged = read_log(step.run).get(step.stage)
        timings = step.run / "timings.json"
        spent = read_json(timings).get(step.stage, 0.0) if timings.exists() else 0.0
        fraction = min(1.0, logged[-1]["step"] / step.steps) if logged and step.steps else 0.0
        return kind, step.work, fraction if spent else 0.0, spent

    def begin(self, run: Path, stage: str, text: Examples | None = None, epochs: int = 0, size: int = 1) -> None:
        """Say that a stage begins, unless it is finished already."""
        number = next(i for i, step in enumerate(self.steps) if (step.run, step.stage) == (run, stage))
        if text is not None:
            self._learn(self.steps[number].title, -(-len(text) // size) * epochs, float(len(text.tokens)) * epochs)
        states = [self.state(step) for step in self.steps]
        if states[number][2] == 1:
            return
        seconds, unknown = time_left(states)
        left = f"about {duration(seconds)} left" if seconds else "time left not known yet"
        if unknown and seconds:
            left += f", not counting {', '.join(unknown)}: not measured yet"
        step = self.steps[number]
        print(f"\nstage {number + 1} of {len(self.steps)}: {step.title}; {left}", flush=True)
        entry = {"title": step.title, "number": number + 1, "of": len(self.steps)}
        entry |= {"steps": step.steps, "work": step.work, "seconds_left": round(seconds, 1), "unknown": unknown}
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(json.dumps(entry | {"at": round(time.time(), 1)}) + "\n")


# ---------------------------------------------------------------------------------------------------------------------
# The work


def reproduce(
    config: str | os.PathLike,
    out: str | os.PathLike,
    data: str | os.PathLike | None = None,
    teacher: str | os.PathLike | None = None,
    corpus: Sequence[str | os.PathLike] = (),
    tasks: Sequence[str] = (),
    save_every: float = 20.0,
) -> dict[str, Any]:
    """Carry out a plan, or go on with it.

    Parameters
    ----------
    config : path or str
        See `read_plan`.
    out : path
        The folder for everything: ``general``, ``TASK/seed-S`` with a run as `refsnn.distillation.stages.distill` and
        `refsnn.evaluation.evaluate.evaluate_run` leave it, ``log.jsonl``, ``results.json`` and ``report.html``.
    data, teacher, corpus, tasks
        Instead of the plan's. `data` is the folder above the tasks', or the hub.
    save_every : float
        Seconds between checkpoints; see `refsnn.distillation.training.train`.

    Returns
    -------
    results : dict
        As ``results.json``.

    Raises
    ------
    InputError
        Something given cannot be used, or `out` holds what another plan made.
    """
    plan = read_plan(config, tasks)
    data, teacher, corpus = data or plan.data, teacher or plan.teacher, list(corpus or plan.corpus)
    made = None if data or teacher or corpus else plan.made
    if made is None:
        needed = {"data": data, "teacher": teacher, "corpus": corpus or not plan.general.epochs_general}
        if missing := [f"--{what}" for what, given in needed.items() if not given]:
            raise InputError(f"{plan.source} does not say everything that is needed; give {', '.join(missing)} too")
        bert_folder(str(teacher))
        run = new_folder(out)
    else:
        run = new_folder(out)
        data, teacher, corpus = run / "made", run / "pretrained" / "teacher", [run / "made" / "corpus.txt"]
        _make_text(made, plan, run / "made")
    data, teacher = str(data), str(teacher)
    sizes = {name: _sizes(data, name, plan) for name in plan.tasks}
    progress = Progress(run, _steps(plan, run, sizes, made))

    def announce(folder: Path) -> Announce:
        def begin(stage: Stage, text: Examples) -> None:
            if stage.epochs:
                progress.begin(folder, stage.name, text, stage.epochs, stage.batch_size)

        return begin

    if made is not None:
        folder, scratch = run / "pretrained", (_bert(made, run / "made"), run / "made")
        text = run / "made" / "pretraining.tsv"
        distill(_pretraining(made, plan), text, scratch, folder, save_every=save_every, announce=announce(folder))
    general = None
    if plan.general.epochs_general:
        general = run / "general"
        distill_general(plan.general, teacher, corpus, general, save_every, announce(general))
    for name, recipe in plan.tasks.items():
        for seed in plan.seeds:
            folder = new_folder(run / name / f"seed-{seed}")
            own = replace(recipe, seed=seed, epochs_general=plan.general.epochs_general)
            if _finished(folder, run_settings(own, data, teacher, general=general), plan.evaluation):
                continue
            distill(own, data, teacher, folder, save_every=save_every, general=general, announce=announce(folder))
            _evaluate(folder, data, plan.evaluation, f"made-up {TASKS[name].folder}" if made else None, progress)
    results = summarise(plan, run, made is not None)
    write_json(run / "results.json", results)
    write_text(run / "report.html", _page(results))
    return results


def _make_text(made: Made, plan: Plan, folder: Path) -> None:
    """Write labelled and unlabelled text, and a vocabulary; the same bytes each time."""
    seed = plan.seeds[0]
    dev: set[str] = set()
    for name in plan.tasks:
        if name not in MADE:
            raise InputError(
                f"{plan.source}: text can be made up for {' and '.join(MADE)}, but not for {name}; "
                "give --data, --teacher and --corpus"
            )
        home = folder / TASKS[name].folder
        write_glue_layout(home, MADE[name], seed, made.train, made.dev)
        rows = (home / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
        dev.update(field for row in rows for field in row.split("\t"))
    pretraining = sentiment(made.pretraining, 2 * seed + 3, dev)
    write_text(folder / "pretraining.tsv", "sentence\tlabel\n" + "".join(f"{x}\t{y}\n" for x, y in pretraining))
    write_corpus(folder / "corpus.txt", made.paragraphs, seed)
    train_vocabulary(paragraphs(made.paragraphs, seed), made.vocabulary, folder / "vocab.txt")


def _bert(made: Made, folder: Path) -> BertConfig:
    rows = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    return BertConfig(
        vocab_size=rows,
        hidden_size=made.width,
        num_hidden_layers=made.layers,
        num_attention_heads=made.heads,
        intermediate_size=4 * made.width,
        max_position_embeddings=128,
    )


def _pretraining(made: Made, plan: Plan) -> Recipe:
    """Train a BERT from scratch, and nothing from it."""
    return Recipe(
        task="sst2",
        encoders=made.layers,
        seed=plan.seeds[0],
        max_length=64,
        epochs_teacher=made.epochs,
        epochs_general=0,
        epochs_internal=0,
        epochs_prediction=0,
        lr_teacher=made.lr,
        labels="true",
    )


class Size(NamedTuple):
    """Rows and words of a task's train split, and words of its dev split."""

    rows: int
    words: int
    dev: int


def _sizes(data: Any, name: str, plan: Plan) -> Size:
    """Read a task once before anything is trained, so that what is wrong with it is said now."""
    task = TASKS[name]

    def words(part: str) -> tuple[int, int]:
        dataset = read_task(data, task, part)
        return len(dataset), sum(len(text.split()) for column in task.sentences for text in dataset[column])

    return Size(*words("train"), sum(words(part)[1] for part in splits(task, data, "dev")))


def _steps(plan: Plan, run: Path, sizes: Mapping[str, Size], made: Made | None) -> list[Step]:
    """List all stages, in their order."""
    found = []
    if made is not None:
        found.append(Step(run / "pretrained", "teacher", "pretraining", 0, 0.0))
    if plan.general.epochs_general:
        found.append(Step(run / "general", "general", "general distillation", 0, 0.0))
    for name, recipe in plan.tasks.items():
        size = sizes[name]
        for seed in plan.seeds:
            folder = run / name / f"seed-{seed}"
            label = f"{TASKS[name].folder}, seed {seed}" if len(plan.seeds) > 1 else TASKS[name].folder
            for stage in ("teacher", "internal", "prediction"):
                if epochs := recipe.stage(stage).epochs:
                    steps = -(-size.rows // recipe.batch_size) * epochs
                    found.append(Step(folder, stage, f"{label}, {stage}", steps, float(size.words) * epochs))
            for rule in _in_order(plan.evaluation):
                work = float(size.dev) * max(plan.evaluation.t_conv)
                found.append(Step(folder, f"evaluation {rule}", f"{label}, evaluation by rule {rule}", 1, work))
    return found


def _in_order(evaluation: Evaluation) -> list[Rule]:
    """Put the first rule last: `evaluate_run` leaves its results where the page is drawn from."""
    return list(reversed(list(dict.fromkeys(evaluation.rules))))


def _results(run: Path, rule: str) -> Path:
    return run / f"results-{rule}.json"


def _evaluated(run: Path, rule: str, evaluation: Evaluation) -> bool:
    path = _results(run, rule)
    return path.exists() and [row["t"] for row in read_json(path)["spikes"]] == sorted(set(evaluation.t_conv))


def _finished(run: Path, wanted: Mapping[str, Any], evaluation: Evaluation) -> bool:
    """Whether a run was made with these settings, and evaluated and reported as asked for."""
    if not (run / "report.html").exists() or read_json(run / "run.json")["settings"] != wanted:
        return False
    return all(_evaluated(run, rule, evaluation) for rule in evaluation.rules)


def _evaluate(run: Path, data: Any, evaluation: Evaluation, name: str | None, progress: Progress) -> None:
    for rule in _in_order(evaluation):
        if not _evaluated(run, rule, evaluation):
            _results(run, rule).unlink(missing_ok=True)
            progress.begin(run, f"evaluation {rule}")
            write_json(_results(run, rule), evaluate_run(run, data, evaluation.t_conv, rule, name))
    write_json(run / "results.json", read_json(_results(run, evaluation.rules[0])))
    write_report(run)


# ---------------------------------------------------------------------------------------------------------------------
# The results


def summarise(plan: Plan, out: Path, made: bool = False) -> dict[str, Any]:
    """Gather the results of all runs of a finished plan.

    Parameters
    ----------
    plan : Plan
    out : Path
    made : bool
        Whether text and teacher are made up.

    Returns
    -------
    results : dict
        Under ``"tasks"``, of each task its first GLUE metric for the teacher, the rate map and the spikes: mean, least
        and greatest over the seeds, and all values, as fractions; and the published figure, None where there is none.
    """
    tasks = []
    for name in plan.tasks:
        folders = [out / name / f"seed-{seed}" for seed in plan.seeds]
        found = {rule: [read_json(_results(folder, rule)) for folder in folders] for rule in plan.evaluation.rules}
        first = found[plan.evaluation.rules[0]]
        metric = TASKS[name].metrics[0]
        spikes = [
            {
                "rule": rule,
                "t": row["t"],
                **_over_seeds([run["spikes"][i]["metrics"][metric] for run in runs]),
                "firing_rate": spread([run["spikes"][i]["firing_rate"] for run in runs]).mean,
                "energy_gain": spread([run["spikes"][i]["energy_gain"] for run in runs]).mean,
            }
            for rule, runs in found.items()
            for i, row in enumerate(runs[0]["spikes"])
        ]
        tasks.append(
            {
                "task": name,
                "name": first[0]["task"],
                "metric": metric,
                "split": first[0]["split"],
                "examples": first[0]["examples"],
                "teacher": _over_seeds([run["metrics"]["teacher"][metric] for run in first]),
                "rate": _over_seeds([run["metrics"]["rate"][metric] for run in first]),
                "spikes": spikes,
                "published": None if made else GLUE.get(name),
                "seeds": plan.seeds,
                "seconds": round(sum(map(_seconds, folders)), 1),
                "runs": [folder.relative_to(out).as_posix() for folder in folders],
            }
        )
    general = [out / name for name in ("pretrained", "general") if (out / name).exists()]
    return {
        "plan": plan.source,
        "made_up": made,
        "tasks": tasks,
        "general_seconds": round(sum(map(_seconds, general)), 1),
        "recipes": {"general": _differing(plan.general)} | {name: _differing(r) for name, r in plan.tasks.items()},
        "versions": versions(),
    }


def _over_seeds(values: Sequence[float | None]) -> dict[str, Any]:
    mean, least, greatest = map(defined, spread(values))
    return {"mean": mean, "least": least, "greatest": greatest, "values": list(values)}


def _seconds(run: Path) -> float:
    timings = run / "timings.json"
    stages = sum(read_json(timings).values()) if timings.exists() else 0.0
    return stages + sum(read_json(path).get("seconds", 0.0) for path in run.glob("results-*.json"))


def _differing(recipe: Recipe) -> dict[str, Any]:
    """Pick what of a recipe is not the default."""
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe) if field.name not in ("task", "seed")}
    defaults = {field.name: field.default for field in fields(recipe)}
    return {name: value for name, value in values.items() if value != defaults[name]}


def _head(results: Mapping[str, Any]) -> list[str]:
    times = dict.fromkeys(f"T = {row['t']}" for row in results["tasks"][0]["spikes"])
    published = ["published"] * _is_published(results)
    return ["task", "metric", "rule", "teacher", "rate map", *times, *published, "seeds", "time"]


def _rows(results: Mapping[str, Any], form: str) -> list[list[str]]:
    """Lay out a line for each task and rule; `form` says how a mean and its range are written."""

    def cell(row: Mapping[str, Any], value: Mapping[str, Any]) -> str:
        if value["mean"] is None:
            return "–"
        mean, *ends = (f"{100 * value[key]:.1f}" for key in ("mean", "least", "greatest"))
        return form.format(mean, "–".join(ends)) if len(row["seeds"]) > 1 else mean

    lines = []
    for row in results["tasks"]:
        published = ["–" if row["published"] is None else f"{row['published']:.1f}"] * _is_published(results)
        for rule in dict.fromkeys(spikes["rule"] for spikes in row["spikes"]):
            values = [row["teacher"], row["rate"], *(spikes for spikes in row["spikes"] if spikes["rule"] == rule)]
            cells = [row["name"], metric_name(row["metric"]), rule, *(cell(row, value) for value in values), *published]
            lines.append([*cells, ", ".join(map(str, row["seeds"])), duration(row["seconds"])])
    return lines


def text_table(results: Mapping[str, Any]) -> str:
    """Lay out the results for the terminal.

    Parameters
    ----------
    results : dict
        As from `reproduce`.

    Returns
    -------
    text : str
    """
    rows = [_head(results), *_rows(results, "{} ({})")]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*lines, "", NOTE.format(seeds=_of_seeds(results), general=duration(results["general_seconds"]))])


#: What the table means.
NOTE = (
    "Metrics are times 100{seeds}. Rate map: the student at the equilibrium of its rates; T: by spikes counted over "
    "T time steps.\nTime: of one task, all its seeds; the stages before the tasks took {general}."
)


def _is_published(results: Mapping[str, Any]) -> bool:
    return any(row["published"] is not None for row in results["tasks"])


def _of_seeds(results: Mapping[str, Any]) -> str:
    return ": mean, least and greatest over the seeds" if len(results["tasks"][0]["seeds"]) > 1 else ""


def _page(results: Mapping[str, Any]) -> str:
    links = {
        row["name"]: ", ".join(
            f'<a href="{escape(run)}/report.html">{seed}</a>'
            for run, seed in zip(row["runs"], row["seeds"], strict=True)
        )
        for row in results["tasks"]
    }
    rows = [[*line[:-2], links[line[0]], line[-1]] for line in _rows(results, "{}<br><small>{}</small>")]
    examples = "; ".join(f"{escape(row['name'])} {row['split']}: {row['examples']}" for row in results["tasks"])
    note = NOTE.format(seeds=_of_seeds(results), general=duration(results["general_seconds"]))
    note += f" Examples: {examples}. Each seed links to the page of its run."
    if _is_published(results):
        note += " Published: the paper’s own figure for its 4 encoders of width 768 and BERT-base."
    if results["made_up"]:
        note += " Text and teacher are made up: these figures say that everything works, and nothing about GLUE."
    energy = [
        [
            f"{escape(row['name'])}, T = {spikes['t']}, {spikes['rule']}",
            f"{spikes['firing_rate']:.3f}",
            f"{spikes['energy_gain']:.2f}×",
        ]
        for row in results["tasks"]
        for spikes in row["spikes"]
    ]
    recipes = [
        [escape(name), escape(", ".join(f"{key} {value}" for key, value in recipe.items())) or "as by default"]
        for name, recipe in results["recipes"].items()
    ]
    versions = [[escape(name), escape(value)] for name, value in results["versions"].items()]
    sections = {
        "Results": f'{html_table("Dev splits", _head(results), rows)}\n<p class="note">{note}</p>',
        "Activity and energy": html_table("Means over the seeds", ["", "firing rate", "energy gain"], energy)
        + '\n<p class="note">Firing rate: spikes per neuron and step. Energy gain: against the same-size network of '
        "ordinary units, by the paper’s count; below 1× the spiking network costs more.</p>",
        "Recipes": '<div class="tables">\n'
        + html_table("Where they differ from the defaults of <code>refsnn distill</code>", [], recipes, "words")
        + html_table("Versions", [], versions)
        + "\n</div>",
    }
    general = results["recipes"]["general"].get("epochs_general") != 0
    once = "a spiking student was distilled from a pretrained BERT on unlabelled text once; " if general else ""
    about = (
        f"<p>A reproduction of SpikingBERT by the plan <code>{escape(Path(results['plan']).name)}</code>: {once}"
        f"for every task and seed BERT was fine-tuned; {'the' if general else 'a spiking'} student learnt of it.</p>"
    )
    return document("SpikingBERT, reproduced", about, sections)
