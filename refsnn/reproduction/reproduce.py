"""A whole reproduction by one plan: general distillation once, then every task, and one page of results.

    general                                      a student of the pretrained teacher, on unlabelled text
    for every task and seed:
        teacher, internal, prediction            `refsnn.distillation.stages`, starting from the general student
        evaluation                               by rate map and by spikes, by every rule asked for

A plan is a TOML file; `refsnn/reproduction/plans` has some. Everything is kept in one folder, so that the same
command resumes after a kill or an interruption. Tasks and seeds do not depend on each other, so an executor may carry
them out on several processes or machines: to the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..data.corpora.reviews import sentiment
from ..data.corpora.writing import paragraphs, train_vocabulary, write_corpus, write_glue_layout
from ..data.reading import read_task
from ..data.tasks import TASKS, splits
from ..distillation.stages import data_digest, distill, distill_general, run_digests
from ..errors import InputError
from ..evaluation.evaluate import evaluate_run
from ..files import new_folder, write_json, write_text
from ..model.shapes import BertConfig
from ..pages.report import write_report
from ..readings.simulate import Rule
from ..storage.checkpoints import bert_folder, load_bert
from ..storage.recipe import Recipe
from ..storage.run import Run, run_settings
from ..workers import carried
from .plan import MADE, Evaluation, Made, Plan, read_plan
from .progress import Progress, Step
from .summary import plan_page, summarise

__all__ = [
    "reproduce",
]


def reproduce(
    config: str | os.PathLike,
    out: str | os.PathLike,
    data: str | os.PathLike | None = None,
    teacher: str | os.PathLike | None = None,
    corpus: Sequence[str | os.PathLike] = (),
    tasks: Sequence[str] = (),
    save_every: float = 20.0,
    executor: Executor | None = None,
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
    executor : concurrent.futures.Executor, optional
        What carries out tasks and seeds, as `refsnn.workers.executor` opens it; by default this process, one after the
        other. Everything before them is done here.

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
        if missing := [f"`{what}`" for what, given in needed.items() if not given]:
            raise InputError(f"{plan.source} does not say everything that is needed; give {', '.join(missing)} too")
        bert_folder(str(teacher))
    with Run(out).held():
        return _reproduce(plan, Path(out), data, teacher, corpus, made, save_every, executor)


def _reproduce(
    plan: Plan,
    run: Path,
    data: Any,
    teacher: Any,
    corpus: list[Any],
    made: Made | None,
    save_every: float,
    executor: Executor | None,
) -> dict[str, Any]:
    if made is not None:
        data, teacher, corpus = run / "made", run / "pretrained" / "teacher", [run / "made" / "corpus.txt"]
        _make_text(made, plan, run / "made")
    data, teacher = str(data), str(teacher)
    sizes = {name: _sizes(data, name, plan) for name in plan.tasks}
    progress = Progress(run, _steps(plan, run, sizes, made))

    if made is not None:
        folder, scratch = run / "pretrained", (_bert(made, run / "made"), run / "made")
        text = run / "made" / "pretraining.tsv"
        distill(
            _pretraining(made, plan), text, scratch, folder, save_every=save_every, announce=progress.announce(folder)
        )
    general = None
    if plan.general.epochs_general:
        general = run / "general"
        distill_general(plan.general, teacher, corpus, general, save_every, progress.announce(general))

    @cache
    def shared() -> dict[str, str]:
        return run_digests(None, *load_bert(teacher), bert_folder(teacher))

    tasks = []
    for name, recipe in plan.tasks.items():
        for seed in plan.seeds:
            folder = new_folder(run / name / f"seed-{seed}")
            own = replace(recipe, seed=seed, epochs_general=plan.general.epochs_general)
            if _finished(Run(folder), run_settings(own, data, teacher, general=general), plan.evaluation):
                Run(folder).check_digests(shared() | {"data": sizes[name].digest})
                continue
            called = f"made-up {TASKS[name].folder}" if made else None
            tasks.append(_Task(folder, own, data, teacher, general, plan.evaluation, called, save_every))
    if executor is None:
        for task in tasks:
            _carry_out(task, progress)
    else:
        progress.begin_tasks(len(tasks))
        for number, _ in carried(executor, _carry_out, tasks):
            progress.finished(tasks[number].folder)
    results = summarise(plan, run, made is not None)
    write_json(run / "results.json", results)
    write_text(run / "report.html", plan_page(results, run))
    return results


class _Task(NamedTuple):
    """One task and one seed: all that a worker needs to know, in words."""

    folder: Path
    recipe: Recipe
    data: str
    teacher: str
    general: Path | None
    evaluation: Evaluation
    called: str | None
    save_every: float


#: Seconds that a task waits for its folder: a worker that was lost may still be ending.
ENDING = 60.0


def _carry_out(task: _Task, progress: Progress | None = None) -> None:
    """Distil and evaluate, or go on with it."""
    run = Run(task.folder)
    announce: dict[str, Any] = {} if progress is None else {"announce": progress.announce(task.folder)}
    try:
        for what in ("", *(f"results-{rule}" for rule in task.evaluation.rules)):
            with run.held(what, wait=ENDING):
                pass
        distill(
            task.recipe,
            task.data,
            task.teacher,
            task.folder,
            save_every=task.save_every,
            general=task.general,
            **announce,
        )
        _evaluate(run, task.data, task.evaluation, task.called, progress)
    except InputError as error:
        if progress is not None:  # it has said which task this is
            raise
        raise InputError(f"{run}: {error}") from None


def _make_text(made: Made, plan: Plan, folder: Path) -> None:
    """Write labelled and unlabelled text, and a vocabulary; the same bytes each time."""
    seed = plan.seeds[0]
    dev: set[str] = set()
    for name in plan.tasks:
        if name not in MADE:
            raise InputError(
                f"{plan.source}: text can be made up for {' and '.join(MADE)}, but not for {name}; "
                "give `data`, `teacher` and `corpus`"
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
        targets="true",
    )


class Size(NamedTuple):
    """Rows and words of a task's train split and its fingerprint, and words of its dev split."""

    rows: int
    words: int
    digest: str
    dev: int


