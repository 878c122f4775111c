"""Commands that train: the demonstration, one distillation, a whole plan."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from typing import Any

from .command import Command, add_corpus, add_data, add_fields, add_save_every, add_seed, add_workers, seed

__all__ = ["COMMANDS"]


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", metavar="RUN", help="folder of the run (default: runs/demo, or runs/demo-gpt with --gpt)"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--task", choices=("sentiment", "pairs"), default="sentiment", help="which corpus to make")
    which.add_argument("--gpt", action="store_true", help="a GPT and its spiking student, which writes a sentence")
    add_seed(parser)


def _demo(options: Any) -> int:
    from ..reproduction.demo import demo, demo_gpt

    default = "runs/demo-gpt" if options.gpt else "runs/demo"
    out = default if options.out is None else options.out
    if options.gpt:
        demo_gpt(out, options.seed)
    else:
        demo(out, options.task, options.seed)
    return 0


#: What each field of a recipe is, where its name does not say it.
RECIPE_HELP = {
    "max_length": "limit in tokens (default: the task's, 64 for CoLA and SST-2, 128 otherwise)",
    "batch_size": "examples per step",
    "batch_size_internal": "the same in the internal stage (default: as in the others)",
    "schedule_internal": "learning rate of the internal stage: constant, or warm-up and linear decay",
    "attention_weight": "weight of the attention loss in the general and internal stages",
    "targets": "what the prediction stage learns: the teacher's soft labels or the true ones; a regression always "
    "learns the true scores",
    "temperature": "temperature of the soft labels",
    "mode": "forward values and gradient at the equilibrium, of rates as they are or quantised; simulated values, "
    "gradient there (released); both at simulated rates, of one T or, with soft labels, of T/2 and T (few-steps)",
    "t_conv": "timesteps of the quantised and simulated modes, and those that a conversion per feature is fitted to",
    "rule": "integration rule of the simulated modes",
    "init": "where the student starts: at random, with the teacher's weights, or with these converted so that its "
    "rates are images of the teacher's activities",
    "dropout_teacher": "probability of dropout while the teacher is trained",
    "dropout_student": "the same for the student, by masks that are fixed over time",
    "hidden_size": "width of the student (default: the teacher's); others need --init random",
    "intermediate_size": "width of the intermediate populations (default: the teacher's), likewise",
    "feedback": "largest spectral norm of the feedback from the last population; 0 for none",
    "vth": "threshold of every neuron",
    "leak": "leak of every neuron; 1 is integrate-and-fire",
    "u0": "initial membrane potential, in units of the threshold",
    "polarity": "spikes of every neuron: 0 and 1, as in the paper; −1 too, to take one back; or −1 too, for rates down "
    "to −1",
    "per_feature": "residuals through a synapse per feature, and thresholds per neuron: of a converted student every "
    "feature then uses its whole range",
    "clipped": "fraction of the teacher's activities that a conversion lets fall outside the rates' range",
}

#: The same of what every stage has.
STAGE_HELP = {"epochs": "epochs of the {} stage, or a fraction of one", "lr": "learning rate of the {} stage"}


def _recipe_options(parser: argparse.ArgumentParser) -> None:
    """Make an option of every field of a recipe that has a default."""
    from ..storage.recipe import Recipe

    def said(name: str) -> str:
        what, _, stage = name.partition("_")
        return RECIPE_HELP.get(name) or STAGE_HELP.get(what, "").format(stage)

    help = {field.name: said(field.name) for field in fields(Recipe)}
    add_fields(parser.add_argument_group("training"), Recipe, help, ("own", "seed"))


def _distill_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", help="cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte or wnli; or a name for your own")
    own = parser.add_argument_group("a task of your own")
    kind = own.add_mutually_exclusive_group()
    kind.add_argument("--labels", nargs="+", metavar="LABEL", help="its classes, as your files spell them")
    kind.add_argument("--scores", action="store_true", help="it is a regression: labels are numbers")
    own.add_argument("--pairs", action="store_true", help="it has two texts, in the columns sentence1 and sentence2")
    add_data(parser, "train", remembered=False)
    parser.add_argument(
        "--teacher",
        required=True,
        metavar="BERT",
        help="folder with config.json, weights and vocabulary, or the id of a model on the Hugging Face hub",
    )
    parser.add_argument(
        "--encoders", required=True, type=int, metavar="N", help="spiking encoders; divide the teacher's"
    )
    parser.add_argument("--out", required=True, metavar="RUN", help="folder for everything the run makes")
    add_corpus(parser, "the task's")
    add_save_every(parser)
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="one seed fixes everything (default: 0)")
    _recipe_options(parser)


def _distill(options: Any) -> int:
    from ..data.tasks import Task
    from ..distillation.stages import distill
    from ..errors import InputError
    from ..pages.tables import dev_line
    from ..storage.recipe import Recipe

    task, own = options.task, None
    if options.labels in (["true"], ["soft"]):
        raise InputError(f"`labels` are those of a task of your own; say `targets` {options.labels[0]} instead")
    if options.labels or options.scores:
        task = task or "own"
        own = Task.own(task, options.labels or [], options.pairs)
    elif task is None:
        raise InputError("there is no task; give `task`, or `labels` or `scores` of a task of your own")
    elif options.pairs:
        raise InputError(f"`pairs` is for a task of your own, but {task} is one of GLUE's; leave it out")
    values = {f.name: getattr(options, f.name) for f in fields(Recipe) if f.name not in ("task", "own")}
    recipe = Recipe(task, own=own, **values)

    def measured(stage: str, logits: Any, labels: Any) -> None:
        if stage == "internal" and recipe.init != "converted" and recipe.epochs_prediction:
            return  # its classifier is the next stage's to train
        print(dev_line(stage, recipe.definition, logits, labels), flush=True)

    distill(
        recipe,
        options.data,
        options.teacher,
        options.out,
        options.corpus,
        options.save_every,
        options.columns,
        measured=measured,
    )
    dev = " --data DEV_FILE" if os.path.isfile(options.data) else ""
    print(f"wrote {options.out}; next: refsnn evaluate {options.out}{dev} --t-conv 16 64 128")
    return 0


def _reproduce_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        required=True,
        metavar="PLAN",
        help="paper, small, converted, deep, few-steps or tiny, or a TOML file of the same kind",
    )
    parser.add_argument("--out", required=True, metavar="RUN", help="folder for everything")
    parser.add_argument("--data", metavar="DATA", help="folder with one of each task, or hub (default: the plan's)")
    parser.add_argument("--teacher", metavar="BERT", help="folder or hub id of a BERT (default: the plan's)")
    add_corpus(parser, "the plan's")
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="tasks (default: the plan's)")
    add_save_every(parser)
    add_workers(parser, "tasks and seeds")


def _reproduce(options: Any) -> int:
    from ..reproduction.reproduce import reproduce
    from ..reproduction.summary import text_table
    from ..workers import executor

    names = ("config", "out", "data", "teacher", "corpus", "tasks", "save_every")
    with executor(options.workers, options.cluster) as carrier:
        results = reproduce(**{name: getattr(options, name) for name in names}, executor=carrier)
    print(f"\n{text_table(results)}\n\nNow open {os.path.join(options.out, 'report.html')} in a browser.")
    return 0


COMMANDS = (
    Command(
        "demo",
        "the whole path in a minute, on text that it makes up",
        "Make a small labelled corpus, train a BERT teacher on it from scratch, distil a spiking student through the "
        "three stages, simulate it, print a table and write RUN/report.html. With --gpt: make up text, train a GPT on "
        "it, distil a spiking student, let it write a sentence, and write RUN/story.html, which replays that.",
        _demo_options,
        _demo,
    ),
    Command(
        "distill",
        "fine-tune a BERT teacher and distil a spiking student from it",
        "Fine-tune a pretrained BERT on a task of GLUE or of your own and distil a spiking student from it in three "
        "stages. Safe to interrupt: run the same command again to resume.",
        _distill_options,
        _distill,
        "examples: refsnn distill --task sst2 --data glue/SST-2 --teacher bert-tiny --encoders 2 --out runs/sst2; "
        "refsnn distill --labels neg neu pos --data reviews --columns sentence=text label=mood --teacher bert-tiny "
        "--encoders 2 --out runs/reviews",
    ),
    Command(
        "reproduce",
        "a whole plan: general distillation, then every task and seed, and one table",
        "Distil a student of a pretrained BERT on unlabelled text once, then fine-tune, distil and evaluate on every "
        "task of a plan, for every seed, and write one table: RUN/report.html, RUN/results.json. "
        "Safe to interrupt: run the same command again to resume.",
        _reproduce_options,
        _reproduce,
        "docs/reproduce.md explains the plans; example: refsnn reproduce --config tiny --out runs/tiny",
        {
            "teacher": "the task's first metric, of the fine-tuned BERT: mean of the seeds, with lowest and highest",
            "rate map": "the same of the student, at the equilibrium of its rates",
            "T = 64": "the same by spikes, counted over so many time steps",
            "published": "the paper's figure",
            "time": "of the task, all its seeds",
        },
    ),
)
