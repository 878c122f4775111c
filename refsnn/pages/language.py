"""What `refsnn gpt` shows: a table of how well text is predicted, and a page of a sentence and its spikes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["text_table"]


def text_table(results: Mapping[str, Any]) -> str:
    """Lay out the results of `refsnn.evaluation.perplexity.evaluate_gpt` for a terminal.

    Parameters
    ----------
    results : dict

    Returns
    -------
    text : str
    """
    where = f"the {results['split']} split" if results["split"] else "the text given"
    lines = [
        f"{where}: {results['tokens']:,} tokens, {results['characters']:,} characters; rule {results['rule']}",
        "",
        f"{'':<14}{'perplexity':>12}{'bits/char':>12}{'as teacher':>12}{'firing':>9}{'gain':>8}{'full':>8}",
    ]
    rows = [
        (name.replace("_", " "), results[name])
        for name in ("unigram", "trigram", "teacher", "rate_map")
        if name in results
    ]
    rows += [(f"T = {t}", found) for t, found in results.get("spikes", {}).items()]
    for name, found in rows:
        line = f"{name:<14}{found['perplexity']:>12.2f}{found['bits_per_character']:>12.3f}"
        line += f"{100 * found['agreement']:>11.1f}%" if "agreement" in found else ""
        line += f"{found['firing']:>9.2f}{found['gain']:>8.2f}{found['full_gain']:>8.2f}" if "firing" in found else ""
        lines.append(line)
    return "\n".join(lines)