def _sizes(data: Any, name: str, plan: Plan) -> Size:
    """Read a task once before anything is trained, so that what is wrong with it is said now."""
    task = TASKS[name]

    def words(dataset: Any) -> int:
        return sum(len(text.split()) for column in task.sentences for text in dataset[column])

    train = read_task(data, task, "train")
    dev = sum(words(read_task(data, task, part)) for part in splits(task, data, "dev"))
    return Size(len(train), words(train), data_digest(train), dev)


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
            for stage in map(recipe.stage, ("teacher", "internal", "prediction")):
                if steps := stage.steps(size.rows):
                    work = float(size.words) * stage.epochs
                    found.append(Step(folder, stage.name, f"{label}, {stage.name}", steps, work))
            for rule in dict.fromkeys(plan.evaluation.rules):
                work = float(size.dev) * max(plan.evaluation.t_conv)
                found.append(Step(folder, f"evaluation {rule}", f"{label}, evaluation by rule {rule}", 1, work))
    return found


def _evaluated(run: Run, rule: Rule, evaluation: Evaluation) -> bool:
    results = run.results(rule)
    return results is not None and [row["t"] for row in results["spikes"]] == sorted(set(evaluation.t_conv))


def _finished(run: Run, wanted: Mapping[str, Any], evaluation: Evaluation) -> bool:
    """Whether a run was made with these settings, and evaluated and reported as asked for."""
    if not (run.folder / "report.html").exists() or run.differences(wanted):
        return False
    return all(_evaluated(run, rule, evaluation) for rule in evaluation.rules)


def _evaluate(run: Run, data: Any, evaluation: Evaluation, name: str | None, progress: Progress | None) -> None:
    for rule in dict.fromkeys(evaluation.rules):
        if not _evaluated(run, rule, evaluation):
            run.results_file(rule).unlink(missing_ok=True)
            if progress is not None:
                progress.begin(run.folder, f"evaluation {rule}")
            evaluate_run(run, data, evaluation.t_conv, rule, name)
    write_report(run, evaluation.rules[0])
