"""Reports of a conformance run: text for the terminal, JSON for programs, one self-contained page for people."""

from __future__ import annotations

import html
import os
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .._version import __version__
from ..files import write_json, write_text
from .judge import Exemption, Result
from .requirements import REQUIREMENTS

__all__ = ["stale", "status_counts", "text_report", "write_html_report", "write_json_report"]

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


def text_report(name: str, results: Sequence[Result], warnings: Sequence[str] = ()) -> str:
    """Lay a run out for the terminal.

    Parameters
    ----------
    name : str
        The backend's.
    results : sequence of Result
    warnings : sequence of str

    Returns
    -------
    text : str
    """
    lines = []
    for r in results:
        if r.status in ("failed", "xfailed", "xpassed"):
            lines.append(f"{r.status.upper():<8}{r.id}")
            lines += textwrap.wrap(r.message, 112, initial_indent=8 * " ", subsequent_indent=8 * " ")
    lines += [f"WARNING {warning}" for warning in warnings]
    lines += ["", f"{'level':<14}" + "".join(f"{status:>13}" for status in STATUSES)]
    for level, counts in status_counts(results).items():
        if any(counts.values()):
            lines.append(f"{level:<14}" + "".join(f"{counts[status] or '·':>13}" for status in STATUSES))
    passed = sum(r.status == "passed" for r in results)
    rounded = sum(r.by_rounding for r in results)
    lines += ["", f"{name}: {passed} of {len(results)} cases passed"
              + (f"; {rounded} spike decisions differ within rounding" if rounded else "")]  # fmt: skip
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
    about = {"backend": name, "refsnn": __version__, **settings, "passed": sum(r.status == "passed" for r in results)}
    write_json(path, about | {"cases": len(results), "warnings": list(warnings), "results": rows})


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-weight: 600; margin-bottom: 0; } h2 { margin-top: 2.2rem; font-size: 1.2rem; }
p.sub { color: #555; margin-top: 0; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; vertical-align: top; }
th { border-bottom: 2px solid #ccc; font-weight: 600; } tr + tr td { border-top: 1px solid #eee; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } code { font-size: .9em; white-space: nowrap; }
.s { display: inline-block; min-width: 6.2rem; padding: 0 .5rem; border-radius: .3rem; font-size: .85rem;
  text-align: center; }
.passed { background: #d7ebf7; } .failed, .xpassed { background: #f7d9c4; font-weight: 600; }
.xfailed { background: #f6e7c8; } .skipped, .unsupported { background: #eee; color: #555; }
details { margin: .3rem 0; } summary { cursor: pointer; }
"""


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
    e = html.escape
    passed = sum(r.status == "passed" for r in results)
    about = ", ".join(f"{key} {value}" for key, value in settings.items())
    page = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{e(name)}: conformance</title><style>{STYLE}</style><h1>{e(name)}</h1>",
        f"<p class=sub>{passed} of {len(results)} cases passed · refsnn {__version__} · {e(about)}</p>",
    ]
    page += [f"<p>⚠ {e(warning)}</p>" for warning in warnings]
    shown = [status for status in STATUSES if any(r.status == status for r in results)]
    page.append("<table><tr><th>level" + "".join(f"<th class=n>{status}" for status in shown))
    for level, counts in status_counts(results).items():
        if any(counts.values()):
            page.append(f"<tr><td>{level}" + "".join(f"<td class=n>{counts[status] or '·'}" for status in shown))
    page.append("</table>")
    failures = [r for r in results if r.status in ("failed", "xfailed", "xpassed")]
    if failures:
        page.append("<h2>What failed</h2><table><tr><th>case<th>precision<th>outcome<th>what was found")
        page += [
            f"<tr><td><code>{e(r.case)}</code><td>{r.dtype}<td>{_mark(r.status)}<td>{e(r.message)}" for r in failures
        ]
        page.append("</table>")
    page.append("<h2>Requirements</h2><table><tr><th>id<th>requirement<th class=n>passed<th>cases")
    for requirement in REQUIREMENTS.values():
        own = [r for r in results if r.requirement == requirement.id]
        if own:
            cases = "".join(
                f"<div>{_mark(r.status)} <code>{e(r.id)}</code> "
                f"{'' if r.status != 'passed' else f'{r.worst:.2f} of the tolerance' if r.worst else ''}</div>"
                for r in own
            )
            good = sum(r.status == "passed" for r in own)
            page.append(
                f"<tr><td>{requirement.id}<td>{e(requirement.title)}<td class=n>{good} of {len(own)}"
                f"<td><details><summary>{len(own)} cases</summary>{cases}</details>"
            )
    page.append("</table></html>")
    write_text(path, "\n".join(page))


def _mark(status: str) -> str:
    return f"<span class='s {status}'>{status}</span>"
