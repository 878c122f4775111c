"""The `refsnn` command."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from typing import Any

from .._version import __version__
from ..errors import InputError
from ..process import prepare

__all__ = ["main"]

DESCRIPTION = """\
refsnn: the reference implementation of SpikingBERT in NumPy and SciPy.

  refsnn demo                        the whole path in minutes, on text it makes itself
  refsnn distill ...                 fine-tune a BERT teacher, distil a spiking student, on GLUE files
  refsnn reproduce --config PLAN ... general distillation, then every task of a plan, and one table
  refsnn evaluate RUN ...            a student's accuracy by rate map and by spikes after T steps
  refsnn sweep RUN ...               accuracy over T, rules, thresholds and leaks; early stopping; runs compared
  refsnn inspect RUN --text "..."    one sentence as a page: spikes, rates settling, attention, the answer over time
  refsnn submit RUN ...              a student's predictions on GLUE's test set, as a submission file
  refsnn convert SOURCE DIR ...      checkpoints of the authors' program and of BERT, in and out
  refsnn solvers RUN ...             adjoint solvers compared on a student with feedback
  refsnn parity CASE.npz ...         check recorded numbers of another program against ours
  refsnn record RUN ...              simulate a student and keep every spike
  refsnn certify RECORD              check every spike decision of a record, whoever made it
  refsnn golden write DIR            golden values for other programs, as files
  refsnn conform MODULE              hold a backend to the specification
