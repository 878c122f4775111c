"""Commands that look at a finished run: evaluated, swept, inspected, asked for answers."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .command import Command, add_data, add_rule, add_run, add_samples, add_workers

__all__ = ["COMMANDS"]


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser, "folder that `refsnn distill --out` filled, or of a fine-tuned BERT")
    add_data(parser, "dev")
    parser.add_argument("--task", help="of a BERT, one of GLUE's (default: its own classes, from texts in sentence)")
    parser.add_argument("--t-conv", type=int, nargs="+", default=[16, 64, 128], metavar="T", help="timesteps")
    add_rule(parser)
    add_samples(parser)
    parser.add_argument(
        "--energies",
        metavar="FILE",
        help="JSON file with picojoules of operations, in place of those of docs/energy.md",
    )
    parser.add_argument("--memory", action="store_true", help="charge memory traffic too, in the full count of energy")
    add_workers(parser, "the batches")


def _evaluate(options: Any) -> int:
    from ..errors import InputError
    from ..evaluation.evaluate import evaluate_run, evaluate_teacher
    from ..pages.report import write_report
    from ..pages.tables import dev_line, results_table
    from ..readings.energy import Energies, read_energies
    from ..storage.checkpoints import holds_bert
    from ..storage.run import Run
    from ..workers import executor

    if holds_bert(options.run_folder):
        if options.workers is not None or options.cluster is not None:
            raise InputError("`workers` and `cluster` share out a run, but a BERT alone takes no time; leave them out")
        teacher = options.run_folder, options.data, options.task, options.columns, options.samples
        for part, task, scores, labels in evaluate_teacher(*teacher):
            print(dev_line(f"{options.run_folder}, {part}", task, scores, labels))
        return 0
    if options.task is not None:
        raise InputError("`task` is for a BERT alone, but a run remembers its own; leave it out")
    with executor(options.workers, options.cluster) as carrier:
        results = evaluate_run(
            options.run_folder,
            options.data,
            options.t_conv,
            options.rule,
            columns=options.columns,
            energies=read_energies(options.energies) if options.energies else Energies(),
            memory=options.memory,
            samples=options.samples,
            executor=carrier,
        )
    with Run(options.run_folder).held("report", wait=60):  # another rule may just have been evaluated
        path = write_report(options.run_folder, options.rule)
    print(results_table(results))
    print(f"wrote {path}")
    return 0


def _predict_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser, "folder of a run, a saved student or a fine-tuned BERT, or the id of one on the Hugging Face hub")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts; of a task of pairs, each two are a pair")
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="instead: a file with a text on each line (the two of a pair separated by a tab), or JSON lines with text "
        "or with text and second; - for standard input",
    )
    parser.add_argument("--t-conv", type=int, metavar="T", help="timesteps of the spikes (default: by rate map)")
    add_rule(parser)
    parser.add_argument("--json", action="store_true", help="answer in JSON lines")


def _predict(options: Any) -> int:
    from ..errors import InputError
    from ..models import Student, load

    model = load(options.run_folder)
    if bool(options.texts) == (options.file is not None):
        raise InputError("give texts, or `file` with texts, and not both")
    texts = list(_read_texts(options.file) if options.file else options.texts)
    if options.texts and model.pairs:
        if len(texts) % 2:
            raise InputError(f"there are {len(texts)} texts, but the task compares pairs of them; give two for each")
        texts = list(zip(texts[::2], texts[1::2], strict=True))
    if not isinstance(model, Student) and options.t_conv is not None:
        raise InputError(f"{options.run_folder} holds a BERT, which does not spike; leave out `t_conv`")
    spikes = {"t_conv": options.t_conv, "rule": options.rule} if isinstance(model, Student) else {}
    answers, shares = model.predict(texts, **spikes), model.predict_proba(texts, **spikes)
    for text, found, share in zip(texts, answers, shares.tolist(), strict=True):
        shown = {"text": text} if isinstance(text, str) else {"text": text[0], "second": text[1]}
        if options.json:
            names = model.classes or [str(i) for i in range(len(share))]
            scores = dict(zip(names, share, strict=True)) if len(share) > 1 else {"score": share[0]}
            print(json.dumps({**shown, "answer": found, "probabilities": scores}, ensure_ascii=False))
        elif len(share) > 1:
            print(f"{found!s:20}{max(share):6.3f}  {' / '.join(shown.values())}")
        else:
            print(f"{found:20.4f}  {' / '.join(shown.values())}")
    return 0


def _read_texts(file: str) -> Iterator[Any]:
    """Read texts or pairs of texts, a line each; blank lines are left out."""
    from ..errors import InputError
    from ..files import read_text

    try:
        whole = sys.stdin.read() if file == "-" else read_text(file)
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    found = False
    for number, line in enumerate(whole.split("\n"), 1):
        if not line.strip():
            continue
        found = True
        if not line.lstrip().startswith("{"):
            first, *rest = line.split("\t")
            yield (first, *rest) if rest else first
            continue
        try:
            entry = json.loads(line)
            texts = [entry["text"], *([entry["second"]] if "second" in entry else [])]
        except (ValueError, KeyError, RecursionError):
            raise InputError(
                f"{file}, line {number}: a JSON object with text, or text and second, was expected"
            ) from None
        yield tuple(texts) if len(texts) == 2 else texts[0]
    if not found:
        raise InputError(f"{file} has no text, so there is nothing to answer")


def _sweep_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folders", nargs="+", metavar="RUN", help="folders that `refsnn distill --out` filled")
    add_data(parser, "dev")
    parser.add_argument(
        "--over",
        nargs="+",
        default=["t", "rule"],
        metavar="AXIS",
        help="what to vary: t, rule, u0 (0 and 1/2), vth, leak (default: t rule); rules times u0, and each threshold "
        "and leak, are a simulation each",
    )
    parser.add_argument(
        "--t-conv", type=int, nargs="+", metavar="T", help="grid of timesteps (default: 28 of them from 1 to 256)"
    )
    add_rule(parser, "the paper's; both where rule is an axis")
    add_samples(parser)
    add_workers(parser, "settings and runs")


def _sweep(options: Any) -> int:
    from ..evaluation.sweep import TIMES, sweep
    from ..pages.sweep import write_comparison, write_sweep
    from ..pages.tables import comparison_table, sweep_table
    from ..workers import executor

    with executor(options.workers, options.cluster) as carrier:
        results = sweep(
            options.run_folders,
            options.data,
            over=options.over,
            t_conv=TIMES if options.t_conv is None else options.t_conv,
            samples=options.samples,
            columns=options.columns,
            executor=carrier,
            rule=options.rule,
        )
    for result in results:
        path = write_sweep(result)
        print(f"{sweep_table(result)}\nwrote {path}\n")
    if len(results) > 1:
        path = write_comparison(results)
        print(f"{comparison_table(results)}\n\nwrote {path}")
    return 0


def _inspect_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--text", metavar="TEXT", help="the sentence")
    parser.add_argument("--second", metavar="TEXT", help="the second sentence, of a task of pairs")
    parser.add_argument("--index", type=int, metavar="N", help="instead: example N of the dev split, counted from 0")
    parser.add_argument("--data", metavar="DATA", help="where the dev split is (default: where the run's data were)")
    parser.add_argument("--t-conv", type=int, default=64, metavar="T", help="timesteps (default: %(default)s)")
    add_rule(parser)
    parser.add_argument("--out", metavar="FILE", help="the page (default: RUN/inspect.html)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")


def _inspect(options: Any) -> int:
    from ..pages.inspect import inspect_run

    names = ("text", "second", "index", "data", "t_conv", "rule", "out")
    path, sentence = inspect_run(options.run_folder, **{name: getattr(options, name) for name in names})
    if sentence.left_out:
        kept = len(sentence.tokens)
        print(f"note: cut to the {kept} tokens that the run was trained with; {sentence.left_out} are left out")
    print(f"wrote {path}")
    if options.open:
        import webbrowser

        webbrowser.open(Path(path).resolve().as_uri())
    return 0


def _submit_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_data(parser, "test")
    parser.add_argument(
        "--out", required=True, metavar="OUT", help="a .tsv file, or a folder for files named as GLUE wants them"
    )
    parser.add_argument("--t-conv", type=int, metavar="T", help="timesteps of the spikes (default: by rate map)")
    add_rule(parser)


def _submit(options: Any) -> int:
    from ..evaluation.submit import submit

    for path in submit(options.run_folder, options.data, options.out, options.t_conv, options.rule, options.columns):
        print(f"wrote {path}")
    return 0


def _solvers_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser, "folder of a run that was distilled with --feedback")
    add_data(parser, "dev")
    add_samples(parser, 8)


def _solvers(options: Any) -> int:
    from ..evaluation.solvers import compare_solvers
    from ..pages.figures.checks import plot_solvers
    from ..pages.tables import solvers_table

    heading, rows = compare_solvers(options.run_folder, options.data, options.samples, columns=options.columns)
    picture = os.path.join(options.run_folder, "solvers.svg")
    plot_solvers(rows, picture)
    print(f"{heading}\n\n{solvers_table(rows)}")
    print(f"wrote {picture}")
    return 0


COMMANDS = (
    Command(
        "evaluate",
        "accuracy by rate map and by spikes, firing rates, energy",
        "Evaluate the student of a finished run on the dev split, by the metrics that GLUE has for its task: by rate "
        "map, and by spikes after each of the given numbers of timesteps. Writes RUN/results-RULE.json and "
        "RUN/report.html, which shows every rule that the run was evaluated by.",
        _evaluate_options,
        _evaluate,
        "example: refsnn evaluate runs/sst2 --t-conv 16 64 128 --rule running",
        {
            "accuracy": "or the task's own metrics, of teacher, rate map and spikes, in percent or times 100",
            "agrees": "share of the examples with the same class as by the rate map; of a regression the correlation",
            "firing rate": "spikes per neuron and step",
            "Norm#OPS": "synaptic operations of all T steps, relative to one pass of the ordinary network",
            "energy gain": "energy of the ordinary network over that of the spiking one, by the paper's count",
            "full gain": "the same by every operation; below 1x the spiking network costs more",
        },
    ),
    Command(
        "predict",
        "answers to texts of your own, from the command line, a file or standard input",
        "Print the answer of a run's student (or of a saved student, or of a fine-tuned BERT) to each text, with its "
        "probability, or the score of a regression.",
        _predict_options,
        _predict,
        'examples: refsnn predict runs/sst2 "a gripping, funny film" --t-conv 16; '
        "refsnn predict runs/sst2 --file reviews.txt --json",
    ),
    Command(
        "sweep",
        "accuracy over T, rules, thresholds, leaks; early stopping; runs and seeds compared",
        "Evaluate the student of a finished run over T and over other constants than it was trained with, and stop "
        "each example when its answer has settled. Several runs are compared, runs that differ by their seed alone as "
        "mean and range. What is finished is kept in RUN/sweep.json and not simulated again. Writes RUN/sweep.html, "
        "and for several runs compare.html into the first.",
        _sweep_options,
        _sweep,
        "docs/evaluation.md shows how to read it; example: refsnn sweep runs/sst2 --over t rule u0 --samples 200",
        {
            "a number T": "after so many time steps",
            "rate map": "at the equilibrium of the rates",
            "agrees": "share of the examples with the same answer as by the rate map of the same constants",
            "level": "early stopping: how sure an answer must be",
            "mean T": "time steps that the examples then take on average",
            "fixed T": "the metric if all examples were stopped at the same T, with that mean",
        },
    ),
    Command(
        "inspect",
        "one sentence as a page: spikes, rates settling, attention, the answer over time",
        "Show what the student of a finished run does with one sentence, beside its teacher, as one page that needs "
        "nothing else: tokens against spikes, rates settling, attention at equilibrium, the answer over time.",
        _inspect_options,
        _inspect,
        'docs/inspect.md shows how to read it; example: refsnn inspect runs/sst2 --text "a film to love" --open',
    ),
    Command(
        "submit",
        "predictions on GLUE's test set, as a submission file",
        "Predict the test split of a finished run's task, by rate map or by spikes, and write it in the format of "
        "GLUE's submissions: index and prediction, separated by a tab.",
        _submit_options,
        _submit,
        "example: refsnn submit runs/mnli --out submission",
    ),
    Command(
        "solvers",
        "adjoint solvers compared on a student with feedback",
        "Solve one adjoint equation (I - J^T) lambda = g of a trained student with feedback by every method, print "
        "products, seconds, true residual and gradient error, and write RUN/solvers.svg.",
        _solvers_options,
        _solvers,
        "example: refsnn solvers runs/feedback",
        {
            "products": "with the transposed derivative of a sweep: what a solve costs",
            "seconds": "of the solve",
            "true residual": "of the equation that is meant, computed anew, relative to its right side",
            "gradient error": "against a dense solve, or against GMRES at 1e-13",
        },
    ),
)
