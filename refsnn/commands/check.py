"""Commands that check numbers and spikes, whoever computed them."""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
from dataclasses import asdict
from typing import Any

from .command import Command, add_data, add_rule, add_run, add_samples, add_seed, progress_bar

__all__ = ["COMMANDS"]

#: Precisions by name; `refsnn.ops.rounding.PRECISIONS` has their bounds.
PRECISIONS = ("float64", "float32", "float16", "bfloat16")


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
    parser.add_argument("--json", metavar="FILE", help="write the verdicts as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw the margins as an SVG picture")


def _certify(options: Any) -> int:
    from ..files import write_json
    from ..pages.figures.checks import plot_margins
    from ..pages.tables import margin_histogram, verdict_table
    from ..storage.records import certify_record, verdicts_to_dict

    record, verdicts = certify_record(options.record, options.params, options.dtype, options.accumulate, options.block)
    if options.json:
        about = {"rule": record.rule, "precision": asdict(record.precision)}
        write_json(options.json, about | verdicts_to_dict(verdicts))
    if options.plot:
        plot_margins(verdicts, options.plot)
    print(f"{options.record}: {record.precision.name}, rule {record.rule}\n")
    print(f"{verdict_table(verdicts)}\n\n{margin_histogram(verdicts)}")
    return 1 if any(v.wrong for v in verdicts.values()) else 0


#: Help of the option that names a suite.
SUITE = "sizes, or signed spikes in place of the paper's (default: %(default)s)"


def _conform_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", metavar="MODULE", help="module (or module:object) with the adapter's functions")
    parser.add_argument("--suite", choices=("tiny", "base", "signed"), default="tiny", help=SUITE)
    add_seed(parser, "fixes every number")
    parser.add_argument("--dtype", nargs="+", choices=PRECISIONS, help="precisions (default: the adapter's)")
    parser.add_argument("--only", metavar="PATTERN", help="cases whose id matches, such as 'neurons/*'")
    parser.add_argument("--skips", metavar="FILE", help="ids not to ask, one a line, each with a reason after #")
    parser.add_argument("--xfails", metavar="FILE", help="ids known to fail, one a line, each with a reason after #")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON")
    parser.add_argument("--html", metavar="FILE", help="write the results as a page")


def _conform(options: Any) -> int:
    from ..conformance.cases import cases
    from ..conformance.judge import conform, load_adapter, read_exemptions
    from ..conformance.report import stale, text_report, write_html_report, write_json_report
    from ..errors import InputError
    from ..files import require

    if options.html:
        require("jinja2")  # before the cases run, not after
    sys.path.insert(0, os.getcwd())  # an adapter in the folder one works in, as `python -m` would find it
    adapter = load_adapter(options.adapter)
    skips, xfails = read_exemptions(options.skips), read_exemptions(options.xfails)
    chosen = [c for c in cases(options.suite, options.seed) if fnmatch.fnmatchcase(c.id, options.only or "*")]
    if not chosen:
        raise InputError(f"no case is called {options.only!r}; ids look like neurons/ties or op/gelu")
    results: list[Any] = []
    with progress_bar(len(chosen), "case") as update:
        for case in chosen:
            results += conform(adapter, [case], options.dtype, skips, xfails)
            update(1)
    name = getattr(adapter, "name", options.adapter)
    warnings = [] if options.only else stale(results, skips, xfails)
    about = {"suite": options.suite, "seed": options.seed}
    written = []
    for path, write in ((options.json, write_json_report), (options.html, write_html_report)):
        if path:
            write(path, name, results, warnings, about)
            written.append(path)
    print(text_report(name, results, warnings))
    for path in written:
        print(f"wrote {path}")
    return 1 if any(result.status == "failed" for result in results) else 0


def _golden_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    write = actions.add_parser("write", help="write a bundle", description="Write a golden bundle.")
    write.add_argument("folder", metavar="DIR", help="folder to write into")
    write.add_argument("--suite", choices=("tiny", "base", "signed"), default="tiny", help=SUITE)
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
        with progress_bar(4, "round") as update:
            measured = scaling(3, update)
        plot_scaling(measured, options.scaling)
        print(f"wrote {options.scaling}")
        return 0
    works = options.works or [name for name in WORKS if name not in LONG]
    counts = _counts(options.cores)
    outcomes = []
    with progress_bar(len(counts) * len(works) * (options.repetitions + 1), "round") as update:
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
        "simulated again. A decision is undecidable where the potential is so near the threshold that rounding alone "
        "could decide either way. Exit status 1 if a decision is wrong.",
        _certify_options,
        _certify,
        "docs/certificates.md describes the file and derives the rounding bounds",
    ),
    Command(
        "conform",
        "test a backend against the specification",
        "Put every conformance case to a backend. Exit status 1 if one fails that was not foreseen.",
        _conform_options,
        _conform,
        "docs/test-your-backend.md shows how to write an adapter; "
        "example: refsnn conform mypackage.adapter --html report.html",
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
    ),
    Command(
        "bench",
        "time refsnn beside backends and beside the matrix products alone",
        "Time refsnn, the bare matrix products and backends, taking turns, each in a process of its own, and print the "
        "ratios of their medians.",
        _bench_options,
        _bench,
        "docs/performance.md explains the works; example: refsnn bench simulate --against mypackage.adapter",
    ),
)