"""

EPILOGUE = "`refsnn COMMAND --help` explains each; docs/architecture.md shows how the parts fit together."


def _recipe_options(parser: argparse.ArgumentParser) -> None:
    from ..storage.recipe import Recipe

    group = parser.add_argument_group("training")
    helps = {
        "seed": "one seed fixes everything",
        "max_length": "limit in tokens (default: the task's, 64 for CoLA and SST-2, 128 otherwise)",
        "schedule_internal": "learning rate of the internal stage: constant, or warm-up and linear decay",
        "attention_weight": "weight of the attention loss in the general and internal stages",
        "labels": "what the prediction stage learns; STS-B always the true scores",
        "temperature": "temperature of the soft labels",
        "mode": "forward values and gradient at the equilibrium, of rates as they are or quantised; simulated values, "
        "gradient there (released); or both at simulated rates",
        "t_conv": "timesteps of the quantised and simulated modes",
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
    }
    choices = {
        "schedule_internal": ("constant", "linear"),
        "labels": ("soft", "true"),
        "mode": ("equilibrium", "quantised", "released", "simulated"),
        "rule": ("inst", "running"),
        "init": ("random", "teacher", "converted"),
    }
    for field in fields(Recipe):
        if field.default is MISSING:
            continue
        kind = {"int": int, "float": float, "int | None": int}.get(str(field.type), str)
        what, _, stage = field.name.partition("_")
        text = helps.get(field.name) or f"{'learning rate' if what == 'lr' else what} of the {stage} stage"
        if field.name == "batch_size":
            text = "examples per step"
        group.add_argument(
            "--" + field.name.replace("_", "-"),
            type=kind,
            default=field.default,
            choices=choices.get(field.name),
            metavar=None if field.name in choices else "X" if kind is float else "N",
            help=text if field.default is None else f"{text} (default: %(default)s)",
        )


def _data_options(parser: argparse.ArgumentParser, split: str) -> None:
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help=f"folder with {split}.tsv as GLUE has it (or .csv, .json, .jsonl, .parquet), the folder above, a file, or "
        "hub for the Hugging Face hub",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="NAME=COLUMN",
        help="columns of files of one's own, as label=stars; docs/tasks.md has each task's names",
    )


def _corpus_option(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--corpus",
        nargs="+",
        default=[],
        metavar="FILE",
        help="unlabelled text for the general stage: .txt with blank lines between documents; .csv, .jsonl or "
        f".parquet with a column text; or hub:NAME[:CONFIG] for a data set of the hub (default: {default})",
    )


def parser(arguments: Sequence[str] = ("distill",)) -> argparse.ArgumentParser:
    """Build the command's argument parser.

    Parameters
    ----------
    arguments : sequence of str
        What will be parsed: the options of `distill` are those of its recipe, and reading that takes NumPy and SciPy,
        for which `refsnn --help` need not wait.

    Returns
    -------
    parser : argparse.ArgumentParser
    """
    formatter = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser("refsnn", description=DESCRIPTION, epilog=EPILOGUE, formatter_class=formatter)
    top.add_argument("--version", action="version", version=f"refsnn {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="the whole path in minutes, on text it makes itself",
        description="Make a small labelled corpus, train a BERT teacher on it from scratch, distil a spiking student "
        "through the three stages, simulate it, print a table and write RUN/report.html.",
    )
    demo.add_argument("--out", default="runs/demo", metavar="RUN", help="folder of the run (default: %(default)s)")
    demo.add_argument("--task", choices=("sentiment", "pairs"), default="sentiment", help="which corpus to make")
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="one seed fixes everything (default: 0)")
    demo.set_defaults(run=_demo)

    distill = commands.add_parser(
        "distill",
        help="fine-tune a BERT teacher and distil a spiking student",
        description="Fine-tune a pretrained BERT on a GLUE task and distil a spiking student from it in three stages. "
        "Killed and started again with the same words, it goes on where it was.",
        epilog="example: refsnn distill --task sst2 --data glue/SST-2 --teacher bert-tiny --encoders 2 --out runs/sst2",
    )
    distill.add_argument("--task", required=True, help="cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte or wnli")
    _data_options(distill, "train")
    distill.add_argument(
        "--teacher",
        required=True,
        metavar="BERT",
        help="folder with config.json, weights and vocabulary, or the id of a model on the Hugging Face hub",
    )
    distill.add_argument(
        "--encoders", required=True, type=int, metavar="N", help="spiking encoders; divide the teacher's"
    )
    distill.add_argument("--out", required=True, metavar="RUN", help="folder for everything the run makes")
    _corpus_option(distill, "the task's")
    distill.add_argument(
        "--save-every", type=float, default=20.0, metavar="S", help="seconds between checkpoints (default: %(default)s)"
    )
    if "distill" in arguments:
        _recipe_options(distill)
    distill.set_defaults(run=_distill)

    reproduce = commands.add_parser(
        "reproduce",
        help="general distillation, then every task, by one plan",
        description="Distil a student of a pretrained BERT on unlabelled text once, then fine-tune, distil and "
        "evaluate on every task of a plan, for every seed, and write one table: RUN/report.html, RUN/results.json. "
        "Killed or interrupted and started again with the same words, it goes on where it was.",
        epilog="docs/reproduce.md explains the plans; example: refsnn reproduce --config tiny --out runs/tiny",
    )
    reproduce.add_argument(
        "--config",
        required=True,
        metavar="PLAN",
        help="paper, small, converted, deep or tiny, or a TOML file of the same kind",
    )
    reproduce.add_argument("--out", required=True, metavar="RUN", help="folder for everything")
    reproduce.add_argument("--data", metavar="DATA", help="folder with one of each task, or hub (default: the plan's)")
    reproduce.add_argument("--teacher", metavar="BERT", help="folder or hub id of a BERT (default: the plan's)")
    _corpus_option(reproduce, "the plan's")
    reproduce.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="tasks (default: the plan's)")
    reproduce.add_argument(
        "--save-every", type=float, default=20.0, metavar="S", help="seconds between checkpoints (default: %(default)s)"
    )
    reproduce.set_defaults(run=_reproduce)

    evaluate = commands.add_parser(
        "evaluate",
        help="accuracy of a finished run by rate map and by spikes",
        description="Evaluate the student of a finished run on the dev split, by the metrics that GLUE has for its "
        "task: by rate map, and by spikes after each of the given numbers of timesteps. Writes RUN/results.json and "
        "RUN/report.html.",
        epilog="example: refsnn evaluate runs/sst2 --data glue/SST-2 --t-conv 16 64 128",
    )
    evaluate.add_argument("run_folder", metavar="RUN", help="folder that `refsnn distill --out` filled")
    _data_options(evaluate, "dev")
    evaluate.add_argument("--t-conv", type=int, nargs="+", default=[16, 64, 128], metavar="T", help="timesteps")
    evaluate.add_argument(
        "--rule", choices=("inst", "running"), default="inst", help="integration rule (default: inst, the paper's)"
    )
    evaluate.add_argument(
        "--energies",
        metavar="FILE",
        help="JSON file with picojoules of operations, in place of those of docs/energy.md",
    )
    evaluate.add_argument(
        "--memory", action="store_true", help="charge memory traffic too, in the full count of energy"
    )
    evaluate.set_defaults(run=_evaluate)

    sweep = commands.add_parser(
        "sweep",
        help="accuracy over T, rules, thresholds, leaks; early stopping; several runs and seeds compared",
        description="Evaluate the student of a finished run over T and over other constants than it was trained with, "
        "and stop each example when its answer has settled. Several runs are compared, runs that differ by their seed "
        "alone as mean and range. What is finished is kept in RUN/sweep.json and not simulated again. Writes "
        "RUN/sweep.html, and for several runs compare.html into the first.",
        epilog="docs/evaluation.md shows how to read it; "
        "example: refsnn sweep runs/sst2 --data glue/SST-2 --over t rule u0 --samples 200",
    )
    sweep.add_argument("run_folders", nargs="+", metavar="RUN", help="folders that `refsnn distill --out` filled")
    _data_options(sweep, "dev")
    sweep.add_argument(
        "--over",
        nargs="+",
        default=["t", "rule"],
        metavar="AXIS",
        help="what to vary: t, rule, u0 (0 and 1/2), vth, leak (default: t rule); rules times u0, and each threshold "
        "and leak, are a simulation each",
    )
    sweep.add_argument(
        "--t-conv", type=int, nargs="+", metavar="T", help="grid of timesteps (default: 28 of them from 1 to 256)"
    )
    sweep.add_argument("--samples", type=int, metavar="N", help="examples, evenly spaced over the split (default: all)")
    sweep.set_defaults(run=_sweep)

    inspect = commands.add_parser(
        "inspect",
        help="one sentence on one page: spikes, rates settling, attention, the answer over time",
        description="Show what the student of a finished run does with one sentence, beside its teacher, as one page "
        "that needs nothing else: tokens against spikes, rates settling, attention at equilibrium, the answer over "
        "time.",
        epilog='docs/inspect.md shows how to read it; example: refsnn inspect runs/sst2 --text "a film to love" --open',
    )
    inspect.add_argument("run_folder", metavar="RUN", help="folder that `refsnn distill --out` filled")
    inspect.add_argument("--text", metavar="TEXT", help="the sentence")
    inspect.add_argument("--second", metavar="TEXT", help="the second sentence, of a task of pairs")
    inspect.add_argument("--index", type=int, metavar="N", help="instead: example N of the dev split, counted from 0")
    inspect.add_argument("--data", metavar="DATA", help="where the dev split is, as for evaluate")
    inspect.add_argument("--t-conv", type=int, default=64, metavar="T", help="timesteps (default: %(default)s)")
    inspect.add_argument("--rule", choices=("inst", "running"), default="inst", help="integration rule (default: inst)")
    inspect.add_argument("--out", metavar="FILE", help="the page (default: RUN/inspect.html)")
    inspect.add_argument("--open", action="store_true", help="open it in the browser")
    inspect.set_defaults(run=_inspect)

    submit = commands.add_parser(
        "submit",
        help="predictions on GLUE's test set, as a submission file",
        description="Predict the test split of a finished run's task, by rate map or by spikes, and write it in the "
        "format of GLUE's submissions: index and prediction, separated by a tab.",
        epilog="example: refsnn submit runs/mnli --data glue/MNLI --out submission",
    )
    submit.add_argument("run_folder", metavar="RUN", help="folder that `refsnn distill --out` filled")
    _data_options(submit, "test")
    submit.add_argument(
        "--out", required=True, metavar="OUT", help="a .tsv file, or a folder for files named as GLUE wants them"
    )
    submit.add_argument("--t-conv", type=int, metavar="T", help="timesteps of the spikes (default: by rate map)")
    submit.add_argument("--rule", choices=("inst", "running"), default="inst", help="integration rule (default: inst)")
    submit.set_defaults(run=_submit)

    solvers = commands.add_parser(
        "solvers",
        help="compare the adjoint solvers on a student with feedback",
        description="Solve one adjoint equation (I - J^T) lambda = g of a trained student with feedback by every "
        "method, print products, seconds, true residual and gradient error, and write RUN/solvers.svg.",
        epilog="example: refsnn solvers runs/feedback --data glue/SST-2",
    )
    solvers.add_argument("run_folder", metavar="RUN", help="folder of a run made with --feedback")
    solvers.add_argument("--data", required=True, metavar="DIR", help="folder of the official dev.tsv")
    solvers.add_argument("--samples", type=int, default=8, metavar="N", help="sentences (default: %(default)s)")
    solvers.set_defaults(run=_solvers)

    parity = commands.add_parser(
        "parity",
        help="check recorded numbers of another program",
        description="Recompute rates, losses and gradients of recorded cases and certify their spikes. Exit status 1 "
        "if a quantity differs by more than the tolerance or a spike decision cannot be explained by rounding.",
    )
    parity.add_argument("cases", nargs="+", metavar="CASE.npz", help="cases in the format of the authors' program")
    parity.set_defaults(run=_parity)

    record = commands.add_parser(
        "record",
        help="simulate a student and keep every spike",
        description="Simulate the student of a run on a few dev sentences and write every population's spikes, with "
        "the tokens and parameters, as one safetensors file that `refsnn certify` reads.",
        epilog="example: refsnn record runs/sst2 --data glue/SST-2 --t-conv 32 --out spikes.safetensors",
    )
    record.add_argument("run_folder", metavar="RUN", help="folder that `refsnn distill --out` filled")
    _data_options(record, "dev")
    record.add_argument("--out", required=True, metavar="FILE", help="the record, a safetensors file")
    record.add_argument("--samples", type=int, default=4, metavar="N", help="sentences (default: %(default)s)")
    record.add_argument("--t-conv", type=int, default=32, metavar="T", help="timesteps (default: %(default)s)")
    record.add_argument("--rule", choices=("inst", "running"), default="inst", help="integration rule (default: inst)")
    record.set_defaults(run=_record)

    certify = commands.add_parser(
        "certify",
        help="check every spike decision of a record, whoever made it",
        description="Decide every spike decision of a record: consistent with the equations, within rounding, or "
        "wrong. Nothing is simulated anew. Exit status 1 if a decision is wrong.",
        epilog="docs/certificates.md describes the file and derives the rounding bounds",
    )
    certify.add_argument("record", metavar="RECORD", help="safetensors file with spikes, tokens and parameters")
    certify.add_argument("--params", metavar="FILE", help="safetensors file with the parameters, if they lie apart")
    precisions = ("float64", "float32", "float16", "bfloat16")
    certify.add_argument("--dtype", choices=precisions, help="precision of the record, instead of what it says")
    certify.add_argument("--accumulate", choices=precisions, help="precision of sums, instead of what the record says")
    certify.add_argument("--block", type=int, metavar="N", help="timesteps held at once (default: by memory)")
    certify.add_argument("--json", metavar="FILE", help="write the verdicts as JSON")
    certify.add_argument("--plot", metavar="FILE", help="draw the margins as an SVG picture")
    certify.set_defaults(run=_certify)

    golden = commands.add_parser(
        "golden",
        help="golden values for other programs, as files",
        description="Write the conformance cases with their answers as a folder of safetensors and a manifest, for "
        "programs in any language; or compute a bundle anew and compare every number.",
        epilog="docs/golden.md describes the files",
    )
    actions = golden.add_subparsers(metavar="ACTION", required=True)
    write = actions.add_parser("write", help="write a bundle", description="Write a golden bundle.")
    write.add_argument("folder", metavar="DIR", help="folder to write into")
    write.add_argument("--suite", choices=("tiny", "base"), default="tiny", help="sizes (default: %(default)s)")
    write.add_argument("--seed", type=int, default=0, metavar="N", help="fixes every number (default: 0)")
    write.set_defaults(run=_golden_write)
    anew = "compute a bundle anew and compare every number"
    verify = actions.add_parser("verify", help=anew, description=anew.capitalize() + ".")
    verify.add_argument("folder", metavar="DIR", help="folder that `refsnn golden write` filled")
    verify.set_defaults(run=_golden_verify)

    conform = commands.add_parser(
        "conform",
        help="hold a backend to the specification",
        description="Put every conformance case to a backend. Exit status 1 if one fails that was not foreseen.",
        epilog="docs/test-your-backend.md shows how to write an adapter; example: refsnn conform mypackage.adapter "
        "--html report.html",
    )
    conform.add_argument("adapter", metavar="MODULE", help="module (or module:object) with the adapter's functions")
    conform.add_argument("--suite", choices=("tiny", "base"), default="tiny", help="sizes (default: %(default)s)")
    conform.add_argument("--seed", type=int, default=0, metavar="N", help="fixes every number (default: 0)")
    conform.add_argument("--dtype", nargs="+", choices=precisions, help="precisions (default: the adapter's)")
    conform.add_argument("--only", metavar="PATTERN", help="cases whose id matches, such as 'neurons/*'")
    conform.add_argument("--skips", metavar="FILE", help="ids not to ask, one a line, each with a reason after #")
    conform.add_argument("--xfails", metavar="FILE", help="ids known to fail, one a line, each with a reason after #")
    conform.add_argument("--json", metavar="FILE", help="write the results as JSON")
    conform.add_argument("--html", metavar="FILE", help="write the results as a page")
    conform.set_defaults(run=_conform)

    bench = commands.add_parser(
        "bench",
        help="refsnn beside backends and beside the matrix products alone",
        description="Time refsnn, the bare matrix products and backends, taking turns, each in a process of its own, "
        "and print the ratios of their medians.",
        epilog="docs/performance.md explains the works; example: refsnn bench simulate --against mypackage.adapter",
    )
    bench.add_argument(
        "works",
        nargs="*",
        metavar="WORK",
        help="simulate, simulate-768, long, evaluate, teacher, step, neurons (default: all but long)",
    )
    bench.add_argument("--against", nargs="+", default=[], metavar="MODULE", help="adapters of backends")
    bench.add_argument("--repetitions", type=int, default=5, metavar="N", help="turns that count (default: 5)")
    bench.add_argument("--json", metavar="FILE", help="write every time as JSON")
    bench.add_argument("--plot", metavar="FILE", help="draw the ratios as an SVG picture")
    bench.add_argument(
        "--scaling",
        metavar="FILE",
        help="instead, time simulations of growing T, batch, length and width, and draw them as an SVG picture",
    )
    bench.set_defaults(run=_bench)

    convert = commands.add_parser(
        "convert",
        help="checkpoints of the authors' program and of BERT, in and out",
        description="Make a run of a student that the authors' program trained (--to refsnn), a checkpoint for their "
        "task or general program of a student (--to authors, authors-general), or a BERT for Hugging Face's programs "
        "and theirs (--to bert). What kind SOURCE is is seen from its parameters' names.",
        epilog="docs/checkpoints.md describes the files; "
        "example: refsnn convert their_output/pytorch_model.bin runs/theirs --to refsnn --task sst2",
    )
    convert.add_argument(
        "source", metavar="SOURCE", help="run, folder of a checkpoint, or its file with config.json beside it"
    )
    convert.add_argument("destination", metavar="DIR", help="folder to write; nothing in it is overwritten")
    convert.add_argument("--to", required=True, choices=("refsnn", "authors", "authors-general", "bert"), help="format")
    convert.add_argument("--task", help="GLUE task: number and order of the classes")
    convert.add_argument("--classes", type=int, metavar="N", help="size of a missing classification head, without task")
    convert.add_argument("--vth", type=float, metavar="X", help="threshold of the authors' student (default: 1)")
    convert.add_argument("--leak", type=float, metavar="X", help="leak of the authors' student (default: 1)")
    convert.add_argument("--feedback", action="store_true", help="keep the feedback of the authors' student")
    convert.add_argument("--seed", type=int, default=0, metavar="N", help="fixes heads that are missing (default: 0)")
    convert.set_defaults(run=_convert)
    return top


def _demo(options: argparse.Namespace) -> int:
    from ..reproduction.demo import demo

    demo(options.out, options.task, options.seed)
    return 0


def _distill(options: argparse.Namespace) -> int:
    from ..distillation.stages import distill
    from ..storage.recipe import Recipe

    recipe = Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)})
    distill(recipe, options.data, options.teacher, options.out, options.corpus, options.save_every, options.columns)
    dev = "DEV_FILE" if os.path.isfile(options.data) else options.data
    print(f"wrote {options.out}; next: refsnn evaluate {options.out} --data {dev} --t-conv 16 64 128")
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from ..reproduction.reproduce import reproduce
    from ..reproduction.summary import text_table

    names = ("config", "out", "data", "teacher", "corpus", "tasks", "save_every")
    results = reproduce(**{name: getattr(options, name) for name in names})
    print(f"\n{text_table(results)}\n\nNow open {os.path.join(options.out, 'report.html')} in a browser.")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from ..evaluation.evaluate import evaluate_run
    from ..pages.report import write_report
    from ..pages.tables import results_table
    from ..readings.energy import Energies, read_energies

    energies = read_energies(options.energies) if options.energies else Energies()
    results = evaluate_run(
        options.run_folder,
        options.data,
        options.t_conv,
        options.rule,
        columns=options.columns,
        energies=energies,
        memory=options.memory,
    )
    print(results_table(results))
    print(f"wrote {write_report(options.run_folder)}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from ..evaluation.sweep import TIMES, sweep
    from ..pages.sweep import write_comparison, write_sweep
    from ..pages.tables import comparison_table, sweep_table

    results = sweep(
        options.run_folders,
        options.data,
        over=options.over,
        t_conv=TIMES if options.t_conv is None else options.t_conv,
        samples=options.samples,
        columns=options.columns,
    )
    for result in results:
        print(f"{sweep_table(result)}\nwrote {write_sweep(result)}\n")
    if len(results) > 1:
        print(f"{comparison_table(results)}\n\nwrote {write_comparison(results)}")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from ..pages.inspect import inspect_run

    names = ("text", "second", "index", "data", "t_conv", "rule", "out")
    path, sentence = inspect_run(options.run_folder, **{name: getattr(options, name) for name in names})
    if sentence.left_out:
        kept = len(sentence.tokens)
        print(f"note: cut to the {kept} tokens the run was trained with; {sentence.left_out} are left out")
    print(f"wrote {path}")
    if options.open:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    return 0


def _submit(options: argparse.Namespace) -> int:
    from ..evaluation.submit import submit

    for path in submit(options.run_folder, options.data, options.out, options.t_conv, options.rule, options.columns):
        print(f"wrote {path}")
    return 0


def _solvers(options: argparse.Namespace) -> int:
    from pathlib import Path

    from ..evaluation.solvers import compare_solvers
    from ..pages.figures.checks import plot_solvers
    from ..pages.tables import solvers_table

    heading, rows = compare_solvers(options.run_folder, options.data, options.samples)
    print(f"{heading}\n\n{solvers_table(rows)}")
    picture = Path(options.run_folder) / "solvers.svg"
    plot_solvers(rows, picture)
    print(f"wrote {picture}")
    return 0


def _parity(options: argparse.Namespace) -> int:
    from ..conformance.parity import TOLERANCE, check_case, read_case

    passed = True
    for path in options.cases:
        try:
            comparisons = check_case(read_case(path))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        print(f"{path}\n{'':4}{'quantity':<64}{'absolute':>10}{'relative':>10}")
        for c in comparisons:
            mark = "    " if c.passed else "*** "
            if c.unexplained is None:
                print(f"{mark}{c.name:<64}{c.absolute:>10.1e}{c.relative:>10.1e}  {c.detail}".rstrip())
            else:
                print(f"{mark}{c.name:<64}{c.unexplained:>9} unexplained  {c.detail}")
        wrong = [c for c in comparisons if not c.passed]
        worst = max((c.relative for c in comparisons), default=0.0)
        unexplained = sum(c.unexplained or 0 for c in comparisons)
        print(
            f"{'FAILED' if wrong else 'passed'}: {len(comparisons) - len(wrong)} of {len(comparisons)} quantities; "
            f"largest relative difference {worst:.1e} (tolerance {TOLERANCE:.0e}); "
            f"{unexplained} unexplained spike decisions\n"
        )
        passed = passed and not wrong
    return 0 if passed else 1


def _record(options: argparse.Namespace) -> int:
    from ..evaluation.record import record_run

    names = ("data", "out", "samples", "t_conv", "rule", "columns")
    record_run(options.run_folder, **{name: getattr(options, name) for name in names})
    print(f"wrote {options.out}; next: refsnn certify {options.out}")
    return 0


def _certify(options: argparse.Namespace) -> int:
    from ..files import write_json
    from ..pages.figures.checks import plot_margins
    from ..pages.tables import margin_histogram, verdict_table
    from ..storage.records import certify_record, verdicts_to_dict

    record, verdicts = certify_record(options.record, options.params, options.dtype, options.accumulate, options.block)
    print(
        f"{options.record}: {record.precision.name}, rule {record.rule}\n\n{verdict_table(verdicts)}\n\n"
        f"{margin_histogram(verdicts)}"
    )
    if options.json:
        write_json(
            options.json, {"rule": record.rule, "precision": asdict(record.precision)} | verdicts_to_dict(verdicts)
        )
    if options.plot:
        plot_margins(verdicts, options.plot)
    return 1 if any(v.wrong for v in verdicts.values()) else 0


def _golden_write(options: argparse.Namespace) -> int:
    from ..conformance.golden import write_bundle

    size = write_bundle(options.folder, options.suite, options.seed)
    print(f"wrote {options.folder}: {size / 1e6:.2f} MB; check it with: refsnn golden verify {options.folder}")
    return 0


def _golden_verify(options: argparse.Namespace) -> int:
    from ..conformance.golden import verify_bundle

    compared, worst, differences = verify_bundle(options.folder)
    for difference in differences:
        print(difference)
    outcome = f"FAILED, {len(differences)} differences" if differences else "the same"
    print(f"{options.folder}: {compared} arrays, {outcome}; largest difference {worst:.2f} of its tolerance")
    return 1 if differences else 0


@contextmanager
def _bar(total: int, unit: str) -> Iterator[Callable[[int], Any]]:
    """Show progress to a person who is looking; nobody else needs tqdm for it."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from ..files import require

    with require("tqdm").tqdm(total=total, unit=unit, leave=False) as bar:
        yield bar.update


