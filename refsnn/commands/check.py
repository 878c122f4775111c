"""Commands that check numbers and spikes, whoever computed them."""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
from dataclasses import asdict, replace
from typing import Any

from .command import Command, add_data, add_rule, add_run, add_samples, add_seed, progress_bar

__all__ = ["COMMANDS"]

#: Precisions by name; `refsnn.ops.rounding.PRECISIONS` has their bounds.
PRECISIONS = ("float64", "float32", "float16", "bfloat16", "tf32", "bf16_f32")
#: Sizes of the conformance cases; `refsnn.conformance.cases.SUITES` has them.
SUITES = ("tiny", "base", "odd", "signed", "gpt")
#: Help of the option that names a suite.
SUITE = "sizes, or signed spikes in place of the paper's, or GPTs in place of BERTs (default: %(default)s)"


def _record_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_data(parser, "dev")
    parser.add_argument("--out", required=True, metavar="FILE", help="the record, a safetensors file")
    add_samples(parser, 4)
    parser.add_argument("--t-conv", type=int, default=32, metavar="T", help="timesteps (default: %(default)s)")
    add_rule(parser)


def _record(options: Any) -> int:
    from ..evaluation.record import record_run

    names = ("data", "out", "samples", "t_conv", "rule", "columns")
    record_run(options.run_folder, **{name: getattr(options, name) for name in names})
    print(f"wrote {options.out}; next: refsnn certify {options.out}")
    return 0


def _certify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", metavar="RECORD", help="safetensors file with spikes, tokens and parameters")
    parser.add_argument("--params", metavar="FILE", help="safetensors file with the parameters, if they lie apart")
    parser.add_argument("--dtype", choices=PRECISIONS, help="precision of the record, instead of what it says")
    parser.add_argument("--accumulate", choices=PRECISIONS, help="precision of sums, instead of what the record says")
    parser.add_argument("--block", type=int, metavar="N", help="timesteps held at once (default: by memory)")
    parser.add_argument(
        "--max-undecidable",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="fail if rounding leaves more than this share of the decisions open, such as 0.01 (default: any share)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the verdicts as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw the margins as an SVG picture")


def _certify(options: Any) -> int:
    from ..errors import InputError
    from ..files import write_json
    from ..pages.figures.checks import plot_margins
    from ..pages.tables import margin_histogram, verdict_table
    from ..storage.records import certify_record, verdicts_to_dict

    if not 0 <= options.max_undecidable <= 1:
        raise InputError(f"`max_undecidable` is {options.max_undecidable:g}, but a share from 0 to 1 was expected")
    record, verdicts = certify_record(options.record, options.params, options.dtype, options.accumulate, options.block)
    if options.json:
        about = {"rule": record.rule, "precision": asdict(record.precision)}
        write_json(options.json, about | verdicts_to_dict(verdicts))
    if options.plot:
        plot_margins(verdicts, options.plot)
    print(f"{options.record}: {record.precision.name}, rule {record.rule}\n")
    left = sum(v.undecidable for v in verdicts.values())
    undecidable = left / sum(v.decisions for v in verdicts.values())
    said = f"{left:,} decisions ({undecidable:.2%}) could not be decided"
    said += ": their potential is so near the threshold that rounding alone decides, and either answer passes" * (
        left > 0
    )
    print(f"{verdict_table(verdicts)}\n{said}\n\n{margin_histogram(verdicts)}")
    if undecidable > options.max_undecidable:
        print(
            f"\nFAILED: more than {options.max_undecidable:.2%} could not be decided; a higher precision decides more"
        )
        return 1
    return 1 if any(v.wrong for v in verdicts.values()) else 0


def _diff_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("records", nargs=2, metavar="RECORD", help="two records of the same network and tokens")
    parser.add_argument("--params", metavar="FILE", help="safetensors file with the parameters, if they lie apart")
    parser.add_argument("--plot", metavar="FILE", help="draw the neuron's potential up to there as an SVG picture")


def _diff(options: Any) -> int:
    from ..conformance.difference import first_difference, plot_difference

    one, other = options.records
    difference = first_difference(one, other, options.params)
    if difference is None:
        print("the records hold the same spikes")
        return 0
    print(difference)
    if options.plot:
        plot_difference(difference, options.plot)
        print(f"wrote {options.plot}")
    return 1


