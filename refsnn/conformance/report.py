"""Reports of a conformance run: text for the terminal, JSON for programs, one self-contained page for people."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .._version import __version__
from ..files import write_json, write_text
from ..pages.document import render
from .cases import SUITES
from .judge import Exemption, Result
from .requirements import REQUIREMENTS

__all__ = [
    "RESULTS",
    "nothing_tested",
    "stale",
    "status_counts",
    "text_report",
    "write_badge",
    "write_html_report",
    "write_json_report",
]

#: JSON schema of the results (https://json-schema.org, draft 2020-12).
RESULTS: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Results of refsnn conform",
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "backend", "refsnn", "suite", "version", "seed", "cases_hash", "passed", "cases", "warnings",
                 "results"],
    "properties": {
        "schema": {"const": "refsnn.conformance/1"},
        "backend": {"type": "string"},
        "refsnn": {"type": "string"},
        "suite": {"enum": list(SUITES)},
        "version": {"type": "integer", "minimum": 1},
        "seed": {"type": ["integer", "string"], "description": "one seed, or a range such as 0-9"},
        "cases_hash": {"type": "string", "description": "the same where the same was asked"},
        "passed": {"type": "integer", "minimum": 0},
        "cases": {"type": "integer", "minimum": 0},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["case", "dtype", "requirement", "status", "message", "worst", "level", "by_rounding",
                             "undecidable", "trace"],
                "properties": {
                    "case": {"type": "string"},
                    "dtype": {"type": "string"},
                    "requirement": {"type": "string", "pattern": "^S-[0-9]+$"},
                    "status": {"enum": ["passed", "failed", "xfailed", "xpassed", "skipped", "unsupported"]},
                    "message": {"type": "string"},
                    "worst": {"type": ["number", "null"], "description": "difference in units of its tolerance"},
                    "level": {"type": "string"},
                    "by_rounding": {"type": "integer", "minimum": 0},
                    "undecidable": {"type": "number", "minimum": 0, "maximum": 1},
                    "trace": {"type": "string"},
                },
            },
        },
    },
}  # fmt: skip
STATUSES = ("passed", "failed", "xfailed", "xpassed", "skipped", "unsupported")
LEVELS = ("neuron", "op", "population", "encoder", "network", "distillation")


def status_counts(results: Sequence[Result]) -> dict[str, dict[str, int]]:
    """Count results by level and status.

    Parameters
    ----------
    results : sequence of Result

    Returns
    -------
    counts : dict
        Level -> status -> number; what is unsupported or skipped is counted like all else.
    """
    counts = Counter((r.level, str(r.status)) for r in results)
    return {level: {status: counts[level, status] for status in STATUSES} for level in LEVELS}


def stale(results: Sequence[Result], skips: Sequence[Exemption], xfails: Sequence[Exemption]) -> list[str]:
    """Sentences about rules that no longer apply.

    Parameters
    ----------
    results : sequence of Result
    skips, xfails : sequences of Rule
        After the run, which marks those that were used.

    Returns
    -------
    warnings : list of str
    """
    found = [f"{r.pattern!r} matches no case; remove it or correct it" for r in (*skips, *xfails) if not r.used]
    return found + [f"{r.id} {r.message}; remove it from the xfails" for r in results if r.status == "xpassed"]


def nothing_tested(results: Sequence[Result]) -> str:
    """Say that a run has shown nothing; empty if a case was answered.

    Parameters
    ----------
    results : sequence of Result

    Returns
    -------
    sentence : str
    """
    if any(r.status not in ("skipped", "unsupported") for r in results):
        return ""
    counts = Counter(str(r.status) for r in results)
    what = " and ".join(f"{n} {status}" for status, n in counts.items()) or "no case has a precision that was asked for"
    return f"nothing was tested: {what}"


def text_report(name: str, results: Sequence[Result], warnings: Sequence[str] = (), traces: bool = False) -> str:
    """Lay a run out for the terminal.

    Parameters
    ----------
    name : str
        The backend's.
    results : sequence of Result
    warnings : sequence of str
    traces : bool
        Whether the tracebacks of exceptions follow.

    Returns
    -------
    text : str
    """
    lines = []
    for r in results:
        if r.status in ("failed", "xfailed", "xpassed"):
            lines.append(f"{r.status.upper():<8}{r.id}")
            lines += textwrap.wrap(r.message, 112, initial_indent=8 * " ", subsequent_indent=8 * " ")
            lines += textwrap.indent(r.trace.rstrip(), 8 * " ").splitlines() if traces else []
    lines += [f"WARNING {warning}" for warning in warnings]
    lines += ["", f"{'level':<14}" + "".join(f"{status:>13}" for status in STATUSES)]
    for level, counts in status_counts(results).items():
        if any(counts.values()):
            lines.append(f"{level:<14}" + "".join(f"{counts[status] or '·':>13}" for status in STATUSES))
    passed = sum(r.status == "passed" for r in results)
    rounded = sum(r.by_rounding for r in results)
    lines += ["", f"{name}: {passed} of {len(results)} cases passed"
              + (f"; {rounded} spike decisions differ within rounding" if rounded else "")]  # fmt: skip
    if open_ := [r for r in results if r.undecidable]:
        most = max(open_, key=lambda r: r.undecidable)
        lines += [
            f"of spike decisions up to {most.undecidable:.1%} could not be decided ({most.id}): either answer passes"
        ]
    return "\n".join(lines)


def write_json_report(
    path: str | os.PathLike, name: str, results: Sequence[Result], warnings: Sequence[str], settings: Mapping[str, Any]
) -> None:
    """Write a run as JSON.

    Parameters
    ----------
    path : path
    name : str
    results : sequence of Result
    warnings : sequence of str
    settings : mapping
        Suite, seed and whatever else fixed the cases.
    """
    rows = [asdict(r) | {"worst": r.worst if r.worst < float("inf") else None} for r in results]
    for row in rows:
        del row["bare"], row["guess"]
    about = {
        "schema": "refsnn.conformance/1",
        "backend": name,
        "refsnn": __version__,
        **settings,
        "passed": sum(r.status == "passed" for r in results),
    }
    write_json(path, about | {"cases": len(results), "warnings": list(warnings), "results": rows})


def write_badge(
    path: str | os.PathLike, name: str, results: Sequence[Result], warnings: Sequence[str], settings: Mapping[str, Any]
) -> None:
    """Write how many cases passed as a badge.

    Parameters
    ----------
    path : path
    name, results, warnings, settings
        As in `write_json_report`.
    """
    passed = sum(r.status == "passed" for r in results)
    right = f"{passed}/{len(results)}"
    colour = "#2e7d32" if results and passed == len(results) else "#b26a00" if passed else "#b71c1c"
    left = f"refsnn {settings.get('suite', '')} v{settings.get('version', '')}"
    width, other = 7 * len(left) + 12, 7 * len(right) + 12
    write_text(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + other}" height="20" role="img" '
        f'aria-label="{left}: {right} cases passed"><title>{left}: {right} cases passed</title>'
        f'<rect width="{width}" height="20" fill="#555"/><rect x="{width}" width="{other}" height="20" '
        f'fill="{colour}"/><g fill="#fff" font-family="Verdana,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{width / 2:g}" y="14">{left}</text>'
        f'<text x="{width + other / 2:g}" y="14">{right}</text></g></svg>\n',
    )


def write_html_report(
    path: str | os.PathLike, name: str, results: Sequence[Result], warnings: Sequence[str], settings: Mapping[str, Any]
) -> None:
    """Write a run as one self-contained page: what failed first, then every requirement.

    Parameters
    ----------
    path : path
    name, results, warnings, settings
        As in `write_json_report`.
    """
    statuses = [status for status in STATUSES if any(r.status == status for r in results)]
    requirements = []
    for requirement in REQUIREMENTS.values():
        if own := [r for r in results if r.requirement == requirement.id]:
            without = all(r.status in ("unsupported", "skipped") for r in own)
            requirements.append((requirement, own, sum(r.status == "passed" for r in own), without))
    page = render(
        "conformance.html",
        name=name,
        version=__version__,
        settings=settings,
        warnings=warnings,
        cases=len(results),
        passed=sum(r.status == "passed" for r in results),
        statuses=statuses,
        levels=[
            [level, *(str(counts[status] or "·") for status in statuses)]
            for level, counts in status_counts(results).items()
            if any(counts.values())
        ],
        failures=[
            (r, REQUIREMENTS[r.requirement], r.message.removesuffix(f"See {REQUIREMENTS[r.requirement].link}").rstrip())
            for r in results
            if r.status in ("failed", "xfailed", "xpassed")
        ],
        requirements=requirements,
    )
    write_text(path, page)