def _conform(options: argparse.Namespace) -> int:
    import fnmatch

    from ..conformance.cases import cases
    from ..conformance.judge import conform, load_adapter, read_exemptions
    from ..conformance.report import stale, text_report, write_html_report, write_json_report

    sys.path.insert(0, os.getcwd())  # an adapter in the folder one works in, as `python -m` would find it
    adapter = load_adapter(options.adapter)
    skips, xfails = read_exemptions(options.skips), read_exemptions(options.xfails)
    chosen = [c for c in cases(options.suite, options.seed) if fnmatch.fnmatchcase(c.id, options.only or "*")]
    if not chosen:
        raise InputError(f"no case is called {options.only!r}; ids look like neurons/ties or op/gelu")
    results: list[Any] = []
    with _bar(len(chosen), "case") as update:
        for case in chosen:
            results += conform(adapter, [case], options.dtype, skips, xfails)
            update(1)
    name = getattr(adapter, "name", options.adapter)
    warnings = [] if options.only else stale(results, skips, xfails)
    print(text_report(name, results, warnings))
    about = {"suite": options.suite, "seed": options.seed}
    for path, write in ((options.json, write_json_report), (options.html, write_html_report)):
        if path:
            write(path, name, results, warnings, about)
            print(f"wrote {path}")
    return 1 if any(result.status == "failed" for result in results) else 0