def _conform_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "adapter", metavar="MODULE", nargs="?", help="module (or module:object) with the adapter's functions"
    )
    parser.add_argument("--new", metavar="FILE", help="instead, write an adapter to begin with, such as adapter.py")
    parser.add_argument("--suite", choices=SUITES, default="tiny", help=SUITE)
    add_seed(parser, "fixes every number")
    parser.add_argument("--seeds", metavar="FROM-TO", help="every case with each of these seeds, such as 0-9")
    parser.add_argument("--dtype", nargs="+", choices=PRECISIONS, help="precisions (default: the adapter's)")
    parser.add_argument("--only", metavar="PATTERN", help="cases whose id matches, such as 'neurons/*'")
    parser.add_argument("--skips", metavar="FILE", help="ids not to ask, one a line, each with a reason after #")
    parser.add_argument("--xfails", metavar="FILE", help="ids known to fail, one a line, each with a reason after #")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS",
                        help="for the import and for each case (default: %(default)g)")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that ask at once (default: 1)")
    parser.add_argument("-x", action="store_true", dest="first", help="stop at the first failure")
    parser.add_argument("--traceback", action="store_true", help="print exceptions in full")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON")
    parser.add_argument("--badge", metavar="FILE", help="write how many passed as an SVG badge")
    parser.add_argument("--html", metavar="FILE", help="write the results as a page")


def _conform(options: Any) -> int:
    from ..conformance.cases import cases
    from ..conformance.child import Child
    from ..conformance.judge import read_exemptions
    from ..conformance.run import Asked
    from ..errors import InputError, whole

    if (options.adapter is None) == (options.new is None):
        raise InputError("name the module of an adapter, or a file to write one to: --new adapter.py")
    if options.new:
        from ..conformance.skeleton import write_skeleton

        write_skeleton(options.new)
        print(f"wrote {options.new}; next: refsnn conform {os.path.basename(options.new).removesuffix('.py')}")
        return 0
    if not 0 < options.timeout < float("inf"):
        raise InputError(f"`timeout` is {options.timeout:g}, but a number of seconds above 0 was expected")
    chosen = [
        replace(case, id=f"{case.id}@{seed}") if options.seeds else case
        for seed in _seeds(options)
        for case in cases(options.suite, seed)
        if fnmatch.fnmatchcase(case.id, options.only or "*")
    ]
    if not chosen:
        raise InputError(f"no case is called {options.only!r}; ids look like neurons/ties or op/gelu")
    asked = Asked(
        chosen,
        options.dtype,
        read_exemptions(options.skips),
        read_exemptions(options.xfails),
        options.timeout,
        whole("jobs", options.jobs),
        options.first,
    )
    _check_reports(options)
    with Child(options.adapter, options.timeout) as child:
        return _judge_and_report(options, child, asked)


def _seeds(options: Any) -> range:
    """Return the seeds that were asked for."""
    from ..errors import InputError

    if options.seeds is None:
        return range(options.seed, options.seed + 1)
    first, hyphen, last = options.seeds.partition("-")
    if not (first.isdecimal() and (last.isdecimal() or not hyphen) and int(first) <= int(last or first) < 2**32):
        raise InputError(f"`seeds` is {options.seeds!r:.60}, but two numbers that rise were expected, such as 0-9")
    return range(int(first), int(last or first) + 1)


def _check_reports(options: Any) -> None:
    """Refuse places that no report can be written to: before the cases run, not after."""
    from ..errors import InputError
    from ..files import require

    if options.html:
        require("jinja2")
    for path in filter(None, (options.json, options.html, options.badge)):
        if not os.path.isdir(os.path.dirname(os.path.abspath(path))) or os.path.isdir(path):
            raise InputError(f"cannot write {path}: it is a folder, or in none; name a file in a folder that exists")