def _convert(options: argparse.Namespace) -> int:
    from ..storage.convert import convert

    names = ("source", "destination", "to", "task", "classes", "vth", "leak", "feedback", "seed")
    for note in convert(**{name: getattr(options, name) for name in names}):
        print(f"note: {_in_flags(note, options)}")
    print(f"wrote {options.destination}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from ..conformance.bench import WORKS, bench_table, measure, plot_ratios, plot_scaling, scaling, timings
    from ..files import write_json

    if options.scaling:
        with _bar(4, "round") as update:
            measured = scaling(3, update)
        plot_scaling(measured, options.scaling)
        print(f"wrote {options.scaling}")
        return 0
    works = options.works or [name for name in WORKS if name != "long"]
    total = len(works) * (options.repetitions + 1)
    with _bar(total, "round") as update:
        outcomes = measure(works, options.against, options.repetitions, update)
    print(bench_table(outcomes))
    if options.json:
        write_json(options.json, timings(outcomes))
        print(f"wrote {options.json}")
    if options.plot:
        plot_ratios(outcomes, options.plot)
        print(f"wrote {options.plot}")
    return 0


def _in_flags(sentence: str, options: argparse.Namespace) -> str:
    """Name options as the command line does: the library, which speaks of its arguments, writes `t_conv`."""

    def flag(found: re.Match[str]) -> str:
        return f"--{found[1].replace('_', '-')}" if found[1] in vars(options) else found[0]

    return re.sub(r"`(\w+)`", flag, sentence)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        ``sys.argv[1:]`` by default.

    Returns
    -------
    status : int
        0; 1 where a check failed; 2 where the input cannot be used, after one sentence on standard error.
    """
    prepare()
    arguments = sys.argv[1:] if arguments is None else arguments
    options: Any = parser(arguments).parse_args(arguments)
    status = 2
    try:
        return options.run(options)
    except InputError as error:
        print(f"refsnn: {_in_flags(str(error), options)}", file=sys.stderr)
    except BrokenPipeError:  # the reader, `head` say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"refsnn: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        status = 130  # said below, when the exception is gone and has let go of progress bars, which then end
    if status == 130:
        print(
            "refsnn: interrupted; what was finished is kept, and the same command goes on from there", file=sys.stderr
        )
    return status