def _judge_and_report(options: Any, child: Any, asked: Any) -> int:
    """Put the cases, and write and print whatever was judged, also if it was interrupted."""
    from ..conformance.cases import VERSION, fingerprint
    from ..conformance.report import (
        nothing_tested,
        stale,
        text_report,
        write_badge,
        write_html_report,
        write_json_report,
    )
    from ..conformance.run import mend_first, run

    results: list[Any] = []
    interrupted = False
    total = sum(case.asked_in(dtype) for case in asked.cases for dtype in asked.dtypes or child.dtypes)
    with progress_bar("conform", total, "case") as update:
        try:
            for result in run(child, asked):
                results.append(result)
                update(1)
        except KeyboardInterrupt:
            interrupted = True
    results = mend_first(results)
    whole_run = len(results) == total
    warnings = [] if options.only or not whole_run else stale(results, asked.skips, asked.xfails)
    if not whole_run:
        warnings.append(
            f"{len(results)} of {total} cases were put: the run was {'interrupted' if interrupted else 'stopped'}"
        )
    warnings += filter(None, [nothing_tested(results)])
    about = {"suite": options.suite, "version": VERSION, "seed": options.seeds or options.seed}
    about |= {"cases_hash": fingerprint(asked.cases)}
    written = []
    for path, write in (
        (options.json, write_json_report),
        (options.html, write_html_report),
        (options.badge, write_badge),
    ):
        if path:
            write(path, child.name, results, warnings, about)
            written.append(path)
    print(text_report(child.name, results, warnings, options.traceback))
    for path in written:
        print(f"wrote {path}")
    if interrupted:
        raise KeyboardInterrupt
    if nothing_tested(results):
        print(f"refsnn: {nothing_tested(results)}", file=sys.stderr)
        return 2
    return 1 if any(result.status == "failed" for result in results) else 0


def _golden_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    write = actions.add_parser("write", help="write a bundle", description="Write a golden bundle.")
    write.add_argument("folder", metavar="DIR", help="folder to write into")
    write.add_argument("--suite", choices=SUITES, default="tiny", help=SUITE)
    add_seed(write, "fixes every number")
    again = "compute a bundle again and compare every number"
    verify = actions.add_parser("verify", help=again, description=again.capitalize() + ".")
    verify.add_argument("folder", metavar="DIR", help="folder that `refsnn golden write` filled")


def _golden(options: Any) -> int:
    from ..conformance.golden import verify_bundle, write_bundle

    if options.action == "write":
        size = write_bundle(options.folder, options.suite, options.seed)
        print(f"wrote {options.folder}: {size / 1e6:.2f} MB; check it with: refsnn golden verify {options.folder}")
        return 0
    compared, worst, differences = verify_bundle(options.folder)
    for difference in differences:
        print(difference)
    outcome = f"FAILED, {len(differences)} differences" if differences else "the same"
    print(f"{options.folder}: {compared} arrays, {outcome}; largest difference {worst:.2f} of its tolerance")
    return 1 if differences else 0


def _parity_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cases", nargs="+", metavar="CASE.npz", help="cases in the format of the authors' program")


def _parity(options: Any) -> int:
    from ..conformance.parity import check_case, parity_table, read_case
    from ..errors import InputError

    passed = True
    for path in options.cases:
        try:
            comparisons = check_case(read_case(path))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        print(f"{path}\n{parity_table(comparisons)}\n")
        passed = passed and all(comparison.passed for comparison in comparisons)
    return 0 if passed else 1


def _bench_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "works",
        nargs="*",
        metavar="WORK",
        help="simulate, simulate-768, simulate-64, running, evaluate, teacher, step, feedback, teacher-step, certify, "
        "neurons; long and distill, which take minutes (default: all but these two)",
    )
    parser.add_argument("--against", nargs="+", default=[], metavar="MODULE", help="adapters of backends")
    parser.add_argument(
        "--cores",
        nargs="+",
        type=int,
        metavar="N",
        help="numbers of cores to compare, of those that there are (default: all of them)",
    )
    parser.add_argument("--repetitions", type=int, default=5, metavar="N", help="turns that count (default: 5)")
    parser.add_argument("--json", metavar="FILE", help="write every time as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw the ratios as an SVG picture")
    parser.add_argument(
        "--scaling",
        metavar="FILE",
        help="instead, time simulations of growing T, batch, length and width, and draw them as an SVG picture",
    )


def _counts(given: list[int] | None) -> list[int]:
    """Numbers of cores that this machine has; it says which it has not."""
    from ..errors import whole
    from ..parallel import cores

    if given is None:
        return [cores()]
    wanted = sorted({whole("cores", count) for count in given})
    found = [count for count in wanted if count <= cores()] or [cores()]
    if left := [str(count) for count in wanted if count > cores()]:
        print(f"this machine has {cores()}; left out: {', '.join(left)}", file=sys.stderr)
    return found


def _bench(options: Any) -> int:
    from ..conformance.bench import (
        LONG,
        WORKS,
        bench_table,
        cores_table,
        measure,
        plot_ratios,
        plot_scaling,
        scaling,
        timings,
    )
    from ..errors import InputError
    from ..files import write_json

    if options.cores and (options.scaling or options.plot):
        raise InputError("`cores` makes a table and no picture; leave out `plot` and `scaling`")
    if options.scaling:
        with progress_bar("scaling", 4, "round") as update:
            measured = scaling(3, update)
        plot_scaling(measured, options.scaling)
        print(f"wrote {options.scaling}")
        return 0
    works = options.works or [name for name in WORKS if name not in LONG]
    counts = _counts(options.cores)
    outcomes = []
    with progress_bar("bench", len(counts) * len(works) * (options.repetitions + 1), "round") as update:
        for count in counts:
            outcomes += measure(works, options.against, options.repetitions, update, count)
    if options.json:
        write_json(options.json, timings(outcomes))
    if options.plot:
        plot_ratios(outcomes, options.plot)
    print(cores_table(outcomes) if options.cores else bench_table(outcomes))
    for path in filter(None, (options.json, options.plot)):
        print(f"wrote {path}")
    return 0


COMMANDS = (
    Command(
        "record",
        "simulate a student and keep every spike",
        "Simulate the student of a run on a few dev sentences and write every population's spikes, with the tokens and "
        "parameters, as one safetensors file that `refsnn certify` reads.",
        _record_options,
        _record,
        "example: refsnn record runs/sst2 --t-conv 32 --out spikes.safetensors",
    ),
    Command(
        "certify",
        "check every spike decision of a record, whoever made it",
        "Decide every spike decision of a record: consistent with the equations, within rounding, or wrong. Nothing is "
        "simulated again. Exit status 1 if a decision is wrong.",
        _certify_options,
        _certify,
        "docs/certificates.md describes the file and derives the rounding bounds",
        {
            "decisions": "neurons times steps: whether each fired",
            "spikes": "decisions to fire",
            "ties": "potentials that exact arithmetic puts on the threshold",
            "undecidable": "decisions that rounding alone could turn: no certificate can check them",
            "by rounding": "of these, the ones that differ from ours: either answer is right",
            "wrong": "decisions that rounding cannot explain",
            "largest bound": "how far rounding may have moved a potential",
        },
    ),
    Command(
        "diff",
        "find where two spike records part",
        "Find the first decision in which two records differ, and say what the neuron read, its current and its "
        "potential there. Exit status 1 if they differ.",
        _diff_options,
        _diff,
        "example: refsnn diff ours.safetensors theirs.safetensors --plot potential.svg",
    ),
    Command(
        "conform",
        "test a backend against the specification",
        "Put every conformance case to a backend. Exit status 1 if one fails that was not foreseen.",
        _conform_options,
        _conform,
        "docs/test-your-backend.md shows how to write an adapter; "
        "example: refsnn conform mypackage.adapter --html report.html",
        {
            "level": "what the cases are about: neurons, operations, populations, encoders, networks, distillation",
            "passed": "the answer is right, within the tolerance of its precision",
            "failed": "it is not, or there is none",
            "xfailed": "it is not, as the file --xfails says",
            "xpassed": "it is right, though the file --xfails says otherwise: take the line out",
            "skipped": "not asked, as the file --skips says",
            "unsupported": "the adapter has no such function, or says that it lacks the feature; counts as not passed",
        },
    ),
    Command(
        "golden",
        "reference values for other programs, as files",
        "Write the conformance cases with their answers as a folder of safetensors and a manifest, for programs in any "
        "language; or compute a bundle again and compare every number.",
        _golden_options,
        _golden,
        "docs/golden.md describes the files",
    ),
    Command(
        "parity",
        "check numbers recorded from another program",
        "Recompute rates, losses and gradients of recorded cases and certify their spikes. Exit status 1 if a quantity "
        "differs by more than the tolerance or a spike decision cannot be explained by rounding.",
        _parity_options,
        _parity,
        columns={
            "quantity": "a rate, loss, gradient or population's spikes of the case",
            "absolute": "largest difference of an entry",
            "relative": "the same, relative to the quantity's largest entry",
            "unexplained": "in place of both, of spikes: decisions that rounding cannot explain",
        },
    ),
    Command(
        "bench",
        "time refsnn beside backends and beside the matrix products alone",
        "Time refsnn, the bare matrix products and backends, taking turns, each in a process of its own, and print the "
        "ratios of their medians.",
        _bench_options,
        _bench,
        "docs/performance.md explains the works; example: refsnn bench simulate --against mypackage.adapter",
        {
            "seconds": "median of the turns",
            "range": "fastest and slowest turn",
            "MB": "most memory that was in use",
            "refsnn / it": "refsnn's time and memory over the other's: below 1 refsnn is faster, or smaller",
        },
    ),
)
